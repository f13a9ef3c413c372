//! The egress of an in-process VM: a token bucket whose rate can change at any time.

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Mutex, watch},
    time::Instant,
};
use vibra_model::BytesPerSec;

/// One token is this many bytes: large enough for the time between two tokens to be exact at any usual rate.
const TOKEN: u64 = 1024;
/// The most tokens that are taken at once; more are taken in several steps.
const STEP: u32 = 32;
/// The bucket holds one step and what flows in this time, which covers the coarseness of timers.
const SLACK: Duration = Duration::from_millis(10);
/// Lateness up to this is made up for; what a longer standstill missed is lost.
const LONGEST_LAG: Duration = Duration::from_millis(250);

/// The time at which a bucket serves: never before a request came, and never later than it could have been served.
/// So a short lateness of timers and of the scheduler is made up for as long as somebody waits.
#[derive(Debug, Clone)]
struct QueueClock {
    began: Instant,
    /// Nanoseconds since `began`.
    serving: Arc<AtomicU64>,
}

impl QueueClock {
    fn new() -> Self {
        QueueClock { began: Instant::now(), serving: Arc::default() }
    }

    fn advance(&self, to: Instant) {
        let to = to.max(Instant::now().checked_sub(LONGEST_LAG).unwrap_or(self.began));
        let nanos = u64::try_from(to.duration_since(self.began).as_nanos()).unwrap_or(u64::MAX);
        self.serving.fetch_max(nanos, Relaxed);
    }
}

impl Clock for QueueClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.serving.load(Relaxed))
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, QueueClock, NoOpMiddleware<Duration>>;

/// A bucket that starts empty, so that a change of rate never gives anything away.
fn limiter(rate: BytesPerSec, clock: QueueClock) -> Limiter {
    let rate = rate.0.max(1);
    let per_token = Duration::from_nanos((TOKEN * 1_000_000_000).div_ceil(rate).max(1));
    let slack = u32::try_from(u128::from(rate) * SLACK.as_millis() / 1000 / u128::from(TOKEN)).unwrap_or(u32::MAX);
    let burst = NonZeroU32::new(STEP.saturating_add(slack)).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(per_token).expect("a period above zero").allow_burst(burst);
    let limiter = Limiter::direct_with_clock(quota, clock);
    let drained = limiter.check_n(burst);
    debug_assert!(matches!(drained, Ok(Ok(()))), "a new bucket is full");
    limiter
}

/// Lets bytes pass at a rate; those who wait are served in the order of their coming.
pub(crate) struct TokenBucket {
    clock: QueueClock,
    /// `None`: not limited.
    limiter: watch::Sender<Option<Arc<Limiter>>>,
    /// Whoever holds it is next. It carries the bytes that passed and are less than a token.
    turn: Mutex<u64>,
}

impl TokenBucket {
    /// A bucket of this rate; `None`: not limited.
    pub(crate) fn new(rate: Option<BytesPerSec>) -> Self {
        let clock = QueueClock::new();
        let limiter = rate.map(|rate| Arc::new(limiter(rate, clock.clone())));
        TokenBucket { clock, limiter: watch::Sender::new(limiter), turn: Mutex::new(0) }
    }

    /// Changes the rate, also for those who wait.
    pub(crate) fn set_rate(&self, rate: BytesPerSec) {
        self.clock.advance(Instant::now());
        self.limiter.send_replace(Some(Arc::new(limiter(rate, self.clock.clone()))));
    }

    /// Waits until `bytes` may pass.
    pub(crate) async fn take(&self, bytes: u64) {
        let came = Instant::now();
        let mut carry = self.turn.lock().await;
        self.clock.advance(came);
        let due = *carry + bytes;
        let mut tokens = due / TOKEN;
        while tokens > 0 {
            let step = tokens.min(STEP.into()) as u32;
            self.take_tokens(step).await;
            tokens -= u64::from(step);
        }
        *carry = due % TOKEN;
    }

    async fn take_tokens(&self, count: u32) {
        let Some(count) = NonZeroU32::new(count) else { return };
        let mut limiters = self.limiter.subscribe();
        loop {
            let Some(limiter) = limiters.borrow_and_update().clone() else { return };
            let Ok(answer) = limiter.check_n(count) else { unreachable!("a bucket holds more than a step") };
            let Err(not_until) = answer else { return };
            let due = self.clock.began + not_until.earliest_possible();
            tokio::select! {
                () = tokio::time::sleep_until(due) => self.clock.advance(due),
                changed = limiters.changed() => debug_assert!(changed.is_ok(), "the sender is in self"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    async fn measured(bucket: &TokenBucket, chunk: u64, count: u64) -> f64 {
        let start = Instant::now();
        for _ in 0..count {
            bucket.take(chunk).await;
        }
        (chunk * count) as f64 / start.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_held_within_half_a_percent() {
        let cases = [(50_000, 100), (50_000, 16_384), (2_700_000, 300), (2_700_000, 16_384), (80_000_000, 100_000)];
        for (rate, chunk) in cases {
            let bucket = TokenBucket::new(Some(BytesPerSec(rate)));
            let got = measured(&bucket, chunk, rate * 10 / chunk).await;
            assert!((got / rate as f64 - 1.0).abs() < 0.005, "{got} of {rate} in chunks of {chunk}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_was_not_used_is_lost_but_for_a_small_burst() {
        let bucket = TokenBucket::new(Some(BytesPerSec(1_000_000)));
        tokio::time::sleep(Duration::from_secs(60)).await;
        let got = measured(&bucket, 10_000, 100).await;
        assert!(got < 1_060_000.0, "{got}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_rate_reaches_who_waits() {
        let bucket = TokenBucket::new(Some(BytesPerSec(1)));
        let start = Instant::now();
        let raise = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bucket.set_rate(BytesPerSec(1_000_000));
        };
        tokio::join!(bucket.take(100_000), raise);
        assert!(start.elapsed() < Duration::from_millis(1_150), "{:?}", start.elapsed());
        bucket.set_rate(BytesPerSec(10_000));
        let got = measured(&bucket, 10_000, 10).await;
        assert!((9_900.0..10_200.0).contains(&got), "{got}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_take_turns() {
        let bucket = Arc::new(TokenBucket::new(Some(BytesPerSec(1_000_000))));
        let (passed, mut order) = mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for who in 0..3 {
            let (bucket, passed) = (bucket.clone(), passed.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..4 {
                    bucket.take(16_384).await;
                    passed.send(who).unwrap();
                }
            }));
        }
        drop(passed);
        let mut seen = Vec::new();
        while let Some(who) = order.recv().await {
            seen.push(who);
        }
        for round in seen.chunks(3) {
            let mut round = round.to_vec();
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2], "{seen:?}");
        }
    }
}

//! How a server that comes back gets its requests: few at first, for its cache is cold, and more from step to step.

use std::time::{Duration, Instant};
use vibra_routing::Warmth;

/// The longest time from one share to the next.
const STEP: Duration = Duration::from_secs(1);
/// The least number of steps.
const STEPS: u32 = 20;

/// Where one server is on its way.
#[derive(Debug, Default)]
pub(crate) struct Warmup {
    /// Since when it is in use; `None` while it is not.
    since: Option<Instant>,
    /// Whether it began with a cold cache, others having warm ones.
    cold: bool,
}

/// What the other servers are like when one comes into use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// None of them knows the objects any better.
    Cold,
    /// One at least has been in use for so long that it does.
    Warm,
}

impl Warmup {
    /// It is in use, and has been if it was already.
    pub(crate) fn begin(&mut self, now: Instant, others: Others) {
        if self.since.is_none() {
            (self.since, self.cold) = (Some(now), others == Others::Warm);
        }
    }

    /// It is out of use, and its cache is lost.
    pub(crate) fn end(&mut self) {
        *self = Warmup::default();
    }

    /// The share of its objects that it gets, of a way that takes `whole`: growing evenly, by one step from the start.
    pub(crate) fn warmth(&self, now: Instant, whole: Duration) -> Warmth {
        let Some(since) = self.since.filter(|_| self.cold && !whole.is_zero()) else { return Warmth::FULL };
        let gone = now.saturating_duration_since(since) + step(whole);
        let share = gone.as_nanos() * u128::from(Warmth::FULL.get()) / whole.as_nanos();
        u16::try_from(share).map_or(Warmth::FULL, Warmth::per_mille)
    }

    /// Whether it has been in use for so long that it is warm in any case.
    pub(crate) fn is_seasoned(&self, now: Instant, whole: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= whole)
    }
}

/// From one share to the next.
pub(crate) fn step(whole: Duration) -> Duration {
    STEP.min(whole / STEPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: Duration = Duration::from_secs(30);

    #[test]
    fn shares_grow_evenly_from_one_step_to_all() {
        let mut warmup = Warmup::default();
        let start = Instant::now();
        assert_eq!(warmup.warmth(start, WHOLE), Warmth::FULL, "out of use, nothing is said of it");
        warmup.begin(start, Others::Warm);
        let at = |seconds| warmup.warmth(start + Duration::from_secs(seconds), WHOLE).get();
        assert_eq!([0, 1, 14, 28, 29, 1000].map(at), [33, 66, 500, 966, 1000, 1000]);
        assert_eq!(warmup.warmth(start, Duration::ZERO), Warmth::FULL);
        let short = Duration::from_millis(200);
        assert_eq!(warmup.warmth(start, short).get(), 50);
    }

    #[test]
    fn who_comes_back_begins_anew_and_who_stays_goes_on() {
        let (mut warmup, start) = (Warmup::default(), Instant::now());
        warmup.begin(start, Others::Warm);
        warmup.begin(start + WHOLE / 2, Others::Warm);
        assert_eq!(warmup.warmth(start + WHOLE, WHOLE), Warmth::FULL);
        assert!(warmup.is_seasoned(start + WHOLE, WHOLE) && !warmup.is_seasoned(start, WHOLE));
        warmup.end();
        warmup.begin(start + WHOLE, Others::Warm);
        assert!(warmup.warmth(start + WHOLE, WHOLE) < Warmth::FULL);
        warmup.end();
        warmup.begin(start + WHOLE, Others::Cold);
        assert_eq!(warmup.warmth(start + WHOLE, WHOLE), Warmth::FULL);
    }
}

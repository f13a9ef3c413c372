//! How many requests a client makes a second.

use super::Block;
use crate::limits::RateLimit;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use lru::LruCache;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

/// So many clients can be looked up at once without waiting for each other.
const SHARDS: usize = 32;

/// Whose requests count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key<'a> {
    /// Those of a client's address.
    Address(Block),
    /// Those with this value of some header.
    Value(&'a [u8]),
}

impl From<IpAddr> for Key<'_> {
    fn from(address: IpAddr) -> Self {
        Key::Address(address.into())
    }
}

/// A rate of requests for each key, over all threads (generic cell rate algorithm).
#[derive(Debug)]
pub(crate) struct Rate<C: Clock = MonotonicClock> {
    limiter: RateLimiter<u64, Recent, C, NoOpMiddleware<C::Instant>>,
    /// Keys are known by their hash alone: they may be long, and there may be many. The hash has a secret of this
    /// process in it, so nobody can choose keys that are taken for each other.
    hasher: RandomState,
}

impl<C: Clock> Rate<C> {
    pub(crate) fn new(limit: &RateLimit, clock: C) -> Self {
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        Rate { limiter: RateLimiter::new(quota, Recent::new(limit.clients), clock), hasher: RandomState::new() }
    }

    /// Counts a request, unless it comes too soon.
    pub(crate) fn allows(&self, key: Key<'_>) -> bool {
        self.limiter.check_key(&self.hasher.hash_one(key)).is_ok()
    }
}

/// What the keys seen last have used up. The others have used up nothing, or are forgotten: memory has a bound,
/// whatever keys clients make up.
#[derive(Debug)]
struct Recent(Box<[Mutex<LruCache<u64, Nanos>>]>);

impl Recent {
    fn new(keys: NonZeroUsize) -> Self {
        let shards = SHARDS.min(keys.get());
        let each = NonZeroUsize::new(keys.get() / shards).unwrap_or(NonZeroUsize::MIN);
        Recent((0..shards).map(|_| Mutex::new(LruCache::sparse(each))).collect())
    }
}

impl StateStore for Recent {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let shard = &self.0[*key as usize % self.0.len()];
        let mut recent = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, state) = f(recent.get(key).copied())?;
        recent.put(*key, state);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use governor::clock::FakeRelativeClock;
    use std::num::NonZeroU32;
    use std::time::Duration;

    fn rate(per_second: u32, burst: u32, keys: usize) -> (Rate<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let number = |n| NonZeroU32::new(n).unwrap();
        let clients = NonZeroUsize::new(keys).unwrap();
        let limit = RateLimit { per_second: number(per_second), burst: number(burst), header: None, clients };
        (Rate::new(&limit, clock.clone()), clock)
    }

    fn ip(text: &str) -> Key<'static> {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn passed(rate: &Rate<FakeRelativeClock>, key: Key<'_>) -> usize {
        (0..100).filter(|_| rate.allows(key)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let (rate, clock) = rate(2, 5, 100);
        assert_eq!(passed(&rate, ip("192.0.2.1")), 5);
        clock.advance(Duration::from_millis(499));
        assert!(!rate.allows(ip("192.0.2.1")));
        clock.advance(Duration::from_millis(1));
        assert!(rate.allows(ip("192.0.2.1")));
        clock.advance(Duration::from_secs(1));
        assert_eq!(passed(&rate, ip("192.0.2.1")), 2);
        clock.advance(Duration::from_secs(1000));
        assert_eq!(passed(&rate, ip("192.0.2.1")), 5);
    }

    #[test]
    fn each_client_has_a_rate_of_its_own() {
        let (rate, _) = rate(1, 3, 100);
        assert_eq!(passed(&rate, ip("192.0.2.1")), 3);
        assert_eq!(passed(&rate, ip("192.0.2.2")), 3);
        assert_eq!(passed(&rate, ip("2001:db8::1")), 3);
        assert_eq!(passed(&rate, ip("2001:db8::2")), 0);
        assert_eq!(passed(&rate, Key::Value(b"a")), 3);
        assert_eq!(passed(&rate, Key::Value(b"b")), 3);
        assert_eq!(passed(&rate, Key::Value(b"a")), 0);
    }

    #[test]
    fn no_more_keys_are_remembered_than_there_is_room_for() {
        let (rate, _) = rate(1, 1, 64);
        for host in 0..=u16::MAX {
            rate.allows(Key::Value(&host.to_be_bytes()));
        }
        let known = |shard: &Mutex<LruCache<_, _>>| shard.lock().unwrap().len();
        let recent = rate.limiter.into_state_store();
        assert!(recent.0.iter().map(known).sum::<usize>() <= 64);
    }

    #[test]
    fn who_comes_again_and_again_is_not_forgotten_for_those_who_came_once() {
        let (rate, _) = rate(1, 1, 3200);
        assert!(rate.allows(ip("192.0.2.1")));
        for host in 0..10_000u32 {
            rate.allows(Key::Value(&host.to_be_bytes()));
            assert!(!rate.allows(ip("192.0.2.1")));
        }
    }
}

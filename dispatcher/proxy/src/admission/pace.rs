//! Whether a body moves fast enough.

use std::cell::Cell;
use std::time::Duration;

/// The least rate of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Least {
    /// Bytes a second; 0 asks for nothing.
    pub(crate) rate: u64,
    /// How far a body may fall behind, in time.
    pub(crate) grace: Duration,
}

/// How far one side of a body is behind [`Least`]: it owes the time that it was waited for, and each byte pays for
/// 1/rate of a second. Nothing can be paid in advance, so that a fast start buys no slow end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    behind: Duration,
}

impl Pace {
    /// Takes down that the side was waited for during `waited` (not while the other side was) and that `bytes` moved
    /// meanwhile. Returns whether it is too slow.
    pub(crate) fn observe(&mut self, least: &Least, waited: Duration, bytes: u64) -> bool {
        if least.rate == 0 {
            return false;
        }
        let paid = Duration::try_from_secs_f64(bytes as f64 / least.rate as f64).unwrap_or(Duration::MAX);
        self.behind = self.behind.saturating_add(waited).saturating_sub(paid);
        self.behind > least.grace
    }
}

/// The client's part in one direction of an exchange: the exchange reports, and the clock looks at it now and then.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    bytes: Cell<u64>,
    awaited: Cell<bool>,
    /// The bytes at the last look.
    seen: Cell<u64>,
    pace: Cell<Pace>,
}

impl Flow {
    /// Begins anew.
    pub(crate) fn reset(&self) {
        self.report(0, false);
        self.seen.set(0);
        self.pace.take();
    }

    /// So many bytes are across, and it is the client who is waited for, or not.
    pub(crate) fn report(&self, bytes: u64, awaited: bool) {
        self.bytes.set(bytes);
        self.awaited.set(awaited);
    }

    /// Whether the client has been too slow, where `elapsed` is the time since the last look.
    pub(crate) fn is_too_slow(&self, least: &Least, elapsed: Duration) -> bool {
        let bytes = self.bytes.get().saturating_sub(self.seen.replace(self.bytes.get()));
        let waited = if self.awaited.get() { elapsed } else { Duration::ZERO };
        let mut pace = self.pace.get();
        let too_slow = pace.observe(least, waited, bytes);
        self.pace.set(pace);
        too_slow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LEAST: Least = Least { rate: 100, grace: Duration::from_secs(5) };

    /// The first second after which a body is too slow that moves so many bytes in each.
    fn fails_at(bytes: impl Fn(usize) -> u64) -> Option<usize> {
        let mut pace = Pace::default();
        (0..1000).find(|&second| pace.observe(&LEAST, SECOND, bytes(second)))
    }

    #[test]
    fn what_keeps_the_rate_goes_on_for_ever() {
        assert_eq!(fails_at(|_| 100), None);
        // In bursts, too, as long as the grace bridges the gaps.
        assert_eq!(fails_at(|second| if second % 5 == 0 { 500 } else { 0 }), None);
    }

    #[test]
    fn what_does_not_move_has_the_grace_and_no_more() {
        assert_eq!(fails_at(|_| 0), Some(5));
    }

    #[test]
    fn what_is_slower_lasts_longer_but_not_for_ever() {
        assert_eq!(fails_at(|_| 50), Some(10));
        assert_eq!(fails_at(|_| 99), Some(500));
    }

    #[test]
    fn a_fast_start_buys_no_slow_end() {
        assert_eq!(fails_at(|second| if second == 0 { u64::MAX } else { 1 }), Some(6));
    }

    #[test]
    fn a_wait_for_the_other_side_does_not_count() {
        let mut pace = Pace::default();
        assert!((0..1000).all(|_| !pace.observe(&LEAST, Duration::ZERO, 0)));
    }

    #[test]
    fn no_rate_asks_for_nothing() {
        let nothing = Least { rate: 0, grace: Duration::ZERO };
        assert!(!Pace::default().observe(&nothing, SECOND, 0));
    }

    #[test]
    fn a_client_is_judged_by_what_moves_while_he_is_waited_for() {
        let flow = Flow::default();
        flow.report(400, false);
        assert!((0..10).all(|_| !flow.is_too_slow(&LEAST, SECOND)));
        flow.report(600, true);
        assert_eq!((0..10).position(|_| flow.is_too_slow(&LEAST, SECOND)), Some(6));
        flow.reset();
        assert!(!flow.is_too_slow(&LEAST, SECOND));
    }
}

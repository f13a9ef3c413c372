//! When a server counts as healthy: the rules, without clock or network.

use crate::config::{ActiveCheck, PassiveCheck};
use std::time::{Duration, Instant};

/// What is known of one server's health. A new one is healthy.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    /// Whether active checks say that it is down.
    down: bool,
    /// Active checks in a row that contradict `down`.
    contrary: u32,
    /// Ejections that followed one another.
    ejections: u32,
    /// Until when it is ejected; in the past once it is back.
    ejected_until: Option<Instant>,
}

impl Monitor {
    /// Whether it may get requests.
    pub(crate) fn is_healthy(&self, now: Instant) -> bool {
        !self.down && !self.is_ejected(now)
    }

    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.is_some_and(|until| now < until)
    }

    /// When an ejection ends, if it has not ended at `now`.
    pub(crate) fn returns(&self, now: Instant) -> Option<Instant> {
        self.ejected_until.filter(|&until| now < until)
    }

    /// Forgets what active checks have said: they change, or there are none any more.
    pub(crate) fn forget_checks(&mut self) {
        (self.down, self.contrary) = (false, 0);
    }

    /// Takes note of an active check.
    pub(crate) fn checked(&mut self, passed: bool, rules: &ActiveCheck) {
        if passed != self.down {
            self.contrary = 0;
            return;
        }
        self.contrary += 1;
        if self.contrary >= if self.down { rules.rise } else { rules.fall } {
            self.down = !self.down;
            self.contrary = 0;
        }
    }

    /// Ejects it, unless it is ejected already: ever longer, as long as it does not behave for `longest` in between.
    /// Says whether it has.
    pub(crate) fn eject(&mut self, now: Instant, rules: &PassiveCheck) -> bool {
        if self.is_ejected(now) {
            return false;
        }
        if self.ejected_until.is_some_and(|until| now.duration_since(until) >= rules.longest) {
            self.ejections = 0;
        }
        let length: Duration = rules.first.saturating_mul(2u32.saturating_pow(self.ejections)).min(rules.longest);
        self.ejections = self.ejections.saturating_add(1);
        self.ejected_until = Some(now + length);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn checks_count_only_in_a_row() {
        let rules = ActiveCheck { rise: 2, fall: 3, ..ActiveCheck::default() };
        let mut monitor = Monitor::default();
        let now = Instant::now();
        let healthy: Vec<bool> = [false, false, true, false, false, false, true, false, true, true]
            .into_iter()
            .map(|passed| {
                monitor.checked(passed, &rules);
                monitor.is_healthy(now)
            })
            .collect();
        assert_eq!(healthy, [true, true, true, true, true, false, false, false, false, true]);
    }

    #[test]
    fn ejections_double_up_to_the_longest_and_are_forgotten_in_time() {
        let rules = PassiveCheck { failures: 1, first: S, longest: 3 * S };
        let mut monitor = Monitor::default();
        let mut now = Instant::now();
        for length in [S, 2 * S, 3 * S, 3 * S] {
            assert!(monitor.eject(now, &rules));
            assert_eq!(monitor.returns(now), Some(now + length));
            assert!(!monitor.is_healthy(now));
            assert!(!monitor.eject(now, &rules));
            assert_eq!(monitor.returns(now), Some(now + length), "an ejected server cannot be ejected");
            now += length;
            assert!(monitor.is_healthy(now));
        }
        now += 3 * S;
        assert!(monitor.eject(now, &rules));
        assert_eq!(monitor.returns(now), Some(now + S));
    }
}

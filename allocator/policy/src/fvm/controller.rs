//! From the congestion signal to what a VM may have at once (sections 2.2 and 2.3).

use super::{Rule, Slowdown};
use std::num::NonZeroU32;

/// The limits that a VM holds itself to.
///
/// As long as it may do several things at once, the multiprogramming level n follows the [`Rule`]. At level 1 congestion
/// is answered by a rate: 1/T_s falls by the same factor and rises by a constant step, so that there is a pause between
/// one thing and the next. The paper does not say where the rate begins and ends. Here it begins below 1/VCT̄, the rate at
/// which a VM of level 1 works without pauses, and ends when it has come back to it; it does not fall below one step, so
/// that there are ticks to learn from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Controller {
    rule: Rule,
    /// How much the rate rises in a period, in Hz; 0: there is no rate control.
    rate_step: f64,
    /// n, at least 1.
    level: f64,
    /// 1/T_s in Hz, where it is limited.
    rate: Option<f64>,
}

impl Controller {
    /// That begins at level `initial`.
    pub fn new(rule: Rule, rate_step: f64, initial: NonZeroU32) -> Controller {
        Controller { rule, rate_step, level: f64::from(initial.get()), rate: None }
    }

    /// Ends a period with a slowdown that is congestion, or none. A level that is not `used` is not raised: that it was
    /// harmless shows nothing (as TCP does not open a window that it does not fill, RFC 7661).
    pub fn step(&mut self, slowdown: Slowdown, congested: bool, used: bool) {
        let unlimited = 1.0 / slowdown.average.as_secs_f64();
        let aimd = Rule { k: 0.0, alpha: self.rate_step, beta: self.rule.beta };
        match (congested, self.rate) {
            (true, None) if self.level > 1.0 => self.level = self.rule.decreased(self.level).max(1.0),
            (true, _) if self.rate_step == 0.0 => {}
            (true, rate) => {
                let rate = rate.unwrap_or(unlimited);
                // A tick of no length is a rate without bound, which is none.
                self.rate = rate.is_finite().then(|| aimd.decreased(rate).max(self.rate_step));
            }
            (false, Some(rate)) => self.rate = Some(aimd.increased(rate)).filter(|&rate| rate < unlimited),
            (false, None) if used => self.level = self.rule.increased(self.level),
            (false, None) => {}
        }
    }

    /// How many things it may do at once.
    pub fn level(&self) -> NonZeroU32 {
        // The conversion ends at the largest number.
        NonZeroU32::new(self.level as u32).unwrap_or(NonZeroU32::MIN)
    }

    /// How often it may begin one, in Hz, at level 1; `None`: as often as it can.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn controller(initial: u32) -> Controller {
        Controller::new(Rule::AIMD, 0.1, NonZeroU32::new(initial).unwrap())
    }

    fn slowdown(milliseconds: u64) -> Slowdown {
        Slowdown { ratio: 1.0, average: Duration::from_millis(milliseconds) }
    }

    #[test]
    fn the_level_rises_by_one_and_falls_by_one_and_a_half() {
        let mut own = controller(10);
        own.step(slowdown(10), false, true);
        assert_eq!(own.level().get(), 11);
        let levels: Vec<_> = (0..7)
            .map(|_| {
                own.step(slowdown(10), true, true);
                own.level().get()
            })
            .collect();
        assert_eq!(levels, [7, 4, 3, 2, 1, 1, 1]);
    }

    #[test]
    fn at_level_1_the_rate_falls_and_comes_back() {
        let mut own = controller(1);
        own.step(slowdown(1000), true, true);
        assert!((own.rate().unwrap() - 1.0 / 1.5).abs() < 1e-12);
        own.step(slowdown(1000), true, true);
        assert!((own.rate().unwrap() - 1.0 / 2.25).abs() < 1e-12);
        own.step(slowdown(1000), false, true);
        assert!((own.rate().unwrap() - (1.0 / 2.25 + 0.1)).abs() < 1e-12);
        for _ in 0..4 {
            assert_eq!(own.level().get(), 1, "the level waits for the rate");
            own.step(slowdown(1000), false, true);
        }
        assert!(own.rate().is_some());
        own.step(slowdown(1000), false, true);
        assert_eq!((own.rate(), own.level().get()), (None, 1));
        own.step(slowdown(1000), false, true);
        assert_eq!(own.level().get(), 2);
    }

    #[test]
    fn without_rate_control_level_1_is_the_least() {
        let mut own = Controller::new(Rule::AIMD, 0.0, NonZeroU32::MIN);
        own.step(slowdown(1000), true, true);
        assert_eq!((own.rate(), own.level().get()), (None, 1));
        own.step(slowdown(1000), false, true);
        assert_eq!(own.level().get(), 2);
    }

    #[test]
    fn a_level_that_is_not_used_is_not_raised_but_falls() {
        let mut own = controller(10);
        own.step(slowdown(10), false, false);
        assert_eq!(own.level().get(), 10);
        own.step(slowdown(10), true, false);
        assert_eq!(own.level().get(), 6);
    }

    proptest! {
        #[test]
        fn whatever_happens_there_is_a_level_and_a_rate_to_go_on_with(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..10_000), 1..500),
        ) {
            let mut own = controller(10);
            for (congested, used, took) in steps {
                own.step(slowdown(took), congested, used);
                prop_assert!(own.rate().is_none_or(|rate| rate.is_finite() && rate >= 0.1), "{own:?}");
                prop_assert!(own.rate().is_none() || own.level().get() == 1, "{own:?}");
            }
        }
    }
}

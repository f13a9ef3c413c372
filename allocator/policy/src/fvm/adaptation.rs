//! A friendly VM: its monitor and its controller.

use super::{Controller, FvmParameters, Monitor, ParameterError, Slowdown};
use std::{num::NonZeroU32, time::Duration};
use vibra_model::Timestamp;

/// One VM that adapts its demand: it knows its own ticks and nothing of other VMs.
#[derive(Debug, Clone, PartialEq)]
pub struct Fvm {
    period: Duration,
    threshold: f64,
    monitor: Monitor,
    controller: Controller,
    /// When this period ends.
    due: Option<Timestamp>,
    /// The most that was in use at once in this period, if that was measured.
    peak: Option<u32>,
}

/// What a VM noticed of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tick {
    /// How long a tick took; `None` if there was none, or it was not measured.
    pub took: Option<Duration>,
    /// How many things it did at once, if that was measured.
    pub in_use: Option<u32>,
}

/// What a period has led to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// What was measured in the period.
    pub slowdown: Slowdown,
    /// Whether that is over the threshold.
    pub congested: bool,
    /// How many things it may do at once from now on.
    pub level: NonZeroU32,
    /// How often it may begin one, in Hz, at level 1; `None`: as often as it can.
    pub rate: Option<f64>,
}

impl Fvm {
    /// A VM at its initial level.
    ///
    /// # Errors
    /// [`ParameterError`] if a parameter is out of range.
    pub fn new(parameters: FvmParameters) -> Result<Fvm, ParameterError> {
        parameters.check()?;
        Ok(Fvm {
            period: parameters.period,
            threshold: parameters.threshold,
            monitor: Monitor::new(parameters.gamma, parameters.periods()),
            controller: Controller::new(parameters.rule, parameters.rate_step, parameters.initial),
            due: None,
            peak: None,
        })
    }

    /// Takes note of what was noticed at `at`, and decides where a period ends there. `None` before, and after a period
    /// in which nothing was measured: then nothing changes.
    pub fn observe(&mut self, at: Timestamp, tick: Tick) -> Option<Decision> {
        if let Some(took) = tick.took {
            self.monitor.tick(took);
        }
        self.peak = self.peak.max(tick.in_use);
        let due = *self.due.get_or_insert_with(|| at.after(self.period));
        if at < due {
            return None;
        }
        self.due = Some(at.after(self.period));
        // In use is a level of which nine tenths were seen to be: who has nothing more to do at once would rise far above
        // that otherwise, and when overload comes, would divide by 1.5 several times before it has any effect.
        let used = self.peak.take().is_none_or(|peak| 10 * u64::from(peak) >= 9 * u64::from(self.level().get()));
        let slowdown = self.monitor.close()?;
        let congested = slowdown.ratio > self.threshold;
        self.controller.step(slowdown, congested, used);
        Some(Decision { slowdown, congested, level: self.level(), rate: self.rate() })
    }

    /// How many things it may do at once.
    pub fn level(&self) -> NonZeroU32 {
        self.controller.level()
    }

    /// How often it may begin one, in Hz, at level 1; `None`: as often as it can.
    pub fn rate(&self) -> Option<f64> {
        self.controller.rate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn fvm() -> Fvm {
        Fvm::new(FvmParameters::default()).unwrap()
    }

    /// Every second a tick, and what was decided.
    fn run(vm: &mut Fvm, from: u64, to: u64, milliseconds: Option<u64>, in_use: Option<u32>) -> Vec<Decision> {
        let tick = Tick { took: milliseconds.map(Duration::from_millis), in_use };
        (from..to).filter_map(|second| vm.observe(Timestamp(second * SECOND), tick)).collect()
    }

    #[test]
    fn it_decides_once_a_period() {
        let mut vm = fvm();
        let levels: Vec<_> = run(&mut vm, 0, 21, Some(10), None).iter().map(|made| made.level.get()).collect();
        assert_eq!(levels, [11, 12, 13, 14]);
        // A gap in time is one long period, not several.
        assert_eq!(run(&mut vm, 100, 101, Some(10), None).len(), 1);
    }

    #[test]
    fn overload_has_it_back_off_until_it_is_over() {
        let mut vm = fvm();
        run(&mut vm, 0, 51, Some(10), None);
        assert_eq!(vm.level().get(), 20);
        let made = run(&mut vm, 51, 66, Some(40), None);
        assert!(made.iter().all(|made| made.congested && made.slowdown.ratio > 2.5), "{made:?}");
        assert_eq!(made.iter().map(|made| made.level.get()).collect::<Vec<_>>(), [13, 8, 5]);
        // 1.25 times the least is no congestion.
        let made = run(&mut vm, 66, 81, Some(12), None);
        assert_eq!(made.iter().map(|made| made.level.get()).collect::<Vec<_>>(), [6, 7, 8]);
    }

    #[test]
    fn what_is_not_measured_changes_nothing() {
        let mut vm = fvm();
        assert_eq!(run(&mut vm, 0, 60, None, Some(3)), []);
        assert_eq!(vm.level().get(), 10);
    }

    #[test]
    fn a_level_that_nobody_uses_stays() {
        let mut vm = fvm();
        run(&mut vm, 0, 61, Some(10), Some(8));
        assert_eq!(vm.level().get(), 10);
        run(&mut vm, 61, 66, Some(10), Some(9));
        assert_eq!(vm.level().get(), 11);
    }
}

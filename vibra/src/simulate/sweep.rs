//! A parameter that takes several values.

use std::{fmt, str::FromStr, time::Duration};
use vibra_model::{Bytes, BytesPerSec, Resources};
use vibra_sim::cluster::{Clients, Scenario};

/// What can be swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter {
    Speed,
    Bandwidth,
    Memory,
    Replicas,
    Interval,
    ViewDelay,
    ActuatorLag,
    Dispatchers,
    Sessions,
}

/// The parameters with their names, and what their values are.
const PARAMETERS: [(Parameter, &str, &str); 9] = [
    (Parameter::Speed, "speed", "speed of the trace"),
    (Parameter::Bandwidth, "bandwidth", "bandwidth, as a multiple of the configured one"),
    (Parameter::Memory, "memory", "memory, as a multiple of the configured one"),
    (Parameter::Replicas, "replicas", "R"),
    (Parameter::Interval, "interval", "time between decisions, s"),
    (Parameter::ViewDelay, "view-delay", "delay of the dispatchers' view, s"),
    (Parameter::ActuatorLag, "lag", "lag of the actuators, s"),
    (Parameter::Dispatchers, "dispatchers", "dispatchers"),
    (Parameter::Sessions, "sessions", "sessions"),
];

/// A parameter's values: `bandwidth=0.6:1.2:0.1`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sweep {
    pub(crate) parameter: Parameter,
    pub(crate) values: Vec<f64>,
}

/// The most values of a sweep.
const MOST: usize = 200;

impl Parameter {
    fn entry(self) -> (Parameter, &'static str, &'static str) {
        PARAMETERS.into_iter().find(|(parameter, ..)| *parameter == self).unwrap_or(PARAMETERS[0])
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        self.entry().1
    }

    /// What its values are, for an axis.
    pub(crate) fn label(self) -> &'static str {
        self.entry().2
    }

    /// Sets it in a scenario; the speed is not in there.
    pub(crate) fn set(self, value: f64, scenario: &mut Scenario) {
        let seconds = Duration::try_from_secs_f64(value).unwrap_or(Duration::MAX);
        match self {
            Parameter::Speed => {}
            Parameter::Bandwidth => every_amount(scenario, |amounts| {
                amounts.bandwidth = amounts.bandwidth.map(|has| BytesPerSec(scaled(has.0, value)));
            }),
            Parameter::Memory => every_amount(scenario, |amounts| {
                amounts.memory = amounts.memory.map(|has| Bytes(scaled(has.0, value)));
            }),
            Parameter::Replicas => scenario.settings.replicas = value.round() as usize,
            Parameter::Interval => scenario.interval = seconds,
            Parameter::ViewDelay => scenario.view_delay = seconds,
            Parameter::ActuatorLag => scenario.actuator_lag = seconds,
            Parameter::Dispatchers => scenario.dispatchers = value.round() as usize,
            Parameter::Sessions => {
                let think = match scenario.clients {
                    Clients::Closed { think, .. } => think,
                    Clients::Open => Duration::ZERO,
                };
                scenario.clients = Clients::Closed { sessions: value.round() as u32, think };
            }
        }
    }
}

fn scaled(amount: u64, factor: f64) -> u64 {
    (amount as f64 * factor).round() as u64
}

/// Changes what the customer bought, and what his VMs have at first and at least.
fn every_amount(scenario: &mut Scenario, mut change: impl FnMut(&mut Resources)) {
    change(&mut scenario.customer.bounds);
    for vm in &mut scenario.vms {
        change(&mut vm.initial);
        change(&mut vm.floor);
    }
    let given = |of: fn(&Resources) -> Option<u64>, vms: &[vibra_model::VmSpec]| -> u64 {
        vms.iter().filter_map(|vm| of(&vm.initial)).sum()
    };
    // Rounded shares may sum to a few bytes more than the rounded bound.
    let bounds = &mut scenario.customer.bounds;
    let bandwidth = given(|amounts| amounts.bandwidth.map(|x| x.0), &scenario.vms);
    let memory = given(|amounts| amounts.memory.map(|x| x.0), &scenario.vms);
    bounds.bandwidth = bounds.bandwidth.map(|bound| bound.max(BytesPerSec(bandwidth)));
    bounds.memory = bounds.memory.map(|bound| bound.max(Bytes(memory)));
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let hint = "write PARAMETER=FROM:TO:STEP, such as bandwidth=0.6:1.2:0.1";
        let (name, range) = text.split_once('=').ok_or(hint)?;
        let (parameter, ..) = PARAMETERS.into_iter().find(|(_, known, _)| *known == name).ok_or_else(|| {
            let known = PARAMETERS.map(|(_, name, _)| name).join(", ");
            format!("{name:?} cannot be swept: use one of {known}")
        })?;
        let numbers: Result<Vec<f64>, _> = range.split(':').map(str::parse).collect();
        let Ok([from, to, step]) = numbers.as_deref() else { return Err(hint.to_owned()) };
        if !(*from >= 0.0 && from <= to && *step > 0.0 && to.is_finite()) {
            return Err(format!("{range} has no values: {hint}, with FROM at most TO, and STEP above 0"));
        }
        let steps = ((to - from) / step + 1e-9).floor();
        if steps >= MOST as f64 {
            return Err(format!("{range} has more than {MOST} values"));
        }
        // Tenths should look like tenths.
        let round = |value: f64| (value * 1e9).round() / 1e9;
        let values = (0..=steps as usize).map(|index| round(from + step * index as f64)).collect();
        Ok(Sweep { parameter, values })
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.parameter.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_holds_both_ends() {
        let sweep: Sweep = "bandwidth=0.6:1.2:0.1".parse().expect("a sweep");
        assert_eq!(sweep.values, [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2]);
        assert_eq!("replicas=2:2:1".parse::<Sweep>().expect("one value").values, [2.0]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("bandwidth", "FROM:TO:STEP"),
            ("colour=1:2:1", "speed, bandwidth"),
            ("speed=2:1:1", "no values"),
            ("speed=1:2:0", "no values"),
            ("speed=1:2", "FROM:TO:STEP"),
            ("speed=0:1000:1", "more than 200"),
        ] {
            let error = text.parse::<Sweep>().expect_err("wrong");
            assert!(error.contains(why), "{error}");
        }
    }
}

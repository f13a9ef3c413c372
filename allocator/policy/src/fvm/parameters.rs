//! The parameters of a friendly VM (Table 1).

use super::Rule;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{num::NonZeroU32, time::Duration};

/// How a VM adapts. The defaults are those of Table 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FvmParameters {
    /// γ: the weight of a new tick in the average, above 0 and at most 1. Default: 0.3.
    pub gamma: f64,
    /// T_c: how often it is decided. Default: 5 s.
    #[serde(with = "text")]
    pub period: Duration,
    /// T_w: for how long the least average is remembered, at least a period. Default: 60 s.
    #[serde(with = "text")]
    pub window: Duration,
    /// H: the slowdown beyond which there is congestion, above 1. Default: 2.5.
    pub threshold: f64,
    /// The level at first. Default: 10.
    pub initial: NonZeroU32,
    /// How the level rises and falls. Default: `aimd`, + 1 and / 1.5.
    pub rule: Rule,
    /// How much the rate rises in a period at level 1, in Hz; 0: there is no rate control. Default: 0.1 Hz.
    pub rate_step: f64,
}

/// What is wrong with parameters, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("level: {why}")]
pub struct ParameterError {
    /// What is wrong.
    pub why: String,
}

impl Default for FvmParameters {
    fn default() -> Self {
        FvmParameters {
            gamma: 0.3,
            period: Duration::from_secs(5),
            window: Duration::from_secs(60),
            threshold: 2.5,
            initial: const { NonZeroU32::new(10).unwrap() },
            rule: Rule::AIMD,
            rate_step: 0.1,
        }
    }
}

impl FvmParameters {
    /// The parameters that `written` has, with defaults for what it lacks.
    ///
    /// # Errors
    /// [`ParameterError`] if one is unknown, of the wrong kind or out of range.
    pub fn from_json(written: serde_json::Value) -> Result<Self, ParameterError> {
        let parameters: Self =
            serde_json::from_value(written).map_err(|error| ParameterError { why: error.to_string() })?;
        parameters.check().map(|()| parameters)
    }

    /// Whether every parameter is one that a VM can adapt by.
    ///
    /// # Errors
    /// [`ParameterError`] with the first that is not.
    pub fn check(&self) -> Result<(), ParameterError> {
        let wrong = |why: String| Err(ParameterError { why });
        if !(self.gamma > 0.0 && self.gamma <= 1.0) {
            return wrong(format!("gamma = {} is out of range: use more than 0 and at most 1", self.gamma));
        }
        if self.period.is_zero() {
            return wrong("period is 0: use a second or more".to_owned());
        }
        if self.window < self.period || self.periods() > 100_000 {
            return wrong(format!(
                "window = {:?} is out of range: use at least the period, {:?}, and at most 100,000 of it",
                self.window, self.period
            ));
        }
        if !(self.threshold > 1.0 && self.threshold.is_finite()) {
            return wrong(format!("threshold = {} is out of range: use more than 1", self.threshold));
        }
        if !(self.rate_step >= 0.0 && self.rate_step.is_finite()) {
            return wrong(format!("rate_step = {} is out of range: use 0 or more", self.rate_step));
        }
        Ok(())
    }

    /// w: the window in periods.
    pub(super) fn periods(&self) -> usize {
        // A period is not 0, and the quotient is bounded.
        (self.window.as_secs_f64() / self.period.as_secs_f64()).round() as usize
    }
}

/// Lengths of time as text, such as "5s".
mod text {
    use super::*;

    pub(super) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&humantime::format_duration(*time).to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        let wrong = |_| de::Error::custom(format!("{text:?} is no length of time: write \"5s\" or \"500ms\""));
        humantime::parse_duration(&text).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_left_out_is_as_in_table_1() {
        let parameters = FvmParameters::from_json(json!({ "threshold": 2, "period": "1s", "rule": "iiad" })).unwrap();
        let expected = FvmParameters {
            threshold: 2.0,
            period: Duration::from_secs(1),
            rule: Rule::IIAD,
            ..FvmParameters::default()
        };
        assert_eq!(parameters, expected);
        assert_eq!((FvmParameters::default().periods(), parameters.periods()), (12, 60));
    }

    #[test]
    fn what_is_wrong_is_told_with_what_would_be_right() {
        for (wrong, word) in [
            (json!({ "gama": 0.3 }), "gamma"),
            (json!({ "gamma": 0 }), "more than 0"),
            (json!({ "period": 5 }), "string"),
            (json!({ "period": "5 bananas" }), "500ms"),
            (json!({ "period": "0s" }), "period is 0"),
            (json!({ "window": "1s" }), "at least the period"),
            (json!({ "threshold": 1 }), "more than 1"),
            (json!({ "initial": 0 }), "nonzero"),
            (json!({ "rule": "mimd" }), "sqrt"),
            (json!({ "rate_step": -1 }), "0 or more"),
        ] {
            let error = FvmParameters::from_json(wrong.clone()).unwrap_err().to_string();
            assert!(error.contains(word), "{wrong}: {error}");
        }
    }
}

//! What an operator can set, and the paper's defaults.

use serde::Deserialize;
use std::time::Duration;
use vibra_model::{Bytes, BytesPerSec, HostId, text};

/// How [`Sandpiper`](super::Sandpiper) decides. Sections are those of chapter 5.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SandpiperParameters {
    /// The measurement interval I: samples within one are averaged to one measurement. Default 10 s (section 5.7).
    #[serde(deserialize_with = "text::duration")]
    pub interval: Duration,
    /// W: how many measurements a profile keeps. Default 200 (section 5.7).
    pub window: usize,
    /// A utilisation above this share is too much. Default 0.75 (section 5.7.10).
    pub threshold: f64,
    /// k: so many of the newest `n` measurements must be above the threshold. Default 3 (section 5.7).
    pub k: usize,
    /// n: how many measurements are looked at. Default 5 (section 5.7).
    pub n: usize,
    /// Which quantile of a profile is the peak. Default 0.95 (section 5.5.1).
    pub percentile: f64,
    /// Δ: what is added to a peak that was measured under saturation, as a share of what was saturated. Default 0.10
    /// (section 5.7.10).
    pub delta: f64,
    /// From this utilisation on a resource is saturated, so that a peak measured there is too low. Default 0.95.
    pub saturation: f64,
    /// Δm: by how much memory grows or shrinks at once. Default 32 MiB (section 5.7.4).
    #[serde(deserialize_with = "text::quantity")]
    pub memory_step: Bytes,
    /// Moving more than this to and from swap is a sign of too little memory. Default 64 KiB/s.
    #[serde(deserialize_with = "text::quantity")]
    pub swap_rate: BytesPerSec,
    /// How many measurements ahead a destination's load is foreseen. Default 12: the 120 s of Figure 5.12(a).
    pub horizon: usize,
    /// Whether it moves VMs where resizing does not help. Of several policies of a customer one may. Default true.
    pub migrate: bool,
    /// Hosts that are kept free for swaps: a VM stays there for the time of a swap only. Default none.
    pub scratch: Vec<HostId>,
    /// A plan whose moves have not happened so long after it was made is given up: so long for each of its moves.
    /// Default 5 minutes.
    #[serde(deserialize_with = "text::duration")]
    pub move_timeout: Duration,
    /// What the applications promise; for `sandpiper-gray` alone.
    pub sla: Option<Sla>,
}

/// What an application promises, and what is known of its requests beside what is measured (section 5.5.2).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sla {
    /// d: the mean response time that is promised. Default 1 s.
    #[serde(deserialize_with = "text::duration")]
    pub response_time: Duration,
    /// The share of requests that may be dropped. Default 0.01.
    pub drop_share: f64,
    /// The squared coefficient of variation of the time between arrivals: σa² = this / λ². Default 1, as of a Poisson
    /// process.
    pub arrival_variation: f64,
    /// The squared coefficient of variation of service times: σb² = this · s². Default 1, as of an exponential one.
    pub service_variation: f64,
}

impl Default for Sla {
    fn default() -> Self {
        let response_time = Duration::from_secs(1);
        Sla { response_time, drop_share: 0.01, arrival_variation: 1.0, service_variation: 1.0 }
    }
}

impl Default for SandpiperParameters {
    fn default() -> Self {
        SandpiperParameters {
            interval: Duration::from_secs(10),
            window: 200,
            threshold: 0.75,
            k: 3,
            n: 5,
            percentile: 0.95,
            delta: 0.10,
            saturation: 0.95,
            memory_step: Bytes(32 << 20),
            swap_rate: BytesPerSec(64 << 10),
            horizon: 12,
            migrate: true,
            scratch: Vec::new(),
            move_timeout: Duration::from_secs(300),
            sla: None,
        }
    }
}

impl SandpiperParameters {
    /// What is wrong with them, and what would be right.
    pub(super) fn check(&self) -> Result<(), String> {
        let shares = [("threshold", self.threshold), ("percentile", self.percentile), ("saturation", self.saturation)];
        if let Some((name, value)) = shares.into_iter().find(|(_, value)| !(*value > 0.0 && *value <= 1.0)) {
            return Err(format!("{name} = {value} is out of range: use more than 0 and at most 1"));
        }
        let mut amounts = vec![("delta", self.delta)];
        if let Some(sla) = &self.sla {
            amounts.extend([
                ("sla.drop_share", sla.drop_share),
                ("sla.arrival_variation", sla.arrival_variation),
                ("sla.service_variation", sla.service_variation),
            ]);
        }
        if let Some((name, value)) = amounts.into_iter().find(|(_, value)| !(value.is_finite() && *value >= 0.0)) {
            return Err(format!("{name} = {value} is out of range: use 0 or more"));
        }
        let mut times = vec![("interval", self.interval), ("move_timeout", self.move_timeout)];
        times.extend(self.sla.map(|sla| ("sla.response_time", sla.response_time)));
        if let Some((name, value)) = times.into_iter().find(|(_, value)| value.as_micros() == 0) {
            return Err(format!("{name} = {value:?} is out of range: use more than 0"));
        }
        if self.memory_step == Bytes::ZERO {
            return Err("memory_step = 0 is out of range: use at least 1B".to_owned());
        }
        if !(1 <= self.k && self.k <= self.n && self.n <= self.window) {
            let (k, n, window) = (self.k, self.n, self.window);
            return Err(format!("k = {k}, n = {n}, window = {window} do not fit: use 1 <= k <= n <= window"));
        }
        Ok(())
    }
}

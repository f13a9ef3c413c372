//! Response times in open loop, at rates that every proxy can carry.

use super::{Cell, TEN_PER_CENT_WORSE, Values, contenders, human};
use crate::bench::{
    compare::{Better, Measure},
    contender::Contender,
    open_loop::{self, LAG_LIMIT, Plan, Seen},
    stage::Stage,
};
use anyhow::{Context, bail, ensure};
use std::time::Duration;

/// A part of the slowest proxy's peak, and the names of what is measured there.
struct Level {
    part: f64,
    rate: &'static str,
    p50: &'static str,
    p99: &'static str,
    lag: &'static str,
    tries: &'static str,
    /// The promise on the p99.
    limit: f64,
}

const LEVELS: [Level; 2] = [
    Level {
        part: 0.5,
        rate: "requests/s at 50 %",
        p50: "p50 ms at 50 %",
        p99: "p99 ms at 50 %",
        lag: "lag p99 ms at 50 %",
        tries: "tries at 50 %",
        limit: 1.0,
    },
    Level {
        part: 0.8,
        rate: "requests/s at 80 %",
        p50: "p50 ms at 80 %",
        p99: "p99 ms at 80 %",
        lag: "lag p99 ms at 80 %",
        tries: "tries at 80 %",
        limit: TEN_PER_CENT_WORSE,
    },
];

/// So often a run is made at most to have one in which the load generator was in time. What made it late was the machine,
/// whichever proxy was under load: the other core's neighbours take their time from it.
const TRIES: usize = 5;

/// So many pairs a round. A disturbance of the machine spoils the pair that it falls on: many short ones know more than a
/// few long ones.
const TURNS: u32 = 3;

/// The search for the peak begins with so many requests a second,
const FIRST_RATE: f64 = 250.0;
/// and halves the ratio between a rate that was carried and one that was not so often: 4 % are left.
const HALVINGS: usize = 4;
/// A rate that is not carried is tried again: it may have been the machine.
const CHANCES: u64 = 2;

pub(super) struct Latency<'a> {
    stage: &'a Stage<'a>,
    size: u64,
    /// Requests a second that every proxy carries in open loop, once that is known.
    peak: Option<f64>,
}

impl<'a> Latency<'a> {
    /// With bodies of `size` bytes.
    pub(super) fn new(stage: &'a Stage<'a>, size: u64) -> Self {
        Latency { stage, size, peak: None }
    }

    /// How long requests are sent at a level, at a time.
    fn length(&self) -> Duration {
        self.stage.length / TURNS
    }

    /// Whether a proxy, and the generator beside the servers, carries so many requests a second.
    fn carries(&self, contender: Contender, rate: f64) -> anyhow::Result<bool> {
        let proxy = self.stage.running(contender);
        proxy.rotate_log();
        for seed in 0..CHANCES {
            let plan = Plan { target: proxy.listen.plain, size: self.size, rate, length: self.length(), seed };
            if open_loop::is_carried(&plan)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The highest rate that is carried, of those up to `most`; found from below, since the load generator, which shares its core
/// with the servers, cannot make every rate that a closed loop can.
fn peak(most: f64, mut carries: impl FnMut(f64) -> anyhow::Result<bool>) -> anyhow::Result<f64> {
    let mut carried = 0.0;
    let mut rate = FIRST_RATE.min(most);
    while carries(rate)? {
        if rate >= most {
            return Ok(most);
        }
        (carried, rate) = (rate, (2.0 * rate).min(most));
    }
    ensure!(carried > 0.0, "does not carry {rate:.0} requests a second");
    let mut too_many = rate;
    for _ in 0..HALVINGS {
        let middle = (carried * too_many).sqrt();
        if carries(middle)? { carried = middle } else { too_many = middle }
    }
    Ok(carried)
}

/// What an open loop saw that was in time itself, how late it was at the 99th percentile, and how often it was tried.
fn in_time(plan: &Plan) -> anyhow::Result<(Seen, Duration, usize)> {
    let mut lags = Vec::new();
    while lags.len() < TRIES {
        let seen = open_loop::run(plan)?;
        let lag = seen.lag.quantile(0.99).unwrap_or_default();
        lags.push(lag);
        if lag <= LAG_LIMIT {
            return Ok((seen, lag, lags.len()));
        }
    }
    bail!(
        "no measurement at {:.0} requests a second: the load generator was late by {lags:?} at the 99th percentile in \
         {TRIES} runs",
        plan.rate
    )
}

impl Cell for Latency<'_> {
    fn name(&self) -> String {
        format!("latency {}", human(self.size))
    }

    fn measures(&self) -> Vec<Measure> {
        let time =
            |name, limit| Measure { name, better: Better::Lower, limit: Some(limit), decimals: 3, only_if: None };
        let of = |level: &Level| [time(level.p50, TEN_PER_CENT_WORSE), time(level.p99, level.limit)];
        LEVELS.iter().flat_map(of).collect()
    }

    fn sides(&self) -> Vec<&'static str> {
        contenders()
    }

    fn turns(&self) -> u64 {
        TURNS.into()
    }

    /// Finds the slowest proxy's peak.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let mut slowest = f64::INFINITY;
        for contender in Contender::ALL {
            // Mostly all carry what the first does.
            if slowest.is_finite() && self.carries(contender, slowest)? {
                continue;
            }
            slowest = peak(slowest, |rate| self.carries(contender, rate))
                .with_context(|| format!("the peak of {}", contender.name()))?;
        }
        self.peak = Some(slowest);
        Ok(())
    }

    fn run(&mut self, round: u64, side: usize) -> anyhow::Result<Values> {
        let proxy = self.stage.running(Contender::ALL[side]);
        proxy.rotate_log();
        let target = proxy.listen.plain;
        let peak = self.peak.context("the peak was not measured")?;
        let mut values = Values::new();
        for level in LEVELS {
            let rate = peak * level.part;
            // In a round, requests are due at the same times for all.
            let plan = Plan { target, size: self.size, rate, length: self.length(), seed: round };
            let (seen, lag, tries) = in_time(&plan)?;
            let times = seen.response.times().context("no request was measured")?;
            values.extend([
                (level.rate, rate),
                (level.p50, times.p50_ms),
                (level.p99, times.p99_ms),
                (level.lag, lag.as_secs_f64() * 1e3),
                (level.tries, tries as f64),
            ]);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The peak that is found where so many are carried, and how many rates were tried.
    fn found(most: f64, capacity: f64) -> (anyhow::Result<f64>, usize) {
        let mut tried = 0;
        let peak = peak(most, |rate| {
            tried += 1;
            Ok(rate <= capacity)
        });
        (peak, tried)
    }

    #[test]
    fn a_peak_is_found_from_below_within_a_few_per_cent() {
        for capacity in [250.0, 900.0, 14_000.0, 14_100.0, 47_000.0] {
            let (peak, tried) = found(f64::INFINITY, capacity);
            let peak = peak.unwrap();
            assert!(peak <= capacity && peak > 0.95 * capacity, "{peak} of {capacity}");
            assert!(tried <= 13, "{tried}");
        }
    }

    #[test]
    fn no_more_is_asked_than_the_slowest_so_far_carries() {
        let (peak, tried) = found(9_000.0, 50_000.0);
        assert_eq!((peak.unwrap(), tried), (9_000.0, 7));
        let peak = found(9_000.0, 8_000.0).0.unwrap();
        assert!((7_600.0..=8_000.0).contains(&peak), "{peak}");
    }

    #[test]
    fn who_carries_next_to_nothing_has_no_peak_and_a_fault_is_told() {
        assert_eq!(found(f64::INFINITY, 100.0).0.unwrap_err().to_string(), "does not carry 250 requests a second");
        assert!(peak(f64::INFINITY, |_| bail!("a wrong answer")).is_err());
    }
}

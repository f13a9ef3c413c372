//! Response times in open loop, at rates that every proxy can carry.

use super::{Cell, RATE, TEN_PER_CENT_WORSE, Values, closed_loop, contenders, human};
use crate::bench::{
    compare::{Better, Measure},
    contender::Contender,
    open_loop::{self, Plan, Seen},
    stage::Stage,
    tools::wrk::Connections,
};
use anyhow::{Context, bail};
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

/// Where the load generator itself is later than this, at the 99th percentile, the run says more of it than of a proxy.
const LAG_LIMIT: Duration = Duration::from_millis(5);

/// So often a run is made at most to have one in which the load generator was in time. What made it late was the machine,
/// whichever proxy was under load: the other core's neighbours take their time from it.
const TRIES: usize = 5;

/// An open loop, which sends requests one by one, cannot always reach the rate of a closed loop, which sends them in
/// batches. Where it does not reach this many tenths of it, something is wrong.
const LEAST_TENTHS: u32 = 3;

pub(super) struct Latency<'a> {
    stage: &'a Stage<'a>,
    size: u64,
    /// Requests a second of the slowest proxy in closed loop, once that is known.
    peak: Option<f64>,
}

impl<'a> Latency<'a> {
    /// With bodies of `size` bytes.
    pub(super) fn new(stage: &'a Stage<'a>, size: u64) -> Self {
        Latency { stage, size, peak: None }
    }

    fn peak(&self, contender: Contender) -> anyhow::Result<f64> {
        let proxy = self.stage.running(contender);
        let closed = closed_loop(proxy, || self.stage.wrk(proxy, self.size, Connections::KeepAlive))?[RATE];
        for tenths in (LEAST_TENTHS..=10).rev() {
            let rate = closed * f64::from(tenths) / 10.0;
            let plan = Plan { target: proxy.listen.plain, size: self.size, rate, length: self.stage.length, seed: 0 };
            if open_loop::is_carried(&plan)? {
                return Ok(rate);
            }
        }
        bail!("an open loop cannot carry even 0.{LEAST_TENTHS} of the {closed:.0} requests a second of the closed loop")
    }
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
        let time = |name, limit| Measure { name, better: Better::Lower, limit: Some(limit), decimals: 3 };
        let of = |level: &Level| [time(level.p50, TEN_PER_CENT_WORSE), time(level.p99, level.limit)];
        LEVELS.iter().flat_map(of).collect()
    }

    fn sides(&self) -> Vec<&'static str> {
        contenders()
    }

    /// Finds the slowest proxy's peak: the rate of its closed loop, less until the open loop can carry it.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let mut slowest = f64::INFINITY;
        for contender in Contender::ALL {
            let peak = self.peak(contender).with_context(|| format!("the peak of {}", contender.name()))?;
            slowest = slowest.min(peak);
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
            let plan = Plan { target, size: self.size, rate, length: self.stage.length, seed: round };
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

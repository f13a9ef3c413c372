//! The testbed of sections 3.5 and 4.4, and how often something is measured on it.

use crate::{
    figure::{Run, Unable},
    live::{Cluster, Equipment, System, Way},
};
use anyhow::Context;
use serde_json::json;
use std::{path::PathBuf, sync::Arc, time::Duration};
use vibra_model::{Bytes, BytesPerSec, Resources};
use vibra_replay::{Mode, Options, Progress, Spread, Summary, replay};
use vibra_report::{Estimate, Resampling, bootstrap, mean};
use vibra_routing::{Algorithm, HashKind, Settings};
use vibra_trace::Trace;

/// VMs of the testbed (section 3.5).
pub(super) const VMS: usize = 4;
/// Smoothing factor and interval that the dissertation settles for (section 3.5.3).
pub(super) const ALPHA: f64 = 0.9;
pub(super) const INTERVAL: Duration = Duration::from_secs(3);
/// A request that has not been answered after this has failed.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most connections of the generator: where a way does not work, the requests of seconds are under way at once. Each takes
/// three descriptors of this process, which may often have no more than 20,000.
const CONNECTIONS: usize = 6_000;
/// A confidence interval this near to its mean, as a part of it, is near enough (section 3.5.3).
const NEAR: f64 = 0.05;
/// How often a run whose load generator was late is repeated before it is given up.
const TRIES: usize = 2;

/// The VMs, and the trace whose objects they have.
pub(super) struct Bed<'a> {
    pub(super) run: &'a Run,
    cluster: Cluster,
    trace: Arc<Trace>,
    timing: Timing,
}

/// How long one measurement takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    /// How long caches fill, from disks that are not throttled, before anything is counted.
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
}

/// Something to measure.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    /// What the progress bar calls it.
    pub(super) name: String,
    pub(super) way: Way,
    pub(super) load: Load,
}

/// What clients do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Load {
    /// They come at the trace's times.
    AsRecorded,
    /// So many, each of which asks again as soon as it has its answer.
    Clients(usize),
}

/// What came out of one run that was not void.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// Of requests that were answered.
    pub(super) mean_ms: Option<f64>,
    /// Percent of the requests that were not answered rightly within ten seconds.
    pub(super) failed: f64,
    pub(super) bytes_per_s: Option<f64>,
    /// Blocks of 512 bytes; `None` where that cannot be counted.
    pub(super) disk_blocks: Option<f64>,
}

/// The runs of one cell.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples {
    pub(super) good: Vec<Sample>,
    /// Why the last void run was void, and how many there were.
    pub(super) void: Option<String>,
    pub(super) voids: usize,
}

/// What is measured of a run.
pub(super) type Measure = fn(&Sample) -> Option<f64>;

impl Samples {
    /// Mean and 95 % confidence interval; `None` where a run has no value, or there is none.
    pub(super) fn estimate(&self, of: Measure) -> Option<Estimate> {
        let values = self.good.iter().map(of).collect::<Option<Vec<f64>>>()?;
        bootstrap(&values, |values| mean(values).unwrap_or(f64::NAN), Resampling::with_seed(1)).ok()
    }

    /// The mean.
    pub(super) fn mean(&self, of: Measure) -> Option<f64> {
        self.estimate(of).map(|estimate| estimate.value)
    }

    /// Half of the confidence interval in percent of the mean; `None` of fewer than two runs.
    pub(super) fn uncertainty(&self, of: Measure) -> Option<f64> {
        let Estimate { value, low, high, .. } = self.estimate(of).filter(|_| self.good.len() > 1)?;
        Some(50.0 * (high - low) / value)
    }

    /// Percent of the requests that failed.
    pub(super) fn failed(&self) -> Option<f64> {
        self.mean(|sample| Some(sample.failed))
    }
}

impl<'a> Bed<'a> {
    /// Makes the VMs, which are given `each` at first. With `docroots`, their files are there.
    ///
    /// # Errors
    /// If they do not start; [`Unable`] if they would have no disk that can be throttled and counted, unless the user has
    /// asked for servers in this process.
    pub(super) async fn start(
        run: &'a Run,
        trace: Trace,
        each: Resources,
        timing: Timing,
        docroots: Option<PathBuf>,
    ) -> anyhow::Result<Bed<'a>> {
        run.bar.set_message("making the VMs");
        let equipment = Equipment { vms: VMS, each, in_process: run.in_process, docroots };
        let cluster = Cluster::start(&equipment, &trace.objects).await?;
        run.bar.suspend(|| eprintln!("cluster: {}", cluster.description()));
        if let Some(why) = cluster.unthrottled() {
            return Err(Unable(format!("disks as fast as this machine's would hide what is measured: {why}")).into());
        }
        Ok(Bed { run, cluster, trace: Arc::new(trace), timing })
    }

    /// What the VMs are, how long each run is, and which were void, for the reader.
    pub(super) fn conditions(&self, measured: &[Samples]) -> String {
        let conditions = format!(
            "VMs: {VMS} {}. Trace: {}. Every run starts cold, fills caches for {} s from disks that are not throttled, and is measured \
             for {} s; runs of a round take turns, each round with other requests of the trace, until the 95 % intervals are within 5 % \
             of their means, at most {} rounds.",
            self.cluster.description(),
            self.trace.name,
            self.timing.warm_up.as_secs_f64(),
            self.timing.measured.as_secs_f64(),
            self.run.rounds
        );
        let voids: usize = measured.iter().map(|samples| samples.voids).sum();
        match measured.iter().rev().find_map(|samples| samples.void.as_ref()) {
            Some(why) => format!("{conditions} Left out were {voids} void runs, the last since {why}."),
            None => conditions,
        }
    }

    /// Measures every cell, round by round, until `of` is known well enough of all of them, or there were enough rounds.
    ///
    /// # Errors
    /// If a part of the cluster does not work.
    pub(super) async fn measure(&self, cells: &[Cell], of: Measure) -> anyhow::Result<Vec<Samples>> {
        let mut all = vec![Samples::default(); cells.len()];
        for round in 0..self.run.rounds {
            let unsure = |samples: &Samples| samples.uncertainty(of).is_none_or(|part| part > 100.0 * NEAR);
            if !all.iter().any(unsure) {
                break;
            }
            for (index, cell) in cells.iter().enumerate() {
                let at = format!("round {} of {}, {} of {}", round + 1, self.run.rounds, index + 1, cells.len());
                self.run.bar.set_message(format!("{}: {at}", cell.name));
                self.sample(cell, round, &mut all[index]).await.with_context(|| cell.name.clone())?;
            }
        }
        Ok(all)
    }

    /// Adds one run, or the reason why it was void.
    async fn sample(&self, cell: &Cell, round: u64, samples: &mut Samples) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            let (summary, disk_blocks) = self.once(cell, round).await?;
            let Some(why) = &summary.void else {
                samples.good.push(Sample {
                    mean_ms: summary.response_time.as_ref().map(|times| times.mean_ms),
                    failed: 100.0 * summary.errors.total() as f64 / summary.requests as f64,
                    bytes_per_s: summary.bytes_per_s,
                    disk_blocks,
                });
                return Ok(());
            };
            samples.void = Some(why.clone());
            samples.voids += 1;
        }
        Ok(())
    }

    /// One run, and the disk blocks that were read while it was measured.
    async fn once(&self, cell: &Cell, round: u64) -> anyhow::Result<(Summary, Option<f64>)> {
        self.cluster.reset(cell.way.each).await.context("starting the VMs cold")?;
        self.cluster.free_disks().await?;
        let system = System::start(&self.cluster, &cell.way).await?;
        let target = system.address().context("the dispatcher listens nowhere")?;
        let length = self.timing.warm_up + self.timing.measured;
        let trace = self.part(length, round, cell.load);
        let mode = match cell.load {
            Load::AsRecorded => {
                Mode::Open { speed: 1.0, spread: Spread::Poisson { seed: self.run.seed.wrapping_add(round) } }
            }
            Load::Clients(concurrency) => Mode::Closed { concurrency },
        };
        let options = Options {
            warm_up: self.timing.warm_up,
            stop_after: Some(length),
            timeout: TIMEOUT,
            connections: CONNECTIONS,
            ..Options::new(target, mode)
        };
        let (warm, mut warmed) = tokio::sync::watch::channel(false);
        let warm_up = self.timing.warm_up;
        let tell = move |now: Progress| {
            if now.elapsed >= warm_up {
                warm.send_if_modified(|warm| !std::mem::replace(warm, true));
            }
        };
        let replaying = tokio::task::spawn_blocking(move || replay(&trace, &options, tell));
        // A replay that could not begin has dropped the sender, and says why itself.
        let _ = warmed.wait_for(|warm| *warm).await;
        self.cluster.throttle_disks().await?;
        let before = self.cluster.disk_blocks().await;
        let summary = replaying.await??;
        let after = self.cluster.disk_blocks().await;
        system.stop().await?;
        Ok((summary, before.zip(after).map(|(before, after)| after.saturating_sub(before) as f64)))
    }

    /// The requests of a round. What is recorded comes from the round's own part of the trace; clients that ask as soon as
    /// they can begin there, and have the whole trace to go on with.
    fn part(&self, length: Duration, round: u64, load: Load) -> Trace {
        let whole = self.trace.duration();
        let parts = (whole.as_secs_f64() / length.as_secs_f64()).floor().max(1.0) as u64;
        let from = length * (round % parts) as u32;
        match load {
            Load::AsRecorded => self.trace.window(from, length),
            Load::Clients(_) => {
                let mut trace = self.trace.window(Duration::ZERO, Duration::MAX);
                let first = trace.requests.partition_point(|request| request.at < from);
                trace.requests.rotate_left(first);
                trace
            }
        }
    }

    /// Ends the VMs.
    ///
    /// # Errors
    /// If something of them could not be ended or removed.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        self.cluster.stop().await
    }
}

/// So much bandwidth and memory for each VM.
pub(super) fn each(bandwidth: f64, memory: Bytes) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(bandwidth.round() as u64)), memory: Some(memory), cpu: None }
}

/// An algorithm over VMs with fixed shares. Those of the dissertation hash by Charsum, today's by XXH3.
pub(super) fn fixed(algorithm: Algorithm, replicas: usize, each: Resources) -> Way {
    let hash = if algorithm == Algorithm::UrlHash { HashKind::Charsum } else { HashKind::Xxh3 };
    let routing = Settings { algorithm, hash, replicas, ..Settings::default() };
    Way { routing, policy: "static", parameters: json!({}), interval: INTERVAL, each }
}

/// URL hashing, by Charsum over R VMs, with bandwidth allocated in proportion to demand.
pub(super) fn vibra(replicas: usize, each: Resources) -> Way {
    Way { policy: "proportional", parameters: json!({ "alpha": ALPHA }), ..fixed(Algorithm::UrlHash, replicas, each) }
}

/// By how many percent `value` is below `base`.
pub(super) fn below(value: Option<f64>, base: Option<f64>) -> Option<f64> {
    Some(100.0 * (1.0 - value? / base?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(means: &[Option<f64>]) -> Samples {
        let sample = |&mean_ms| Sample { mean_ms, failed: 2.0, bytes_per_s: None, disk_blocks: None };
        Samples { good: means.iter().map(sample).collect(), ..Samples::default() }
    }

    #[test]
    fn one_run_has_a_mean_and_no_uncertainty() {
        let of: Measure = |sample| sample.mean_ms;
        assert_eq!((samples(&[]).mean(of), samples(&[]).uncertainty(of)), (None, None));
        assert_eq!((samples(&[Some(4.0)]).mean(of), samples(&[Some(4.0)]).uncertainty(of)), (Some(4.0), None));
        let two = samples(&[Some(3.0), Some(5.0)]);
        assert_eq!((two.mean(of), two.uncertainty(of), two.failed()), (Some(4.0), Some(25.0), Some(2.0)));
        assert_eq!(samples(&[Some(3.0), None]).mean(of), None, "a run that answered nothing is no small value");
    }

    #[test]
    fn below_is_a_part_of_the_base() {
        assert_eq!((below(Some(65.0), Some(100.0)), below(None, Some(1.0))), (Some(35.0), None));
    }
}

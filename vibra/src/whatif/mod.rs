//! `vibra whatif`: which cluster, algorithm, R and policy a log asks for.

mod log;
mod text;

use crate::{
    cli,
    exit::{Failure, Outcome},
    progress,
    simulate::{
        PolicySet,
        batch::{self, Job},
        workload::Workload,
    },
};
use anyhow::anyhow;
use log::Log;
use serde::Serialize;
use std::time::Duration;
use vibra_model::{Bytes, BytesPerSec, Customer, HostSpec, Resources, VmSpec};
use vibra_replay::Spread;
use vibra_report::{Document, Estimate, Paired, Provenance, Resampling};
use vibra_routing::{Algorithm, Settings};
use vibra_sim::cluster::{self, Hardware, Scenario};
use vibra_trace::{Options, Trace};

/// How much more bandwidth than the peak of ten seconds the cluster is given.
const HEADROOM: f64 = 1.25;
/// In how many seconds each VM can send the longest answer alone: clients give up after twice that.
const LONGEST_S: u64 = 5;
/// What an unanswered request counts as in the comparison: clients waited so long.
const UNANSWERED_MS: f64 = 10_000.0;
/// The share of all possible hits that memory is sized for, with every object in two places.
const HITS: f64 = 0.95;
const PLACES: u64 = 2;
/// Ways whose costs differ by less are alike: the simpler one is advised.
const ALIKE: f64 = 0.02;
/// Into how many blocks of time a run is divided to tell how sure its mean is.
const BLOCKS: usize = 20;

/// The cluster that the log asks for.
#[derive(Debug, Clone, Copy, Serialize)]
struct Size {
    vms: u32,
    /// Of all VMs together.
    bandwidth_bytes_per_s: u64,
    /// Of each.
    memory_per_vm_bytes: u64,
    /// What an LRU cache needs for 95 % of all possible hits.
    working_set_bytes: u64,
    /// The highest rate of ten seconds.
    peak_bytes_per_s: f64,
}

/// A way to run it.
#[derive(Debug, Clone, PartialEq)]
struct Way {
    algorithm: Algorithm,
    replicas: usize,
    policy: &'static str,
}

/// How a way fared, over all seeds.
#[derive(Debug, Clone, Serialize)]
struct Row {
    algorithm: String,
    replicas: Option<usize>,
    policy: &'static str,
    mean_ms: Option<f64>,
    /// The mean with what was not answered as the time after which clients give up: ways are compared by it.
    cost_ms: Option<f64>,
    p99_ms: Option<f64>,
    unanswered_share: f64,
    hit_share: f64,
    /// The change of that against what is compared with; `None` for that itself, or if it cannot be told.
    change: Option<Estimate>,
}

/// What the JSON says beside the rows.
#[derive(Debug, Serialize)]
struct Setup {
    log: String,
    requests: u64,
    bytes: u64,
    seconds: f64,
    objects: usize,
    size: Size,
    /// The stretch that was simulated: from which second on, for how long, and with how long a lead.
    stretch: Stretch,
    seeds: u64,
    /// What the others are compared with.
    baseline: String,
    /// The way that is advised.
    advice: String,
    /// The least bandwidth, as a share of the cluster's, with which that way is no worse than the baseline with all of it.
    enough_bandwidth: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Stretch {
    from_s: u64,
    seconds: u64,
    lead_s: u64,
}

/// Reads the log, sizes a cluster, simulates ways to run it, and says which to use.
pub(crate) fn run(args: &cli::Whatif) -> Outcome {
    let provenance = Provenance::now(crate::COMMIT.map(str::to_owned), Some(args.seed));
    let object_size = args.object_size.map(|size| size.0);
    let options = Options { object_map: args.objects.clone(), object_size, ..Options::default() };
    let log = Log::open(&args.log, options, args.seed)?;
    let stretch = stretch(&log, args.seconds);
    let size = size(&log, &stretch, args)?;
    let lead = Duration::from_secs(stretch.lead_s);
    let trace = log.stretch(
        Duration::from_secs(stretch.from_s) - lead,
        Duration::from_secs(stretch.seconds).saturating_add(lead),
    )?;
    let ways = ways(args.now, size.vms as usize);
    let model = Model { trace: &trace, size, warm_up: lead };
    let bar = progress::requests((args.seeds * ways.len() as u64 + 11) * trace.requests.len() as u64);
    let mut runs: Vec<Vec<cluster::Outcome>> = Vec::new();
    for seed in args.seed..args.seed + args.seeds {
        let jobs: Result<Vec<Job>, _> = ways.iter().map(|way| model.job(way, 1.0)).collect();
        runs.push(batch::run(&model.workload(seed), jobs?, &bar)?);
    }
    let rows: Vec<Row> = (0..ways.len()).map(|way| row(&ways, &runs, way, args.seed)).collect();
    let best = advise(&rows).ok_or_else(|| anyhow!("no way answered any request"))?;
    let enough = enough_bandwidth(&model, &ways[best], rows[0].cost_ms, args.seed, &bar)?;
    bar.finish_and_clear();
    let setup = Setup {
        log: format!("{} ({})", log.name, log.origin),
        requests: log.requests,
        bytes: log.bytes,
        seconds: log.length.as_secs_f64(),
        objects: log.objects,
        size,
        stretch,
        seeds: args.seeds,
        baseline: text::name(&rows[0]),
        advice: text::name(&rows[best]),
        enough_bandwidth: enough,
    };
    print!("{}", text::report(&setup, &log, &rows, best));
    if let Some(path) = &args.json {
        Document { provenance, setup, rows }.write(path)?;
    }
    Ok(())
}

/// The busiest stretch, and what comes before it to fill the caches.
fn stretch(log: &Log, seconds: u64) -> Stretch {
    let seconds = seconds.min(log.length.as_secs() + 1);
    let from_s = log.busiest(seconds);
    // Where the log has nothing before it, a part of the stretch itself has to do.
    let lead_s = from_s.min(seconds);
    if lead_s >= seconds / 4 {
        return Stretch { from_s, seconds, lead_s };
    }
    let lead = seconds / 4;
    Stretch { from_s: from_s + lead - lead_s, seconds: seconds - (lead - lead_s), lead_s: lead }
}

/// The cluster that the log asks for, where the command line does not say otherwise.
fn size(log: &Log, stretch: &Stretch, args: &cli::Whatif) -> Result<Size, Failure> {
    let peak = log.peak(stretch.from_s, stretch.seconds);
    let working_set = log.reuse.memory_for(HITS);
    let overhead = Hardware::default().overhead.0;
    let places = PLACES.min(args.servers.into());
    let memory = overhead + (working_set * places).div_ceil(args.servers.into());
    let least = log.longest.div_ceil(LONGEST_S) * u64::from(args.servers);
    let enough = ((peak * HEADROOM).ceil() as u64).max(least);
    let size = Size {
        vms: args.servers,
        bandwidth_bytes_per_s: args.bandwidth.map_or(enough, |bandwidth| bandwidth.0),
        memory_per_vm_bytes: args.memory.map_or(memory, |memory| memory.0),
        working_set_bytes: working_set,
        peak_bytes_per_s: peak,
    };
    if size.bandwidth_bytes_per_s < 1_000 * u64::from(size.vms) {
        return Err(Failure::usage(anyhow!(
            "{} bytes/s are too little for {} VMs: name more (--bandwidth), or fewer VMs (--servers)",
            size.bandwidth_bytes_per_s,
            size.vms
        )));
    }
    Ok(size)
}

/// What is used now, with a fixed share for each VM, and what could be.
fn ways(now: Algorithm, servers: usize) -> Vec<Way> {
    use Algorithm::{BoundedLoads, Lard, LeastConnection, RoundRobin, UrlHash};
    let base = Way { algorithm: now, replicas: PLACES.min(servers as u64) as usize, policy: "static" };
    let mut ways = vec![base];
    for policy in ["static", "proportional"] {
        for algorithm in [RoundRobin, LeastConnection, Lard, BoundedLoads, UrlHash] {
            let most = if algorithm == UrlHash { servers.min(3) } else { 1 };
            for replicas in 1..=most {
                let way = Way { algorithm, replicas, policy };
                let known = |other: &Way| {
                    let same = (other.algorithm, other.policy) == (way.algorithm, way.policy);
                    same && (!algorithm.uses_replicas() || other.replicas == replicas)
                };
                if !ways.iter().any(known) {
                    ways.push(way);
                }
            }
        }
    }
    ways
}

struct Model<'a> {
    trace: &'a Trace,
    size: Size,
    warm_up: Duration,
}

impl Model<'_> {
    fn workload(&self, seed: u64) -> Workload {
        Workload::of(self.trace.clone(), Spread::Poisson { seed })
    }

    /// The cluster under a way, with this share of its bandwidth.
    fn job(&self, way: &Way, share: f64) -> anyhow::Result<Job> {
        let Size { vms, bandwidth_bytes_per_s, memory_per_vm_bytes, .. } = self.size;
        let rate = (bandwidth_bytes_per_s as f64 * share) as u64 / u64::from(vms);
        let has = |rate: u64, memory: u64| Resources {
            bandwidth: Some(BytesPerSec(rate)),
            memory: Some(Bytes(memory)),
            cpu: None,
        };
        let total = u64::from(vms);
        let customer = Customer { id: "log".parse()?, bounds: has(rate * total, memory_per_vm_bytes * total) };
        let host = HostSpec { id: "host".parse()?, capacity: Resources::NONE };
        let vm = |order: u32| {
            Ok(VmSpec {
                id: format!("vm{order}").parse()?,
                customer: customer.id.clone(),
                host: host.id.clone(),
                address: "127.0.0.1:80".into(),
                order,
                weight: 1,
                floor: Resources { bandwidth: Some(BytesPerSec(rate / 20)), ..Resources::NONE },
                initial: has(rate, memory_per_vm_bytes),
            })
        };
        let settings = Settings { algorithm: way.algorithm, replicas: way.replicas, ..Settings::default() };
        let scenario = Scenario {
            vms: (1..=vms).map(vm).collect::<anyhow::Result<_>>()?,
            hosts: vec![host],
            settings,
            warm_up: self.warm_up,
            ..Scenario::new(customer.clone())
        };
        let policies: PolicySet = way.policy.parse().map_err(anyhow::Error::msg)?;
        Ok(Job { scenario, policies: policies.build()?, speed: 1.0 })
    }
}

/// A way's result over all runs, against the first way.
fn row(ways: &[Way], runs: &[Vec<cluster::Outcome>], way: usize, seed: u64) -> Row {
    let own = || runs.iter().map(move |run| &run[way]);
    let sum = |of: fn(&cluster::Outcome) -> u64| own().map(of).sum::<u64>() as f64;
    let completed = sum(|out| out.completed);
    let times = || own().filter_map(|out| Some((out.completed as f64, out.response_time?)));
    let mean = |of: fn(&cluster::Times) -> f64| {
        (completed > 0.0).then(|| times().map(|(count, times)| count * of(&times)).sum::<f64>() / completed)
    };
    let pairs: Vec<(f64, f64)> = runs
        .iter()
        .flat_map(|run| blocks(&run[0]).zip(blocks(&run[way])))
        .filter_map(|(before, after)| before.zip(after))
        .collect();
    let (before, after): (Vec<f64>, Vec<f64>) = pairs.into_iter().unzip();
    let change = Paired::new(&before, &after).and_then(|pairs| pairs.relative_change(Resampling::with_seed(seed)));
    let Way { algorithm, replicas, policy } = ways[way];
    Row {
        algorithm: algorithm.to_string(),
        replicas: algorithm.uses_replicas().then_some(replicas),
        policy,
        mean_ms: mean(|times| times.mean_ms),
        cost_ms: cost(own()),
        p99_ms: mean(|times| times.p99_ms),
        unanswered_share: sum(|out| out.errors.total()) / sum(|out| out.requests).max(1.0),
        hit_share: sum(|out| out.hits) / sum(|out| out.hits + out.misses).max(1.0),
        change: change.ok().filter(|_| way > 0),
    }
}

/// The mean of these runs, with what was not answered as the time after which clients give up.
fn cost<'a>(runs: impl Iterator<Item = &'a cluster::Outcome>) -> Option<f64> {
    let sums = runs.map(|out| {
        let answered = out.response_time.map_or(0.0, |times| times.mean_ms * out.completed as f64);
        (answered + UNANSWERED_MS * out.errors.total() as f64, out.requests as f64)
    });
    let (time, requests) = sums.fold((0.0, 0.0), |all, one| (all.0 + one.0, all.1 + one.1));
    (requests > 0.0).then(|| time / requests)
}

/// The same mean of each of the blocks of a run.
fn blocks(outcome: &cluster::Outcome) -> impl Iterator<Item = Option<f64>> + '_ {
    let parts = outcome.timeline.len().div_ceil(BLOCKS).max(1);
    outcome.timeline.chunks(parts).map(|block| {
        let requests: u64 = block.iter().map(|part| part.requests).sum();
        let answered: f64 = block.iter().filter_map(|part| Some(part.mean_ms()? * part.completed as f64)).sum();
        let unanswered: u64 = block.iter().map(|part| part.requests - part.completed).sum();
        (requests > 0).then(|| (answered + UNANSWERED_MS * unanswered as f64) / requests as f64)
    })
}

/// The way with the lowest cost; of those that are alike the first, which is the simplest.
fn advise(rows: &[Row]) -> Option<usize> {
    let best = rows.iter().filter_map(|row| row.cost_ms).min_by(f64::total_cmp)?;
    rows.iter().position(|row| row.cost_ms.is_some_and(|cost| cost <= best * (1.0 + ALIKE)))
}

/// The least share of the bandwidth, in steps of 5 %, from which on the way is no worse than `limit`.
fn enough_bandwidth(
    model: &Model<'_>,
    way: &Way,
    limit: Option<f64>,
    seed: u64,
    bar: &indicatif::ProgressBar,
) -> anyhow::Result<Option<f64>> {
    let Some(limit) = limit else { return Ok(None) };
    let shares: Vec<f64> = (0..11).map(|step| 1.0 - 0.05 * f64::from(step)).collect();
    let jobs: Result<Vec<Job>, _> = shares.iter().map(|&share| model.job(way, share)).collect();
    let outcomes = batch::run(&model.workload(seed), jobs?, bar)?;
    let good = outcomes.iter().take_while(|out| cost([*out].into_iter()).is_some_and(|cost| cost <= limit));
    Ok(good.zip(&shares).map(|(_, share)| *share).last())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cost_ms: f64) -> Row {
        Row {
            algorithm: "url-hash".into(),
            replicas: Some(2),
            policy: "static",
            mean_ms: None,
            cost_ms: Some(cost_ms),
            p99_ms: None,
            unanswered_share: 0.0,
            hit_share: 0.9,
            change: None,
        }
    }

    #[test]
    fn the_simplest_of_the_best_is_advised() {
        assert_eq!(advise(&[row(9.0), row(5.05), row(5.0)]), Some(1));
        assert_eq!(advise(&[]), None);
    }

    #[test]
    fn every_way_stands_once_and_the_present_one_first() {
        let ways = ways(Algorithm::LeastConnection, 4);
        assert_eq!((ways[0].algorithm, ways[0].policy), (Algorithm::LeastConnection, "static"));
        assert_eq!(ways.len(), 14);
        assert_eq!(super::ways(Algorithm::UrlHash, 1).len(), 10);
    }
}

//! `vibra simulate`: what algorithms and policies would do, on virtual time.

pub(crate) mod batch;
pub(crate) mod calibrate;
mod plots;
pub(crate) mod policy;
mod sweep;
pub(crate) mod workload;

pub(crate) use policy::PolicySet;
pub(crate) use sweep::Sweep;

use crate::{
    cli,
    config::{Config, Source},
    exit::{Failure, Outcome},
    progress,
};
use anyhow::{Context, anyhow};
use batch::Job;
use serde::Serialize;
use std::time::{Duration, Instant};
use vibra_model::Resource;
use vibra_report::{Column, DemoRow, Document, Provenance, Sheet, number};
use vibra_routing::Algorithm;
use vibra_sim::cluster::{self, Clients, Scenario};
use workload::{Choice, Workload};

/// One combination to be simulated.
#[derive(Debug, Clone)]
struct Variant {
    algorithm: Algorithm,
    replicas: usize,
    policies: PolicySet,
    /// The value of the parameter that is swept.
    at: Option<f64>,
}

/// What the JSON says beside the rows.
#[derive(Debug, Serialize)]
struct Setup<'a> {
    trace: String,
    requests: u64,
    cluster: String,
    /// The parameter that is swept.
    sweep: Option<&'a str>,
    faults: Vec<String>,
}

/// One combination's result: the demo's columns and what only a simulation knows.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    /// The value of the parameter that is swept.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<f64>,
    #[serde(flatten)]
    row: DemoRow,
    timeouts: u64,
    retries: u64,
    /// The share of the requests for data that found it in memory.
    hit_share: Option<f64>,
    /// Plans that the checker or the directory refused.
    refused_plans: u64,
    moves: u64,
}

/// Simulates every combination, prints a table, and writes what was asked for.
pub(crate) fn run(args: &cli::Simulate) -> Outcome {
    let provenance = Provenance::now(crate::COMMIT.map(str::to_owned), Some(args.seed));
    if !args.calibrate.is_empty() {
        return calibrate::run(&args.calibrate, args, provenance);
    }
    let (Some(trace), Some(cluster)) = (&args.trace, &args.cluster) else {
        return Err(Failure::usage(anyhow!("name the trace (--trace) and the cluster (--cluster)")));
    };
    let config = Config::load(cluster).map_err(Failure::Usage)?;
    let base = scenario(&config, args).map_err(Failure::Usage)?;
    if config.allocator.as_ref().is_some_and(|allocator| allocator.level.is_some()) {
        eprintln!("warning: how VMs adapt their level is not simulated here; --mpl sets a fixed one");
    }
    let variants = variants(args, &base, &PolicySet::configured(config.allocator.as_ref()));
    let choice =
        Choice { trace, objects: args.objects.clone(), seconds: args.seconds, spread: args.spread, seed: args.seed };
    let workload = Workload::open(&choice)?;
    eprintln!(
        "trace:   {} ({}), {} requests for {} objects",
        workload.name,
        workload.origin,
        workload.requests,
        workload.catalogue.len()
    );
    eprintln!("cluster: {} VMs, {} ways to run it", base.vms.len(), variants.len());
    let jobs: Result<Vec<Job>, _> = variants.iter().map(|variant| job(variant, &base, args)).collect();
    let began = Instant::now();
    let bar = progress::requests(workload.requests * variants.len() as u64);
    let outcomes = batch::run(&workload, jobs.map_err(Failure::Usage)?, &bar).map_err(Failure::Usage)?;
    bar.finish_and_clear();
    let rows: Vec<Row> = variants.iter().zip(&outcomes).map(|(variant, outcome)| row(variant, outcome)).collect();
    print!("{}", table(&rows, args.sweep.as_ref()));
    let simulated: u64 = outcomes.iter().map(|outcome| outcome.simulated).sum();
    eprintln!("{} requests in {:.1} s", number(Some(simulated as f64), 0), began.elapsed().as_secs_f64());
    if let Some(folder) = &args.plots {
        let names: Vec<_> = variants.iter().map(Variant::name).collect();
        plots::write(folder, args.sweep.as_ref(), &names, &rows, &outcomes)
            .with_context(|| format!("plots in {}", folder.display()))?;
    }
    if let Some(path) = &args.json {
        let setup = Setup {
            trace: format!("{} ({})", workload.name, workload.origin),
            requests: workload.requests,
            cluster: cluster.display().to_string(),
            sweep: args.sweep.as_ref().map(|sweep| sweep.parameter.name()),
            faults: args.faults.iter().map(ToString::to_string).collect(),
        };
        Document { provenance, setup, rows }.write(path)?;
    }
    Ok(())
}

impl Variant {
    fn replicas(&self) -> Option<usize> {
        self.algorithm.uses_replicas().then_some(self.replicas)
    }

    /// Its name in plots, without what is swept.
    fn name(&self) -> String {
        match self.replicas() {
            Some(r) => format!("{} R={r}, {}", self.algorithm, self.policies),
            None => format!("{}, {}", self.algorithm, self.policies),
        }
    }
}

/// The cluster of a configuration, as the command line would have it.
fn scenario(config: &Config, args: &cli::Simulate) -> anyhow::Result<Scenario> {
    let none = || anyhow!("the cluster file has no [[customer]] with [[vm]]s: see docs/examples/cluster.toml");
    let named = config.dispatcher.as_ref().and_then(|dispatcher| match &dispatcher.source {
        Source::Directory(customer) => Some(customer.clone()),
        Source::Static(_) => None,
    });
    let first = config.vms.first().ok_or_else(none)?.spec.customer.clone();
    let of = named.unwrap_or(first);
    let customer = config.customers.iter().find(|customer| customer.id == of).ok_or_else(none)?.clone();
    let vms: Vec<_> = config.vms.iter().map(|vm| vm.spec.clone()).filter(|spec| spec.customer == of).collect();
    if vms.is_empty() {
        return Err(none());
    }
    let mut scenario = Scenario { vms, hosts: config.hosts.clone(), ..Scenario::new(customer) };
    match &config.dispatcher {
        Some(dispatcher) => scenario.settings = dispatcher.settings.clone(),
        // The usual R may be more than there are servers.
        None => scenario.settings.replicas = scenario.settings.replicas.min(scenario.vms.len()),
    }
    if let Some(allocator) = &config.allocator {
        scenario.interval = allocator.interval;
    }
    scenario.hardware.latency = Duration::from_secs_f64(args.latency_ms / 1e3);
    scenario.hardware.disk.seek = Duration::from_secs_f64(args.seek_ms / 1e3);
    scenario.hardware.cpu.request = Duration::from_secs_f64(args.cpu_ms / 1e3);
    scenario.hardware.mpl = args.mpl;
    scenario.dispatchers = args.dispatchers;
    scenario.view_delay = args.view_delay;
    scenario.actuator_lag = args.actuator_lag;
    scenario.timeout = Duration::from_secs(args.timeout);
    scenario.warm_up = Duration::from_secs(args.warm_up);
    scenario.faults = args.faults.clone();
    scenario.seed = args.seed;
    if let Some(sessions) = args.sessions {
        scenario.clients = Clients::Closed { sessions, think: args.think };
    }
    Ok(scenario)
}

/// Every combination. R matters to some algorithms alone: the others are simulated once.
fn variants(args: &cli::Simulate, base: &Scenario, configured: &PolicySet) -> Vec<Variant> {
    let or = |given: &[Algorithm]| if given.is_empty() { vec![base.settings.algorithm] } else { given.to_vec() };
    let replicas = if args.replicas.is_empty() { vec![base.settings.replicas] } else { args.replicas.clone() };
    let policies: Vec<PolicySet> = match &args.policy[..] {
        [] => vec![configured.clone()],
        named => named.iter().map(|policy| policy.clone().over(configured)).collect(),
    };
    let values = args.sweep.as_ref().map_or(vec![None], |sweep| sweep.values.iter().copied().map(Some).collect());
    let mut variants = Vec::new();
    for algorithm in or(&args.algorithm) {
        let counted = if algorithm.uses_replicas() { replicas.len() } else { 1 };
        for &replicas in &replicas[..counted] {
            for policies in &policies {
                let of = |&at: &Option<f64>| Variant { algorithm, replicas, policies: policies.clone(), at };
                variants.extend(values.iter().map(of));
            }
        }
    }
    variants
}

fn job(variant: &Variant, base: &Scenario, args: &cli::Simulate) -> anyhow::Result<Job> {
    let mut scenario = base.clone();
    scenario.settings.algorithm = variant.algorithm;
    scenario.settings.replicas = variant.replicas;
    scenario.working_set_window = variant.policies.working_set_window();
    let mut speed = args.speed;
    if let (Some(sweep), Some(value)) = (&args.sweep, variant.at) {
        sweep.parameter.set(value, &mut scenario);
        if sweep.parameter == sweep::Parameter::Speed {
            speed = value;
        }
    }
    if !(speed.is_finite() && speed > 0.0) {
        return Err(anyhow!("a speed of {speed} plays nothing: use more than 0"));
    }
    Ok(Job { scenario, policies: variant.policies.build()?, speed })
}

/// The demo's columns of a simulation.
pub(crate) fn demo_row(
    algorithm: Algorithm,
    replicas: Option<usize>,
    policy: String,
    out: &cluster::Outcome,
) -> DemoRow {
    let times = out.response_time;
    let seconds = out.duration.as_secs_f64();
    DemoRow {
        algorithm: algorithm.to_string(),
        replicas,
        policy,
        requests: out.requests,
        errors: out.errors.total(),
        mean_ms: times.map(|times| times.mean_ms),
        p50_ms: times.map(|times| times.p50_ms),
        p99_ms: times.map(|times| times.p99_ms),
        bytes_per_s: (seconds > 0.0).then(|| out.bytes as f64 / seconds),
        disk_blocks: Some(out.disk_blocks),
        bandwidth_moved_bytes_per_s: Some(out.allocator.moved(Resource::Bandwidth) as f64),
        void: None,
    }
}

fn row(variant: &Variant, out: &cluster::Outcome) -> Row {
    let asked = out.hits + out.misses;
    Row {
        at: variant.at,
        row: demo_row(variant.algorithm, variant.replicas(), variant.policies.to_string(), out),
        timeouts: out.errors.timeout,
        retries: out.retries,
        hit_share: (asked > 0).then(|| out.hits as f64 / asked as f64),
        refused_plans: out.allocator.refused,
        moves: out.allocator.moves,
    }
}

fn table(rows: &[Row], sweep: Option<&Sweep>) -> Sheet {
    let mut columns = vec![Column::left("algorithm"), Column::right("R"), Column::left("policy")];
    columns.extend(sweep.map(|sweep| Column::right(sweep.parameter.name())));
    let measured = ["requests", "errors", "mean ms", "p50 ms", "p99 ms", "MB/s", "hits %", "disk blocks", "moved MB/s"];
    columns.extend(measured.map(Column::right));
    let mut sheet = Sheet::new(columns);
    for Row { at, row, hit_share, .. } in rows {
        let mut cells = vec![
            row.algorithm.clone(),
            row.replicas.map_or("-".into(), |replicas| replicas.to_string()),
            row.policy.clone(),
        ];
        cells.extend(at.map(|at| at.to_string()));
        let mega = |value: Option<f64>| number(value.map(|value| value / 1e6), 2);
        cells.extend([
            number(Some(row.requests as f64), 0),
            number(Some(row.errors as f64), 0),
            number(row.mean_ms, 2),
            number(row.p50_ms, 2),
            number(row.p99_ms, 1),
            mega(row.bytes_per_s),
            number(hit_share.map(|share| 100.0 * share), 1),
            number(row.disk_blocks.map(|blocks| blocks as f64), 0),
            mega(row.bandwidth_moved_bytes_per_s),
        ]);
        sheet.push(cells);
    }
    sheet
}

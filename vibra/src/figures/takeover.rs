//! What a failure costs (section 4.3 and 4.4): Figures 4.1, 4.3 and 4.4.

mod stage;

use super::bed::ALPHA;
use crate::{
    figure::{Cell, Check, Figure, Heading, Line, Measured, Panel, Run, Unable, Wanted},
    live::{Cluster as Vms, Equipment},
    parts::stop,
};
use anyhow::{Context, bail};
use serde_json::{Value, json};
use stage::{Stage, VICTIM, VMS, Way};
use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};
use vibra_agent::Machine;
use vibra_model::{Bytes, BytesPerSec, Resource, Resources, Revision, Snapshot, Timestamp, Vm, VmState};
use vibra_replay::{Mode, Options, Spread, Summary};
use vibra_report::Axis;
use vibra_routing::{Algorithm, Cluster, HashKind, Idle, PickState, Remap, Server, Settings, Table};
use vibra_trace::{Trace, generate::worldcup::WorldCup};

pub(super) const FIGURES: &[Figure] = &[
    Figure {
        id: "4.1",
        title: "Average locality loss when one server fails",
        paper: "Figure 4.1: dividing the names anew loses half of the locality at worst, whatever N, and 37 % on average for N = 10, \
                R = 1; less with greater R. Skipping the failed server loses 1/N.",
        make: locality,
    },
    Figure {
        id: "4.3",
        title: "Throughput with one of four servers gone",
        paper: "Figure 4.3: 250 connections, 72 MB and 6 Mbit/s a VM. Without transfer all suffer; bandwidth alone adds 1 to 3 %, \
                memory alone 37 to 73 %; with both URL-hashing/R has 97 % of its normal throughput.",
        make: degraded,
    },
    Figure {
        id: "4.4",
        title: "A failure and its recovery",
        paper: "Figure 4.4: 2.7 MB/s a VM, server 2 is killed at t = 60 s. Mean response time rises from 19 to 23 ms, disk reads by \
                14 %; servers 3 and 4 take over.",
        make: recovery,
    },
];

// Figure 4.1

fn table(up: &[bool], replicas: usize, remap: Remap) -> anyhow::Result<Table> {
    let server = |(number, &up): (usize, &bool)| {
        let state = if up { VmState::Up } else { VmState::Down };
        Ok(Server::new(format!("vm{number}").parse()?, 1, state))
    };
    let servers = up.iter().enumerate().map(server).collect::<anyhow::Result<_>>()?;
    let settings = Settings { replicas, remap, hash: HashKind::Xxh3, fallbacks: 0, ..Settings::default() };
    Ok(Table::build(&Cluster { revision: Revision(1), servers }, &settings)?)
}

/// The part of all replicas of all objects that are no longer where they were, for each server that may fail.
fn losses(servers: usize, replicas: usize, remap: Remap, names: &[String]) -> anyhow::Result<Vec<f64>> {
    let subset = |table: &Table, name: &str| -> BTreeSet<usize> {
        table.pick(&mut PickState::default(), name, &Idle, Timestamp(0)).iter().copied().collect()
    };
    let all = table(&vec![true; servers], replicas, remap)?;
    let before: Vec<_> = names.iter().map(|name| subset(&all, name)).collect();
    let lost = |failed: usize| {
        let up: Vec<bool> = (0..servers).map(|server| server != failed).collect();
        let left = table(&up, replicas, remap)?;
        let lost = names.iter().zip(&before).map(|(name, before)| before.difference(&subset(&left, name)).count());
        Ok(lost.sum::<usize>() as f64 / (names.len() * replicas) as f64)
    };
    (0..servers).map(lost).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn locality(run: &Run) -> anyhow::Result<Measured> {
    const REPLICAS: [usize; 4] = [1, 2, 3, 4];
    let names: Vec<String> =
        (0..if run.quick { 4_000 } else { 40_000 }).map(|number| format!("/{number}.html")).collect();
    let sizes: Vec<usize> = (2..=20).step_by(if run.quick { 2 } else { 1 }).collect();
    let (mut rows, mut lines) = (Vec::new(), Vec::new());
    let (mut of_ten, mut worst, mut off) = (None, 0.0f64, 0.0f64);
    for replicas in REPLICAS {
        let mut points = Vec::new();
        for &servers in sizes.iter().filter(|&&servers| servers > replicas) {
            run.bar.set_message(format!("4.1: N = {servers}, R = {replicas}"));
            let (naive, skip) =
                (losses(servers, replicas, Remap::Naive, &names)?, losses(servers, replicas, Remap::Skip, &names)?);
            if replicas == 1 {
                worst = worst.max(naive.iter().copied().fold(0.0, f64::max));
                of_ten = of_ten.or((servers == 10).then(|| mean(&naive)));
            }
            off = off.max((mean(&skip) - 1.0 / servers as f64).abs());
            points.push((servers as f64, 100.0 * mean(&naive)));
            let row: [Cell; 4] = [
                (servers as f64).into(),
                (replicas as f64).into(),
                (100.0 * mean(&naive)).into(),
                (100.0 * mean(&skip)).into(),
            ];
            rows.push(row.to_vec());
        }
        lines.push(Line { name: format!("divided anew, R = {replicas}"), points });
    }
    lines.push(Line {
        name: "skipped (1/N)".into(),
        points: sizes.iter().map(|&servers| (servers as f64, 100.0 / servers as f64)).collect(),
    });
    Ok(Measured {
        conditions: format!("The dispatcher's own tables over {} names; each of N servers fails once.", names.len()),
        columns: vec![
            Heading::numbers("N", 0),
            Heading::numbers("R", 0),
            Heading::numbers("divided anew (%)", 1),
            Heading::numbers("skipped (%)", 1),
        ],
        rows,
        panels: vec![Panel::Lines {
            title: "Locality lost when one of N servers fails, on average".into(),
            x: Axis::linear("N"),
            y: Axis::linear("lost (%)"),
            lines,
        }],
        checks: vec![
            Check::new(
                "average loss, N = 10, R = 1, divided anew",
                "37 %",
                of_ten.map(|loss| 100.0 * loss),
                Wanted::Within(36.0, 38.0),
            ),
            Check::new("worst loss, R = 1, divided anew", "50 %", Some(100.0 * worst), Wanted::Within(48.0, 52.0)),
            Check::new("skipped, off from 1/N", "0", Some(100.0 * off), Wanted::AtMost(1e-6)),
        ],
    })
}

// Figures 4.3 and 4.4

fn megabytes(bandwidth: u64, memory: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(bandwidth)), memory: Some(Bytes(memory << 20)), cpu: None }
}

/// A way to dispatch, as section 4.4 compares them.
struct Contender {
    name: &'static str,
    algorithm: Algorithm,
}

const CONTENDERS: [Contender; 4] = [
    Contender { name: "least-connection", algorithm: Algorithm::LeastConnection },
    Contender { name: "LARD", algorithm: Algorithm::Lard },
    Contender { name: "LARD/R", algorithm: Algorithm::LardR },
    Contender { name: "URL-hashing/R", algorithm: Algorithm::UrlHash },
];

impl Contender {
    fn is_vibra(&self) -> bool {
        self.algorithm == Algorithm::UrlHash
    }

    /// With these resources handed on when a VM fails. Under URL-hashing bandwidth follows demand (section 3.3.2) and the
    /// neighbours take over (4.3.3); under the others all divide evenly what failed VMs leave (4.3.2).
    fn way(&self, share: Resources, moved: &[Resource]) -> Way {
        let policy = |resource| {
            let takeover = moved.contains(&resource);
            let (name, mut parameters): (&'static str, Value) = match resource {
                Resource::Bandwidth if self.is_vibra() => ("proportional", json!({ "alpha": ALPHA })),
                _ if takeover && !self.is_vibra() => ("static", json!({ "share": "equal" })),
                _ => ("static", json!({})),
            };
            if takeover && self.is_vibra() {
                parameters["takeover"] = json!({ "replicas": 2 });
            }
            (resource, name, parameters)
        };
        let mut kept = Resources::NONE;
        share.amounts().filter(|amount| !moved.contains(&amount.resource())).for_each(|amount| kept.set(amount));
        Way {
            settings: Settings {
                algorithm: self.algorithm,
                hash: HashKind::Charsum,
                replicas: 2,
                ..Settings::default()
            },
            policies: vec![policy(Resource::Bandwidth), policy(Resource::Memory)],
            share,
            kept,
        }
    }
}

/// What happens before a throughput is measured.
struct Scenario {
    name: &'static str,
    fails: bool,
    moved: &'static [Resource],
}

const SCENARIOS: [Scenario; 5] = [
    Scenario { name: "normal", fails: false, moved: &[Resource::Bandwidth, Resource::Memory] },
    Scenario { name: "one gone", fails: true, moved: &[] },
    Scenario { name: "bandwidth moved", fails: true, moved: &[Resource::Bandwidth] },
    Scenario { name: "memory moved", fails: true, moved: &[Resource::Memory] },
    Scenario { name: "both moved", fails: true, moved: &[Resource::Bandwidth, Resource::Memory] },
];

/// What every VM of Figure 4.3 has: 72 MB and 6 Mbit/s.
const SHARE: (u64, u64) = (750_000, 72);
/// Its clients.
const CONNECTIONS: usize = 250;

/// For how long each throughput is measured, and how long it runs before that.
struct Lengths {
    warm_up: Duration,
    measured: Duration,
}

fn degraded(run: &Run) -> anyhow::Result<Measured> {
    let lengths = match run.quick {
        true => Lengths { warm_up: Duration::from_secs(2), measured: Duration::from_secs(2) },
        false => Lengths { warm_up: Duration::from_secs(20), measured: Duration::from_secs(30) },
    };
    let chosen: Vec<&Contender> = CONTENDERS.iter().filter(|one| !run.quick || one.is_vibra()).collect();
    let scenarios: Vec<&Scenario> =
        SCENARIOS.iter().filter(|scenario| !run.quick || scenario.moved.len() != 1).collect();
    let trace = WorldCup { seed: run.seed }.generate();
    let share = megabytes(SHARE.0, SHARE.1);
    let (all, description) = done(async {
        let vms = start(run, &trace, share).await?;
        let mut all = Vec::new();
        for contender in &chosen {
            let mut of = Vec::new();
            for scenario in &scenarios {
                run.bar.set_message(format!("4.3: {}, {}", contender.name, scenario.name));
                of.push(throughput(&vms, contender, scenario, &trace, &lengths).await?);
            }
            all.push(of);
        }
        let description = vms.description().to_owned();
        vms.stop().await?;
        anyhow::Ok((all, description))
    })?;
    let rates = |of: &[Summary]| -> Vec<Option<f64>> { of.iter().map(|summary| summary.requests_per_s).collect() };
    let column = |contender: &str, name: &str| {
        let row = chosen.iter().position(|one| one.name == contender)?;
        all[row][scenarios.iter().position(|scenario| scenario.name == name)?].requests_per_s
    };
    let ratio = |name: &str, to: &str| Some(100.0 * column("URL-hashing/R", name)? / column("URL-hashing/R", to)?);
    let row = |(contender, of): (&&Contender, &Vec<Summary>)| {
        std::iter::once(contender.name.into()).chain(rates(of).into_iter().map(Cell::from)).collect()
    };
    let mut checks = vec![Check::new(
        "URL-hashing/R, both moved, of normal (%)",
        "97 %",
        ratio("both moved", "normal"),
        Wanted::AtLeast(97.0),
    )];
    if !run.quick {
        let gains = [("memory moved", "37 to 73 %", 110.0), ("bandwidth moved", "1 to 3 %", 100.0)];
        checks.extend(gains.map(|(name, paper, least)| {
            Check::new(
                format!("URL-hashing/R, {name}, of nothing moved (%)"),
                paper,
                ratio(name, "one gone"),
                Wanted::AtLeast(least),
            )
        }));
    }
    let void = all.iter().flatten().filter(|summary| summary.void.is_some()).count();
    checks.push(
        Check::new("runs that say more of the load generator", "none", Some(void as f64), Wanted::AtMost(0.0))
            .with_decimals(0),
    );
    Ok(Measured {
        conditions: format!(
            "{description}. {VMS} VMs of 72 MB and 6 Mbit/s, {CONNECTIONS} clients in closed loop, the reconstructed World Cup trace; VM 2 fails \
             before the load begins; {} s measured after {} s from disks that are not throttled (the paper: the whole trace, 10 min).",
            lengths.measured.as_secs(),
            lengths.warm_up.as_secs(),
        ),
        columns: std::iter::once(Heading::words("requests/s"))
            .chain(scenarios.iter().map(|scenario| Heading::numbers(scenario.name, 0)))
            .collect(),
        rows: chosen.iter().zip(&all).map(row).collect(),
        panels: vec![Panel::Bars {
            title: "Throughput with one of four servers gone".into(),
            y: Axis::linear("requests/s"),
            groups: scenarios.iter().map(|scenario| scenario.name.to_owned()).collect(),
            series: chosen.iter().zip(&all).map(|(contender, of)| (contender.name.to_owned(), rates(of))).collect(),
        }],
        checks,
    })
}

/// Makes the VMs, as [`Bed::start`](super::bed::Bed::start) does.
async fn start(run: &Run, trace: &Trace, each: Resources) -> anyhow::Result<Vms> {
    let equipment = Equipment { vms: VMS, each, in_process: run.in_process, docroots: None };
    let vms = Vms::start(&equipment, &trace.objects).await?;
    if let Some(why) = vms.unthrottled() {
        return Err(Unable(format!("disks as fast as this machine's would hide what is measured: {why}")).into());
    }
    Ok(vms)
}

/// Caches fill from disks that are not throttled.
async fn warm_up(vms: &Vms, length: Duration) -> anyhow::Result<()> {
    vms.free_disks().await?;
    tokio::time::sleep(length).await;
    vms.throttle_disks().await
}

/// Does `work` until it is done, or the process is asked to stop; what the work made is removed either way.
fn done<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done,
            asked = stop::requested() => asked.map_err(Into::into).and_then(|()| bail!("stopped as asked for")),
        }
    });
    // A replay that was interrupted would go on to its end: there is nothing in it to wait for.
    runtime.shutdown_background();
    done
}

async fn throughput(
    vms: &Vms,
    contender: &Contender,
    scenario: &Scenario,
    trace: &Trace,
    lengths: &Lengths,
) -> anyhow::Result<Summary> {
    let share = megabytes(SHARE.0, SHARE.1);
    vms.reset(share).await.context("starting the VMs cold")?;
    let stage = Stage::start(vms, &contender.way(share, scenario.moved)).await?;
    if scenario.fails {
        vms.crash(VICTIM).await?;
        stage.used(VMS - 1).await?;
        stage.until("what it had taken over", |snapshot| is_taken_over(snapshot, scenario.moved)).await?;
    }
    let whole = lengths.warm_up + lengths.measured;
    let replayed = stage.replay(trace, |target| Options {
        warm_up: lengths.warm_up,
        stop_after: Some(whole),
        ..Options::new(target, Mode::Closed { concurrency: CONNECTIONS })
    });
    let (summary, warmed) = tokio::join!(replayed, warm_up(vms, lengths.warm_up));
    warmed?;
    stage.stop().await?;
    summary
}

/// Whether the VM that is down has its floor, and all else of `moved` that was bought is in force among the others.
fn is_taken_over(snapshot: &Snapshot, moved: &[Resource]) -> bool {
    let Some(customer) = snapshot.customers().next() else { return false };
    let down = |vm: &&Vm| vm.state == VmState::Down;
    moved.iter().all(|&resource| {
        let in_force = |vm: &Vm| vm.applied.and_then(|applied| applied.resources.get(resource)).unwrap_or(0);
        let lowered = |vm: &Vm| in_force(vm) <= vm.floor.get(resource).unwrap_or(0);
        let sum: u64 = snapshot.vms().map(in_force).sum();
        // Actuators round down, by less than a hundredth.
        snapshot.vms().find(down).is_some_and(lowered)
            && customer.bounds.get(resource).is_some_and(|bound| sum >= bound - bound / 100)
    })
}

/// One second of a run, over all VMs or of each.
struct Second {
    at: f64,
    bandwidth: Vec<f64>,
    blocks: Option<f64>,
}

/// How a run of Figure 4.4 goes, in time.
struct Course {
    /// How long it runs before anything counts.
    warm_up: Duration,
    /// When the server is killed, from then on.
    kill: Duration,
    /// When it ends.
    end: Duration,
}

fn recovery(run: &Run) -> anyhow::Result<Measured> {
    let seconds = Duration::from_secs;
    let course = match run.quick {
        true => Course { warm_up: seconds(9), kill: seconds(5), end: seconds(12) },
        false => Course { warm_up: seconds(10), kill: seconds(60), end: seconds(180) },
    };
    let trace = WorldCup { seed: run.seed }.generate();
    let trace = trace.window(Duration::ZERO, course.warm_up + course.end).trimmed();
    run.bar.set_message("4.4");
    let share = megabytes(2_700_000, 48);
    let (summary, told, stages, description) = done(async {
        let vms = start(run, &trace, share).await?;
        let vibra = &CONTENDERS[3];
        let stage = Stage::start(&vms, &vibra.way(share, &[Resource::Bandwidth, Resource::Memory])).await?;
        let mode = Mode::Open { speed: 1.0, spread: Spread::Poisson { seed: run.seed } };
        let replayed = stage.replay(&trace, |target| Options {
            warm_up: course.warm_up,
            timeout: seconds(10),
            ..Options::new(target, mode)
        });
        let (summary, told, stages) = tokio::join!(replayed, watch(&vms, &course), kill(&vms, &stage, &course));
        stage.stop().await?;
        let description = vms.description().to_owned();
        vms.stop().await?;
        anyhow::Ok((summary?, told?, stages?, description))
    })?;
    Ok(shown(&course, &summary, &told, &stages, description))
}

/// How long after its kill a server was known to be down, was skipped, and had been taken over from.
struct Stages {
    down: Duration,
    skipped: Duration,
    taken_over: Duration,
}

async fn kill(vms: &Vms, stage: &Stage, course: &Course) -> anyhow::Result<Stages> {
    tokio::time::sleep(course.warm_up + course.kill).await;
    let killed = Instant::now();
    let after = |what: &'static str, so: fn(&Snapshot) -> bool| async move {
        stage.until(what, so).await?;
        anyhow::Ok(killed.elapsed())
    };
    let skipped = async {
        stage.used(VMS - 1).await?;
        anyhow::Ok(killed.elapsed())
    };
    let (stopped, down, skipped, taken_over) = tokio::join!(
        vms.crash(VICTIM),
        after("VM 2 down", |snapshot| snapshot.vms().any(|vm| vm.state == VmState::Down)),
        skipped,
        after("all taken over", |snapshot| is_taken_over(snapshot, &[Resource::Bandwidth, Resource::Memory])),
    );
    stopped?;
    Ok(Stages { down: down?, skipped: skipped?, taken_over: taken_over? })
}

/// Reads the VMs' counters every second.
async fn watch(vms: &Vms, course: &Course) -> anyhow::Result<Vec<Second>> {
    warm_up(vms, course.warm_up).await?;
    let (began, mut ticks) = (Instant::now(), tokio::time::interval(Duration::from_secs(1)));
    let (mut last, mut seconds) = (counters(vms.machines()).await, Vec::new());
    ticks.tick().await;
    while began.elapsed() < course.end {
        ticks.tick().await;
        let now = counters(vms.machines()).await;
        let since = |(now, last): (&Counters, &Counters)| match (now, last) {
            (Some(now), Some(last)) => now.0.saturating_sub(last.0) as f64,
            // It was down at one of the two.
            _ => 0.0,
        };
        let blocks = |of: &[Counters]| of.iter().flatten().map(|(_, blocks)| *blocks).sum::<Option<u64>>();
        seconds.push(Second {
            at: began.elapsed().as_secs_f64(),
            bandwidth: now.iter().zip(&last).map(since).collect(),
            // With fewer VMs the sum of their counters is less.
            blocks: blocks(&now)
                .zip(blocks(&last))
                .and_then(|(now, last)| now.checked_sub(last))
                .map(|read| read as f64),
        });
        last = now;
    }
    Ok(seconds)
}

/// Bytes sent, and blocks read where that is counted; `None` of a VM that is down.
type Counters = Option<(u64, Option<u64>)>;

async fn counters(machines: &[Arc<dyn Machine>]) -> Vec<Counters> {
    let mut all = Vec::new();
    for machine in machines {
        let reading = machine.read().await.ok();
        all.push(reading.and_then(|reading| Some((reading.egress?.0, reading.disk_blocks))));
    }
    all
}

/// The mean response time of the requests due from second `from` to second `to`.
fn response(summary: &Summary, from: u64, to: u64) -> Option<f64> {
    let seconds = summary.seconds.get(from as usize..(to as usize).min(summary.seconds.len()))?;
    let told = seconds.iter().filter_map(|second| Some((second.mean_ms? * second.completed as f64, second.completed)));
    let (sum, count) = told.fold((0.0, 0), |(sum, count), (ms, completed)| (sum + ms, count + completed));
    (count > 0).then(|| sum / count as f64)
}

fn shown(course: &Course, summary: &Summary, told: &[Second], stages: &Stages, description: String) -> Measured {
    let (kill, end) = (course.kill.as_secs(), course.end.as_secs());
    let (normal, after) = (response(summary, 0, kill), response(summary, kill, end));
    let line = |name: &str, points: Vec<(f64, f64)>| Line { name: name.to_owned(), points };
    let each = |value: &dyn Fn(&vibra_replay::Second) -> Option<f64>| -> Vec<(f64, f64)> {
        let seconds = (1..).zip(&summary.seconds);
        seconds.filter_map(|(at, second)| Some((f64::from(at), value(second)?))).collect()
    };
    let bandwidth = (0..VMS).map(|vm| {
        let points = told.iter().map(|second| (second.at, second.bandwidth[vm] / 1e6)).collect();
        line(&format!("server {}", vm + 1), points)
    });
    let blocks = told.iter().filter_map(|second| Some((second.at, second.blocks?))).collect();
    let panel = |title: &str, y: &str, lines| Panel::Lines {
        title: title.to_owned(),
        x: Axis::linear("t (s)"),
        y: Axis::linear(y),
        lines,
    };
    let seconds = |at: Duration| Some(at.as_secs_f64());
    let row = |what: &str, before: Option<f64>, after: Option<f64>, paper: &str| -> Vec<Cell> {
        vec![what.into(), before.into(), after.into(), paper.into()]
    };
    Measured {
        conditions: format!(
            "{description}. {VMS} VMs of 2.7 MB/s and 48 MB, the reconstructed World Cup trace in open loop at its own times, URL hashing with R = 2, \
             bandwidth in proportion to demand, takeover of bandwidth and memory. Server 2 is killed at t = {kill} s; measured until {end} s \
             after {} s of warm-up, from disks that are not throttled (the paper: 600 s).{}",
            course.warm_up.as_secs(),
            summary.void.as_ref().map(|why| format!(" The run is void: {why}.")).unwrap_or_default(),
        ),
        columns: vec![
            Heading::words("what"),
            Heading::numbers("before", 2),
            Heading::numbers("after", 2),
            Heading::words("paper"),
        ],
        rows: vec![
            row("mean response time (ms)", normal, after, "19, then 23"),
            row("errors", None, Some(summary.errors.total() as f64), "not told"),
            row("s from the kill until it is known", None, seconds(stages.down), "not told"),
            row("s until no request goes there", None, seconds(stages.skipped), "not told"),
            row("s until all it had is in force elsewhere", None, seconds(stages.taken_over), "not told"),
        ],
        panels: vec![
            panel("Requests", "requests/s", vec![line("answered", each(&|second| Some(second.completed as f64)))]),
            panel("Response time", "mean (ms)", vec![line("mean", each(&|second| second.mean_ms))]),
            panel("Bandwidth of each server", "MB/s", bandwidth.collect()),
            panel("Disk reads", "blocks/s", vec![line("all servers", blocks)]),
        ],
        checks: vec![
            Check::new(
                "mean response time, after to before",
                "1.21",
                normal.zip(after).filter(|_| summary.void.is_none()).map(|(normal, after)| after / normal),
                Wanted::AtMost(1.2),
            ),
            Check::new(
                "s from kill to full takeover",
                "not told",
                seconds(stages.taken_over.max(stages.skipped)),
                Wanted::AtMost(2.0),
            ),
            Check::new(
                "the load generator kept pace (0: no)",
                "-",
                Some(f64::from(u8::from(summary.void.is_none()))),
                Wanted::AtLeast(1.0),
            )
            .with_decimals(0),
        ],
    }
}

//! What it costs to know a server's working set, and how large that is (section 3.5.5): Figures 3.11 and 3.12.

use crate::{
    figure::{Check, Figure, Heading, Line, Measured, Panel, Run, Unable, Wanted},
    parts,
};
use anyhow::Context;
use std::{rc::Rc, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep};
use vibra_agent::{
    Machine, MachineSpec, NamespaceHost, NamespaceSettings, WorkingSetMethod, WorkingSetSampling, probe,
};
use vibra_model::{Bytes, Resources};
use vibra_replay::{Mode, Options, Second, Spread, Summary, replay};
use vibra_report::{Axis, mean};
use vibra_trace::{Trace, generate::worldcup::WorldCup};

pub(super) const FIGURES: &[Figure] = &[
    Figure {
        id: "3.11",
        title: "The impact on average response time by deactivating pages periodically",
        paper: "Figure 3.11: deactivating pages every 10 to 60 s does not have any impact on the average response time, but for a \
                periodic spike of 5 ms; dropping caches is extremely expensive.",
        make: response_time,
    },
    Figure {
        id: "3.12",
        title: "Working set size estimation by deactivating pages periodically",
        paper: "Figure 3.12: longer periods find larger working sets, as more objects are touched in them; whatever the period, \
                the size does not oscillate much.",
        make: size,
    },
];

/// Of the VM (section 3.5.3).
const MEMORY: Bytes = Bytes(48 << 20);
/// The server has one of so many parts of the objects, as behind a dispatcher that hashes.
const PARTS: u32 = 4;
/// The dissertation's periods, in seconds, and that of dropping caches.
const PERIODS: [u64; 4] = [10, 20, 30, 60];
const DROPPING: u64 = 10;
/// How much shorter everything is in a quick run: a tenth.
const QUICK: u32 = 10;
/// What is measured of each way, in seconds: two of the longest periods.
const MEASURED: u64 = 120;
/// How long the cache fills first.
const WARM_UP: u64 = 10;
/// How often a way is tried whose load generator was late.
const TRIES: usize = 3;
/// How often the working set is looked at, in periods of the shortest kind.
const LOOKS: u32 = 10;
/// How far the working set may be from its mean to be steady: standard deviation, as a part of it.
const STEADY: f64 = 0.15;

/// How pages are aged; `None`: not at all.
type Way = Option<(WorkingSetMethod, u64)>;

/// What came of one way.
struct Outcome {
    way: Way,
    summary: Summary,
    /// Seconds since the start of the measurement, and the working set in MB.
    sizes: Vec<(f64, f64)>,
}

struct Experiment {
    conditions: String,
    /// By what the dissertation's times are longer.
    scale: u32,
    outcomes: Vec<Outcome>,
}

fn name(way: Way) -> String {
    match way {
        None => "not sampled".to_owned(),
        Some((WorkingSetMethod::DropCaches, period)) => format!("caches dropped, {period} s"),
        Some((_, period)) => format!("{period} s"),
    }
}

impl Outcome {
    /// Mean response time in ms; `None` where the load generator was late, and of no answers.
    fn mean_ms(&self) -> Option<f64> {
        let times = self.summary.response_time.as_ref().filter(|_| self.summary.void.is_none())?;
        Some(times.mean_ms)
    }

    /// The highest mean of a second over the mean of all, in ms.
    fn spike_ms(&self) -> Option<f64> {
        let worst = self
            .summary
            .seconds
            .iter()
            .filter_map(|second| second.mean_ms)
            .fold(None, |worst, ms| Some(worst.map_or(ms, |worst: f64| worst.max(ms))));
        Some(worst? - self.mean_ms()?)
    }

    fn mean_size(&self) -> Option<f64> {
        mean(&self.sizes.iter().map(|(_, size)| *size).collect::<Vec<_>>())
    }

    /// Standard deviation of the working set, as a part of its mean.
    fn swing(&self) -> Option<f64> {
        let average = self.mean_size()?;
        let squares: Vec<f64> = self.sizes.iter().map(|(_, size)| (size - average).powi(2)).collect();
        Some(mean(&squares)?.sqrt() / average)
    }
}

impl Experiment {
    fn of(&self, method: WorkingSetMethod) -> impl Iterator<Item = &Outcome> {
        self.outcomes.iter().filter(move |outcome| outcome.way.is_some_and(|(used, _)| used == method))
    }

    fn base(&self) -> Option<f64> {
        self.outcomes.iter().find(|outcome| outcome.way.is_none())?.mean_ms()
    }

    /// The worst of a value over all periods of deactivation; `None` where one has none.
    fn worst(&self, of: impl Fn(&Outcome) -> Option<f64>) -> Option<f64> {
        let values: Option<Vec<f64>> = self.of(WorkingSetMethod::Deactivation).map(of).collect();
        values?.into_iter().reduce(f64::max)
    }

    /// The mean working set of the shortest and the longest period.
    fn extremes(&self) -> Option<(f64, f64)> {
        let mut sizes = self.of(WorkingSetMethod::Deactivation).map(Outcome::mean_size);
        let first = sizes.next()??;
        Some((first, sizes.last()??))
    }

    fn rows(&self) -> Vec<Vec<crate::figure::Cell>> {
        let row = |outcome: &Outcome| {
            vec![
                name(outcome.way).into(),
                outcome.mean_ms().into(),
                outcome.spike_ms().into(),
                outcome.mean_size().into(),
                outcome.swing().map(|part| 100.0 * part).into(),
                (outcome.summary.errors.total() as f64).into(),
                outcome.summary.void.clone().unwrap_or_default().into(),
            ]
        };
        self.outcomes.iter().map(row).collect()
    }
}

fn columns() -> Vec<Heading> {
    vec![
        Heading::words("period"),
        Heading::numbers("mean (ms)", 3),
        Heading::numbers("worst second over it (ms)", 2),
        Heading::numbers("working set (MB)", 2),
        Heading::numbers("its deviation (%)", 1),
        Heading::numbers("failed", 0),
        Heading::words("void"),
    ]
}

/// Measures what both figures show, once for both.
fn experiment(run: &Run) -> anyhow::Result<Rc<Experiment>> {
    run.once("working-set", || {
        let found = probe();
        found.namespaces().map_err(|reason| Unable(format!("the server is a namespace VM, and {reason}")))?;
        let scale = if run.quick { QUICK } else { 1 };
        let deactivated = PERIODS.map(|period| Some((WorkingSetMethod::Deactivation, period)));
        let dropped = Some((WorkingSetMethod::DropCaches, DROPPING));
        let ways: Vec<Way> = if run.quick {
            vec![None, deactivated[0], deactivated[2], dropped]
        } else {
            [None].into_iter().chain(deactivated).chain([dropped]).collect()
        };
        let trace = part_of(WorldCup { seed: run.seed }.generate());
        let mut outcomes = Vec::new();
        let mut throttled = String::new();
        for way in ways {
            run.bar.set_message(format!("3.11, 3.12: {}", name(way)));
            let (mut outcome, disk) = run.live(one(way, &trace, scale, run.seed))?;
            // A run whose load generator was late says nothing.
            let mut tries = if run.quick { 1 } else { TRIES };
            while outcome.summary.void.is_some() && tries > 1 {
                (outcome, _) = run.live(one(way, &trace, scale, run.seed))?;
                tries -= 1;
            }
            outcomes.push(outcome);
            throttled = disk;
        }
        let conditions = format!(
            "One namespace VM with {} MiB and as much bandwidth as there is, {throttled}, asked directly for every fourth object of \
             the trace at the trace's times. Each way starts cold, fills its cache for {} s and is measured for {} s, once; all of the \
             dissertation's times are divided by {scale}. Deactivation is that of section 3.4.6 on an unchanged kernel \
             (docs/decisions/working-set.md). Trace: {}.",
            MEMORY.0 >> 20,
            WARM_UP / u64::from(scale),
            MEASURED / u64::from(scale),
            trace.name
        );
        Ok(Experiment { conditions, scale, outcomes })
    })
}

/// What a dispatcher that hashes would send to one of the servers.
fn part_of(mut trace: Trace) -> Trace {
    trace.requests.retain(|request| request.object.0 % PARTS == 0);
    trace.trimmed()
}

/// Measures one way, and says what the disk is.
async fn one(way: Way, trace: &Trace, scale: u32, seed: u64) -> anyhow::Result<(Outcome, String)> {
    let seconds = |seconds: u64| Duration::from_secs(seconds) / scale;
    let sampling = |(method, period)| WorkingSetSampling { method, period_ms: seconds(period).as_millis() as u64 };
    let settings = NamespaceSettings { working_set: way.map(sampling), ..NamespaceSettings::default() };
    let catalogue = Arc::new(parts::host::catalogue(&trace.objects)?);
    let initial = Resources { memory: Some(MEMORY), ..Resources::NONE };
    let host = NamespaceHost::start(settings, catalogue, vec![MachineSpec { id: "vm1".parse()?, initial }]).await?;
    let disk =
        host.unthrottled().map_or("a throttled disk".to_owned(), |why| format!("its disk as fast as it is ({why})"));
    let machine = &host.machines()[0];
    let target = machine.address().parse().context("the VM's address")?;
    let (warm_up, length) = (seconds(WARM_UP), seconds(WARM_UP + MEASURED));
    let options = Options {
        warm_up,
        stop_after: Some(length),
        ..Options::new(target, Mode::Open { speed: 1.0, spread: Spread::Poisson { seed } })
    };
    let asked = trace.window(Duration::ZERO, length);
    let began = Instant::now();
    let replaying = tokio::task::spawn_blocking(move || replay(&asked, &options, |_| ()));
    let sizes = watch(&**machine, began + warm_up, began + length, seconds(PERIODS[0]) / LOOKS).await;
    let summary = replaying.await.map_err(anyhow::Error::from).and_then(|summary| Ok(summary?));
    host.stop().await?;
    Ok((Outcome { way, summary: summary?, sizes }, disk))
}

/// The working set in MB at seconds since `from`, until `until`.
async fn watch(machine: &dyn Machine, from: Instant, until: Instant, every: Duration) -> Vec<(f64, f64)> {
    let mut sizes = Vec::new();
    while Instant::now() < until {
        sleep(every).await;
        let size = machine.read().await.ok().and_then(|reading| reading.working_set);
        if let Some(size) = size.filter(|_| Instant::now() >= from) {
            sizes.push((from.elapsed().as_secs_f64(), size.0 as f64 / 1e6));
        }
    }
    sizes
}

fn response_time(run: &Run) -> anyhow::Result<Measured> {
    let experiment = experiment(run)?;
    let line = |outcome: &Outcome| {
        let seconds = outcome.summary.seconds.iter().enumerate();
        let at = |(second, told): (usize, &Second)| Some((second as f64, told.mean_ms?));
        Line { name: name(outcome.way), points: seconds.filter_map(at).collect() }
    };
    let base = experiment.base();
    let over_base = |ms: Option<f64>| Some(ms? / base?);
    let dropped = experiment.of(WorkingSetMethod::DropCaches).next().and_then(Outcome::mean_ms);
    Ok(Measured {
        conditions: experiment.conditions.clone(),
        columns: columns(),
        rows: experiment.rows(),
        panels: vec![Panel::Lines {
            title: "Mean response time of each second".into(),
            x: Axis::linear("time, s"),
            y: Axis::logarithmic("mean response time, ms"),
            lines: experiment.outcomes.iter().map(line).collect(),
        }],
        checks: vec![
            Check::new(
                "slowest period, to no sampling",
                "no impact",
                over_base(experiment.worst(Outcome::mean_ms)),
                Wanted::AtMost(1.1),
            )
            .because("each way is measured once, and a server that answers in less than a millisecond shows all that else runs here"),
            Check::new("worst second over the mean, ms", "5 ms", experiment.worst(Outcome::spike_ms), Wanted::AtMost(5.0)),
            Check::new("caches dropped, to no sampling", "extremely expensive", over_base(dropped), Wanted::AtLeast(1.5)),
        ],
    })
}

fn size(run: &Run) -> anyhow::Result<Measured> {
    let experiment = experiment(run)?;
    let lines = experiment.of(WorkingSetMethod::Deactivation);
    let line = |outcome: &Outcome| Line { name: name(outcome.way), points: outcome.sizes.clone() };
    let grows = experiment.extremes().map(|(shortest, longest)| longest / shortest);
    Ok(Measured {
        conditions: format!(
            "{} The working set has what the server itself needs, too. Periods are named as in the dissertation, and were {} times \
             shorter.",
            experiment.conditions, experiment.scale
        ),
        columns: columns(),
        rows: experiment.rows(),
        panels: vec![Panel::Lines {
            title: "Working set by period".into(),
            x: Axis::linear("time, s"),
            y: Axis::linear("working set, MB"),
            lines: lines.map(line).collect(),
        }],
        checks: vec![
            Check::new("longest period, to the shortest", "larger", grows, Wanted::AtLeast(1.0)),
            Check::new(
                "largest deviation, % of the mean",
                "does not oscillate much",
                experiment.worst(|outcome| outcome.swing().map(|part| 100.0 * part)),
                Wanted::AtMost(100.0 * STEADY),
            )
            .with_decimals(1),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_only_its_own_objects() {
        let whole = WorldCup { seed: 1 }.generate();
        let (objects, requests) = (whole.objects.len(), whole.requests.len());
        let part = part_of(whole);
        assert!(part.objects.len() < objects / 3 && part.requests.len() < requests, "{}", part.objects.len());
        assert!(!part.requests.is_empty());
    }
}

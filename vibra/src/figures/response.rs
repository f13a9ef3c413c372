//! Response time and disk reads of every way to dispatch, at the times of the trace: Figures 3.7 and 3.8.

use super::bed::{Bed, Cell, Load, Measure, Samples, Timing, below, each, fixed, vibra};
use crate::{
    figure::{Cell as Shown, Check, Figure, Heading, Measured, Panel, Run, Wanted},
    live::Way,
};
use std::rc::Rc;
use vibra_model::Bytes;
use vibra_report::Axis;
use vibra_routing::Algorithm;
use vibra_trace::generate::worldcup::WorldCup;

pub(super) const FIGURES: &[Figure] = &[
    Figure {
        id: "3.7",
        title: "Average response time with different request dispatch algorithms",
        paper: "Figure 3.7: at the same bandwidth URL hashing with R = 2 and reallocation has a 35 % lower mean response time than \
                least-connection and a 51 % lower one than LARD. Round-robin does not work below 3.0 MB/s a VM, LARD and \
                least-connection not below 2.7; URL hashing works with 2.4, and is then as fast as least-connection with 3.0: 20 % \
                less bandwidth for the same service.",
        make: response_time,
    },
    Figure {
        id: "3.8",
        title: "Disk blocks read when different request dispatch algorithms are used",
        paper: "Figure 3.8: both content-unaware algorithms read a similar number of blocks; URL hashing with R = 2 reads 33 % \
                fewer, LARD 49 % fewer.",
        make: disk_reads,
    },
];

/// Memory of each VM (section 3.5.3).
const MEMORY: Bytes = Bytes(48 << 20);
/// Bandwidths of each VM in MB/s; all ways are compared at the middle one.
const BANDWIDTHS: [f64; 3] = [2.4, 2.7, 3.0];
const COMPARED: f64 = BANDWIDTHS[1];
/// More failed requests than this, in percent, and a way does not work.
const WORKS: f64 = 1.0;

/// A way to dispatch, at one bandwidth.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Kind {
    name: &'static str,
    algorithm: Algorithm,
    replicas: usize,
    /// Whether bandwidth is reallocated.
    moves: bool,
}

const fn kind(name: &'static str, algorithm: Algorithm, replicas: usize) -> Kind {
    Kind { name, algorithm, replicas, moves: false }
}

const ROUND_ROBIN: Kind = kind("round-robin", Algorithm::RoundRobin, 1);
const LEAST: Kind = kind("least-connection", Algorithm::LeastConnection, 1);
const LARD: Kind = kind("LARD", Algorithm::Lard, 1);
const VIBRA: Kind = Kind { moves: true, ..kind("URL hashing R=2, reallocated", Algorithm::UrlHash, 2) };

/// Those of the dissertation's figure.
const PRINTED: [Kind; 4] = [ROUND_ROBIN, LEAST, LARD, VIBRA];
/// What else the text names, and what people use today.
const OTHERS: [Kind; 9] = [
    kind("LARD/R", Algorithm::LardR, 1),
    Kind { moves: true, ..kind("URL hashing R=1, reallocated", Algorithm::UrlHash, 1) },
    Kind { moves: true, ..kind("URL hashing R=4, reallocated", Algorithm::UrlHash, 4) },
    kind("URL hashing R=2", Algorithm::UrlHash, 2),
    kind("slots (section 3.6.1)", Algorithm::Slots, 1),
    kind("ring R=2", Algorithm::Ring, 2),
    kind("rendezvous R=2", Algorithm::Rendezvous, 2),
    kind("Maglev R=2", Algorithm::Maglev, 2),
    kind("bounded loads", Algorithm::BoundedLoads, 1),
];

/// One cell of the experiment that both figures show.
struct Point {
    kind: Kind,
    /// Of each VM, MB/s.
    bandwidth: f64,
    samples: Samples,
}

struct Experiment {
    conditions: String,
    points: Vec<Point>,
}

impl Experiment {
    fn at(&self, kind: Kind, bandwidth: f64) -> Option<&Samples> {
        let here = |point: &&Point| point.kind == kind && point.bandwidth == bandwidth;
        self.points.iter().find(here).map(|point| &point.samples)
    }

    /// The mean of a measure; `None` where the way does not work.
    fn mean(&self, kind: Kind, bandwidth: f64, of: Measure) -> Option<f64> {
        let samples = self.at(kind, bandwidth).filter(|samples| works(samples))?;
        samples.mean(of)
    }

    /// Bars by bandwidth, one for each way that was tried at it and works.
    fn bars(&self, title: &str, y: Axis, of: Measure) -> Panel {
        let kinds: Vec<Kind> = self.points.iter().map(|point| point.kind).fold(Vec::new(), |mut kinds, kind| {
            if !kinds.contains(&kind) {
                kinds.push(kind);
            }
            kinds
        });
        let values = |kind: Kind| BANDWIDTHS.map(|bandwidth| self.mean(kind, bandwidth, of)).to_vec();
        Panel::Bars {
            title: title.to_owned(),
            y,
            groups: BANDWIDTHS.map(|bandwidth| format!("{bandwidth:.1} MB/s a VM")).to_vec(),
            series: kinds.into_iter().map(|kind| (kind.name.to_owned(), values(kind))).collect(),
        }
    }

    fn rows(&self, of: Measure) -> Vec<Vec<Shown>> {
        let row = |point: &Point| -> Vec<Shown> {
            let Point { kind, bandwidth, samples } = point;
            let works = if samples.good.is_empty() {
                "void"
            } else if works(samples) {
                "yes"
            } else {
                "no"
            };
            vec![
                kind.name.into(),
                (*bandwidth).into(),
                samples.mean(of).into(),
                samples.uncertainty(of).into(),
                samples.failed().into(),
                works.into(),
                (samples.good.len() as f64).into(),
                (samples.voids as f64).into(),
            ]
        };
        self.points.iter().map(row).collect()
    }
}

fn works(samples: &Samples) -> bool {
    samples.failed().is_some_and(|failed| failed <= WORKS)
}

fn columns(what: &str, decimals: usize) -> Vec<Heading> {
    vec![
        Heading::words("algorithm"),
        Heading::numbers("MB/s a VM", 1),
        Heading::numbers(what, decimals),
        Heading::numbers("± (%)", 1),
        Heading::numbers("failed (%)", 2),
        Heading::words("works"),
        Heading::numbers("runs", 0),
        Heading::numbers("void runs", 0),
    ]
}

/// Measures what both figures show, once for both.
fn experiment(run: &Run) -> anyhow::Result<Rc<Experiment>> {
    run.once("response", || {
        let mut asked: Vec<(Kind, f64)> = Vec::new();
        if run.quick {
            asked.extend(PRINTED.map(|kind| (kind, COMPARED)));
            asked.extend([(VIBRA, BANDWIDTHS[0]), (LEAST, BANDWIDTHS[2])]);
        } else {
            asked.extend(PRINTED.iter().flat_map(|&kind| BANDWIDTHS.map(|bandwidth| (kind, bandwidth))));
            asked.extend(OTHERS.map(|kind| (kind, COMPARED)));
        }
        let cells: Vec<Cell> = asked.iter().map(|&(kind, bandwidth)| cell(kind, bandwidth)).collect();
        run.live(async {
            let timing = Timing { warm_up: run.seconds(3), measured: run.seconds(8) };
            let trace = WorldCup { seed: run.seed }.generate();
            let bed = Bed::start(run, trace, each(COMPARED * 1e6, MEMORY), timing, None).await?;
            let all = bed.measure(&cells, |sample| sample.mean_ms).await?;
            let conditions = bed.conditions(&all);
            bed.stop().await?;
            let point = |((kind, bandwidth), samples)| Point { kind, bandwidth, samples };
            Ok(Experiment { conditions, points: asked.into_iter().zip(all).map(point).collect() })
        })
    })
}

fn cell(kind: Kind, bandwidth: f64) -> Cell {
    let each = each(bandwidth * 1e6, MEMORY);
    let way: Way = if kind.moves { vibra(kind.replicas, each) } else { fixed(kind.algorithm, kind.replicas, each) };
    Cell { name: format!("3.7, 3.8: {} at {bandwidth} MB/s", kind.name), way, load: Load::AsRecorded }
}

fn conditions(experiment: &Experiment) -> String {
    format!(
        "48 MB a VM, at the times of the trace; LARD with its paper's parameters (25 and 65 connections). A way works if at most \
         {WORKS} % of the requests have no right answer after 10 s. {}",
        experiment.conditions
    )
}

fn response_time(run: &Run) -> anyhow::Result<Measured> {
    let of: Measure = |sample| sample.mean_ms;
    let experiment = experiment(run)?;
    let [low, middle, high] = BANDWIDTHS;
    let mean = |kind, bandwidth| experiment.mean(kind, bandwidth, of);
    let own = mean(VIBRA, middle);
    let failed = experiment.at(VIBRA, low).and_then(Samples::failed);
    Ok(Measured {
        conditions: conditions(&experiment),
        columns: columns("mean (ms)", 2),
        rows: experiment.rows(of),
        panels: vec![experiment.bars(
            "Mean response time of the ways that work",
            Axis::logarithmic("mean response time, ms"),
            of,
        )],
        checks: vec![
            Check::new(
                "below least-connection at 2.7 MB/s, %",
                "35 %",
                below(own, mean(LEAST, middle)),
                Wanted::AtLeast(35.0),
            )
            .with_decimals(0),
            Check::new("below LARD at 2.7 MB/s, %", "51 %", below(own, mean(LARD, middle)), Wanted::AtLeast(51.0))
                .with_decimals(0),
            Check::new(
                "with 2.4 MB/s, to least-connection with 3.0",
                "about 1: 20 % less bandwidth",
                mean(VIBRA, low).zip(mean(LEAST, high)).map(|(own, theirs)| own / theirs),
                Wanted::AtMost(1.1),
            ),
            Check::new("with 2.4 MB/s: failed requests, %", "it works", failed, Wanted::AtMost(WORKS)),
        ],
    })
}

fn disk_reads(run: &Run) -> anyhow::Result<Measured> {
    let of: Measure = |sample| sample.disk_blocks;
    let experiment = experiment(run)?;
    let blocks = |kind| experiment.at(kind, COMPARED).and_then(|samples| samples.mean(of));
    let least = blocks(LEAST);
    Ok(Measured {
        conditions: conditions(&experiment),
        columns: columns("blocks of 512 B", 0),
        rows: experiment.rows(of),
        panels: vec![experiment.bars("Disk blocks read by all VMs", Axis::linear("blocks of 512 B"), of)],
        checks: vec![
            Check::new(
                "round-robin to least-connection",
                "similar",
                blocks(ROUND_ROBIN).zip(least).map(|(round, least)| round / least),
                Wanted::Within(0.8, 1.25),
            ),
            Check::new(
                "URL hashing R=2: fewer than least-connection, %",
                "33 %",
                below(blocks(VIBRA), least),
                Wanted::Within(20.0, 55.0),
            )
            .with_decimals(0),
            Check::new(
                "LARD: fewer than least-connection, %",
                "49 %",
                below(blocks(LARD), least),
                Wanted::Within(35.0, 75.0),
            )
            .with_decimals(0),
        ],
    })
}

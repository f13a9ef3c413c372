//! Throughput at rising concurrency: Figures 3.9 (the World Cup) and 3.10 (videos).

use super::bed::{Bed, Cell, Load, Measure, Samples, Timing, VMS, each, fixed, vibra};
use crate::{
    figure::{Cell as Shown, Check, EstimatedLine, Figure, Heading, Measured, Panel, Run, Wanted},
    live::Way,
};
use anyhow::Context;
use std::{fs, path::Path};
use vibra_model::{Bytes, Resources};
use vibra_report::Axis;
use vibra_routing::Algorithm;
use vibra_trace::generate::{worldcup::WorldCup, youtube::YouTube};

pub(super) const FIGURES: &[Figure] = &[
    Figure {
        id: "3.9",
        title: "Throughput at different concurrency levels, World Cup trace",
        paper: "Figure 3.9: with 140 connections LARD and URL hashing are 26 % and 23 % above least-connection, which is the slowest; \
                with rising load LARD degrades significantly, as the hot objects' link becomes the bottleneck, and URL hashing does \
                not.",
        make: world_cup,
    },
    Figure {
        id: "3.10",
        title: "Throughput at different concurrency levels, YouTube-like workload",
        paper: "Figure 3.10: LARD and LARD/R are about 40 % faster than least-connection, URL hashing with R = 1 and R = 2 about 30 % \
                and 14 %. From 515 connections on LARD and LARD/R degrade; at 525 they are like least-connection, and URL hashing \
                with R = 2 is 32 % faster than LARD.",
        make: videos,
    },
];

/// Ways by their names.
type Ways = Vec<(&'static str, Way)>;

const LEAST: &str = "least-connection";
const LARD: &str = "LARD";
const LARD_R: &str = "LARD/R";
const R1: &str = "URL hashing R=1, reallocated";
const R2: &str = "URL hashing R=2, reallocated";

/// What was measured: for each way and number of clients.
struct Curves {
    names: Vec<&'static str>,
    clients: Vec<usize>,
    /// By way, then by number of clients.
    samples: Vec<Samples>,
}

const RATE: Measure = |sample| sample.bytes_per_s.map(|rate| rate / 1e6);

impl Curves {
    fn cells(figure: &str, ways: &Ways, clients: &[usize]) -> Vec<Cell> {
        let cell = |(name, way): &(&str, Way), count: usize| Cell {
            name: format!("{figure}: {name}, {count} connections"),
            way: way.clone(),
            load: Load::Clients(count),
        };
        ways.iter().flat_map(|way| clients.iter().map(move |&count| cell(way, count))).collect()
    }

    fn at(&self, name: &str, clients: usize) -> Option<f64> {
        let way = self.names.iter().position(|known| *known == name)?;
        let count = self.clients.iter().position(|known| *known == clients)?;
        self.samples[way * self.clients.len() + count].mean(RATE)
    }

    /// MB/s of one to that of the other, each with so many clients.
    fn ratio(&self, (name, clients): (&str, usize), (base, base_clients): (&str, usize)) -> Option<f64> {
        Some(self.at(name, clients)? / self.at(base, base_clients)?)
    }

    fn panel(&self, title: &str) -> Panel {
        let points = |samples: &[Samples]| {
            let known = self.clients.iter().zip(samples);
            known.filter_map(|(&count, samples)| Some((count as f64, samples.estimate(RATE)?))).collect()
        };
        let lines = self.names.iter().zip(self.samples.chunks(self.clients.len()));
        Panel::Estimates {
            title: title.to_owned(),
            x: Axis::linear("concurrent connections"),
            y: Axis::linear("throughput, MB/s"),
            lines: lines
                .map(|(name, samples)| EstimatedLine { name: (*name).to_owned(), points: points(samples) })
                .collect(),
        }
    }

    fn rows(&self) -> Vec<Vec<Shown>> {
        let places = self.names.iter().flat_map(|name| self.clients.iter().map(move |count| (name, count)));
        let row = |((name, count), samples): ((&&str, &usize), &Samples)| -> Vec<Shown> {
            vec![
                (**name).into(),
                (*count as f64).into(),
                samples.mean(RATE).into(),
                samples.uncertainty(RATE).into(),
                samples.mean(|sample| sample.mean_ms).into(),
                samples.failed().into(),
                samples.mean(|sample| sample.disk_blocks).into(),
                (samples.good.len() as f64).into(),
                (samples.voids as f64).into(),
            ]
        };
        places.zip(&self.samples).map(row).collect()
    }
}

fn columns() -> Vec<Heading> {
    [
        ("connections", 0),
        ("MB/s", 2),
        ("± (%)", 1),
        ("mean (ms)", 1),
        ("failed (%)", 2),
        ("disk blocks", 0),
        ("runs", 0),
        ("void runs", 0),
    ]
    .into_iter()
    .fold(vec![Heading::words("algorithm")], |mut columns, (name, decimals)| {
        columns.push(Heading::numbers(name, decimals));
        columns
    })
}

/// Of each VM (section 3.5.3).
const MEMORY: Bytes = Bytes(64 << 20);
const BANDWIDTH: f64 = 6e6;

fn world_cup(run: &Run) -> anyhow::Result<Measured> {
    let each = each(BANDWIDTH, MEMORY);
    let mut ways: Ways = vec![
        (LEAST, fixed(Algorithm::LeastConnection, 1, each)),
        (LARD, fixed(Algorithm::Lard, 1, each)),
        (R2, vibra(2, each)),
    ];
    let mut clients = vec![140, 220];
    if !run.quick {
        clients = vec![140, 180, 220];
        ways.extend([
            (LARD_R, fixed(Algorithm::LardR, 1, each)),
            ("ring R=2", fixed(Algorithm::Ring, 2, each)),
            ("bounded loads", fixed(Algorithm::BoundedLoads, 1, each)),
        ]);
    }
    let cells = Curves::cells("3.9", &ways, &clients);
    let (conditions, samples) = run.live(async {
        let timing = Timing { warm_up: run.seconds(3), measured: run.seconds(5) };
        let trace = WorldCup { seed: run.seed }.generate();
        let bed = Bed::start(run, trace, each, timing, None).await?;
        let samples = bed.measure(&cells, RATE).await?;
        let conditions = bed.conditions(&samples);
        bed.stop().await?;
        Ok((conditions, samples))
    })?;
    let curves = Curves { names: ways.iter().map(|way| way.0).collect(), clients, samples };
    let over = |name| curves.ratio((name, 140), (LEAST, 140)).map(|ratio| 100.0 * (ratio - 1.0));
    let kept = |name| curves.ratio((name, 220), (name, 140));
    Ok(Measured {
        conditions: format!(
            "64 MB and 6 MB/s a VM at first, the trace's requests as fast as they are answered. {conditions}"
        ),
        columns: columns(),
        rows: curves.rows(),
        panels: vec![curves.panel("Throughput, World Cup trace")],
        checks: vec![
            Check::new("140 connections: LARD over least-connection, %", "26 %", over(LARD), Wanted::AtLeast(13.0))
                .with_decimals(0),
            Check::new(
                "140 connections: URL hashing over least-connection, %",
                "23 %",
                over(R2),
                Wanted::AtLeast(11.0),
            )
            .with_decimals(0),
            Check::new("URL hashing: 220 connections to 140", "no collapse", kept(R2), Wanted::AtLeast(0.95)),
            Check::new("LARD: 220 connections to 140", "degrades", kept(LARD), Wanted::AtMost(0.9)),
            Check::new(
                "220 connections: URL hashing to LARD",
                "above",
                curves.ratio((R2, 220), (LARD, 220)),
                Wanted::AtLeast(1.05),
            ),
        ],
    })
}

/// By how much videos, memory and so the time are smaller than in the text; rates are those of the text.
const SCALE: u64 = 16;
const QUICK_SCALE: u64 = 32;
/// All of the bandwidth, and the memory of each VM (section 3.5.4).
const TOTAL: f64 = 80e6;
const VIDEO_MEMORY: u64 = 768 << 20;

fn videos(run: &Run) -> anyhow::Result<Measured> {
    let scale = if run.quick { QUICK_SCALE } else { SCALE };
    let each: Resources = each(TOTAL / VMS as f64, Bytes(VIDEO_MEMORY / scale));
    let mut ways: Ways = vec![
        (LEAST, fixed(Algorithm::LeastConnection, 1, each)),
        (LARD, fixed(Algorithm::Lard, 1, each)),
        (R2, vibra(2, each)),
    ];
    let mut clients = vec![400, 525];
    if !run.quick {
        clients = vec![400, 500, 525];
        ways.extend([(LARD_R, fixed(Algorithm::LardR, 1, each)), (R1, vibra(1, each))]);
    }
    let cells = Curves::cells("3.10", &ways, &clients);
    let usual = YouTube::of_dissertation(run.seed);
    let trace = YouTube { bytes: usual.bytes / scale, ..usual }.generate()?;
    // Gigabytes that nothing else asks for: they go when the VMs have gone, also after an interrupt.
    let parent = Path::new("/var/cache/vibra");
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    let folder = tempfile::TempDir::new_in(parent)?;
    let (conditions, samples) = run.live(async {
        let timing = Timing { warm_up: run.seconds(3), measured: run.seconds(6) };
        let bed = Bed::start(run, trace, each, timing, Some(folder.path().to_owned())).await?;
        let samples = bed.measure(&cells, RATE).await?;
        let conditions = bed.conditions(&samples);
        bed.stop().await?;
        Ok((conditions, samples))
    })?;
    let curves = Curves { names: ways.iter().map(|way| way.0).collect(), clients, samples };
    let over = |name| curves.ratio((name, 400), (LEAST, 400)).map(|ratio| 100.0 * (ratio - 1.0));
    let mut checks = vec![
        Check::new("400 connections: LARD over least-connection, %", "about 40 %", over(LARD), Wanted::AtLeast(20.0))
            .with_decimals(0),
        Check::new("400 connections: URL hashing R=2 over least-connection, %", "14 %", over(R2), Wanted::AtLeast(7.0))
            .with_decimals(0),
        Check::new(
            "LARD: 525 connections to 400",
            "degrades dramatically",
            curves.ratio((LARD, 525), (LARD, 400)),
            Wanted::AtMost(0.9),
        ),
        Check::new(
            "525 connections: LARD to least-connection",
            "like it",
            curves.ratio((LARD, 525), (LEAST, 525)),
            Wanted::Within(0.85, 1.15),
        ),
        Check::new(
            "525 connections: URL hashing R=2 to LARD",
            "1.32",
            curves.ratio((R2, 525), (LARD, 525)),
            Wanted::AtLeast(1.1),
        ),
    ];
    if !run.quick {
        let hashed = over(R1);
        let check = Check::new(
            "400 connections: URL hashing R=1 over least-connection, %",
            "about 30 %",
            hashed,
            Wanted::AtLeast(15.0),
        );
        checks.insert(1, check.with_decimals(0));
    }
    Ok(Measured {
        conditions: format!(
            "2,000 videos and 4,000 requests as in the text, popularity by Zipf's law with 0.56. One factor: videos (12 GB) and memory (768 \
             MB a VM) are 1/{scale} of the text's, bandwidth (80 MB/s in all) and disks are not, so that everything takes 1/{scale} of the \
             time. Requests as fast as they are answered. {conditions}"
        ),
        columns: columns(),
        rows: curves.rows(),
        panels: vec![curves.panel("Throughput, YouTube-like workload")],
        checks,
    })
}

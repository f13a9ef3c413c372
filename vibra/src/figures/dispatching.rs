//! What a dispatching decision costs (section 3.5.2): Table 3.2.

use crate::figure::{Cell, Check, Figure, Heading, Measured, Panel, Run, Wanted};
use anyhow::{Context, ensure};
use std::{hint::black_box, process::Command, time::Duration};
use vibra_model::{Revision, Timestamp, VmState};
use vibra_report::{Axis, median};
use vibra_routing::{Algorithm, Cluster, HashKind, Idle, PickState, Server, Settings, Table};

pub(super) const FIGURES: &[Figure] = &[Figure {
    id: "table-3.2",
    title: "CPU and memory overheads of dispatching algorithms",
    paper: "Table 3.2: a look-up among 90,000 URLs takes 0.25 us (round-robin), 0.28 (Charsum), 1.79 (MD5), 2.39 (SHA-1) and 1.86 \
            (LARD) on a Pentium 4; LARD's history has 1,413 pages, 64 bytes an object, the others 6 to 21.",
    make: overheads,
}];

/// How many objects LARD knows, as in the table.
const OBJECTS: usize = 90_000;
/// The table's servers.
const SERVERS: usize = 4;

/// A row: the way to dispatch, and the paper's microseconds and pages where it has them.
struct Way {
    algorithm: Algorithm,
    hash: HashKind,
    paper: Option<(f64, f64)>,
}

const WAYS: [Way; 13] = {
    const fn way(algorithm: Algorithm, hash: HashKind, paper: Option<(f64, f64)>) -> Way {
        Way { algorithm, hash, paper }
    }
    [
        way(Algorithm::RoundRobin, HashKind::Charsum, Some((0.25, 6.0))),
        way(Algorithm::Lard, HashKind::Charsum, Some((1.86, 1413.0))),
        way(Algorithm::UrlHash, HashKind::Charsum, Some((0.28, 6.0))),
        way(Algorithm::UrlHash, HashKind::Md5, Some((1.79, 20.0))),
        way(Algorithm::UrlHash, HashKind::Sha1, Some((2.39, 21.0))),
        way(Algorithm::UrlHash, HashKind::Xxh3, None),
        way(Algorithm::LeastConnection, HashKind::Charsum, None),
        way(Algorithm::LardR, HashKind::Charsum, None),
        way(Algorithm::Slots, HashKind::Xxh3, None),
        way(Algorithm::Ring, HashKind::Xxh3, None),
        way(Algorithm::Rendezvous, HashKind::Xxh3, None),
        way(Algorithm::Maglev, HashKind::Xxh3, None),
        way(Algorithm::BoundedLoads, HashKind::Xxh3, None),
    ]
};

impl Way {
    fn name(&self) -> String {
        if self.algorithm.uses_hash() {
            format!("{}, {}", self.algorithm, self.hash)
        } else {
            self.algorithm.to_string()
        }
    }

    fn table(&self) -> anyhow::Result<Table> {
        let server = |i| Ok(Server::new(format!("vm{i}").parse()?, 1, VmState::Up));
        let servers = (1..=SERVERS).map(server).collect::<anyhow::Result<_>>()?;
        let settings = Settings { algorithm: self.algorithm, hash: self.hash, replicas: 1, ..Settings::default() };
        Ok(Table::build(&Cluster { revision: Revision(1), servers }, &settings)?)
    }
}

fn names() -> Vec<String> {
    (0..OBJECTS).map(|i| format!("/english/competition/statistics/{i:08}")).collect()
}

fn overheads(run: &Run) -> anyhow::Result<Measured> {
    let (names, passes) = (names(), if run.quick { 3 } else { 15 });
    let mut measured = Vec::new();
    for (number, way) in WAYS.iter().enumerate() {
        run.bar.set_message(format!("table-3.2: {}", way.name()));
        measured.push((way, cost(way, &names, passes)?, pages(number)?));
    }
    let row = |(way, us, pages): &(&Way, f64, f64)| -> Vec<Cell> {
        vec![
            way.name().into(),
            (*us).into(),
            way.paper.map(|paper| paper.0).into(),
            (*pages).into(),
            way.paper.map(|paper| paper.1).into(),
        ]
    };
    let us = |row: usize| measured[row].1;
    Ok(Measured {
        conditions: format!(
            "{SERVERS} servers, {OBJECTS} names of 40 bytes, which LARD all knows, asked for in another order than they came; CPU time \
             of the thread, median of {passes} passes over all of them, with reading the name. Pages of 4 KiB by which the resident set \
             of a process grows when it has dispatched all names once."
        ),
        columns: vec![
            Heading::words("algorithm"),
            Heading::numbers("us a look-up", 3),
            Heading::numbers("paper", 2),
            Heading::numbers("pages", 0),
            Heading::numbers("paper", 0),
        ],
        rows: measured.iter().map(row).collect(),
        panels: vec![Panel::Bars {
            title: "Cost of a look-up among 90,000 names".into(),
            y: Axis::linear("us"),
            groups: vec![String::new()],
            series: measured.iter().map(|(way, us, _)| (way.name(), vec![Some(*us)])).collect(),
        }],
        checks: vec![
            Check::new("LARD's look-up to Charsum's", "6.6", Some(us(1) / us(2)), Wanted::AtLeast(2.0)),
            Check::new("MD5's to Charsum's", "6.4", Some(us(3) / us(2)), Wanted::AtLeast(1.5)),
            Check::new("SHA-1's to Charsum's", "8.5", Some(us(4) / us(2)), Wanted::AtLeast(1.5)),
            Check::new("LARD's memory, pages", "1,413", Some(measured[1].2), Wanted::AtLeast(1000.0)).with_decimals(0),
            Check::new(
                "Charsum's memory beyond round-robin's, pages",
                "0",
                Some(measured[2].2 - measured[0].2),
                Wanted::AtMost(32.0),
            )
            .with_decimals(0),
        ],
    })
}

/// Microseconds of CPU time a look-up.
fn cost(way: &Way, names: &[String], passes: usize) -> anyhow::Result<f64> {
    let (table, mut state) = (way.table()?, PickState::default());
    names.iter().for_each(|name| drop(table.pick(&mut state, name, &Idle, Timestamp(0))));
    // 44,987 has no factor in common with their number, so that all are met.
    let order = |index: usize| index * 44_987 % OBJECTS;
    let mut costs = Vec::new();
    for _ in 0..passes {
        let before = cpu_time();
        for index in 0..OBJECTS {
            let name = &names[order(index)];
            black_box(name.as_bytes().iter().fold(0, |all, byte| all | byte));
            black_box(table.pick(&mut state, name, &Idle, Timestamp(0)));
        }
        costs.push((cpu_time() - before).as_secs_f64() * 1e6 / OBJECTS as f64);
    }
    median(&costs).context("no pass was made")
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Asks a process of its own, in which nothing was freed that could be used again.
fn pages(way: usize) -> anyhow::Result<f64> {
    let program = std::env::current_exe().context("finding this program")?;
    let output = Command::new(program).args(["figures", "--footprint", &way.to_string()]).output()?;
    ensure!(output.status.success(), "measuring memory: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("measuring memory: {text:?}"))
}

/// Prints by how many pages this process grows when it dispatches all names in the way of this number.
///
/// # Errors
/// If there is no such way, or the kernel does not tell.
pub(super) fn print_footprint(way: usize) -> anyhow::Result<()> {
    let table = WAYS.get(way).context("there is no such way")?.table()?;
    let mut state = PickState::default();
    // What does not depend on the number of objects is in place after one.
    table.pick(&mut state, "/", &Idle, Timestamp(0));
    let before = resident_pages()?;
    for i in 0..OBJECTS {
        // One at a time: the names themselves are not to be counted.
        table.pick(&mut state, &format!("/english/competition/statistics/{i:08}"), &Idle, Timestamp(0));
    }
    println!("{}", resident_pages()?.saturating_sub(before));
    Ok(())
}

/// Pages of the resident set that are no file's: code is read in when it first runs, whatever it dispatches.
fn resident_pages() -> anyhow::Result<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let mut pages = statm.split_whitespace().skip(1).map(str::parse::<u64>);
    let mut next = || anyhow::Ok(pages.next().context("no resident set in /proc/self/statm")??);
    let (resident, of_files) = (next()?, next()?);
    Ok(resident.saturating_sub(of_files))
}

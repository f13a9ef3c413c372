//! What came of it.

use crate::{
    cluster::{CUSTOMERS, HOSTS, VMS},
    process::Cpu,
};
use serde::Serialize;
use std::{process::Command, time::Duration};
use vibra_report::{Column, Document, Provenance, Table, number, quantile};

/// The 99th percentile of both kinds of request is to stay below this, in ms.
const TARGET_MS: f64 = 20.0;
/// So many requests of a thousand may fail, or be refused.
const TOLERATED: f64 = 0.001;

/// What became of the requests of one kind.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    /// In ms, from the time when the request was due.
    latencies: Vec<f64>,
    pub(crate) stale: u64,
    pub(crate) refused: u64,
    failed: u64,
    /// Why the first one failed.
    why: Option<String>,
}

impl Counted {
    /// A request was answered well; `None` if it does not count.
    pub(crate) fn answered(&mut self, latency: Option<Duration>) {
        self.latencies.extend(latency.map(ms));
    }

    /// A request failed; these count always.
    pub(crate) fn failed(&mut self, why: &str) {
        self.failed += 1;
        self.why.get_or_insert_with(|| why.to_owned());
    }

    pub(crate) fn add(&mut self, other: Counted) {
        self.latencies.extend(other.latencies);
        self.stale += other.stale;
        self.refused += other.refused;
        self.failed += other.failed;
        self.why = self.why.take().or(other.why);
    }
}

/// All that was measured.
pub(crate) struct Outcome {
    pub(crate) reports: Counted,
    pub(crate) proposals: Counted,
    pub(crate) server_cpu: Cpu,
    pub(crate) driver_cpu: Cpu,
    pub(crate) syncs: Vec<Duration>,
}

/// What holds for the whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Setup {
    hosts: usize,
    vms: usize,
    customers: usize,
    seconds: u32,
    target_p99_ms: f64,
    /// Whether both 99th percentiles were below the target, and next to nothing failed or was refused.
    pub(crate) target_met: bool,
    /// Of the server, per request.
    server_user_us: Option<f64>,
    server_system_us: Option<f64>,
    /// Of the server, in processors.
    server_processors: f64,
    /// Of this program, in processors.
    driver_processors: f64,
}

/// One kind of request, or the disk.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    what: &'static str,
    answered: usize,
    stale: u64,
    refused: u64,
    failed: u64,
    first_failure: Option<String>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    max_ms: Option<f64>,
}

impl Row {
    fn new(what: &'static str, counted: Counted) -> Self {
        let Counted { latencies, stale, refused, failed, why } = counted;
        Row {
            what,
            answered: latencies.len(),
            stale,
            refused,
            failed,
            first_failure: why,
            p50_ms: quantile(&latencies, 0.5),
            p99_ms: quantile(&latencies, 0.99),
            max_ms: quantile(&latencies, 1.0),
        }
    }

    fn meets_target(&self) -> bool {
        let unwanted = (self.stale + self.refused + self.failed) as f64;
        self.p99_ms.is_some_and(|p99| p99 < TARGET_MS) && unwanted <= TOLERATED * self.answered as f64
    }
}

impl Outcome {
    pub(crate) fn document(self, provenance: Provenance, seconds: u32) -> Document<Setup, Row> {
        let syncs = Counted { latencies: self.syncs.into_iter().map(ms).collect(), ..Counted::default() };
        let reports = Row::new("usage reports", self.reports);
        let proposals = Row::new("proposals", self.proposals);
        let answered = (reports.answered + proposals.answered) as f64;
        let per_request = |cpu: f64| (answered > 0.0).then(|| cpu * 1e6 / answered);
        let processors = |cpu: Cpu| (cpu.user + cpu.system) / f64::from(seconds);
        let setup = Setup {
            hosts: HOSTS,
            vms: VMS,
            customers: CUSTOMERS,
            seconds,
            target_p99_ms: TARGET_MS,
            target_met: reports.meets_target() && proposals.meets_target(),
            server_user_us: per_request(self.server_cpu.user),
            server_system_us: per_request(self.server_cpu.system),
            server_processors: processors(self.server_cpu),
            driver_processors: processors(self.driver_cpu),
        };
        Document { provenance, setup, rows: vec![reports, proposals, Row::new("syncs of the disk", syncs)] }
    }
}

/// For people.
pub(crate) fn summary(document: &Document<Setup, Row>) -> String {
    let right = Column::right;
    let mut table = Table::new([
        Column::left("what"),
        right("answered"),
        right("stale"),
        right("refused"),
        right("failed"),
        right("p50 ms"),
        right("p99 ms"),
        right("max ms"),
    ]);
    let count = |count: u64| number(Some(count as f64), 0);
    for row in &document.rows {
        table.push([
            row.what.into(),
            count(row.answered as u64),
            count(row.stale),
            count(row.refused),
            count(row.failed),
            number(row.p50_ms, 2),
            number(row.p99_ms, 2),
            number(row.max_ms, 2),
        ]);
    }
    let Document { provenance, setup, .. } = document;
    format!(
        "{table}\nserver: {} us user and {} us system per request, {} processors; driver: {} processors; load before: {}\n\
         target (p99 below {TARGET_MS} ms, next to nothing refused): {}",
        number(setup.server_user_us, 1),
        number(setup.server_system_us, 1),
        number(Some(setup.server_processors), 2),
        number(Some(setup.driver_processors), 2),
        number(provenance.machine.load_1m, 1),
        if setup.target_met { "met" } else { "MISSED" },
    )
}

/// The commit that the working directory is at, if it is a repository.
pub(crate) fn commit() -> Option<String> {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output().ok()?;
    let told = String::from_utf8(git.stdout).ok()?;
    (git.status.success() && !told.trim().is_empty()).then(|| told.trim().to_owned())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

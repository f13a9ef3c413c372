//! What is measured: a file for each kind of cell, and what they have in common.

mod churn;
mod cpu;
mod http2;
mod idle;
mod latency;
mod servers;
mod tls;
mod updates;

use super::{
    compare::{Better, Condition, Measure, OURS},
    contender::{Contender, Running},
    stage::Stage,
    tools::Load,
};
use anyhow::ensure;
use clap::ValueEnum;
use std::{collections::BTreeMap, time::Duration};

/// What a run measured, by the names of the measures; what is no measure of the cell stays in the raw results.
pub(super) type Values = BTreeMap<&'static str, f64>;

/// The kinds of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// CPU time a request and requests/s of keep-alive connections, for each body size
    Cpu,
    /// p50 and p99 in open loop at 50 % and 80 % of the slowest proxy's peak, for each body size
    Latency,
    /// A connection a request
    Churn,
    /// A full TLS handshake a request
    TlsFull,
    /// A resumed TLS handshake a request
    TlsResumed,
    /// HTTP/2 over TLS, 100 streams a connection
    H2,
    /// Resident memory of each of 5,000 idle connections
    Idle,
    /// This dispatcher with 100 more servers, against itself without
    Servers,
    /// This dispatcher under 10,000 updates of its routing snapshot a minute, against itself without
    Updates,
}

/// Something that each side does once a round.
pub(super) trait Cell {
    /// Its name in the table.
    fn name(&self) -> String;

    /// What it measures, and what is promised of it.
    fn measures(&self) -> Vec<Measure>;

    /// Who is compared; the first is judged against the best of the others.
    fn sides(&self) -> Vec<&'static str>;

    /// What must be known or running before the first round.
    ///
    /// # Errors
    /// If something does not start or answer.
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// How often each side has its turn in a round of the whole benchmark.
    fn turns(&self) -> u64 {
        1
    }

    /// A run of one side. The `round` counts this cell's own.
    ///
    /// # Errors
    /// If the numbers would mean nothing, because an answer was wrong, say.
    fn run(&mut self, round: u64, side: usize) -> anyhow::Result<Values>;
}

/// The cells of these kinds, in the order of the kinds; some kinds have one for each body size.
pub(super) fn cells<'a>(stage: &'a Stage<'a>, kinds: &[Kind], sizes: &[u64]) -> Vec<Box<dyn Cell + 'a>> {
    let mut cells: Vec<Box<dyn Cell + 'a>> = Vec::new();
    for kind in Kind::value_variants().iter().filter(|kind| kinds.contains(kind)) {
        match kind {
            Kind::Cpu => cells.extend(sizes.iter().map(|&size| Box::new(cpu::Cpu { stage, size }) as _)),
            Kind::Latency => cells.extend(sizes.iter().map(|&size| Box::new(latency::Latency::new(stage, size)) as _)),
            Kind::Churn => cells.push(Box::new(churn::Churn { stage })),
            Kind::TlsFull => cells.push(Box::new(tls::Tls::full(stage))),
            Kind::TlsResumed => cells.push(Box::new(tls::Tls::resumed(stage))),
            Kind::H2 => cells.push(Box::new(http2::Http2 { stage })),
            Kind::Idle => cells.push(Box::new(idle::Idle { stage })),
            Kind::Servers => cells.push(Box::new(servers::Servers::new(stage))),
            Kind::Updates => cells.push(Box::new(updates::Updates::new(stage))),
        }
    }
    cells
}

/// All contenders.
fn contenders() -> Vec<&'static str> {
    Contender::ALL.map(Contender::name).into()
}

/// This dispatcher, against itself.
fn with_and_without() -> Vec<&'static str> {
    vec![OURS, "without"]
}

const CPU: &str = "CPU us/request";
const RATE: &str = "requests/s";
/// The proxy's CPU time, as a part of the run's.
const BUSY: &str = "core busy";

/// A core that is this busy is taken for full: a closed loop, whose load comes in batches, hardly leaves less to do.
const FULL: f64 = 0.8;

/// No cell may be more than 10 % worse in any row.
const TEN_PER_CENT_WORSE: f64 = 1.1;

/// CPU time a request, with its promise.
fn cpu_time(limit: f64) -> Measure {
    Measure { name: CPU, better: Better::Lower, limit: Some(limit), decimals: 1, only_if: None }
}

/// Requests a second of a closed loop. Where our core has time to spare, they are the load generator's limit, or its
/// servers', and no verdict on the proxy.
fn rate(limit: Option<f64>) -> Measure {
    let only_if = Some(Condition { value: BUSY, least: FULL, otherwise: "limited by the other core" });
    Measure { name: RATE, better: Better::Higher, limit, decimals: 0, only_if }
}

/// The values of a closed loop: what `load` comes to, and what CPU time the proxy takes for it.
fn closed_loop(proxy: &Running, load: impl FnOnce() -> anyhow::Result<Load>) -> anyhow::Result<Values> {
    proxy.rotate_log();
    let before = proxy.server.cpu_time()?;
    let load = load()?;
    let cpu = proxy.server.cpu_time()?.saturating_sub(before);
    let Load { requests, errors, seconds } = load;
    ensure!(requests > 0, "answered no request");
    // An error costs less than an answer: it would flatter the proxy.
    ensure!(errors == 0, "failed {errors} requests beside {requests} that it answered");
    let requests = requests as f64;
    let busy = cpu.as_secs_f64() / seconds;
    Ok(Values::from([("requests", requests), (CPU, micros(cpu) / requests), (RATE, requests / seconds), (BUSY, busy)]))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A body size as people say it.
fn human(size: u64) -> String {
    match size {
        mega if mega >= 1 << 20 && mega % (1 << 20) == 0 => format!("{} MB", mega >> 20),
        kilo if kilo >= 1 << 10 && kilo % (1 << 10) == 0 => format!("{} KB", kilo >> 10),
        bytes => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Bench, BenchProxy, Cli, Command};
    use clap::Parser;

    fn args(line: &str) -> Result<BenchProxy, clap::Error> {
        let line = format!("vibra bench proxy {line}");
        match Cli::try_parse_from(line.split_whitespace())?.command {
            Command::Bench(Bench::Proxy(args)) => Ok(args),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn cells_are_chosen_by_their_names() {
        let all = args("").unwrap();
        assert_eq!((all.only, all.sizes), (vec![], vec![128, 10 << 10, 100 << 10, 1 << 20]));
        assert_eq!(args("--only tls-full,cpu --only h2").unwrap().only, [Kind::TlsFull, Kind::Cpu, Kind::H2]);
        let refusal = args("--only cup").unwrap_err().to_string();
        assert!(refusal.contains("cpu") && refusal.contains("updates"), "{refusal}");
        for wrong in ["--rounds 1", "--seconds 0", "--sizes 0", "--connections 0"] {
            assert!(args(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_told_as_people_do() {
        let told = [128, 1000, 10_240, 1 << 20, 3 << 20].map(human);
        assert_eq!(told, ["128 B", "1000 B", "10 KB", "1 MB", "3 MB"]);
    }
}

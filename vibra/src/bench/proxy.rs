//! `vibra bench proxy`: CPU time per request of one dispatcher thread, against HAProxy and nginx.
//!
//! Every round runs each proxy once on a core of its own, in an order that changes from round to round, in front of the
//! same nginx and under the same load from wrk, which share the other core. CPU time is that of the proxy's own
//! processes. These machines are noisy, so CPU time per request counts first, and the proxies are compared in pairs
//! within a round.

use super::{
    peers::{self, Contender, OTHER_CORE},
    process::Server,
};
use crate::{
    cli::BenchProxy,
    exit::{Failure, Outcome},
    progress,
};
use anyhow::{Context, bail, ensure};
use serde::Serialize;
use std::{fs, path::Path, process::Command, time::Duration};
use vibra_report::{Column, Document, Estimate, Paired, Provenance, Resampling, Table, median, number};

/// A run that is thrown away before the first round: it fills caches and connection pools.
const WARM_UP: Duration = Duration::from_secs(1);
/// Of the bootstrap's resampling.
const SEED: u64 = 1;

/// One proxy in one round.
#[derive(Debug, Clone, Serialize)]
struct Run {
    round: usize,
    body_bytes: u64,
    proxy: &'static str,
    requests: u64,
    errors: u64,
    requests_per_s: f64,
    p99_ms: f64,
    cpu_us_per_request: f64,
}

/// What holds for all runs.
#[derive(Debug, Serialize)]
struct Setup {
    connections: usize,
    seconds_a_run: u64,
    versions: Vec<String>,
}

/// Measures, prints a table of medians and ratios, writes the raw results, and fails where a ratio is above the limit.
pub(crate) fn run(args: &BenchProxy) -> Outcome {
    if args.rounds < 2 || args.sizes.is_empty() {
        return Err(Failure::Usage(anyhow::anyhow!("use --rounds 2 or more, and at least one size")));
    }
    let provenance = Provenance::now(crate::COMMIT.map(str::to_owned), Some(SEED));
    let folder = tempfile::tempdir()?;
    let runs = measure(args, folder.path())?;
    let versions: Vec<_> = Contender::ALL.into_iter().map(Contender::version).collect();
    println!("{}", versions.join("; "));
    let worst = print(args, &runs)?;
    if let Some(path) = &args.json {
        let setup = Setup { connections: args.connections, seconds_a_run: args.seconds, versions };
        Document { provenance, setup, rows: runs }.write(path)?;
    }
    match args.max_ratio {
        Some(limit) if worst > limit => {
            Err(Failure::Missed(format!("{worst:.2} times HAProxy's CPU time, above {limit}")))
        }
        _ => Ok(()),
    }
}

fn measure(args: &BenchProxy, folder: &Path) -> anyhow::Result<Vec<Run>> {
    let root = folder.join("root");
    fs::create_dir(&root)?;
    for size in &args.sizes {
        fs::write(root.join(size.to_string()), vec![b'v'; usize::try_from(*size)?])?;
    }
    let origin = peers::origin(folder, &root)?;
    let proxies = Contender::ALL.map(|c| c.start(folder, origin.address).map(|server| (c, server)));
    let mut proxies = proxies.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    for (_, server) in &proxies {
        load(server, args.sizes[0], WARM_UP, args.connections)?;
    }
    let bar = progress::steps((args.rounds * args.sizes.len() * proxies.len()) as u64);
    let mut runs = Vec::new();
    for round in 0..args.rounds {
        for size in &args.sizes {
            for (contender, server) in &proxies {
                bar.set_message(format!("{} bytes, {}", size, contender.name()));
                runs.push(one(args, round, *size, *contender, server)?);
                bar.inc(1);
            }
        }
        // Whoever comes first in a round comes last in the next: drift of the machine falls on all alike.
        proxies.rotate_left(1);
    }
    bar.finish_and_clear();
    Ok(runs)
}

fn one(args: &BenchProxy, round: usize, size: u64, contender: Contender, server: &Server) -> anyhow::Result<Run> {
    let before = server.cpu_time()?;
    let load = load(server, size, Duration::from_secs(args.seconds), args.connections)?;
    let cpu = server.cpu_time()?.saturating_sub(before);
    ensure!(load.requests > 0, "{} answered no request", contender.name());
    // An error costs less than an answer: it would flatter the proxy.
    ensure!(load.errors == 0, "{} failed {} of {} requests", contender.name(), load.errors, load.requests);
    Ok(Run {
        round,
        body_bytes: size,
        proxy: contender.name(),
        requests: load.requests,
        errors: load.errors,
        requests_per_s: load.requests as f64 / load.seconds,
        p99_ms: load.p99_ms,
        cpu_us_per_request: cpu.as_secs_f64() * 1e6 / load.requests as f64,
    })
}

/// What wrk saw.
struct Load {
    requests: u64,
    errors: u64,
    seconds: f64,
    p99_ms: f64,
}

/// Prints wrk's own numbers on one line of JSON.
const WRK_SCRIPT: &str = r#"
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("VIBRA %d %d %d %d\n", summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout, summary.duration, latency:percentile(99)))
end
"#;

fn load(server: &Server, size: u64, length: Duration, connections: usize) -> anyhow::Result<Load> {
    let script = std::env::temp_dir().join(format!("vibra-wrk-{}.lua", std::process::id()));
    fs::write(&script, WRK_SCRIPT)?;
    let output = Command::new("taskset")
        .args(["-c", &OTHER_CORE.to_string(), "wrk", "-t1"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", length.as_secs().max(1)))
        .arg("-s")
        .arg(&script)
        .arg(format!("http://{}/{size}", server.address))
        .output()
        .context("cannot start wrk (Debian package wrk)");
    fs::remove_file(&script)?;
    let output = output?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("VIBRA "));
    let numbers: Vec<u64> = line.unwrap_or("").split(' ').filter_map(|n| n.parse().ok()).collect();
    let [requests, errors, micros, p99_us] = numbers[..] else {
        bail!("wrk failed: {}{}", text, String::from_utf8_lossy(&output.stderr));
    };
    Ok(Load { requests, errors, seconds: micros as f64 / 1e6, p99_ms: p99_us as f64 / 1e3 })
}

/// Prints the table; returns the highest ratio to HAProxy's CPU time per request.
fn print(args: &BenchProxy, runs: &[Run]) -> anyhow::Result<f64> {
    let mut table = Table::new([
        Column::right("body"),
        Column::left("proxy"),
        Column::right("CPU us/request"),
        Column::right("of HAProxy's"),
        Column::left("95 % interval"),
        Column::right("requests/s"),
        Column::right("p99 ms"),
        Column::right("errors"),
    ]);
    let mut worst = 0.0_f64;
    for size in &args.sizes {
        let of = |proxy: Contender, field: fn(&Run) -> f64| -> Vec<f64> {
            let mut own: Vec<_> = runs.iter().filter(|r| r.body_bytes == *size && r.proxy == proxy.name()).collect();
            own.sort_by_key(|run| run.round);
            own.into_iter().map(field).collect()
        };
        let haproxy = of(Contender::HaProxy, |r| r.cpu_us_per_request);
        for proxy in Contender::ALL {
            let cpu = of(proxy, |r| r.cpu_us_per_request);
            let change = Paired::new(&haproxy, &cpu)?.relative_change(Resampling::with_seed(SEED))?;
            let Estimate { value, low, high, .. } = change;
            if proxy == Contender::Vibra {
                worst = worst.max(1.0 + value);
            }
            table.push([
                size.to_string(),
                proxy.name().to_owned(),
                number(median(&cpu), 1),
                number(Some(1.0 + value), 3),
                format!("{:.3} to {:.3}", 1.0 + low, 1.0 + high),
                number(median(&of(proxy, |r| r.requests_per_s)), 0),
                number(median(&of(proxy, |r| r.p99_ms)), 2),
                number(Some(of(proxy, |r| r.errors as f64).iter().sum()), 0),
            ]);
        }
    }
    print!("{table}");
    Ok(worst)
}

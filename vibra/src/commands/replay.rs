//! `vibra replay`: a trace against a URL, with response times.

use super::trace;
use crate::{
    cli::{self, Spread as SpreadChoice},
    exit::{Failure, Outcome},
    progress,
};
use anyhow::{Context, anyhow};
use std::{
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};
use vibra_replay::{Lengths, Mode, Options, Spread, Summary, replay};

/// Replays, prints a summary, and fails where the run is void or a threshold is missed.
pub(crate) fn run(args: &cli::Replay) -> Outcome {
    let (target, host) = target(&args.target).map_err(Failure::Usage)?;
    let mut trace = trace::load(&args.trace, args.objects.clone(), args.seed)?;
    if let Some(seconds) = args.seconds {
        let trace_time = Duration::from_secs_f64(seconds as f64 * args.speed);
        trace = trace.window(Duration::ZERO, trace_time);
    }
    let options = Options {
        host,
        warm_up: Duration::from_secs(args.warm_up),
        stop_after: args.seconds.map(Duration::from_secs),
        timeout: Duration::from_secs(args.timeout),
        lengths: if args.any_length { Lengths::Any } else { Lengths::AsTraced },
        ..Options::new(target, mode(args))
    };
    let bar = progress::requests(trace.requests.len() as u64);
    let summary = replay(&trace, &options, |now| bar.set_position(now.finished)).map_err(Failure::usage)?;
    bar.finish_and_clear();
    println!("{} ({}) against {}", trace.name, trace.origin, args.target);
    print(&summary);
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&summary)?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    judge(&summary, args.max_mean_ms)
}

/// The address and the `Host` that a target URL means.
fn target(url: &str) -> anyhow::Result<(SocketAddr, String)> {
    let hint = || anyhow!("{url:?} is no target: write http://host:port, such as http://127.0.0.1:8080");
    let authority = url.strip_prefix("http://").ok_or_else(hint)?.trim_end_matches('/');
    if authority.is_empty() || authority.contains(['/', '?', '@']) {
        return Err(hint());
    }
    // A last colon is that of a port, unless it is inside the brackets of an IPv6 address.
    let has_port = authority.rfind(':').is_some_and(|colon| !authority[colon..].contains(']'));
    let with_port = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let mut found = with_port.to_socket_addrs().with_context(|| format!("cannot find {authority}"))?;
    Ok((found.next().ok_or_else(hint)?, authority.to_owned()))
}

fn mode(args: &cli::Replay) -> Mode {
    if let Some(concurrency) = args.concurrency {
        return Mode::Closed { concurrency };
    }
    let spread = match args.spread {
        SpreadChoice::Burst => Spread::Burst,
        SpreadChoice::Uniform => Spread::Uniform,
        SpreadChoice::Poisson => Spread::Poisson { seed: args.seed },
    };
    Mode::Open { speed: args.speed, spread }
}

fn print(summary: &Summary) {
    println!("requests          {}", summary.requests);
    println!("right answers     {}", summary.completed);
    let errors = &summary.errors;
    println!("errors            {}", errors.total());
    let classes = [
        ("connect", errors.connect),
        ("timeout", errors.timeout),
        ("closed", errors.closed),
        ("protocol", errors.protocol),
        ("4xx", errors.status_4xx),
        ("5xx", errors.status_5xx),
        ("truncated", errors.truncated),
        ("wrong length", errors.wrong_length),
    ];
    for (class, count) in classes.into_iter().filter(|(_, count)| *count > 0) {
        println!("  {class:<15} {count}");
    }
    if summary.skipped > 0 {
        println!("skipped           {} (methods that a log does not let one replay)", summary.skipped);
    }
    if let (Some(requests), Some(bytes)) = (summary.requests_per_s, summary.bytes_per_s) {
        println!("requests/s        {requests:.1}");
        println!("bytes/s           {bytes:.0}");
    }
    if let Some(times) = &summary.response_time {
        println!(
            "response time ms  mean {:.2}, p50 {:.2}, p90 {:.2}, p99 {:.2}, p99.9 {:.2}, max {:.2}",
            times.mean_ms, times.p50_ms, times.p90_ms, times.p99_ms, times.p999_ms, times.max_ms
        );
    }
    if let Some(lag) = &summary.send_lag {
        println!("sent late by ms   p99 {:.3}, max {:.3}", lag.p99_ms, lag.max_ms);
    }
}

fn judge(summary: &Summary, max_mean_ms: Option<f64>) -> Outcome {
    if let Some(why) = &summary.void {
        return Err(Failure::Void(why.clone()));
    }
    let Some(limit) = max_mean_ms else { return Ok(()) };
    match &summary.response_time {
        Some(times) if times.mean_ms <= limit => Ok(()),
        Some(times) => {
            Err(Failure::Missed(format!("the mean response time is {:.2} ms, above {limit} ms", times.mean_ms)))
        }
        None => Err(Failure::Missed("there was no right answer".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_plain_http_authorities() {
        assert_eq!(target("http://127.0.0.1:81/").unwrap(), ("127.0.0.1:81".parse().unwrap(), "127.0.0.1:81".into()));
        assert_eq!(target("http://127.0.0.1").unwrap().0.port(), 80);
        assert_eq!(target("http://[::1]").unwrap().0, "[::1]:80".parse().unwrap());
        for wrong in ["127.0.0.1:80", "https://127.0.0.1", "http://", "http://127.0.0.1/x", "http://127.0.0.1:99999"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}

//! wrk: a closed loop over HTTP/1.1.

use super::{Load, said};
use crate::bench::origin::{URLS, path};
use anyhow::Context;
use std::{fmt::Write, fs, net::SocketAddr, path::Path, process::Command, time::Duration};

/// How long a connection lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bench) enum Connections {
    /// As long as the run.
    KeepAlive,
    /// For one request.
    OneRequest,
}

/// Prints wrk's own numbers on one line.
const DONE: &str = r#"
done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("VIBRA %d %d %d\n", summary.requests,
    e.connect + e.read + e.write + e.status + e.timeout, summary.duration))
end
"#;

/// Asks `target` for bodies of `size` bytes, under changing URLs, from so many connections at a time. `folder` takes the
/// script that says so.
pub(in crate::bench) fn load(
    folder: &Path,
    target: SocketAddr,
    size: u64,
    length: Duration,
    (number, lasting): (u64, Connections),
) -> anyhow::Result<Load> {
    let file = folder.join("wrk.lua");
    fs::write(&file, script(size, lasting))?;
    let mut command = Command::new("wrk");
    // wrk has one thread here, and whole seconds only.
    command.arg("-t1").arg(format!("-c{number}")).arg(format!("-d{}s", length.as_secs().max(1)));
    command.arg("-s").arg(&file).arg(format!("http://{target}/"));
    let text = said(&mut command)?;
    parse(&text).with_context(|| format!("wrk said something unexpected: {text}"))
}

fn script(size: u64, lasting: Connections) -> String {
    let mut script = String::new();
    if lasting == Connections::OneRequest {
        script.push_str("wrk.headers[\"Connection\"] = \"close\"\n");
    }
    script.push_str("local requests, next = {}, 0\ninit = function(args)\n");
    for number in 0..URLS {
        let _ = writeln!(script, "  requests[{number}] = wrk.format(\"GET\", \"{}\")", path(size, number));
    }
    let _ = write!(script, "end\nrequest = function()\n  next = (next + 1) % {URLS}\n  return requests[next]\nend\n");
    script + DONE
}

fn parse(text: &str) -> Option<Load> {
    let line = text.lines().find_map(|line| line.strip_prefix("VIBRA "))?;
    let numbers: Vec<u64> = line.split(' ').map_while(|number| number.parse().ok()).collect();
    let [answers, errors, micros] = numbers[..] else { return None };
    // Answers with a status of 400 or more are among both.
    Some(Load { requests: answers, errors, seconds: micros as f64 / 1e6 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_numbers_is_found() {
        let text = "Running 1s test @ http://127.0.0.1:1/\n  Requests/sec: 12.0\nVIBRA 1200 3 2000000\n";
        assert_eq!(parse(text), Some(Load { requests: 1200, errors: 3, seconds: 2.0 }));
        assert_eq!(parse("Running\nVIBRA 1200 3\n"), None);
        assert_eq!(parse("VIBRA 1 2 x\n"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn every_url_is_asked_for_and_connections_close_where_they_should() {
        let script = |lasting| script(128, lasting);
        assert!(script(Connections::OneRequest).contains("\"close\""));
        let keep = script(Connections::KeepAlive);
        assert!(!keep.contains("close"));
        assert!((0..URLS).all(|number| keep.contains(&format!("\"/128/{number}\""))), "{keep}");
    }
}

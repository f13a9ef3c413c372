//! h2load: a closed loop over HTTP/2.

use super::{Load, said};
use crate::bench::origin::{URLS, path};
use anyhow::Context;
use std::{net::SocketAddr, process::Command, time::Duration};

/// Asks `target`, over TLS, for bodies of `size` bytes under changing URLs, on so many connections with so many streams
/// each.
pub(in crate::bench) fn load(
    target: SocketAddr,
    size: u64,
    length: Duration,
    connections: usize,
    streams: usize,
) -> anyhow::Result<Load> {
    let mut command = Command::new("h2load");
    command.arg("--duration").arg(length.as_secs().max(1).to_string());
    command.arg("--clients").arg(connections.to_string()).arg("--max-concurrent-streams").arg(streams.to_string());
    command.args((0..URLS).map(|number| format!("https://{target}{}", path(size, number))));
    let text = said(&mut command)?;
    parse(&text).with_context(|| format!("h2load said something unexpected: {text}"))
}

fn parse(text: &str) -> Option<Load> {
    let after = |beginning: &str| text.lines().find_map(|line| line.trim().strip_prefix(beginning));
    // It negotiates, and would take HTTP/1.1.
    after("Application protocol: h2")?;
    let seconds = after("finished in ")?.split("s,").next()?.parse().ok()?;
    let requests = after("requests: ")?;
    let count = |what: &str| {
        let mut parts = requests.split(", ").filter_map(|part| part.split_once(' '));
        parts.find(|(_, name)| *name == what)?.0.parse::<u64>().ok()
    };
    let errors = count("failed")? + count("errored")? + count("timeout")?;
    Some(Load { requests: count("succeeded")?, errors, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
starting benchmark...
TLS Protocol: TLSv1.3
Application protocol: h2
Main benchmark duration is over for thread #0. Stopping all clients.

finished in 2.00s, 51340.50 req/s, 9.30MB/s
requests: 102681 total, 103081 started, 102681 done, 102670 succeeded, 5 failed, 4 errored, 2 timeout
status codes: 102689 2xx, 0 3xx, 0 4xx, 0 5xx
";

    #[test]
    fn its_summary_is_understood() {
        assert_eq!(parse(SAID), Some(Load { requests: 102_670, errors: 11, seconds: 2.0 }));
    }

    #[test]
    fn what_is_not_http_2_is_no_result() {
        assert_eq!(parse(&SAID.replace("protocol: h2", "protocol: http/1.1")), None);
        assert_eq!(parse("finished in 2.00s, 1 req/s\n"), None);
    }
}

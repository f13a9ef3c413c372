//! The counters as Prometheus reads them. There is a label for servers and none for URLs: their number has a bound.

use crate::dispatcher::Shared;
use crate::http1::head::Version;
use crate::metrics::{BOUNDS, CLASSES, Counter, Failure, Histogram, Refusal, Tally, Wait};
use crate::peer::NoHeader;
use crate::reload::{Reload, ReloadOutcome};
use crate::tls::{Fault, Handshakes, TlsVersion};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use std::sync::{Arc, PoisonError};
use std::{fmt, time::UNIX_EPOCH};
use vibra_routing::Warmth;

/// Reads the counters of a dispatcher.
#[derive(Debug)]
struct Exporter(Arc<Shared>);

/// All metrics in the OpenMetrics text format.
pub(crate) fn render(shared: Arc<Shared>) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("vibra_proxy");
    registry.register_collector(Box::new(Exporter(shared)));
    let mut out = String::new();
    text::encode(&mut out, &registry)?;
    Ok(out)
}

/// One server's counters, of each thread, with the labels that all its series have.
struct Series {
    labels: [(&'static str, String); 2],
    active: u32,
    limit: u32,
    waiting: u64,
    used: bool,
    warmth: Warmth,
    tallies: Vec<Arc<Tally>>,
}

impl Series {
    fn all(shared: &Shared) -> Vec<Series> {
        let routes = shared.routes.load();
        let algorithm = routes.config.settings.algorithm.to_string();
        let servers = routes.servers.iter().zip(&routes.cluster.servers);
        servers
            .map(|(server, routed)| Series {
                labels: [("server", server.name.to_string()), ("algorithm", algorithm.clone())],
                active: server.active(),
                limit: server.gate.most(),
                waiting: server.gate.waiting() as u64,
                used: routed.state.serves(),
                warmth: routed.warmth,
                tallies: server.tallies(),
            })
            .collect()
    }

    fn sum(&self, counter: impl Fn(&Tally) -> &Counter) -> u64 {
        self.tallies.iter().map(|tally| counter(tally).get()).sum()
    }

    fn histogram(&self, encoder: &mut MetricEncoder<'_>, of: impl Fn(&Tally) -> &Histogram) -> fmt::Result {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bound = |i: usize| BOUNDS.get(i).map_or(f64::INFINITY, |&micros| seconds(micros));
        let bucket = |i: usize| (bound(i), self.sum(|tally| &of(tally).buckets[i]));
        let buckets: [_; BOUNDS.len() + 1] = std::array::from_fn(bucket);
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.sum(|tally| &of(tally).sum));
        encoder.encode_family(&self.labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

impl Collector for Exporter {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let series = Series::all(&self.0);
        encode_servers(&mut encoder, &series)?;
        encode_requests(&mut encoder, &series)?;
        encode_clients(&mut encoder, &self.0)?;
        encode_tls(&mut encoder, &self.0)?;
        encode_dispatcher(&mut encoder, &self.0)
    }
}

fn encode_servers(encoder: &mut DescriptorEncoder<'_>, series: &[Series]) -> fmt::Result {
    let mut active = encoder.encode_descriptor("active", "Requests that are not complete", None, MetricType::Gauge)?;
    for server in series {
        active.encode_family(&server.labels)?.encode_gauge(&server.active)?;
    }
    let help = "The most requests that it may have at once";
    let mut limit = encoder.encode_descriptor("limit", help, None, MetricType::Gauge)?;
    for server in series {
        limit.encode_family(&server.labels)?.encode_gauge(&server.limit)?;
    }
    let help = "Requests that wait for a place there";
    let mut waiting = encoder.encode_descriptor("waiting", help, None, MetricType::Gauge)?;
    for server in series {
        waiting.encode_family(&server.labels)?.encode_gauge(&server.waiting)?;
    }
    let mut used = encoder.encode_descriptor("used", "Whether requests are sent there", None, MetricType::Gauge)?;
    for server in series {
        used.encode_family(&server.labels)?.encode_gauge(&u32::from(server.used))?;
    }
    let help = "The share of its objects that a server gets: below 1 while it warms up";
    let mut warmth = encoder.encode_descriptor("warmth", help, None, MetricType::Gauge)?;
    for server in series {
        let share = f64::from(server.warmth.get()) / f64::from(Warmth::FULL.get());
        warmth.encode_family(&server.labels)?.encode_gauge(&share)?;
    }
    Ok(())
}

fn encode_requests(encoder: &mut DescriptorEncoder<'_>, series: &[Series]) -> fmt::Result {
    let mut picks =
        encoder.encode_descriptor("picks", "Requests sent there, or tried to", None, MetricType::Counter)?;
    for server in series {
        count(&mut picks.encode_family(&server.labels)?, server.sum(|tally| &tally.picks))?;
    }
    let help = "Requests sent there after another server had failed";
    let mut retries = encoder.encode_descriptor("retries", help, None, MetricType::Counter)?;
    for server in series {
        count(&mut retries.encode_family(&server.labels)?, server.sum(|tally| &tally.retries))?;
    }
    let help = "Requests that found no place there";
    let mut full = encoder.encode_descriptor("full", help, None, MetricType::Counter)?;
    for server in series {
        count(&mut full.encode_family(&server.labels)?, server.sum(|tally| &tally.full))?;
    }
    let mut connects = encoder.encode_descriptor("connects", "Connections made", None, MetricType::Counter)?;
    for server in series {
        count(&mut connects.encode_family(&server.labels)?, server.sum(|tally| &tally.connects))?;
    }
    let mut responses = encoder.encode_descriptor("responses", "Responses", None, MetricType::Counter)?;
    for server in series {
        for (i, class) in CLASSES.iter().enumerate() {
            let labels = (server.labels.clone(), [("status", *class)]);
            count(&mut responses.encode_family(&labels)?, server.sum(|tally| &tally.responses[i]))?;
        }
    }
    let mut failures = encoder.encode_descriptor("failures", "Failed requests", None, MetricType::Counter)?;
    for server in series {
        for kind in Failure::ALL {
            let labels = (server.labels.clone(), [("kind", kind.name())]);
            count(&mut failures.encode_family(&labels)?, server.sum(|tally| &tally.failures[kind as usize]))?;
        }
    }
    let help = "How long requests waited for a place there, of those that had to";
    encode_histogram(encoder, series, "queue", help, |tally| &tally.queue)?;
    encode_histogram(encoder, series, "connect", "What it took to connect", |tally| &tally.connect)?;
    let help = "From a request's first byte to its response's head";
    encode_histogram(encoder, series, "first_byte", help, |tally| &tally.first_byte)?;
    let help = "From a request's first byte to the end of its response's body";
    encode_histogram(encoder, series, "latency", help, |tally| &tally.latency)
}

fn encode_histogram(
    encoder: &mut DescriptorEncoder<'_>,
    series: &[Series],
    name: &str,
    help: &str,
    of: impl Fn(&Tally) -> &Histogram,
) -> fmt::Result {
    let mut histogram = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    series.iter().try_for_each(|server| server.histogram(&mut histogram, &of))
}

fn encode_clients(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
    let sum = |counter: &dyn Fn(usize) -> u64| (0..shared.clients.len()).map(counter).sum::<u64>();
    let opened = sum(&|thread| shared.clients[thread].opened.get());
    let closed = sum(&|thread| shared.clients[thread].closed.get());
    let mut accepted = encoder.encode_descriptor("connections", "Client connections", None, MetricType::Counter)?;
    count(&mut accepted, opened)?;
    let help = "Client connections that are open";
    let mut open = encoder.encode_descriptor("open_connections", help, None, MetricType::Gauge)?;
    open.encode_gauge(&opened.saturating_sub(closed))?;
    let help = "Client connections that are open and have had nothing to say for a while";
    let mut parked = encoder.encode_descriptor("parked_connections", help, None, MetricType::Gauge)?;
    parked.encode_gauge(&sum(&|thread| shared.clients[thread].parked.get()))?;
    let help = "Responses that broke off at one server and were gone on with at another";
    let mut resumed = encoder.encode_descriptor("resumed", help, None, MetricType::Counter)?;
    count(&mut resumed, sum(&|thread| shared.clients[thread].resumed.get()))?;
    let help = "Connections closed for want of a PROXY header";
    let mut headless = encoder.encode_descriptor("headless_connections", help, None, MetricType::Counter)?;
    for (kind, reason) in NoHeader::KINDS.into_iter().enumerate() {
        let number = sum(&|thread| shared.clients[thread].headless[kind].get());
        count(&mut headless.encode_family(&[("reason", reason)])?, number)?;
    }
    let help = "Client connections that spoke HTTP/2";
    let mut http2 = encoder.encode_descriptor("http2_connections", help, None, MetricType::Counter)?;
    count(&mut http2, sum(&|thread| shared.clients[thread].http2.get()))?;
    let help = "HTTP/2 connections ended for frames that ask too much";
    let mut floods = encoder.encode_descriptor("http2_floods", help, None, MetricType::Counter)?;
    count(&mut floods, sum(&|thread| shared.clients[thread].floods.get()))?;
    let mut requests = encoder.encode_descriptor("requests", "Requests of clients", None, MetricType::Counter)?;
    for version in Version::ALL {
        let labels = [("version", version.number())];
        let number = sum(&|thread| shared.clients[thread].requests[version as usize].get());
        count(&mut requests.encode_family(&labels)?, number)?;
    }
    let help = "Requests that the dispatcher answered itself";
    let mut refused = encoder.encode_descriptor("refused", help, None, MetricType::Counter)?;
    for refusal in Refusal::ALL {
        let labels = [("status", refusal.status().as_str().to_owned()), ("reason", refusal.name().to_owned())];
        let number = sum(&|thread| shared.clients[thread].refused[refusal as usize].get());
        count(&mut refused.encode_family(&labels)?, number)?;
    }
    let help = "Requests that a log does not tell of, for its target was too slow or failed";
    let mut lost = encoder.encode_descriptor("log_lost", help, None, MetricType::Counter)?;
    for (name, lines) in &shared.lost {
        count(&mut lost.encode_family(&[("log", *name)])?, lines.lines())?;
    }
    encode_limits(encoder, shared, sum)
}

fn encode_limits(
    encoder: &mut DescriptorEncoder<'_>,
    shared: &Shared,
    sum: impl Fn(&dyn Fn(usize) -> u64) -> u64,
) -> fmt::Result {
    let tally = |thread: usize| &shared.clients[thread];
    let help = "Client connections that had to wait for a place";
    let mut delayed = encoder.encode_descriptor("delayed_connections", help, None, MetricType::Counter)?;
    count(&mut delayed, sum(&|thread| tally(thread).delayed.get()))?;
    let help = "Client connections that were closed at once, since their address has too many";
    let mut crowded = encoder.encode_descriptor("crowded_connections", help, None, MetricType::Counter)?;
    count(&mut crowded, sum(&|thread| tally(thread).crowded.get()))?;
    let help = "Waits of client connections that were long enough";
    let mut timeouts = encoder.encode_descriptor("timeouts", help, None, MetricType::Counter)?;
    for wait in Wait::ALL {
        let number = sum(&|thread| tally(thread).timeouts[wait as usize].get());
        count(&mut timeouts.encode_family(&[("wait", wait.name())])?, number)?;
    }
    let help = "Requests that did not go to another server, since too many had";
    let mut unretried = encoder.encode_descriptor("unretried", help, None, MetricType::Counter)?;
    count(&mut unretried, sum(&|thread| tally(thread).unretried.get()))?;
    let help = "Memory that messages under way hold, and that threads have at hand";
    let mut memory = encoder.encode_descriptor("memory", help, Some(&Unit::Bytes), MetricType::Gauge)?;
    memory.encode_gauge(&(shared.admission.memory.used() as u64))
}

fn encode_dispatcher(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
    let (applied, refused, good) = {
        let reloads = shared.reloads.lock().unwrap_or_else(PoisonError::into_inner);
        let bad = |last: &Reload| matches!(last.outcome, ReloadOutcome::Refused { .. });
        (reloads.applied, reloads.refused, !reloads.last.as_ref().is_some_and(bad))
    };
    let help = "Reloads of the configuration";
    let mut reloads = encoder.encode_descriptor("reloads", help, None, MetricType::Counter)?;
    for (outcome, number) in [("applied", applied), ("refused", refused)] {
        count(&mut reloads.encode_family(&[("outcome", outcome)])?, number)?;
    }
    let help = "Whether the configuration that was last read holds";
    let mut current = encoder.encode_descriptor("config_is_current", help, None, MetricType::Gauge)?;
    current.encode_gauge(&u32::from(good))?;
    let help = "The first 52 bits of the routing table's digest, as a number: equal tables, equal numbers";
    let mut digest = encoder.encode_descriptor("table_digest", help, None, MetricType::Gauge)?;
    let routes = shared.routes.load();
    let table = routes.table.as_ref().and_then(|table| u64::from_str_radix(table.digest().get(..13)?, 16).ok());
    // A number of so many bits is exact as the floating-point number that Prometheus makes of it.
    digest.encode_gauge(&table.unwrap_or(0))
}

fn encode_tls(encoder: &mut DescriptorEncoder<'_>, shared: &Shared) -> fmt::Result {
    let Some(acceptor) = &shared.tls.acceptor else { return Ok(()) };
    let sum = |counter: &dyn Fn(&Handshakes) -> u64| {
        shared.clients.iter().map(|tally| counter(&tally.handshakes)).sum::<u64>()
    };
    let mut made = encoder.encode_descriptor("tls_handshakes", "Handshakes with clients", None, MetricType::Counter)?;
    for version in TlsVersion::ALL {
        for resumed in [false, true] {
            let labels = [("version", version.name()), ("resumed", if resumed { "true" } else { "false" })];
            count(&mut made.encode_family(&labels)?, sum(&|tally| tally.made_so_far(version, resumed)))?;
        }
    }
    let help = "Handshakes with clients that came to nothing";
    let mut failed = encoder.encode_descriptor("tls_failures", help, None, MetricType::Counter)?;
    for fault in Fault::ALL {
        count(&mut failed.encode_family(&[("kind", fault.name())])?, sum(&|tally| tally.failed_so_far(fault)))?;
    }
    let help = "When a certificate expires, in Unix time";
    let mut expiry =
        encoder.encode_descriptor("tls_certificate_expiry", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    for facts in &acceptor.front().certificates {
        let seconds = facts.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let labels = [("certificate", facts.path.display().to_string())];
        expiry.encode_family(&labels)?.encode_gauge(&seconds)?;
    }
    Ok(())
}

fn count(encoder: &mut MetricEncoder<'_>, value: u64) -> fmt::Result {
    encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None)
}

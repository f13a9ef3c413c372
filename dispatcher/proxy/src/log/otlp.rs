//! Spans for an OpenTelemetry collector: OTLP 1 over HTTP, in JSON, with the names of the semantic conventions for HTTP
//! servers.

use super::fields::append_number;
use super::pipe::{Log, Lost, Report};
use super::record::{End, Record};
use super::{Formatter, escape, stamp::Stamp};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::{Authority, Scheme, Uri};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{io, time::Duration};
use tokio::{net::TcpStream, runtime::Builder, time::timeout};

/// How long the collector may take for a batch.
const PATIENCE: Duration = Duration::from_secs(10);

const HEAD: &[u8] = concat!(
    r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"vibra"}}]},"#,
    r#""scopeSpans":[{"scope":{"name":""#,
    env!("CARGO_PKG_NAME"),
    r#"","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""},"spans":["#
)
.as_bytes();
const TAIL: &[u8] = b"]}]}]}";
/// What follows each span.
const SEPARATOR: &[u8] = b",\n";

/// The methods that the semantic conventions know.
const METHODS: [&[u8]; 10] =
    [b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"TRACE", b"QUERY"];

impl Log {
    /// Sends a span for each request whose trace is recorded to an OpenTelemetry collector: `http://127.0.0.1:4318`.
    /// Without a path spans go to `/v1/traces`. The collector is best a local one: TLS is not spoken to it. What it does
    /// not take is dropped and counted.
    ///
    /// # Errors
    /// Where the URL is not one of a collector, or the system refuses a thread.
    pub fn export(collector: &Uri) -> io::Result<Self> {
        let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "a collector's URL begins with http://HOST");
        let authority = collector.authority().filter(|_| collector.scheme() == Some(&Scheme::HTTP));
        let authority = authority.ok_or_else(invalid)?.clone();
        let path = match collector.path_and_query().map_or("/", |path| path.as_str()) {
            "/" => "/v1/traces".to_owned(),
            path => path.to_owned(),
        };
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut report = Report::new(collector.to_string());
        let formatter = Formatter { append, stamp: Stamp::default() };
        Log::start("span-export", formatter, move |spans, lost: &Lost| {
            let sent = runtime.block_on(async { timeout(PATIENCE, post(&authority, &path, body(spans))).await });
            let outcome = sent.unwrap_or(Err(ExportError::Timeout));
            if outcome.is_err() {
                lost.add(spans);
            }
            report.outcome(outcome, lost);
        })
    }
}

/// Why a collector did not take spans.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("no HTTP response: {0}")]
    Http(#[from] hyper::Error),
    #[error("its URL makes no request: {0}")]
    Request(#[from] http::Error),
    #[error("status {0}")]
    Status(StatusCode),
    #[error("no answer within {PATIENCE:?}")]
    Timeout,
}

/// Spans as a collector wants them.
fn body(spans: &[u8]) -> Bytes {
    [HEAD, spans.strip_suffix(SEPARATOR).unwrap_or(spans), TAIL].concat().into()
}

async fn post(authority: &Authority, path: &str, body: Bytes) -> Result<(), ExportError> {
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::post(path).header(HOST, authority.as_str()).header(CONTENT_TYPE, "application/json");
    let request = request.body(Full::new(body))?;
    let response = async {
        tokio::select! {
            response = sender.send_request(request) => response,
            // Ends first only where there is no response, which the other side then learns of.
            Err(error) = connection => Err(error),
        }
    };
    match response.await?.status() {
        status if status.is_success() => Ok(()),
        status => Err(ExportError::Status(status)),
    }
}

/// Appends the span of `record`, if it is to be recorded.
fn append(record: &Record<'_>, _: &Stamp, out: &mut Vec<u8>) {
    let Some(hop) = record.trace.filter(|hop| hop.is_sampled()) else { return };
    out.extend_from_slice(b"{\"traceId\":\"");
    out.extend_from_slice(&hop.trace.digits());
    out.extend_from_slice(b"\",\"spanId\":\"");
    out.extend_from_slice(&hop.span.digits());
    if let Some(parent) = hop.parent {
        out.extend_from_slice(b"\",\"parentSpanId\":\"");
        out.extend_from_slice(&parent.digits());
    }
    let known = record.request.map(|line| line.method).filter(|method| METHODS.contains(method));
    out.extend_from_slice(b"\",\"kind\":2,\"name\":\"");
    out.extend_from_slice(known.unwrap_or(b"HTTP"));
    out.extend_from_slice(b"\",\"startTimeUnixNano\":\"");
    append_number(record.time.0.saturating_mul(1000), out);
    out.extend_from_slice(b"\",\"endTimeUnixNano\":\"");
    let end = record.time.0.saturating_add(record.phases.total.unwrap_or(0));
    append_number(end.saturating_mul(1000), out);
    out.extend_from_slice(b"\",\"attributes\":[");
    append_attributes(record, known, out);
    let failed = record.end != End::Complete || record.status.is_some_and(|status| status >= 500);
    out.extend_from_slice(if failed { b"],\"status\":{\"code\":2}}" } else { b"]}" });
    out.extend_from_slice(SEPARATOR);
}

fn append_attributes(record: &Record<'_>, method: Option<&[u8]>, out: &mut Vec<u8>) {
    text("client.address", record.client.as_bytes(), out);
    if let Some(line) = record.request {
        text("http.request.method", method.unwrap_or(b"_OTHER"), out);
        if method.is_none() {
            text("http.request.method_original", line.method, out);
        }
        let (path, query) = match memchr::memchr(b'?', line.target) {
            Some(at) => (&line.target[..at], Some(&line.target[at + 1..])),
            None => (line.target, None),
        };
        text("url.path", path, out);
        if let Some(query) = query {
            text("url.query", query, out);
        }
        text("network.protocol.version", line.version.trim_start_matches("HTTP/").as_bytes(), out);
    }
    text("url.scheme", if record.tls.is_some() { b"https" } else { b"http" }, out);
    if let Some(host) = record.host {
        text("server.address", host, out);
    }
    if let Some(agent) = record.user_agent {
        text("user_agent.original", agent, out);
    }
    if let Some(status) = record.status {
        number("http.response.status_code", status.into(), out);
    }
    number("http.request.body.size", record.received, out);
    number("http.response.body.size", record.sent, out);
    match record.end {
        End::Complete => {}
        End::Refused(reason) => text("error.type", reason.as_bytes(), out),
        end => text("error.type", end.name().as_bytes(), out),
    }
    if let Some(id) = record.id {
        text("vibra.id", id, out);
    }
    if let Some(server) = record.server {
        text("vibra.server", server.as_str().as_bytes(), out);
    }
    number("vibra.attempts", record.attempts.into(), out);
    let phases = &record.phases;
    for (key, micros) in [
        ("vibra.queue_us", phases.queue),
        ("vibra.connect_us", phases.connect),
        ("vibra.first_byte_us", phases.first_byte),
    ] {
        if let Some(micros) = micros {
            number(key, micros, out);
        }
    }
}

fn text(key: &str, text: &[u8], out: &mut Vec<u8>) {
    attribute(key, b"stringValue", out);
    escape::json(text, out);
    out.extend_from_slice(b"\"}}");
}

fn number(key: &str, number: u64, out: &mut Vec<u8>) {
    attribute(key, b"intValue", out);
    append_number(number, out);
    out.extend_from_slice(b"\"}}");
}

/// Begins an attribute, up to its value.
fn attribute(key: &str, kind: &[u8], out: &mut Vec<u8>) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
    out.extend_from_slice(b"{\"key\":\"");
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"\",\"value\":{\"");
    out.extend_from_slice(kind);
    out.extend_from_slice(b"\":\"");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Ids;
    use crate::log::{Phases, RequestLine};
    use crate::trace::{Hop, Sampling};
    use serde_json::{Value, json};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;
    use std::thread;
    use vibra_model::Timestamp;

    const CALLER: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn hop(caller: &[u8]) -> Hop {
        Hop::join([caller], Sampling::new(0.0), &mut Ids::new())
    }

    fn record(hop: Hop) -> Record<'static> {
        Record {
            request: Some(RequestLine { method: b"GET", target: b"/a\"?b\n", version: "HTTP/1.1" }),
            status: Some(200),
            sent: 10,
            phases: Phases { total: Some(1500), ..Phases::default() },
            trace: Some(hop),
            ..Record::new("192.0.2.7", Timestamp(1_000_000))
        }
    }

    fn spans(records: &[Record<'_>]) -> Vec<Value> {
        let mut out = Vec::new();
        for record in records {
            append(record, &Stamp::default(), &mut out);
        }
        let body: Value = serde_json::from_slice(&body(&out)).unwrap();
        body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    }

    fn attribute_of(span: &Value, key: &str) -> Value {
        let attributes = span["attributes"].as_array().unwrap();
        attributes.iter().find(|attribute| attribute["key"] == key).map_or(Value::Null, |found| found["value"].clone())
    }

    #[test]
    fn a_recorded_request_is_a_span_of_its_trace() {
        let hop = hop(CALLER);
        let spans = spans(&[record(hop), record(hop)]);
        assert_eq!(spans.len(), 2);
        let span = &spans[1];
        assert_eq!(span["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span["spanId"].as_str().unwrap().as_bytes(), hop.span.digits());
        assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!((&span["name"], &span["kind"]), (&json!("GET"), &json!(2)));
        assert_eq!(
            (&span["startTimeUnixNano"], &span["endTimeUnixNano"]),
            (&json!("1000000000"), &json!("1001500000"))
        );
        assert_eq!(attribute_of(span, "url.path"), json!({"stringValue": "/a\""}));
        assert_eq!(attribute_of(span, "url.query"), json!({"stringValue": "b\n"}));
        assert_eq!(attribute_of(span, "http.response.status_code"), json!({"intValue": "200"}));
        assert_eq!(attribute_of(span, "error.type"), Value::Null);
        assert_eq!(span["status"], Value::Null);
    }

    #[test]
    fn what_is_not_recorded_has_no_span() {
        let unsampled = hop(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00");
        assert!(spans(&[record(unsampled), Record { trace: None, ..record(unsampled) }]).is_empty());
    }

    #[test]
    fn failures_are_errors() {
        let base = record(hop(CALLER));
        let spans = spans(&[
            Record { status: Some(503), end: End::Refused("no_server"), ..base },
            Record { end: End::ClientGone, ..base },
            Record { status: Some(500), ..base },
        ]);
        for (span, error) in
            spans.iter().zip([json!({"stringValue": "no_server"}), json!({"stringValue": "client-gone"}), Value::Null])
        {
            assert_eq!(span["status"]["code"], 2);
            assert_eq!(attribute_of(span, "error.type"), error);
        }
    }

    #[test]
    fn methods_do_not_multiply_names() {
        let request = Some(RequestLine { method: b"BREW", target: b"/", version: "HTTP/1.1" });
        let span = &spans(&[Record { request, ..record(hop(CALLER)) }])[0];
        assert_eq!(span["name"], "HTTP");
        assert_eq!(attribute_of(span, "http.request.method"), json!({"stringValue": "_OTHER"}));
        assert_eq!(attribute_of(span, "http.request.method_original"), json!({"stringValue": "BREW"}));
    }

    /// A collector that takes one batch and answers with `status`.
    fn collector(status: &'static str) -> (Uri, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (received, requests) = mpsc::channel();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(TAIL) {
                let mut bytes = [0; 4096];
                let count = stream.read(&mut bytes).unwrap();
                assert_ne!(count, 0, "the request has ended early");
                request.extend_from_slice(&bytes[..count]);
            }
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            received.send(String::from_utf8(request).unwrap()).unwrap();
        };
        thread::spawn(serve);
        (url, requests)
    }

    #[test]
    fn spans_come_to_the_collector() {
        for (status, lost) in [("200 OK", 0), ("503 Service Unavailable", 1)] {
            let (url, collector) = collector(status);
            let log = Log::export(&url).unwrap();
            let lost_spans = log.lost();
            log.sink().log(&record(hop(CALLER)));
            let runtime = Builder::new_current_thread().enable_time().build().unwrap();
            assert!(runtime.block_on(log.finish(PATIENCE)));
            let request = collector.recv_timeout(PATIENCE).unwrap();
            assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{request}");
            assert!(request.contains("content-type: application/json\r\n"), "{request}");
            assert_eq!(lost_spans.lines(), lost);
        }
    }

    #[test]
    fn only_plain_http_is_spoken() {
        for url in ["https://collector.example", "/v1/traces", "ftp://collector.example"] {
            assert!(Log::export(&url.parse().unwrap()).is_err(), "{url}");
        }
    }
}

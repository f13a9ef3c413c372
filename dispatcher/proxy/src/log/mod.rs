//! The access log: one line for each request, in one of two formats.
//!
//! It is there so that an operator can tell afterwards what became of any request: which server answered it, which
//! were skipped and why, where its time went and how it ended. A [`Formatter`] appends the line of a [`Record`] to a
//! buffer; an [`Log`] brings the buffers of all threads to a file or to standard output, without ever making a
//! thread that serves requests wait.
//!
//! What comes from the network cannot forge or break a line: a line is printable ASCII and one newline at its end,
//! whatever a request holds.
//!
//! # Combined
//!
//! Apache's and nginx's combined format, and further fields behind it, which readers of that format pass over:
//!
//! ```text
//! CLIENT - - [TIME] "METHOD TARGET VERSION" STATUS SENT "REFERER" "USER-AGENT" KEY=VALUE …
//! ```
//!
//! - TIME is when the request began, in UTC: `21/Nov/2026:11:25:03 +0000`. SENT are the bytes of the body that were
//!   sent. What is not known, or was not sent by the client, is `-`.
//! - In the four quoted fields and in quoted values `"`, `\` and every byte that is not printable ASCII are written as
//!   `\xHH`, as nginx does. Of a field of more than 8192 bytes the first 8192 are written, and `...`.
//! - The keys come in this order; one whose value is not known is left out. Values of `host` and `id` are quoted,
//!   others need no quotes.
//!
//! | key | value |
//! | --- | --- |
//! | `host` | the host that was asked |
//! | `id` | the request's id |
//! | `server` | the server that answered, or was asked when the request ended |
//! | `skipped` | servers that were passed over before it, each with its reason: `vm2:connect,vm3:full` |
//! | `attempts` | how many servers were asked |
//! | `queue_us`, `connect_us`, `first_byte_us`, `total_us` | [phases](Phases), in microseconds |
//! | `received` | bytes of the request's body |
//! | `end` | `complete`, `client-gone`, `server-broke`, `refused`, or `cut-off`: the dispatcher stopped |
//! | `reason` | why it was refused |
//! | `tls` | the version of TLS |
//! | `trace`, `span`, `parent` | the ids of the trace that it belongs to, of the dispatcher's span and of its caller's |
//!
//! # JSON
//!
//! One object a line, with `time` (RFC 3339, UTC, microseconds), `client`, `method`, `target`, `version`, `status`,
//! `sent`, `referer`, `user_agent` and then the keys of above. What is not known is left out. `skipped` is a list of
//! objects: `[{"server":"vm2","reason":"connect"}]`. Characters that are not printable ASCII are written as `\uHHHH`;
//! a byte sequence that is not UTF-8 becomes `\ufffd`.
//!
//! # Spans
//!
//! With the feature `otel`, `Log::export` sends requests as spans to an OpenTelemetry collector.
//!
//! ```
//! use vibra_model::Timestamp;
//! use vibra_proxy::log::{Format, Formatter, Record, RequestLine};
//!
//! let record = Record {
//!     request: Some(RequestLine { method: b"GET", target: b"/\"\n", version: "HTTP/1.1" }),
//!     status: Some(200),
//!     sent: 12,
//!     ..Record::new("192.0.2.7", Timestamp(1_795_260_303_000_000))
//! };
//! let mut line = Vec::new();
//! Formatter::new(Format::Combined).append(&record, &mut line);
//! let start = r#"192.0.2.7 - - [21/Nov/2026:11:25:03 +0000] "GET /\x22\x0A HTTP/1.1" 200 12 "-" "-" "#;
//! assert!(String::from_utf8(line).unwrap().starts_with(start));
//! ```

mod combined;
mod escape;
mod fields;
mod file;
mod json;
#[cfg(feature = "otel")]
mod otlp;
mod pipe;
mod record;
mod sink;
mod stamp;

pub use crate::trace::{Hop, SpanId, TraceId};
pub use file::Target;
pub use pipe::Log;
pub(crate) use pipe::Lost;
pub use record::{End, Phases, Record, RequestLine, Skipped};
pub use sink::Sink;

use stamp::Stamp;

/// How lines are written. The [module](self) describes the formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Apache's and nginx's combined format, with further fields at its end.
    #[default]
    Combined,
    /// One JSON object a line.
    Json,
}

/// Writes records as lines. Each thread has its own: it remembers how the current second is written.
#[derive(Clone, Debug)]
pub struct Formatter {
    append: fn(&Record<'_>, &Stamp, &mut Vec<u8>),
    stamp: Stamp,
}

impl Formatter {
    /// A formatter for lines of `format`.
    pub fn new(format: Format) -> Self {
        let append = match format {
            Format::Combined => combined::append,
            Format::Json => json::append,
        };
        Formatter { append, stamp: Stamp::default() }
    }

    /// Appends the line of `record`, with its newline, to `out`. Allocates nothing but what `out` needs to grow.
    pub fn append(&mut self, record: &Record<'_>, out: &mut Vec<u8>) {
        (self.append)(record, self.stamp.at(record.time), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};
    use serde_json::json;
    use vibra_model::{Timestamp, VmId};

    fn line(format: Format, record: &Record<'_>) -> String {
        let mut line = Vec::new();
        Formatter::new(format).append(record, &mut line);
        String::from_utf8(line).unwrap()
    }

    fn id(name: &str) -> VmId {
        name.parse().unwrap()
    }

    /// Hands `with` a record that has everything.
    fn full<T>(with: impl FnOnce(&Record<'_>) -> T) -> T {
        let [vm1, vm2, vm3] = ["vm1", "vm2", "vm3"].map(id);
        with(&Record {
            client: "2001:db8::7",
            time: Timestamp(1_795_260_303_000_042),
            request: Some(RequestLine { method: b"GET", target: b"/a?b=c", version: "HTTP/1.1" }),
            status: Some(206),
            sent: 1024,
            received: 3,
            referer: Some(b"https://shop.example/"),
            user_agent: Some(b"curl/8"),
            host: Some(b"shop.example:8080"),
            id: Some(b"00112233445566778899aabbccddeeff"),
            server: Some(&vm1),
            skipped: &[Skipped { server: &vm2, reason: "connect" }, Skipped { server: &vm3, reason: "full" }],
            attempts: 2,
            phases: Phases { queue: Some(0), connect: Some(210), first_byte: Some(1530), total: Some(1822) },
            end: End::Refused("overload"),
            tls: Some("TLSv1.3"),
            trace: Some(Hop::new(TraceId::new(0x4bf9).unwrap(), SpanId::new(0x00f0).unwrap(), SpanId::new(0x0a))),
        })
    }

    #[test]
    fn a_combined_line_has_the_known_fields_first() {
        let expected = concat!(
            r#"2001:db8::7 - - [21/Nov/2026:11:25:03 +0000] "GET /a?b=c HTTP/1.1" 206 1024 "#,
            r#""https://shop.example/" "curl/8" host="shop.example:8080" id="00112233445566778899aabbccddeeff" "#,
            "server=vm1 skipped=vm2:connect,vm3:full attempts=2 queue_us=0 connect_us=210 first_byte_us=1530 ",
            "total_us=1822 received=3 end=refused reason=overload tls=TLSv1.3 ",
            "trace=00000000000000000000000000004bf9 span=00000000000000f0 parent=000000000000000a\n",
        );
        assert_eq!(full(|record| line(Format::Combined, record)), expected);
    }

    #[test]
    fn a_json_line_is_one_object() {
        let line = full(|record| line(Format::Json, record));
        assert!(line.ends_with("}\n"));
        let expected = json!({
            "time": "2026-11-21T11:25:03.000042Z", "client": "2001:db8::7",
            "method": "GET", "target": "/a?b=c", "version": "HTTP/1.1", "status": 206, "sent": 1024,
            "referer": "https://shop.example/", "user_agent": "curl/8", "host": "shop.example:8080",
            "id": "00112233445566778899aabbccddeeff", "server": "vm1",
            "skipped": [{"server": "vm2", "reason": "connect"}, {"server": "vm3", "reason": "full"}],
            "attempts": 2, "queue_us": 0, "connect_us": 210, "first_byte_us": 1530, "total_us": 1822,
            "received": 3, "end": "refused", "reason": "overload", "tls": "TLSv1.3",
            "trace": "00000000000000000000000000004bf9", "span": "00000000000000f0",
            "parent": "000000000000000a",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).unwrap(), expected);
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let record = Record { end: End::ClientGone, ..Record::new("192.0.2.7", Timestamp(0)) };
        assert_eq!(
            line(Format::Combined, &record),
            "192.0.2.7 - - [01/Jan/1970:00:00:00 +0000] \"-\" - 0 \"-\" \"-\" attempts=0 received=0 end=client-gone\n"
        );
        let expected = json!({
            "time": "1970-01-01T00:00:00.000000Z", "client": "192.0.2.7",
            "sent": 0, "received": 0, "attempts": 0, "end": "client-gone",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line(Format::Json, &record)).unwrap(), expected);
    }

    #[test]
    fn a_formatter_goes_on_to_the_next_second() {
        let mut formatter = Formatter::new(Format::Combined);
        let mut lines = Vec::new();
        for second in [59, 59, 60] {
            formatter.append(&Record::new("-", Timestamp(second * 1_000_000)), &mut lines);
        }
        let lines = String::from_utf8(lines).unwrap();
        let times: Vec<_> = lines.lines().map(|line| &line[19..27]).collect();
        assert_eq!(times, ["00:00:59", "00:00:59", "00:01:00"]);
    }

    /// The parts of a combined line: words, with what is in brackets or quotes as one.
    fn parts(line: &str) -> Vec<&str> {
        let mut parts = Vec::new();
        let mut rest = line.strip_suffix('\n').unwrap();
        while !rest.is_empty() {
            let quote = rest.find('"').filter(|&at| !rest[..at].contains(' '));
            let end = match (quote, rest.starts_with('[')) {
                (Some(at), _) => at + 2 + rest[at + 1..].find('"').unwrap(),
                (None, true) => rest.find(']').unwrap() + 1,
                (None, false) => rest.find(' ').unwrap_or(rest.len()),
            };
            parts.push(&rest[..end]);
            rest = rest[end..].strip_prefix(' ').unwrap_or(&rest[end..]);
        }
        parts
    }

    proptest! {
        /// Whatever clients send, a log has one line a request, with the fields that it should have.
        #[test]
        fn no_line_is_forged(texts in vec(vec(any::<u8>(), 0..40), 6)) {
            let text = |i: usize| texts[i].as_slice();
            let record = Record {
                request: Some(RequestLine { method: text(0), target: text(1), version: "HTTP/1.0" }),
                status: Some(200),
                referer: Some(text(2)),
                user_agent: Some(text(3)),
                host: Some(text(4)),
                id: Some(text(5)),
                ..Record::new("192.0.2.7", Timestamp(0))
            };
            let combined = line(Format::Combined, &record);
            prop_assert!(combined[..combined.len() - 1].bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let parts = parts(&combined);
            prop_assert_eq!(parts.len(), 14, "{:?}", parts);
            prop_assert!(parts[9].starts_with("host=\"") && parts[10].starts_with("id=\""));
            prop_assert_eq!(&parts[11..], ["attempts=0", "received=0", "end=complete"]);

            let json = line(Format::Json, &record);
            prop_assert!(json[..json.len() - 1].bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            for (key, i) in [("method", 0), ("target", 1), ("referer", 2), ("user_agent", 3), ("host", 4), ("id", 5)] {
                prop_assert_eq!(read[key].as_str().unwrap(), String::from_utf8_lossy(text(i)));
            }
            prop_assert_eq!(read.as_object().unwrap().len(), 14);
        }
    }
}

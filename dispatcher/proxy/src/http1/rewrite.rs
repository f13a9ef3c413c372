//! What a gateway changes in heads (RFC 9110, section 7.6; RFC 9112, sections 3.2 and 6).

use super::framing::Length;
use super::head::{Fields, Name, RequestHead, ResponseHead};
use crate::forwarded::{self, Claims, Hop};
use crate::peers::Peers;
use crate::resume::Rest;
use crate::trace;

/// What a server gets to know beside what the client said.
#[derive(Debug)]
pub(crate) struct Onward<'a> {
    /// Where the request came from.
    pub(crate) hop: Hop<'a>,
    pub(crate) peers: &'a Peers,
    /// The server's address, as host where the client named none, which HTTP/1.1 wants.
    pub(crate) endpoint: &'a str,
    pub(crate) marks: Marks<'a>,
    /// With it only that of the representation is asked for.
    pub(crate) rest: Option<Rest<'a>>,
}

/// By what a request can be told from others.
#[derive(Debug)]
pub(crate) struct Marks<'a> {
    pub(crate) id: &'a [u8],
    /// When its first byte came, in microseconds since 1970.
    pub(crate) start: u64,
    /// Its place in a trace; `None` where the dispatcher takes no part in traces.
    pub(crate) trace: Option<trace::Hop>,
}

impl Marks<'_> {
    fn write(&self, head: &RequestHead, out: &mut Vec<u8>) {
        field("x-request-id", self.id, out);
        out.extend_from_slice(b"x-request-start: t=");
        out.extend_from_slice(itoa::Buffer::new().format(self.start).as_bytes());
        out.extend_from_slice(b"\r\n");
        if let Some(hop) = &self.trace {
            field("traceparent", &hop.traceparent(), out);
            if hop.keeps(head.fields.all(Name::TraceState)) {
                head.fields.copy_to(out, |name| name == Name::TraceState);
            }
        }
    }
}

/// What the dispatcher adds to a response.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    /// The request's id.
    pub(crate) id: &'a [u8],
    /// Why the request went where it went, if that was asked for.
    pub(crate) explanation: Option<String>,
}

impl Own<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        field("x-request-id", self.id, out);
        if let Some(explanation) = &self.explanation {
            field("x-vibra-explain", explanation.as_bytes(), out);
        }
    }
}

/// Writes the head of a request as a server gets it.
pub(crate) fn request(head: &RequestHead, onward: &Onward<'_>, out: &mut Vec<u8>) {
    let Onward { hop, peers, endpoint, marks, rest } = onward;
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path().as_bytes());
    out.extend_from_slice(head.query().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(head.host().unwrap_or(endpoint.as_bytes()));
    out.extend_from_slice(b"\r\n");
    let expects = head.expects_continue && head.length != Length::None;
    let forwards = head.max_forwards();
    head.fields.copy_to(out, |name| match name {
        Name::Host | Name::Via | Name::XRequestId | Name::XRequestStart | Name::XVibraExplain => false,
        Name::TraceParent | Name::TraceState => marks.trace.is_none(),
        Name::Forwarded | Name::XForwardedFor | Name::XForwardedHost | Name::XForwardedProto => false,
        Name::Expect => expects,
        Name::MaxForwards => forwards.is_none(),
        // The conditions held for the representation that is gone on with.
        Name::Conditional | Name::IfRange => rest.is_none(),
        Name::ContentLength => head.length != Length::Chunked,
        name => !name.is_hop_by_hop(),
    });
    if head.length == Length::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if let Some(left) = forwards {
        field("max-forwards", itoa::Buffer::new().format(left.saturating_sub(1)).as_bytes(), out);
    }
    if let Some(rest) = rest {
        rest.ask(out);
    }
    match (head.upgrades, head.takes_trailers) {
        (true, _) => {
            head.fields.copy_to(out, |name| name == Name::Upgrade);
            out.extend_from_slice(b"connection: upgrade\r\n");
        }
        (false, true) => out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n"),
        (false, false) => {}
    }
    forwarded::write(peers.forwarding, hop, &claims(&head.fields), out);
    peers.via.write(head.fields.all(Name::Via), head.version.number(), out);
    marks.write(head, out);
    out.extend_from_slice(b"\r\n");
}

/// What a request says of where it came from.
pub(crate) fn claims(fields: &Fields) -> Claims<impl Iterator<Item = &[u8]> + Clone> {
    let values = |name| fields.all(name);
    Claims {
        x_for: values(Name::XForwardedFor),
        x_proto: values(Name::XForwardedProto),
        x_host: values(Name::XForwardedHost),
        forwarded: values(Name::Forwarded),
    }
}

/// What a client's connection does after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    /// It stays open, which goes without saying.
    Open,
    /// It stays open, which an HTTP/1.0 client must be told.
    OpenForOld,
    /// It closes.
    Close,
}

/// Writes the status line and fields of a response as a client gets it, its empty line included. `date` is what the
/// time is, for servers that do not say.
pub(crate) fn response(
    head: &ResponseHead,
    length: Length,
    after: After,
    date: &[u8],
    own: &Own<'_>,
    out: &mut Vec<u8>,
) {
    status_line(head.status.as_str(), head.reason(), out);
    // What has no body by its status has no length either, but for 304, which tells of another response (RFC 9110, 8.6).
    let no_length = head.status.is_informational() || head.status == http::StatusCode::NO_CONTENT;
    let coded = length == Length::Chunked || head.length == Length::Chunked;
    head.fields.copy_to(out, |name| match name {
        Name::ContentLength => !coded && !no_length,
        Name::XRequestId | Name::XVibraExplain => false,
        name => !name.is_hop_by_hop(),
    });
    own.write(out);
    if head.fields.get(Name::Date).is_none() {
        field("date", date, out);
    }
    if length == Length::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    connection(after, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes an interim response as a client gets it (RFC 9110, section 15.2).
pub(crate) fn interim(head: &ResponseHead, out: &mut Vec<u8>) {
    status_line(head.status.as_str(), head.reason(), out);
    head.fields.copy_to(out, |name| name != Name::ContentLength && !name.is_hop_by_hop());
    out.extend_from_slice(b"\r\n");
}

/// Writes a response that hands the connection over to another protocol (RFC 9110, section 15.2.2).
pub(crate) fn switching(head: &ResponseHead, out: &mut Vec<u8>) {
    status_line(head.status.as_str(), head.reason(), out);
    head.fields.copy_to(out, |name| name == Name::Upgrade || name != Name::ContentLength && !name.is_hop_by_hop());
    out.extend_from_slice(b"connection: upgrade\r\n\r\n");
}

/// Writes the trailer section of a body, its empty line included. What frames or routes a message, or controls it
/// otherwise, is no trailer (RFC 9110, section 6.5.1).
pub(crate) fn trailers(fields: &Fields, out: &mut Vec<u8>) {
    fields.copy_to(out, |name| matches!(name, Name::Other | Name::ETag | Name::Date));
    out.extend_from_slice(b"\r\n");
}

/// Writes a response of the dispatcher's own: its head and its text. `retry_after` is in seconds.
#[expect(clippy::too_many_arguments, reason = "each is a part of the response")]
pub(crate) fn own(
    status: http::StatusCode,
    text: &str,
    retry_after: Option<u32>,
    bodiless: bool,
    after: After,
    date: &[u8],
    own: &Own<'_>,
    out: &mut Vec<u8>,
) {
    status_line(status.as_str(), status.canonical_reason().unwrap_or_default().as_bytes(), out);
    field("date", date, out);
    own.write(out);
    field("content-type", b"text/plain; charset=utf-8", out);
    field("content-length", text.len().to_string().as_bytes(), out);
    if let Some(seconds) = retry_after {
        field("retry-after", seconds.to_string().as_bytes(), out);
    }
    connection(after, out);
    out.extend_from_slice(b"\r\n");
    if !bodiless {
        out.extend_from_slice(text.as_bytes());
    }
}

fn status_line(code: &str, reason: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(code.as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

fn field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn connection(after: After, out: &mut Vec<u8>) {
    match after {
        After::Open => {}
        After::OpenForOld => out.extend_from_slice(b"connection: keep-alive\r\n"),
        After::Close => out.extend_from_slice(b"connection: close\r\n"),
    }
}

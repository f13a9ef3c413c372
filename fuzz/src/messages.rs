//! HTTP/1.1 messages: what goes on is what came, to every reader.

use crate::forwarded::Hop;
use crate::http1::chunked::{Chunked, Piece};
use crate::http1::head::{self, Rules};
use crate::http1::rewrite::{self, After, Marks, Onward, Own};
use crate::http1::{Length, RequestHead, ResponseHead, Scan};
use crate::peers::Peers;
use crate::resume::{Representation, Rest};
use std::sync::LazyLock;
use vibra_routing::object_name;

pub(crate) const REQUEST_WORDS: &[&str] = &[
    "GET ",
    "POST ",
    "HEAD ",
    "OPTIONS ",
    "* ",
    "/ ",
    "http://a.example/b?c ",
    "HTTP/1.1\r\n",
    "HTTP/1.0\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Connection: close, x-a\r\n",
    "Connection: upgrade\r\n",
    "Upgrade: websocket\r\n",
    "TE: trailers\r\n",
    "Expect: 100-continue\r\n",
    "Via: 1.1 a\r\n",
    "X-Forwarded-For: 1.2.3.4\r\n",
    "X-A: b\r\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    ": ",
    " ",
    "\t",
    "\0",
    "\u{e9}",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    ";x=y",
    "0\r\nX: y\r\n\r\n",
];

pub(crate) const RESPONSE_WORDS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200\r\n",
    "HTTP/1.1 304 \r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 103 x\r\n",
    "HTTP/1.1 101 x\r\n",
    "HTTP/1.1 206 x\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: keep-alive\r\n",
    "Connection: close\r\n",
    "ETag: \"e\"\r\n",
    "Content-Range: bytes 1-4/5\r\n",
    "Content-Encoding: gzip\r\n",
    "Date: x\r\n",
    "Upgrade: x\r\n",
    "X-A: b\r\n",
    "\r\n",
    "\r\n\r\n",
    "\r",
    "\n",
    ": ",
    " ",
    "\0",
    "\u{e9}",
];

pub(crate) const CHUNK_WORDS: &[&str] = &[
    "0\r\n",
    "1\r\nx\r\n",
    "a\r\n0123456789\r\n",
    "\r\n",
    "\r",
    "\n",
    ";x=\"y\"",
    " ;",
    "ffffffffffffffff",
    "0",
    "X: y\r\n",
];

pub(crate) const STRICT: Rules = Rules { fields: 100, line: 8192, target: 8000, coding_overrules_length: false };
const LENIENT: Rules = Rules { coding_overrules_length: true, ..STRICT };
/// What goes on has some fields more than what came.
const NEXT: Rules = Rules { fields: 2 * STRICT.fields, line: 2 * STRICT.line, ..STRICT };
const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
const MARKS: Marks<'static> = Marks { id: b"some-id", start: 1, trace: None };
const ENDPOINT: &str = "10.0.0.7:8080";

static PEERS: LazyLock<Peers> = LazyLock::new(Peers::default);

/// The head that a message begins with, and what follows it. It is found where it is however its bytes come.
fn split_head(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let whole = Scan::default().end(message);
    let mut scan = Scan::default();
    let step = message.len() / 7 + 1;
    let cuts = (0..message.len()).step_by(step).chain([message.len()]);
    let found = cuts.map(|cut| scan.end(&message[..cut])).find(|end| !matches!(end, Ok(None)));
    assert_eq!(found.unwrap_or(Ok(None)), whole, "found elsewhere in pieces of {step}");
    Some(message.split_at(whole.ok()??))
}

/// A request is refused, or what a server gets of it says the same to any reader.
pub(crate) fn request(data: &[u8]) {
    let Some((head, body)) = split_head(data) else { return };
    for rules in [STRICT, LENIENT] {
        let Ok(request) = RequestHead::read(head, &rules) else { continue };
        goes_on(&request, body.len() % 2 == 1);
        if request.length == Length::Chunked {
            chunked(body);
        }
    }
}

/// What a server gets of a request, the fields of which are returned, says the same to any reader.
pub(crate) fn goes_on(request: &RequestHead, trusted: bool) -> Vec<(String, Vec<u8>)> {
    assert_eq!(object_name(request.path()), request.path(), "the routing key is not the path");
    let hop = Hop { address: "192.0.2.1", trusted, scheme: "http", host: request.host() };
    let onward = Onward { hop, peers: &PEERS, endpoint: ENDPOINT, marks: MARKS, rest: None };
    let mut out = Vec::new();
    rewrite::request(request, &onward, &mut out);
    let fields = plainly(&out);
    let again = RequestHead::read(&out, &NEXT).unwrap_or_else(|e| panic!("{e:?}: {}", out.escape_ascii()));
    assert_eq!((&again.method, again.path(), again.query()), (&request.method, request.path(), request.query()));
    assert_eq!(again.host(), Some(request.host().unwrap_or(ENDPOINT.as_bytes())));
    assert_eq!((again.length, again.upgrades), (request.length, request.upgrades));
    framed(&fields, request.length);
    for name in ["host", "via", "x-forwarded-for", "x-forwarded-proto"] {
        assert_eq!(fields.iter().filter(|(key, _)| key == name).count(), 1, "{name}: {}", out.escape_ascii());
    }
    no_hop_by_hop(&fields, &["connection", "te", "transfer-encoding", "upgrade"]);
    fields
}

/// A response is refused, or what a client gets of it says the same to any reader.
pub(crate) fn response(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let Some((head, body)) = split_head(data) else { return };
    let (to_head, rules) = (choice & 1 != 0, if choice & 2 == 0 { STRICT } else { LENIENT });
    let Ok(response) = ResponseHead::read(head, to_head, &rules) else { return };
    // A body without a known end gets chunks, unless the client knows none.
    let length = match response.length {
        Length::Chunked | Length::UntilClose if choice & 4 == 0 => Length::Chunked,
        Length::Chunked | Length::UntilClose => Length::UntilClose,
        length => length,
    };
    let after = if length == Length::UntilClose { After::Close } else { After::Open };
    let mut out = Vec::new();
    rewrite::response(&response, length, after, DATE, &Own { id: b"some-id", explanation: None }, &mut out);
    let fields = plainly(&out);
    let again = ResponseHead::read(&out, to_head, &NEXT).unwrap_or_else(|e| panic!("{e:?}: {}", out.escape_ascii()));
    assert_eq!((again.status, again.reason(), again.length), (response.status, response.reason(), length));
    assert_eq!(again.keep_alive, after == After::Open);
    if !to_head && response.status.as_u16() >= 200 && ![204, 304].contains(&response.status.as_u16()) {
        framed(&fields, length);
    }
    no_hop_by_hop(&fields, &["connection", "transfer-encoding"]);

    let mut out = Vec::new();
    rewrite::interim(&response, &mut out);
    no_hop_by_hop(&plainly(&out), &[]);
    let mut out = Vec::new();
    rewrite::switching(&response, &mut out);
    no_hop_by_hop(&plainly(&out), &["connection", "upgrade"]);

    let get = RequestHead::read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", &STRICT).expect("a plain request");
    if let Some(of) = Representation::of(&get, &response) {
        let rest = Rest { of: &of, from: u64::from(choice) };
        let hop = Hop { address: "192.0.2.1", trusted: false, scheme: "http", host: get.host() };
        let mut out = Vec::new();
        rewrite::request(
            &get,
            &Onward { hop, peers: &PEERS, endpoint: ENDPOINT, marks: MARKS, rest: Some(rest) },
            &mut out,
        );
        plainly(&out);
        RequestHead::read(&out, &NEXT).unwrap_or_else(|e| panic!("{e:?}: {}", out.escape_ascii()));
    }
    if response.length == Length::Chunked {
        chunked(body);
    }
}

/// A chunked body is the same however its bytes come, and nothing fills a buffer but content.
pub(crate) fn chunked(data: &[u8]) {
    let whole = read_chunked(data, data.len());
    for step in [1, 7] {
        assert_eq!(read_chunked(data, step), whole, "in pieces of {step}");
    }
    let Some((_, Some(rest))) = whole else { return };
    let Some((trailers, _)) = split_head(rest) else { return };
    let Ok(fields) = head::read_trailers(trailers, &STRICT) else { return };
    let mut out = b"0\r\n".to_vec();
    rewrite::trailers(&fields, &mut out);
    let kept = plainly(&out);
    no_hop_by_hop(&kept, &[]);
    for (name, _) in kept {
        assert!(!["content-length", "host", "via", "expect", "range"].contains(&name.as_str()), "{name} is no trailer");
    }
}

/// The content, and what follows it if all of it is there; `None` where it is no chunked body.
fn read_chunked(data: &[u8], step: usize) -> Option<(Vec<u8>, Option<&[u8]>)> {
    let (mut state, mut content) = (Chunked::Size, Vec::new());
    let (mut at, mut come) = (0, 0);
    loop {
        let (framing, piece) = state.next(&data[at..come]).ok()?;
        at += framing;
        match piece {
            Piece::Data(n) => {
                content.extend_from_slice(&data[at..at + n]);
                at += n;
                state.took(n);
            }
            Piece::Trailers => return Some((content, Some(&data[at..]))),
            Piece::More => {
                assert!(come - at <= 256, "{} bytes wait, and are not content", come - at);
                if come == data.len() {
                    return Some((content, None));
                }
                come = data.len().min(come + step.max(1));
            }
        }
    }
}

/// The fields of a head as the plainest of readers would find them: lines that end in CR LF, names before a colon. There
/// is nothing in it that another reader could take for the end of a line, or for a second message.
fn plainly(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let shown = || head.escape_ascii();
    let text = head
        .strip_suffix(b"\r\n\r\n")
        .or_else(|| head.strip_suffix(b"\r\n"))
        .unwrap_or_else(|| panic!("no end: {}", shown()));
    let mut fields = Vec::new();
    for (number, line) in text.split(|&byte| byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        assert!(!line.is_empty() && !line.iter().any(|byte| b"\r\0".contains(byte)), "a line in a line: {}", shown());
        if number > 0 {
            let colon = line.iter().position(|&byte| byte == b':').unwrap_or_else(|| panic!("no field: {}", shown()));
            let name = String::from_utf8_lossy(&line[..colon]).to_ascii_lowercase();
            assert!(!name.is_empty() && !name.contains([' ', '\t']), "a name that hides: {}", shown());
            fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
        }
    }
    let bare = text.iter().enumerate().any(|(at, &byte)| byte == b'\n' && (at == 0 || text[at - 1] != b'\r'));
    assert!(!bare, "a bare line feed: {}", shown());
    fields
}

/// The fields say the length in the one way that there is to say it.
fn framed(fields: &[(String, Vec<u8>)], length: Length) {
    let values =
        |name: &str| fields.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
    match length {
        Length::None => assert!(codings.is_empty() && (lengths.is_empty() || zero(&lengths)), "{fields:?}"),
        Length::Exact(n) => {
            assert!(codings.is_empty() && lengths.len() == 1, "{fields:?}");
            assert_eq!(std::str::from_utf8(&lengths[0]).ok().and_then(|text| text.parse().ok()), Some(n));
        }
        Length::Chunked => assert!(lengths.is_empty() && codings == [b"chunked"], "{fields:?}"),
        Length::UntilClose => assert!(lengths.is_empty() && codings.is_empty(), "{fields:?}"),
    }
}

/// Whether that is one length of zero.
fn zero(lengths: &[Vec<u8>]) -> bool {
    lengths.len() == 1 && lengths[0].iter().all(|&digit| digit == b'0')
}

/// Of the fields that concern one connection, there are none but the dispatcher's `own`.
fn no_hop_by_hop(fields: &[(String, Vec<u8>)], own: &[&str]) {
    for name in
        ["connection", "keep-alive", "proxy-connection", "proxy-authorization", "te", "transfer-encoding", "upgrade"]
    {
        let found = fields.iter().filter(|(key, _)| key == name).count();
        assert!(
            found <= usize::from(own.contains(&name)) || name == "upgrade" && own.contains(&name),
            "{name}: {fields:?}"
        );
    }
}

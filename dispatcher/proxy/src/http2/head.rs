//! Heads between HTTP/2 and the bytes of HTTP/1.1.
//!
//! A request's head is written down as HTTP/1.1 has it and read by the one strict reader, so that both versions have
//! the same rules; before that it is checked for what only HTTP/2 could say. That names are in lower case, that pseudo
//! fields are known, single and in front, and that no field concerns the connection but `te: trailers`, h2 has seen to
//! (RFC 9113, sections 8.2 and 8.3).

use crate::http1::head::{Fields, Rules, Version, read_trailers};
use crate::http1::{Bad, RequestHead};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// Most heads are no longer.
pub(super) const USUAL: usize = 1024;

/// What every message has a value of its own of.
static UNIQUE: [HeaderName; 3] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-request-start"),
    HeaderName::from_static("traceparent"),
];

/// Reads the head of a request that a body follows, if `has_body`.
///
/// # Errors
/// [`Bad`].
pub(super) fn request(parts: &Parts, has_body: bool, rules: &Rules) -> Result<RequestHead, Bad> {
    if parts.method == Method::CONNECT {
        return Err(Bad::Unsupported);
    }
    let target = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    // With HTTP/1.1 it could be absolute (RFC 9113, section 8.3.1).
    if !target.starts_with('/') && target != "*" {
        return Err(Bad::Malformed);
    }
    let mut bytes = Vec::with_capacity(USUAL);
    for part in [parts.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(authority) = authority {
        let same = |host: &HeaderValue| is_same(host.as_bytes(), authority, parts.uri.scheme());
        if !parts.headers.get_all(HOST).iter().all(same) {
            return Err(Bad::Malformed);
        }
        line("host", authority, &mut bytes);
    }
    for (name, value) in &parts.headers {
        check_value(value)?;
        if *name != COOKIE && !(*name == HOST && authority.is_some()) {
            line(name.as_str(), value.as_bytes(), &mut bytes);
        }
    }
    write_cookies(&parts.headers, &mut bytes);
    if has_body && !parts.headers.contains_key(CONTENT_LENGTH) {
        line("transfer-encoding", b"chunked", &mut bytes);
    }
    bytes.extend_from_slice(b"\r\n");
    let mut head = RequestHead::read(&bytes, rules)?;
    head.version = Version::Http2;
    Ok(head)
}

/// Reads the trailers of a request.
///
/// # Errors
/// [`Bad`].
pub(super) fn trailers(fields: &HeaderMap, rules: &Rules) -> Result<Fields, Bad> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        check_value(value)?;
        line(name.as_str(), value.as_bytes(), &mut bytes);
    }
    bytes.extend_from_slice(b"\r\n");
    read_trailers(&bytes, rules)
}

/// The fields of a head or a trailer section as HTTP/1.1 has it, without its start line and up to its empty line.
pub(super) fn fields(lines: &[u8]) -> HeaderMap {
    let mut fields = HeaderMap::with_capacity(memchr::memchr_iter(b'\n', lines).count());
    // One space for all values, unless it is large: h2 may remember a value, and with it all that it is a part of.
    let whole = if lines.len() <= USUAL { Bytes::copy_from_slice(lines) } else { Bytes::new() };
    let part = |value| if whole.is_empty() { Bytes::copy_from_slice(value) } else { whole.slice_ref(value) };
    let mut rest = if whole.is_empty() { lines } else { &whole };
    while let Some(end) = memchr::memchr(b'\r', rest).filter(|&end| end > 0) {
        let line = &rest[..end];
        rest = rest.get(end + 2..).unwrap_or_default();
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let value = HeaderValue::from_maybe_shared(part(line[colon + 1..].trim_ascii()));
        let unique = UNIQUE.iter().find(|name| name.as_str().as_bytes() == &line[..colon]);
        let name = unique.map_or_else(|| HeaderName::from_bytes(&line[..colon]), |name| Ok(name.clone()));
        // What came through the reader of heads is both.
        if let (Ok(name), Ok(mut value)) = (name, value) {
            // It never comes again: remembering it for compression would only drive out what does.
            value.set_sensitive(unique.is_some());
            fields.append(name, value);
        }
    }
    fields
}

pub(super) fn line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Blanks around a value, which HTTP/1.1 reads over, are none of it in HTTP/2 (RFC 9113, section 8.2.1).
pub(super) fn check_value(value: &HeaderValue) -> Result<(), Bad> {
    let blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    let value = value.as_bytes();
    if blank(value.first()) || blank(value.last()) { Err(Bad::Malformed) } else { Ok(()) }
}

/// Cookies may come apart for the sake of compression; for HTTP/1.1 they are one again (RFC 9113, section 8.2.3).
fn write_cookies(fields: &HeaderMap, out: &mut Vec<u8>) {
    let mut between: &[u8] = b"cookie: ";
    for cookie in fields.get_all(COOKIE) {
        out.extend_from_slice(between);
        out.extend_from_slice(cookie.as_bytes());
        between = b"; ";
    }
    if between == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

/// Whether `Host` names what `:authority` does, the scheme's own port understood (RFC 9113, section 8.3.1; RFC 3986,
/// section 6.2.3).
fn is_same(host: &[u8], authority: &[u8], scheme: Option<&Scheme>) -> bool {
    let port: &[u8] = if scheme == Some(&Scheme::HTTPS) { b":443" } else { b":80" };
    let bare = |host| -> &[u8] {
        let stripped = <[u8]>::strip_suffix(host, port).or_else(|| <[u8]>::strip_suffix(host, b":"));
        stripped.unwrap_or(host)
    };
    bare(host).eq_ignore_ascii_case(bare(authority))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;

//! Heads between the bytes of HTTP/1.1 and HTTP/2 to servers.
//!
//! That names are in lower case, that pseudo fields are known, single and in front, and that no field concerns the
//! connection, h2 has seen to (RFC 9113, sections 8.2 and 8.3).

use super::super::head::{check_value, fields, line};
use crate::http1::head::Rules;
use crate::http1::rewrite::{self, Onward};
use crate::http1::{Bad, Length, RequestHead, ResponseHead};
use crate::link::Unsayable;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, StatusCode, Uri, Version, response};

/// Most heads are no longer.
const USUAL: usize = 1024;

/// The head of a request as a server gets it. Another protocol is not asked for, which a server may ignore anyway (RFC
/// 9113, section 8.6; RFC 9110, section 7.8).
///
/// # Errors
/// [`Unsayable`]: its host or target has characters that no URL has.
pub(super) fn request(head: &RequestHead, onward: &Onward<'_>, scheme: Scheme) -> Result<Request<()>, Unsayable> {
    let mut bytes = Vec::with_capacity(USUAL);
    rewrite::request(head, onward, &mut bytes);
    let end = memchr::memchr(b'\r', &bytes).ok_or(Unsayable)?;
    let mut words = bytes[..end].split(|&byte| byte == b' ');
    let target = words.nth(1).ok_or(Unsayable)?;
    let mut request = Request::new(());
    *request.version_mut() = Version::HTTP_2;
    *request.method_mut() = head.method.clone();
    *request.headers_mut() = fields(&bytes[end + 2..]);
    let named = request.headers_mut().remove(HOST);
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        request.headers_mut().remove(name);
    }
    // Where a client names no host, as HTTP/1.1 lets him with an empty one, the server's own stands for it.
    let named = named.as_ref().map(|host| host.as_bytes()).filter(|host| !host.is_empty());
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme);
    parts.authority = Some(Authority::try_from(named.unwrap_or(onward.endpoint.as_bytes())).map_err(|_| Unsayable)?);
    parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|_| Unsayable)?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Unsayable)?;
    Ok(request)
}

/// Reads the head of a response. `is_empty` says that the stream has ended with it, `to_head` that the request had the
/// method `HEAD`.
///
/// # Errors
/// [`Bad`].
pub(super) fn response(
    parts: &response::Parts,
    is_empty: bool,
    to_head: bool,
    rules: &Rules,
) -> Result<ResponseHead, Bad> {
    let status = parts.status;
    // Nobody changes the protocol of a stream (RFC 9113, section 8.6).
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Bad::Malformed);
    }
    let mut bytes = Vec::with_capacity(USUAL);
    for part in ["HTTP/1.1 ", status.as_str(), " ", status.canonical_reason().unwrap_or_default(), "\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    for (name, value) in &parts.headers {
        check_value(value)?;
        line(name.as_str(), value.as_bytes(), &mut bytes);
    }
    let has_body =
        !to_head && !status.is_informational() && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_empty && has_body && !parts.headers.contains_key(CONTENT_LENGTH) {
        line(CONTENT_LENGTH.as_str(), b"0", &mut bytes);
    }
    bytes.extend_from_slice(b"\r\n");
    let mut head = ResponseHead::read(&bytes, to_head, rules)?;
    if head.length == Length::UntilClose {
        // It ends with its stream, and is known to.
        head.length = Length::Chunked;
    }
    Ok(head)
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;

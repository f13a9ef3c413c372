//! What a gateway changes in heads (RFC 9110, section 7.6; RFC 9112, sections 3.2 and 6).

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Version, request, response};
use smallvec::SmallVec;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// What concerns one connection only, and so is not passed on; what `Connection` lists besides.
const HOP_BY_HOP: [HeaderName; 8] =
    [CONNECTION, KEEP_ALIVE, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE];

/// How the dispatcher names itself, with the protocol version that a message was received in.
const VIA_HTTP_11: HeaderValue = HeaderValue::from_static("1.1 vibra");
const VIA_HTTP_10: HeaderValue = HeaderValue::from_static("1.0 vibra");

/// Why a request is not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadHead {
    /// No host, more than one, or a target that is no URL.
    Malformed,
    /// A tunnel is asked for, or the body is encoded in a way that is not undone here.
    Unsupported,
}

/// Makes of a request's head as it came from the client at `address` the head that a server gets.
pub(crate) fn prepare_request(head: &mut request::Parts, address: &HeaderValue) -> Result<(), BadHead> {
    if head.method == Method::CONNECT || is_coded(&head.headers) {
        return Err(BadHead::Unsupported);
    }
    let via = if head.version == Version::HTTP_10 { VIA_HTTP_10 } else { VIA_HTTP_11 };
    check_host(head)?;
    use_origin_form(head)?;
    strip_hop_by_hop(&mut head.headers);
    // The dispatcher itself has asked the client to go on.
    head.headers.remove(EXPECT);
    append(&mut head.headers, X_FORWARDED_FOR, address);
    append(&mut head.headers, VIA, &via);
    head.version = Version::HTTP_11;
    Ok(())
}

/// Makes of a response's head as it came from a server the head that the client gets.
pub(crate) fn prepare_response(head: &mut response::Parts) {
    strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
}

/// Whether a body is encoded for this connection by more than chunks. Chunks are undone here; what another coding has
/// made of the body, nobody could read once its name is gone with the other headers of the connection.
pub(crate) fn is_coded(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(only), None) => !only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => true,
    }
}

fn check_host(head: &request::Parts) -> Result<(), BadHead> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => Ok(()),
        (None, None) if head.version == Version::HTTP_10 => Ok(()),
        _ => Err(BadHead::Malformed),
    }
}

/// Servers are asked for a path; a host in the target itself overrules the header.
fn use_origin_form(head: &mut request::Parts) -> Result<(), BadHead> {
    if let Some(authority) = head.uri.authority() {
        // A user name and password in the target are not part of the host.
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::try_from(host).map_err(|_| BadHead::Malformed)?;
        head.headers.insert(HOST, host);
        let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        head.uri = Uri::from(path);
    }
    let path = head.uri.path();
    if path.starts_with('/') || path == "*" { Ok(()) } else { Err(BadHead::Malformed) }
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One pass over the few names that are there costs less than a look-up of each that might be.
    let present: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| HOP_BY_HOP.contains(name)).cloned().collect();
    if present.contains(&CONNECTION) {
        for name in listed(headers) {
            headers.remove(name);
        }
    }
    if present.contains(&TRANSFER_ENCODING) {
        // The length of a message that has both is what the encoding says.
        headers.remove(CONTENT_LENGTH);
    }
    for name in present {
        headers.remove(name);
    }
}

/// The headers that `Connection` lists. What frames or routes a message cannot be listed away.
fn listed(headers: &HeaderMap) -> SmallVec<[HeaderName; 2]> {
    let option = |name: &&str| !name.eq_ignore_ascii_case("keep-alive") && !name.eq_ignore_ascii_case("close");
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim).filter(option);
    let names = names.filter_map(|name| name.parse().ok());
    names.filter(|name| ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name)).collect()
}

/// Adds `value` at the end of a comma-separated list.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, value.clone());
        return;
    }
    let mut list = Vec::new();
    for part in headers.get_all(&name).iter().chain([value]) {
        if !list.is_empty() {
            list.extend_from_slice(b", ");
        }
        list.extend_from_slice(part.as_bytes());
    }
    headers.insert(name, HeaderValue::from_bytes(&list).expect("header values joined by ', ' are one"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{Request, Response};

    fn prepared(request: request::Builder) -> Result<request::Parts, BadHead> {
        let (mut head, ()) = request.body(()).unwrap().into_parts();
        prepare_request(&mut head, &HeaderValue::from_static("192.0.2.7")).map(|()| head)
    }

    fn get(target: &str) -> request::Builder {
        Request::get(target).header("host", "shop.example")
    }

    #[test]
    fn hop_by_hop_headers_stay_behind() {
        let request = get("/")
            .header("connection", "keep-alive, X-Secret, host, content-length")
            .header("x-secret", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authorization", "Basic eDp5")
            .header("te", "trailers")
            .header("upgrade", "websocket")
            .header("accept", "*/*");
        let head = prepared(request).unwrap();
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "host", "via", "x-forwarded-for"]);
    }

    #[test]
    fn the_way_is_written_down() {
        let head = prepared(get("/")).unwrap();
        assert_eq!(head.headers[X_FORWARDED_FOR], "192.0.2.7");
        assert_eq!(head.headers[VIA], "1.1 vibra");
        let longer = get("/").header("x-forwarded-for", "10.0.0.1").header("x-forwarded-for", "10.0.0.2");
        let head = prepared(longer.header("via", "1.1 edge").version(Version::HTTP_10)).unwrap();
        assert_eq!(head.headers.get_all(X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(head.headers[X_FORWARDED_FOR], "10.0.0.1, 10.0.0.2, 192.0.2.7");
        assert_eq!(head.headers[VIA], "1.1 edge, 1.0 vibra");
        assert_eq!(head.version, Version::HTTP_11);
    }

    #[test]
    fn an_absolute_target_becomes_a_path_and_its_host_counts() {
        let head = prepared(get("http://me:pw@other.example:81/a/b?c=d")).unwrap();
        assert_eq!(head.uri, "/a/b?c=d");
        assert_eq!(head.headers[HOST], "other.example:81");
        assert_eq!(prepared(get("http://other.example")).unwrap().uri, "/");
    }

    #[test]
    fn requests_without_one_host_are_refused() {
        assert_eq!(prepared(Request::get("/")).unwrap_err(), BadHead::Malformed);
        assert_eq!(prepared(get("/").header("host", "other.example")).unwrap_err(), BadHead::Malformed);
        assert!(prepared(Request::get("/").version(Version::HTTP_10)).is_ok());
    }

    #[test]
    fn tunnels_are_refused() {
        let request = Request::connect("shop.example:443").header("host", "shop.example:443");
        assert_eq!(prepared(request).unwrap_err(), BadHead::Unsupported);
    }

    #[test]
    fn codings_other_than_chunked_are_refused() {
        for coding in ["gzip, chunked", "chunked, chunked", "gzip", ""] {
            let refused = prepared(get("/").header("transfer-encoding", coding)).unwrap_err();
            assert_eq!(refused, BadHead::Unsupported, "{coding:?}");
        }
        let twice = get("/").header("transfer-encoding", "gzip").header("transfer-encoding", "chunked");
        assert_eq!(prepared(twice).unwrap_err(), BadHead::Unsupported);
        assert!(prepared(get("/").header("transfer-encoding", "Chunked")).is_ok());
    }

    #[test]
    fn an_encoding_overrules_a_length() {
        let head = prepared(get("/").header("transfer-encoding", "chunked").header("content-length", "3")).unwrap();
        assert!(!head.headers.contains_key(CONTENT_LENGTH));
    }

    #[test]
    fn responses_lose_what_was_for_the_dispatcher() {
        let response = Response::builder().version(Version::HTTP_10).header("connection", "close, x-a");
        let (mut head, ()) = response.header("x-a", "1").header("etag", "e").body(()).unwrap().into_parts();
        prepare_response(&mut head);
        assert_eq!(head.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["etag"]);
        assert_eq!(head.version, Version::HTTP_11);
    }
}

//! Requests of HTTP/2, in the form that h2 hands them over.

use crate::http1::Length;
use crate::http2_head;
use crate::messages::{STRICT, goes_on};
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

pub(crate) const WORDS: &[&str] = &[
    ":method GET\n",
    ":method POST\n",
    ":method OPTIONS\n",
    ":method CONNECT\n",
    ":scheme http\n",
    ":scheme https\n",
    ":authority a.example\n",
    ":authority a:443\n",
    ":authority u@a\n",
    ":path /a?b\n",
    ":path *\n",
    ":path ?b\n",
    "host a\n",
    "host a.example:80\n",
    "content-length 5\n",
    "content-length 0\n",
    "cookie a=b\n",
    "expect 100-continue\n",
    "te trailers\n",
    "via 2.0 a\n",
    "x-a b\n",
    "\n",
    "\r",
    "\0",
    ": ",
    " ",
    "\t",
    " HTTP/1.1\r\nHost: b\r\n\r\n",
    "\u{e9}",
];

/// A request is refused, or what a server gets of it says the same to any reader. The first byte says whether a body
/// follows, the lines after it are names and values.
pub(crate) fn request(data: &[u8]) {
    let Some((&choice, lines)) = data.split_first() else { return };
    let has_body = choice & 1 != 0;
    let Some(parts) = delivered(lines) else { return };
    let Ok(request) = http2_head::request(&parts, has_body, &STRICT) else { return };
    assert_eq!(request.method, parts.method);
    assert_eq!(format!("{}{}", request.path(), request.query()), parts.uri.path_and_query().map_or("", |p| p.as_str()));
    if let Some(authority) = parts.uri.authority() {
        assert_eq!(request.host(), Some(authority.as_str().as_bytes()));
    }
    if !parts.headers.contains_key(CONTENT_LENGTH) {
        assert_eq!(request.length, if has_body { Length::Chunked } else { Length::None });
    }
    let fields = goes_on(&request, choice & 2 != 0);
    assert!(fields.iter().filter(|(name, _)| name == "cookie").count() <= 1, "cookies are one field: {fields:?}");
}

/// The request that these lines tell of, unless h2 refuses it: pseudo fields are known, single and in front, the ones that
/// there must be are there, and no field concerns the connection.
fn delivered(lines: &[u8]) -> Option<Parts> {
    let mut request = Request::new(()).into_parts().0;
    let (mut method, mut scheme, mut authority, mut path) = (None, None, None, None);
    for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let (name, value) = line.split_at(line.iter().skip(1).position(|&byte| byte == b' ')? + 1);
        let value = &value[1..];
        if name.starts_with(b":") {
            let slot = match name {
                b":method" => &mut method,
                b":scheme" => &mut scheme,
                b":authority" => &mut authority,
                b":path" => &mut path,
                _ => return None,
            };
            if slot.replace(value).is_some() || !request.headers.is_empty() {
                return None;
            }
            continue;
        }
        let name = HeaderName::from_lowercase(name).ok()?;
        let concerns_the_connection = [CONNECTION, TRANSFER_ENCODING, UPGRADE].contains(&name)
            || ["keep-alive", "proxy-connection"].contains(&name.as_str())
            || name == TE && value != b"trailers";
        if concerns_the_connection {
            return None;
        }
        request.headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    let mut uri = http::uri::Parts::default();
    uri.authority = authority.map(Authority::try_from).transpose().ok()?;
    let scheme = Scheme::try_from(scheme?).ok()?;
    // Without an authority a URI has none.
    uri.scheme = uri.authority.is_some().then_some(scheme);
    uri.path_and_query = Some(PathAndQuery::try_from(path.filter(|path| !path.is_empty())?).ok()?);
    request.uri = Uri::from_parts(uri).ok()?;
    request.method = Method::from_bytes(method?).ok()?;
    request.version = Version::HTTP_2;
    Some(request)
}

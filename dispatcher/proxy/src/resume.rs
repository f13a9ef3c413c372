//! Going on with a broken response at another server (section 4.3.3 of the dissertation asks for it).
//!
//! When a server dies in the middle of a body, the rest of it is as good from any other that has the same
//! representation. A strong validator and the length say whether it has (RFC 9110, sections 13.1.5 and 14): where they
//! match the client notices nothing, and where anything is in doubt his connection is broken, as it would be anyway.

use crate::http1::head::Name;
use crate::http1::{Length, RequestHead, ResponseHead};
use http::{Method, StatusCode};

/// What tells a representation from any other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Representation {
    /// In bytes.
    length: u64,
    /// A strong validator, with its quotes.
    etag: Vec<u8>,
    /// What `Content-Encoding` says.
    coding: Option<Vec<u8>>,
}

/// The rest of a representation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rest<'a> {
    pub(crate) of: &'a Representation,
    /// How many bytes are here already.
    pub(crate) from: u64,
}

impl Representation {
    /// What is in a response, if the rest of it could be asked for elsewhere: the whole answer to a plain `GET`.
    pub(crate) fn of(request: &RequestHead, response: &ResponseHead) -> Option<Self> {
        let Length::Exact(length) = response.length else { return None };
        let plain = request.method == Method::GET
            && request.length == Length::None
            && request.fields.get(Name::Range).is_none()
            && response.status == StatusCode::OK;
        let etag = only(response, Name::ETag)?;
        let coding = response.fields.get(Name::ContentEncoding).map(<[u8]>::to_vec);
        let known = plain && is_strong(etag) && response.fields.all(Name::ContentEncoding).count() <= 1;
        known.then(|| Representation { length, etag: etag.to_vec(), coding })
    }
}

impl Rest<'_> {
    /// Writes the fields that ask for it.
    pub(crate) fn ask(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("range: bytes={}-\r\nif-range: ", self.from).as_bytes());
        out.extend_from_slice(&self.of.etag);
        out.extend_from_slice(b"\r\n");
    }

    /// Whether a response has exactly this.
    pub(crate) fn is_in(&self, response: &ResponseHead) -> bool {
        let Representation { length, etag, coding } = self.of;
        let range = format!("bytes {}-{}/{length}", self.from, length - 1);
        response.status == StatusCode::PARTIAL_CONTENT
            && response.length == Length::Exact(length - self.from)
            && only(response, Name::ContentRange) == Some(range.as_bytes())
            && only(response, Name::ETag) == Some(etag)
            && only(response, Name::ContentEncoding) == coding.as_deref()
    }
}

/// The value of a field that is there once.
fn only(response: &ResponseHead, name: Name) -> Option<&[u8]> {
    let mut values = response.fields.all(name);
    values.next().filter(|_| values.next().is_none())
}

/// Whether a validator is strong: quoted, and not marked as weak (RFC 9110, section 8.8.3).
fn is_strong(etag: &[u8]) -> bool {
    etag.len() >= 2 && etag.starts_with(b"\"") && etag.ends_with(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::Rules;

    const RULES: Rules = Rules { fields: 100, line: 100, target: 80, coding_overrules_length: false };

    fn request(method: &str, fields: &str) -> RequestHead {
        RequestHead::read(format!("{method} / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes(), &RULES).unwrap()
    }

    fn response(status: &str, fields: &str) -> ResponseHead {
        ResponseHead::read(format!("HTTP/1.1 {status}\r\n{fields}\r\n").as_bytes(), false, &RULES).unwrap()
    }

    fn whole() -> ResponseHead {
        response("200 OK", "Content-Length: 100\r\nETag: \"v1\"\r\nContent-Encoding: gzip\r\n")
    }

    #[test]
    fn only_whole_answers_with_a_strong_validator_can_be_gone_on_with() {
        assert!(Representation::of(&request("GET", ""), &whole()).is_some());
        for (method, fields) in
            [("POST", ""), ("HEAD", ""), ("GET", "Range: bytes=5-\r\n"), ("GET", "Content-Length: 2\r\n")]
        {
            assert_eq!(Representation::of(&request(method, fields), &whole()), None, "{method} {fields}");
        }
        for (status, fields) in [
            ("200 OK", "Content-Length: 100\r\n"),
            ("200 OK", "Content-Length: 100\r\nETag: W/\"v1\"\r\n"),
            ("200 OK", "Content-Length: 100\r\nETag: v1\r\n"),
            ("200 OK", "Content-Length: 100\r\nETag: \"v1\"\r\nETag: \"v2\"\r\n"),
            ("200 OK", "Transfer-Encoding: chunked\r\nETag: \"v1\"\r\n"),
            ("206 Partial Content", "Content-Length: 100\r\nETag: \"v1\"\r\n"),
            ("404 Not Found", "Content-Length: 100\r\nETag: \"v1\"\r\n"),
        ] {
            assert_eq!(Representation::of(&request("GET", ""), &response(status, fields)), None, "{fields}");
        }
    }

    #[test]
    fn the_rest_is_taken_from_the_same_representation_alone() {
        let of = Representation::of(&request("GET", ""), &whole()).unwrap();
        let rest = Rest { of: &of, from: 40 };
        let mut asked = Vec::new();
        rest.ask(&mut asked);
        assert_eq!(asked, b"range: bytes=40-\r\nif-range: \"v1\"\r\n");
        let good = "Content-Length: 60\r\nContent-Range: bytes 40-99/100\r\nETag: \"v1\"\r\nContent-Encoding: gzip\r\n";
        assert!(rest.is_in(&response("206 Partial Content", good)));
        assert!(!rest.is_in(&response("200 OK", good)));
        for (what, instead) in [
            ("Content-Length: 60", "Content-Length: 61"),
            ("Content-Length: 60", "Transfer-Encoding: chunked"),
            ("bytes 40-99/100", "bytes 41-99/100"),
            ("bytes 40-99/100", "bytes 40-99/101"),
            ("bytes 40-99/100", "bytes 40-99/*"),
            ("\"v1\"", "\"v2\""),
            ("\"v1\"", "W/\"v1\""),
            ("gzip", "br"),
            ("Content-Encoding: gzip\r\n", ""),
        ] {
            let fields = good.replace(what, instead);
            assert!(!rest.is_in(&response("206 Partial Content", &fields)), "{fields}");
        }
    }
}

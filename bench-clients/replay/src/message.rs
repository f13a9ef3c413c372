//! What a request of the trace becomes on the wire, and what its answer should be.

use crate::{Lengths, Options, ReplayError};
use bytes::Bytes;
use http::header::{HOST, HeaderValue, IF_MODIFIED_SINCE, RANGE};
use http::uri::{Parts, PathAndQuery, Uri};
use http_body_util::Empty;
use std::time::SystemTime;
use vibra_trace::{Method, Request, Trace};

/// A request without a body.
pub(crate) type Message = http::Request<Empty<Bytes>>;

/// Makes a trace's messages.
pub(crate) struct Messages<'a> {
    trace: &'a Trace,
    /// By object; `None` for a URL that fits in no request line.
    targets: Vec<Option<Uri>>,
    host: HeaderValue,
    /// The date of conditional requests: now, than which no object that is there is younger.
    since: HeaderValue,
    lengths: Lengths,
}

/// What the trace says of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The logged status; 0 if there is none.
    pub(crate) status: u16,
    /// Bytes of the body, if the trace says it and it is to be checked.
    pub(crate) length: Option<u64>,
}

/// The three requests that a GET may be.
enum Kind {
    Whole,
    Conditional,
    /// For the first bytes: this many, at least one.
    Range(u64),
}

impl<'a> Messages<'a> {
    pub(crate) fn new(trace: &'a Trace, options: &Options) -> Result<Messages<'a>, ReplayError> {
        let host = HeaderValue::from_str(&options.host).map_err(|_| ReplayError::Option {
            option: "host",
            value: format!("{:?}", options.host),
            allowed: "a name or an address, with a port where it is not 80".into(),
        })?;
        let since = httpdate::fmt_http_date(SystemTime::now());
        Ok(Messages {
            trace,
            targets: trace.objects.iter().map(|(_, object)| uri(&object.target())).collect(),
            host,
            since: HeaderValue::try_from(since).expect("a date is printable ASCII"),
            lengths: options.lengths,
        })
    }

    /// The message for `request`; `None` if it can not be replayed.
    pub(crate) fn message(&self, request: &Request) -> Option<(Message, Expected)> {
        let target = self.targets.get(request.object.0 as usize)?.clone()?;
        let mut message = http::Request::new(Empty::new());
        *message.uri_mut() = target;
        let headers = message.headers_mut();
        headers.insert(HOST, self.host.clone());
        let length = match (request.method, kind(request)) {
            (Method::Head, _) => {
                *message.method_mut() = http::Method::HEAD;
                Some(0)
            }
            (Method::Get, Kind::Whole) => self.whole(request),
            (Method::Get, Kind::Conditional) => {
                headers.insert(IF_MODIFIED_SINCE, self.since.clone());
                Some(0)
            }
            (Method::Get, Kind::Range(bytes)) => {
                let range = format!("bytes=0-{}", bytes - 1);
                headers.insert(RANGE, HeaderValue::try_from(range).expect("a range is printable ASCII"));
                Some(bytes)
            }
            _ => return None,
        };
        let length = length.filter(|_| self.lengths == Lengths::AsTraced);
        Some((message, Expected { status: request.status, length }))
    }

    /// Length of the object that `request` is for. A size of 0 may mean that no body was ever logged.
    fn whole(&self, request: &Request) -> Option<u64> {
        let size = self.trace.objects[request.object].size;
        (size > 0 || request.bytes.get() == Some(0)).then_some(size)
    }
}

fn kind(request: &Request) -> Kind {
    match (request.status, request.bytes.get()) {
        (304, _) => Kind::Conditional,
        (206, Some(bytes @ 1..)) => Kind::Range(bytes),
        _ => Kind::Whole,
    }
}

fn uri(target: &str) -> Option<Uri> {
    let mut parts = Parts::default();
    parts.path_and_query = Some(PathAndQuery::try_from(target).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;
    use std::time::Duration;
    use vibra_trace::{LoggedBytes, Objects, Origin};

    fn trace(url: &str, size: u64) -> (Trace, Request) {
        let mut objects = Objects::new();
        let object = objects.intern(url);
        objects.set_size(object, size);
        let (at, bytes) = (Duration::ZERO, LoggedBytes::from(size));
        let request = Request { at, client: 0, object, bytes, method: Method::Get, status: 200 };
        let origin = Origin::Synthetic { seed: 0 };
        let resolution = Duration::from_secs(1);
        (Trace { name: "test".into(), origin, start: None, resolution, objects, requests: vec![request] }, request)
    }

    fn options(lengths: Lengths) -> Options {
        Options { lengths, ..Options::new(([127, 0, 0, 1], 8080).into(), Mode::Closed { concurrency: 1 }) }
    }

    fn message(url: &str, change: impl FnOnce(&mut Request)) -> Option<(Message, Expected)> {
        let (trace, mut request) = trace(url, 1000);
        change(&mut request);
        Messages::new(&trace, &options(Lengths::AsTraced)).expect("fine options").message(&request)
    }

    #[test]
    fn a_get_is_for_the_whole_object_even_if_the_log_says_that_less_was_sent() {
        let (message, expected) = message("/a b?c", |request| request.bytes = 10.into()).expect("replayable");
        assert_eq!((message.method().as_str(), message.uri().to_string()), ("GET", "/a%20b?c".into()));
        assert_eq!(message.headers()[HOST], "127.0.0.1:8080");
        assert_eq!(expected, Expected { status: 200, length: Some(1000) });
    }

    #[test]
    fn not_modified_is_asked_for_with_a_date_of_now() {
        let before = SystemTime::now() - Duration::from_secs(1);
        let (message, expected) = message("/", |request| request.status = 304).expect("replayable");
        let date = message.headers()[IF_MODIFIED_SINCE].to_str().expect("ASCII");
        let date = httpdate::parse_http_date(date).expect("a date");
        assert!(before <= date && date <= SystemTime::now());
        assert_eq!(expected, Expected { status: 304, length: Some(0) });
    }

    #[test]
    fn partial_content_is_asked_for_by_its_length() {
        let partial = |bytes| {
            move |request: &mut Request| {
                request.status = 206;
                request.bytes = bytes;
            }
        };
        let (ranged, expected) = message("/", partial(LoggedBytes::from(100))).expect("replayable");
        assert_eq!(ranged.headers()[RANGE], "bytes=0-99");
        assert_eq!(expected, Expected { status: 206, length: Some(100) });
        // No range has no bytes.
        for bytes in [LoggedBytes::from(0), LoggedBytes::NONE] {
            let (message, expected) = message("/", partial(bytes)).expect("replayable");
            assert!(!message.headers().contains_key(RANGE));
            assert_eq!(expected, Expected { status: 206, length: Some(1000) });
        }
    }

    #[test]
    fn other_methods_but_head_are_not_replayed() {
        let (head, expected) = message("/", |request| request.method = Method::Head).expect("replayable");
        assert_eq!((head.method(), expected.length), (&http::Method::HEAD, Some(0)));
        assert!(message("/", |request| request.method = Method::Post).is_none());
    }

    #[test]
    fn a_url_that_fits_in_no_request_line_is_not_replayed() {
        assert!(message(&"/x".repeat(40_000), |_| {}).is_none());
    }

    #[test]
    fn lengths_are_checked_only_where_they_are_known_and_wanted() {
        let (trace, mut request) = trace("/", 0);
        let as_traced = Messages::new(&trace, &options(Lengths::AsTraced)).expect("fine options");
        assert_eq!(as_traced.message(&request).expect("replayable").1.length, Some(0));
        request.bytes = LoggedBytes::NONE;
        assert_eq!(as_traced.message(&request).expect("replayable").1.length, None);
        let any = Messages::new(&trace, &options(Lengths::Any)).expect("fine options");
        request.status = 304;
        assert_eq!(any.message(&request).expect("replayable").1.length, None);
    }

    #[test]
    fn a_host_with_a_line_break_is_refused() {
        let options = Options { host: "a\r\nx: y".into(), ..options(Lengths::Any) };
        let refusal = Messages::new(&trace("/", 0).0, &options).err().expect("refused");
        assert!(refusal.to_string().contains("the replay's host is \"a\\r\\nx: y\""), "{refusal}");
    }
}

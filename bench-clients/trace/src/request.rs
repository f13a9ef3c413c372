//! One request of a trace.

use crate::ObjectId;
use std::fmt;
use std::time::Duration;

/// One request, as a client made it and a server logged it. 40 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// When, since the trace's first second.
    pub at: Duration,
    /// Who: a number that stands for a client's address.
    pub client: u32,
    /// For what.
    pub object: ObjectId,
    /// Bytes of the body that the server logged as sent.
    pub bytes: LoggedBytes,
    /// The method.
    pub method: Method,
    /// Status code of the response. 0: not logged.
    pub status: u16,
}

/// Bytes that a log says were sent, or that it does not say. (An `Option<u64>` in half the space.)
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LoggedBytes(u64);

impl LoggedBytes {
    /// Not logged.
    pub const NONE: Self = Self(u64::MAX);

    /// The bytes, if they were logged.
    pub fn get(self) -> Option<u64> {
        (self != Self::NONE).then_some(self.0)
    }
}

impl From<u64> for LoggedBytes {
    fn from(bytes: u64) -> Self {
        Self(bytes.min(u64::MAX - 1))
    }
}

impl From<Option<u64>> for LoggedBytes {
    fn from(bytes: Option<u64>) -> Self {
        bytes.map_or(Self::NONE, Self::from)
    }
}

impl fmt::Debug for LoggedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A request's method, as far as logs tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "they are HTTP's names")]
pub enum Method {
    Get = 0,
    Head = 1,
    Post = 2,
    Put = 3,
    Delete = 4,
    Trace = 5,
    Options = 6,
    Connect = 7,
    /// Any other.
    Other = 8,
    Patch = 9,
}

impl Method {
    /// All of them, by number. The first nine numbers are those of the World Cup log.
    pub const ALL: [Method; 10] = [
        Method::Get,
        Method::Head,
        Method::Post,
        Method::Put,
        Method::Delete,
        Method::Trace,
        Method::Options,
        Method::Connect,
        Method::Other,
        Method::Patch,
    ];

    /// Its name on the wire. [`Method::Other`] is `OTHER`, which no server knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Trace => "TRACE",
            Method::Options => "OPTIONS",
            Method::Connect => "CONNECT",
            Method::Other => "OTHER",
            Method::Patch => "PATCH",
        }
    }
}

impl Method {
    /// The method of this name; [`Method::Other`] if there is none here.
    pub fn named(name: &str) -> Method {
        let known = Method::ALL.into_iter().find(|method| method.as_str().eq_ignore_ascii_case(name));
        known.unwrap_or(Method::Other)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_small() {
        assert!(size_of::<Request>() <= 40);
    }

    #[test]
    fn bytes_not_logged_differ_from_none_sent() {
        assert_eq!(LoggedBytes::from(None).get(), None);
        assert_eq!(LoggedBytes::from(0).get(), Some(0));
        assert_eq!(format!("{:?}", LoggedBytes::from(7)), "Some(7)");
    }

    #[test]
    fn methods_keep_their_numbers_and_names() {
        for (number, method) in Method::ALL.into_iter().enumerate() {
            assert_eq!(method as usize, number);
            assert_eq!(method, Method::named(method.as_str()));
        }
        assert_eq!(Method::named("PROPFIND"), Method::Other);
    }
}

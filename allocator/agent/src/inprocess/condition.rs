//! What a request asks of an object beyond its name: conditions and a range (RFC 9110, sections 13 and 14).

use crate::catalogue::{LAST_MODIFIED, Object};
use http::{HeaderMap, header};
use std::{
    ops::Range,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// When every object was last modified.
pub(super) fn last_modified() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(LAST_MODIFIED)
}

/// Which part of an object a request is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it (200).
    Whole,
    /// These bytes of the body; never empty (206).
    Range(Range<u64>),
    /// Nothing: the client has it already (304).
    NotModified,
    /// The range lies beyond the end (416).
    Unsatisfiable,
}

/// What `headers` ask of `object`.
pub(super) fn part(headers: &HeaderMap, object: &Object) -> Part {
    if not_modified(headers, object) {
        return Part::NotModified;
    }
    match text(headers, header::RANGE).filter(|_| range_applies(headers, object)) {
        Some(range) => range_part(range, object.size.0),
        None => Part::Whole,
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// If-None-Match decides where it is there; otherwise If-Modified-Since.
fn not_modified(headers: &HeaderMap, object: &Object) -> bool {
    if let Some(tags) = text(headers, header::IF_NONE_MATCH) {
        let etag = object.etag();
        let same = |tag: &str| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag;
        return tags.split(',').any(|tag| same(tag.trim()));
    }
    let since = text(headers, header::IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date).ok());
    since.is_some_and(|date| date >= last_modified())
}

/// A range holds only while If-Range names this very object.
fn range_applies(headers: &HeaderMap, object: &Object) -> bool {
    text(headers, header::IF_RANGE).is_none_or(|condition| {
        condition == object.etag() || httpdate::parse_http_date(condition).is_ok_and(|date| date == last_modified())
    })
}

/// The answer to one range; what is no range of bytes, or several, is ignored, as the RFC allows.
fn range_part(text: &str, size: u64) -> Part {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Part::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..size.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.is_empty() => first..size,
        (Err(_), Ok(suffix)) if first.is_empty() => size.saturating_sub(suffix)..size,
        _ => return Part::Whole,
    };
    if range.is_empty() { Part::Unsatisfiable } else { Part::Range(range) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;
    use vibra_model::Bytes;

    fn asked(headers: &[(header::HeaderName, &str)]) -> Part {
        let catalogue = Catalogue::new([("/a", Bytes(100))]).unwrap();
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        part(&headers, catalogue.find("/a").unwrap().1)
    }

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-49", Part::Range(0..50)),
            ("bytes=50-", Part::Range(50..100)),
            ("bytes=-10", Part::Range(90..100)),
            ("bytes=-1000", Part::Range(0..100)),
            ("bytes=90-18446744073709551615", Part::Range(90..100)),
            ("bytes=100-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-4", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=x-", Part::Whole),
        ] {
            assert_eq!(asked(&[(header::RANGE, range)]), expected, "{range}");
        }
    }

    #[test]
    fn conditions() {
        let (since, tag) = (header::IF_MODIFIED_SINCE, header::IF_NONE_MATCH);
        let etag = Catalogue::new([("/a", Bytes(100))]).unwrap().find("/a").unwrap().1.etag();
        let list = format!("\"other\", W/{etag}");
        assert_eq!(asked(&[(since.clone(), "Thu, 01 Jan 1998 00:00:00 GMT")]), Part::NotModified);
        assert_eq!(asked(&[(since.clone(), "Tue, 30 Jun 1998 18:10:00 GMT")]), Part::NotModified);
        assert_eq!(asked(&[(since.clone(), "Wed, 31 Dec 1997 23:59:59 GMT")]), Part::Whole);
        assert_eq!(asked(&[(since.clone(), "soon")]), Part::Whole);
        assert_eq!(asked(&[(tag.clone(), &list)]), Part::NotModified);
        assert_eq!(asked(&[(tag.clone(), "*")]), Part::NotModified);
        // A tag that differs overrules the date.
        assert_eq!(asked(&[(tag, "\"other\""), (since, "Tue, 30 Jun 1998 18:10:00 GMT")]), Part::Whole);
    }

    #[test]
    fn a_range_of_another_version_is_ignored() {
        let range = (header::RANGE, "bytes=0-9");
        assert_eq!(asked(&[range.clone(), (header::IF_RANGE, "\"other\"")]), Part::Whole);
        let date = "Thu, 01 Jan 1998 00:00:00 GMT";
        assert_eq!(asked(&[range, (header::IF_RANGE, date)]), Part::Range(0..10));
    }
}

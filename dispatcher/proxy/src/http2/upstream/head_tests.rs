use super::*;
use crate::http1::head::Name;
use http::Response;

const RULES: Rules = Rules { fields: 100, line: 8192, target: 8192, coding_overrules_length: false };

fn read(status: u16, fields: &[(&'static str, &str)], is_empty: bool, to_head: bool) -> Result<ResponseHead, Bad> {
    let response = Response::builder().status(status);
    let response = fields.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    super::response(&response.body(()).unwrap().into_parts().0, is_empty, to_head, &RULES)
}

#[test]
fn a_head_reads_as_with_http_1() {
    let head = read(404, &[("etag", "\"v1\""), ("set-cookie", "a"), ("set-cookie", "b")], false, false).unwrap();
    assert_eq!((head.status.as_u16(), head.reason()), (404, &b"Not Found"[..]));
    assert_eq!(head.fields.get(Name::ETag), Some(&b"\"v1\""[..]));
    let mut lines = Vec::new();
    head.fields.copy_to(&mut lines, |_| true);
    assert_eq!(lines, b"etag: \"v1\"\r\nset-cookie: a\r\nset-cookie: b\r\n");
}

#[test]
fn rfc9113_8_1_a_body_ends_with_its_stream() {
    let length = |status, fields: &[(&'static str, &str)], is_empty, to_head| {
        let head = read(status, fields, is_empty, to_head).unwrap();
        (head.length, head.fields.get(Name::ContentLength).map(<[u8]>::to_vec))
    };
    let (seven, zero) = (&[("content-length", "7")][..], Some(b"0".to_vec()));
    assert_eq!(length(200, seven, false, false), (Length::Exact(7), Some(b"7".to_vec())));
    assert_eq!(length(200, &[], false, false), (Length::Chunked, None));
    assert_eq!(length(200, &[], true, false), (Length::None, zero), "it is known to be empty");
    assert_eq!(length(200, seven, true, true), (Length::None, Some(b"7".to_vec())));
    for (status, to_head) in [(204, false), (304, false), (200, true), (103, false)] {
        assert_eq!(length(status, &[], true, to_head), (Length::None, None), "{status}");
    }
}

#[test]
fn what_http_1_does_not_take_is_not_taken_here() {
    for (status, fields) in [
        (101, &[][..]),
        (200, &[("x-a", " 1")]),
        (200, &[("x-a", "1\t")]),
        (200, &[("content-length", "+1")]),
        (200, &[("content-length", "1"), ("content-length", "1")]),
    ] {
        assert_eq!(read(status, fields, false, false).unwrap_err(), Bad::Malformed, "{status} {fields:?}");
    }
}

use super::*;
use crate::http1::Length;
use http::Request;

const RULES: Rules = Rules { fields: 100, line: 8192, target: 8192, coding_overrules_length: false };

fn read(uri: &str, fields: &[(&'static str, &str)], has_body: bool) -> Result<RequestHead, Bad> {
    let mut request = Request::builder().method("POST").uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (parts, ()) = request.body(()).unwrap().into_parts();
    super::request(&parts, has_body, &RULES)
}

fn lines(head: &RequestHead) -> String {
    let mut bytes = Vec::new();
    head.fields.copy_to(&mut bytes, |_| true);
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_head_reads_as_with_http_1() {
    let fields = [("accept", "*/*"), ("x-a", "1"), ("x-a", "2")];
    let head = read("https://shop.example:8443/a?b", &fields, false).unwrap();
    assert_eq!((head.method.as_str(), head.path(), head.query()), ("POST", "/a", "?b"));
    assert_eq!((head.version, head.length), (Version::Http2, Length::None));
    assert_eq!(lines(&head), "host: shop.example:8443\r\naccept: */*\r\nx-a: 1\r\nx-a: 2\r\n");
}

#[test]
fn rfc9113_8_1_a_body_is_as_long_as_it_says_or_until_its_end() {
    assert_eq!(read("http://a/", &[("content-length", "7")], true).unwrap().length, Length::Exact(7));
    assert_eq!(read("http://a/", &[], true).unwrap().length, Length::Chunked);
    for wrong in ["7, 8", "+7", "7a", ""] {
        assert_eq!(read("http://a/", &[("content-length", wrong)], true).unwrap_err(), Bad::Malformed, "{wrong:?}");
    }
}

#[test]
fn rfc9113_8_2_1_values_have_no_blanks_around_them() {
    for wrong in [" x", "x ", "\tx", "x\t", " "] {
        assert_eq!(read("http://a/", &[("x-a", wrong)], false).unwrap_err(), Bad::Malformed, "{wrong:?}");
        assert_eq!(read("http://a/", &[("cookie", wrong)], false).unwrap_err(), Bad::Malformed, "{wrong:?}");
    }
    assert!(read("http://a/", &[("x-a", "x y"), ("x-b", "")], false).is_ok());
}

#[test]
fn rfc9113_8_2_3_cookies_are_one_field() {
    let head = read("http://a/", &[("cookie", "a=b"), ("x-a", "1"), ("cookie", "c=d")], false).unwrap();
    assert_eq!(lines(&head), "host: a\r\nx-a: 1\r\ncookie: a=b; c=d\r\n");
}

#[test]
fn rfc9113_8_3_1_host_names_what_authority_does() {
    for (uri, host) in [
        ("http://a.example/", "A.example"),
        ("http://a.example/", "a.example:80"),
        ("http://a.example:80/", "a.example"),
        ("http://a.example/", "a.example:"),
        ("https://a.example/", "a.example:443"),
    ] {
        assert!(read(uri, &[("host", host)], false).is_ok(), "{uri} {host}");
    }
    for (uri, host) in [
        ("http://a.example/", "b.example"),
        ("http://a.example/", "a.example:81"),
        ("http://a.example/", "a.example:443"),
        ("https://a.example/", "a.example:80"),
    ] {
        assert_eq!(read(uri, &[("host", host)], false).unwrap_err(), Bad::Malformed, "{uri} {host}");
    }
    // Without authority the field alone tells.
    assert_eq!(read("/", &[("host", "a.example")], false).unwrap().host(), Some(&b"a.example"[..]));
    assert_eq!(read("/", &[("host", "a"), ("host", "a")], false).unwrap_err(), Bad::Malformed);
    assert_eq!(read("/", &[], false).unwrap_err(), Bad::Malformed);
}

#[test]
fn rfc9113_8_3_1_targets_are_paths() {
    let target = |method: &str, target: &str| {
        let mut parts = Request::builder().method(method).uri("http://a/").body(()).unwrap().into_parts().0;
        let mut uri = parts.uri.into_parts();
        uri.path_and_query = Some(target.parse().unwrap());
        parts.uri = http::Uri::from_parts(uri).unwrap();
        super::request(&parts, false, &RULES).map(|head| head.path().to_owned())
    };
    assert_eq!(target("OPTIONS", "*").unwrap(), "*");
    assert_eq!(target("GET", "/a").unwrap(), "/a");
    assert_eq!(target("GET", "*").unwrap_err(), Bad::Malformed);
    assert_eq!(target("GET", "?b").unwrap_err(), Bad::Malformed);
    assert_eq!(target("CONNECT", "/").unwrap_err(), Bad::Unsupported);
}

#[test]
fn trailers_read_as_with_http_1() {
    let mut map = HeaderMap::new();
    map.append("x-sum", HeaderValue::from_static("1"));
    let mut bytes = Vec::new();
    trailers(&map, &RULES).unwrap().copy_to(&mut bytes, |_| true);
    assert_eq!(bytes, b"x-sum: 1\r\n");
    map.append("x-sum", HeaderValue::from_static(" 1"));
    assert_eq!(trailers(&map, &RULES).unwrap_err(), Bad::Malformed);
}

#[test]
fn responses_have_the_fields_that_were_written() {
    let map = fields(b"Server: a b\r\nX-A: 1\r\nx-a:  2 \r\nx-b:\r\n\r\nno: field");
    assert_eq!(map["server"], "a b");
    assert_eq!(map.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!((map["x-b"].as_bytes(), map.len()), (&b""[..], 4));
    assert_eq!(fields(b"\r\n").len(), 0);
}

#[test]
fn fields_are_the_lines_and_only_ids_are_not_to_be_remembered() {
    // Values are parts of one space, or, in a long head, spaces of their own.
    for long in ["", &"y".repeat(USUAL)] {
        let lines =
            format!("Server: nginx\r\nx-request-id: abc\r\nX-A:  1 \r\nx-a:\r\nx-long: {long}\r\n\r\nbody: no\r\n");
        let fields = fields(lines.as_bytes());
        let found: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            found,
            [("server", "nginx"), ("x-request-id", "abc"), ("x-a", "1"), ("x-a", ""), ("x-long", long)],
            "{} bytes",
            lines.len()
        );
        assert!(fields.iter().all(|(name, value)| value.is_sensitive() == (name == "x-request-id")));
    }
}

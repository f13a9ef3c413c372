use super::*;

const STRICT: Rules = Rules { fields: 100, line: 100, target: 80, coding_overrules_length: false };
const LENIENT: Rules = Rules { coding_overrules_length: true, ..STRICT };

fn request(text: &str) -> Result<RequestHead, Bad> {
    RequestHead::read(text.as_bytes(), &STRICT)
}

fn with(fields: &str) -> Result<RequestHead, Bad> {
    request(&format!("POST /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))
}

fn response(text: &str) -> Result<ResponseHead, Bad> {
    ResponseHead::read(text.as_bytes(), false, &STRICT)
}

#[test]
fn a_request_is_taken_apart() {
    let head = request("GET /a/b?c=d HTTP/1.1\r\nHost: shop.example:81\r\nX-Empty:\r\naccept:  */* \r\n\r\n").unwrap();
    assert_eq!((head.path(), head.query(), head.host()), ("/a/b", "?c=d", Some(&b"shop.example:81"[..])));
    assert!(head.keep_alive && !head.upgrades && !head.expects_continue && head.version == Version::Http11);
    let values: Vec<_> = head.fields.all(Name::Other).map(text).collect();
    assert_eq!(values, ["", "*/*"]);
    let mut copied = Vec::new();
    head.fields.copy_to(&mut copied, |name| name != Name::Host);
    assert_eq!(text(&copied), "X-Empty:\r\naccept:  */* \r\n");
}

#[test]
fn rfc9112_3_2_absolute_form_replaces_host() {
    let absolute = |target: &str, method: &str| {
        let head = request(&format!("{method} {target} HTTP/1.1\r\nHost: other\r\n\r\n"));
        head.map(|head| (text(head.host().unwrap()).to_owned(), format!("{} {}", head.path(), head.query())))
    };
    let pair = |host: &str, target: &str| Ok((host.to_owned(), target.to_owned()));
    assert_eq!(absolute("http://shop:81/a?b", "GET"), pair("shop:81", "/a ?b"));
    assert_eq!(absolute("HTTPS://shop", "GET"), pair("shop", "/ "));
    assert_eq!(absolute("http://shop?b", "GET"), pair("shop", "/ ?b"));
    assert_eq!(absolute("http://shop", "OPTIONS"), pair("shop", "* "));
    assert_eq!(absolute("*", "OPTIONS"), pair("other", "* "));
    for bad in ["http:///a", "http://", "http://me@shop/", "ftp://shop/", "*", "a", "/a#b", "/\u{e4}", "/a\"b\u{7f}"] {
        assert_eq!(absolute(bad, "GET"), Err(Bad::Malformed), "{bad:?}");
    }
}

#[test]
fn rfc9112_3_2_one_host_is_needed() {
    assert_eq!(request("GET / HTTP/1.1\r\n\r\n").unwrap_err(), Bad::Malformed);
    assert_eq!(with("Host: x\r\n").unwrap_err(), Bad::Malformed);
    for bad in ["a b", "a@b", "a/b", "a\u{e4}", "a, b \"", "<a>"] {
        assert_eq!(request(&format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n")).unwrap_err(), Bad::Malformed, "{bad:?}");
    }
    assert_eq!(request("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").unwrap().host(), Some(&b"[::1]:80"[..]));
    assert_eq!(request("GET / HTTP/1.1\r\nHost:\r\n\r\n").unwrap().host(), Some(&b""[..]));
    assert_eq!(request("GET / HTTP/1.0\r\n\r\n").unwrap().host(), None);
}

#[test]
fn rfc9112_5_fields_are_well_formed() {
    for bad in [
        "X : 1\r\n",
        " X: 1\r\n",
        "X: 1\r\n folded\r\n",
        "X: a\rb\r\n",
        "X: a\0b\r\n",
        "X\r\n",
        ": 1\r\n",
        "X\u{e4}: 1\r\n",
    ] {
        assert_eq!(with(bad).unwrap_err(), Bad::Malformed, "{bad:?}");
        assert_eq!(response(&format!("HTTP/1.1 200 OK\r\n{bad}\r\n")).unwrap_err(), Bad::Malformed, "{bad:?}");
    }
    assert!(with("X: \u{e4}\tb\r\n").is_ok(), "obs-text is no fault");
    let many = |n: usize| with(&"X: 1\r\n".repeat(n));
    assert!(many(99).is_ok());
    assert_eq!(many(100).unwrap_err(), Bad::TooManyFields);
}

#[test]
fn rfc9112_6_1_a_coding_beside_a_length_is_refused_unless_told_otherwise() {
    let both = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(both).unwrap_err(), Bad::Malformed);
    let head = RequestHead::read(both.as_bytes(), &LENIENT).unwrap();
    assert_eq!((head.length, head.keep_alive), (Length::Chunked, false));
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(response(both).unwrap_err(), Bad::Malformed);
    let head = ResponseHead::read(both.as_bytes(), false, &LENIENT).unwrap();
    assert_eq!((head.length, head.keep_alive), (Length::Chunked, false));
}

#[test]
fn rfc9112_6_1_codings_end_in_chunked() {
    assert_eq!(with("Transfer-Encoding: chunked\r\n").unwrap().length, Length::Chunked);
    assert_eq!(with("Transfer-Encoding: gzip, chunked\r\n").unwrap_err(), Bad::Unsupported);
    for bad in ["gzip", "chunked, gzip", "chunked, chunked", "", "chunked;a"] {
        assert_eq!(with(&format!("Transfer-Encoding: {bad}\r\n")).unwrap_err(), Bad::Malformed, "{bad:?}");
    }
    let old = request("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old.unwrap_err(), Bad::Malformed);
}

#[test]
fn rfc9112_6_2_lengths_are_one_number() {
    assert_eq!(with("Content-Length: 0\r\n").unwrap().length, Length::None);
    assert_eq!(with("Content-Length: 17\r\n").unwrap().length, Length::Exact(17));
    for bad in ["1\r\nContent-Length: 1", "1, 1", "-1", "+1", "0x1", "1 1", "", "99999999999999999999"] {
        assert_eq!(with(&format!("Content-Length: {bad}\r\n")).unwrap_err(), Bad::Malformed, "{bad:?}");
        let answer = response(&format!("HTTP/1.1 200 OK\r\nContent-Length: {bad}\r\n\r\n"));
        assert_eq!(answer.unwrap_err(), Bad::Malformed, "{bad:?}");
    }
}

#[test]
fn rfc9112_6_3_some_responses_have_no_body() {
    let answer = |status: u16, fields: &str, to_head: bool| {
        let text = format!("HTTP/1.1 {status} Any\r\n{fields}\r\n");
        ResponseHead::read(text.as_bytes(), to_head, &STRICT).unwrap().length
    };
    for status in [100, 103, 204, 304] {
        assert_eq!(answer(status, "Content-Length: 5\r\n", false), Length::None, "{status}");
    }
    assert_eq!(answer(200, "Content-Length: 5\r\n", true), Length::None);
    assert_eq!(answer(200, "Content-Length: 5\r\n", false), Length::Exact(5));
    assert_eq!(answer(200, "Transfer-Encoding: chunked\r\n", false), Length::Chunked);
    assert_eq!(answer(200, "", false), Length::UntilClose);
}

#[test]
fn rfc9112_9_3_connections_persist_unless_told_otherwise() {
    let kept = |version: &str, connection: &str| {
        request(&format!("GET / HTTP/{version}\r\nHost: x\r\nConnection: {connection}\r\n\r\n")).unwrap().keep_alive
    };
    assert!(kept("1.1", "x-a") && !kept("1.1", "x-a, Close") && !kept("1.0", "x-a") && kept("1.0", "Keep-Alive"));
    assert!(!kept("1.0", "keep-alive, close"));
}

#[test]
fn rfc9110_7_6_1_what_connection_lists_is_marked() {
    let head =
        with("Connection: X-Mine, host, Content-Length, close\r\nX-Mine: 1\r\nContent-Length: 3\r\nclose: no\r\n")
            .unwrap();
    let names: Vec<_> = head.fields.list.iter().map(|field| field.name).collect();
    assert_eq!(names, [Name::Host, Name::Connection, Name::Listed, Name::ContentLength, Name::Other]);
}

#[test]
fn rfc9110_7_8_an_upgrade_must_be_asked_for_in_both_fields() {
    assert!(with("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n").unwrap().upgrades);
    assert!(!with("Upgrade: websocket\r\n").unwrap().upgrades);
    assert!(!with("Connection: upgrade\r\n").unwrap().upgrades);
    assert!(!with("Connection: upgrade\r\nUpgrade: websocket, H2C\r\n").unwrap().upgrades, "it would carry requests");
}

#[test]
fn other_versions_and_tunnels_are_told_from_garbage() {
    assert_eq!(request("GET / HTTP/2.0\r\nHost: x\r\n\r\n").unwrap_err(), Bad::Version);
    assert_eq!(request("CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n").unwrap_err(), Bad::Unsupported);
    assert_eq!(request("nonsense\r\n\r\n").unwrap_err(), Bad::Malformed);
    assert_eq!(request("GET  / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap_err(), Bad::Malformed);
}

#[test]
fn a_status_line_is_taken_apart() {
    let head = response("HTTP/1.1 299 Quite Fine\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!((head.status.as_u16(), head.reason(), head.keep_alive), (299, &b"Quite Fine"[..], true));
    assert_eq!(response("HTTP/1.1 200\r\n\r\n").unwrap().reason(), b"");
    for bad in ["HTTP/1.1 abc OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n"] {
        assert_eq!(response(bad).unwrap_err(), Bad::Malformed, "{bad:?}");
    }
    assert_eq!(response("SSH-2.0-x\r\n\r\n").unwrap_err(), Bad::Version);
    let endless = response("HTTP/1.1 200 OK\r\n\r\n").unwrap();
    assert_eq!((endless.length, endless.keep_alive), (Length::UntilClose, false));
}

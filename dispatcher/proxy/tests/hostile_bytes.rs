//! Bytes of HTTP/1 that two readers could take for different messages, each named after the section that settles it.

mod kit;

use kit::refusals::{assert_bad, assert_bad_response, assert_refused};
use kit::{Client, Message, Server, before, wait_for};

/// What a server gets of a request, which is answered.
#[track_caller]
fn passed(request: &str) -> Message {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send(request);
    assert_eq!(client.response().unwrap().status(), 200, "{request:?}");
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "{request:?}");
    requests[0].clone()
}

#[test]
fn rfc9112_3_a_request_line_has_three_parts_and_two_spaces() {
    for line in [
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET /\tHTTP/1.1",
        " GET / HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / a HTTP/1.1",
        "GET /",
        "GET",
        "GET / http/1.1",
        "GET / HTTP/1.1x",
        "GET / HTTP/11",
        "G@T / HTTP/1.1",
        "GET: / HTTP/1.1",
        "GET /\u{e4} HTTP/1.1",
        "GET /\x7f HTTP/1.1",
    ] {
        assert_refused(format!("{line}\r\nHost: x\r\n\r\n").as_bytes(), 400, |_| {});
    }
}

#[test]
fn rfc9112_3_1_the_case_of_a_method_matters() {
    assert_eq!(passed("get / HTTP/1.1\r\nHost: x\r\n\r\n").start, "get / HTTP/1.1");
}

#[test]
fn rfc9112_3_2_a_host_is_one_host_with_one_port() {
    for host in [
        "a, b",
        "a,b:c",
        "a b",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:8a",
        ":80",
        "user@a",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "[::1",
        "::1",
        "[::1]x",
        "[::1]:x",
        "[]",
        "[a]",
        "[::1%25eth0]",
        "a]",
        "a[b]",
        "a%zz",
        "a%4",
        "\"a\"",
        "a\u{e4}",
    ] {
        assert_bad_host(host);
    }
    for host in ["a", "a:80", "a:", "A.b-c_d~e", "127.0.0.1:8080", "[::1]", "[::1]:80", "[::ffff:1.2.3.4]", "a%20b", ""]
    {
        assert_eq!(passed(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).header("host").as_deref(), Some(host));
    }
}

#[track_caller]
fn assert_bad_host(host: &str) {
    assert_refused(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(), 400, |_| {});
    // In a target these end the host.
    if !host.contains(['/', '?']) {
        assert_refused(format!("GET http://{host}/ HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(), 400, |_| {});
    }
}

#[test]
fn rfc9112_3_2_2_absolute_form_names_one_host_and_nobody_else() {
    for target in [
        "http://user@shop.example/",
        "http://user:secret@shop.example/",
        "http://shop.example@evil.example/",
        "http:///",
        "http://",
        "http:/shop.example/",
        "http:shop.example",
        "ftp://shop.example/",
        "shop.example:80",
        "shop.example/a",
        "http://shop.example\\@evil.example/",
        "/a#b",
        "*",
    ] {
        assert_refused(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n").as_bytes(), 400, |_| {});
    }
    for (target, path, host) in [
        ("http://other.example", "/", "other.example"),
        ("HTTP://other.example:8080/a?b", "/a?b", "other.example:8080"),
        ("http://other.example?b", "/?b", "other.example"),
        ("//other.example/a", "//other.example/a", "shop.example"),
        ("/http://other.example/", "/http://other.example/", "shop.example"),
    ] {
        let request = passed(&format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        assert_eq!((request.path(), request.header("host").as_deref()), (path, Some(host)), "{target}");
    }
}

#[test]
fn rfc9112_5_1_names_are_tokens() {
    for line in ["A B: c", "A\0: b", "(A): b", "A\u{e4}: b", "A,B: c", ": b", "A", "\x0bContent-Length: 3", "A\x7f: b"]
    {
        assert_bad(&format!("{line}\r\n"));
    }
}

#[test]
fn rfc9110_5_5_values_have_no_controls() {
    for byte in (0_u8..0x20).chain([0x7f]).filter(|&byte| byte != b'\t') {
        let request = [&b"GET / HTTP/1.1\r\nHost: x\r\nA: b"[..], &[byte], b"c\r\n\r\n"].concat();
        assert_refused(&request, 400, |_| {});
    }
    let passed = passed("GET / HTTP/1.1\r\nHost: x\r\nA:\t b\tc \t\r\nB: \u{e4}\r\nC:\r\n\r\n");
    for (name, value) in [("a", "b\tc"), ("b", "\u{e4}"), ("c", "")] {
        assert_eq!(passed.header(name).as_deref(), Some(value));
    }
}

#[test]
fn rfc9112_6_1_only_the_word_chunked_is_a_coding() {
    for value in [
        "xchunked",
        "chunked-x",
        "\"chunked\"",
        "chunked;q=1",
        "chunked,",
        ",chunked,",
        "identity",
        "chunked, identity",
        "",
        "chunked\u{a0}",
        "\u{b}chunked",
        "c hunked",
        "chunke\u{212a}",
    ] {
        assert_bad(&format!("Transfer-Encoding: {value}\r\n"));
    }
    assert_bad("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n");
    assert_bad("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked, chunked\r\n");
    assert_bad("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n");
    for value in ["Chunked", "CHUNKED", "\tchunked "] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:{value}\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(passed(&request).text(), "abc", "{value:?}");
    }
}

#[test]
fn rfc9112_6_3_a_request_without_length_has_no_body() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((client.response().unwrap().text(), client.response().unwrap().text()), ("well", "well"));
    assert_eq!(server.requests().iter().map(Message::path).collect::<Vec<_>>(), ["/a", "/b"]);
}

#[test]
fn rfc9112_7_1_1_chunk_extensions_are_read_over() {
    let body = "3;a=\"b;c\\\"d\";e\r\nabc\r\n2 ; f\r\nde\r\n0;last=\"0\"\r\n\r\n";
    let request = passed(&format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
    assert_eq!(request.text(), "abcde");
}

/// Bodies whose end depends on who reads.
const NO_CHUNKS: [&str; 12] = [
    // A quoted line end.
    "3;a=\"\r\nabc\"\r\nabc\r\n0\r\n\r\n\n",
    "3;a\nabc\r\n0\r\n\r\n",
    "3;a\rb\r\nabc\r\n0\r\n\r\n",
    "3\n\nabc\r\n0\r\n\r\n",
    "3 \r\nabc\r\n0\r\n\r\n",
    "3\t\r\nabc\r\n0\r\n\r\n",
    "0x3\r\nabc\r\n0\r\n\r\n",
    "3,3\r\nabc\r\n0\r\n\r\n",
    "ffffffffffffffffff\r\nabc",
    "3\r\nabc0\r\n\r\n",
    "3\r\nabcd\r\n0\r\n\r\n",
    "0\r\nA: b\nC: d\r\n\r\n",
];

#[test]
fn rfc9112_7_1_no_body_ends_by_guess() {
    for body in NO_CHUNKS {
        let server = Server::silent();
        let dispatcher = before(&server);
        let mut client = Client::of(&dispatcher);
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        assert_eq!(client.response().unwrap().status(), 400, "{body:?}");
        assert!(client.is_ended(), "{body:?}");
    }
}

#[test]
fn rfc9112_7_1_no_body_of_a_server_ends_by_guess() {
    let long = "3;".to_owned() + &"e".repeat(5000) + "\r\nabc\r\n0\r\n\r\n";
    for body in NO_CHUNKS.iter().map(ToString::to_string).chain([long]) {
        let sent = body.clone();
        let server = Server::run(move |connection| {
            connection.request()?;
            connection.send(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{sent}"))?;
            connection.wait_for_end()
        });
        let dispatcher = before(&server);
        let mut client = Client::of(&dispatcher);
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.response().is_err(), "{body:?}");
        wait_for("the server is let go", || dispatcher.status().servers[0].active == 0);
        assert_eq!(dispatcher.status().servers[0].failures["broken"], 1, "{body:?}");
    }
}

#[test]
fn rfc9110_6_5_1_trailers_change_nothing_that_a_head_decides() {
    let forbidden = "Host: evil\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\nConnection: x-kept\r\nTE: gzip\r\n\
                     X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nVia: 1.1 x\r\nX-Request-Id: 1\r\n\
                     Expect: 100-continue\r\nUpgrade: x\r\nMax-Forwards: 1\r\nRange: bytes=1-2\r\nIf-Match: \"a\"\r\n";
    let request = passed(&format!(
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{forbidden}X-Kept: 1\r\n\r\n"
    ));
    assert_eq!(request.text(), "a");
    assert_eq!(request.trailers, [("X-Kept".to_owned(), "1".to_owned())]);
}

#[test]
fn rfc9110_7_8_what_switches_must_say_to_what() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
    ] {
        let server = Server::run(move |connection| {
            connection.request()?;
            connection.send(answer)?;
            connection.wait_for_end()
        });
        let dispatcher = before(&server);
        let mut client = Client::of(&dispatcher);
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        assert_eq!(client.response().unwrap().status(), 502, "{answer:?}");
    }
}

/// Else the body's bytes could be taken for those of the new protocol, or the reverse.
#[test]
fn rfc9110_7_8_a_request_with_a_body_is_not_upgraded() {
    let request = passed(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
    );
    assert_eq!((request.text(), request.header("upgrade"), request.header("connection")), ("abc", None, None));
}

#[test]
fn rfc9110_15_2_interim_responses_are_bounded() {
    for (name, interim) in [
        ("100", "HTTP/1.1 100 Continue\r\n\r\n"),
        ("103", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        ("one without a name", "HTTP/1.1 199\r\n\r\n"),
    ] {
        let server = Server::run(move |connection| {
            connection.request()?;
            while connection.send(interim).is_ok() {}
            Ok(())
        });
        let dispatcher = before(&server);
        let mut client = Client::of(&dispatcher);
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (bytes, _) = client.rest();
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains("HTTP/1.1 502 ") && text.matches("HTTP/1.1 1").count() <= 32, "{name}: {text}");
    }
}

#[test]
fn rfc9110_15_2_an_old_client_gets_no_interim_response() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection
            .send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nwell")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "well");
}

#[test]
fn rfc9112_4_a_status_line_has_a_version_and_three_digits() {
    for line in [
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 x",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1  200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.1",
        "http/1.1 200 OK",
        " HTTP/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
    ] {
        assert_bad_response(format!("{line}\r\nContent-Length: 0\r\n\r\n").leak().as_bytes());
    }
}

/// What a server sends beyond a response that has no body is nobody's response, even if it comes late.
#[test]
fn rfc9112_6_3_a_body_that_there_cannot_be_is_no_response() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 38\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 38\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 38\r\n\r\n"),
    ] {
        let server = Server::run(move |connection| {
            if connection.number > 0 {
                return connection.answer_all(|_| "well".to_owned());
            }
            connection.request()?;
            connection.send(format!("{head}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"))?;
            connection.wait_for_end()
        });
        let dispatcher = before(&server);
        let mut client = Client::of(&dispatcher);
        client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        client.head().unwrap();
        client.send("DELETE /next HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response().unwrap().text(), "well", "{method} {head:?}");
    }
}

/// A server that announces a body where there can be none may send it after all, and late.
#[test]
fn rfc9110_15_3_5_a_204_that_announces_a_body_ends_its_connection() {
    for field in ["Content-Length: 38", "Transfer-Encoding: chunked"] {
        let server = Server::run(move |connection| {
            loop {
                connection.request()?;
                connection.send(format!("HTTP/1.1 204 No Content\r\n{field}\r\n\r\n"))?;
            }
        });
        let dispatcher = before(&server);
        let mut client = Client::of(&dispatcher);
        assert_eq!((client.get("/a").status(), client.get("/b").status()), (204, 204));
        assert_eq!(server.connections(), 2, "{field}");
    }
}

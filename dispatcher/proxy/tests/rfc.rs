//! Rules of HTTP, each named after the section that has it. Requests and responses are written byte by byte.

mod kit;

use kit::refusals::{assert_bad, assert_bad_response, assert_refused};
use kit::{Client, Connection, Server, before, dispatcher, metric, wait_for, with_admin};
use std::io;
use std::time::Duration;

/// What a server gets of what a client sends, and the client of what the server sends, byte for byte. The request asks for
/// the end of the connection, which is waited for.
fn through(request: &str, response: &'static str) -> (String, String) {
    let heard = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let log = heard.clone();
    let server = Server::run(move |connection| {
        let mut byte = [0];
        // The whole of the request is told by what ends it in these tests.
        while !log.lock().unwrap().ends_with(b"END") {
            connection.read_exact(&mut byte)?;
            log.lock().unwrap().push(byte[0]);
        }
        connection.send(response)
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send(request);
    let (got, _) = client.rest();
    let heard = String::from_utf8(heard.lock().unwrap().clone()).unwrap();
    (heard, String::from_utf8(got).unwrap())
}

#[test]
fn rfc9112_2_2_lines_end_in_cr_lf() {
    assert_refused(b"GET / HTTP/1.1\nHost: x\n\n", 400, |_| {});
    assert_refused(b"GET / HTTP/1.1\r\nHost: x\n\r\n", 400, |_| {});
    assert_refused(b"GET / HTTP/1.1\r\nHost: x\r\n\n", 400, |_| {});
    assert_refused(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400, |_| {});
    assert_refused(b"GET /\r HTTP/1.1\r\nHost: x\r\n\r\n", 400, |_| {});
    assert_refused(b"GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400, |_| {});
    assert_bad_response(b"HTTP/1.1 200 OK\nContent-Length: 0\n\n");
    assert_bad_response(b"HTTP/1.1 200 OK\r\nA: b\rc\r\nContent-Length: 0\r\n\r\n");
    assert_bad_response(b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn rfc9112_2_2_an_empty_line_before_a_request_is_ignored() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("\r\n");
    assert_eq!(client.get("/a").text(), "well");
    client.send("\r\n");
    assert_eq!(client.get("/b").text(), "well");
}

#[test]
fn rfc9112_2_3_other_versions_are_refused() {
    assert_refused(b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, |_| {});
    assert_refused(b"GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505, |_| {});
}

#[test]
fn rfc9112_3_2_host_is_there_once() {
    assert_refused(b"GET / HTTP/1.1\r\n\r\n", 400, |_| {});
    assert_refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, |_| {});
    assert_refused(b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, |_| {});
}

#[test]
fn rfc9112_5_1_no_space_before_the_colon() {
    assert_bad("A : b\r\n");
    assert_bad("A\t: b\r\n");
    assert_bad_response(b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n");
}

#[test]
fn rfc9112_5_2_no_folded_lines() {
    assert_bad("A: b\r\n c\r\n");
    assert_bad(" A: b\r\n");
    assert_bad_response(b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 0\r\n\r\n");
}

#[test]
fn rfc9112_6_1_a_coding_beside_a_length_is_refused_by_default() {
    assert_bad("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n");
    assert_bad_response(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
}

#[test]
fn rfc9112_6_3_the_coding_overrules_the_length_where_that_is_wanted() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| config.limits.coding_overrules_length = true);
    let mut client = Client::of(&dispatcher);
    client.send(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let response = client.response().unwrap();
    assert_eq!((response.text(), response.header("connection").as_deref()), ("well", Some("close")));
    let request = &server.requests()[0];
    assert_eq!((request.body.as_slice(), request.header("content-length")), (&b"abc"[..], None));
}

#[test]
fn rfc9112_6_1_the_last_coding_is_chunked() {
    assert_bad("Transfer-Encoding: gzip\r\n");
    assert_bad("Transfer-Encoding: chunked, gzip\r\n");
    assert_bad("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n");
    assert_refused(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, |_| {});
    assert_refused(b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", 400, |_| {});
    assert_bad_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n");
    assert_bad_response(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n");
}

#[test]
fn rfc9112_6_2_a_length_is_one_number() {
    for value in ["3\r\nContent-Length: 3", "3, 3", "+3", "-3", "3a", "", "0x3", "99999999999999999999"] {
        assert_bad(&format!("Content-Length: {value}\r\n"));
    }
    assert_bad_response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok");
    assert_bad_response(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok");
}

#[test]
fn rfc9112_6_3_some_responses_have_no_body() {
    let server = Server::run(|connection| {
        loop {
            let request = connection.request()?;
            let status = request.path().trim_start_matches('/').to_owned();
            connection.send(format!("HTTP/1.1 {status} Any\r\nContent-Length: 50\r\n\r\n"))?;
        }
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    for (method, status, length) in [("GET", 304, Some("50")), ("HEAD", 200, Some("50")), ("GET", 204, None)] {
        client.send(format!("{method} /{status} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let head = client.head().unwrap();
        assert_eq!((head.status(), head.header("content-length").as_deref()), (status, length));
    }
    assert_eq!(server.connections(), 1, "nothing was waited for");
}

#[test]
fn rfc9112_7_1_1_a_long_chunk_extension_is_refused() {
    let server = Server::silent();
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(format!("1;{}\r\nx\r\n0\r\n\r\n", "e".repeat(5000)));
    assert_eq!(client.response().unwrap().status(), 400);
    assert!(client.is_ended());
}

#[test]
fn rfc9112_7_1_chunks_that_are_none_are_refused() {
    for chunk in ["x\r\n", "1\nx\r\n", "1\r\nxy\r\n", "-1\r\n", "11111111111111111\r\n", "1\r\nx\r\n0\r\nA : b\r\n\r\n"]
    {
        let server = Server::silent();
        let dispatcher = before(&server);
        let mut client = Client::of(&dispatcher);
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"));
        assert_eq!(client.response().unwrap().status(), 400, "{chunk:?}");
        assert!(client.is_ended(), "{chunk:?}");
        assert_eq!(dispatcher.status().servers[0].failures["client"], 1, "{chunk:?}");
    }
}

/// A response without the id that the dispatcher has added.
fn without_id(response: &str) -> String {
    response.split_inclusive("\r\n").filter(|line| !line.starts_with("x-request-id:")).collect()
}

#[test]
fn rfc9112_7_1_2_trailers_are_passed_on_both_ways() {
    let (heard, got) = through(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n\
         3;ext=1\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nX-End: END\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 2\r\nTransfer-Encoding: x\r\n\r\n",
    );
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nte: trailers\r\nconnection: te\r\n"), "{head}");
    assert_eq!(body, "3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-End: END");
    let got = without_id(&got);
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    assert_eq!(head, "HTTP/1.1 200 OK\r\nDate: now\r\ntransfer-encoding: chunked\r\nconnection: close");
    assert_eq!(body, "2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n");
}

#[test]
fn rfc9112_9_6_a_body_until_the_end_of_the_connection_becomes_chunks() {
    let (_, got) = through(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: END\r\n\r\n",
        "HTTP/1.1 200 OK\r\nDate: now\r\n\r\nwhole",
    );
    let got = without_id(&got);
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    assert_eq!(head, "HTTP/1.1 200 OK\r\nDate: now\r\ntransfer-encoding: chunked\r\nconnection: close");
    assert_eq!(body, "5\r\nwhole\r\n0\r\n\r\n");
}

#[test]
fn rfc9110_6_6_1_a_date_is_added_where_there_is_none() {
    let server = Server::named("well");
    let date = kit::get(&before(&server), "/").header("date").expect("a date");
    assert!(date.ends_with(" GMT") && date.len() == 29, "{date}");
}

#[test]
fn rfc9110_7_6_2_max_forwards_counts_gateways() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let ask = |method: &str, forwards: &str| {
        let mut client = Client::of(&dispatcher);
        client.send(format!("{method} /a HTTP/1.1\r\nHost: x\r\nMax-Forwards: {forwards}\r\n\r\n"));
        client.response().unwrap().status()
    };
    for (method, forwards, heard) in [
        ("OPTIONS", "2", "1"),
        ("OPTIONS", "1", "0"),
        ("TRACE", "18446744073709551615", "18446744073709551614"),
        ("OPTIONS", "x", "x"),
        ("OPTIONS", "+1", "+1"),
        ("GET", "0", "0"),
    ] {
        assert_eq!(ask(method, forwards), 200, "{method} {forwards}");
        assert_eq!(
            server.requests().last().unwrap().header("max-forwards").as_deref(),
            Some(heard),
            "{method} {forwards}"
        );
    }
    let asked = server.requests().len();
    assert_eq!(ask("OPTIONS", "0"), 200);
    assert_eq!(ask("TRACE", "0"), 501);
    assert_eq!(server.requests().len(), asked, "neither went on");
}

#[test]
fn rfc9110_7_6_1_upgrade_and_te_stay_behind_unless_wanted() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nTE: gzip\r\nProxy-Connection: keep-alive\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "well");
    let request = &server.requests()[0];
    for name in ["upgrade", "te", "proxy-connection", "connection"] {
        assert_eq!(request.header(name), None, "{name}");
    }
}

/// A server that takes an upgrade and then echoes what it gets, until its end, in capitals.
fn echo(connection: &mut Connection) -> io::Result<()> {
    let request = connection.head()?;
    assert_eq!(request.header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(request.header("connection").as_deref(), Some("upgrade"));
    connection.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello ")?;
    let mut byte = [0];
    while connection.read_exact(&mut byte).is_ok() {
        connection.send([byte[0].to_ascii_uppercase()])?;
    }
    connection.send(" bye")
}

#[test]
fn rfc9110_7_8_an_upgrade_is_a_tunnel_after_the_servers_101() {
    let server = Server::run(echo);
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly ");
    let head = client.head().unwrap();
    assert_eq!(head.status(), 101);
    assert_eq!(head.header("upgrade").as_deref(), Some("websocket"));
    assert_eq!(head.header("connection").as_deref(), Some("upgrade"));
    client.send("late");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    let (bytes, end) = client.rest();
    assert_eq!((String::from_utf8(bytes).unwrap().as_str(), end.is_ok()), ("hello EARLY LATE bye", true));
    wait_for("the tunnel is over", || dispatcher.status().servers[0].active == 0);
    assert_eq!(dispatcher.status().servers[0].failures["client"], 0);
}

#[test]
fn rfc9110_7_8_a_tunnel_in_which_nothing_moves_ends() {
    let server = Server::run(echo);
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.tunnel = Duration::from_millis(50);
        with_admin(config);
    });
    let mut client = Client::of(&dispatcher);
    client.send("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 101);
    client.read_exact(&mut [0; "hello ".len()]).unwrap();
    assert!(client.is_ended());
    wait_for("the tunnel is over", || dispatcher.status().servers[0].active == 0);
    assert_eq!(metric(&dispatcher, "vibra_proxy_timeouts_total{wait=\"tunnel\"}"), 1);
}

#[test]
fn rfc9110_7_8_a_server_may_decline_an_upgrade() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "well");
    assert_eq!(client.get("/next").text(), "well");
}

#[test]
fn rfc9110_9_3_6_tunnels_are_refused() {
    assert_refused(b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 501, |_| {});
}

#[test]
fn rfc9110_10_1_1_a_final_answer_may_come_instead_of_100() {
    let server = Server::run(|connection| {
        connection.head()?;
        connection.send("HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let response = client.response().unwrap();
    assert_eq!((response.status(), response.text()), (417, "no"));
    assert_eq!(response.header("connection").as_deref(), Some("close"), "nobody knows whether the body still comes");
}

#[test]
fn rfc9110_13_conditions_and_ranges_pass_untouched() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 1-2/9\r\nContent-Length: 2\r\n\r\nbc")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    let fields = [
        ("if-match", "\"a\""),
        ("if-none-match", "W/\"b\""),
        ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("if-unmodified-since", "Sun, 06 Nov 1994 08:49:38 GMT"),
        ("if-range", "\"a\""),
        ("range", "bytes=1-2"),
    ];
    let lines: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
    let response = client.response().unwrap();
    assert_eq!((response.status(), response.text()), (206, "bc"));
    assert_eq!(response.header("content-range").as_deref(), Some("bytes 1-2/9"));
    for (name, value) in fields {
        assert_eq!(server.requests()[0].header(name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn rfc9110_15_5_9_a_request_that_takes_too_long_is_told_so() {
    let server = Server::silent();
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.header = std::time::Duration::from_millis(60);
        config.timeouts.response = std::time::Duration::from_millis(60);
    });
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHo");
    assert_eq!(client.response().unwrap().status(), 408);
    assert!(client.is_ended());
    let mut client = Client::of(&dispatcher);
    client.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nbe");
    assert_eq!(client.response().unwrap().status(), 408, "it is the client who is waited for");
    assert_eq!(dispatcher.status().servers[0].failures["timeout"], 0);
}

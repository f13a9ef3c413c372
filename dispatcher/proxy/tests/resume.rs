//! Servers that die in the middle of a body, and others that have the rest of it.

mod kit;

use kit::{Client, Message, Server, dispatcher, wait_for};
use std::io;
use vibra_proxy::Handle;

const BODY: &str = "0123456789abcdefghij";

/// A server that sends the head with `fields` and the first 7 bytes, and dies.
fn dying(fields: &'static str) -> Server {
    Server::run(move |connection| {
        connection.request()?;
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n{fields}\r\n{}", &BODY[..7]))
    })
}

/// A server that answers every request with `head` and the rest of the body from its eighth byte.
fn with_the_rest(head: &'static str) -> Server {
    Server::run(move |connection| {
        loop {
            connection.request()?;
            connection.send(format!("HTTP/1.1 {head}\r\n\r\n{}", &BODY[7..]))?;
        }
    })
}

const GOOD: &str = "206 Partial Content\r\nContent-Length: 13\r\nContent-Range: bytes 7-19/20\r\nETag: \"v1\"";

/// What a client gets of a body that `first` breaks off, with `second` as the next candidate.
fn get(first: &Server, second: &Server, request: &str) -> (Handle, io::Result<Message>) {
    let dispatcher = dispatcher(&[first.endpoint(), second.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    client.send(request);
    let response = client.response();
    (dispatcher, response)
}

const GET: &str = "GET /a HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nIf-None-Match: \"v0\"\r\n\r\n";

#[test]
fn the_client_gets_the_whole_and_notices_nothing() {
    let (first, second) = (dying("ETag: \"v1\"\r\n"), with_the_rest(GOOD));
    let (dispatcher, response) = get(&first, &second, GET);
    let response = response.unwrap();
    assert_eq!((response.start.as_str(), response.text()), ("HTTP/1.1 200 OK", BODY));
    assert_eq!(response.header("content-range"), None);
    let asked = &second.requests()[0];
    assert_eq!(asked.start, "GET /a HTTP/1.1");
    assert_eq!(asked.header("range").as_deref(), Some("bytes=7-"));
    assert_eq!(asked.header("if-range").as_deref(), Some("\"v1\""));
    assert_eq!(asked.header("accept-encoding").as_deref(), Some("gzip"));
    assert_eq!(asked.header("if-none-match"), None, "the condition was met before");
    wait_for("no request is active", || dispatcher.status().servers.iter().all(|server| server.active == 0));
    let status = dispatcher.status();
    assert_eq!(status.server("s1").unwrap().failures["broken"], 1, "it counts against the server that died");
    assert_eq!(status.server("s2").unwrap().responses["2xx"], 1);
}

#[test]
fn a_server_that_dies_as_well_passes_it_on_once_more() {
    let first = dying("ETag: \"v1\"\r\n");
    let second = Server::run(|connection| {
        connection.request()?;
        connection.send(format!("HTTP/1.1 {GOOD}\r\n\r\n{}", &BODY[7..10]))
    });
    let third = Server::run(|connection| {
        let asked = connection.request()?;
        assert_eq!(asked.header("range").as_deref(), Some("bytes=10-"));
        let head = "206 Partial Content\r\nContent-Length: 10\r\nContent-Range: bytes 10-19/20\r\nETag: \"v1\"";
        connection.send(format!("HTTP/1.1 {head}\r\n\r\n{}", &BODY[10..]))
    });
    let dispatcher = dispatcher(&[first.endpoint(), second.endpoint(), third.endpoint()], |_| {});
    assert_eq!(kit::get(&dispatcher, "/").text(), BODY);
}

/// So much goes from socket to socket unseen; what was taken and what was sent must be told apart all the same.
#[test]
fn a_large_body_is_resumed_at_the_byte_where_it_broke_off() {
    const SIZE: usize = 1 << 20;
    const BREAK: usize = 300_001;
    let body: Vec<u8> = (0..SIZE).map(|place| ((place * 31) >> 5) as u8).collect();
    let (start, rest) = (body[..BREAK].to_vec(), body[BREAK..].to_vec());
    let first = Server::run(move |connection| {
        connection.request()?;
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\nETag: \"v1\"\r\n\r\n"))?;
        connection.send(&start)
    });
    let second = Server::run(move |connection| {
        let asked = connection.request()?;
        assert_eq!(asked.header("range"), Some(format!("bytes={BREAK}-")));
        let length = SIZE - BREAK;
        connection.send(format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\nContent-Range: bytes {BREAK}-{}/{SIZE}\r\n\
             ETag: \"v1\"\r\n\r\n",
            SIZE - 1
        ))?;
        connection.send(&rest)?;
        connection.wait_for_end()
    });
    let (_dispatcher, response) = get(&first, &second, "GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(response.unwrap().body == body, "the body is another");
}

#[test]
fn where_anything_is_in_doubt_the_clients_connection_is_broken() {
    let whole = "200 OK\r\nContent-Length: 13\r\nETag: \"v2\"";
    let other = "206 Partial Content\r\nContent-Length: 13\r\nContent-Range: bytes 7-19/20\r\nETag: \"v2\"";
    let shifted = "206 Partial Content\r\nContent-Length: 13\r\nContent-Range: bytes 6-18/20\r\nETag: \"v1\"";
    let coded = "206 Partial Content\r\nContent-Length: 13\r\nContent-Range: bytes 7-19/20\r\nETag: \"v1\"\r\n\
                 Content-Encoding: gzip";
    for second in [whole, other, shifted, coded] {
        let (first, second) = (dying("ETag: \"v1\"\r\n"), with_the_rest(second));
        let (_dispatcher, response) = get(&first, &second, GET);
        assert!(response.is_err(), "{response:?}");
        assert_eq!(second.requests().len(), 1);
    }
}

#[test]
fn without_a_strong_validator_nobody_is_asked() {
    for fields in ["", "ETag: W/\"v1\"\r\n", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"] {
        let (first, second) = (dying(fields), with_the_rest(GOOD));
        let (_dispatcher, response) = get(&first, &second, GET);
        assert!(response.is_err(), "{response:?}");
        assert_eq!(second.requests(), []);
    }
    let (first, second) = (dying("ETag: \"v1\"\r\n"), with_the_rest(GOOD));
    let post = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let (_dispatcher, response) = get(&first, &second, post);
    assert!(response.is_err(), "{response:?}");
    assert_eq!(second.requests(), []);
}

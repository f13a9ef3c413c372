//! Clients that dawdle, send what is no request, or go away.

mod kit;

use kit::{Client, Server, before, dispatcher, wait_for};
use std::time::Duration;

const SOON: Duration = Duration::from_millis(60);

#[test]
fn what_is_no_request_is_refused() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        ("CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n", 501),
    ] {
        let mut client = Client::of(&dispatcher);
        client.send(request);
        assert_eq!(client.response().unwrap().status(), status, "{request:?}");
    }
    assert_eq!(server.requests(), []);
}

#[test]
fn a_length_beside_an_encoding_reaches_no_server() {
    let server = Server::well(|request| format!("{:?}", request.body.len()));
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n0\r\n\r\n");
    let status = client.response().unwrap().status();
    let requests = server.requests();
    // Refused or made clear: either way no server sees two lengths.
    assert!(status == 400 && requests.is_empty() || requests[0].header("content-length").is_none(), "{status}");
}

#[test]
fn a_head_beyond_the_limits_is_refused() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.limits.buffer = 8192;
        config.limits.headers = 20;
    });
    let mut client = Client::of(&dispatcher);
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(9000)));
    assert_eq!(client.response().unwrap().status(), 431);
    let mut client = Client::of(&dispatcher);
    client.send(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-Many: 1\r\n".repeat(30)));
    assert_eq!(client.response().unwrap().status(), 431);
    assert_eq!(server.requests(), []);
}

#[test]
fn a_head_that_takes_too_long_ends_the_connection_whatever_trickles_in() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| config.timeouts.header = SOON);
    let mut silent = Client::of(&dispatcher);
    assert!(silent.is_ended());
    let mut dawdler = Client::of(&dispatcher);
    assert_eq!(dawdler.get("/").text(), "well");
    dawdler.send("GET / HTTP/1.1\r\nHost: x\r\n");
    // One byte of a header at a time, for as long as it is taken.
    wait_for("the dawdler is cut off", || {
        std::io::Write::write_all(&mut dawdler.stream, b"x").is_err() || dispatcher.status().connections == 0
    });
}

#[test]
fn a_client_may_rest_for_a_while_and_no_longer() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| config.timeouts.client_idle = SOON);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").text(), "well");
    let (bytes, end) = client.rest();
    assert!(bytes.is_empty() && end.is_ok(), "a connection at rest is closed, not reset");
}

/// A size that no chain of buffers between server and client holds.
const HUGE: usize = 64 << 20;

#[test]
fn a_client_that_stops_reading_is_cut_off() {
    let server = Server::run(|connection| {
        connection.request()?;
        // Made beforehand, so that the server is not the one that dawdles.
        let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n").into_bytes();
        response.resize(response.len() + HUGE, b'x');
        connection.send(response)
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        // Long enough for a server that is slowed down by other tests.
        config.timeouts.stall = Duration::from_millis(500);
    });
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head().unwrap();
    wait_for("the client is cut off", || dispatcher.status().connections == 0);
    let status = dispatcher.status();
    assert_eq!((status.servers[0].active, status.servers[0].failures["client"]), (0, 1), "not the server's fault");
    assert!(client.rest().1.is_err(), "a part must not look whole");
}

#[test]
fn an_upload_that_comes_to_a_halt_is_no_failure_of_the_server() {
    let (server, gone) = Server::silent_until_end();
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\npart");
    wait_for("the server has the head", || server.requests().len() == 1);
    client.close();
    gone.recv_timeout(kit::PATIENCE).expect("the server learns that no more comes");
    wait_for("the request is given up", || dispatcher.status().servers[0].active == 0);
    let failures = &dispatcher.status().servers[0].failures;
    assert_eq!((failures["client"], failures["closed"]), (1, 0));
}

#[test]
fn clients_beyond_the_limit_wait_for_their_turn() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| config.limits.connections = 2);
    let mut first = Client::of(&dispatcher);
    let mut second = Client::of(&dispatcher);
    assert_eq!((first.get("/").text(), second.get("/").text()), ("well", "well"));
    let mut third = Client::of(&dispatcher);
    third.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(dispatcher.status().connections, 2);
    first.close();
    assert_eq!(third.response().unwrap().text(), "well");
}

//! The PROXY protocol: from trusted peers before the dispatcher, to servers behind it. The numbers are the sections of
//! its specification.

mod kit;

use kit::authority::Authority;
use kit::secure::{Secure, trusting};
use kit::{Client, Connection, Message, Server, dispatcher, wait_for};
use std::io::{self, Read};
use std::time::Duration;
use vibra_proxy::{ActiveCheck, Config, FrontTls, Handle, Peers, ProxyVersion, Source};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// From 192.0.2.1:56324 to 198.51.100.2:443.
const TCP4: &[u8] = b"\x21\x11\0\x0c\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb";

/// Makes a dispatcher want a header of its clients, from those networks.
fn demand(config: &mut Config, networks: &[&str]) {
    let trusted = networks.iter().map(|network| network.parse().unwrap()).collect();
    config.peers = Peers { trusted, demand_header: true, ..Peers::default() };
    config.admin = Some("127.0.0.1:0".parse().unwrap());
}

/// A dispatcher that wants a header of its clients, from this machine or `others` that are trusted.
fn demanding(server: &Server, others: &[&str]) -> Handle {
    let networks = [&["127.0.0.1"], others].concat();
    dispatcher(&[server.endpoint()], |config| demand(config, &networks))
}

/// What a server gets after a client has sent those bytes and a request.
fn after(header: &[u8]) -> Message {
    let server = Server::named("ok");
    let dispatcher = demanding(&server, &[]);
    let mut client = Client::of(&dispatcher);
    client.send([header, b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n"].concat());
    assert_eq!(client.response().unwrap().status(), 200);
    server.requests().remove(0)
}

fn forwarded_for(request: &Message) -> String {
    request.header("x-forwarded-for").unwrap()
}

/// The client gets nothing but the end of its connection, and the metric counts why.
fn closed(dispatcher: &Handle, mut client: Client, reason: &str) {
    let mut rest = Vec::new();
    // Closed with something unread, it ends in a reset.
    let _ = client.stream.read_to_end(&mut rest);
    assert_eq!(rest, b"", "{reason}");
    let counted = format!("headless_connections_total{{reason=\"{reason}\"}} 1\n");
    wait_for(&counted, || Client::connect(dispatcher.admin().unwrap()).get("/metrics").text().contains(&counted));
}

#[test]
fn section_2_1_a_line_tells_who_the_client_is() {
    let request = after(b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    assert_eq!(forwarded_for(&request), "192.0.2.1", "he is a stranger, whose claims do not count");
    assert_eq!(forwarded_for(&after(b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n")), "2001:db8::1");
    assert_eq!(forwarded_for(&after(b"PROXY UNKNOWN\r\n")), "10.9.9.9, 127.0.0.1", "the proxy itself is trusted");
}

#[test]
fn section_2_2_a_block_tells_who_the_client_is() {
    assert_eq!(forwarded_for(&after(&[SIGNATURE, TCP4].concat())), "192.0.2.1");
    assert_eq!(forwarded_for(&after(&[SIGNATURE, b"\x20\0\0\0"].concat())), "10.9.9.9, 127.0.0.1");
}

#[test]
fn section_2_a_header_may_come_in_pieces_and_with_what_follows() {
    let server = Server::named("ok");
    let dispatcher = demanding(&server, &[]);
    for header in [&[SIGNATURE, TCP4].concat()[..], b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"] {
        let mut client = Client::of(&dispatcher);
        for byte in header {
            client.send([*byte]);
        }
        // The second request comes without a header: that is the connection's, not the request's.
        for _ in 0..2 {
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.response().unwrap().status(), 200);
        }
    }
    assert_eq!(server.requests().iter().map(forwarded_for).collect::<Vec<_>>(), ["192.0.2.1"; 4]);
}

#[test]
fn a_client_behind_the_proxy_may_be_trusted_himself() {
    let server = Server::named("ok");
    let dispatcher = demanding(&server, &["192.0.2.0/24"]);
    let mut client = Client::of(&dispatcher);
    client.send(
        "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n",
    );
    assert_eq!(client.response().unwrap().status(), 200);
    assert_eq!(forwarded_for(&server.requests()[0]), "10.9.9.9, 192.0.2.1");
}

#[test]
fn section_2_a_connection_without_a_header_is_closed() {
    let server = Server::named("ok");
    let dispatcher = demanding(&server, &[]);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    closed(&dispatcher, client, "bad");
    assert_eq!(server.connections(), 0);
}

#[test]
fn section_2_strangers_are_not_heard() {
    let server = Server::named("ok");
    let dispatcher = dispatcher(&[server.endpoint()], |config| demand(config, &["192.0.2.0/24"]));
    let mut client = Client::of(&dispatcher);
    client.send("PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    closed(&dispatcher, client, "stranger");
    assert_eq!(server.connections(), 0);
}

#[test]
fn section_2_a_header_that_does_not_come_is_not_waited_for_for_ever() {
    let server = Server::named("ok");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        demand(config, &["127.0.0.1"]);
        config.timeouts.header = Duration::from_millis(30);
    });
    let mut client = Client::of(&dispatcher);
    client.send("PROXY TCP4 192.0.2.1 ");
    closed(&dispatcher, client, "late");
}

#[test]
fn section_2_a_header_that_breaks_off_is_none() {
    let server = Server::named("ok");
    let dispatcher = demanding(&server, &[]);
    let mut client = Client::of(&dispatcher);
    client.send(&SIGNATURE[..5]);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    closed(&dispatcher, client, "ended");
}

#[test]
fn section_2_a_header_that_is_not_wanted_is_no_request() {
    let server = Server::named("ok");
    let line = &b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"[..];
    for header in [line, &[SIGNATURE, TCP4].concat()] {
        let dispatcher = kit::before(&server);
        let mut client = Client::of(&dispatcher);
        client.send([header, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert_eq!(client.response().unwrap().status(), 400);
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn section_2_each_listener_wants_a_header_or_wants_none() {
    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let (authority, server) = (Authority::new(), Server::named("ok"));
    let site = authority.issue("site", &["shop.example"]);
    for (plain_wants, tls_wants) in [(false, true), (true, false)] {
        let dispatcher = dispatcher(&[server.endpoint()], |config| {
            demand(config, &["127.0.0.1"]);
            config.peers.demand_header = plain_wants;
            config.tls = Some(FrontTls {
                listen: vec!["127.0.0.1:0".parse().unwrap()],
                demand_header: tls_wants,
                certificates: vec![site.clone()],
                ..FrontTls::default()
            });
        });
        let [plain, tls] = [0, 1].map(|place| dispatcher.addresses()[place]);
        let connect = |address, header: bool| {
            let mut client = Client::connect(address);
            client.send(if header { LINE } else { b"" });
            client
        };
        let origin = |server: &Server| forwarded_for(server.requests().last().unwrap());
        let told = |wants: bool| if wants { "192.0.2.1" } else { "127.0.0.1" };
        let mut client = connect(plain, plain_wants);
        client.send(REQUEST);
        assert_eq!((client.response().unwrap().text(), origin(&server).as_str()), ("ok", told(plain_wants)));
        let mut client = Secure::over(connect(tls, tls_wants).stream, &trusting(&authority));
        assert_eq!((client.get("/").text(), origin(&server).as_str()), ("ok", told(tls_wants)));
        // What is not wanted, or missing, is refused.
        let mut client = connect(plain, !plain_wants);
        client.send(REQUEST);
        match client.response() {
            Ok(response) => assert!(!plain_wants && response.status() == 400, "{response:?}"),
            Err(error) => assert!(plain_wants, "{error}"),
        }
        let hello = connect(tls, !tls_wants).stream;
        assert!(Secure::over(hello, &trusting(&authority)).try_get("/").is_err(), "no handshake");
    }
}

/// A server whose connections begin with a header, which it answers every request with.
fn told(length: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Server {
    Server::run(move |connection| {
        let header = header(connection, &length)?;
        connection.answer_all(|_| header.escape_ascii().to_string())
    })
}

/// Reads bytes until they are a header.
fn header(connection: &mut Connection, is_whole: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut header = Vec::new();
    while !is_whole(&header) {
        let mut byte = [0];
        connection.read_exact(&mut byte)?;
        header.push(byte[0]);
    }
    Ok(header)
}

fn is_line(bytes: &[u8]) -> bool {
    bytes.ends_with(b"\r\n")
}

fn is_block(bytes: &[u8]) -> bool {
    bytes.get(14..16).is_some_and(|length| bytes.len() == 16 + usize::from(length[1]))
}

fn send_proxy(config: &mut Config, version: ProxyVersion) {
    let Source::Static(servers) = &mut config.source else { panic!("a fixed list") };
    servers.iter_mut().for_each(|server| server.manner.send_proxy = Some(version));
}

#[test]
fn section_2_1_servers_are_told_by_a_line() {
    let server = told(is_line);
    let dispatcher = dispatcher(&[server.endpoint()], |config| send_proxy(config, ProxyVersion::V1));
    let mut client = Client::of(&dispatcher);
    let (from, to) = (client.stream.local_addr().unwrap().port(), dispatcher.addresses()[0].port());
    assert_eq!(client.get("/").text(), format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\\r\\n"));
}

#[test]
fn section_2_2_servers_are_told_by_a_block() {
    let server = told(is_block);
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        demand(config, &["127.0.0.1"]);
        send_proxy(config, ProxyVersion::V2);
    });
    let mut client = Client::of(&dispatcher);
    client.send("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    assert_eq!(client.get("/").text(), [SIGNATURE, TCP4].concat().escape_ascii().to_string(), "as it was told itself");
}

#[test]
fn section_2_no_connection_carries_requests_of_two_clients() {
    let server = told(is_line);
    let dispatcher = dispatcher(&[server.endpoint()], |config| send_proxy(config, ProxyVersion::V1));
    let mut first = Client::of(&dispatcher);
    let told = first.get("/").text().to_owned();
    assert_eq!(first.get("/").text(), told);
    assert_eq!(server.connections(), 1, "his own connection is used again");
    first.close();
    wait_for("the first client to leave", || dispatcher.status().connections == 0);
    let mut second = Client::of(&dispatcher);
    assert_ne!(second.get("/").text(), told);
    assert_eq!(server.connections(), 2);
}

#[test]
fn a_connection_of_a_client_s_own_that_the_server_has_closed_is_made_anew() {
    let server = Server::run(|connection| {
        header(connection, is_line)?;
        let request = connection.request()?;
        connection.answer(request.path())
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| send_proxy(config, ProxyVersion::V1));
    let mut client = Client::of(&dispatcher);
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.get(path).text(), path);
    }
    assert_eq!(server.connections(), 3);
}

#[test]
fn section_2_2_checks_are_for_nobody_else() {
    let server = Server::run(|connection| {
        let local = header(connection, is_block)?;
        let request = connection.request()?;
        let status = if local == [SIGNATURE, b"\x20\0\0\0"].concat() { 200 } else { 500 };
        connection.send(format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nPath: {}\r\n\r\n", request.path()))
    });
    let check = ActiveCheck {
        path: Some("/health".to_owned()),
        interval: Duration::from_millis(10),
        fall: 1,
        ..ActiveCheck::default()
    };
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        send_proxy(config, ProxyVersion::V2);
        config.health.active = Some(check);
    });
    wait_for("some checks", || server.requests().len() >= 3);
    assert!(dispatcher.status().server("s1").unwrap().healthy);
}

//! What servers are told of where a request came from, whom the dispatcher believes, and loops.

mod kit;

use kit::{Client, Message, Server, dispatcher, get};
use std::sync::{Arc, OnceLock};
use vibra_proxy::{Forwarding, Handle, Peers};

/// A dispatcher before `server` that is named `edge`, with such peers besides.
fn before(server: &Server, peers: Peers) -> Handle {
    dispatcher(&[server.endpoint()], |config| config.peers = Peers { via: "edge".parse().unwrap(), ..peers })
}

/// Peers of whom those on this machine are believed.
fn believing(forwarding: Forwarding) -> Peers {
    let trusted = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    Peers { trusted, forwarding, ..Peers::default() }
}

fn unbelieving(forwarding: Forwarding) -> Peers {
    Peers { forwarding, ..Peers::default() }
}

/// What a server gets of a request with these lines after its first.
fn forwarded(peers: Peers, lines: &str) -> Message {
    let server = Server::named("ok");
    let dispatcher = before(&server, peers);
    let mut client = Client::of(&dispatcher);
    client.send(format!("GET / HTTP/1.1\r\n{lines}\r\n"));
    assert_eq!(client.response().unwrap().status(), 200);
    server.requests().remove(0)
}

/// The fields that tell where a request came from.
fn told(request: &Message) -> [Option<String>; 4] {
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"].map(|name| request.header(name))
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

const CLAIMS: &str = "Host: inner:8080\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 10.0.0.2\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n\
                      Forwarded: for=192.0.2.1;proto=https\r\n";

#[test]
fn what_strangers_claim_is_replaced() {
    let x = [some("127.0.0.1"), some("http"), some("inner:8080")];
    let rfc = some("for=127.0.0.1;proto=http;host=\"inner:8080\"");
    let told = |forwarding| told(&forwarded(unbelieving(forwarding), CLAIMS));
    assert_eq!(told(Forwarding::XForwarded), [x[0].clone(), x[1].clone(), x[2].clone(), None]);
    assert_eq!(told(Forwarding::Rfc7239), [None, None, None, rfc.clone()]);
    assert_eq!(told(Forwarding::Both), [x[0].clone(), x[1].clone(), x[2].clone(), rfc]);
    assert_eq!(told(Forwarding::Off), [None, None, None, None]);
}

#[test]
fn what_trusted_peers_claim_is_added_to() {
    let x = [some("192.0.2.1, 10.0.0.2, 127.0.0.1"), some("https"), some("shop.example")];
    let rfc = some("for=192.0.2.1;proto=https, for=127.0.0.1;proto=http;host=\"inner:8080\"");
    let told = |forwarding| told(&forwarded(believing(forwarding), CLAIMS));
    assert_eq!(told(Forwarding::XForwarded), [x[0].clone(), x[1].clone(), x[2].clone(), None]);
    assert_eq!(told(Forwarding::Rfc7239), [None, None, None, rfc.clone()]);
    assert_eq!(told(Forwarding::Both), [x[0].clone(), x[1].clone(), x[2].clone(), rfc]);
    assert_eq!(told(Forwarding::Off), [None, None, None, None]);
}

#[test]
fn trusted_peers_may_claim_nothing() {
    let told = told(&forwarded(believing(Forwarding::XForwarded), "Host: shop.example\r\n"));
    assert_eq!(told, [some("127.0.0.1"), some("http"), some("shop.example"), None]);
}

#[test]
fn claims_cannot_be_listed_away() {
    let lines = "Host: a\r\nConnection: x-forwarded-for, via\r\nX-Forwarded-For: 192.0.2.1\r\nVia: 1.1 fred\r\n";
    let request = forwarded(believing(Forwarding::XForwarded), lines);
    assert_eq!(request.header("x-forwarded-for"), some("192.0.2.1, 127.0.0.1"));
    assert_eq!(request.header("via"), some("1.1 fred, 1.1 edge"));
}

#[test]
fn rfc7239_4_an_open_quotation_swallows_nothing() {
    let lines = "Host: a\r\nForwarded: for=192.0.2.1\r\nForwarded: for=\"192.0.2.2\r\n";
    let told = told(&forwarded(believing(Forwarding::Rfc7239), lines));
    assert_eq!(told[3], some("for=127.0.0.1;proto=http;host=a"));
}

#[test]
fn rfc9110_7_6_3_via_names_each_hop() {
    let server = Server::named("ok");
    let dispatcher = before(&server, Peers::default());
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred (old)\r\nVia: 1.1 wilma\r\n\r\n");
    assert_eq!(client.response().unwrap().status(), 200);
    let mut old = Client::of(&dispatcher);
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.response().unwrap().status(), 200);
    let via: Vec<_> = server.requests().iter().map(|request| request.header("via")).collect();
    assert_eq!(via, [some("1.0 fred (old), 1.1 wilma, 1.1 edge"), some("1.0 edge")]);
}

#[test]
fn rfc9110_7_6_3_a_request_that_was_here_is_refused() {
    let server = Server::named("ok");
    let dispatcher = before(&server, Peers::default());
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 fred, 1.1 Edge\r\n\r\n");
    assert_eq!(client.response().unwrap().status(), 508);
    client.send("GET / HTTP/1.1\r\nHost: a\r\nVia: 1.1 fred (, 1.1 edge\r\n\r\n");
    assert_eq!(client.response().unwrap().status(), 508);
    // The connection is as good as before.
    client.send("GET /fine HTTP/1.1\r\nHost: a\r\nVia: 1.1 fred\r\n\r\n");
    assert_eq!(client.response().unwrap().status(), 200);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn rfc9110_7_6_3_a_server_that_leads_back_to_the_dispatcher_is_noticed() {
    let back = Arc::new(OnceLock::new());
    let way = back.clone();
    let server = Server::well(move |request| {
        let mut client = Client::connect(*way.get().unwrap());
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nVia: {}\r\n\r\n", request.header("via").unwrap()));
        client.response().unwrap().status().to_string()
    });
    let dispatcher = kit::before(&server);
    back.set(dispatcher.addresses()[0]).unwrap();
    assert_eq!(get(&dispatcher, "/").text(), "508");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn two_dispatchers_may_stand_one_behind_the_other() {
    let server = Server::named("ok");
    let inner = kit::before(&server);
    let outer = dispatcher(&[inner.addresses()[0].to_string()], |_| {});
    assert_eq!(get(&outer, "/").status(), 200);
    assert_eq!(server.requests()[0].header("via").unwrap().matches("1.1 vibra-").count(), 2);
}

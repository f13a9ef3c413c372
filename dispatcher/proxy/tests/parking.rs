//! Connections that have had nothing to say for a while: they are parked, and nobody notices.

mod kit;

use kit::authority::Authority;
use kit::http2::{DATA, END_STREAM, GET, GOAWAY, Peer};
use kit::secure::{Secure, trusting};
use kit::{Client, PATIENCE, Server, block_on, dispatcher, metric, wait_for, with_admin};
use std::time::Duration;
use vibra_proxy::{CertificateFiles, Config, FrontTls, Handle, Peers};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

fn parking(server: &Server, change: impl FnOnce(&mut Config)) -> Handle {
    dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        change(config);
    })
}

fn wait_for_parked(dispatcher: &Handle, connections: u64) {
    let parked = || metric(dispatcher, "vibra_proxy_parked_connections");
    wait_for("so many connections are parked", || parked() == connections);
}

/// A client whose connection is parked.
fn parked(dispatcher: &Handle) -> Client {
    let mut client = Client::of(dispatcher);
    assert_eq!(client.get("/").status(), 200);
    wait_for_parked(dispatcher, 1);
    client
}

#[test]
fn a_parked_connection_serves_the_next_request_however_it_comes() {
    let server = Server::well(|request| request.path().to_owned());
    let dispatcher = parking(&server, |_| {});
    let mut client = parked(&dispatcher);
    assert_eq!(client.get("/whole").text(), "/whole");
    wait_for_parked(&dispatcher, 1);
    client.send("G");
    wait_for_parked(&dispatcher, 0);
    client.send("ET /pieces HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "/pieces");
    wait_for_parked(&dispatcher, 1);
    let pipelined = |path| format!("POST {path} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 4\r\n\r\nbody");
    client.send(["/first", "/second"].map(pipelined).concat());
    assert_eq!(client.response().unwrap().text(), "/first");
    assert_eq!(client.response().unwrap().text(), "/second");
    assert_eq!((dispatcher.status().connections, server.requests().len()), (1, 5));
}

/// Rests of all lengths follow one another: parked at once, parked after a while, not parked.
#[test]
fn whatever_the_last_rest_was_the_next_request_is_answered() {
    let server = Server::well(|request| request.path().to_owned());
    let dispatcher = parking(&server, |_| {});
    let mut client = Client::of(&dispatcher);
    for round in 0..3 {
        for n in 0..5 {
            let path = format!("/{round}/{n}");
            assert_eq!(client.get(&path).text(), path);
        }
        wait_for_parked(&dispatcher, 1);
    }
    assert_eq!((dispatcher.status().connections, server.connections()), (1, 1));
}

#[test]
fn who_has_parked_is_still_who_he_was() {
    let server = Server::named("well");
    let dispatcher = parking(&server, |config| {
        let trusted = ["127.0.0.1".parse().unwrap()].into_iter().collect();
        config.peers = Peers { trusted, demand_header: true, ..Peers::default() };
    });
    let mut client = Client::of(&dispatcher);
    client.send("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n");
    assert_eq!(client.get("/").status(), 200);
    wait_for_parked(&dispatcher, 1);
    assert_eq!(client.get("/").status(), 200);
    let forwarded_for: Vec<_> = server.requests().iter().map(|request| request.header("x-forwarded-for")).collect();
    assert_eq!(forwarded_for, vec![Some("192.0.2.1".to_owned()); 2]);
}

#[test]
fn a_parked_connection_that_the_client_closes_leaves_nothing_behind() {
    let server = Server::named("well");
    let dispatcher = parking(&server, |config| config.limits.connections_per_address = 1);
    let client = parked(&dispatcher);
    assert!(Client::of(&dispatcher).is_ended(), "a parked connection counts");
    client.close();
    wait_for("it has gone", || dispatcher.status().connections == 0);
    wait_for_parked(&dispatcher, 0);
    assert_eq!(kit::get(&dispatcher, "/").text(), "well");
}

#[test]
fn a_parked_connection_that_overstays_is_closed() {
    let server = Server::named("well");
    let dispatcher = parking(&server, |config| config.timeouts.client_idle = Duration::from_secs(3));
    let mut client = parked(&dispatcher);
    assert!(client.is_ended());
    wait_for("that is counted", || metric(&dispatcher, "vibra_proxy_timeouts_total{wait=\"idle\"}") == 1);
    wait_for("it has gone", || metric(&dispatcher, "vibra_proxy_open_connections") == 0);
    wait_for_parked(&dispatcher, 0);
}

#[test]
fn a_stop_closes_what_is_parked() {
    let server = Server::named("well");
    let dispatcher = parking(&server, |_| {});
    let mut client = parked(&dispatcher);
    assert_eq!(block_on(dispatcher.shutdown(PATIENCE)), 0);
    assert!(client.is_ended());
}

#[test]
fn who_has_asked_just_before_a_stop_is_answered_though_he_was_parked() {
    let server = Server::named("well");
    let dispatcher = parking(&server, |_| {});
    let mut client = parked(&dispatcher);
    client.send(REQUEST);
    assert_eq!(block_on(dispatcher.shutdown(PATIENCE)), 0);
    assert_eq!(client.response().unwrap().text(), "well");
    assert!(client.is_ended());
}

/// Clients that ask again just as they are about to be parked, each a little later than the one before, and a stop in the
/// middle of that.
#[test]
fn a_request_that_meets_the_parking_is_answered() {
    const CLIENTS: u64 = 50;
    let server = Server::named("well");
    let dispatcher = parking(&server, |config| config.limits.connections_per_address = 1000);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::of(&dispatcher)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "well");
    }
    wait_for("some are parked", || metric(&dispatcher, "vibra_proxy_parked_connections") > 0);
    for client in &mut clients {
        assert_eq!(client.get("/").text(), "well");
    }
    assert_eq!(dispatcher.status().connections, CLIENTS);
    wait_for("some are parked again", || metric(&dispatcher, "vibra_proxy_parked_connections") > 0);
    assert_eq!(block_on(dispatcher.shutdown(PATIENCE)), 0);
    assert!(clients.iter_mut().all(Client::is_ended));
}

/// They have a state of their own, which a parked connection has no place for.
#[test]
fn connections_under_tls_and_of_http_2_are_not_parked() {
    let (authority, server) = (Authority::new(), Server::named("well"));
    let certificates: Vec<CertificateFiles> = vec![authority.issue("site", &["shop.example"])];
    let dispatcher = parking(&server, |config| {
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.tls = Some(FrontTls { listen, certificates, ..FrontTls::default() });
    });
    let mut tls = Secure::connect(dispatcher.addresses()[1], &trusting(&authority));
    let mut http2 = Peer::of(&dispatcher);
    let mut both_are_served = |stream| {
        assert_eq!(tls.get("/").text(), "well");
        http2.open(stream, &GET, END_STREAM);
        assert_eq!(http2.next(&[DATA, GOAWAY]).payload, b"well");
    };
    both_are_served(1);
    // Once one is parked that asked twice at once and has rested for a shorter time, they would be as well.
    let mut plain = Client::of(&dispatcher);
    plain.get("/");
    plain.get("/");
    wait_for_parked(&dispatcher, 1);
    assert_eq!((dispatcher.status().connections, server.requests().len()), (3, 4));
    both_are_served(3);
    assert_eq!(plain.get("/").text(), "well");
    wait_for_parked(&dispatcher, 1);
}

//! Servers that fail are left alone for a while, and get requests again once they are well.

mod kit;

use kit::{Client, Connection, Server, dispatcher, nowhere, wait_for};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use vibra_proxy::{ActiveCheck, Handle, PassiveCheck};

const QUICK: ActiveCheck =
    ActiveCheck { path: None, interval: Duration::from_millis(10), timeout: Duration::from_secs(2), rise: 2, fall: 3 };

fn used(dispatcher: &Handle, name: &str) -> bool {
    dispatcher.status().server(name).unwrap().used
}

/// A server that is ill on demand: it then answers 500 to checks and garbage to requests.
fn moody() -> (Server, Arc<AtomicBool>) {
    let ill = Arc::new(AtomicBool::new(false));
    let mood = ill.clone();
    let script = move |connection: &mut Connection| -> io::Result<()> {
        loop {
            let request = connection.request()?;
            match (mood.load(SeqCst), request.path()) {
                (false, _) => connection.answer("moody")?,
                (true, "/health") => connection.send("HTTP/1.1 500 Ill\r\nContent-Length: 0\r\n\r\n")?,
                (true, _) => return connection.send("cough\r\n\r\n"),
            }
        }
    };
    (Server::run(script), ill)
}

#[test]
fn a_server_that_fails_again_and_again_is_ejected_and_comes_back() {
    let (moody, ill) = moody();
    let steady = Server::named("steady");
    let dispatcher = dispatcher(&[moody.endpoint(), steady.endpoint()], |config| {
        config.health.passive =
            PassiveCheck { failures: 3, first: Duration::from_millis(300), longest: Duration::from_secs(60) };
    });
    ill.store(true, SeqCst);
    let mut client = Client::of(&dispatcher);
    let mut bad = 0;
    wait_for("the server is ejected", || {
        bad += usize::from(client.get("/").status() == 502);
        !used(&dispatcher, "s1")
    });
    assert!(bad >= 3, "{bad} failures were enough");
    let picks = dispatcher.status().server("s1").unwrap().picks;
    assert!((0..10).all(|_| client.get("/").text() == "steady"));
    assert_eq!(dispatcher.status().server("s1").unwrap().picks, picks);
    ill.store(false, SeqCst);
    wait_for("the server is back", || client.get("/").text() == "moody");
}

#[test]
fn refused_connections_eject_too() {
    let steady = Server::named("steady");
    let dispatcher = dispatcher(&[nowhere(), steady.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    wait_for("the server is ejected", || {
        assert_eq!(client.get("/").text(), "steady");
        !used(&dispatcher, "s1")
    });
    assert_eq!(dispatcher.status().server("s1").unwrap().failures["connect"], 5, "the default");
}

#[test]
fn without_any_healthy_server_all_are_tried() {
    let (moody, ill) = moody();
    let dispatcher = dispatcher(&[moody.endpoint()], |config| {
        config.health.passive.failures = 1;
        config.health.passive.first = Duration::from_secs(3600);
        config.health.passive.longest = Duration::from_secs(3600);
    });
    ill.store(true, SeqCst);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").status(), 502);
    wait_for("the dispatcher panics", || dispatcher.status().panic);
    let status = dispatcher.status();
    assert_eq!((status.servers[0].healthy, status.servers[0].used), (false, true));
    ill.store(false, SeqCst);
    assert_eq!(client.get("/").text(), "moody");
}

#[test]
fn active_checks_find_who_is_ill_and_who_is_well_again() {
    let (moody, ill) = moody();
    let steady = Server::named("steady");
    let dispatcher = dispatcher(&[moody.endpoint(), steady.endpoint()], |config| {
        config.health.active = Some(ActiveCheck { path: Some("/health".to_owned()), ..QUICK });
    });
    wait_for("checks arrive", || moody.requests().len() > 3);
    assert!(used(&dispatcher, "s1"));
    ill.store(true, SeqCst);
    wait_for("the ill server is found out without a request", || !used(&dispatcher, "s1"));
    let mut client = Client::of(&dispatcher);
    assert!((0..6).all(|_| client.get("/").text() == "steady"));
    ill.store(false, SeqCst);
    wait_for("the server is well again", || used(&dispatcher, "s1"));
    assert!(moody.requests().iter().all(|request| request.path() == "/health"));
    assert!(moody.requests().iter().all(|request| request.header("host") == Some(moody.endpoint())));
}

#[test]
fn a_connection_is_check_enough_where_no_path_is_given() {
    let steady = Server::named("steady");
    let dispatcher = dispatcher(&[nowhere(), steady.endpoint()], |config| config.health.active = Some(QUICK));
    wait_for("who is not there is found out", || !used(&dispatcher, "s1"));
    assert!(used(&dispatcher, "s2"));
    assert_eq!(dispatcher.status().server("s1").unwrap().picks, 0);
}

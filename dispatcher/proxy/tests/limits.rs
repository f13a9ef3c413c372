//! What happens at each limit: to what is beyond it, and to the rest.

mod kit;

use kit::{Client, PATIENCE, Server, dispatcher, get, metric, wait_for, with_admin};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use vibra_proxy::log::{Format, Target};
use vibra_proxy::{AccessLog, Handle, RateLimit};
use vibra_routing::Algorithm;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";

/// Holds requests back until it is opened.
#[derive(Clone, Default)]
struct Barrier(Arc<(Mutex<bool>, Condvar)>);

impl Barrier {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (open, changed) = (self.0.0.lock().unwrap(), &self.0.1);
        drop(changed.wait_timeout_while(open, PATIENCE, |open| !*open).unwrap());
    }
}

/// A server that answers once the barrier is open.
fn slow(barrier: &Barrier) -> Server {
    let barrier = barrier.clone();
    Server::well(move |_| {
        barrier.pass();
        "at last".to_owned()
    })
}

/// Sends a byte every few milliseconds for as long as the other side takes them and says nothing.
fn dribble(client: &mut Client) {
    let began = Instant::now();
    client.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let says_nothing = |stream: &TcpStream| match stream.peek(&mut [0]) {
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        Ok(_) => false,
    };
    while says_nothing(&client.stream) && client.stream.write(b"x").is_ok() {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}");
    }
    client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// Takes a byte every few milliseconds until there are no more.
fn sip(client: &mut Client) -> io::Result<()> {
    let began = Instant::now();
    let (_, stopped) = std::sync::mpsc::channel::<()>();
    while client.stream.read(&mut [0])? > 0 {
        let _ = stopped.recv_timeout(Duration::from_millis(5));
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}");
    }
    Ok(())
}

fn active(dispatcher: &Handle, server: &str) -> (u32, usize) {
    let status = dispatcher.status();
    let server = status.server(server).unwrap();
    (server.active, server.waiting)
}

#[test]
fn a_head_that_dribbles_in_is_cut_off_and_others_are_served() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.timeouts.header = Duration::from_millis(100);
    });
    let mut slow = Client::of(&dispatcher);
    slow.send("GET / HTTP/1.1\r\nHost: shop.example\r\nX-Slow: ");
    assert_eq!(get(&dispatcher, "/").text(), "well");
    dribble(&mut slow);
    assert_eq!(slow.response().unwrap().status(), 408);
    assert_eq!(metric(&dispatcher, "vibra_proxy_timeouts_total{wait=\"header\"}"), 1);
    assert_eq!(get(&dispatcher, "/").text(), "well");
}

#[test]
fn a_body_that_dribbles_in_is_cut_off_and_others_are_served() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.upload_rate = 1_000_000;
        config.timeouts.slow = Duration::from_millis(100);
    });
    let mut slow = Client::of(&dispatcher);
    slow.send("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\n");
    dribble(&mut slow);
    let response = slow.response().unwrap();
    assert_eq!((response.status(), response.header("connection").as_deref()), (408, Some("close")));
    assert_eq!(metric(&dispatcher, "vibra_proxy_timeouts_total{wait=\"upload\"}"), 1);
    assert_eq!(get(&dispatcher, "/").text(), "well");
}

#[test]
fn a_server_that_takes_a_body_slowly_is_not_held_against_the_client() {
    let body = "x".repeat(8 << 20);
    let server = Server::run(|connection| {
        // Reads nothing for longer than a client may dawdle.
        connection.head()?;
        std::thread::sleep(Duration::from_millis(300));
        connection.read_exact(&mut vec![0; 8 << 20])?;
        connection.answer("taken")
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.limits.upload_rate = 1_000_000_000;
        config.timeouts.slow = Duration::from_millis(100);
    });
    let mut client = Client::of(&dispatcher);
    client.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(client.response().unwrap().text(), "taken");
}

#[test]
fn a_client_that_sips_is_cut_off_and_others_are_served() {
    let body = "x".repeat(32 << 20);
    let server =
        Server::well(move |request| if request.path() == "/large" { body.clone() } else { "small".to_owned() });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.download_rate = 100_000_000;
        config.timeouts.slow = Duration::from_millis(200);
    });
    let mut slow = Client::of(&dispatcher);
    slow.send("GET /large HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(slow.head().unwrap().status(), 200);
    assert_eq!(get(&dispatcher, "/").text(), "small");
    assert_eq!(sip(&mut slow).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(metric(&dispatcher, "vibra_proxy_timeouts_total{wait=\"download\"}"), 1);
    wait_for("the server is rid of the request", || active(&dispatcher, "s1") == (0, 0));
}

#[test]
fn a_client_that_asks_too_often_is_told_so_while_another_is_served() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        let (per_second, burst) = (NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let clients = NonZeroUsize::new(1000).unwrap();
        config.limits.rate = Some(RateLimit { per_second, burst, header: None, clients });
    });
    let mut greedy = Client::at([127, 0, 0, 2], &dispatcher);
    let answers: Vec<_> = (0..20).map(|_| greedy.get("/")).collect();
    assert!(answers[..3].iter().all(|answer| answer.status() == 200));
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status() == 429).collect();
    // A slow machine may let one more pass.
    assert!(refused.len() >= 10, "{}", refused.len());
    assert!(refused.iter().all(|answer| answer.header("retry-after").as_deref() == Some("1")));
    assert_eq!(Client::at([127, 0, 0, 3], &dispatcher).get("/").status(), 200);
    let counted = metric(&dispatcher, "vibra_proxy_refused_total{status=\"429\",reason=\"rate\"}");
    assert_eq!(counted, refused.len() as u64);
}

#[test]
fn a_rate_may_go_by_a_header() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        let (clients, header) = (NonZeroUsize::new(1000).unwrap(), Some("x-api-key".to_owned()));
        config.limits.rate = Some(RateLimit { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN, header, clients });
    });
    let ask = |key: &str| {
        let mut client = Client::of(&dispatcher);
        client.send(format!("GET / HTTP/1.1\r\nHost: shop.example\r\nX-API-Key: {key}\r\n\r\n"));
        client.response().unwrap().status()
    };
    assert_eq!(ask("a"), 200);
    assert!((0..10).any(|_| ask("a") == 429));
    assert_eq!(ask("b"), 200);
    // Without the header, the address counts.
    assert_eq!(get(&dispatcher, "/").status(), 200);
    assert!((0..10).any(|_| get(&dispatcher, "/").status() == 429));
}

#[test]
fn a_full_server_leaves_requests_to_the_next() {
    let barrier = Barrier::default();
    let (first, second) = (slow(&barrier), slow(&barrier));
    let dispatcher = dispatcher(&[first.endpoint(), second.endpoint()], |config| {
        config.limits.requests_per_server = 1;
        config.settings.algorithm = Algorithm::UrlHash;
        config.settings.replicas = 1;
        config.settings.fallbacks = 1;
    });
    let mut clients: Vec<_> = (0..2).map(|_| Client::of(&dispatcher)).collect();
    for (client, under_way) in clients.iter_mut().zip(1..) {
        client.send(REQUEST);
        wait_for("it is under way", || first.requests().len() + second.requests().len() == under_way);
    }
    assert_eq!((first.requests().len(), second.requests().len()), (1, 1));
    barrier.open();
    assert!(clients.iter_mut().all(|client| client.response().unwrap().text() == "at last"));
}

#[test]
fn where_all_servers_are_full_requests_wait_in_order() {
    let (barrier, dir) = (Barrier::default(), tempfile::tempdir().unwrap());
    let server = slow(&barrier);
    let path = dir.path().join("access.log");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.limits.requests_per_server = 1;
        config.timeouts.queue = PATIENCE;
        config.access_log = Some(AccessLog { target: Target::File(path.clone()), format: Format::Combined });
    });
    let mut clients = Vec::new();
    for (n, state) in [(0, (1, 0)), (1, (1, 1)), (2, (1, 2))] {
        let mut client = Client::of(&dispatcher);
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        wait_for("it has its place", || active(&dispatcher, "s1") == state);
        clients.push(client);
    }
    barrier.open();
    assert!(clients.iter_mut().all(|client| client.response().unwrap().text() == "at last"));
    let paths: Vec<_> = server.requests().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/0", "/1", "/2"]);
    wait_for("nobody is left", || active(&dispatcher, "s1") == (0, 0));
    drop(clients);
    kit::block_on(dispatcher.shutdown(PATIENCE));
    let log = std::fs::read_to_string(path).unwrap();
    let waited: Vec<_> = log.lines().map(|line| line.contains(" server=s1 attempts=1 queue_us=")).collect();
    assert_eq!(waited, [false, true, true], "{log}");
}

#[test]
fn who_waits_too_long_or_behind_too_many_is_sent_away() {
    let barrier = Barrier::default();
    let server = slow(&barrier);
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.requests_per_server = 1;
        config.limits.queue_per_server = 1;
        config.timeouts.queue = Duration::from_millis(300);
    });
    let (mut served, mut late) = (Client::of(&dispatcher), Client::of(&dispatcher));
    served.send(REQUEST);
    wait_for("one is served", || active(&dispatcher, "s1") == (1, 0));
    late.send(REQUEST);
    wait_for("one waits", || active(&dispatcher, "s1") == (1, 1));
    let surplus = get(&dispatcher, "/");
    assert_eq!((surplus.status(), surplus.header("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(active(&dispatcher, "s1").0, 1);
    assert_eq!(late.response().unwrap().status(), 503);
    wait_for("nobody waits", || active(&dispatcher, "s1") == (1, 0));
    assert_eq!(metric(&dispatcher, "vibra_proxy_refused_total{status=\"503\",reason=\"full\"}"), 2);
    barrier.open();
    assert_eq!(served.response().unwrap().text(), "at last");
    assert_eq!(get(&dispatcher, "/").text(), "at last");
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn an_address_with_too_many_connections_gets_no_more_and_others_do() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.connections_per_address = 2;
    });
    let greedy = || Client::at([127, 0, 0, 2], &dispatcher);
    let mut first = greedy();
    let mut second = greedy();
    assert!(first.get("/").status() == 200 && second.get("/").status() == 200);
    assert!(greedy().is_ended());
    assert_eq!(Client::at([127, 0, 0, 3], &dispatcher).get("/").status(), 200);
    assert_eq!(metric(&dispatcher, "vibra_proxy_crowded_connections_total"), 1);
    assert_eq!(second.get("/").status(), 200);
    first.close();
    wait_for("its place is free", || {
        let mut client = greedy();
        client.stream.write_all(REQUEST.as_bytes()).is_ok() && client.response().is_ok()
    });
}

#[test]
fn beyond_the_limit_of_connections_the_next_waits_for_one_to_end() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.connections = 1;
        config.timeouts.client_idle = Duration::from_secs(60);
    });
    let mut first = Client::of(&dispatcher);
    assert_eq!(first.get("/").status(), 200);
    // One that rests is let go for one that asks, long before its time.
    let mut second = Client::of(&dispatcher);
    assert_eq!(second.get("/").status(), 200);
    assert!(first.is_ended());
    assert_eq!(metric(&dispatcher, "vibra_proxy_delayed_connections_total"), 1);
    second.close();
    assert_eq!(get(&dispatcher, "/").status(), 200);
}

#[test]
fn without_memory_new_requests_are_sent_away_until_there_is_some() {
    const LARGE: usize = 32 << 20;
    let body = "x".repeat(LARGE);
    let server =
        Server::well(move |request| if request.path() == "/large" { body.clone() } else { "small".to_owned() });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.buffer = 1 << 20;
        config.limits.memory = 3 << 20;
    });
    // Responses that nobody takes fill a buffer each.
    let mut hungry = Vec::new();
    let mut refused = None;
    wait_for("the memory is taken", || {
        let mut client = Client::of(&dispatcher);
        client.send("GET /large HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        let head = client.head().unwrap();
        match head.status() {
            200 => hungry.push(client),
            _ => refused = Some(head),
        }
        refused.is_some()
    });
    let refused = refused.unwrap();
    assert_eq!((refused.status(), refused.header("retry-after").as_deref()), (503, Some("1")));
    assert_eq!(metric(&dispatcher, "vibra_proxy_refused_total{status=\"503\",reason=\"memory\"}"), 1);
    assert!(metric(&dispatcher, "vibra_proxy_memory_bytes") > 1 << 20);
    // What is under way goes on.
    assert!(!hungry.is_empty());
    for client in &mut hungry {
        client.read_exact(&mut vec![0; LARGE]).unwrap();
    }
    wait_for("there is memory", || get(&dispatcher, "/").status() == 200);
}

#[test]
fn heads_that_dribble_in_hold_little_memory() {
    const CLIENTS: usize = 200;
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        // With a whole buffer each they would take several times that.
        config.limits.memory = 2 << 20;
        config.limits.connections_per_address = 1000;
    });
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| Client::of(&dispatcher)).collect();
    clients.iter_mut().for_each(|client| client.send("GET / HTTP/1.1\r\nHost: shop.example\r\nX-Slow: "));
    wait_for("most of them are waited for", || metric(&dispatcher, "vibra_proxy_memory_bytes") > CLIENTS as u64 * 3500);
    assert_eq!(get(&dispatcher, "/").status(), 200);
    for client in &mut clients {
        client.send("at last\r\n\r\n");
        assert_eq!(client.response().unwrap().status(), 200);
    }
}

#[test]
fn long_targets_and_long_bodies_are_refused() {
    let server = Server::well(|request| request.body.len().to_string());
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.limits.uri = 100;
        config.limits.request_line = 150;
        config.limits.body = Some(10);
    });
    let status = |request: &str| {
        let mut client = Client::of(&dispatcher);
        client.send(request);
        client.response().unwrap().status()
    };
    let get = |method: &str, length: usize| format!("{method} /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
    assert_eq!([status(&get("GET", 100)), status(&get("GET", 101))], [200, 414]);
    assert_eq!([status(&get(&"M".repeat(40), 100)), status(&get(&"M".repeat(41), 100))], [200, 414]);
    let post =
        |length: usize| format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length));
    assert_eq!([status(&post(10)), status(&post(11))], [200, 413]);
    let chunked =
        |chunks: &str| format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n");
    assert_eq!(status(&chunked("5\r\nhello\r\n5\r\nworld\r\n")), 200);
    assert_eq!(status(&chunked("5\r\nhello\r\n6\r\nworlds\r\n")), 413);
}

#[test]
fn retries_are_no_more_than_their_budget() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[kit::nowhere(), server.endpoint()], |config| {
        with_admin(config);
        config.health.passive.failures = 1000;
        config.limits.retry_percent = 0;
        config.limits.retries_per_second = 1;
    });
    // Half of the requests come to the server that is not there, and ten of them may go on to the other.
    let failed = (0..40).filter(|_| get(&dispatcher, "/").status() == 502).count();
    assert_eq!(failed, 10);
    assert_eq!(metric(&dispatcher, r#"vibra_proxy_retries_total{server="s2",algorithm="round-robin"}"#), 10);
    assert_eq!(metric(&dispatcher, "vibra_proxy_unretried_total"), 10);
}

//! What a request and a response go through when everyone behaves.

mod kit;

use kit::{Client, Server, before, dispatcher, get, wait_for};
use std::io::Read;
use std::sync::{Mutex, mpsc};
use std::time::Duration;
use vibra_routing::Algorithm;

#[test]
fn connections_persist_on_both_sides() {
    let server = Server::well(|request| request.path().to_owned());
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    for path in ["/a", "/b?c=d", "/e"] {
        assert_eq!(client.get(path).text(), path);
    }
    assert_eq!(server.connections(), 1);
    let status = dispatcher.status();
    let counts = status.server("s1").unwrap();
    assert_eq!((counts.picks, counts.connects, counts.responses["2xx"]), (3, 1, 3));
}

#[test]
fn every_request_of_a_connection_is_dispatched_on_its_own() {
    let servers = [Server::named("one"), Server::named("two"), Server::named("three")];
    let endpoints: Vec<_> = servers.iter().map(Server::endpoint).collect();
    let dispatcher = dispatcher(&endpoints, |_| {});
    let mut client = Client::of(&dispatcher);
    let answers: Vec<_> = (0..6).map(|_| client.get("/same").text().to_owned()).collect();
    assert_eq!(answers, ["one", "two", "three", "one", "two", "three"]);
}

#[test]
fn an_object_stays_with_its_servers_whatever_the_query() {
    let servers = [Server::named("one"), Server::named("two"), Server::named("three")];
    let endpoints: Vec<_> = servers.iter().map(Server::endpoint).collect();
    let dispatcher = dispatcher(&endpoints, |config| {
        config.settings.algorithm = Algorithm::UrlHash;
        config.settings.replicas = 1;
    });
    let first = get(&dispatcher, "/english/index.html").text().to_owned();
    for n in 0..10 {
        assert_eq!(get(&dispatcher, &format!("/english/index.html?visit={n}")).text(), first);
    }
    let names: std::collections::BTreeSet<_> =
        (0..40).map(|n| get(&dispatcher, &format!("/object-{n}")).text().to_owned()).collect();
    assert_eq!(names.len(), 3, "forty objects are served by {names:?} alone");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::well(|request| request.path().to_owned());
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    let request = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    client.send((0..40).map(|n| request(&format!("/{n}"))).collect::<String>());
    for n in 0..40 {
        assert_eq!(client.response().unwrap().text(), format!("/{n}"));
    }
}

#[test]
fn what_concerns_a_connection_stays_there() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 Fine\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n")?;
        connection.send("ETag: \"e\"\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET /x HTTP/1.1\r\nHost: shop.example\r\nConnection: x-mine\r\nX-Mine: 1\r\nTE: gzip\r\n");
    client.send("Accept: */*\r\n\r\n");
    let response = client.response().unwrap();
    assert_eq!((response.text(), response.header("etag").as_deref()), ("ok", Some("\"e\"")));
    assert_eq!(response.header("set-cookie").as_deref(), Some("a | b"));
    for name in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(response.header(name), None, "{name}");
    }
    let request = &server.requests()[0];
    assert_eq!(request.start, "GET /x HTTP/1.1");
    assert_eq!(request.header("host").as_deref(), Some("shop.example"));
    assert_eq!(request.header("accept").as_deref(), Some("*/*"));
    for name in ["connection", "x-mine", "te"] {
        assert_eq!(request.header(name), None, "{name}");
    }
}

#[test]
fn absolute_targets_reach_servers_as_paths() {
    let server = Server::named("ok");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET http://other.example:8080/a?b HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert_eq!(client.response().unwrap().status(), 200);
    let request = &server.requests()[0];
    assert_eq!((request.path(), request.header("host").as_deref()), ("/a?b", Some("other.example:8080")));
}

#[test]
fn http_1_0_clients_are_served() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.0\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.start.as_str(), head.header("transfer-encoding")), ("HTTP/1.1 200 OK", None));
    let (body, end) = client.rest();
    assert_eq!((body.as_slice(), end.is_ok()), (b"ok".as_slice(), true));
    assert_eq!(server.requests()[0].start, "GET / HTTP/1.1");
    assert_eq!(server.requests()[0].header("host"), Some(server.endpoint()));
}

#[test]
fn responses_without_body_leave_the_connection_usable() {
    let server = Server::bodiless("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!((head.status(), head.header("content-length").as_deref()), (200, Some("5000")));
    assert_eq!(client.get("/b").status(), 304);
    assert_eq!(client.get("/c").status(), 204);
    assert_eq!(client.get("/d").text(), "last");
    assert_eq!(server.connections(), 1);
    wait_for("no request is active", || dispatcher.status().servers[0].active == 0);
}

#[test]
fn an_http_1_0_server_that_ends_its_body_by_closing_is_understood() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.0 200 OK\r\n\r\nto the end")
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/1").text(), "to the end");
    assert_eq!(client.get("/2").text(), "to the end");
    assert_eq!(server.connections(), 2);
}

#[test]
fn request_bodies_arrive_as_they_are_sent() {
    let (go, gone) = mpsc::channel();
    let server = Server::run(move |connection| {
        connection.head()?;
        let mut first = [0; 6];
        connection.read_exact(&mut first)?;
        go.send(first).unwrap();
        let mut second = [0; 6];
        connection.read_exact(&mut second)?;
        connection.answer(std::str::from_utf8(&second).unwrap())?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\n\r\nfirst ");
    // The server has the first part while the second is not even sent.
    assert_eq!(&gone.recv_timeout(kit::PATIENCE).unwrap(), b"first ");
    client.send("second");
    assert_eq!(client.response().unwrap().text(), "second");
    assert_eq!(server.requests()[0].header("content-length").as_deref(), Some("12"));
}

#[test]
fn chunked_request_bodies_and_expectations_are_understood() {
    let server = Server::run(|connection| {
        let head = connection.head()?;
        assert_eq!(head.header("expect").as_deref(), Some("100-continue"));
        connection.send("HTTP/1.1 100 Continue\r\n\r\n")?;
        let mut body = [0; 20];
        connection.read_exact(&mut body)?;
        assert_eq!(&body, b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        connection.answer("abcde")?;
        connection.answer_all(|_| String::new())
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST /up HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 100);
    client.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "abcde");
    assert_eq!(client.get("/after").text(), "");
}

#[test]
fn response_bodies_arrive_as_they_are_sent() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let server = Server::run(move |connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nfirst ")?;
        gone.lock().unwrap().recv_timeout(kit::PATIENCE).unwrap();
        connection.send("second")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head().unwrap();
    let mut part = [0; 6];
    client.read_exact(&mut part).unwrap();
    assert_eq!(&part, b"first ");
    assert_eq!(dispatcher.status().servers[0].active, 1, "a request is active until its body has ended");
    go.send(()).unwrap();
    client.read_exact(&mut part).unwrap();
    assert_eq!(&part, b"second");
    wait_for("the request is complete", || dispatcher.status().servers[0].active == 0);
}

/// A size of which no chain of buffers between server and client holds half: Linux lets a socket that is read quickly have up to
/// 32 MiB.
const HUGE: usize = 128 << 20;

#[test]
fn a_slow_client_slows_the_server_down() {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let progress = sent.clone();
    let server = Server::run(move |connection| {
        connection.request()?;
        connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n"))?;
        let block = vec![b'x'; 1 << 16];
        for _ in 0..HUGE / block.len() {
            connection.send(&block)?;
            progress.fetch_add(block.len(), std::sync::atomic::Ordering::SeqCst);
        }
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head().unwrap();
    // The client reads no more: the server comes to a halt, with most of the body still to go.
    let position = || sent.load(std::sync::atomic::Ordering::SeqCst);
    let mut last = (0, std::time::Instant::now());
    wait_for("the server stands still", || {
        if position() != last.0 {
            last = (position(), std::time::Instant::now());
        }
        last.0 > 0 && last.1.elapsed() > Duration::from_millis(200)
    });
    assert!(position() < HUGE / 2, "{} bytes were taken for a client that reads nothing", position());
    let mut rest = vec![0; HUGE];
    client.read_exact(&mut rest).unwrap();
    assert!(rest.iter().all(|&byte| byte == b'x'));
}

/// What is read with a head, what is copied and what goes from socket to socket unseen meet at these sizes.
#[test]
fn bodies_of_all_sizes_pass_as_they_are_both_ways() {
    let server = Server::run(|connection| {
        while let Ok(asked) = connection.request() {
            connection.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", asked.body.len()))?;
            connection.send(&asked.body)?;
        }
        Ok(())
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    let around = |size: usize| [size - 200, size - 1, size, size + 1];
    let sizes = [4 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 3 << 20].into_iter().flat_map(around);
    for size in sizes.chain([5]) {
        let body: Vec<u8> = (0..size).map(|place| ((place * 31) >> 5) as u8).collect();
        client.send(format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"));
        client.send(&body);
        assert!(client.response().unwrap().body == body, "{size} bytes do not pass");
    }
    assert_eq!(server.connections(), 1);
    wait_for("nothing is held", || dispatcher.status().servers.iter().all(|server| server.active == 0));
}

#[test]
fn a_slow_server_slows_the_client_down() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let server = Server::run(move |connection| {
        connection.head()?;
        gone.lock().unwrap().recv_timeout(kit::PATIENCE).unwrap();
        let mut body = vec![0; HUGE];
        connection.read_exact(&mut body)?;
        connection.answer(if body.iter().all(|&byte| byte == b'y') { "whole" } else { "garbled" })?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send(format!("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: {HUGE}\r\n\r\n"));
    client.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let block = vec![b'y'; 1 << 16];
    let mut sent = 0;
    while let Ok(written) = std::io::Write::write(&mut client.stream, &block[..block.len().min(HUGE - sent)]) {
        sent += written;
        assert!(sent < HUGE / 2, "{sent} bytes were taken for a server that reads nothing");
    }
    go.send(()).unwrap();
    client.stream.set_write_timeout(Some(kit::PATIENCE)).unwrap();
    client.send(vec![b'y'; HUGE - sent]);
    assert_eq!(client.response().unwrap().text(), "whole");
}

#[test]
fn many_clients_at_once_each_get_their_own() {
    let servers: Vec<_> = (0..3).map(|_| Server::well(|request| request.path().repeat(300))).collect();
    let endpoints: Vec<_> = servers.iter().map(Server::endpoint).collect();
    let dispatcher = dispatcher(&endpoints, |config| {
        config.threads = 2;
        config.settings.algorithm = Algorithm::LeastConnection;
    });
    std::thread::scope(|scope| {
        for client in 0..16 {
            let dispatcher = &dispatcher;
            scope.spawn(move || {
                let mut connection = Client::of(dispatcher);
                for n in 0..50 {
                    let path = format!("/{client}/{n}");
                    assert_eq!(connection.get(&path).text(), path.repeat(300));
                }
            });
        }
    });
    let status = dispatcher.status();
    assert_eq!(status.servers.iter().map(|server| server.responses["2xx"]).sum::<u64>(), 16 * 50);
    wait_for("no request is active", || dispatcher.status().servers.iter().all(|server| server.active == 0));
}

#[test]
fn lard_threads_share_what_they_remember() {
    let servers = [Server::named("one"), Server::named("two"), Server::named("three")];
    let endpoints: Vec<_> = servers.iter().map(Server::endpoint).collect();
    let dispatcher = dispatcher(&endpoints, |config| {
        config.threads = 3;
        config.settings.algorithm = Algorithm::Lard;
    });
    for object in 0..5 {
        let path = format!("/{object}");
        let first = get(&dispatcher, &path).text().to_owned();
        // New connections land on whichever thread the kernel chooses.
        assert!((0..12).all(|_| get(&dispatcher, &path).text() == first), "{path} moved");
    }
}

#[test]
fn a_client_that_says_no_more_gets_its_answers() {
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = Server::well(move |request| {
        gone.lock().unwrap().recv_timeout(kit::PATIENCE).expect("the client has said all");
        request.path().to_owned()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the server has the first request", || server.requests().len() == 1);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    (0..2).for_each(|_| go.send(()).unwrap());
    assert_eq!(client.response().unwrap().text(), "/1");
    assert_eq!(client.response().unwrap().text(), "/2");
    let (rest, end) = client.rest();
    assert!(rest.is_empty() && end.is_ok(), "the connection is closed once all is said");
}

#[test]
fn a_client_that_has_gone_frees_its_server() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            connection.send(format!("4000\r\n{:16384}\r\n", ""))?;
        }
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head().unwrap();
    assert_eq!(dispatcher.status().servers[0].active, 1);
    client.close();
    wait_for("the request is given up", || dispatcher.status().servers[0].active == 0);
    assert_eq!(dispatcher.status().servers[0].failures["client"], 1);
    wait_for("the connection is gone", || dispatcher.status().connections == 0);
}

#[test]
fn a_response_before_the_request_has_ended_is_passed_on() {
    let server = Server::run(|connection| {
        connection.head()?;
        connection.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nbegin");
    let response = client.head().unwrap();
    let mut body = [0; 3];
    client.stream.try_clone().unwrap().set_read_timeout(Some(kit::PATIENCE)).unwrap();
    client.read_exact(&mut body).unwrap();
    assert_eq!((response.status(), &body), (413, b"big"));
    let _ = client.stream.read(&mut [0; 1]);
    wait_for("the server is free", || dispatcher.status().servers[0].active == 0);
}

//! Servers that answer garbage, close mid-body, never answer or are not there. The client gets 502, 503, 504 or a
//! broken body, never a part that looks whole, and the next request is none the worse for it.

mod kit;

use kit::{Client, Connection, Server, before, dispatcher, get, nowhere, wait_for};
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use vibra_proxy::Handle;

/// A server whose connection number 0 runs `script`, and which is well-behaved on all others.
fn bad_once(script: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static) -> Server {
    Server::run(move |connection| match connection.number {
        0 => script(connection),
        _ => connection.answer_all(|_| "well".to_owned()),
    })
}

/// Whatever happened before, the next request gets a good answer and nothing is left active.
fn assert_not_poisoned(dispatcher: &Handle) {
    assert_eq!(get(dispatcher, "/next").text(), "well");
    wait_for("no request is active", || dispatcher.status().servers.iter().all(|server| server.active == 0));
}

/// The client gets 502 for what the server sends instead of a response.
#[track_caller]
fn assert_bad_gateway(sent: &'static str, failure: &str) {
    let server = bad_once(move |connection| {
        connection.request()?;
        connection.send(sent)
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").status(), 502, "{sent:?}");
    // The client's own connection is as good as before.
    assert_eq!(client.get("/again").text(), "well");
    assert_eq!(dispatcher.status().servers[0].failures[failure], 1, "{sent:?}");
    assert_not_poisoned(&dispatcher);
}

#[test]
fn garbage_is_a_bad_gateway() {
    assert_bad_gateway("SSH-2.0-OpenSSH_9.2\r\n\r\n", "garbage");
    assert_bad_gateway("HTTP/1.1 abc OK\r\n\r\n", "garbage");
    assert_bad_gateway("HTTP/1.1 200 OK\r\nno colon here\r\n\r\n", "garbage");
    assert_bad_gateway("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "garbage");
    assert_bad_gateway("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nwhole", "garbage");
}

#[test]
fn a_body_in_an_unknown_coding_is_a_bad_gateway() {
    assert_bad_gateway("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "garbage");
}

#[test]
fn a_head_that_breaks_off_is_a_bad_gateway() {
    assert_bad_gateway("", "closed");
    assert_bad_gateway("HTTP/1.1 200 OK\r\nContent-Le", "closed");
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_a_bad_gateway() {
    assert_bad_gateway("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "garbage");
}

#[test]
fn an_endless_head_is_a_bad_gateway() {
    let server = bad_once(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nX-Long: ")?;
        loop {
            connection.send([b'x'; 4096])?;
        }
    });
    let dispatcher = before(&server);
    assert_eq!(get(&dispatcher, "/").status(), 502);
    assert_not_poisoned(&dispatcher);
}

/// A response that breaks off: the client gets `part` of it, and then an end that cannot be taken for a good one.
#[track_caller]
fn assert_broken(head: &'static str, request: &str) {
    let server = bad_once(move |connection| {
        connection.request()?;
        connection.send(head)?;
        connection.send("part")
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send(request);
    let error = match client.head() {
        // The reset may overtake the head: as long as it is no good end, that is fine.
        Err(error) => error,
        Ok(head) => {
            assert_eq!(head.status(), 200);
            client.rest().1.expect_err("the connection is reset")
        }
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{head:?}");
    wait_for("the failure is counted", || dispatcher.status().servers[0].failures["broken"] == 1);
    assert_not_poisoned(&dispatcher);
}

#[test]
fn a_body_that_breaks_off_breaks_the_clients_connection() {
    let get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_broken("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", get);
    assert_broken("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n", get);
    assert_broken("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nzz\r\n", get);
}

#[test]
fn a_body_that_breaks_off_is_no_good_end_for_http_1_0_either() {
    // Such a client takes the end of the connection for the end of the body: only a reset tells the difference.
    let get = "GET / HTTP/1.0\r\n\r\n";
    assert_broken("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n", get);
}

#[test]
fn what_follows_a_response_is_not_taken_for_the_next() {
    let server = bad_once(|connection| {
        connection.request()?;
        connection
            .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/1").text(), "ok");
    assert_eq!(client.get("/2").text(), "well");
    assert_eq!(server.connections(), 2);
}

/// It would take the next request for the rest of this one's body, and one client's bytes for another's.
#[test]
fn rfc9112_9_3_a_connection_whose_request_has_not_ended_carries_no_other() {
    let begun = [
        "Content-Length: 100\r\n\r\n",
        "Content-Length: 100\r\n\r\nsome",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n",
    ];
    for (begun, status) in begun.into_iter().flat_map(|begun| ["405 No", "200 OK"].map(|status| (begun, status))) {
        // It answers without reading the body, and keeps the connection open for the rest of it.
        let server = Server::run(move |connection| {
            connection.head()?;
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 3\r\n\r\nyes"))?;
            connection.wait_for_end()
        });
        let dispatcher = before(&server);
        for number in 1..=2 {
            let mut client = Client::of(&dispatcher);
            client.send(format!("POST / HTTP/1.1\r\nHost: x\r\n{begun}"));
            assert_eq!(client.response().unwrap().text(), "yes", "{begun:?} {status}");
            assert_eq!(server.connections(), number, "{begun:?} {status}");
        }
    }
}

#[test]
fn what_comes_unasked_on_an_unused_connection_is_not_taken_for_a_response() {
    let (go, gone) = std::sync::mpsc::channel();
    let server = bad_once(move |connection| {
        connection.request()?;
        connection.answer("ok")?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")?;
        go.send(()).unwrap();
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/1").text(), "ok");
    gone.recv_timeout(kit::PATIENCE).unwrap();
    assert_eq!(client.get("/2").text(), "well");
}

#[test]
fn a_server_that_never_answers_is_a_gateway_timeout() {
    let server = bad_once(|connection| {
        connection.request()?;
        connection.wait_for_end()
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.response = Duration::from_millis(50);
    });
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").status(), 504);
    assert_eq!(client.get("/again").text(), "well");
    assert_eq!(dispatcher.status().servers[0].failures["timeout"], 1);
    assert_not_poisoned(&dispatcher);
}

#[test]
fn a_body_that_comes_to_a_halt_breaks_the_clients_connection() {
    let server = bad_once(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart")?;
        connection.wait_for_end()
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.stall = Duration::from_millis(50);
    });
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 200);
    assert_eq!(client.rest().1.unwrap_err().kind(), ErrorKind::ConnectionReset);
    wait_for("it counts as the server's fault", || dispatcher.status().servers[0].failures["broken"] == 1);
    assert_not_poisoned(&dispatcher);
}

#[test]
fn a_slow_response_is_no_failure_as_long_as_it_moves() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")?;
        for _ in 0..20 {
            // Together longer than the time-out, which no single one is by far.
            std::thread::sleep(Duration::from_millis(75));
            connection.send("x")?;
        }
        connection.wait_for_end()
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.stall = Duration::from_secs(1);
    });
    assert_eq!(get(&dispatcher, "/").text(), "x".repeat(20));
}

#[test]
fn a_refused_connection_sends_the_request_to_the_next_candidate() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[nowhere(), server.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    for n in 0..4 {
        client.send(format!("POST /{n} HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"));
        // Nothing of the body was sent to the first candidate, so that even a POST may go on to the next.
        assert_eq!(client.response().unwrap().text(), "well");
    }
    assert!(server.requests().iter().all(|request| request.body == b"body"));
    let status = dispatcher.status();
    assert!(status.server("s1").unwrap().failures["connect"] > 0);
    assert_eq!(status.server("s1").unwrap().active, 0);
}

/// Its queue of connections is full, so that the system answers nothing.
#[test]
fn a_server_that_is_not_reached_in_time_is_passed_over() {
    let mute = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    mute.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    mute.listen(0).unwrap();
    let address = mute.local_addr().unwrap().as_socket().unwrap();
    let _waiting = TcpStream::connect(address).unwrap();
    let server = Server::named("well");
    let dispatcher = dispatcher(&[address.to_string(), server.endpoint()], |config| {
        config.timeouts.connect = Duration::from_millis(50);
    });
    let mut client = Client::of(&dispatcher);
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "well");
    }
    assert_eq!(dispatcher.status().server("s1").unwrap().failures["connect"], 1);
}

#[test]
fn without_any_connection_it_is_a_bad_gateway() {
    let dispatcher = dispatcher(&[nowhere(), nowhere()], |_| {});
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").status(), 502);
    assert_eq!(client.get("/").status(), 502, "the client's connection goes on");
}

/// A server that closes each connection after one answer, without saying so beforehand.
fn closes_after_one() -> Server {
    Server::run(|connection| {
        connection.request()?;
        connection.answer("well")
    })
}

#[test]
fn a_connection_that_was_closed_while_unused_is_replaced() {
    let server = closes_after_one();
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    for _ in 0..10 {
        // The close shows before anything is sent, or the request is sent again: both are fine for a GET.
        assert_eq!(client.get("/").text(), "well");
    }
    assert_eq!(server.connections(), 10);
}

#[test]
fn a_request_that_dies_with_a_used_connection_is_sent_again_if_it_may_be() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.answer("first")?;
        // Reads the second request and closes without a word, as a server does that was just closing.
        connection.request()?;
        if connection.number == 0 { Ok(()) } else { connection.answer("unreachable") }
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/1").text(), "first");
    assert_eq!(client.get("/2").text(), "first", "on a new connection");
    assert_eq!(server.connections(), 2);
    let paths: Vec<_> = server.requests().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/1", "/2", "/2"]);
}

#[test]
fn a_post_that_dies_with_a_used_connection_is_not_sent_again() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.answer("first")?;
        connection.request().map(drop)
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/1").text(), "first");
    client.send("POST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().unwrap().status(), 502);
    assert_eq!(server.requests().len(), 2);
}

#[test]
fn a_connection_that_says_close_is_not_used_again() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nwell")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    for n in 1..4 {
        assert_eq!(client.get("/").text(), "well");
        assert_eq!(server.connections(), n);
    }
}

#[test]
fn unused_connections_are_closed_in_time() {
    let (go, gone) = std::sync::mpsc::channel();
    let server = Server::run(move |connection| {
        connection.request()?;
        connection.answer("well")?;
        connection.wait_for_end()?;
        go.send(()).map_err(io::Error::other)
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.server_idle = Duration::from_millis(50);
    });
    assert_eq!(get(&dispatcher, "/").text(), "well");
    gone.recv_timeout(kit::PATIENCE).expect("the dispatcher closes the connection");
}

#[test]
fn rfc9110_15_2_interim_responses_are_passed_on_and_not_taken_for_the_answer() {
    let server = Server::run(|connection| {
        loop {
            connection.request()?;
            connection.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")?;
            connection.answer("final")?;
        }
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().unwrap().status(), 100);
    let hints = client.head().unwrap();
    assert_eq!((hints.status(), hints.header("link").as_deref()), (103, Some("</a>")));
    assert_eq!(client.response().unwrap().text(), "final");
    let mut old = Client::of(&dispatcher);
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.response().unwrap().text(), "final", "HTTP/1.0 knows no interim responses");
}

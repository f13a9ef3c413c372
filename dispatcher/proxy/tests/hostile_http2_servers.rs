//! Servers of HTTP/2 that go away, refuse, break off or talk nonsense: no client is hurt, and no request is sent twice that
//! must not be.

mod kit;

use kit::http2::{
    ACK, DATA, END_STREAM, GET, GOAWAY, HEADERS, INTERNAL_ERROR, NO_ERROR, PING, Peer, REFUSED_STREAM, RST_STREAM,
    frame,
};
use kit::http2_server::{Http2Server, failures, in_front_of, mixed, scripted};
use kit::{Client, Server, nowhere, wait_for};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use vibra_proxy::Limits;

const MAX_CONCURRENT_STREAMS: u16 = 3;

#[test]
fn rfc9113_6_8_what_a_server_did_not_look_at_goes_on_another_connection() {
    for method in ["GET", "POST"] {
        let server = scripted(&[], |frames| {
            let mut first = frames.request()?;
            if frames.number() == 0 {
                frames.answer(first, "first")?;
                first = frames.request()?;
                frames.goes_away(1, NO_ERROR)?;
                assert_eq!(first, 3);
                return frames.wait_for_end();
            }
            frames.answer(first, "second")?;
            frames.wait_for_end()
        });
        let dispatcher = in_front_of(&[server.endpoint()], |_| {});
        let mut client = Client::of(&dispatcher);
        assert_eq!(client.get("/").status(), 200);
        client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = client.response().unwrap();
        assert_eq!(response.text(), "second", "{method}");
        let status = dispatcher.status();
        let counted = status.server("s1").unwrap();
        assert_eq!((counted.failures.values().sum::<u64>(), counted.connects), (0, 2));
    }
}

#[test]
fn rfc9113_6_8_what_a_server_looks_at_before_it_goes_away_is_answered() {
    let server = scripted(&[], |frames| {
        let stream = frames.request()?;
        if frames.number() == 0 {
            frames.goes_away(stream, NO_ERROR)?;
            frames.send(PING, 0, 0, &[7; 8])?;
            while frames.next(PING)?.flags != ACK {}
        }
        frames.answer(stream, ["first", "second"][frames.number()])?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").text(), "first");
    assert_eq!(client.get("/").text(), "second");
}

#[test]
fn rfc9113_8_7_a_refused_request_goes_to_the_next_server() {
    let server = scripted(&[], |frames| {
        loop {
            let stream = frames.request()?;
            frames.reset(stream, REFUSED_STREAM)?;
        }
    });
    let other = Server::named("other");
    for method in ["GET", "POST"] {
        let dispatcher = mixed(&server, &other, |_| {});
        let mut client = Client::of(&dispatcher);
        client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.response().unwrap().text(), "other");
        assert_eq!(failures(&dispatcher, "s1", "closed"), 1);
    }
}

const CHUNKED_POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";

/// The server has taken a part of the body, or all of it with its trailers, before it goes; the client is not asked again.
#[test]
fn rfc9113_6_8_a_body_that_has_begun_goes_on_another_connection_from_its_beginning() {
    for whole_at_once in [true, false] {
        let (gone, went) = std::sync::mpsc::channel();
        let server = scripted(&[], move |frames| {
            let stream = frames.request()?;
            if frames.number() == 0 {
                frames.answer(stream, "first")?;
                let refused = frames.request()?;
                let mut body = Vec::new();
                while body.len() < if whole_at_once { 6 } else { 3 } {
                    body.extend(frames.next(DATA)?.payload);
                }
                assert_eq!(refused, 3);
                frames.goes_away(1, NO_ERROR)?;
                gone.send(()).unwrap();
                return frames.wait_for_end();
            }
            let mut body = Vec::new();
            let trailers = loop {
                let frame = frames.next_of(&[DATA, HEADERS])?;
                if frame.kind == HEADERS {
                    break frame;
                }
                body.extend(frame.payload);
            };
            assert_ne!(trailers.flags & END_STREAM, 0);
            frames.answer(stream, std::str::from_utf8(&body).unwrap())?;
            frames.wait_for_end()
        });
        let dispatcher = in_front_of(&[server.endpoint()], |_| {});
        let mut client = Client::of(&dispatcher);
        assert_eq!(client.get("/").text(), "first");
        let (begun, rest) = (format!("{CHUNKED_POST}3\r\nabc\r\n"), "3\r\ndef\r\n0\r\nX-Sum: 1\r\n\r\n");
        if whole_at_once {
            client.send(format!("{begun}{rest}"));
            went.recv_timeout(kit::PATIENCE).unwrap();
        } else {
            client.send(begun);
            went.recv_timeout(kit::PATIENCE).unwrap();
            client.send(rest);
        }
        assert_eq!(client.response().unwrap().text(), "abcdef", "{whole_at_once}");
        assert_eq!(failures(&dispatcher, "s1", "closed"), 0);
    }
}

#[test]
fn rfc9113_8_7_a_refused_body_goes_to_the_next_server_if_it_was_kept() {
    let server = scripted(&[], |frames| {
        loop {
            let stream = frames.request()?;
            while frames.next_of(&[DATA])?.flags & END_STREAM == 0 {}
            frames.reset(stream, REFUSED_STREAM)?;
        }
    });
    let other = Server::well(|request| request.text().len().to_string());
    for (length, status) in [(10, 200), (20_000, 502)] {
        // Less than the server's windows, so that all of it goes; more than is kept, in the second case.
        let dispatcher = mixed(&server, &other, |config| config.limits.buffer = 8192);
        let mut client = Client::of(&dispatcher);
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{}", "x".repeat(length)));
        let response = client.response().unwrap();
        assert_eq!(response.status(), status, "{length}");
        if status == 200 {
            assert_eq!(response.text(), length.to_string());
        }
        assert_eq!(failures(&dispatcher, "s1", "closed"), 1);
    }
}

/// The same, where the client's body comes in frames too: some of it has gone, and the rest comes only then.
#[test]
fn rfc9113_8_7_a_refused_body_of_an_http_2_client_goes_to_the_next_server() {
    let (refused, refusing) = std::sync::mpsc::channel();
    let server = scripted(&[], move |frames| {
        let stream = frames.request()?;
        assert_eq!(frames.next(DATA)?.payload, b"abc");
        frames.reset(stream, REFUSED_STREAM)?;
        refused.send(()).unwrap();
        frames.wait_for_end()
    });
    let other = Server::well(|request| request.text().to_owned());
    let dispatcher = mixed(&server, &other, |_| {});
    let mut peer = Peer::of(&dispatcher);
    let post = GET.map(|field| if field.0 == ":method" { (":method", "POST") } else { field });
    peer.open(1, &post, 0);
    peer.send(frame(DATA, 0, 1, b"abc"));
    refusing.recv_timeout(kit::PATIENCE).unwrap();
    peer.send(frame(DATA, END_STREAM, 1, b"def"));
    assert_eq!(peer.next(&[DATA, RST_STREAM, GOAWAY]).payload, b"abcdef");
    assert_eq!(failures(&dispatcher, "s1", "closed"), 1);
}

/// And where the server goes away, on another connection to it.
#[test]
fn rfc9113_6_8_a_body_of_an_http_2_client_goes_on_another_connection_from_its_beginning() {
    let (gone, went) = std::sync::mpsc::channel();
    let server = scripted(&[], move |frames| {
        let stream = frames.request()?;
        if frames.number() == 0 {
            frames.answer(stream, "first")?;
            assert_eq!(frames.request()?, 3);
            frames.next(DATA)?;
            frames.goes_away(1, NO_ERROR)?;
            gone.send(()).unwrap();
            return frames.wait_for_end();
        }
        let mut body = Vec::new();
        loop {
            let data = frames.next(DATA)?;
            body.extend(data.payload);
            if data.flags & END_STREAM != 0 {
                break;
            }
        }
        frames.answer(stream, std::str::from_utf8(&body).unwrap())?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA, RST_STREAM, GOAWAY]).payload, b"first");
    let post = GET.map(|field| if field.0 == ":method" { (":method", "POST") } else { field });
    peer.open(3, &[&post[..], &[("content-length", "6")]].concat(), 0);
    peer.send(frame(DATA, 0, 3, b"abc"));
    went.recv_timeout(kit::PATIENCE).unwrap();
    peer.send(frame(DATA, END_STREAM, 3, b"def"));
    let mut answer = peer.next(&[DATA, RST_STREAM, GOAWAY]);
    while answer.stream == 1 {
        answer = peer.next(&[DATA, RST_STREAM, GOAWAY]);
    }
    assert_eq!((answer.stream, &answer.payload[..]), (3, &b"abcdef"[..]));
    assert_eq!(failures(&dispatcher, "s1", "closed"), 0);
}

/// It has looked at the request, and may have acted on it.
#[test]
fn rfc9113_6_8_a_post_that_a_server_has_looked_at_is_not_sent_again() {
    let server = scripted(&[], |frames| {
        let stream = frames.request()?;
        frames.next(DATA)?;
        frames.goes_away(stream, NO_ERROR)
    });
    let other = Server::named("other");
    let dispatcher = mixed(&server, &other, |_| {});
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(client.response().unwrap().status(), 502);
    assert_eq!((server.connections(), other.requests()), (1, vec![]));
}

#[test]
fn rfc9113_8_7_what_a_server_may_have_acted_on_goes_elsewhere_only_if_it_may_be_repeated() {
    let server = scripted(&[], |frames| {
        loop {
            let stream = frames.request()?;
            frames.reset(stream, INTERNAL_ERROR)?;
        }
    });
    let other = Server::named("other");
    for (method, status) in [("GET", 200), ("POST", 502)] {
        let dispatcher = mixed(&server, &other, |_| {});
        let mut client = Client::of(&dispatcher);
        client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.response().unwrap().status(), status, "{method}");
        assert_eq!(failures(&dispatcher, "s1", "closed"), 1);
    }
}

#[test]
fn a_connection_that_dies_takes_its_own_requests_with_it_alone() {
    let (dying, living) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (die, live) = (dying.clone(), living.clone());
    let server = scripted(&[(MAX_CONCURRENT_STREAMS, 1)], move |frames| {
        let stream = frames.request()?;
        if frames.number() == 0 {
            wait_for("the other to begin", || die.load(SeqCst));
            return Ok(());
        }
        live.store(true, SeqCst);
        wait_for("the first to end", || !die.load(SeqCst));
        frames.answer(stream, "living")?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut first = Client::of(&dispatcher);
    first.send("POST / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the first connection", || server.connections() == 1);
    wait_for("the first request", || dispatcher.status().server("s1").unwrap().active == 1);
    let mut second = Client::of(&dispatcher);
    second.send("POST / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the second request", || living.load(SeqCst));
    dying.store(true, SeqCst);
    assert_eq!(first.response().unwrap().status(), 502);
    dying.store(false, SeqCst);
    assert_eq!(second.response().unwrap().text(), "living");
}

#[test]
fn a_request_on_a_connection_that_just_closes_is_sent_again() {
    let server = scripted(&[], |frames| {
        let first = frames.request()?;
        frames.answer(first, "well")?;
        if frames.number() == 0 {
            frames.request()?;
            return Ok(());
        }
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    for _ in 0..2 {
        assert_eq!(client.get("/").text(), "well");
    }
    assert_eq!(server.connections(), 2);
    assert_eq!(failures(&dispatcher, "s1", "closed"), 0);
}

#[test]
fn rfc9113_8_1_1_what_is_malformed_is_a_bad_gateway() {
    let cases: [&[(&str, &str)]; 11] = [
        &[("x-a", "1")],
        &[(":status", "200"), ("X-A", "1")],
        &[(":status", "200"), ("x a", "1")],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[("x-a", "1"), (":status", "200")],
        &[(":status", "200"), ("x-a", " 1")],
        &[(":status", "200"), ("x-a", "1\r\nx-b: 2")],
        &[(":status", "200"), ("content-length", "1"), ("content-length", "1")],
        &[(":status", "200"), ("content-length", "+1")],
        &[(":status", "101")],
    ];
    for fields in cases {
        let server = scripted(&[], move |frames| {
            let stream = frames.request()?;
            frames.head(stream, fields, 0)?;
            frames.wait_for_end()
        });
        let dispatcher = in_front_of(&[server.endpoint()], |_| {});
        let mut client = Client::of(&dispatcher);
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.head().unwrap().status(), 502, "{fields:?}");
        assert_eq!(failures(&dispatcher, "s1", "garbage"), 1, "{fields:?}");
    }
}

#[test]
fn too_many_fields_are_a_bad_gateway() {
    let server = scripted(&[], |frames| {
        let stream = frames.request()?;
        let mut fields = vec![(":status", "200")];
        fields.resize(50, ("x-a", "1"));
        frames.head(stream, &fields, 0)?;
        frames.wait_for_end()
    });
    let limits = Limits { headers: 40, ..Limits::default() };
    let dispatcher = in_front_of(&[server.endpoint()], |config| config.limits = limits);
    assert_eq!(kit::get(&dispatcher, "/").status(), 502);
    assert_eq!(failures(&dispatcher, "s1", "garbage"), 1);
}

#[test]
fn rfc9113_8_1_1_data_is_as_long_as_it_was_said() {
    for (length, end) in [("3", END_STREAM), ("9", END_STREAM), ("3", 0)] {
        let server = scripted(&[], move |frames| {
            let stream = frames.request()?;
            frames.head(stream, &[(":status", "200"), ("content-length", length)], 0)?;
            frames.send(DATA, end, stream, b"hello")?;
            frames.wait_for_end()
        });
        let dispatcher = in_front_of(&[server.endpoint()], |_| {});
        let mut client = Client::of(&dispatcher);
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.response().is_err(), "{length}");
        wait_for("it is counted", || {
            failures(&dispatcher, "s1", "broken") + failures(&dispatcher, "s1", "garbage") == 1
        });
    }
}

#[test]
fn rfc9110_6_4_1_a_body_that_there_cannot_be_is_not_passed_on() {
    let server = scripted(&[], |frames| {
        let stream = frames.request()?;
        frames.head(stream, &[(":status", "204")], 0)?;
        frames.send(DATA, END_STREAM, stream, b"hello")?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let (bytes, _) = client.rest();
    assert!(!String::from_utf8(bytes).unwrap().contains("hello"));
    assert_eq!(failures(&dispatcher, "s1", "broken"), 1);
}

const WHOLE: [(&str, &str); 3] = [(":status", "200"), ("content-length", "20"), ("etag", "\"v1\"")];

#[test]
fn a_body_that_is_reset_is_gone_on_with_elsewhere() {
    let first = scripted(&[], |frames| {
        let stream = frames.request()?;
        frames.head(stream, &WHOLE, 0)?;
        frames.send(DATA, 0, stream, b"0123456")?;
        frames.reset(stream, INTERNAL_ERROR)?;
        frames.wait_for_end()
    });
    let second = Http2Server::run(|mut exchange| async move {
        assert_eq!(exchange.request.headers()["range"], "bytes=7-");
        assert_eq!(exchange.request.headers()["if-range"], "\"v1\"");
        let fields = [("content-length", "13"), ("content-range", "bytes 7-19/20"), ("etag", "\"v1\"")];
        exchange.begin(206, &fields, false).send_data("789abcdefghij".into(), true).unwrap();
    });
    let dispatcher = in_front_of(&[first.endpoint(), second.endpoint()], |_| {});
    assert_eq!(kit::get(&dispatcher, "/").text(), "0123456789abcdefghij");
    assert_eq!(failures(&dispatcher, "s1", "broken"), 1);
}

#[test]
fn a_body_that_dies_with_its_connection_is_gone_on_with_by_http_1() {
    let first = scripted(&[], |frames| {
        let stream = frames.request()?;
        frames.head(stream, &WHOLE, 0)?;
        frames.send(DATA, 0, stream, b"0123456")
    });
    let second = Server::run(|connection| {
        connection.request()?;
        let head = "206 Partial Content\r\nContent-Length: 13\r\nContent-Range: bytes 7-19/20\r\nETag: \"v1\"";
        connection.send(format!("HTTP/1.1 {head}\r\n\r\n789abcdefghij"))
    });
    assert_eq!(kit::get(&mixed(&first, &second, |_| {}), "/").text(), "0123456789abcdefghij");
}

#[test]
fn a_body_that_nobody_has_the_rest_of_is_seen_to_be_broken() {
    let server = scripted(&[], |frames| {
        let stream = frames.request()?;
        frames.head(stream, &[(":status", "200")], 0)?;
        frames.send(DATA, 0, stream, b"0123456")?;
        // Without END_STREAM that is no end, whatever the reason.
        frames.reset(stream, NO_ERROR)?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let (bytes, end) = client.rest();
    assert!(end.is_err() && !bytes.ends_with(b"0\r\n\r\n"), "{}", bytes.escape_ascii());
}

#[test]
fn a_client_that_goes_away_costs_its_stream_alone() {
    let gone = Arc::new(AtomicBool::new(false));
    let left = gone.clone();
    let server = scripted(&[], move |frames| {
        let stream = frames.request()?;
        frames.head(stream, &[(":status", "200")], 0)?;
        frames.send(DATA, 0, stream, b"begun")?;
        wait_for("the client to be gone", || left.load(SeqCst));
        loop {
            // He is missed once something is sent to him.
            frames.send(DATA, 0, stream, b"more")?;
            frames.send(PING, 0, 0, &[7; 8])?;
            if frames.next_of(&[PING, RST_STREAM])?.kind == RST_STREAM {
                break;
            }
        }
        let next = frames.request()?;
        frames.answer(next, "next")?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head().unwrap();
    client.close();
    gone.store(true, SeqCst);
    wait_for("he is missed", || failures(&dispatcher, "s1", "client") == 1);
    assert_eq!(kit::get(&dispatcher, "/").text(), "next");
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_server_that_does_not_answer_in_time_gets_nothing_more_on_that_connection() {
    let server = scripted(&[], |frames| {
        let stream = frames.request()?;
        if frames.number() == 1 {
            frames.answer(stream, "second")?;
        }
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |config| config.timeouts.response = Duration::from_millis(50));
    assert_eq!(kit::get(&dispatcher, "/").status(), 504);
    assert_eq!(failures(&dispatcher, "s1", "timeout"), 1);
    assert_eq!(kit::get(&dispatcher, "/").text(), "second");
}

#[test]
fn who_does_not_speak_http_2_is_passed_over() {
    // One answers as HTTP/1.1, one not at all, and one is not there.
    let wrong = Server::run(|connection| connection.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"));
    let silent = Server::run(kit::Connection::wait_for_end);
    let well = Http2Server::echoing();
    let endpoints = [wrong.endpoint(), silent.endpoint(), nowhere(), well.endpoint()];
    let dispatcher = in_front_of(&endpoints, |config| {
        config.timeouts.connect = Duration::from_millis(100);
        config.limits.attempts = 4;
        config.settings.fallbacks = 4;
    });
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody");
    assert_eq!(client.response().unwrap().text(), "/");
    for server in ["s1", "s2", "s3"] {
        assert_eq!(failures(&dispatcher, server, "connect"), 1, "{server}");
    }
}

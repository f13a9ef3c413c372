//! Replays against scripted servers on real sockets.

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;
use support::{Server, Then, answer, answer_raw, closed, open, run, stall, trace};
use vibra_replay::{Errors, Lengths, Mode, Options, Spread};
use vibra_trace::Method;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_stalled_server_is_charged_for_every_request_that_was_due_meanwhile() {
    // No request is answered before the last one, due after 190 ms, has arrived.
    let arrived = Barrier::new(20);
    let server = Server::start(move |stream, _, _| {
        arrived.wait();
        answer(stream, 10)
    });
    let summary = run(&trace(&["/"; 20], 10, SECOND / 5), &open(server.address));
    assert_eq!((summary.completed, summary.bytes, summary.connections), (20, 200, 20));
    let times = summary.response_time.expect("there were answers");
    // From 190 ms for the first one down to 0 for the last one.
    assert!(times.max_ms >= 190.0, "{times:?}");
    assert!(times.mean_ms >= 95.0, "{times:?}");
    // And the generator is not charged for it.
    let lag = summary.send_lag.expect("an open loop has a lag");
    assert!(lag.p50_ms < times.p50_ms / 2.0, "{lag:?}, {times:?}");
    assert_eq!(summary.void, None);
}

#[test]
fn a_closed_loop_keeps_its_concurrency() {
    // Answers come by threes: with fewer clients the replay would stall, and a fourth would need a fourth connection.
    let arrived = Barrier::new(3);
    let server = Server::start(move |stream, _, _| {
        arrived.wait();
        answer(stream, 10)
    });
    let summary = run(&trace(&["/"; 30], 10, SECOND), &closed(server.address, 3));
    assert_eq!((summary.completed, summary.connections, server.connections()), (30, 3, 3));
    assert_eq!((summary.send_lag, summary.void), (None, None));
}

#[test]
fn errors_are_counted_by_class() {
    let server = Server::start(|stream, head, _| match head.split(' ').nth(1).expect("a target") {
        "/404" => answer_raw(stream, "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", Then::KeepOpen),
        "/500" => answer_raw(stream, "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n", Then::KeepOpen),
        "/truncated" => answer_raw(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345", Then::Close),
        "/half-chunk" => {
            answer_raw(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n1234", Then::Close)
        }
        "/no-last-chunk" => {
            answer_raw(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n12\r\n", Then::Close)
        }
        "/no-chunk" => {
            answer_raw(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhello\r\n", Then::KeepOpen)
        }
        "/short" => answer(stream, 9),
        "/garbage" => answer_raw(stream, "220 mail.example ESMTP\r\n\r\n", Then::KeepOpen),
        "/closed" => Ok(Then::Close),
        "/half-head" => answer_raw(stream, "HTTP/1.1 200 OK\r\ncontent-", Then::Close),
        "/stall" => stall(stream),
        "/stall-in-body" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345")?;
            stall(stream)
        }
        _ => answer(stream, 10),
    });
    let urls = [
        "/ok",
        "/404",
        "/500",
        "/truncated",
        "/half-chunk",
        "/no-last-chunk",
        "/no-chunk",
        "/short",
        "/garbage",
        "/closed",
        "/half-head",
        "/stall",
        "/stall-in-body",
        "/ok",
    ];
    let expected = Errors {
        connect: 0,
        timeout: 2,
        closed: 2,
        protocol: 2,
        status_4xx: 1,
        status_5xx: 1,
        truncated: 3,
        wrong_length: 1,
    };
    let trace = trace(&urls, 10, SECOND / 5);
    let timeout = SECOND;
    for options in [open(server.address), closed(server.address, 1)] {
        let summary = run(&trace, &Options { timeout, ..options });
        assert_eq!(summary.errors, expected);
        assert_eq!((summary.completed, summary.bytes), (2, 20));
        assert!(summary.duration_s >= 1.0, "{}", summary.duration_s);
    }
}

#[test]
fn a_server_that_is_not_there_is_a_connect_error() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let summary = run(&trace(&["/"; 5], 10, SECOND / 10), &open(nobody));
    assert_eq!((summary.errors.connect, summary.errors.total(), summary.completed), (5, 5, 0));
    assert_eq!((summary.response_time, summary.void), (None, None));
}

#[test]
fn connections_are_kept_open_as_long_as_the_server_does() {
    let trace = trace(&["/"; 6], 10, SECOND);
    let keeps = Server::start(|stream, _, _| answer(stream, 10));
    let summary = run(&trace, &closed(keeps.address, 1));
    assert_eq!((summary.completed, summary.connections, summary.retries), (6, 1, 0));

    let says_so = Server::start(|stream, _, _| {
        let raw = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 10\r\n\r\n1234567890";
        answer_raw(stream, raw, Then::Close)
    });
    let summary = run(&trace, &closed(says_so.address, 1));
    assert_eq!((summary.completed, summary.connections, summary.retries), (6, 6, 0));
}

#[test]
fn a_connection_that_closes_under_a_request_is_no_error_if_it_was_idle_before() {
    // Every second request of a connection is not answered.
    let server = Server::start(|stream, _, number| match number {
        0 => answer(stream, 10),
        _ => Ok(Then::Close),
    });
    let summary = run(&trace(&["/"; 4], 10, SECOND), &closed(server.address, 1));
    // Each later request first tries the connection of the one before.
    assert_eq!((summary.completed, summary.connections, summary.retries), (4, 4, 3));
}

#[test]
fn a_run_that_needed_more_connections_than_it_may_have_is_void() {
    let arrived = Barrier::new(2);
    let server = Server::start(move |stream, _, _| {
        arrived.wait();
        answer(stream, 10)
    });
    let mode = Mode::Open { speed: 1.0, spread: Spread::Burst };
    let options = Options { mode, connections: 2, ..open(server.address) };
    let summary = run(&trace(&["/"; 5], 10, SECOND), &options);
    assert_eq!((summary.completed, summary.unsent, summary.errors), (2, 3, Errors::default()));
    let void = summary.void.expect("void");
    assert!(void.contains("3 requests were not sent: all 2 connections"), "{void}");
}

#[test]
fn a_run_that_fell_behind_is_void() {
    // All at once: not even the connections can be tried within the default limit.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("an address");
    let options = Options::new(nobody, Mode::Open { speed: 1.0, spread: Spread::Burst });
    let summary = run(&trace(&["/"; 4000], 10, SECOND), &options);
    assert_eq!(summary.errors.connect, 4000);
    let void = summary.void.expect("void");
    assert!(void.starts_with("the generator fell behind"), "{void}");
    let lag = summary.send_lag.expect("an open loop has a lag");
    assert!(lag.max_ms >= lag.p99_ms && lag.p99_ms > 5.0, "{lag:?}");
}

#[test]
fn the_warm_up_is_sent_but_not_counted() {
    let server = Server::start(|stream, _, _| answer(stream, 10));
    let options = Options { warm_up: SECOND / 10, ..open(server.address) };
    let summary = run(&trace(&["/"; 10], 10, SECOND / 5), &options);
    assert_eq!((summary.warm_up_requests, summary.requests, summary.bytes), (5, 5, 50));
    assert!((0.08..10.0).contains(&summary.duration_s), "{}", summary.duration_s);
}

#[test]
fn nothing_is_sent_after_the_stop() {
    let server = Server::start(|stream, _, _| answer(stream, 10));
    let stop_after = Some(SECOND / 10);
    let urls = ["/"; 10];
    let summary = run(&trace(&urls, 10, SECOND / 5), &Options { stop_after, ..open(server.address) });
    assert_eq!((summary.requests, summary.completed), (5, 5));

    // In a closed loop a stop is a time, too: of two clients and a server that never answers, two time-outs.
    let server = Server::start(|stream, _, _| stall(stream));
    let options = Options { stop_after: Some(SECOND / 2), timeout: SECOND, ..closed(server.address, 2) };
    let summary = run(&trace(&urls, 10, SECOND), &options);
    assert_eq!((summary.requests, summary.errors.timeout), (2, 2));
}

#[test]
fn threads_share_the_trace_out_among_them() {
    let server = Server::start(|stream, _, _| answer(stream, 10));
    let urls: Vec<String> = (0..40).map(|k| format!("/{k}")).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let trace = trace(&urls, 10, SECOND / 10);
    for options in [open(server.address), closed(server.address, 4)] {
        let summary = run(&trace, &Options { threads: 3, ..options });
        assert_eq!((summary.completed, summary.bytes), (40, 400));
        assert_eq!(summary.seconds.iter().map(|second| second.requests).sum::<u64>(), 40);
        assert_eq!(summary.histogram.iter().map(|bucket| bucket.1).sum::<u64>(), 40);
    }
}

#[test]
fn what_the_trace_has_of_a_request_is_on_the_wire() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let server = Server::start(move |stream, head, _| {
        seen.lock().expect("not poisoned").push(head.to_ascii_lowercase());
        if head.starts_with("HEAD") {
            answer_raw(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", Then::KeepOpen)
        } else if head.contains("if-modified-since") {
            answer_raw(stream, "HTTP/1.1 304 Not Modified\r\n\r\n", Then::KeepOpen)
        } else if head.contains("range") {
            answer_raw(stream, "HTTP/1.1 206 Partial\r\ncontent-length: 4\r\n\r\n1234", Then::KeepOpen)
        } else {
            answer(stream, 10)
        }
    });
    let mut trace = trace(&["/get", "/head", "/post", "/conditional", "/range"], 10, SECOND);
    trace.requests[1].method = Method::Head;
    trace.requests[2].method = Method::Post;
    trace.requests[3].status = 304;
    trace.requests[4].status = 206;
    trace.requests[4].bytes = 4.into();
    let options = Options { host: "example.org".into(), ..closed(server.address, 1) };
    let summary = run(&trace, &options);
    assert_eq!((summary.completed, summary.skipped, summary.bytes, summary.connections), (4, 1, 14, 1));
    let heads = heads.lock().expect("not poisoned");
    let [get, head, conditional, range] = &heads[..] else { panic!("{heads:?}") };
    assert_eq!(get, "get /get http/1.1\r\nhost: example.org\r\n\r\n");
    assert!(head.starts_with("head /head http/1.1\r\n"), "{head}");
    assert!(conditional.starts_with("get /conditional ") && conditional.contains("if-modified-since: "));
    assert!(range.contains("range: bytes=0-3\r\n"), "{range}");
}

#[test]
fn large_and_chunked_bodies_are_counted_as_they_stream() {
    const LARGE: usize = 20_000_000;
    let server = Server::start(|stream, head, _| {
        if head.starts_with("GET /large") {
            return answer(stream, LARGE);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        for _ in 0..100 {
            stream.write_all(b"3e8\r\n")?;
            stream.write_all(&[b'x'; 1000])?;
            stream.write_all(b"\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")?;
        Ok(Then::KeepOpen)
    });
    let options = Options { lengths: Lengths::Any, ..closed(server.address, 2) };
    let summary = run(&trace(&["/large", "/chunked", "/chunked"], 10, SECOND), &options);
    assert_eq!((summary.completed, summary.bytes), (3, LARGE as u64 + 200_000));
}

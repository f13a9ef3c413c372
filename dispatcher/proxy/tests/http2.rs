//! Clients that speak HTTP/2: what they get when they behave, and what their requests become.

mod kit;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use kit::http2::{
    ACK, DATA, END_STREAM, Frame, GET, GOAWAY, HEADERS, NO_ERROR, PING, PREFACE, PROTOCOL_ERROR, Peer, REFUSED_STREAM,
    RST_STREAM, frame,
};
use kit::http2_server::read;
use kit::{Client, Server, before, block_on, dispatcher, wait_for};
use std::sync::{Arc, Barrier, Condvar, Mutex, mpsc};
use std::time::Duration;
use vibra_proxy::Handle;

/// A client of HTTP/2, on the runtime that this runs on.
async fn connect(dispatcher: &Handle) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(dispatcher.addresses()[0]).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(method: Method, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://shop.example{path}")).body(()).unwrap()
}

/// Sends a request with a whole body.
async fn exchange(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    body: impl Into<Bytes>,
) -> Result<Response<RecvStream>, h2::Error> {
    let body = body.into();
    let mut sender = sender.clone().ready().await?;
    let (response, mut stream) = sender.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body, true)?;
    }
    response.await
}

async fn get(sender: &SendRequest<Bytes>, path: &str) -> String {
    let response = exchange(sender, request(Method::GET, path), "").await.unwrap();
    String::from_utf8(read(&mut response.into_body()).await.unwrap().0).unwrap()
}

#[test]
fn rfc9113_3_3_who_begins_with_http_2_is_served_with_it() {
    let server = Server::well(|request| request.path().to_owned());
    let dispatcher = before(&server);
    block_on(async {
        let sender = connect(&dispatcher).await;
        for path in ["/a", "/b?c=d", "/e"] {
            assert_eq!(get(&sender, path).await, path);
        }
    });
    assert_eq!(server.connections(), 1);
    let sent = &server.requests()[1];
    assert_eq!(sent.start, "GET /b?c=d HTTP/1.1");
    assert_eq!(sent.header("host").as_deref(), Some("shop.example"));
    assert!(sent.header("via").unwrap().starts_with("2.0 vibra-"), "{sent:?}");
    assert_eq!(sent.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(dispatcher.status().server("s1").unwrap().responses["2xx"], 3);
}

#[test]
fn rfc9113_3_4_the_preface_may_come_in_pieces() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::silent(dispatcher.addresses()[0]);
    for piece in [&PREFACE[..5], &PREFACE[5..20], &PREFACE[20..]] {
        peer.send(piece);
    }
    peer.send(frame(4, 0, 0, &[]));
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA]).payload, b"well");
}

#[test]
fn rfc9113_3_3_nobody_changes_to_http_2_later() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").text(), "well");
    client.send(PREFACE);
    assert_eq!(client.response().unwrap().status(), 505);
}

#[test]
fn http_2_can_be_switched_off() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| config.http2 = false);
    let mut client = Client::of(&dispatcher);
    client.send(PREFACE);
    assert_eq!(client.response().unwrap().status(), 505);
}

#[test]
fn rfc9113_5_streams_do_not_wait_for_each_other() {
    const STREAMS: usize = 100;
    // Nobody is answered before all have asked.
    let all = Arc::new(Barrier::new(STREAMS));
    let server = Server::well(move |request| {
        all.wait();
        request.path().to_owned()
    });
    let dispatcher = before(&server);
    block_on(async {
        let sender = connect(&dispatcher).await;
        let requests = (0..STREAMS).map(|n| {
            let sender = sender.clone();
            tokio::spawn(async move { assert_eq!(get(&sender, &format!("/{n}")).await, format!("/{n}")) })
        });
        for answered in requests.collect::<Vec<_>>() {
            answered.await.unwrap();
        }
    });
}

#[test]
fn rfc9113_5_1_2_streams_beyond_the_limit_are_refused() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let server = Server::well(move |_| {
        let _ = gone.lock().unwrap().recv();
        "well".to_owned()
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| config.limits.streams = 2);
    let mut peer = Peer::of(&dispatcher);
    for stream in [1, 3, 5] {
        peer.open(stream, &GET, END_STREAM);
    }
    let refused = peer.next(&[RST_STREAM]);
    assert_eq!((refused.stream, refused.code()), (5, REFUSED_STREAM));
    drop(go);
    let answered: Vec<_> = (0..2).map(|_| peer.next(&[DATA]).stream).collect();
    assert!(answered == [1, 3] || answered == [3, 1], "{answered:?}");
}

#[test]
fn rfc9113_8_1_bodies_and_trailers_go_both_ways() {
    let server = Server::run(|connection| {
        let request = connection.request()?;
        let size = request.body.len();
        connection.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n")?;
        connection.send(format!("{size:x}\r\n"))?;
        connection.send(&request.body)?;
        connection.send("\r\n0\r\nX-Sum: 1\r\n\r\n")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let body: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    block_on(async {
        let mut sender = connect(&dispatcher).await.ready().await.unwrap();
        let (response, mut stream) = sender.send_request(request(Method::POST, "/up"), false).unwrap();
        stream.send_data(body.clone().into(), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checked", "yes".parse().unwrap());
        stream.send_trailers(trailers).unwrap();
        let response = response.await.unwrap();
        assert!(!response.headers().contains_key("transfer-encoding"), "{response:?}");
        let (echo, trailers) = read(&mut response.into_body()).await.unwrap();
        assert!(echo == body);
        assert_eq!(trailers.unwrap()["x-sum"], "1");
    });
    assert_eq!(server.requests()[0].header("transfer-encoding").as_deref(), Some("chunked"));
}

#[test]
fn rfc9113_8_1_a_body_of_known_length_keeps_it() {
    let server = Server::well(|request| request.text().to_owned());
    let dispatcher = before(&server);
    block_on(async {
        let sender = connect(&dispatcher).await;
        let mut request = request(Method::PUT, "/");
        request.headers_mut().insert("content-length", 5.into());
        let response = exchange(&sender, request, "hello").await.unwrap();
        assert_eq!(response.headers()["content-length"], "5");
        assert_eq!(read(&mut response.into_body()).await.unwrap().0, b"hello");
    });
    let sent = &server.requests()[0];
    assert_eq!((sent.header("content-length").as_deref(), sent.header("transfer-encoding")), (Some("5"), None));
}

#[test]
fn rfc9113_8_1_1_data_sums_up_to_content_length() {
    let server = Server::silent();
    let dispatcher = before(&server);
    let fields = [&[(":method", "POST")], &GET[1..], &[("content-length", "4")]].concat();
    for (n, data) in ["hello", "hel"].iter().enumerate() {
        let mut peer = Peer::of(&dispatcher);
        peer.open(1, &fields, 0);
        wait_for("the server has the head", || server.requests().len() == n + 1);
        peer.send(frame(DATA, END_STREAM, 1, data.as_bytes()));
        assert_eq!(peer.next(&[RST_STREAM, DATA, HEADERS]).code(), PROTOCOL_ERROR, "{data:?}");
        wait_for("the request is given up", || dispatcher.status().servers[0].active == 0);
    }
    assert_eq!(dispatcher.status().servers[0].failures["client"], 2);
}

#[test]
fn rfc9113_8_1_1_a_body_that_was_announced_and_does_not_come_is_none() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &[&GET[..], &[("content-length", "4")]].concat(), END_STREAM);
    assert_eq!(peer.next(&[RST_STREAM, HEADERS]).code(), PROTOCOL_ERROR);
    assert_eq!(server.requests(), []);
}

#[test]
fn rfc9113_8_2_and_8_3_malformed_requests_reach_no_server() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let with = |more: &[(&'static str, &'static str)]| [&GET[..], more].concat();
    let without = |name: &str| GET.into_iter().filter(|field| field.0 != name).collect::<Vec<_>>();
    let but = |name: &'static str, value: &'static str| {
        GET.map(|field| if field.0 == name { (name, value) } else { field }).to_vec()
    };
    for fields in [
        // 8.2.1: names and values.
        with(&[("X-Upper", "1")]),
        with(&[("", "1")]),
        with(&[("x y", "1")]),
        with(&[("x:y", "1")]),
        with(&[("x-\u{e4}", "1")]),
        with(&[("x-a", "1\r\nx-b: 2")]),
        with(&[("x-a", "1\n2")]),
        with(&[("x-a", "1\0")]),
        with(&[("x-a", " 1")]),
        with(&[("x-a", "1 ")]),
        with(&[("x-a", "\t1")]),
        // 8.2.2: fields of connections.
        with(&[("connection", "close")]),
        with(&[("keep-alive", "1")]),
        with(&[("proxy-connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[("te", "trailers, gzip")]),
        // 8.3: pseudo fields.
        with(&[(":path", "/b")]),
        with(&[("x-a", "1"), (":path", "/b")]),
        with(&[(":status", "200")]),
        with(&[(":unknown", "1")]),
        with(&[(":protocol", "websocket")]),
        [&[("x-a", "1")], &GET[..]].concat(),
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        but(":method", "G T"),
        but(":method", ""),
        but(":path", ""),
        but(":path", "a"),
        but(":path", "*"),
        but(":path", "http://other.example/"),
        but(":path", "/a b"),
        but(":path", "/\r\nx: y"),
        but(":authority", "user@shop.example"),
        but(":authority", "shop.example/a"),
        but(":authority", ""),
        with(&[("host", "other.example")]),
        with(&[("host", "shop.example"), ("host", "other.example")]),
        with(&[("content-length", "x")]),
        with(&[("content-length", "0"), ("content-length", "1")]),
    ] {
        let mut peer = Peer::of(&dispatcher);
        peer.open(1, &fields, END_STREAM);
        let answer = peer.next(&[RST_STREAM, GOAWAY, HEADERS]);
        // What breaks the compression's state breaks the connection.
        assert!([RST_STREAM, GOAWAY].contains(&answer.kind), "{fields:?}: {answer:?}");
        assert_eq!(answer.code(), PROTOCOL_ERROR, "{fields:?}: {answer:?}");
    }
    assert_eq!(server.requests(), []);
}

#[test]
fn rfc9113_8_1_1_a_malformed_request_is_a_fault_of_its_stream_alone() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &[&GET[..], &[("x-a", " 1")]].concat(), END_STREAM);
    peer.open(3, &GET, END_STREAM);
    assert_eq!(peer.next(&[RST_STREAM]).stream, 1);
    assert_eq!(peer.next(&[DATA]).payload, b"well");
}

#[test]
fn rfc9113_8_5_tunnels_are_refused() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &[(":method", "CONNECT"), (":authority", "shop.example:443")], 0);
    peer.next(&[HEADERS]);
    assert!(peer.next(&[DATA]).payload.starts_with(b"501"));
    assert_eq!(server.requests(), []);
}

#[test]
fn rfc9113_8_1_interim_responses_are_passed_on() {
    let server = Server::run(|connection| {
        let head = connection.head()?;
        assert_eq!(head.header("expect").as_deref(), Some("100-continue"));
        connection.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        let mut body = [0; 4];
        connection.read_exact(&mut body)?;
        assert_eq!(&body, b"body");
        connection.answer("well")
    });
    let dispatcher = before(&server);
    block_on(async {
        let mut sender = connect(&dispatcher).await.ready().await.unwrap();
        let mut request = request(Method::POST, "/");
        request.headers_mut().insert("expect", "100-continue".parse().unwrap());
        request.headers_mut().insert("content-length", 4.into());
        let (mut response, mut stream) = sender.send_request(request, false).unwrap();
        let mut interim = async || std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(interim().await.status(), StatusCode::CONTINUE);
        let hints = interim().await;
        assert_eq!((hints.status(), &hints.headers()["link"]), (StatusCode::EARLY_HINTS, &"</a.css>".parse().unwrap()));
        stream.send_data("body".into(), true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn rfc9113_8_1_responses_without_body_end_with_their_head() {
    let server = Server::bodiless("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let dispatcher = before(&server);
    block_on(async {
        let sender = connect(&dispatcher).await;
        for (method, path, status, length) in [
            (Method::HEAD, "/a", 200, Some("5000")),
            (Method::GET, "/b", 304, None),
            (Method::GET, "/c", 204, None),
            (Method::GET, "/d", 200, Some("0")),
        ] {
            let response = exchange(&sender, request(method, path), "").await.unwrap();
            let told = response.headers().get("content-length").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!((response.status().as_u16(), told.as_deref()), (status, length), "{path}");
            assert!(response.body().is_end_stream(), "{path}");
        }
    });
}

#[test]
fn what_concerns_a_connection_stays_there() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 200 OK\r\nConnection: x-hop, close\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n")?;
        connection.send("Set-Cookie: a\r\nSet-Cookie: b\r\nETag: \"e\"\r\n\r\nuntil the end")
    });
    let dispatcher = before(&server);
    block_on(async {
        let sender = connect(&dispatcher).await;
        let response = exchange(&sender, request(Method::GET, "/"), "").await.unwrap();
        let names: Vec<_> = response.headers().keys().map(http::HeaderName::as_str).collect();
        assert!(["connection", "x-hop", "keep-alive"].iter().all(|name| !names.contains(name)), "{names:?}");
        assert_eq!(response.headers()["etag"], "\"e\"");
        assert_eq!(response.headers().get_all("set-cookie").iter().count(), 2);
        assert_eq!(read(&mut response.into_body()).await.unwrap().0, b"until the end");
    });
}

#[test]
fn rfc9113_8_1_a_response_that_breaks_off_does_not_look_whole() {
    let server = Server::run(|connection| {
        let request = connection.request()?;
        if request.path() == "/well" {
            return connection.answer("well");
        }
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart")
    });
    let dispatcher = before(&server);
    block_on(async {
        let sender = connect(&dispatcher).await;
        let error = match exchange(&sender, request(Method::GET, "/"), "").await {
            Ok(response) => read(&mut response.into_body()).await.unwrap_err(),
            // The end has overtaken the head.
            Err(error) => error,
        };
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(get(&sender, "/well").await, "well", "other streams go on");
    });
}

#[test]
fn rfc9113_5_4_2_a_request_that_the_client_resets_is_taken_from_its_server() {
    let (server, gone) = Server::silent_until_end();
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &GET, END_STREAM);
    wait_for("the server has the request", || server.requests().len() == 1);
    peer.send(frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes()));
    gone.recv_timeout(kit::PATIENCE).expect("the server learns that nobody waits");
    wait_for("the request is given up", || dispatcher.status().servers[0].active == 0);
    assert_eq!(dispatcher.status().servers[0].failures["client"], 1);
    peer.send(frame(PING, 0, 0, b"12345678"));
    let pong = Frame { kind: PING, flags: ACK, stream: 0, payload: b"12345678".to_vec() };
    assert_eq!(peer.next(&[PING, GOAWAY]), pong, "the connection goes on");
}

#[test]
fn rfc9113_8_1_who_is_answered_early_need_not_send_the_rest() {
    let server = Server::run(|connection| {
        connection.head()?;
        connection.send("HTTP/1.1 413 Too Much\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &[&[(":method", "POST")], &GET[1..]].concat(), 0);
    assert_eq!(peer.next(&[HEADERS]).flags & END_STREAM, END_STREAM);
    assert_eq!(peer.next(&[RST_STREAM]).code(), NO_ERROR);
}

#[test]
fn rfc9113_6_8_a_drain_lets_requests_end() {
    let state = Arc::new((Mutex::new(false), Condvar::new()));
    let gate = state.clone();
    let server = Server::well(move |_| {
        drop(gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open).unwrap());
        "well".to_owned()
    });
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &GET, END_STREAM);
    wait_for("the server has the request", || server.requests().len() == 1);
    let draining = std::thread::spawn(move || block_on(dispatcher.shutdown(kit::PATIENCE)));
    let goaway = peer.next(&[GOAWAY]);
    assert_eq!((goaway.code(), &goaway.payload[..4]), (NO_ERROR, &[0x7f, 0xff, 0xff, 0xff][..]));
    let ping = peer.next(&[PING]);
    peer.send(frame(PING, ACK, 0, &ping.payload));
    let goaway = peer.next(&[GOAWAY]);
    assert_eq!((goaway.code(), &goaway.payload[..4]), (NO_ERROR, &[0, 0, 0, 1][..]));
    *state.0.lock().unwrap() = true;
    state.1.notify_all();
    assert_eq!(peer.next(&[DATA]).payload, b"well");
    assert!(peer.is_ended());
    assert_eq!(draining.join().unwrap(), 0);
}

#[test]
fn versions_and_connections_are_counted() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.admin = Some("127.0.0.1:0".parse().unwrap());
    });
    block_on(async {
        let sender = connect(&dispatcher).await;
        get(&sender, "/").await;
        get(&sender, "/").await;
    });
    kit::get(&dispatcher, "/");
    let mut admin = Client::connect(dispatcher.admin().unwrap());
    let metrics = admin.get("/metrics");
    for line in [
        "vibra_proxy_requests_total{version=\"1.1\"} 1",
        "vibra_proxy_requests_total{version=\"2.0\"} 2",
        "vibra_proxy_http2_connections_total 1",
    ] {
        assert!(metrics.text().contains(line), "{line} in {}", metrics.text());
    }
}

#[test]
fn rfc9113_6_8_a_connection_at_rest_is_told_that_it_ends_whatever_it_pings() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.client_idle = Duration::from_millis(300);
    });
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA]).payload, b"well");
    let mut pinging = peer.stream.try_clone().unwrap();
    let pings = std::thread::spawn(move || {
        // Until the other side has closed, which the end of the test sees to.
        while std::io::Write::write_all(&mut pinging, &frame(PING, 0, 0, b"12345678")).is_ok() {
            std::thread::sleep(Duration::from_millis(30));
        }
    });
    let goaway = peer.next(&[GOAWAY]);
    assert_eq!(goaway.code(), NO_ERROR);
    drop(peer);
    wait_for("the connection is closed", || dispatcher.status().connections == 0);
    pings.join().unwrap();
}

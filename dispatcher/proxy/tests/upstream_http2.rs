//! Servers that speak HTTP/2: what they get, and what clients get of them, well or not.

mod kit;

use bytes::Bytes;
use h2::server::Builder;
use kit::authority::Authority;
use kit::http2::{ACK, DATA, END_STREAM, GET, HEADERS, NO_ERROR, Peer, SETTINGS};
use kit::http2_server::{Exchange, Frames, Http2Server, before, in_front_of, response, scripted};
use kit::{Client, PATIENCE, Server, block_on, wait_for};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, kill_process};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;
use std::{fs, thread};
use tempfile::TempDir;
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;
use vibra_proxy::{ActiveCheck, Authorities, BackTls, Config, Handle, ProxyVersion, Source};

const MAX_CONCURRENT_STREAMS: u16 = 3;

/// Sends so many requests at once, each on a connection of its own, and gives their responses' texts in order.
fn at_once(dispatcher: &Handle, requests: usize) -> Vec<String> {
    let clients: Vec<_> = (0..requests)
        .map(|n| {
            let mut client = Client::of(dispatcher);
            client.send(format!("GET /{n} HTTP/1.1\r\nHost: x\r\n\r\n"));
            client
        })
        .collect();
    clients.into_iter().map(|mut client| client.response().unwrap().text().to_owned()).collect()
}

#[test]
fn rfc9113_3_3_a_server_is_spoken_to_by_prior_knowledge() {
    let server = Http2Server::echoing();
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.get(path).text(), path);
    }
    assert_eq!(server.connections(), 1);
    let status = dispatcher.status();
    let counted = status.server("s1").unwrap();
    assert_eq!((counted.responses["2xx"], counted.connects), (3, 1));
}

#[test]
fn rfc9113_8_3_1_a_request_is_what_it_was() {
    let server = Http2Server::echoing();
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send(
        "OPTIONS /a?b=%20c HTTP/1.1\r\nHost: shop.example:8080\r\nConnection: x-hop, te\r\nX-Hop: 1\r\nX-End: 2\r\n\
         Keep-Alive: 5\r\nTE: trailers\r\nUpgrade: websocket\r\nCookie: a=b\r\n\r\n",
    );
    assert_eq!(client.response().unwrap().status(), 200);
    let request = &server.requests()[0];
    assert_eq!(request.uri(), "http://shop.example:8080/a?b=%20c");
    assert_eq!(request.method(), "OPTIONS");
    let value = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert_eq!(value("te").as_deref(), Some("trailers"));
    assert_eq!(value("x-end").as_deref(), Some("2"));
    assert_eq!(value("cookie").as_deref(), Some("a=b"));
    assert_eq!(value("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(value("x-forwarded-host").as_deref(), Some("shop.example:8080"));
    assert!(value("via").unwrap().starts_with("1.1 vibra-"));
    assert!(value("x-request-id").is_some() && value("x-request-start").is_some());
    for gone in ["host", "connection", "x-hop", "keep-alive", "upgrade", "transfer-encoding"] {
        assert_eq!(value(gone), None, "{gone}");
    }
}

#[test]
fn rfc9113_8_3_1_the_whole_server_is_meant_by_an_asterisk() {
    let server = Http2Server::run(|mut exchange| async move {
        let target = exchange.request.uri().path_and_query().unwrap().to_string();
        exchange.answer(target);
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "*");
}

#[test]
fn rfc9113_8_3_1_where_no_host_is_named_it_is_the_servers() {
    let server = Http2Server::run(|mut exchange| async move {
        let authority = exchange.request.uri().authority().unwrap().to_string();
        exchange.answer(authority);
    });
    let dispatcher = before(&server);
    for request in ["GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.0\r\nHost:\r\n\r\n"] {
        let mut client = Client::of(&dispatcher);
        client.send(request);
        assert_eq!(client.response().unwrap().text(), server.endpoint());
    }
}

#[test]
fn what_no_url_can_have_is_refused() {
    let server = Http2Server::echoing();
    let dispatcher = before(&server);
    for (target, host) in [("/<a>", "x"), ("/", "a%2fb"), ("/", "a:b:c")] {
        let mut client = Client::of(&dispatcher);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response().unwrap().status(), 400, "{target} {host}");
    }
    assert_eq!(server.requests().len(), 0);
    assert_eq!(kit::get(&dispatcher, "/a").text(), "/a");
}

#[test]
fn rfc9113_8_6_another_protocol_is_not_asked_for() {
    let server = Http2Server::echoing();
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response().unwrap().text(), "/chat");
    assert_eq!(client.get("/next").text(), "/next");
}

#[test]
fn rfc9113_5_requests_share_a_connection() {
    const REQUESTS: usize = 50;
    // Nobody is answered before all have asked.
    let all = Arc::new(Barrier::new(REQUESTS));
    let server = Http2Server::run(move |mut exchange| {
        let all = all.clone();
        async move {
            all.wait().await;
            let path = exchange.path().to_owned();
            exchange.answer(path);
        }
    });
    let dispatcher = before(&server);
    let expected: Vec<_> = (0..REQUESTS).map(|n| format!("/{n}")).collect();
    assert_eq!(at_once(&dispatcher, REQUESTS), expected);
    assert_eq!(server.connections(), 1);
}

#[test]
fn rfc9113_5_1_2_what_a_server_does_not_take_at_once_goes_on_further_connections() {
    let all = Arc::new(Barrier::new(6));
    let mut builder = Builder::new();
    builder.max_concurrent_streams(2);
    let server = Http2Server::with(builder, None, move |mut exchange| {
        let all = all.clone();
        async move {
            all.wait().await;
            exchange.answer("well");
        }
    });
    let dispatcher = before(&server);
    assert!(at_once(&dispatcher, 6).iter().all(|text| text == "well"));
    assert_eq!(server.connections(), 3);
    assert_eq!(dispatcher.status().server("s1").unwrap().connects, 3);
}

#[test]
fn rfc9113_6_5_3_settings_may_change() {
    let server = scripted(&[(MAX_CONCURRENT_STREAMS, 2)], |frames| {
        let first = frames.request()?;
        if frames.number() == 0 {
            frames.settings(&[(MAX_CONCURRENT_STREAMS, 1)])?;
            while frames.next(SETTINGS)?.flags != ACK {}
            // An interim response, so that the test knows.
            frames.head(first, &[(":status", "103")], 0)?;
            return frames.wait_for_end();
        }
        frames.answer(first, "second connection")?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut first = Client::of(&dispatcher);
    first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(first.head().unwrap().status(), 103);
    assert_eq!(kit::get(&dispatcher, "/").text(), "second connection");
}

#[test]
fn rfc9113_8_1_bodies_and_trailers_pass_both_ways() {
    let server = Http2Server::run(|mut exchange| async move {
        let (body, trailers) = exchange.body().await.unwrap();
        let sum = trailers.unwrap()["x-sum"].to_str().unwrap().to_owned();
        let mut response = exchange.begin(200, &[], false);
        response.reserve_capacity(body.len());
        let mut left = Bytes::from(body);
        while !left.is_empty() {
            let room = std::future::poll_fn(|cx| response.poll_capacity(cx)).await.unwrap().unwrap();
            response.send_data(left.split_to(room.min(left.len())), false).unwrap();
        }
        response.send_trailers([("x-sum".parse().unwrap(), sum.parse().unwrap())].into_iter().collect()).unwrap();
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    let body = "0123456789abcdef".repeat(4096 * 16);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut sender = client.stream.try_clone().unwrap();
    let sent = body.clone();
    let sending = thread::spawn(move || {
        write!(sender, "{:x}\r\n{sent}\r\n0\r\nX-Sum: 7\r\n\r\n", sent.len()).unwrap();
    });
    let response = client.response().unwrap();
    sending.join().unwrap();
    assert!(response.text() == body);
    assert_eq!(response.trailers, [("x-sum".to_owned(), "7".to_owned())]);
}

#[test]
fn rfc9113_8_1_1_a_body_of_known_length_is_told_as_such() {
    let server = Http2Server::run(|mut exchange| async move {
        let length = exchange.request.headers()["content-length"].to_str().unwrap().to_owned();
        let (body, _) = exchange.body().await.unwrap();
        let mut response = exchange.begin(200, &[("content-length", &length)], false);
        response.send_data(body.into(), true).unwrap();
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    let response = client.response().unwrap();
    assert_eq!((response.header("content-length").as_deref(), response.text()), (Some("5"), "hello"));
}

#[test]
fn rfc9110_6_4_1_some_responses_have_no_body() {
    let server = Http2Server::run(|mut exchange| async move {
        match exchange.path() {
            "/204" => drop(exchange.begin(204, &[], true)),
            "/304" => drop(exchange.begin(304, &[("content-length", "7")], true)),
            "/head" => drop(exchange.begin(200, &[("content-length", "7")], true)),
            "/late" => exchange.begin(200, &[], false).send_data(Bytes::new(), true).unwrap(),
            _ => drop(exchange.begin(200, &[], true)),
        }
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/204").status(), 204);
    client.send("GET /304 HTTP/1.1\r\nHost: x\r\n\r\n");
    let unchanged = client.head().unwrap();
    assert_eq!((unchanged.status(), unchanged.header("content-length").as_deref()), (304, Some("7")));
    client.send("HEAD /head HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length").as_deref(), Some("7"));
    let empty = client.get("/empty");
    assert_eq!((empty.header("content-length").as_deref(), empty.text()), (Some("0"), ""));
    assert_eq!(client.get("/late").text(), "");
    assert_eq!(server.connections(), 1);
}

#[test]
fn rfc9110_15_2_interim_responses_are_passed_on() {
    let server = Http2Server::run(|mut exchange| async move {
        exchange.respond.send_informational(response(103, &[("link", "</a.css>")])).unwrap();
        exchange.respond.send_informational(response(100, &[])).unwrap();
        let (body, _) = exchange.body().await.unwrap();
        exchange.answer(body);
    });
    let dispatcher = before(&server);
    let mut client = Client::of(&dispatcher);
    client.send("PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    let hints = client.head().unwrap();
    assert_eq!((hints.status(), hints.header("link").as_deref()), (103, Some("</a.css>")));
    assert_eq!(client.head().unwrap().status(), 100);
    client.send("hello");
    assert_eq!(client.response().unwrap().text(), "hello");
    assert_eq!(server.requests()[0].headers()["expect"], "100-continue");
}

#[test]
fn rfc9113_8_1_a_server_may_answer_and_not_read_on() {
    let server = scripted(&[], |frames| {
        let stream = frames.request()?;
        frames.answer(stream, "enough")?;
        frames.reset(stream, NO_ERROR)?;
        frames.wait_for_end()
    });
    let dispatcher = in_front_of(&[server.endpoint()], |_| {});
    let mut client = Client::of(&dispatcher);
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nbegun");
    assert_eq!(client.response().unwrap().text(), "enough");
    wait_for("the request to end", || dispatcher.status().server("s1").unwrap().active == 0);
}

#[test]
fn rfc9113_5_2_clients_that_take_nothing_hold_nobody_up() {
    let server = Http2Server::run(|mut exchange| async move {
        if exchange.path() == "/small" {
            return exchange.answer("small");
        }
        let mut response = exchange.begin(200, &[], false);
        loop {
            response.reserve_capacity(16 * 1024);
            match std::future::poll_fn(|cx| response.poll_capacity(cx)).await {
                Some(Ok(room)) => response.send_data(vec![b'x'; room].into(), false).unwrap(),
                _ => return,
            }
        }
    });
    let dispatcher = before(&server);
    let greedy: Vec<_> = (0..60)
        .map(|_| {
            let mut client = Client::of(&dispatcher);
            client.send("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
            client
        })
        .collect();
    wait_for("all are being answered", || dispatcher.status().server("s1").unwrap().responses["2xx"] == 60);
    assert_eq!(kit::get(&dispatcher, "/small").text(), "small");
    assert_eq!(server.connections(), 1);
    drop(greedy);
    wait_for("the others to be gone", || dispatcher.status().server("s1").unwrap().active == 0);
}

#[test]
fn unused_connections_are_closed_in_time() {
    let server = Http2Server::echoing();
    let dispatcher =
        in_front_of(&[server.endpoint()], |config| config.timeouts.server_idle = Duration::from_millis(50));
    assert_eq!(kit::get(&dispatcher, "/").text(), "/");
    wait_for("the connection to close", || server.open() == 0);
    assert_eq!(kit::get(&dispatcher, "/").text(), "/");
    assert_eq!(server.connections(), 2);
}

#[test]
fn connections_close_with_the_dispatcher() {
    let server = Http2Server::echoing();
    let dispatcher = before(&server);
    assert_eq!(kit::get(&dispatcher, "/").text(), "/");
    assert_eq!(server.open(), 1);
    assert_eq!(block_on(dispatcher.shutdown(PATIENCE)), 0);
    wait_for("the connection to close", || server.open() == 0);
}

#[test]
fn servers_are_checked_by_http_2() {
    let ill = Arc::new(AtomicBool::new(false));
    let mood = ill.clone();
    let server = Http2Server::run(move |mut exchange: Exchange| {
        let status = if mood.load(SeqCst) { 500 } else { 204 };
        async move { drop(exchange.begin(status, &[], true)) }
    });
    let check = ActiveCheck {
        path: Some("/health".to_owned()),
        interval: Duration::from_millis(10),
        timeout: PATIENCE,
        rise: 1,
        fall: 1,
    };
    let dispatcher = in_front_of(&[server.endpoint()], |config| config.health.active = Some(check));
    let healthy = || dispatcher.status().server("s1").unwrap().healthy;
    wait_for("some checks", || server.requests().len() >= 3);
    assert!(healthy());
    assert_eq!(server.requests()[0].uri(), &*format!("http://{}/health", server.endpoint()));
    ill.store(true, SeqCst);
    wait_for("it is found ill", || !healthy());
    ill.store(false, SeqCst);
    wait_for("it is found well", healthy);
}

#[test]
fn clients_of_http_2_reach_servers_of_http_2() {
    let server = Http2Server::echoing();
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    for stream in [1, 3, 5] {
        peer.open(stream, &GET, END_STREAM);
        assert_eq!(peer.next(&[HEADERS]).stream, stream);
        assert_eq!(peer.next(&[DATA]).payload, b"/");
    }
    assert_eq!(server.connections(), 1);
    assert!(server.requests()[0].headers()["via"].to_str().unwrap().starts_with("2.0 vibra-"));
}

/// What shows a certificate for localhost and speaks these protocols.
fn speaking(authority: &Authority, protocols: &[&str]) -> Arc<ServerConfig> {
    let files = authority.issue("server", &["localhost"]);
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&files.chain).unwrap()];
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A dispatcher in front of a server at that port of this machine, which it reaches by TLS.
fn under_tls(authority: &Authority, port: u16, change: impl FnOnce(&mut Config)) -> Handle {
    in_front_of(&[format!("https://localhost:{port}")], |config| {
        config.server_tls = Some(BackTls { authorities: Authorities::File(authority.ca()), ..BackTls::default() });
        change(config);
    })
}

#[test]
fn rfc9113_3_2_under_tls_it_is_agreed_on() {
    let authority = Authority::new();
    let tls = TlsAcceptor::from(speaking(&authority, &["h2", "http/1.1"]));
    let server = Http2Server::with(Builder::new(), Some(tls), |mut exchange| async move {
        let target = exchange.request.uri().to_string();
        exchange.answer(target);
    });
    let dispatcher = under_tls(&authority, server.address.port(), |_| {});
    wait_for("its name to be found", || kit::get(&dispatcher, "/").status() == 200);
    assert_eq!(kit::get(&dispatcher, "/a").text(), "https://shop.example/a");
    assert_eq!(server.connections(), 1);
}

#[test]
fn rfc9113_3_2_a_server_that_does_not_agree_is_spoken_to_by_http_1() {
    for protocols in [&["http/1.1"][..], &[]] {
        let authority = Authority::new();
        let config = speaking(&authority, protocols);
        let server = Server::run(move |connection| {
            let tls = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(tls, connection.stream.try_clone()?);
            loop {
                let request = kit::read_request(&mut BufReader::new(&mut stream))?;
                let body = request.path();
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
            }
        });
        let dispatcher = under_tls(&authority, server.address.port(), |_| {});
        wait_for("its name to be found", || kit::get(&dispatcher, "/").status() == 200);
        let (expected, connections) = (["/0", "/1", "/2"], server.connections());
        for path in expected {
            assert_eq!(kit::get(&dispatcher, path).text(), path);
        }
        assert_eq!(server.connections(), connections, "connections persist");
    }
}

#[test]
fn section_2_1_who_is_told_of_clients_has_connections_for_each() {
    let server = Server::run(|connection| {
        let mut line = String::new();
        connection.reader.read_line(&mut line)?;
        let mut preface = [0; 24];
        connection.read_exact(&mut preface)?;
        let mut frames = Frames { connection };
        frames.settings(&[])?;
        loop {
            let stream = frames.request()?;
            frames.answer(stream, line.trim())?;
        }
    });
    let dispatcher = in_front_of(&[server.endpoint()], |config| {
        let Source::Static(servers) = &mut config.source else { panic!("a fixed list") };
        servers[0].manner.send_proxy = Some(ProxyVersion::V1);
    });
    let mut clients = [Client::of(&dispatcher), Client::of(&dispatcher)];
    let told = clients.each_mut().map(|client| client.get("/").text().to_owned());
    assert!(told[0].starts_with("PROXY TCP4 127.0.0.1 127.0.0.1 "));
    assert_ne!(told[0], told[1]);
    assert_eq!(clients.each_mut().map(|client| client.get("/").text().to_owned()), told);
    assert_eq!(server.connections(), 2);
}

/// nginx with a configuration for one server block; `None` where it is not installed.
struct Nginx {
    process: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Nginx {
    fn start(directives: &str) -> Option<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // It takes over the sockets that its environment names.
        fcntl_setfd(&listener, FdFlags::empty()).unwrap();
        let folder = TempDir::new().unwrap();
        let text = format!(
            "daemon off; pid nginx.pid; error_log stderr; events {{}}\n\
             http {{ access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
             server {{ listen {address} http2; root www; {directives} }} }}"
        );
        fs::create_dir(folder.path().join("www")).unwrap();
        fs::write(folder.path().join("www/large"), vec![b'n'; 3 << 20]).unwrap();
        fs::write(folder.path().join("nginx.conf"), text).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-c", "nginx.conf", "-e", "stderr", "-p"]).arg(folder.path());
        command.env("NGINX", format!("{};", listener.as_raw_fd()));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = match process {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            process => process.unwrap(),
        };
        Some(Nginx { process, address, _folder: folder })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // So that it ends its workers.
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        let _ = self.process.wait();
    }
}

#[test]
fn nginx_is_spoken_to_by_http_2() {
    let directives = "keepalive_requests 10; http2_max_concurrent_streams 3; location / { return 200 $http_host; } \
                      location /large { }";
    let Some(nginx) = Nginx::start(directives) else { return };
    let dispatcher = in_front_of(&[nginx.address.to_string()], |config| config.timeouts.connect = PATIENCE);
    let mut client = Client::of(&dispatcher);
    // It goes away after every tenth request.
    for _ in 0..35 {
        assert_eq!(client.get("/").text(), "shop.example");
    }
    assert_eq!(at_once(&dispatcher, 30), ["x"; 30]);
    let large = client.get("/large");
    assert_eq!(large.header("content-length").as_deref(), Some("3145728"));
    assert!(large.body.iter().all(|&byte| byte == b'n'));
    let status = dispatcher.status();
    let server = status.server("s1").unwrap();
    assert_eq!((server.failures.values().sum::<u64>(), server.responses["2xx"]), (0, 66));
    assert!(server.connects < 20, "{} connections", server.connects);
}

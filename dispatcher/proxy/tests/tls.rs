//! TLS to clients and to servers.

mod kit;

use kit::authority::Authority;
use kit::http2::{DATA, GET, HEADERS, PREFACE, SETTINGS, block, frame, read_frame};
use kit::secure::{Secure, trusting};
use kit::{Client, PATIENCE, Server, config, dispatcher, list, read_request, read_response, wait_for};
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, date_time_ymd};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};
use vibra_proxy::{
    AccessLog, ActiveCheck, Authorities, BackTls, CertificateFiles, Config, Dispatcher, FrontTls, Handle, StartError,
    TlsError, log,
};

fn der(files: &CertificateFiles) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(&files.chain).unwrap()
}

/// A dispatcher for clients under TLS, with an admin address.
fn front(server: &Server, files: &CertificateFiles, change: impl FnOnce(&mut Config)) -> Handle {
    dispatcher(&[server.endpoint()], |config| {
        config.tls = Some(FrontTls { certificates: vec![files.clone()], ..FrontTls::default() });
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        change(config);
    })
}

/// A series' value.
fn metric(dispatcher: &Handle, series: &str) -> Option<String> {
    let metrics = Client::connect(dispatcher.admin().unwrap()).get("/metrics");
    metrics.text().lines().find_map(|line| Some(line.strip_prefix(series)?.trim().to_owned()))
}

/// A server that speaks TLS, with a script for each connection.
fn secure_server(
    files: &CertificateFiles,
    script: impl Fn(&mut BufReader<StreamOwned<ServerConnection, TcpStream>>) -> io::Result<()> + Send + Sync + 'static,
) -> Server {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::from_pem_file(&files.key).unwrap();
    let config = Arc::new(builder.with_single_cert(vec![der(files)], key).unwrap());
    Server::run(move |connection| {
        let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        script(&mut BufReader::new(StreamOwned::new(tls, connection.stream.try_clone()?)))
    })
}

/// A dispatcher in front of a server that speaks TLS.
fn back(authority: &Authority, server: &Server, change: impl FnOnce(&mut Config)) -> Handle {
    let endpoint = format!("https://localhost:{}", server.address.port());
    let dispatcher = dispatcher(&[endpoint], |config| {
        config.server_tls = Some(BackTls { authorities: Authorities::File(authority.ca()), ..BackTls::default() });
        change(config);
    });
    wait_for("the server's name to be resolved", || dispatcher.status().server("s1").unwrap().used);
    dispatcher
}

fn answer(tls: &mut BufReader<StreamOwned<ServerConnection, TcpStream>>, body: &str) -> io::Result<()> {
    write!(tls.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn clients_are_served_under_tls() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::well(|request| if request.path() == "/large" { "x".repeat(16 << 20) } else { "small".into() });
    let dispatcher = front(&server, &files, |_| {});
    assert_eq!(dispatcher.urls().collect::<Vec<_>>(), [format!("https://{}", dispatcher.addresses()[0])]);
    let mut client = Secure::connect(dispatcher.addresses()[0], &trusting(&authority));
    assert_eq!(client.get("/").text(), "small");
    assert_eq!(server.requests()[0].header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(client.get("/large").body.len(), 16 << 20);
    let body = "y".repeat(1 << 20);
    client.send(format!("POST /p HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(read_response(&mut client.0).unwrap().text(), "small");
    assert_eq!(server.requests().last().unwrap().body, body.as_bytes());
    assert_eq!(server.connections(), 1);
    // The end is a whole one, with TLS's own farewell, without which reading to it would fail.
    client.send("GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n");
    assert_eq!(read_response(&mut client.0).unwrap().text(), "small");
    assert_eq!(client.0.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn rfc9113_3_2_http_2_is_agreed_on_in_the_handshake() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::named("well");
    let mut asking = (*trusting(&authority)).clone();
    asking.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let asking = Arc::new(asking);
    let dispatcher = front(&server, &files, |_| {});
    let mut client = Secure::connect(dispatcher.addresses()[0], &asking);
    client.send([PREFACE, &frame(SETTINGS, 0, 0, &[]), &frame(HEADERS, 5, 1, &block(&GET))].concat());
    let data = loop {
        let frame = read_frame(&mut client.0).unwrap();
        if frame.kind == DATA {
            break frame;
        }
    };
    assert_eq!(data.payload, b"well");
    assert_eq!(server.requests()[0].header("x-forwarded-proto").as_deref(), Some("https"));
    // Who has not agreed does not get it.
    let mut client = Secure::connect(dispatcher.addresses()[0], &trusting(&authority));
    client.send(PREFACE);
    assert_eq!(read_response(&mut client.0).unwrap().status(), 505);
    // Where it is off, it is not agreed on.
    let dispatcher = front(&server, &files, |config| config.http2 = false);
    let mut client = Secure::connect(dispatcher.addresses()[0], &asking);
    assert_eq!(client.get("/").text(), "well");
    assert_eq!(client.0.get_ref().conn.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[test]
fn the_version_stands_in_the_access_log() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::named("one");
    let path = authority.file("access.log");
    let target = log::Target::File(path.clone());
    let dispatcher = front(&server, &files, |config| {
        config.access_log = Some(AccessLog { target, format: log::Format::Combined });
    });
    assert_eq!(Secure::connect(dispatcher.addresses()[0], &trusting(&authority)).get("/").text(), "one");
    wait_for("a line", || fs::read_to_string(&path).is_ok_and(|log| log.contains(" tls=TLSv1.3")));
}

#[test]
fn a_client_that_is_idle_for_too_long_is_told_so() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::named("one");
    let dispatcher = front(&server, &files, |config| config.timeouts.client_idle = Duration::from_millis(50));
    let mut client = Secure::connect(dispatcher.addresses()[0], &trusting(&authority));
    assert_eq!(client.get("/").text(), "one");
    assert_eq!(client.0.read_to_end(&mut Vec::new()).unwrap(), 0, "TLS's own end");
}

#[test]
fn http_without_tls_is_served_beside_it_where_both_have_an_address() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::named("one");
    let dispatcher = front(&server, &files, |config| {
        config.tls.as_mut().unwrap().listen = vec!["127.0.0.1:0".parse().unwrap()];
        config.threads = 2;
    });
    let &[plain, secure] = dispatcher.addresses() else { panic!("{:?}", dispatcher.addresses()) };
    assert_eq!(dispatcher.urls().collect::<Vec<_>>(), [format!("http://{plain}"), format!("https://{secure}")]);
    for _ in 0..4 {
        assert_eq!(Client::connect(plain).get("/").text(), "one");
        assert_eq!(Secure::connect(secure, &trusting(&authority)).get("/").text(), "one");
    }
    Client::connect(secure).send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    wait_for("a failed handshake", || {
        metric(&dispatcher, "vibra_proxy_tls_failures_total{kind=\"malformed\"}").as_deref() == Some("1")
    });
}

#[test]
fn handshakes_are_counted_and_sessions_resumed_by_whichever_thread() {
    let authority = Authority::new();
    let expiry = |params: &mut CertificateParams| params.not_after = date_time_ymd(2040, 1, 1);
    let files = authority.issue_as("site", &["shop.example"], &PKCS_ECDSA_P256_SHA256, expiry);
    let server = Server::named("one");
    let dispatcher = front(&server, &files, |config| config.threads = 2);
    let config = trusting(&authority);
    for number in 0..8 {
        let mut client = Secure::connect(dispatcher.addresses()[0], &config);
        assert_eq!(client.get("/").text(), "one");
        let kind = client.0.get_ref().conn.handshake_kind().unwrap();
        assert_eq!(kind == HandshakeKind::Resumed, number > 0, "{number}: {kind:?}");
    }
    let handshakes = |resumed: bool| {
        let labels = format!("{{version=\"TLSv1.3\",resumed=\"{resumed}\"}}");
        metric(&dispatcher, &format!("vibra_proxy_tls_handshakes_total{labels}")).unwrap()
    };
    assert_eq!((handshakes(false), handshakes(true)), ("1".into(), "7".into()));
    let series = format!("vibra_proxy_tls_certificate_expiry_seconds{{certificate=\"{}\"}}", files.chain.display());
    assert_eq!(metric(&dispatcher, &series).as_deref(), Some("2208988800"));
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_let_go() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::named("one");
    let dispatcher = front(&server, &files, |config| config.timeouts.handshake = Duration::from_millis(50));
    let mut client = Client::connect(dispatcher.addresses()[0]);
    // The beginning of a record, as long as it may be.
    client.send(b"\x16\x03\x01\x40\x00");
    assert!(client.is_ended());
    assert_eq!(metric(&dispatcher, "vibra_proxy_tls_failures_total{kind=\"timeout\"}").as_deref(), Some("1"));
}

#[test]
fn a_dispatcher_that_stops_does_not_wait_for_handshakes() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::named("one");
    let dispatcher = front(&server, &files, |_| {});
    let mut client = Client::connect(dispatcher.addresses()[0]);
    wait_for("the connection", || metric(&dispatcher, "vibra_proxy_open_connections").as_deref() == Some("1"));
    assert_eq!(kit::block_on(dispatcher.shutdown(PATIENCE)), 0, "nothing is cut off");
    assert!(client.is_ended());
}

#[test]
fn certificates_are_renewed_while_connections_go_on() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::named("one");
    let dispatcher = front(&server, &files, |_| {});
    let connect = || {
        let mut client = Secure::connect(dispatcher.addresses()[0], &trusting(&authority));
        assert_eq!(client.get("/").text(), "one");
        client
    };
    let mut old = connect();
    let first = der(&files);
    assert_eq!(old.shown(), first);

    fs::write(&files.key, "torn").unwrap();
    let error = dispatcher.renew_certificates().unwrap_err();
    assert!(matches!(&error, TlsError::NoKey { path } if *path == files.key), "{error}");
    assert_eq!(connect().shown(), first);

    authority.issue("site", &["shop.example"]);
    dispatcher.renew_certificates().unwrap();
    let new = connect();
    assert_eq!(new.shown(), der(&files));
    assert_ne!(new.shown(), first);
    assert_eq!(old.get("/").text(), "one");
}

#[test]
fn a_dispatcher_whose_tls_makes_no_sense_does_not_start() {
    let start = |change: &dyn Fn(&mut Config)| {
        let mut config = config(list(&["https://127.0.0.1:443".to_owned()]));
        config.settings.replicas = 1;
        change(&mut config);
        Dispatcher::start(config).err()
    };
    assert!(matches!(start(&|_| {}), Some(StartError::Tls(TlsError::NotConfigured))));
    let files = CertificateFiles { chain: "/nowhere.pem".into(), key: "/nowhere.key".into() };
    let missing = start(&|config| {
        config.server_tls = Some(BackTls { certificate: Some(files.clone()), ..BackTls::default() });
    });
    assert!(matches!(missing, Some(StartError::Tls(TlsError::Read { .. }))), "{missing:?}");
}

#[test]
fn servers_are_reached_under_tls_on_connections_that_persist() {
    let authority = Authority::new();
    let server = secure_server(&authority.issue("server", &["localhost"]), |tls| {
        loop {
            let request = read_request(tls)?;
            answer(tls, request.text())?;
        }
    });
    let dispatcher = back(&authority, &server, |_| {});
    let mut client = Client::of(&dispatcher);
    for size in [1, 1 << 20, 5] {
        let body = "z".repeat(size);
        client.send(format!("POST / HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {size}\r\n\r\n{body}"));
        assert_eq!(client.response().unwrap().text(), body);
    }
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_server_that_cannot_prove_its_name_gets_no_request() {
    let [authority, stranger] = [Authority::new(), Authority::new()];
    let answering = |files: &CertificateFiles| {
        secure_server(files, |tls| {
            read_request(tls)?;
            answer(tls, "secret")
        })
    };
    let servers = [
        answering(&authority.issue("server", &["other.example"])),
        answering(&stranger.issue("server", &["localhost"])),
        Server::named("no TLS at all"),
    ];
    for server in &servers {
        let dispatcher = back(&authority, server, |_| {});
        assert_eq!(kit::get(&dispatcher, "/").status(), 502);
        let status = dispatcher.status();
        assert_eq!(status.server("s1").unwrap().failures["tls"], 1);
        assert_eq!(server.requests(), []);
    }
}

#[test]
fn a_body_that_ends_with_its_connection_is_whole_only_after_a_farewell() {
    let authority = Authority::new();
    let server = secure_server(&authority.issue("server", &["localhost"]), |tls| {
        let request = read_request(tls)?;
        write!(tls.get_mut(), "HTTP/1.1 200 OK\r\n\r\nall of it?")?;
        if request.path() == "/whole" {
            tls.get_mut().conn.send_close_notify();
            tls.get_mut().flush()?;
        }
        Ok(())
    });
    let dispatcher = back(&authority, &server, |_| {});
    assert_eq!(kit::get(&dispatcher, "/whole").text(), "all of it?");
    let mut client = Client::of(&dispatcher);
    client.send("GET /cut HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert!(client.response().is_err(), "the connection is broken, the body not faked complete");
}

#[test]
fn servers_are_checked_under_tls() {
    let authority = Authority::new();
    let files = authority.issue("server", &["localhost"]);
    let server = secure_server(&files, |tls| {
        read_request(tls)?;
        answer(tls, "well")
    });
    let often = |path: Option<&str>| ActiveCheck {
        path: path.map(str::to_owned),
        interval: Duration::from_millis(10),
        timeout: PATIENCE,
        rise: 1,
        fall: 1,
    };
    let asked = back(&authority, &server, |config| config.health.active = Some(often(Some("/health"))));
    wait_for("a check", || server.connections() > 1);
    assert!(asked.status().server("s1").unwrap().healthy);
    let plain = Server::named("no TLS at all");
    for path in [None, Some("/")] {
        let dispatcher = back(&authority, &plain, |config| config.health.active = Some(often(path)));
        wait_for("a verdict", || !dispatcher.status().server("s1").unwrap().healthy);
    }
}

#[test]
fn threads_serve_tls_at_once() {
    let authority = Authority::new();
    let files = authority.issue("site", &["shop.example"]);
    let server = Server::well(|request| request.path().to_owned());
    let dispatcher = front(&server, &files, |config| config.threads = 2);
    let (address, config) = (dispatcher.addresses()[0], trusting(&authority));
    thread::scope(|scope| {
        for client in 0..4 {
            let config = &config;
            scope.spawn(move || {
                for request in 0..20 {
                    let path = format!("/{client}/{request}");
                    assert_eq!(Secure::connect(address, config).get(&path).text(), path);
                }
            });
        }
    });
}

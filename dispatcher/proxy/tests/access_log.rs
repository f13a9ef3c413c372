//! What the dispatcher tells of each request: to its log, to servers and to clients.

mod kit;

use kit::{Client, Message, Server, before, block_on, dispatcher, get, nowhere, wait_for};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use vibra_proxy::log::{Format, Target};
use vibra_proxy::{AccessLog, Config, Dispatcher, Handle, StartError, Tracing};
use vibra_routing::Algorithm;

/// A directory with a log in it.
struct Logged(TempDir);

impl Logged {
    fn new() -> Self {
        Logged(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("access.log")
    }

    fn to(&self, format: Format) -> impl FnOnce(&mut Config) {
        let target = Target::File(self.path());
        move |config| config.access_log = Some(AccessLog { target, format })
    }

    /// Stops the dispatcher and reads what it has logged.
    fn lines(&self, dispatcher: Handle) -> Vec<String> {
        block_on(dispatcher.shutdown(Duration::from_secs(5)));
        read(&self.path())
    }

    fn objects(&self, dispatcher: Handle) -> Vec<Value> {
        self.lines(dispatcher).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn read(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

#[test]
fn a_request_is_one_line_with_what_is_known_of_it() {
    let (logged, server) = (Logged::new(), Server::named("hello"));
    let dispatcher = dispatcher(&[server.endpoint()], logged.to(Format::Json));
    let mut client = Client::of(&dispatcher);
    client.send(
        "POST /a?b=\"c HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: test/1\r\nReferer: http://x/\r\n\
         Content-Length: 3\r\n\r\nabc",
    );
    let response = client.response().unwrap();
    client.close();
    let lines = logged.objects(dispatcher);
    assert_eq!(lines.len(), 1);
    let line = &lines[0];
    for (key, value) in [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("target", "/a?b=\"c"),
        ("version", "HTTP/1.1"),
        ("referer", "http://x/"),
        ("user_agent", "test/1"),
        ("host", "shop.example"),
        ("server", "s1"),
        ("end", "complete"),
        ("id", &response.header("x-request-id").unwrap()),
    ] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    for (key, value) in [("status", 200), ("sent", 5), ("received", 3), ("attempts", 1)] {
        assert_eq!(line[key], value, "{key} in {line}");
    }
    let phase = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} in {line}"));
    assert!(phase("connect_us") <= phase("first_byte_us") && phase("first_byte_us") <= phase("total_us"), "{line}");
}

#[test]
fn the_combined_format_begins_as_everybody_knows_it() {
    let (logged, server) = (Logged::new(), Server::named("hello"));
    let dispatcher = dispatcher(&[server.endpoint()], logged.to(Format::Combined));
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: \"\\\u{e4}\r\n\r\n");
    client.response().unwrap();
    client.get("/again");
    client.close();
    let lines = logged.lines(dispatcher);
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("127.0.0.1 - - ["), "{}", lines[0]);
    let known = r#" +0000] "GET / HTTP/1.1" 200 5 "-" "\x22\x5C\xC3\xA4" host="x" id=""#;
    assert!(lines[0].contains(known), "{}", lines[0]);
    assert!(lines[1].contains(r#"] "GET /again HTTP/1.1" 200 5 "-" "-" "#), "{}", lines[1]);
    assert!(lines[0].contains(" connect_us=") && !lines[1].contains(" connect_us="), "{lines:?}");
}

#[test]
fn a_server_that_fails_is_skipped_with_its_reason() {
    let (logged, server) = (Logged::new(), Server::named("hello"));
    let dispatcher = dispatcher(&[nowhere(), server.endpoint()], logged.to(Format::Json));
    assert_eq!(get(&dispatcher, "/").text(), "hello");
    let line = &logged.objects(dispatcher)[0];
    assert_eq!(line["skipped"], serde_json::json!([{"server": "s1", "reason": "connect"}]));
    assert_eq!((&line["server"], &line["attempts"]), (&"s2".into(), &2.into()));
}

/// Whatever sends a request past a server, one that is full in between is told of as well.
#[test]
fn a_full_server_is_told_of_wherever_a_request_passes_it() {
    const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nETag: \"v1\"\r\n\r\n";
    let (logged, full) = (Logged::new(), Server::silent());
    let failing = Server::run(|connection| {
        loop {
            match connection.request()?.path() {
                "/breaks" => return connection.send(format!("{WHOLE}whol")),
                "/closes" => return Ok(()),
                _ => connection.answer("first")?,
            }
        }
    });
    let good = Server::run(|connection| {
        loop {
            let asked = connection.request()?;
            connection.send(match asked.header("range").as_deref() {
                Some("bytes=4-") => {
                    "HTTP/1.1 206 Partial Content\r\nContent-Length: 2\r\nContent-Range: bytes 4-5/6\r\n\
                     ETag: \"v1\"\r\n\r\nly"
                        .to_owned()
                }
                _ => format!("{WHOLE}wholly"),
            })?;
        }
    });
    let endpoints = [failing.endpoint(), full.endpoint(), good.endpoint()];
    let dispatcher = dispatcher(&endpoints, |config| {
        logged.to(Format::Json)(config);
        config.limits.requests_per_server = 1;
    });
    let mut holds = Client::of(&dispatcher);
    assert_eq!(get(&dispatcher, "/a").text(), "first");
    holds.send("GET /holds HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the second is full", || full.requests().len() == 1);
    // Each server has its turn.
    for path in ["/c", "/breaks", "/passes", "/f", "/closes"] {
        assert_eq!(get(&dispatcher, path).text(), "wholly", "{path}");
    }
    holds.close();
    let lines = logged.objects(dispatcher);
    for (path, passed) in [
        ("/breaks", vec![("s1", "broken"), ("s2", "full")]),
        ("/passes", vec![("s2", "full")]),
        ("/closes", vec![("s1", "closed"), ("s2", "full")]),
    ] {
        let line = lines.iter().find(|line| line["target"] == path).unwrap_or_else(|| panic!("{path} in {lines:?}"));
        let skipped: Vec<_> = line["skipped"].as_array().unwrap().iter().collect();
        let told = skipped.iter().map(|one| (one["server"].as_str().unwrap(), one["reason"].as_str().unwrap()));
        assert_eq!(told.collect::<Vec<_>>(), passed, "{line}");
        assert_eq!(line["server"], "s3", "{line}");
    }
}

#[test]
fn refusals_are_logged_with_their_reason() {
    let logged = Logged::new();
    let dispatcher = dispatcher(&[nowhere()], logged.to(Format::Json));
    assert_eq!(get(&dispatcher, "/").status(), 502);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nbroken\r\n\r\n");
    let refused = client.response().unwrap();
    assert_eq!(refused.status(), 400);
    assert!(refused.header("x-request-id").is_some());
    assert!(client.is_ended());
    let lines = logged.objects(dispatcher);
    let told = |i: usize| ["status", "end", "reason", "method"].map(|key| lines[i][key].to_string());
    assert_eq!(told(0), ["502", r#""refused""#, r#""server""#, r#""GET""#]);
    assert_eq!(told(1), ["400", r#""refused""#, r#""malformed""#, "null"]);
    assert_eq!(lines.len(), 2);
}

#[test]
fn who_broke_off_is_told() {
    let logged = Logged::new();
    let server = Server::run(|connection| {
        let head = connection.head()?;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")?;
        // The client's end shows as the connection's.
        if head.path() == "/stays" { connection.wait_for_end() } else { Ok(()) }
    });
    let dispatcher = dispatcher(&[server.endpoint()], logged.to(Format::Json));
    let mut client = Client::of(&dispatcher);
    client.send("GET /breaks HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.response().is_err());
    let mut client = Client::of(&dispatcher);
    client.send("GET /stays HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head().unwrap();
    block_on(dispatcher.shutdown(Duration::ZERO));
    let lines: Vec<Value> = read(&logged.path()).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |i: usize| ["target", "status", "sent", "end", "server"].map(|key| lines[i][key].to_string());
    assert_eq!(told(0), [r#""/breaks""#, "200", "3", r#""server-broke""#, r#""s1""#]);
    assert_eq!(told(1)[3], r#""cut-off""#);
    assert_eq!(lines.len(), 2);
}

#[test]
fn lines_do_not_wait_for_others() {
    let (logged, server) = (Logged::new(), Server::named("hello"));
    let dispatcher = dispatcher(&[server.endpoint()], logged.to(Format::Json));
    get(&dispatcher, "/");
    wait_for("the line of the only request", || read(&logged.path()).len() == 1);
    let moved = logged.0.path().join("access.log.1");
    std::fs::rename(logged.path(), &moved).unwrap();
    get(&dispatcher, "/after");
    wait_for("the line in the new file", || read(&logged.path()).len() == 1);
    assert_eq!(read(&moved).len(), 1);
}

#[test]
fn servers_learn_the_requests_id_and_start() {
    let server = Server::named("hello");
    let dispatcher = before(&server);
    let before = now();
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nX-Request-Start: t=1\r\n\r\n");
    let response = client.response().unwrap();
    let seen = &server.requests()[0];
    let id = seen.header("x-request-id").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert_eq!(response.header("x-request-id").unwrap(), id);
    let start: u64 = seen.header("x-request-start").unwrap().strip_prefix("t=").unwrap().parse().unwrap();
    // The two clocks that this compares may have been read in turns.
    assert!((before - 1000..=now() + 1000).contains(&start), "{before} {start}");
    assert_ne!(client.get("/again").header("x-request-id").unwrap(), id);
}

#[test]
fn clients_get_one_id_whatever_servers_say() {
    let server = Server::run(|connection| {
        connection.head()?;
        connection.send("HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nContent-Length: 0\r\n\r\n")
    });
    let id = get(&before(&server), "/").header("x-request-id").unwrap();
    assert_eq!(id.len(), 32, "{id}");
}

#[test]
fn a_log_that_cannot_be_opened_is_told_at_the_start() {
    let logged = Logged::new();
    let path = logged.0.path().join("none/access.log");
    let mut config = kit::config(kit::list(&["127.0.0.1:1".to_owned()]));
    config.settings.algorithm = Algorithm::RoundRobin;
    config.access_log = Some(AccessLog { target: Target::File(path.clone()), format: Format::Combined });
    let error = Dispatcher::start(config).unwrap_err();
    assert!(matches!(&error, StartError::AccessLog { path: told, .. } if *told == path), "{error}");
}

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Trusts the clients of these tests.
fn trusting(config: &mut Config) {
    config.peers.trusted = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
}

fn ask(dispatcher: &Handle, fields: &str) -> Message {
    let mut client = Client::of(dispatcher);
    client.send(format!("GET /a HTTP/1.1\r\nHost: x\r\n{fields}\r\n"));
    client.response().unwrap()
}

#[test]
fn a_trusted_peer_tells_who_the_client_is() {
    let server = Server::named("hello");
    let logged_client = |config: fn(&mut Config)| {
        let logged = Logged::new();
        let to = logged.to(Format::Json);
        let dispatcher = dispatcher(&[server.endpoint()], |own| {
            to(own);
            config(own);
        });
        // Who was asked before the first proxy that is trusted can claim anything.
        ask(&dispatcher, "X-Forwarded-For: 198.51.100.9, 192.0.2.7\r\n");
        logged.objects(dispatcher)[0]["client"].clone()
    };
    assert_eq!(logged_client(trusting), "192.0.2.7");
    assert_eq!(logged_client(|_| {}), "127.0.0.1");
}

#[test]
fn an_id_of_a_trusted_peer_is_kept() {
    let server = Server::named("hello");
    let dispatcher = dispatcher(&[server.endpoint()], trusting);
    let response = ask(&dispatcher, "X-Request-Id: edge-42\r\n");
    assert_eq!(response.header("x-request-id").unwrap(), "edge-42");
    assert_eq!(server.requests()[0].header("x-request-id").unwrap(), "edge-42");
}

#[test]
fn traces_pass_through_a_dispatcher_that_takes_no_part() {
    let server = Server::named("hello");
    ask(&before(&server), &format!("Traceparent: {CALLER}\r\nTracestate: a=1\r\n"));
    let seen = &server.requests()[0];
    assert_eq!(seen.header("traceparent").unwrap(), CALLER);
    assert_eq!(seen.header("tracestate").unwrap(), "a=1");
}

#[test]
fn a_trusted_peers_trace_goes_on_with_the_dispatchers_span() {
    let (logged, server) = (Logged::new(), Server::named("hello"));
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        trusting(config);
        logged.to(Format::Json)(config);
        config.trace = Some(Tracing { sample: 0.0, collector: None });
    });
    ask(&dispatcher, &format!("Traceparent: {CALLER}\r\nTracestate: a=1\r\nTracestate: b=2\r\n"));
    let seen = server.requests()[0].clone();
    let line = &logged.objects(dispatcher)[0];
    let (trace, span) = (line["trace"].as_str().unwrap(), line["span"].as_str().unwrap());
    assert_eq!(seen.header("traceparent").unwrap(), format!("00-{trace}-{span}-01"));
    assert_eq!((trace, line["parent"].as_str().unwrap()), (&CALLER[3..35], &CALLER[36..52]));
    assert_eq!(seen.header("tracestate").unwrap(), "a=1 | b=2");
}

#[test]
fn a_strangers_trace_ends_where_another_begins() {
    let server = Server::named("hello");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.trace = Some(Tracing { sample: 1.0, collector: None });
    });
    ask(&dispatcher, &format!("Traceparent: {CALLER}\r\nTracestate: a=1\r\n"));
    let seen = &server.requests()[0];
    let parent = seen.header("traceparent").unwrap();
    assert!(parent.len() == 55 && parent.ends_with("-03") && parent[3..35] != CALLER[3..35], "{parent}");
    assert_eq!(seen.header("tracestate"), None);
}

#[test]
fn trusted_peers_get_an_explanation_if_they_ask() {
    let server = Server::named("hello");
    let endpoints = [nowhere(), server.endpoint()];
    let trusted = dispatcher(&endpoints, trusting);
    let told = ask(&trusted, "X-Vibra-Explain: 1\r\n").header("x-vibra-explain").unwrap();
    let start = "server=s2 skipped=s1:connect attempts=2 candidates=s1,s2 algorithm=round-robin revision=0 table=";
    assert!(told.starts_with(start), "{told}");
    assert_eq!(told.strip_prefix(start), trusted.status().digest.as_deref());
    assert_eq!(server.requests()[0].header("x-vibra-explain"), None);
    assert_eq!(ask(&trusted, "").header("x-vibra-explain"), None);
    let stranger = dispatcher(&endpoints, |_| {});
    assert_eq!(ask(&stranger, "X-Vibra-Explain: 1\r\n").header("x-vibra-explain"), None);
}

#[test]
fn a_share_of_the_traces_is_a_share() {
    let mut config = kit::config(kit::list(&["127.0.0.1:1".to_owned()]));
    config.trace = Some(Tracing { sample: f64::NAN, collector: None });
    assert!(matches!(Dispatcher::start(config), Err(StartError::Invalid { what: "trace.sample", .. })));
}

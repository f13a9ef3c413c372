//! Starting, stopping, and what operators ask.

mod kit;

use kit::{Client, Message, Server, before, block_on, config, dispatcher, list, wait_for};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use vibra_proxy::{Config, Dispatcher, Handle, Source, StartError, StaticServer};
use vibra_routing::{Algorithm, BuildError};

const LONG: Duration = Duration::from_secs(30);

#[test]
fn it_starts_within_a_runtime_and_listens_wherever_it_is_told() {
    let server = Server::named("well");
    block_on(async {
        let mut config = config(list(&[server.endpoint()]));
        config.threads = 3;
        config.settings.replicas = 1;
        config.listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
        let dispatcher = Dispatcher::start(config).unwrap();
        for &address in dispatcher.addresses() {
            assert_eq!(Client::connect(address).get("/").text(), "well");
        }
        // Enough connections for every thread to have its share, whichever way the kernel spreads them.
        for _ in 0..30 {
            assert_eq!(kit::get(&dispatcher, "/").text(), "well");
        }
        assert_eq!(dispatcher.shutdown(LONG).await, 0);
    });
}

/// What [`Dispatcher::start`] says to a changed configuration.
fn refusal(change: impl FnOnce(&mut Config)) -> StartError {
    let mut config = config(list(&["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()]));
    change(&mut config);
    Dispatcher::start(config).expect_err("it must not start")
}

#[test]
fn bad_servers_and_settings_are_refused_with_the_reason() {
    let routing = |change: fn(&mut Config)| match refusal(change) {
        StartError::Routing(error) => error,
        other => panic!("{other:?}"),
    };
    assert_eq!(routing(|config| config.source = Source::Static(vec![])), BuildError::Empty);
    assert_eq!(routing(|config| config.settings.replicas = 0), BuildError::NoReplicas);
    assert!(matches!(routing(|config| config.settings.replicas = 3), BuildError::TooManyReplicas { .. }));
    let twice = |config: &mut Config| {
        let Source::Static(servers) = &mut config.source else { unreachable!() };
        servers[1].name = servers[0].name.clone();
    };
    assert!(matches!(routing(twice), BuildError::Duplicate { first: 1, second: 2, .. }));
    let address = refusal(|config| {
        let Source::Static(servers) = &mut config.source else { unreachable!() };
        servers[1] = StaticServer { address: "localhost".to_owned(), ..servers[1].clone() };
    });
    assert_eq!(
        address.to_string(),
        r#"server 2 (s2) has the address "localhost": use host:port, or https://host:port"#
    );
}

#[test]
fn bad_numbers_are_refused_with_their_names() {
    let named = |change: fn(&mut Config)| match refusal(change) {
        StartError::Invalid { what, .. } => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(named(|config| config.listen.clear()), "listen");
    assert_eq!(named(|config| config.threads = 0), "threads");
    assert_eq!(named(|config| config.timeouts.tick = Duration::ZERO), "timeouts.tick");
    assert_eq!(named(|config| config.timeouts.tick = Duration::from_secs(2)), "timeouts.tick");
    assert_eq!(named(|config| config.timeouts.connect = Duration::ZERO), "timeouts.connect");
    assert_eq!(named(|config| config.timeouts.stall = Duration::MAX), "timeouts.stall");
    assert_eq!(named(|config| config.health.passive.longest = Duration::MAX), "health.passive");
    assert_eq!(named(|config| config.limits.buffer = 100), "limits.buffer");
    assert_eq!(named(|config| config.limits.attempts = 0), "limits.attempts");
    assert_eq!(named(|config| config.limits.headers = 257), "limits.headers");
    assert_eq!(named(|config| config.limits.memory = 1 << 10), "limits.memory");
    assert_eq!(named(|config| config.limits.retry_percent = 101), "limits.retry_percent");
    assert_eq!(named(|config| config.health.passive.failures = 0), "health.passive.failures");
}

#[test]
fn an_address_that_is_taken_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for threads in [1, 2] {
        let error = refusal(|config| {
            config.threads = threads;
            config.listen = vec![address];
        });
        assert!(matches!(error, StartError::Listen { address: which, .. } if which == address), "{error:?}");
    }
}

#[test]
fn a_server_may_be_given_by_name() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[format!("localhost:{}", server.address.port())], |_| {});
    wait_for("the name is resolved", || kit::get(&dispatcher, "/").status() == 200);
}

/// A server that answers when it is told to.
fn waiting() -> (Server, mpsc::Sender<()>) {
    let (go, gone) = mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let server = Server::run(move |connection| {
        loop {
            connection.request()?;
            gone.lock().unwrap().recv_timeout(kit::PATIENCE).unwrap();
            connection.answer("done")?;
        }
    });
    (server, go)
}

#[test]
fn a_graceful_stop_lets_requests_end_and_takes_no_more() {
    let (server, go) = waiting();
    let dispatcher = before(&server);
    let address = dispatcher.addresses()[0];
    let mut resting = Client::of(&dispatcher);
    go.send(()).unwrap();
    resting.get("/");
    let mut busy = Client::of(&dispatcher);
    busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the server has the request", || server.requests().len() == 2);
    let stopping = std::thread::spawn(|| block_on(dispatcher.shutdown(LONG)));
    assert!(resting.is_ended(), "a connection at rest is closed at once");
    wait_for("nobody listens any more", || TcpStream::connect(address).is_err());
    go.send(()).unwrap();
    let response = busy.response().unwrap();
    assert_eq!((response.text(), response.header("connection").as_deref()), ("done", Some("close")));
    assert!(busy.is_ended());
    assert_eq!(stopping.join().unwrap(), 0);
}

#[test]
fn who_has_connected_just_before_a_stop_is_answered() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut new = Client::of(&dispatcher);
    wait_for("the connection is accepted", || dispatcher.status().connections == 1);
    let address = dispatcher.addresses()[0];
    let stopping = std::thread::spawn(|| block_on(dispatcher.shutdown(LONG)));
    wait_for("nobody listens any more", || TcpStream::connect(address).is_err());
    let response = new.get("/");
    assert_eq!((response.text(), response.header("connection").as_deref()), ("well", Some("close")));
    assert_eq!(stopping.join().unwrap(), 0);
}

#[test]
fn a_stop_cuts_off_what_takes_longer_than_its_grace() {
    let (server, _go) = waiting();
    let dispatcher = before(&server);
    let mut busy = Client::of(&dispatcher);
    busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the server has the request", || server.requests().len() == 1);
    assert_eq!(block_on(dispatcher.shutdown(Duration::from_millis(30))), 1);
    assert!(busy.response().is_err());
}

#[test]
fn a_dropped_handle_stops_the_dispatcher() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let address = dispatcher.addresses()[0];
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").text(), "well");
    drop(dispatcher);
    assert!(client.is_ended());
    wait_for("nobody listens any more", || TcpStream::connect(address).is_err());
}

fn with_admin(server: &Server) -> Handle {
    dispatcher(&[server.endpoint(), server.endpoint(), server.endpoint()], |config| {
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        config.settings.algorithm = Algorithm::UrlHash;
        config.threads = 2;
    })
}

fn ask(dispatcher: &Handle, target: &str) -> Message {
    Client::connect(dispatcher.admin().unwrap()).get(target)
}

#[test]
fn metrics_count_what_happened() {
    let server = Server::named("well");
    let dispatcher = with_admin(&server);
    for n in 0..10 {
        kit::get(&dispatcher, &format!("/{n}"));
    }
    let mut careless = Client::of(&dispatcher);
    careless.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(careless.response().unwrap().status(), 400);
    let sum_in = |text: &str, series: &str| -> f64 {
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    };
    // The client has a response before it is counted.
    wait_for("all responses are counted", || {
        sum_in(ask(&dispatcher, "/metrics").text(), "vibra_proxy_latency_seconds_count{") == 10.0
    });
    let metrics = ask(&dispatcher, "/metrics");
    assert!(metrics.header("content-type").unwrap().starts_with("application/openmetrics-text"));
    let sum = |series| sum_in(metrics.text(), series);
    assert_eq!(sum("vibra_proxy_picks_total{"), 10.0);
    assert_eq!(sum("vibra_proxy_active{"), 0.0);
    assert_eq!(sum("vibra_proxy_refused_total{status=\"400\",reason=\"malformed\"}"), 1.0);
    assert_eq!(sum("vibra_proxy_connections_total"), 11.0);
    let two_hundreds = metrics.text().lines().filter(|line| line.contains("status=\"2xx\""));
    assert_eq!(two_hundreds.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>(), 10);
    assert!(metrics.text().contains("server=\"s1\",algorithm=\"url-hash\""), "{}", metrics.text());
    assert!(!metrics.text().contains("/9"), "no URL is a label");
}

#[test]
fn the_snapshot_shows_the_table_and_the_servers() {
    let server = Server::named("well");
    let dispatcher = with_admin(&server);
    let response = ask(&dispatcher, "/snapshot");
    assert_eq!(response.header("content-type").as_deref(), Some("application/json"));
    let snapshot: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(snapshot["digest"].as_str(), dispatcher.status().digest.as_deref());
    assert_eq!(snapshot["settings"]["algorithm"], "url-hash");
    assert_eq!(snapshot["servers"][2]["name"], "s3");
    assert_eq!(snapshot["servers"][2]["used"], true);
    assert_eq!(snapshot["directory"], "live");
}

#[test]
fn an_explanation_names_the_server_that_gets_the_request() {
    let server = Server::named("well");
    let dispatcher = with_admin(&server);
    for path in ["/a", "/b/c", "/d%20e"] {
        // Objects are told apart by their names as they are written: what is escaped there is escaped once more here.
        let escaped = path.replace('%', "%25");
        let response = ask(&dispatcher, &format!("/explain?url=http://shop.example{escaped}%3Fq=1"));
        let explanation: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!((explanation["algorithm"].as_str(), explanation["name"].as_str()), (Some("url-hash"), Some(path)));
        let first = explanation["candidates"][0]["server"].as_str().unwrap().to_owned();
        let picks = |dispatcher: &Handle| dispatcher.status().server(&first).unwrap().picks;
        let before = picks(&dispatcher);
        assert_eq!(kit::get(&dispatcher, path).status(), 200);
        assert_eq!(picks(&dispatcher), before + 1, "{path} goes to {first}");
        wait_for("no request is active", || dispatcher.status().servers.iter().all(|server| server.active == 0));
    }
}

#[test]
fn operators_who_ask_for_something_else_are_told_what_there_is() {
    let server = Server::named("well");
    let dispatcher = with_admin(&server);
    assert_eq!(ask(&dispatcher, "/other").status(), 404);
    assert_eq!(ask(&dispatcher, "/explain").status(), 400);
    assert_eq!(ask(&dispatcher, "/explain?url=%f").status(), 400);
    let mut client = Client::connect(dispatcher.admin().unwrap());
    for path in ["/metrics", "/snapshot", "/digest", "/explain?url=/"] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"));
        let response = client.response().unwrap();
        assert_eq!((response.status(), response.header("allow").as_deref()), (405, Some("GET, HEAD")), "{path}");
    }
}

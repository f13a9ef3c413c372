//! The dispatcher as a process in front of servers: where requests go, what clients see when servers fail, and what
//! operators see.

mod support;

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
};
use support::*;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A dispatcher that runs, with its admin address.
struct Dispatcher {
    process: Running,
    address: SocketAddr,
    admin: SocketAddr,
    folder: Folder,
}

impl Dispatcher {
    fn running(folder: Folder, arguments: &[&str]) -> Dispatcher {
        let process = Running::start(&folder, &[&["dispatcher"][..], arguments].concat());
        let (address, admin) =
            (process.address("dispatcher: http://"), process.address("dispatcher: admin at http://"));
        Dispatcher { process, address, admin, folder }
    }

    /// In front of `servers`, without a file.
    fn of(servers: &[(&str, SocketAddr)]) -> Dispatcher {
        let named: Vec<String> = servers.iter().map(|(name, address)| format!("{name}={address}")).collect();
        let mut arguments = vec!["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--hash", "charsum"];
        arguments.extend(named.iter().flat_map(|server| ["--server", server.as_str()]));
        Dispatcher::running(Folder::new(), &arguments)
    }

    /// In front of one server, with a short patience for responses.
    fn impatient(server: SocketAddr) -> Dispatcher {
        let folder = Folder::new();
        folder.write(
            "vibra.toml",
            format!(
                "[dispatcher]\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n\
                 [dispatcher.timeouts]\nresponse = \"300ms\"\n\
                 [[server]]\nname = \"a\"\naddress = \"{server}\"\n"
            ),
        );
        Dispatcher::running(folder, &["-c", "vibra.toml"])
    }

    #[track_caller]
    fn get(&self, path: &str) -> Response {
        get(self.address, path).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// The name of the server that answered, which has nothing to do any more.
    #[track_caller]
    fn served_by(&self, path: &str) -> String {
        let response = self.get(path);
        assert_eq!((response.status, response.end), (200, End::Whole), "{path}: {}", response.text());
        self.wait_until_idle();
        response.text()
    }

    /// Waits until no request is under way: a client has its answer a moment before it is out of the count.
    #[track_caller]
    fn wait_until_idle(&self) {
        wait_for_status(self.admin, "no request under way", |status| {
            status["servers"].as_array().expect("servers").iter().all(|server| server["active"] == 0)
        });
    }

    /// What the dispatcher says of a server: whether it is healthy.
    #[track_caller]
    fn wait_until_healthy_is(&self, server: &str, healthy: bool) {
        wait_for_status(self.admin, &format!("{server} healthy: {healthy}"), |status| {
            let servers = status["servers"].as_array().expect("servers");
            servers.iter().any(|known| known["name"] == server && known["healthy"] == healthy)
        });
    }
}

fn addresses<'a>(origins: &'a [(&'a str, Origin)]) -> Vec<(&'a str, SocketAddr)> {
    origins.iter().map(|(name, origin)| (*name, origin.address)).collect()
}

fn four() -> Vec<(&'static str, Origin)> {
    NAMES.map(|name| (name, Origin::named(name))).into()
}

/// URLs whose charsum differs by one from each to the next: all sub-namespaces in turn.
fn urls() -> impl Iterator<Item = String> {
    (b'a'..=b'p').map(|letter| format!("/{}", char::from(letter)))
}

#[test]
fn a_url_is_always_served_by_the_first_of_its_servers_while_that_is_idle() {
    let origins = four();
    let dispatcher = Dispatcher::of(&addresses(&origins));
    let mut client = Client::connect(dispatcher.address).unwrap();
    for url in urls() {
        let subset = subset(dispatcher.admin, &url);
        let first = NAMES.iter().position(|name| *name == subset[0]).expect("one of ours");
        assert_eq!(subset, [NAMES[first], NAMES[(first + 1) % 4]], "VM i and the next R - 1, wrapping");
        // Every request of a connection is dispatched on its own, and the query plays no part.
        for target in [&url, &format!("{url}?session=17"), &url] {
            dispatcher.wait_until_idle();
            assert_eq!(client.get(target).expect("an answer").text(), subset[0], "{target}");
            dispatcher.wait_until_idle();
            assert_eq!(dispatcher.served_by(target), subset[0], "{target}");
        }
    }
    for (name, origin) in &origins {
        assert_eq!(origin.served().len(), 4 * 6, "{name}: a quarter of sixteen URLs, six requests each");
    }
}

#[test]
fn the_least_loaded_of_a_urls_servers_is_the_next_to_serve_it() {
    let gate = Gate::default();
    let origins = NAMES.map(|name| {
        let gate = gate.clone();
        (name, Origin::start(move |_, stream| gate.pass().and_then(|()| answer(stream, name))))
    });
    let dispatcher = Dispatcher::of(&addresses(&origins));
    let subset = subset(dispatcher.admin, "/x");
    let mut clients = Vec::new();
    for busy in 1..=4 {
        let mut client = Client::connect(dispatcher.address).unwrap();
        client.send("GET", "/x", "", b"").unwrap();
        clients.push(client);
        // A request counts from when it is dispatched; only then comes the next.
        let received = || origins.iter().map(|(_, origin)| origin.served().len()).sum::<usize>();
        eventually(
            "every request at a server",
            || if received() == busy { Ok(()) } else { Err(received().to_string()) },
        );
    }
    gate.open();
    let served: Vec<String> = clients.iter_mut().map(|client| client.receive().expect("an answer").text()).collect();
    assert_eq!(served, [&subset[0], &subset[1], &subset[0], &subset[1]].map(String::as_str));
}

#[test]
fn a_server_that_dies_costs_no_request_and_serves_its_urls_again_when_it_is_back() {
    let mut origins = four();
    let dispatcher = Dispatcher::of(&addresses(&origins));
    let before: Vec<String> = urls().map(|url| dispatcher.served_by(&url)).collect();
    assert!(before.iter().any(|name| name == "b"));
    let (_, dead) = origins.remove(1);
    let address = dead.address;
    drop(dead);
    // From the first request on, whether or not any check has noticed.
    for (url, former) in urls().zip(&before) {
        let now = dispatcher.served_by(&url);
        assert_eq!(
            now,
            if former == "b" { "c" } else { former.as_str() },
            "{url}: the next of its servers, or the same"
        );
    }
    dispatcher.wait_until_healthy_is("b", false);
    assert_eq!(subset(dispatcher.admin, "/b").len(), 2);
    assert!(urls().all(|url| !subset(dispatcher.admin, &url).contains(&"b".to_owned())), "skip: R available servers");
    urls().for_each(|url| assert_ne!(dispatcher.served_by(&url), "b"));
    let _again = Origin::named_at(address, "b");
    dispatcher.wait_until_healthy_is("b", true);
    assert_eq!(urls().map(|url| dispatcher.served_by(&url)).collect::<Vec<_>>(), before);
}

#[test]
fn without_any_server_clients_get_an_error_at_once() {
    let nobody = fixed_address();
    let dispatcher = Dispatcher::of(&[("a", nobody)]);
    let response = dispatcher.get("/a");
    assert_eq!((response.status, response.end), (502, End::Whole));
}

#[test]
fn operators_see_servers_table_and_reasons() {
    let origins = four();
    let dispatcher = Dispatcher::of(&addresses(&origins));
    for _ in 0..3 {
        dispatcher.served_by("/a");
        dispatcher.wait_until_idle();
    }
    let status = get(dispatcher.admin, "/snapshot").unwrap().json();
    let of = |key: &str| status["servers"].as_array().unwrap().iter().map(|s| s[key].clone()).collect::<Vec<_>>();
    assert_eq!((of("name"), of("used")), (NAMES.map(Into::into).to_vec(), vec![true.into(); 4]), "{status}");
    assert_eq!(of("picks").iter().map(|picks| picks.as_u64().unwrap()).sum::<u64>(), 3);
    let metrics = get(dispatcher.admin, "/metrics").unwrap().text();
    let first = &subset(dispatcher.admin, "/a")[0];
    let counted =
        format!("vibra_proxy_responses_total{{server=\"{first}\",algorithm=\"url-hash\",status=\"2xx\"}} 3\n");
    contains_all("the metrics", &metrics, &[&counted, "\n# EOF"]);
    // The same servers in a file mean the same table: both can prove it.
    let servers = NAMES.map(|name| format!("[[server]]\nname = \"{name}\"\naddress = \"127.0.0.1:1\"\n")).concat();
    let text = format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\nhash = \"charsum\"\n{servers}");
    dispatcher.folder.write("same.toml", text);
    let said = vibra(&dispatcher.folder, &["explain", "-c", "same.toml", "--json", "/a"]).ended_with(0);
    let offline: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    let online = get(dispatcher.admin, "/explain?url=%2Fa").unwrap().json();
    assert_eq!((&online["digest"], &online["subset"]), (&offline["digest"], &offline["subset"]));
    assert_eq!(online["digest"], status["digest"]);
    assert_eq!(get(dispatcher.admin, "/explain").unwrap().status, 400);
    assert_eq!(get(dispatcher.admin, "/").unwrap().status, 404);
}

#[test]
fn a_graceful_stop_finishes_the_response_that_is_under_way() {
    let gate = Gate::default();
    let at_gate = gate.clone();
    let slow = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst")?;
        at_gate.pass()?;
        stream.write_all(b" half")
    });
    let dispatcher = Dispatcher::of(&[("a", slow.address)]);
    let mut client = Client::connect(dispatcher.address).unwrap();
    client.send("GET", "/slow", "", b"").unwrap();
    // The gate is shut: that "first" has come is seen at the server.
    eventually("the request at the server", || slow.served().first().cloned().ok_or_else(|| "nothing".to_owned()));
    dispatcher.process.terminate();
    eventually("no new connections", || match TcpStream::connect(dispatcher.address) {
        Ok(_) => Err("it still listens".to_owned()),
        Err(_) => Ok(()),
    });
    gate.open();
    let response = client.receive().expect("an answer");
    assert_eq!((response.text().as_str(), response.end), ("first half", End::Whole));
    let said = dispatcher.process.end().ended_with(0);
    assert!(!said.stderr.contains("cut off"), "{}", said.stderr);
}

/// What a bad server does when it is asked for certain paths; for all others it is good.
fn hostile(path: &str, stream: &mut TcpStream) -> io::Result<()> {
    match path {
        "/garbage" => stream.write_all(b"\x16\x03\x01 what is this?\r\n\r\n"),
        "/closes" => hang_up(),
        "/more" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngoodHTTP/1.1 200 OK\r\n\r\nevil"),
        _ => answer(stream, "good"),
    }
}

#[test]
fn a_body_that_its_server_breaks_off_never_looks_whole() {
    let gates = [Gate::default(), Gate::default()];
    let at_gates = gates.clone();
    let origin = Origin::start(move |path, stream| {
        let (framing, gate) = match path {
            "/length" => ("content-length: 100\r\n\r\n", &at_gates[0]),
            "/chunked" => ("transfer-encoding: chunked\r\n\r\n9\r\n", &at_gates[1]),
            _ => return answer(stream, "good"),
        };
        write!(stream, "HTTP/1.1 200 OK\r\n{framing}only this\r\n")?;
        gate.pass()?;
        hang_up()
    });
    let dispatcher = Dispatcher::of(&[("a", origin.address)]);
    for (path, gate) in ["/length", "/chunked"].into_iter().zip(&gates) {
        let mut client = Client::connect(dispatcher.address).unwrap();
        client.send("GET", path, "", b"").unwrap();
        let mut response = client.receive_head().expect("a head comes before the body breaks");
        gate.open();
        assert_eq!(response.status, 200);
        client.receive_body(&mut response).expect("an end within time");
        assert_eq!(response.end, End::Broken, "{path}: {:?}", response.text());
        assert_eq!(dispatcher.served_by("/next"), "good", "after {path}");
    }
    // The gates are open now: where the server breaks off at once, there may be no answer at all, but never a whole one.
    for path in ["/length", "/chunked"].repeat(5) {
        let response = get(dispatcher.address, path);
        let broken = response.as_ref().is_ok_and(|response| response.end == End::Broken || response.status == 502);
        let reset = response.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock);
        assert!(broken || reset, "{path}: {response:?}");
        assert_eq!(dispatcher.served_by("/next"), "good", "after {path}");
    }
}

#[test]
fn garbage_is_a_502_and_spoils_no_other_response() {
    let origin = Origin::start(hostile);
    let dispatcher = Dispatcher::of(&[("a", origin.address)]);
    for path in ["/garbage", "/closes"] {
        let response = dispatcher.get(path);
        assert_eq!((response.status, response.end), (502, End::Whole), "{path}: {}", response.text());
        assert_eq!(dispatcher.served_by("/next"), "good", "after {path}");
    }
    // What follows a response unasked is nobody's.
    for _ in 0..5 {
        assert_eq!(dispatcher.served_by("/more"), "good");
        assert_eq!(dispatcher.served_by("/next"), "good");
    }
}

#[test]
fn a_silent_server_is_a_504_within_the_configured_time() {
    let gate = Gate::default();
    let at_gate = gate.clone();
    let origin = Origin::start(move |path, stream| match path {
        "/silent" => at_gate.pass().and_then(|()| answer(stream, "late")),
        _ => answer(stream, "good"),
    });
    let dispatcher = Dispatcher::impatient(origin.address);
    let response = dispatcher.get("/silent");
    assert_eq!((response.status, response.end), (504, End::Whole), "{}", response.text());
    gate.open();
    // The answer that came too late reaches nobody.
    for _ in 0..5 {
        assert_eq!(dispatcher.served_by("/next"), "good");
    }
}

#[test]
fn servers_may_die_under_load_and_only_requests_that_they_had_are_lost() {
    let mut origins = four();
    let dispatcher = Dispatcher::of(&addresses(&origins));
    let address = dispatcher.address;
    let (over, is_over) = mpsc::channel::<()>();
    let load = thread::spawn(move || {
        let mut client = Client::connect(address).expect("it listens");
        let (mut served, mut lost) = (0, Vec::new());
        while is_over.try_recv() == Err(mpsc::TryRecvError::Empty) {
            for url in urls() {
                match client.get(&url) {
                    Ok(response) if response.status == 200 && response.end == End::Whole => served += 1,
                    other => {
                        lost.push(format!("{url}: {other:?}"));
                        client = Client::connect(address).expect("it listens");
                    }
                }
            }
        }
        (served, lost)
    });
    eventually("requests at b", || if origins[1].1.served().len() > 20 { Ok(()) } else { Err("too few".to_owned()) });
    drop(origins.remove(1));
    dispatcher.wait_until_healthy_is("b", false);
    over.send(()).unwrap();
    let (served, lost) = load.join().expect("the load ends");
    // One client has one request at a time: that one may be lost, no other.
    assert!(lost.len() <= 1 && served > 20, "{served} served, lost: {lost:#?}");
}

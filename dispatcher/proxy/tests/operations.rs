//! What operators change while requests go on: the configuration, the states of servers, and that it ends.

mod kit;

use kit::{Client, Message, Server, block_on, config, get, list, wait_for};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use vibra_proxy::{
    ActiveCheck, Config, Dispatcher, Given, Handle, Loader, Order, Peers, ReloadError, ReloadOutcome, Source,
};
use vibra_routing::Algorithm;

/// A dispatcher with an admin address whose configuration can be written anew.
struct Scene {
    dispatcher: Handle,
    written: Arc<Mutex<Result<Config, String>>>,
}

impl Scene {
    fn new(endpoints: &[String]) -> Self {
        let mut config = config(list(endpoints));
        config.settings.algorithm = Algorithm::RoundRobin;
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        let written = Arc::new(Mutex::new(Ok(config.clone())));
        let read = written.clone();
        let loader: Loader = Box::new(move || read.lock().unwrap().clone().map_err(Into::into));
        let given = Given { loader: Some(loader), ..Given::default() };
        Scene { dispatcher: Dispatcher::start_with(config, given).unwrap(), written }
    }

    /// Changes what the next reload reads.
    fn write(&self, change: impl FnOnce(&mut Config)) {
        change(self.written.lock().unwrap().as_mut().unwrap());
    }

    fn reload(&self) -> Result<Vec<&'static str>, ReloadError> {
        block_on(self.dispatcher.reload())
    }

    fn post(&self, path: &str, body: &str) -> Message {
        self.send("POST", path, "Content-Type: application/json\r\n", body)
    }

    fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Message {
        let mut client = Client::connect(self.dispatcher.admin().unwrap());
        client.send(format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.response().unwrap()
    }

    fn metric(&self, series: &str) -> f64 {
        let metrics = Client::connect(self.dispatcher.admin().unwrap()).get("/metrics");
        let line = metrics.text().lines().find(|line| line.starts_with(series)).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("no {series} in {}", metrics.text()));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn digest(&self) -> String {
        self.dispatcher.status().digest.unwrap()
    }

    fn order(&self, server: &str) -> Option<Order> {
        self.dispatcher.status().server(server).unwrap().order
    }
}

fn two() -> ([Server; 2], Scene) {
    let servers = [Server::named("one"), Server::named("two")];
    let scene = Scene::new(&servers.each_ref().map(Server::endpoint));
    (servers, scene)
}

/// Who answers some requests in turn, each once.
fn answering(scene: &Scene) -> Vec<String> {
    let mut client = Client::of(&scene.dispatcher);
    let mut names: Vec<_> = (0..8).map(|_| client.get("/").text().to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn a_reload_changes_servers_and_settings_while_connections_stay() {
    let (servers, scene) = two();
    let third = Server::named("three");
    let mut client = Client::of(&scene.dispatcher);
    assert_eq!(client.get("/").status(), 200);
    let before = scene.dispatcher.status().server("s2").unwrap().picks;
    let old = scene.digest();
    scene.write(|config| config.source = list(&[third.endpoint(), servers[1].endpoint()]));
    assert_eq!(scene.reload().unwrap(), ["servers"]);
    assert_eq!(answering(&scene), ["three", "two"]);
    assert!(scene.dispatcher.status().server("s2").unwrap().picks >= before, "who stays keeps his counts");
    assert_eq!(scene.digest(), old, "names, weights and settings are the same, and so is the table");
    scene.write(|config| config.settings.algorithm = Algorithm::LeastConnection);
    assert_eq!(scene.reload().unwrap(), ["settings"]);
    assert_ne!(scene.digest(), old);
    assert_eq!(scene.dispatcher.status().settings.algorithm, Algorithm::LeastConnection);
    scene.write(|config| config.peers = Peers::default());
    assert_eq!(scene.reload().unwrap(), [""; 0], "a name that was drawn by lot is not drawn again");
    scene.write(|config| config.peers.via = "edge".parse().unwrap());
    assert_eq!(scene.reload().unwrap(), ["peers"]);
    let before = servers[1].requests().len() + third.requests().len();
    client.get("/");
    let seen =
        [&servers[1], &third].into_iter().flat_map(Server::requests).map(|request| request.header("via").unwrap());
    assert_eq!(seen.filter(|via| via == "1.1 edge").count(), 1);
    assert_eq!(servers[1].requests().len() + third.requests().len(), before + 1);
    assert_eq!(client.get("/").status(), 200, "the client's connection has outlived three reloads");
}

#[test]
fn a_reload_that_is_refused_changes_nothing() {
    let (_servers, scene) = two();
    let (digest, revision) = (scene.digest(), scene.dispatcher.status().revision);
    let third = Server::named("three");
    type Change = fn(&mut Config);
    let changes: [(Change, &str); 4] = [
        (|config| config.settings.replicas = 0, "replicas (R) is 0"),
        (|config| config.listen = vec!["127.0.0.1:1".parse().unwrap()], "listen cannot change"),
        (|config| (config.threads, config.admin) = (7, None), "admin, threads cannot change"),
        (|config| config.source = Source::Static(vec![]), "the server list is empty"),
    ];
    for (change, why) in changes {
        let good = scene.written.lock().unwrap().clone();
        // What would be fine by itself is not applied either.
        scene.write(|config| config.source = list(&[third.endpoint()]));
        scene.write(change);
        scene.reload().unwrap_err();
        let ReloadOutcome::Refused { why: told } = scene.dispatcher.status().reload.unwrap().outcome else {
            panic!("{why}: not refused")
        };
        assert!(told.contains(why), "{told}");
        assert_eq!((scene.digest(), scene.dispatcher.status().revision), (digest.clone(), revision));
        assert_eq!(answering(&scene), ["one", "two"]);
        *scene.written.lock().unwrap() = good;
    }
    *scene.written.lock().unwrap() = Err("vibra.toml:3:1: what is this?".to_owned());
    assert_eq!(scene.reload().unwrap_err().to_string(), "vibra.toml:3:1: what is this?");
    assert_eq!(answering(&scene), ["one", "two"]);
}

#[test]
fn the_outcome_of_a_reload_is_seen_in_the_answer_the_snapshot_and_the_metrics() {
    let (servers, scene) = two();
    assert_eq!(scene.dispatcher.status().reload, None);
    assert_eq!(scene.metric("vibra_proxy_config_is_current"), 1.0);
    scene.write(|config| {
        config.settings.algorithm = Algorithm::UrlHash;
        config.source = list(&[servers[1].endpoint()]);
    });
    let refused = scene.post("/reload", "");
    assert_eq!(refused.status(), 422, "R is over N");
    let json = |message: &Message| serde_json::from_slice::<serde_json::Value>(&message.body).unwrap();
    let why = json(&refused)["refused"]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("replicas (R) is 2, over the 1 server(s)"), "{why}");
    assert_eq!(scene.metric("vibra_proxy_reloads_total{outcome=\"refused\"}"), 1.0);
    assert_eq!(scene.metric("vibra_proxy_config_is_current"), 0.0);
    scene.write(|config| config.settings.replicas = 1);
    let applied = scene.post("/reload", "{}");
    assert_eq!(applied.status(), 200);
    assert_eq!(json(&applied)["applied"]["changed"], serde_json::json!(["servers", "settings"]));
    assert_eq!(scene.metric("vibra_proxy_reloads_total{outcome=\"applied\"}"), 1.0);
    assert_eq!(scene.metric("vibra_proxy_config_is_current"), 1.0);
    let snapshot = json(&Client::connect(scene.dispatcher.admin().unwrap()).get("/snapshot"));
    assert_eq!(snapshot["reload"]["applied"], json(&applied)["applied"]);
    assert!(snapshot["reload"]["at"].as_u64().unwrap() > 0);
}

#[test]
fn without_a_file_there_is_nothing_to_reload() {
    let server = Server::named("well");
    let dispatcher = kit::before(&server);
    assert!(matches!(block_on(dispatcher.reload()), Err(ReloadError::Nowhere)));
    assert_eq!(get(&dispatcher, "/").status(), 200);
}

#[test]
fn checks_follow_a_reload() {
    let servers =
        [Server::named("one"), Server::well(|message| if message.path() == "/ok" { "ok" } else { "no" }.into())];
    let scene = Scene::new(&servers.each_ref().map(Server::endpoint));
    let fast = |path: &str| ActiveCheck {
        path: Some(path.to_owned()),
        interval: Duration::from_millis(5),
        fall: 1,
        rise: 1,
        ..ActiveCheck::default()
    };
    scene.write(|config| config.health.active = Some(fast("/first")));
    assert_eq!(scene.reload().unwrap(), ["health.active"]);
    let asked = |path: &str| servers.iter().all(|server| server.requests().iter().any(|seen| seen.path() == path));
    wait_for("all are checked", || asked("/first"));
    scene.write(|config| config.health.active = Some(fast("/second")));
    scene.reload().unwrap();
    wait_for("all are checked anew", || asked("/second"));
}

#[test]
fn checks_that_are_switched_off_keep_nobody_away() {
    let nowhere = kit::nowhere();
    let server = Server::named("one");
    let scene = Scene::new(&[server.endpoint(), nowhere]);
    let fast = ActiveCheck { interval: Duration::from_millis(5), fall: 1, ..ActiveCheck::default() };
    scene.write(|config| config.health.active = Some(fast));
    scene.reload().unwrap();
    wait_for("the dead server is found out", || !scene.dispatcher.status().server("s2").unwrap().healthy);
    scene.write(|config| config.health.active = None);
    scene.reload().unwrap();
    assert!(scene.dispatcher.status().server("s2").unwrap().healthy);
}

#[test]
fn a_drained_server_ends_what_it_has_and_gets_no_more_until_it_is_ready() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    let slow = Server::run(move |connection| {
        loop {
            if connection.request()?.path() == "/slow" {
                gone.lock().unwrap().recv_timeout(kit::PATIENCE).unwrap();
            }
            connection.answer("slow")?;
        }
    });
    let fast = Server::named("fast");
    let scene = Scene::new(&[slow.endpoint(), fast.endpoint()]);
    let mut busy = Client::of(&scene.dispatcher);
    busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the server has the request", || slow.requests().len() == 1);
    let answer = scene.post("/servers/s1/state", r#"{"state": "drain"}"#);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert!(answer.text().contains(r#""order": "drain""#), "{}", answer.text());
    let drained = scene.dispatcher.status();
    assert_eq!((drained.servers[0].order, drained.servers[0].used), (Some(Order::Drain), false));
    assert_eq!(answering(&scene), ["fast"]);
    assert_eq!(scene.metric("vibra_proxy_used{server=\"s1\""), 0.0);
    // It holds whatever else changes.
    scene.write(|config| config.settings.algorithm = Algorithm::LeastConnection);
    scene.reload().unwrap();
    assert_eq!(scene.order("s1"), Some(Order::Drain));
    go.send(()).unwrap();
    assert_eq!(busy.response().unwrap().text(), "slow");
    assert_eq!(scene.post("/servers/s1/state", r#"{"state": "ready"}"#).status(), 200);
    assert_eq!(scene.order("s1"), None);
    assert_eq!(answering(&scene), ["fast", "slow"]);
}

#[test]
fn a_server_under_maintenance_is_not_checked() {
    let (servers, scene) = two();
    let fast = ActiveCheck { interval: Duration::from_millis(5), ..ActiveCheck::default() };
    scene.write(|config| config.health.active = Some(fast));
    scene.reload().unwrap();
    wait_for("it is checked", || servers[0].connections() > 0);
    assert_eq!(scene.post("/servers/s1/state", r#"{"state": "maintenance"}"#).status(), 200);
    assert_eq!(answering(&scene), ["two"]);
    // A check that was just under way may still arrive.
    let (still, others) = (servers[0].connections() + 1, servers[1].connections());
    wait_for("the other one is checked on", || servers[1].connections() > others + 5);
    assert!(servers[0].connections() <= still);
    assert_eq!(scene.post("/servers/s1/state", r#"{"state": "ready"}"#).status(), 200);
    wait_for("it is checked again", || servers[0].connections() > still);
    assert_eq!(answering(&scene), ["one", "two"]);
}

#[test]
fn servers_that_are_all_drained_are_not_used_for_want_of_others() {
    let (_servers, scene) = two();
    for name in ["s1", "s2"] {
        scene.post(&format!("/servers/{name}/state"), r#"{"state": "drain"}"#);
    }
    assert_eq!(get(&scene.dispatcher, "/").status(), 503);
}

#[test]
fn nothing_changes_by_a_get_or_for_a_web_page() {
    let (_servers, mut scene) = two();
    for path in ["/reload", "/drain", "/servers/s1/state"] {
        for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
            let response = scene.send(method, path, "Content-Type: application/json\r\n", r#"{"state": "drain"}"#);
            assert_eq!(
                (response.status(), response.header("allow").as_deref()),
                (405, Some("POST")),
                "{method} {path}"
            );
        }
        // What a form on any site can make a browser send.
        for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain"] {
            let form = scene.send("POST", path, &format!("Content-Type: {kind}\r\n"), r#"{"state": "drain"}"#);
            assert_eq!(form.status(), 415, "{path}");
        }
        assert_eq!(scene.send("POST", path, "", "").status(), 415, "{path}");
        // What a script can send where a name was made to mean this address.
        let headers = "Content-Type: application/json\r\nOrigin: http://evil.example\r\n";
        assert_eq!(scene.send("POST", path, headers, r#"{"state": "drain"}"#).status(), 403, "{path}");
    }
    let status = scene.dispatcher.status();
    assert_eq!((status.reload, status.draining, status.servers[0].order), (None, false, None));
    assert!(block_on(async { tokio::time::timeout(Duration::ZERO, scene.dispatcher.stopped()).await.is_err() }));
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let (_servers, scene) = two();
    for (path, body, status, text) in [
        ("/servers/s3/state", r#"{"state": "drain"}"#, 404, "no server of that name"),
        ("/servers/%/state", r#"{"state": "drain"}"#, 404, "no server of that name"),
        ("/servers/s1/state", r#"{"state": "off"}"#, 400, "unknown variant `off`"),
        ("/servers/s1/state", r#"{"state": "drain", "for": 3}"#, 400, "unknown field `for`"),
        ("/servers/s1/state", "", 400, "missing field `state`"),
        ("/drain", r#"{"seconds": -1}"#, 400, "invalid value"),
        ("/drain", r#"{"seconds": 86401}"#, 400, "a day at most"),
        ("/servers/s1", "{}", 404, "POST /reload"),
        ("/drain", &format!(r#"{{"seconds": {}}}"#, " ".repeat(5000)), 400, "too long"),
    ] {
        let answer = scene.post(path, body);
        assert_eq!(answer.status(), status, "{path} {body}: {}", answer.text());
        assert!(answer.text().contains(text), "{path} {body}: {}", answer.text());
    }
    assert!(!scene.dispatcher.status().draining);
}

/// A dispatcher whose one request is at `server`, and the client that waits for the answer.
fn busy_with(server: &Server) -> (Scene, Client) {
    let scene = Scene::new(&[server.endpoint(), server.endpoint()]);
    let mut busy = Client::of(&scene.dispatcher);
    busy.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the server has the request", || server.requests().len() == 1);
    (scene, busy)
}

#[test]
fn a_drain_ends_the_dispatcher_and_can_be_watched() {
    let (server, go) = Server::held();
    let (mut scene, mut busy) = busy_with(&server);
    let answer = scene.post("/drain", r#"{"seconds": 60}"#);
    assert_eq!(answer.status(), 202);
    let address = scene.dispatcher.addresses()[0];
    wait_for("nobody listens any more", || std::net::TcpStream::connect(address).is_err());
    let snapshot = Client::connect(scene.dispatcher.admin().unwrap()).get("/snapshot");
    let snapshot: serde_json::Value = serde_json::from_slice(&snapshot.body).unwrap();
    assert_eq!((&snapshot["draining"], &snapshot["connections"]), (&true.into(), &1.into()));
    go.send(()).unwrap();
    assert_eq!(busy.response().unwrap().text(), "done");
    assert_eq!(block_on(scene.dispatcher.stopped()), 0);
}

#[test]
fn a_drain_has_a_deadline() {
    let server = Server::silent();
    let (mut scene, mut busy) = busy_with(&server);
    assert_eq!(scene.post("/drain", r#"{"seconds": 0}"#).status(), 202);
    assert_eq!(block_on(scene.dispatcher.stopped()), 1);
    assert!(busy.response().is_err());
}

#[test]
fn a_drain_can_be_made_shorter() {
    let server = Server::silent();
    let (mut scene, _busy) = busy_with(&server);
    for seconds in [3600, 0] {
        assert_eq!(scene.post("/drain", &format!(r#"{{"seconds": {seconds}}}"#)).status(), 202);
    }
    assert_eq!(block_on(scene.dispatcher.stopped()), 1);
}

#[test]
fn time_outs_and_limits_follow_a_reload() {
    let silent = Server::silent();
    let scene = Scene::new(&[silent.endpoint(), silent.endpoint()]);
    scene.write(|config| {
        config.timeouts.response = Duration::from_millis(50);
        config.limits.headers = 3;
    });
    assert_eq!(scene.reload().unwrap(), ["timeouts", "limits"]);
    assert_eq!(get(&scene.dispatcher, "/").status(), 504);
    let mut client = Client::of(&scene.dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\na: 1\r\nb: 2\r\nc: 3\r\n\r\n");
    assert_eq!(client.response().unwrap().status(), 431);
}

#[test]
fn ejection_follows_a_reload() {
    let scene = Scene::new(&[kit::nowhere(), Server::named("well").endpoint()]);
    scene.write(|config| (config.health.passive.failures, config.health.passive.first) = (1, Duration::from_secs(600)));
    scene.write(|config| config.health.passive.longest = Duration::from_secs(600));
    assert_eq!(scene.reload().unwrap(), ["health.passive"]);
    get(&scene.dispatcher, "/");
    get(&scene.dispatcher, "/");
    wait_for("one failure is enough", || !scene.dispatcher.status().server("s1").unwrap().healthy);
}

#[test]
fn digests_can_be_compared_at_a_glance() {
    let (_servers, scene) = two();
    let ask = |scene: &Scene| Client::connect(scene.dispatcher.admin().unwrap()).get("/digest");
    assert_eq!(ask(&scene).text(), format!("{}\n", scene.digest()));
    let number = u64::from_str_radix(&scene.digest()[..13], 16).unwrap();
    assert_eq!(scene.metric("vibra_proxy_table_digest"), number as f64);
    scene.post("/servers/s1/state", r#"{"state": "drain"}"#);
    let changed = u64::from_str_radix(&scene.digest()[..13], 16).unwrap();
    assert_ne!(number, changed);
    assert_eq!(scene.metric("vibra_proxy_table_digest"), changed as f64);
}

#[test]
fn a_server_that_comes_back_warms_up_and_is_seen_to() {
    let (_servers, scene) = two();
    scene.write(|config| {
        config.settings.algorithm = Algorithm::UrlHash;
        config.settings.replicas = 1;
        config.health.slow_start = Duration::from_millis(500);
    });
    scene.reload().unwrap();
    let mut admin = Client::connect(scene.dispatcher.admin().unwrap());
    // The other one must have been in use for as long.
    wait_for("it begins with a small share", || {
        scene.post("/servers/s1/state", r#"{"state": "maintenance"}"#);
        let ready = scene.post("/servers/s1/state", r#"{"state": "ready"}"#);
        let status: serde_json::Value = serde_json::from_slice(&ready.body).unwrap();
        status["warmth"].as_f64().unwrap() < 0.2
    });
    let mut explained = (0..40).map(|i| admin.get(&format!("/explain?url=/{i}")).text().to_owned());
    assert!(explained.any(|text| text.contains("warming: this object is not of its share yet")));
    assert!(scene.metric("vibra_proxy_warmth{server=\"s1\"") < 1.0);
    assert_eq!(scene.metric("vibra_proxy_warmth{server=\"s2\""), 1.0);
    wait_for("it is warm", || scene.dispatcher.status().server("s1").unwrap().warmth == 1.0);
    assert_eq!(scene.metric("vibra_proxy_warmth{server=\"s1\""), 1.0);
}

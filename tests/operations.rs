//! What operators do with a dispatcher that runs: reload it, take servers out of it, end it.

mod support;

use std::net::SocketAddr;
use support::*;

/// A dispatcher with a file.
struct Dispatcher {
    folder: Folder,
    process: Running,
    address: SocketAddr,
    admin: SocketAddr,
}

fn configuration(servers: &[(&str, SocketAddr)], more: &str) -> String {
    let server =
        |(name, address): &(&str, SocketAddr)| format!("[[server]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let servers: String = servers.iter().map(server).collect();
    format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\nadmin = 0\nreplicas = 1\nhash = \"charsum\"\n{more}\n{servers}")
}

impl Dispatcher {
    fn start(servers: &[(&str, SocketAddr)]) -> Dispatcher {
        let folder = Folder::new();
        folder.write("vibra.toml", configuration(servers, ""));
        let process = Running::start(&folder, &["dispatcher", "-c", "vibra.toml"]);
        let (address, admin) =
            (process.address("dispatcher: http://"), process.address("dispatcher: admin at http://"));
        Dispatcher { folder, process, address, admin }
    }

    /// Who serves some URLs, each once.
    fn answering(&self) -> Vec<String> {
        let answer = |i| get(self.address, &format!("/{i}")).expect("an answer").text();
        let mut names: Vec<_> = (0..8).map(answer).collect();
        names.sort();
        names.dedup();
        names
    }

    fn post(&self, path: &str, body: &str) -> Response {
        request(self.admin, "POST", path, "content-type: application/json\r\n", body.as_bytes()).expect("an answer")
    }
}

#[test]
fn sighup_reloads_the_file_as_a_whole_or_not_at_all() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let all = |names: &[usize]| -> Vec<(&str, SocketAddr)> {
        names.iter().map(|&i| (["a", "b", "c"][i], origins[i].address)).collect()
    };
    let dispatcher = Dispatcher::start(&all(&[0, 1]));
    assert_eq!(dispatcher.answering(), ["a", "b"]);
    dispatcher.folder.write("vibra.toml", configuration(&all(&[0, 2]), ""));
    dispatcher.process.hang_up();
    wait_for_status(dispatcher.admin, "the reload", |status| {
        status["reload"]["applied"]["changed"] == serde_json::json!(["servers"])
    });
    assert_eq!(dispatcher.answering(), ["a", "c"]);
    dispatcher.process.says("what came of it", |line| line.contains("changed: servers").then_some(()));
    for (text, why) in [
        (configuration(&all(&[1]), "remap = \"skp\""), "vibra.toml:6:9: unknown variant `skp`"),
        (configuration(&all(&[1]), "threads = 63"), "threads cannot change while the dispatcher runs"),
        (configuration(&all(&[1]), "[directory]\nlisten = \"127.0.0.1:0\""), "[directory] cannot change"),
        ("".to_owned(), "has no [dispatcher] any more"),
    ] {
        dispatcher.folder.write("vibra.toml", text);
        dispatcher.process.hang_up();
        wait_for_status(dispatcher.admin, why, |status| {
            status["reload"]["refused"]["why"].as_str().is_some_and(|told| told.contains(why))
        });
        dispatcher.process.says(why, |line| line.contains(why).then_some(()));
        assert_eq!(dispatcher.answering(), ["a", "c"]);
    }
    std::fs::remove_file(dispatcher.folder.file("vibra.toml")).unwrap();
    let gone = dispatcher.post("/reload", "");
    assert_eq!(gone.status, 422);
    assert!(gone.text().contains("cannot read the configuration vibra.toml"), "{}", gone.text());
    dispatcher.folder.write("vibra.toml", configuration(&all(&[1]), ""));
    assert_eq!(dispatcher.post("/reload", "").status, 200);
    assert_eq!(dispatcher.answering(), ["b"]);
    dispatcher.process.terminate();
    dispatcher.process.end().ended_with(0);
}

#[test]
fn everything_in_one_process_reloads_its_dispatcher_and_nothing_else() {
    let cluster = Cluster::new();
    let process = Running::start(&cluster.folder, &["up", "-c", "vibra.toml"]);
    let admin = process.address("dispatcher: admin at http://");
    wait_for_status(admin, "every VM used", |status| used(status) == VMS);
    let text = cluster.folder.read("vibra.toml");
    cluster.folder.write("vibra.toml", text.replace("replicas = 2", "replicas = 3"));
    process.hang_up();
    wait_for_status(admin, "another R", |status| status["settings"]["replicas"] == 3);
    assert_eq!(subset(admin, HOT.0).len(), 3);
    cluster.folder.write("vibra.toml", text.replace("interval = \"500ms\"", "interval = \"400ms\""));
    process.hang_up();
    wait_for_status(admin, "the refusal", |status| {
        let why = status["reload"]["refused"]["why"].as_str();
        why.is_some_and(|why| why.contains("[allocator] cannot change while this runs"))
    });
    assert_eq!(subset(admin, HOT.0).len(), 3);
    process.terminate();
    process.end().ended_with(0);
}

#[test]
fn an_operator_ends_the_process() {
    let origin = Origin::named("a");
    let dispatcher = Dispatcher::start(&[("a", origin.address)]);
    assert_eq!(dispatcher.answering(), ["a"]);
    let status = dispatcher.post("/drain", "");
    assert_eq!(status.status, 202, "{}", status.text());
    dispatcher.process.end().ended_with(0);
}

#[test]
fn without_a_file_sighup_changes_nothing_and_ends_nothing() {
    let origin = Origin::named("a");
    let folder = Folder::new();
    let server = origin.address.to_string();
    let process =
        Running::start(&folder, &["dispatcher", "--listen", "127.0.0.1:0", "--admin", ":0", "--server", &server]);
    let address = process.address("dispatcher: http://");
    assert!(process.address("dispatcher: admin at http://").ip().is_loopback());
    process.hang_up();
    process
        .says("that there is nothing to reload", |line| line.contains("no configuration to read again").then_some(()));
    assert_eq!(get(address, "/").unwrap().text(), "a");
}

#[test]
fn an_admin_address_that_others_reach_is_warned_about() {
    let folder = Folder::new();
    let process = Running::start(
        &folder,
        &["dispatcher", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0", "--server", "127.0.0.1:1"],
    );
    process.says("a warning", |line| line.contains("is open to other machines").then_some(()));
    let text =
        configuration(&[("a", "127.0.0.1:1".parse().unwrap())], "").replace("admin = 0", "admin = \"0.0.0.0:1\"");
    folder.write("open.toml", text);
    vibra(&folder, &["check", "-c", "open.toml"]).ended_with(0).with_stdout(&["0.0.0.0:1: open to other machines"]);
}

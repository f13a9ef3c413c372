//! What operators do with a dispatcher that runs: reload it, take servers out of it, end it.

mod support;

use command_fds::{CommandFdExt, FdMapping};
use std::{
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
};
use support::*;

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

#[test]
fn a_socket_that_is_handed_over_is_served() {
    let origin = Origin::named("a");
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let folder = Folder::new();
    let text = configuration(&[("a", origin.address)], "threads = 2").replace("127.0.0.1:0", &address.to_string());
    folder.write("vibra.toml", text);
    let handed = socket.try_clone().unwrap();
    let process = Running::start_with(&folder, &["dispatcher", "-c", "vibra.toml"], |command| {
        command.env("LISTEN_FDS", "1");
        command.fd_mappings(vec![FdMapping { parent_fd: handed.into(), child_fd: 3 }]).unwrap();
    });
    // It waits in the queue until the process is there.
    assert_eq!(get(address, "/").unwrap().text(), "a");
    assert_eq!(process.address("dispatcher: http://"), address);
    process.terminate();
    process.end().ended_with(0);
    assert!(std::net::TcpStream::connect(address).is_ok(), "whoever has the socket keeps it");
}

#[test]
fn a_service_manager_is_told() {
    let origin = Origin::named("a");
    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.file("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let told = || told(&manager);
    folder.write("vibra.toml", configuration(&[("a", origin.address)], ""));
    let process = Running::start_with(&folder, &["dispatcher", "-c", "vibra.toml"], |command| {
        command.env("NOTIFY_SOCKET", folder.file("notify")).env("WATCHDOG_USEC", "1000000");
    });
    let admin = process.address("dispatcher: admin at http://");
    assert_eq!(told(), "READY=1");
    (0..2).for_each(|_| while next(&manager) != "WATCHDOG=1" {});
    process.hang_up();
    assert!(told().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(), "READY=1");
    process.upgrade();
    let second = Successor::of(process.number(), admin);
    // The new process is ready as well; which of the two is heard first is open.
    let mut news = [told(), told()];
    news.sort();
    assert_eq!(news, [format!("MAINPID={}", second.number().as_raw_nonzero()), "READY=1".to_owned()]);
    second.terminate();
    assert_eq!(told(), "STOPPING=1");
    process.end().ended_with(0);
}

/// What a service manager is told next, but pulses.
fn told(manager: &UnixDatagram) -> String {
    loop {
        let text = next(manager);
        if text != "WATCHDOG=1" {
            return text;
        }
    }
}

fn next(manager: &UnixDatagram) -> String {
    let mut text = [0; 1024];
    let length = manager.recv(&mut text).expect("it is told something");
    String::from_utf8_lossy(&text[..length]).trim().to_owned()
}

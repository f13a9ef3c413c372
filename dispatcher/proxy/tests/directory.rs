//! A dispatcher that follows a directory: what the directory says holds for requests soon after, and old routes do not
//! stay.

mod kit;

use kit::http2_server::Http2Server;
use kit::{Client, Server, block_on, config, get, wait_for};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use vibra_client::{ClientError, FakeDirectory, Operation};
use vibra_model::{
    BytesPerSec, Command, Customer, CustomerId, HostSpec, Resources, UsageReport, VmId, VmReport, VmSpec, VmState,
};
use vibra_proxy::{DirectoryStatus, Dispatcher, Given, Handle, Loader, Protocol, Source};
use vibra_routing::Algorithm;

fn shop() -> CustomerId {
    "shop".parse().unwrap()
}

fn megabytes(n: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(n * 1_000_000)), ..Resources::NONE }
}

/// A directory with one customer and one host.
fn directory() -> Arc<FakeDirectory> {
    let directory = FakeDirectory::new();
    let host = HostSpec { id: "h1".parse().unwrap(), capacity: Resources::NONE };
    directory.run(Command::PutCustomer(Customer { id: shop(), bounds: megabytes(100) })).unwrap();
    directory.run(Command::PutHost(host)).unwrap();
    Arc::new(directory)
}

/// Registers a VM, up at once.
fn put(directory: &FakeDirectory, order: u32, address: String) {
    let id: VmId = format!("vm{order}").parse().unwrap();
    let spec = VmSpec {
        id: id.clone(),
        customer: shop(),
        host: "h1".parse().unwrap(),
        address,
        order,
        weight: 1,
        floor: megabytes(1),
        initial: megabytes(4),
    };
    directory.run(Command::PutVm(spec)).unwrap();
    set(directory, order, VmState::Up);
}

fn set(directory: &FakeDirectory, order: u32, state: VmState) {
    directory.run(Command::SetVmState { vm: format!("vm{order}").parse().unwrap(), state }).unwrap();
}

fn start(directory: &Arc<FakeDirectory>) -> Handle {
    let mut config = config(Source::Directory { directory: directory.clone(), customer: shop() });
    config.settings.algorithm = Algorithm::RoundRobin;
    Dispatcher::start(config).unwrap()
}

/// Waits until the dispatcher knows the directory as it is.
fn settle(dispatcher: &Handle, directory: &FakeDirectory) {
    wait_for("the dispatcher is up to date", || dispatcher.status().revision == directory.now().revision());
}

fn picks(dispatcher: &Handle, name: &str) -> u64 {
    dispatcher.status().server(name).unwrap().picks
}

#[test]
fn requests_go_where_the_directory_says() {
    let directory = directory();
    let dispatcher = start(&directory);
    assert_eq!(get(&dispatcher, "/").status(), 503, "there is no server yet");
    let servers = [Server::named("one"), Server::named("two")];
    put(&directory, 1, servers[0].endpoint());
    wait_for("the first server is used", || get(&dispatcher, "/").status() == 200);
    put(&directory, 2, servers[1].endpoint());
    settle(&dispatcher, &directory);
    wait_for("the second server is used", || get(&dispatcher, "/").text() == "two");
    assert_eq!(dispatcher.status().directory, DirectoryStatus::Live);
}

/// The VM's host asks for at most so many requests at once; 0 asks for no limit.
fn ask_for(directory: &FakeDirectory, order: u32, level: u32) {
    let vm = format!("vm{order}").parse().unwrap();
    let told = VmReport { vm, usage: None, applied: None, state: None, level: NonZeroU32::new(level) };
    directory.run(Command::Report(UsageReport { host: "h1".parse().unwrap(), vms: vec![told] })).unwrap();
}

#[test]
fn a_vm_gets_no_more_at_once_than_its_host_asks_for() {
    let directory = directory();
    let (server, go) = Server::held();
    put(&directory, 1, server.endpoint());
    ask_for(&directory, 1, 1);
    let dispatcher = start(&directory);
    settle(&dispatcher, &directory);
    let status = || dispatcher.status().server("vm1").cloned().unwrap();
    let digest = dispatcher.status().digest;
    assert_eq!(status().limit, 1);
    let mut clients: Vec<_> = (0..4).map(|_| Client::of(&dispatcher)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    wait_for("one is there and the others wait", || (status().active, status().waiting) == (1, 3));
    ask_for(&directory, 1, 3);
    wait_for("two more are let in", || (status().active, status().waiting, status().limit) == (3, 1, 3));
    ask_for(&directory, 1, 0);
    wait_for("the dispatcher's own limit holds", || (status().active, status().waiting) == (4, 0));
    assert!(status().limit > 1000);
    assert_eq!(dispatcher.status().digest, digest, "what is routed where does not depend on it");
    (0..4).for_each(|_| go.send(()).unwrap());
    for client in &mut clients {
        assert_eq!(client.response().unwrap().text(), "done");
    }
    // What moves is held to it at its new address.
    ask_for(&directory, 1, 2);
    let other = Server::named("other");
    put(&directory, 1, other.endpoint());
    settle(&dispatcher, &directory);
    assert_eq!(get(&dispatcher, "/").text(), "other");
    assert_eq!(status().limit, 2);
}

#[test]
fn a_vm_that_goes_down_gets_no_more_requests_and_comes_back() {
    let directory = directory();
    let servers = [Server::named("one"), Server::named("two")];
    put(&directory, 1, servers[0].endpoint());
    put(&directory, 2, servers[1].endpoint());
    let dispatcher = start(&directory);
    settle(&dispatcher, &directory);
    let mut client = Client::of(&dispatcher);
    for state in [VmState::Down, VmState::Draining] {
        set(&directory, 1, state);
        settle(&dispatcher, &directory);
        wait_for("the VM is out", || !dispatcher.status().server("vm1").unwrap().used);
        let before = picks(&dispatcher, "vm1");
        assert!((0..10).all(|_| client.get("/").text() == "two"), "{state:?}");
        assert_eq!(picks(&dispatcher, "vm1"), before);
        set(&directory, 1, VmState::Warming);
        wait_for("the VM is back", || client.get("/").text() == "one");
    }
    // What a server counted before it went down is still there.
    assert!(picks(&dispatcher, "vm2") >= 20);
    set(&directory, 1, VmState::Down);
    set(&directory, 2, VmState::Down);
    wait_for("nobody serves", || client.get("/").status() == 503);
}

#[test]
fn a_request_under_way_ends_well_when_its_vm_leaves() {
    let directory = directory();
    let (server, go) = Server::held();
    put(&directory, 1, server.endpoint());
    let dispatcher = start(&directory);
    settle(&dispatcher, &directory);
    let mut client = Client::of(&dispatcher);
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait_for("the server has the request", || server.requests().len() == 1);
    directory.run(Command::RemoveVm("vm1".parse().unwrap())).unwrap();
    wait_for("the VM is forgotten", || dispatcher.status().servers.is_empty());
    go.send(()).unwrap();
    assert_eq!(client.response().unwrap().text(), "done");
    assert_eq!(client.get("/").status(), 503);
}

#[test]
fn a_vm_that_moves_is_found_at_its_new_address() {
    let directory = directory();
    let servers = [Server::named("old"), Server::named("new")];
    put(&directory, 1, servers[0].endpoint());
    let dispatcher = start(&directory);
    settle(&dispatcher, &directory);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").text(), "old");
    put(&directory, 1, servers[1].endpoint());
    settle(&dispatcher, &directory);
    wait_for("the new address is used", || client.get("/").text() == "new");
    let seen = servers[0].requests().len();
    assert!((0..5).all(|_| client.get("/").text() == "new"));
    assert_eq!(servers[0].requests().len(), seen, "no connection to the old address is used again");
}

#[test]
fn a_watch_that_falls_behind_leaves_no_stale_routes() {
    let directory = directory();
    let servers = [Server::named("one"), Server::named("two")];
    put(&directory, 1, servers[0].endpoint());
    put(&directory, 2, servers[1].endpoint());
    let dispatcher = start(&directory);
    settle(&dispatcher, &directory);
    let mut client = Client::of(&dispatcher);
    // The watch stands still while VM 1 goes down, and then says that it has lost commits.
    directory.hold_watches();
    set(&directory, 1, VmState::Down);
    assert!(dispatcher.status().revision < directory.now().revision());
    directory.outrun_watches();
    directory.release_watches();
    wait_for("the dispatcher has taken a new snapshot", || !dispatcher.status().server("vm1").unwrap().used);
    assert!((0..10).all(|_| client.get("/").text() == "two"));
}

#[test]
fn requests_go_on_while_the_directory_is_away_and_follow_it_once_it_is_back() {
    let directory = directory();
    let servers = [Server::named("one"), Server::named("two")];
    put(&directory, 1, servers[0].endpoint());
    put(&directory, 2, servers[1].endpoint());
    let dispatcher = start(&directory);
    settle(&dispatcher, &directory);
    let mut client = Client::of(&dispatcher);
    let silent = || ClientError::Silent { address: "test".to_owned(), after: Duration::ZERO };
    directory.fail(Operation::Snapshot, silent());
    directory.fail(Operation::Snapshot, silent());
    directory.break_watches();
    wait_for("the loss is noticed", || matches!(dispatcher.status().directory, DirectoryStatus::Lost { .. }));
    assert_eq!(client.get("/").status(), 200);
    set(&directory, 2, VmState::Down);
    wait_for("the change arrives", || !dispatcher.status().server("vm2").unwrap().used);
    assert_eq!(dispatcher.status().directory, DirectoryStatus::Live);
    assert!((0..6).all(|_| client.get("/").text() == "one"));
}

#[test]
fn vms_that_leave_and_come_under_load_cost_no_request() {
    const VMS: u32 = 10;
    let directory = directory();
    let server = Server::named("well");
    // The last one stays.
    put(&directory, VMS, server.endpoint());
    let dispatcher = start(&directory);
    settle(&dispatcher, &directory);
    let (done, began) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::of(&dispatcher);
                    // Ends in any case: a failure of this test must not become a wait.
                    while !done.load(SeqCst) && began.elapsed() < 3 * kit::PATIENCE {
                        assert_eq!(client.get("/").text(), "well");
                    }
                })
            })
            .collect();
        for _ in 0..3 {
            (1..VMS).for_each(|vm| put(&directory, vm, server.endpoint()));
            let is_used = |vm| dispatcher.status().server(&format!("vm{vm}")).is_some_and(|server| server.picks > 0);
            wait_for("all are used", || (1..VMS).all(is_used));
            for vm in 1..VMS {
                directory.run(Command::RemoveVm(format!("vm{vm}").parse().unwrap())).unwrap();
            }
            settle(&dispatcher, &directory);
            assert_eq!(dispatcher.status().servers.len(), 1);
        }
        done.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
    wait_for("no request is active", || dispatcher.status().servers[0].active == 0);
}

#[test]
fn a_cluster_that_shrinks_below_r_keeps_working() {
    let directory = directory();
    let server = Server::named("one");
    put(&directory, 1, server.endpoint());
    let mut config = config(Source::Directory { directory: directory.clone(), customer: shop() });
    config.settings.algorithm = Algorithm::UrlHash;
    config.settings.replicas = 3;
    let dispatcher = Dispatcher::start(config).unwrap();
    wait_for("the one server is used", || get(&dispatcher, "/").status() == 200);
}

#[test]
fn equal_clusters_have_equal_digests() {
    let directory = directory();
    put(&directory, 1, "127.0.0.1:1".to_owned());
    put(&directory, 2, "127.0.0.1:2".to_owned());
    let dispatchers = [start(&directory), start(&directory)];
    for dispatcher in &dispatchers {
        settle(dispatcher, &directory);
        wait_for("there is a table", || dispatcher.status().digest.is_some());
    }
    assert_eq!(dispatchers[0].status().digest, dispatchers[1].status().digest);
}

#[test]
fn how_servers_are_spoken_to_follows_a_reload() {
    let directory = directory();
    let server = Http2Server::echoing();
    put(&directory, 1, server.endpoint());
    let read = Arc::new(Mutex::new(config(Source::Directory { directory: directory.clone(), customer: shop() })));
    let again = read.clone();
    let loader: Loader = Box::new(move || Ok(again.lock().unwrap().clone()));
    let given = Given { loader: Some(loader), ..Given::default() };
    let first = read.lock().unwrap().clone();
    let dispatcher = Dispatcher::start_with(first, given).unwrap();
    settle(&dispatcher, &directory);
    assert_eq!(get(&dispatcher, "/").status(), 502, "it speaks HTTP/2 alone");
    read.lock().unwrap().manner.protocol = Protocol::Http2;
    assert_eq!(block_on(dispatcher.reload()).unwrap(), ["manner"]);
    assert_eq!(get(&dispatcher, "/a").text(), "/a");
    set(&directory, 1, VmState::Draining);
    set(&directory, 1, VmState::Up);
    settle(&dispatcher, &directory);
    assert_eq!(get(&dispatcher, "/b").text(), "/b", "what the directory says next changes nothing of that");
}

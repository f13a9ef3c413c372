//! VMs that somebody else runs, on an uplink of the tests' own: a host and a client, each a network namespace.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use vibra_agent::{
    Agent, AttachedError, AttachedHost, AttachedSettings, AttachedSpec, Machine, MachineError, MachineSpec,
};
use vibra_client::FakeDirectory;
use vibra_model::{
    AllocationChange, Amount, BytesPerSec, Customer, CustomerId, HostId, HostSpec, Proposal, Resources, VmSpec, VmState,
};

/// What a child of this process is to do, and where.
const ROLE: &str = "VIBRA_TEST_ROLE";
const PLACE: &str = "VIBRA_TEST_PLACE";
/// The shaper counts whole Ethernet frames, of which this many bytes are the connection's own.
const FRAME: f64 = 1514.0;
const PAYLOAD: f64 = 1448.0;

/// A host "…-h" with the uplink "up", and a client "…-c" at its other end.
struct Place(String);

impl Place {
    /// `None`, and a word why, where this machine cannot.
    fn make(name: &str) -> Option<Place> {
        let place = Place(format!("vibra-a{}-{name}", std::process::id()));
        let (host, client) = (place.host(), place.client());
        let made = [
            format!("ip netns add {host}"),
            format!("ip netns add {client}"),
            format!("ip -n {host} link add name up type veth peer name down netns {client}"),
            format!("ip -n {host} address add 192.0.2.1/24 dev up"),
            format!("ip -n {host} address add 192.0.2.2/24 dev up"),
            format!("ip -n {host} address add 10.0.0.2/8 dev up"),
            format!("ip -n {client} address add 192.0.2.100/24 dev down"),
            format!("ip -n {client} address add 10.0.0.1/8 dev down"),
            format!("ip -n {host} link set dev up up"),
            format!("ip -n {client} link set dev down up"),
        ];
        for words in made {
            if let Err(reason) = run(&words) {
                eprintln!("skipped: {reason}");
                return None;
            }
        }
        Some(place)
    }

    fn host(&self) -> String {
        format!("{}-h", self.0)
    }

    fn client(&self) -> String {
        format!("{}-c", self.0)
    }

    fn settings(&self) -> AttachedSettings {
        settings(&self.host())
    }

    /// The rates in force by class, in bits per second as `tc` prints them; `None` where nothing is shaped.
    fn classes(&self) -> Vec<String> {
        let shown = run(&format!("tc -n {} class show dev up", self.host())).unwrap();
        shown.lines().filter(|line| !line.contains("rate 32Gbit")).map(str::to_owned).collect()
    }

    fn is_shaped(&self) -> bool {
        run(&format!("tc -n {} qdisc show dev up", self.host())).unwrap().contains("htb 7b1b:")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The note of what a test left would stay.
        let _ = AttachedHost::clear(&self.settings());
        for namespace in [self.host(), self.client()] {
            let _ = run(&format!("ip netns delete {namespace}"));
        }
    }
}

fn settings(namespace: &str) -> AttachedSettings {
    AttachedSettings {
        uplink: "up".to_owned(),
        namespace: Some(namespace.to_owned()),
        internal: vec!["10.0.0.0/8".parse().unwrap()],
    }
}

fn run(words: &str) -> Result<String, String> {
    let mut command = Command::new("env");
    let path = format!("PATH={}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = command.arg(path).args(words.split_whitespace()).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(if output.status.success() { &output.stdout } else { &output.stderr });
    if output.status.success() { Ok(said.into_owned()) } else { Err(format!("{words}: {said}")) }
}

fn bandwidth(rate: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
}

/// VM 1 or 2, with the addresses that it has in a [`Place`].
fn spec(number: u8, rate: u64) -> AttachedSpec {
    let inside = (number == 1).then(|| "10.0.0.2".parse().unwrap());
    AttachedSpec {
        machine: MachineSpec { id: format!("vm{number}").parse().unwrap(), initial: bandwidth(rate) },
        address: format!("192.0.2.{number}:80"),
        sources: std::iter::once(format!("192.0.2.{number}").parse().unwrap()).chain(inside).collect(),
        cgroup: None,
    }
}

/// Does `work` in a namespace.
fn within<T: Send + 'static>(namespace: &str, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let file = File::open(Path::new("/run/netns").join(namespace)).unwrap();
    thread::spawn(move || {
        rustix::thread::move_into_link_name_space(file.as_fd(), None).unwrap();
        work()
    })
}

/// Sends as much as it can to whoever connects, until the namespace's test ends.
fn serve(place: &Place, address: &'static str) {
    let listening = within(&place.host(), move || {
        let listener = TcpListener::bind(address).unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                thread::spawn(move || while connection.write_all(&[0; 1 << 16]).is_ok() {});
            }
        });
    });
    listening.join().unwrap();
}

/// Connections that take what they get, from the client.
struct Download {
    received: Arc<AtomicU64>,
    connections: Vec<TcpStream>,
}

impl Download {
    fn start(place: &Place, address: &'static str, connections: usize) -> Download {
        let connect = move || (0..connections).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>();
        let connections = within(&place.client(), connect).join().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        for connection in &connections {
            let (mut connection, received) = (connection.try_clone().unwrap(), received.clone());
            thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while let Ok(length @ 1..) = connection.read(&mut buffer) {
                    received.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
        Download { received, connections }
    }

    /// The frames' bytes per second over this time.
    async fn rate(&self, time: Duration) -> f64 {
        let (before, start) = (self.received.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(time).await;
        let received = self.received.load(Ordering::Relaxed) - before;
        received as f64 / start.elapsed().as_secs_f64() * FRAME / PAYLOAD
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        for connection in &self.connections {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

async fn egress(machine: &dyn Machine) -> u64 {
    machine.read().await.unwrap().egress.unwrap().0
}

async fn set(machine: &dyn Machine, rate: u64) -> Result<Amount, MachineError> {
    machine.set(Amount::Bandwidth(BytesPerSec(rate))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_leaves_is_held_within_3_percent_over_10_s_and_internal_traffic_is_not() {
    let Some(place) = Place::make("hold") else { return };
    let host = AttachedHost::start(place.settings(), vec![spec(1, 1_000_000), spec(2, 3_000_000)]).await.unwrap();
    let machines = host.machines();
    for address in ["192.0.2.1:80", "192.0.2.2:80", "10.0.0.2:80"] {
        serve(&place, address);
    }
    assert_eq!(set(&*machines[0], 2_700_000).await.unwrap(), Amount::Bandwidth(BytesPerSec(2_700_000)));
    let first = Download::start(&place, "192.0.2.1:80", 8);
    let second = Download::start(&place, "192.0.2.2:80", 8);
    // Until the queues are full.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (before, ten) = (egress(&*machines[0]).await, Duration::from_secs(10));
    let (one, two) = tokio::join!(first.rate(ten), second.rate(ten));
    for (shaped, allocation) in [(one, 2_700_000.0), (two, 3_000_000.0)] {
        assert!((shaped / allocation - 1.0).abs() < 0.03, "{shaped} of {allocation}");
    }
    let demand = egress(&*machines[0]).await - before;
    // Segments that the card is to cut have their heads counted once.
    assert!(
        demand as f64 >= 10.0 * one * PAYLOAD / FRAME * 0.97,
        "demand is counted before the queue: {demand} at {one}"
    );
    drop((first, second));

    let idle = async {
        let mut last = egress(&*machines[0]).await;
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let now = egress(&*machines[0]).await;
            if now == last {
                return now;
            }
            last = now;
        }
    };
    let outside = tokio::time::timeout(Duration::from_secs(20), idle).await.expect("it comes to rest");
    let inside = Download::start(&place, "10.0.0.2:80", 8);
    let rate = inside.rate(Duration::from_secs(1)).await;
    assert!(rate > 4.0 * 2_700_000.0, "internal traffic is not limited: {rate}");
    assert_eq!(egress(&*machines[0]).await, outside, "nor counted as egress");
    drop(inside);
    host.release().await.unwrap();
    assert!(!place.is_shaped());
}

/// Waits until a file says something.
async fn told(note: &Path) -> String {
    let said = async {
        loop {
            match fs::read_to_string(note).ok().filter(|text| text.ends_with('\n')) {
                Some(text) => return text,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), said).await.expect("the child comes so far")
}

/// This test again, as a process of its own with a role.
fn child(role: &str, place: &Place) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "roles", "--nocapture"]).env(ROLE, role).env(PLACE, place.host());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a child says before it ends, which it does within a bounded time by itself.
fn last_words(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

/// Not a test of its own: what the children of the others do.
#[tokio::test]
async fn roles() {
    let (Ok(role), Ok(namespace)) = (std::env::var(ROLE), std::env::var(PLACE)) else { return };
    let started = AttachedHost::start(settings(&namespace), vec![spec(1, 4_000_000), spec(2, 4_000_000)]).await;
    let host = match started {
        Ok(host) => host,
        Err(error) => return println!("not started: {}", chain(&error)),
    };
    if let Some(note) = role.strip_prefix("lowers ") {
        set(&*host.machines()[0], 2_000_000).await.unwrap();
        fs::write(note, "lowered\n").unwrap();
        return std::future::pending().await;
    }
    // The directory takes from one and gives to the other; the agent does what it can.
    let (directory, agent) = agent(&host);
    let snapshot = directory.now();
    let change =
        |vm: &vibra_model::Vm, rate| AllocationChange { vm: vm.id.clone(), to: Amount::Bandwidth(BytesPerSec(rate)) };
    let changes = snapshot.vms().zip([1_000_000, 7_000_000]).map(|(vm, rate)| change(vm, rate)).collect();
    directory.run(vibra_model::Command::Propose(Proposal { base: snapshot.revision(), changes })).unwrap();
    let told = |command: &vibra_model::Command| match command {
        vibra_model::Command::Report(report) => report.vms.iter().filter(|vm| vm.applied.is_some()).count() == 2,
        _ => false,
    };
    // By then it has tried more than once.
    let reports = async {
        while directory.commands().iter().filter(|command| told(command)).count() < 4 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    agent.run(reports).await;
    for vm in directory.now().vms() {
        println!("{} has {}", vm.id, vm.applied.unwrap().resources.bandwidth.unwrap().0);
    }
}

/// A directory that knows the host and its VMs, whose customer bought 8 MB/s, and their agent.
fn agent(host: &AttachedHost) -> (Arc<FakeDirectory>, Agent) {
    let directory = Arc::new(FakeDirectory::new());
    let (shop, h1): (CustomerId, HostId) = ("shop".parse().unwrap(), "h1".parse().unwrap());
    let run = |command| directory.run(command).unwrap();
    run(vibra_model::Command::PutCustomer(Customer { id: shop.clone(), bounds: bandwidth(8_000_000) }));
    run(vibra_model::Command::PutHost(HostSpec { id: h1.clone(), capacity: Resources::NONE }));
    for (machine, order) in host.machines().iter().zip(1..) {
        run(vibra_model::Command::PutVm(VmSpec {
            id: machine.id().clone(),
            customer: shop.clone(),
            host: h1.clone(),
            address: machine.address().to_owned(),
            order,
            weight: 1,
            floor: bandwidth(1_000_000),
            initial: bandwidth(4_000_000),
        }));
    }
    (directory.clone(), Agent::new(h1, host.machines().to_vec(), directory))
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Ends a child at once, as a crash does.
struct Crashing(Child);

impl Drop for Crashing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_between_decrease_and_increase_is_succeeded_without_a_gap() {
    let Some(place) = Place::make("kill") else { return };
    let notes = tempfile::tempdir().unwrap();
    let note = notes.path().join("note");
    let crashing = Crashing(child(&format!("lowers {}", note.display()), &place).spawn().unwrap());
    told(&note).await;
    let taken = AttachedHost::start(place.settings(), vec![spec(1, 4_000_000)]).await;
    let taken = taken.err().expect("one agent has it").to_string();
    assert!(taken.contains("another agent shapes up"), "{taken}");
    drop(crashing);
    let left = place.classes();
    assert!(left.len() == 2 && left.iter().any(|class| class.contains("rate 16Mbit")), "{left:?}");

    let (done, place) = (Arc::new(AtomicBool::new(false)), Arc::new(place));
    let watch = {
        let (done, place) = (done.clone(), place.clone());
        thread::spawn(move || {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(place.classes().len(), 2, "both stay limited");
                looks += 1;
            }
            looks
        })
    };
    // VMs come in another order, and what they have at first is not what they have.
    let host = AttachedHost::start(place.settings(), vec![spec(2, 3_000_000), spec(1, 3_000_000)]).await.unwrap();
    let rates =
        |allocations: Vec<Resources>| allocations.iter().map(|has| has.bandwidth.unwrap().0).collect::<Vec<_>>();
    let mut has = Vec::new();
    for machine in host.machines() {
        has.push(machine.allocation().await.unwrap());
    }
    assert_eq!(rates(has), [4_000_000, 2_000_000], "nobody has more than before");
    assert_eq!(set(&*host.machines()[0], 6_000_000).await.unwrap().raw(), 6_000_000);
    done.store(true, Ordering::Relaxed);
    assert!(watch.join().unwrap() > 0);
    // An agent that ends leaves the limits; a VM that is gone has none any more.
    drop(host);
    assert!(place.is_shaped());
    let host = AttachedHost::start(place.settings(), vec![spec(2, 3_000_000)]).await.unwrap();
    let left = place.classes();
    assert!(left.len() == 1 && left[0].contains("rate 48Mbit"), "{left:?}");
    drop(host);
    let settings = place.settings();
    let told = AttachedHost::dry_clear(&settings).unwrap().join("\n");
    assert!(told.contains("qdisc del dev up root") && told.contains("delete table netdev vibra-up"), "{told}");
    assert!(place.is_shaped());
    let clear = move || (AttachedHost::clear(&settings).unwrap(), AttachedHost::clear(&settings).unwrap());
    assert_eq!(tokio::task::spawn_blocking(clear).await.unwrap(), (true, false));
    assert!(!place.is_shaped());
    assert_eq!(run(&format!("ip netns exec {} nft list tables", place.host())).unwrap(), "");
}

#[tokio::test]
async fn what_somebody_else_made_is_left_alone() {
    let Some(place) = Place::make("foreign") else { return };
    // Looks like ours, and was not made by any agent.
    for queue in ["tbf rate 1mbit burst 10k latency 50ms", "htb default 1"] {
        let handle = if queue.starts_with("htb") { "7b1b:" } else { "5:" };
        run(&format!("tc -n {} qdisc add dev up root handle {handle} {queue}", place.host())).unwrap();
        let before = run(&format!("tc -n {} qdisc show dev up", place.host())).unwrap();
        let error = AttachedHost::start(place.settings(), vec![spec(1, 1)]).await.err().expect("refused");
        let AttachedError::Shaper(error) = error else { panic!("{error}") };
        assert!(error.to_string().contains("somebody else made"), "{error}");
        assert_eq!(run(&format!("tc -n {} qdisc show dev up", place.host())).unwrap(), before);
        run(&format!("tc -n {} qdisc del dev up root", place.host())).unwrap();
    }
    let misspelt = AttachedSettings { uplink: "eht0".to_owned(), ..place.settings() };
    let error = AttachedHost::start(misspelt, vec![spec(1, 1)]).await.err().expect("refused");
    assert!(format!("{error:?}").contains("NoDevice"), "{error:?}");
}

#[tokio::test]
async fn without_privilege_tools_or_luck_the_error_says_so_and_nothing_is_over_the_bound() {
    let Some(place) = Place::make("faults") else { return };
    let tools = tempfile::tempdir().unwrap();
    let fake = |tool: &str, script: &str| {
        let file = tools.path().join(tool);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    let path = format!("{}:{}:/usr/sbin:/sbin", tools.path().display(), std::env::var("PATH").unwrap_or_default());
    let with_fakes = |role: &str| last_words(child(role, &place).env("PATH", &path));

    let nobody = child("changes", &place).uid(65_534).output();
    match nobody {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("are you root?") && said.contains("Permission denied"), "{said}");
        }
        Err(error) => eprintln!("skipped: nobody may not run this test: {error}"),
    }

    // As `env` ends where there is no such program.
    fake("tc", "echo \"env: 'tc': No such file or directory\" >&2; exit 127");
    let said = with_fakes("changes");
    assert!(said.contains("is it installed?"), "{said}");
    assert!(!place.is_shaped());
    assert_eq!(run(&format!("ip netns exec {} nft list tables", place.host())).unwrap(), "", "nothing is left");

    // Whoever is lowered to 1 MB/s fails, half-way through the batch.
    fake(
        "tc",
        "in=$(cat); case \"$in\" in *'rate 1000000bps'*) echo 'out of luck' >&2; exit 2;; esac; \
         printf '%s\\n' \"$in\" | PATH=/usr/sbin:/sbin:/usr/bin:/bin exec tc \"$@\"",
    );
    let said = with_fakes("changes");
    assert!(said.contains("vm1 has 4000000") && said.contains("vm2 has 4000000"), "nobody is raised before: {said}");
    let left = place.classes();
    assert!(left.len() == 2 && left.iter().all(|class| class.contains("rate 32Mbit")), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_decides_and_what_others_change_is_mended() {
    let Some(place) = Place::make("agent") else { return };
    // The server of this test is where an attached VM's would be.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let specs = [1, 2].map(|number| AttachedSpec { address: address.clone(), ..spec(number, 4_000_000) });
    let host = AttachedHost::start(place.settings(), specs.into()).await.unwrap();
    let (directory, agent) = agent(&host);
    let works = async {
        let follower = vibra_client::follow(directory.clone());
        let mut snapshots = follower.snapshots();
        snapshots.wait_for(|snapshot| snapshot.vms().all(|vm| vm.state == VmState::Up)).await.unwrap();
        // Somebody lifts a limit behind the agent's back, and the firewall is loaded anew.
        run(&format!("tc -n {} filter del dev up parent 7b1b:", place.host())).unwrap();
        run(&format!("tc -n {} class del dev up classid 7b1b:10", place.host())).unwrap();
        run(&format!("ip netns exec {} nft flush ruleset", place.host())).unwrap();
        let mended = || {
            let counters = run(&format!("ip netns exec {} nft list counters", place.host())).unwrap();
            place.classes().len() == 2 && counters.contains("out-10") && counters.contains("out-11")
        };
        while !mended() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let bounded = async { tokio::time::timeout(Duration::from_secs(30), works).await.expect("in time") };
    agent.run(bounded).await;
    drop(server);
    assert_eq!(host.machines()[0].state().await, VmState::Down);
    assert!(host.machines()[0].start().await.is_err() && host.machines()[0].stop().await.is_ok());
    host.release().await.unwrap();
}

#[test]
fn a_dry_run_tells_every_command() {
    let settings = AttachedSettings { namespace: None, uplink: "eth0".to_owned(), ..settings("none") };
    let told = AttachedHost::dry_run(&settings, &[spec(1, 2_700_000)]).join("\n");
    assert!(told.contains("tc -batch -") && told.contains("nft -f -") && told.contains("rate 2700000bps"), "{told}");
}

//! The agent against a directory in memory and machines that write down what happens to them.

use super::*;
use crate::{Machine, MachineError, Reading};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use tokio::{sync::oneshot, task::JoinHandle, time::timeout};
use vibra_client::{FakeDirectory, Operation};
use vibra_model::{
    AllocationChange, Amount, Bytes, BytesPerSec, Customer, Proposal, Resource, Resources, Snapshot, VmState,
};

/// What happened, over all machines, in order.
type Diary = Arc<Mutex<Vec<(String, u64)>>>;

/// How a fake machine's actuator behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Actuator {
    Works,
    Fails,
    Hangs,
    /// Does not move, and does not say so.
    Sticks,
    /// Moves, but fails before it can say so.
    Breaks,
}

struct FakeMachine {
    id: VmId,
    has: Mutex<Resources>,
    actuator: Mutex<Actuator>,
    sensors: Mutex<Sensors>,
    diary: Diary,
    readings: AtomicU64,
    runs: AtomicBool,
    stopped: Notify,
}

/// What of a fake machine says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Sensors {
    #[default]
    Work,
    /// The actuators cannot be read back.
    BlindToAllocation,
    /// Neither its counters nor its state can be had: both wait for ever.
    Hang,
}

#[async_trait]
impl Machine for FakeMachine {
    fn id(&self) -> &VmId {
        &self.id
    }

    fn address(&self) -> &str {
        "127.0.0.1:1"
    }

    async fn start(&self) -> Result<(), MachineError> {
        if *self.actuator.lock().unwrap() == Actuator::Fails {
            return Err(MachineError::failed(&self.id, "start it", "no room"));
        }
        self.diary.lock().unwrap().push((format!("start {}", self.id), 0));
        self.runs.store(true, SeqCst);
        Ok(())
    }

    async fn stop(&self) -> Result<(), MachineError> {
        self.diary.lock().unwrap().push((format!("stop {}", self.id), 0));
        self.runs.store(false, SeqCst);
        Ok(())
    }

    async fn state(&self) -> VmState {
        self.wait_if(Sensors::Hang).await;
        if self.runs.load(SeqCst) { VmState::Up } else { VmState::Down }
    }

    async fn ended(&self) {
        while self.runs.load(SeqCst) {
            self.stopped.notified().await;
        }
    }

    async fn set(&self, amount: Amount) -> Result<Amount, MachineError> {
        let actuator = *self.actuator.lock().unwrap();
        match actuator {
            Actuator::Works => self.has.lock().unwrap().set(amount),
            Actuator::Fails => return Err(MachineError::failed(&self.id, "set it", "no such device")),
            Actuator::Hangs => std::future::pending().await,
            Actuator::Sticks => {}
            Actuator::Breaks => {
                self.has.lock().unwrap().set(amount);
                return Err(MachineError::failed(&self.id, "read it back", "no answer"));
            }
        }
        let got = self.has.lock().unwrap().get(amount.resource()).unwrap();
        self.diary.lock().unwrap().push((self.id.to_string(), got));
        Ok(amount.resource().amount(got))
    }

    async fn allocation(&self) -> Result<Resources, MachineError> {
        if *self.sensors.lock().unwrap() == Sensors::BlindToAllocation {
            return Err(MachineError::failed(&self.id, "read it", "no such device"));
        }
        Ok(*self.has.lock().unwrap())
    }

    async fn read(&self) -> Result<Reading, MachineError> {
        self.wait_if(Sensors::Hang).await;
        let count = self.readings.fetch_add(1, SeqCst);
        Ok(Reading { life: 1, egress: Some(Bytes(count * 1_000)), ..Reading::default() })
    }
}

impl FakeMachine {
    /// Ends by itself.
    fn fail(&self) {
        self.runs.store(false, SeqCst);
        self.stopped.notify_one();
    }

    async fn wait_if(&self, hang: Sensors) {
        let sensors = *self.sensors.lock().unwrap();
        if sensors == hang {
            std::future::pending().await
        }
    }
}

fn bandwidth(rate: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
}

struct Scene {
    directory: FakeDirectory,
    machines: Vec<Arc<FakeMachine>>,
    diary: Diary,
}

impl Scene {
    /// A customer with a bound of 400, and VMs with 100 each: the named ones, on host "h1"; "d" alone on "h2".
    fn new(names: &[&str]) -> Self {
        let directory = FakeDirectory::new();
        let run = |command| directory.run(command).unwrap();
        run(Command::PutCustomer(Customer { id: "shop".parse().unwrap(), bounds: bandwidth(400) }));
        for host in ["h1", "h2"] {
            run(Command::PutHost(HostSpec { id: host.parse().unwrap(), capacity: bandwidth(1_000) }));
        }
        for (order, name) in (1..).zip(["a", "b", "c", "d"]) {
            run(Command::PutVm(VmSpec {
                id: name.parse().unwrap(),
                customer: "shop".parse().unwrap(),
                host: if name == "d" { "h2" } else { "h1" }.parse().unwrap(),
                address: "127.0.0.1:1".into(),
                order,
                weight: 1,
                floor: bandwidth(1),
                initial: bandwidth(100),
            }));
        }
        let diary = Diary::default();
        let machine = |name: &&str| FakeMachine {
            id: name.parse().unwrap(),
            has: Mutex::new(bandwidth(100)),
            actuator: Mutex::new(Actuator::Works),
            sensors: Mutex::default(),
            diary: diary.clone(),
            readings: AtomicU64::new(0),
            runs: AtomicBool::new(true),
            stopped: Notify::new(),
        };
        let machines = names.iter().map(machine).map(Arc::new).collect();
        Scene { directory, machines, diary }
    }

    fn start(&self, host: &str) -> Running {
        let machines = self.machines.iter().map(|machine| machine.clone() as Arc<dyn Machine>).collect();
        let agent = Agent::new(host.parse().unwrap(), machines, Arc::new(self.directory.clone()));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(agent.run(async {
            let _ = stopped.await;
        }));
        Running { stop, task }
    }

    fn propose(&self, wishes: &[(&str, u64)]) {
        let change = |&(vm, rate): &(&str, u64)| AllocationChange {
            vm: vm.parse().unwrap(),
            to: Amount::Bandwidth(BytesPerSec(rate)),
        };
        let changes = wishes.iter().map(change).collect();
        self.directory.run(Command::Propose(Proposal { base: self.directory.now().revision(), changes })).unwrap();
    }

    /// Waits until the directory is as `wanted` says.
    async fn until(&self, wanted: impl FnMut(&Arc<Snapshot>) -> bool) {
        let mut snapshots = self.directory_follower();
        timeout(Duration::from_secs(60), snapshots.1.wait_for(wanted)).await.expect("within a minute").unwrap();
    }

    fn directory_follower(&self) -> (vibra_client::Follower, tokio::sync::watch::Receiver<Arc<Snapshot>>) {
        let follower = follow(Arc::new(self.directory.clone()));
        let snapshots = follower.snapshots();
        (follower, snapshots)
    }

    fn set_actuator(&self, name: &str, actuator: Actuator) {
        let machine = self.machines.iter().find(|machine| machine.id.as_str() == name).unwrap();
        *machine.actuator.lock().unwrap() = actuator;
    }

    fn set_sensors(&self, name: &str, sensors: Sensors) {
        let machine = self.machines.iter().find(|machine| machine.id.as_str() == name).unwrap();
        *machine.sensors.lock().unwrap() = sensors;
    }

    /// What the directory counts against the bound for a VM.
    fn held(&self, vm: &str) -> Option<u64> {
        self.directory.now().vm(&vm.parse().unwrap()).unwrap().held.get(Resource::Bandwidth)
    }

    /// How many reports the directory has got.
    fn reports(&self) -> usize {
        self.directory.commands().iter().filter(|command| matches!(command, Command::Report(_))).count()
    }

    fn diary(&self) -> Vec<(String, u64)> {
        self.diary.lock().unwrap().clone()
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn stop(self) {
        drop(self.stop);
        timeout(Duration::from_secs(60), self.task).await.expect("it stops").unwrap();
    }
}

/// What the VM's host said it has, if it adopted the newest allocation.
fn applied(snapshot: &Snapshot, vm: &str) -> Option<u64> {
    let vm = snapshot.vm(&vm.parse().unwrap())?;
    let applied = vm.applied.filter(|applied| applied.generation == vm.desired.generation)?;
    applied.resources.get(Resource::Bandwidth)
}

#[tokio::test(start_paused = true)]
async fn every_decrease_comes_before_any_increase() {
    let scene = Scene::new(&["a", "b", "c"]);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "c") == Some(100)).await;
    scene.propose(&[("a", 190), ("b", 60), ("c", 50)]);
    scene.until(|s| applied(s, "a") == Some(190)).await;
    let mut diary = scene.diary();
    diary[..2].sort();
    assert_eq!(diary, [("b".into(), 60), ("c".into(), 50), ("a".into(), 190)]);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_increase_waits_for_another_hosts_decrease() {
    let scene = Scene::new(&["a", "b", "c"]);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "a") == Some(100)).await;
    scene.propose(&[("a", 150), ("d", 50)]);
    // The newest allocation is adopted, with the old value in force, for as long as "d" has not been lowered.
    scene.until(|s| applied(s, "a") == Some(100)).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(scene.diary(), []);
    let desired = scene.directory.now().vm(&"d".parse().unwrap()).unwrap().desired;
    let told = vibra_model::VmReport {
        vm: "d".parse().unwrap(),
        usage: None,
        applied: Some(Applied { resources: bandwidth(50), generation: desired.generation }),
        state: None,
        level: None,
    };
    let report = vibra_model::UsageReport { host: "h2".parse().unwrap(), vms: vec![told] };
    scene.directory.run(Command::Report(report)).unwrap();
    scene.until(|s| applied(s, "a") == Some(150)).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stuck_actuator_is_told_as_it_is_and_does_not_stop_the_others() {
    for trouble in [Actuator::Fails, Actuator::Hangs, Actuator::Sticks] {
        let scene = Scene::new(&["a", "b", "c"]);
        scene.set_actuator("b", trouble);
        let agent = scene.start("h1");
        scene.until(|s| applied(s, "b") == Some(100)).await;
        scene.propose(&[("a", 120), ("b", 50), ("c", 30)]);
        // 120 + 100 + 30 + 100 is within the bound, so "a" may rise although "b" is stuck.
        scene.until(|s| applied(s, "a") == Some(120) && applied(s, "c") == Some(30)).await;
        assert_eq!(applied(&scene.directory.now(), "b"), Some(100), "{trouble:?}");
        scene.set_actuator("b", Actuator::Works);
        scene.until(|s| applied(s, "b") == Some(50)).await;
        agent.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_while_an_actuator_hangs() {
    let scene = Scene::new(&["a", "b", "c"]);
    scene.set_actuator("b", Actuator::Hangs);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "b") == Some(100)).await;
    scene.propose(&[("b", 50)]);
    let before = scene.directory.commands().len();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(scene.directory.commands().len() >= before + 9, "one a second");
    agent.stop().await;
}

/// A host may be silent for three seconds before all its VMs are taken for dead.
#[tokio::test(start_paused = true)]
async fn one_vm_that_hangs_does_not_silence_its_host() {
    let scene = Scene::new(&["a", "b", "c"]);
    scene.set_sensors("b", Sensors::Hang);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "a") == Some(100)).await;
    for _ in 0..10 {
        let before = scene.reports();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(scene.reports() > before, "silent for two seconds");
    }
    let window = Directory::usage(&scene.directory, Timestamp(0)).await.unwrap();
    assert!(window.samples(&"a".parse().unwrap()).len() >= 9, "the others are measured all the same");
    agent.stop().await;
}

/// A directory that comes back gives every host three seconds to be heard.
#[tokio::test(start_paused = true)]
async fn the_host_is_heard_soon_after_the_directory_is_back() {
    let scene = Scene::new(&["a", "b", "c"]);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "a") == Some(100)).await;
    for _ in 0..30 {
        scene.directory.fail(Operation::Command, ClientError::Failed { status: 503, message: "gone".into() });
    }
    let outage = scene.reports() + 30;
    let begun = tokio::time::Instant::now();
    let mut last = begun;
    while scene.reports() < outage + 1 {
        let before = scene.reports();
        tokio::time::sleep(Duration::from_millis(10)).await;
        if scene.reports() > before {
            last = tokio::time::Instant::now();
        }
        assert!(last.elapsed() < Duration::from_secs(2), "no report for {:?}", last.elapsed());
    }
    assert!(begun.elapsed() > Duration::from_secs(10), "it does wait between its attempts");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_back_is_not_taken_for_lowered() {
    let scene = Scene::new(&["a", "b", "c"]);
    // The agent was away when "b" was to give up 50; nobody knows what "b" has.
    scene.propose(&[("b", 50)]);
    scene.set_sensors("b", Sensors::BlindToAllocation);
    scene.set_actuator("b", Actuator::Fails);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "a") == Some(100)).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((scene.held("b"), applied(&scene.directory.now(), "b")), (Some(100), None));
    scene.set_sensors("b", Sensors::Work);
    scene.set_actuator("b", Actuator::Works);
    scene.until(|s| applied(s, "b") == Some(50)).await;
    assert_eq!(scene.held("b"), Some(50));
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_increase_that_failed_counts_until_it_is_read_back() {
    let scene = Scene::new(&["a", "b", "c"]);
    scene.propose(&[("c", 50)]);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "c") == Some(50)).await;
    scene.set_actuator("a", Actuator::Breaks);
    scene.set_sensors("a", Sensors::BlindToAllocation);
    scene.propose(&[("a", 150)]);
    scene.until(|s| applied(s, "a") == Some(150)).await;
    // "a" may have 150 although its actuator said that it failed: to take them back does not free them yet.
    scene.propose(&[("a", 100)]);
    scene.set_actuator("a", Actuator::Fails);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(scene.held("a"), Some(150));
    scene.set_sensors("a", Sensors::Work);
    scene.set_actuator("a", Actuator::Works);
    scene.until(|s| applied(s, "a") == Some(100)).await;
    assert_eq!(scene.machines[0].has.lock().unwrap().bandwidth, Some(BytesPerSec(100)));
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_is_registered_anew_is_followed() {
    let scene = Scene::new(&["a", "b", "c"]);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "a") == Some(100)).await;
    for rate in [90, 80, 70] {
        scene.propose(&[("a", rate)]);
        scene.until(|s| applied(s, "a") == Some(rate)).await;
    }
    // The agent does not see it gone: the snapshots that it gets skip what happened in between.
    scene.directory.hold_watches();
    let vm = scene.directory.now().vm(&"a".parse().unwrap()).unwrap().clone();
    scene.directory.run(Command::RemoveVm(vm.id.clone())).unwrap();
    scene
        .directory
        .run(Command::PutVm(VmSpec {
            id: vm.id,
            customer: vm.customer,
            host: vm.host,
            address: vm.address,
            order: vm.order,
            weight: vm.weight,
            floor: vm.floor,
            initial: bandwidth(60),
        }))
        .unwrap();
    scene.directory.release_watches();
    scene.until(|s| applied(s, "a") == Some(60)).await;
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_actuator_that_somebody_else_moved_is_put_back() {
    let scene = Scene::new(&["a", "b", "c"]);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "a") == Some(100)).await;
    *scene.machines[0].has.lock().unwrap() = bandwidth(333);
    let put_back = async {
        while scene.diary().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), put_back).await.expect("within a minute");
    assert_eq!(scene.diary(), [("a".into(), 100)]);
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn usage_is_reported_each_second() {
    let scene = Scene::new(&["a", "b", "c"]);
    let agent = scene.start("h1");
    tokio::time::sleep(Duration::from_millis(5_500)).await;
    let window = Directory::usage(&scene.directory, Timestamp(0)).await.unwrap();
    let samples = window.samples(&"a".parse().unwrap());
    assert_eq!(samples.len(), 5);
    for pair in samples.windows(2) {
        assert_eq!(pair[1].at.since(pair[0].at), Duration::from_secs(1));
    }
    assert!(samples.iter().all(|sample| sample.egress == Some(BytesPerSec(1_000))), "{samples:?}");
    agent.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_directory_the_allocation_stays_and_the_agent_comes_back() {
    let scene = Scene::new(&["a", "b", "c"]);
    let agent = scene.start("h1");
    scene.until(|s| applied(s, "a") == Some(100)).await;
    scene.propose(&[("a", 90)]);
    scene.until(|s| applied(s, "a") == Some(90)).await;
    for _ in 0..6 {
        let gone = || ClientError::Failed { status: 503, message: "gone".into() };
        scene.directory.fail(Operation::Command, gone());
        scene.directory.fail(Operation::Snapshot, gone());
    }
    scene.directory.break_watches();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(scene.machines[0].has.lock().unwrap().bandwidth, Some(BytesPerSec(90)));
    scene.propose(&[("a", 80)]);
    scene.until(|s| applied(s, "a") == Some(80)).await;
    agent.stop().await;
}

/// VM a is told to go to h2; the agents of both hosts are given all machines.
fn moving_scene() -> (Scene, Running, Running) {
    let scene = Scene::new(&["a", "b", "c", "d"]);
    let agents = (scene.start("h1"), scene.start("h2"));
    for host in ["h1", "h2"] {
        let pool = "here".parse().unwrap();
        scene.directory.run(Command::JoinPool { host: host.parse().unwrap(), pool }).unwrap();
    }
    (scene, agents.0, agents.1)
}

impl Scene {
    fn move_a(&self, to: &str) {
        let (base, vm) = (self.directory.now().revision(), "a".parse().unwrap());
        self.directory.run(Command::MoveVm { base, vm, to: to.parse().unwrap() }).unwrap();
    }
}

fn place_of_a(snapshot: &Snapshot) -> Option<(String, VmState)> {
    let vm = snapshot.vm(&"a".parse().unwrap())?;
    Some((vm.host.to_string(), vm.state))
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_moves_is_stopped_here_and_started_cold_there() {
    let (scene, one, other) = moving_scene();
    scene.until(|s| s.vms().len() == 4 && s.vms().all(|vm| vm.state == VmState::Up)).await;
    scene.move_a("h2");
    scene.until(|s| place_of_a(s) == Some(("h2".into(), VmState::Up)) && applied(s, "a") == Some(100)).await;
    assert_eq!(scene.diary(), [("stop a".into(), 0), ("start a".into(), 0)]);
    // Its new host drives it, and measures it.
    scene.propose(&[("a", 70)]);
    scene.until(|s| applied(s, "a") == Some(70)).await;
    let before = Directory::usage(&scene.directory, Timestamp(0)).await.unwrap().samples(&"a".parse().unwrap()).len();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = Directory::usage(&scene.directory, Timestamp(0)).await.unwrap().samples(&"a".parse().unwrap()).len();
    assert!((4..=6).contains(&(after - before)), "by one host alone, each second: {before} to {after}");
    assert!(scene.directory.now().vms().all(|vm| vm.state == VmState::Up));
    one.stop().await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_that_does_not_start_where_it_went_is_down_there() {
    let (scene, one, other) = moving_scene();
    scene.until(|s| s.vms().len() == 4 && s.vms().all(|vm| vm.state == VmState::Up)).await;
    scene.set_actuator("a", Actuator::Fails);
    scene.move_a("h2");
    scene.until(|s| place_of_a(s) == Some(("h2".into(), VmState::Down))).await;
    one.stop().await;
    other.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_whose_move_is_called_off_after_it_was_stopped_is_started_again() {
    let (scene, one, other) = moving_scene();
    scene.until(|s| s.vms().len() == 4 && s.vms().all(|vm| vm.state == VmState::Up)).await;
    scene.move_a("h2");
    // The directory does not hear that it was stopped.
    let stopped = async {
        while scene.machines[0].runs.load(SeqCst) {
            scene.directory.fail(Operation::Command, ClientError::Failed { status: 503, message: "gone".into() });
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), stopped).await.expect("within a minute");
    assert_eq!(place_of_a(&scene.directory.now()), Some(("h1".into(), VmState::Draining)));
    scene.move_a("h1");
    let runs = async {
        while !scene.machines[0].runs.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), runs).await.expect("within a minute");
    assert_eq!(scene.diary(), [("stop a".into(), 0), ("start a".into(), 0)]);
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_failure_is_told_when_it_happens_and_what_the_vm_had_is_free_once_it_is_taken_back() {
    let scene = Scene::new(&["a", "b"]);
    let state_of_a = |snapshot: &Snapshot| Some(snapshot.vm(&"a".parse().unwrap())?.state);
    let hour = Duration::from_secs(3600);
    let settings = AgentSettings { interval: hour, ..AgentSettings::default() };
    let machines = scene.machines.iter().map(|machine| machine.clone() as Arc<dyn Machine>).collect();
    let agent = Agent::new("h1".parse().unwrap(), machines, Arc::new(scene.directory.clone())).with_settings(settings);
    let running = tokio::spawn(agent.run(std::future::pending()));
    scene.until(|snapshot| state_of_a(snapshot) == Some(VmState::Up)).await;
    scene.machines[0].fail();
    scene.until(|snapshot| state_of_a(snapshot) == Some(VmState::Down)).await;
    // Its host lowers it to its floor and says so; then a neighbour on the same host may have the rest.
    scene.propose(&[("b", 199)]);
    scene.until(|snapshot| applied(snapshot, "b").is_some_and(|rate| rate == 199)).await;
    let told = scene.diary.lock().unwrap().clone();
    let of = |vm: &str| told.iter().position(|(who, _)| who == vm).unwrap();
    assert!(of("a") < of("b"), "{told:?}");
    running.abort();
}

//! The loop on paused time, against a directory that fails on request.

use super::*;
use crate::testing::*;
use tokio::{sync::oneshot, task::JoinHandle, time::Instant};
use vibra_client::{FakeDirectory, Operation};
use vibra_model::{Resource, VmState};
use vibra_policy::Composition;

/// An allocator that runs until it is stopped, on a clock that follows tokio's.
struct Running {
    directory: FakeDirectory,
    log: Log,
    clock: Clock,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Core>,
}

fn start(directory: FakeDirectory, policies: Composition, log_file: Option<PathBuf>) -> Running {
    let began = Instant::now();
    let clock: Clock = Arc::new(move || Timestamp(1_000_000_000).after(began.elapsed()));
    let settings = Settings { log_file, clock: clock.clone(), ..Settings::default() };
    let allocator = Allocator::new(Arc::new(directory.clone()), Core::new(id("shop"), policies), settings);
    let (stop, stopped) = oneshot::channel();
    let log = allocator.log();
    let task = tokio::spawn(allocator.run(async { drop(stopped.await) }));
    Running { directory, log, clock, stop, task }
}

impl Running {
    /// The VMs tell what they send, now.
    fn report(&self, hot: u64, cold: u64) {
        let report = report((self.clock)(), &[("hot", hot), ("cold", cold)]);
        self.directory.run(Command::Report(report)).unwrap();
    }

    /// Waits for a decision that is as wanted, and returns the first.
    async fn until(&self, what: &str, wanted: impl Fn(&Entry) -> bool) -> Arc<Entry> {
        let began = Instant::now();
        loop {
            if let Some(found) = self.log.recent().iter().find(|entry| wanted(entry)) {
                return found.clone();
            }
            assert!(began.elapsed() < Duration::from_secs(300), "no decision {what}: {:#?}", self.log.recent());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn finish(self) -> Core {
        self.stop.send(()).unwrap();
        timeout(Duration::from_secs(60), self.task).await.expect("it stops").unwrap()
    }
}

fn accepted(entry: &Entry) -> bool {
    matches!(entry.outcome, Outcome::Accepted { .. })
}

#[tokio::test(start_paused = true)]
async fn bandwidth_follows_the_demand_and_is_counted() {
    let running = start(directory(), proportional(), None);
    running.report(900, 100);
    let entry = running.until("accepted", accepted).await;
    assert_eq!(desired(&running.directory.now(), "hot"), 900);
    assert_eq!((entry.inputs.vms, entry.inputs.measured), (2, 2));
    assert_eq!(running.log.summary().moved(Resource::Bandwidth), 400);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn it_decides_once_an_interval_and_pauses_without_usage() {
    let running = start(directory(), proportional(), None);
    running.report(500, 500);
    tokio::time::sleep(INTERVAL * 20).await;
    let entries = running.log.recent();
    let gaps: Vec<_> = entries.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect();
    assert!(gaps.len() >= 18 && gaps.iter().all(|gap| *gap >= INTERVAL - SECOND / 100), "{gaps:?}");
    let outcomes: Vec<_> = entries.iter().map(|entry| &entry.outcome).collect();
    assert!(matches!(outcomes[..2], [Outcome::Nothing, Outcome::Nothing]), "{outcomes:?}");
    assert!(outcomes[5..].iter().all(|outcome| matches!(outcome, Outcome::Held { .. })), "{outcomes:?}");
    running.report(900, 100);
    running.until("accepted", accepted).await;
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_stale_plan_is_decided_anew_at_once() {
    let directory = directory();
    let running = start(directory.clone(), proportional(), None);
    running.until("at the start", |_| true).await;
    // The follower does not hear of what another proposer changes.
    directory.hold_watches();
    let other = Command::Propose(single(directory.now().revision(), "cold", 400).proposal());
    directory.run(other).unwrap();
    running.report(900, 100);
    let stale = running.until("stale", |entry| matches!(entry.outcome, Outcome::Stale { .. })).await;
    let anew = running.until("accepted", accepted).await;
    assert_eq!((anew.id, anew.at), (stale.id + 1, stale.at));
    assert_eq!((desired(&directory.now(), "hot"), desired(&directory.now(), "cold")), (900, 100));
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_kept_and_overcome() {
    let directory = directory();
    let broken = || ClientError::Failed { status: 503, message: "busy".into() };
    directory.fail(Operation::Usage, broken());
    directory.fail(Operation::Command, broken());
    let running = start(directory, proportional(), None);
    let failed = |nth: u64| move |entry: &Entry| entry.id >= nth && matches!(entry.outcome, Outcome::Failed { .. });
    let first = running.until("without usage", failed(1)).await;
    running.report(900, 100);
    running.until("without answer", failed(first.id + 1)).await;
    running.report(900, 100);
    running.until("accepted", accepted).await;
    assert_eq!((running.log.summary().failed, running.log.summary().accepted), (2, 1));
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_directory_that_is_gone_changes_nothing() {
    let directory = directory();
    for _ in 0..6 {
        directory.fail(Operation::Snapshot, ClientError::Failed { status: 503, message: "starting".into() });
    }
    let running = start(directory, proportional(), None);
    running.until("held", |entry| matches!(&entry.outcome, Outcome::Held { why } if why.contains("starting"))).await;
    assert!(running.directory.commands().is_empty());
    running.report(900, 100);
    running.until("accepted", accepted).await;
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_panics_or_plans_badly_does_no_harm() {
    let panics = scripted(|_| panic!("oh"));
    let plans_badly = scripted(|view| single(view.snapshot().revision(), "hot", 5));
    for (policies, expected) in [(panics, (1, 0)), (plans_badly, (0, 1))] {
        let running = start(directory(), policies, None);
        running.report(900, 100);
        running.until("made", |_| true).await;
        let summary = running.log.summary();
        assert_eq!((summary.alarms, summary.refused), expected);
        assert!(running.directory.commands().is_empty());
        running.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_decision_is_a_line_of_the_log_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decisions.jsonl");
    let running = start(directory(), proportional(), Some(path.clone()));
    running.report(900, 100);
    running.until("second", |entry| entry.id == 2).await;
    let log = running.log.clone();
    running.finish().await;
    let text = std::fs::read_to_string(&path).unwrap();
    let read: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kept: Vec<Entry> = log.recent().iter().map(|entry| (**entry).clone()).collect();
    assert_eq!(read, kept);
    assert_eq!(log.summary().lost_lines, 0);
}

#[tokio::test(start_paused = true)]
async fn a_log_file_that_cannot_be_written_is_noticed_and_does_not_stop_it() {
    let folder = tempfile::tempdir().unwrap();
    let running = start(directory(), proportional(), Some(folder.path().to_owned()));
    running.report(900, 100);
    running.until("accepted", accepted).await;
    let log = running.log.clone();
    running.finish().await;
    assert_eq!(log.summary().lost_lines, log.summary().decisions);
}

#[tokio::test(start_paused = true)]
async fn it_stops_and_hands_its_state_over() {
    let running = start(directory(), proportional(), None);
    running.report(900, 100);
    running.until("accepted", accepted).await;
    let state = running.finish().await.save();
    let demand = &state["bandwidth:proportional"]["policy"]["hot"]["demand"];
    assert_eq!(demand.as_f64(), Some(900.0), "{state}");
}

/// A policy that once plans these moves of hot and cold.
fn moves_once(steps: &'static [(&'static str, &'static str, &'static str)]) -> Composition {
    let mut planned = false;
    let decide = move |view: &vibra_policy::View<'_>| {
        let moves = if std::mem::replace(&mut planned, true) { &[][..] } else { steps };
        let step = |&(vm, from, to): &(&str, &str, &str)| vibra_model::Move {
            vm: id(vm),
            from: id(from),
            to: id(to),
            reason: vibra_model::Reason::new("test"),
        };
        let moves = moves.iter().map(step).collect();
        Plan { base: view.snapshot().revision(), moves, ..Plan::default() }
    };
    Composition::new(vec![Box::new(MayMove(Scripted(decide)))]).unwrap()
}

/// A policy that may move VMs.
struct MayMove<P>(P);

impl<P: vibra_policy::Policy> vibra_policy::Policy for MayMove<P> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn resource(&self) -> Resource {
        self.0.resource()
    }

    fn moves(&self) -> bool {
        true
    }

    fn decide(&mut self, view: &vibra_policy::View<'_>, now: Timestamp) -> Plan {
        self.0.decide(view, now)
    }
}

/// [`directory`] with a second host "i", which is in one pool with h if any is named.
fn two_hosts(pool: Option<&str>) -> FakeDirectory {
    let directory = directory();
    let host = vibra_model::HostSpec { id: id("i"), capacity: vibra_model::Resources::NONE };
    directory.run(Command::PutHost(host)).unwrap();
    for host in ["h", "i"] {
        let report = vibra_model::UsageReport { host: id(host), vms: Vec::new() };
        directory.run(Command::Report(report)).unwrap();
        if let Some(pool) = pool {
            directory.run(Command::JoinPool { host: id(host), pool: id(pool) }).unwrap();
        }
    }
    directory
}

/// The host says so of a VM.
fn say(directory: &FakeDirectory, host: &str, vm: &str, state: vibra_model::VmState) {
    let told = vibra_model::VmReport { vm: id(vm), usage: None, applied: None, level: None, state: Some(state) };
    directory.run(Command::Report(vibra_model::UsageReport { host: id(host), vms: vec![told] })).unwrap();
}

/// How far the moves are, as the log has it.
fn stages(log: &Log) -> Vec<(String, Stage)> {
    let stage = |entry: &Arc<Entry>| match &entry.outcome {
        Outcome::Move { vm, stage, .. } => Some((vm.to_string(), stage.clone())),
        _ => None,
    };
    log.recent().iter().filter_map(stage).collect()
}

#[tokio::test(start_paused = true)]
async fn moves_are_made_one_after_another_each_once_the_one_before_is_done() {
    use vibra_model::VmState::{Down, Up};
    let running = start(two_hosts(Some("here")), moves_once(&[("hot", "h", "i"), ("cold", "h", "i")]), None);
    let directory = running.directory.clone();
    running.report(500, 500);
    for vm in ["hot", "cold"] {
        let other = if vm == "hot" { "cold" } else { "hot" };
        running.until("that begins a move", |entry| {
            matches!(&entry.outcome, Outcome::Move { vm: moved, stage: Stage::Begun, .. } if moved.as_str() == vm)
        }).await;
        let is_moving = || directory.now().vm(&id(vm)).unwrap().moving.is_some();
        while !is_moving() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(directory.now().vm(&id(other)).unwrap().moving.is_none(), "one at a time");
        say(&directory, "h", vm, Down);
        tokio::time::sleep(SECOND).await;
        say(&directory, "i", vm, Up);
    }
    running.until("that ends the last move", |entry| {
        matches!(&entry.outcome, Outcome::Move { vm, stage: Stage::Done { .. }, .. } if vm.as_str() == "cold")
    }).await;
    let stages = stages(&running.log);
    assert_eq!(stages.iter().map(|(vm, _)| vm.as_str()).collect::<Vec<_>>(), ["hot", "hot", "cold", "cold"]);
    assert!(matches!(stages[1].1, Stage::Done { took_ms } if took_ms >= 1000), "{stages:?}");
    assert_eq!(running.log.summary().moves, 2);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_move_that_fails_stops_the_rest_and_says_so() {
    let running = start(two_hosts(Some("here")), moves_once(&[("hot", "h", "i"), ("cold", "h", "i")]), None);
    running.report(500, 500);
    let failed = |entry: &Entry| matches!(&entry.outcome, Outcome::Move { stage: Stage::Failed { .. }, .. });
    // No host ever says that the VM is down: after a minute it stays where it is.
    running.until("that a move failed", failed).await;
    let stages = stages(&running.log);
    let [(_, Stage::Begun), (vm, Stage::Failed { why, left_out })] = &stages[..] else { panic!("{stages:?}") };
    assert_eq!((vm.as_str(), *left_out), ("hot", 1));
    assert!(why.contains("called off"), "{why}");
    assert_eq!(running.directory.now().moving().count(), 0);
    assert_eq!(running.log.summary().failed_moves, 1);
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn moves_that_no_agents_can_make_are_refused_before_anything_starts() {
    let running = start(two_hosts(None), moves_once(&[("hot", "h", "i"), ("cold", "h", "i")]), None);
    running.report(500, 500);
    running.until("that no move is made", |entry| matches!(entry.outcome, Outcome::Move { .. })).await;
    let stages = stages(&running.log);
    let [(_, Stage::Failed { why, left_out: 1 })] = &stages[..] else { panic!("{stages:?}") };
    assert!(why.contains("no move is begun") && why.contains("cannot take over"), "{why}");
    let asked = running.directory.commands();
    assert!(asked.iter().all(|command| !matches!(command, Command::MoveVm { .. })), "{asked:?}");
    running.finish().await;
}

#[tokio::test(start_paused = true)]
async fn an_allocator_that_stops_waits_for_no_move() {
    let running = start(two_hosts(Some("here")), moves_once(&[("hot", "h", "i")]), None);
    running.report(500, 500);
    running.until("that begins a move", |entry| matches!(entry.outcome, Outcome::Move { .. })).await;
    let began = Instant::now();
    let log = running.log.clone();
    running.finish().await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let stages = stages(&log);
    assert!(matches!(&stages[1].1, Stage::Failed { why, .. } if why.contains("the allocator stops")), "{stages:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_acted_on_at_once_and_so_is_a_return() {
    let takeover = serde_json::json!({ "takeover": { "warm_up": "0s" } });
    let policy = vibra_policy::Policies::shipped().build("static", Resource::Bandwidth, takeover).unwrap();
    let running = start(directory(), Composition::new(vec![policy]).unwrap(), None);
    running.report(10, 10);
    running.until("with usage", |entry| entry.outcome == Outcome::Nothing).await;
    for (state, shares) in [(VmState::Down, [10, 990]), (VmState::Up, [500, 500]), (VmState::Down, [10, 990])] {
        let began = Instant::now();
        running.directory.run(Command::SetVmState { vm: id("hot"), state }).unwrap();
        while ["hot", "cold"].map(|vm| desired(&running.directory.now(), vm)) != shares {
            assert!(began.elapsed() < INTERVAL / 2, "{shares:?} at the next interval is too late");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    running.finish().await;
}

//! What was acknowledged survives `kill -9`.
//!
//! The test runs itself again as a server process ([`serve`]), puts it under load, kills it at random points, starts it
//! again, and looks for every change that was acknowledged.

mod support;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::BTreeMap,
    env, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command as Program, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use support::*;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use vibra_client::{ClientError, Directory, HttpDirectory};
use vibra_model::*;
use vibra_server::Server;
use vibra_store::RedbStore;

/// Where the server process keeps its store; without it [`serve`] does nothing.
const FOLDER: &str = "VIBRA_CRASH_TEST_FOLDER";
/// How often the server is killed.
const CRASHES: usize = 12;
/// How many work on it at the same time; each has a customer of its own.
const WORKERS: usize = 6;
/// The most VMs that one of them registers.
const MOST_VMS: usize = 6;

/// The server process. Run as a test of its own it has nothing to do.
#[test]
fn serve() {
    let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Arc::new(RedbStore::open(folder.join("directory.redb")).unwrap());
        let mut server = Server::start(config(store)).await.unwrap();
        // Renamed into place, so that nobody reads half of it.
        fs::write(folder.join("address.new"), server.address().to_string()).unwrap();
        fs::rename(folder.join("address.new"), folder.join("address")).unwrap();
        panic!("{}", server.failed().await);
    });
}

/// A server process; it is killed when this is dropped.
struct Process(Child);

impl Process {
    async fn start(folder: &Path) -> (Self, SocketAddr) {
        let address = folder.join("address");
        let _ = fs::remove_file(&address);
        let child = Program::new(env::current_exe().unwrap())
            .args(["serve", "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut process = Process(child);
        let end = Instant::now() + PATIENCE;
        loop {
            if let Ok(text) = fs::read_to_string(&address) {
                return (process, text.parse().unwrap());
            }
            assert_eq!(process.0.try_wait().unwrap(), None, "the server ended before it listened");
            assert!(Instant::now() < end, "the server does not listen");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a VM has: its state and its bandwidth.
type Vms = BTreeMap<String, (VmState, u64)>;

/// One who works on the directory, and what he knows of it. All of it concerns his own customer.
#[derive(Debug)]
struct Worker {
    customer: String,
    /// His VMs, as last acknowledged.
    known: Vms,
    /// What he last asked for without getting an answer: it may have happened, whole, or not.
    open: Option<Vms>,
    /// The newest revision that was acknowledged to him.
    revision: Revision,
    /// How many VMs he ever asked to register.
    registered: u32,
    random: ChaCha8Rng,
}

impl Worker {
    fn new(number: usize, seed: u64) -> Self {
        Worker {
            customer: format!("customer-{number}"),
            known: Vms::new(),
            open: None,
            revision: Revision(0),
            registered: 0,
            random: ChaCha8Rng::seed_from_u64(seed.wrapping_add(number as u64)),
        }
    }

    /// A command, with what the VMs have once it has happened.
    fn next(&mut self) -> (Command, Vms) {
        let mut after = self.known.clone();
        let dice = self.random.random_range(0..10);
        let command = match dice {
            _ if after.len() < 2 => self.register(&mut after),
            0 if after.len() < MOST_VMS => self.register(&mut after),
            1 => {
                let (name, _) = after.pop_first().unwrap();
                Command::RemoveVm(id(&name))
            }
            2 | 3 => self.set_state(&mut after),
            _ => self.propose(&mut after),
        };
        (command, after)
    }

    fn register(&mut self, after: &mut Vms) -> Command {
        self.registered += 1;
        let name = format!("{}-vm-{}", self.customer, self.registered);
        after.insert(name.clone(), (VmState::Starting, 10));
        Command::PutVm(vm(&name, &self.customer, "h1", self.registered))
    }

    /// A VM that goes down falls back to its floor with it: two things that must not be told apart by a crash.
    fn set_state(&mut self, after: &mut Vms) -> Command {
        let states = [VmState::Up, VmState::Warming, VmState::Draining, VmState::Down];
        let state = states[self.random.random_range(0..states.len())];
        let (name, has) = after.iter_mut().nth(self.random.random_range(0..2)).unwrap();
        *has = (state, if state == VmState::Down { 1 } else { has.1 });
        Command::SetVmState { vm: id(name), state }
    }

    /// One batch for all VMs that may have more than their floor.
    fn propose(&mut self, after: &mut Vms) -> Command {
        let mut changes = Vec::new();
        for (name, (_, rate)) in after.iter_mut().filter(|(_, (state, _))| *state != VmState::Down) {
            *rate = self.random.random_range(1..100);
            changes.push(change(name, *rate));
        }
        Command::Propose(Proposal { base: self.revision, changes })
    }

    /// Works until the server is gone; each acknowledgement is a permit more.
    async fn work(mut self, directory: HttpDirectory, acknowledged: Arc<Semaphore>) -> Self {
        loop {
            let (command, after) = self.next();
            match directory.command(command.clone()).await {
                Ok(accepted) => {
                    assert!(accepted.revision >= self.revision, "{command:?}");
                    self.known = after;
                    self.revision = accepted.revision;
                    acknowledged.add_permits(1);
                }
                Err(ClientError::Unreachable { .. } | ClientError::Silent { .. }) => {
                    self.open = Some(after);
                    return self;
                }
                Err(error) => panic!("{error:?} to {command:?}"),
            }
        }
    }

    /// Holds a directory that was started again against what was acknowledged.
    fn check(&mut self, snapshot: &Snapshot) {
        let customer = id(&self.customer);
        let vms = snapshot.vms_of(&customer);
        let found: Vms =
            vms.map(|vm| (vm.id.to_string(), (vm.state, vm.desired(Resource::Bandwidth).unwrap()))).collect();
        let open = self.open.take();
        assert!(found == self.known || Some(&found) == open.as_ref(), "found {found:?}, but {self:?} or {open:?}");
        assert!(snapshot.revision() >= self.revision, "{} is older than {self:?}", snapshot.revision());
        self.known = found;
        self.revision = snapshot.revision();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_change_survives_kill_9() {
    let seed: u64 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    println!("seed {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::TempDir::new().unwrap();
    let mut workers: Vec<_> = (0..WORKERS).map(|number| Worker::new(number, seed)).collect();
    let (mut process, mut address) = Process::start(folder.path()).await;
    let directory = |address: SocketAddr| HttpDirectory::new(&address.to_string(), "operator").unwrap();
    directory(address).command(Command::PutHost(host("h1"))).await.unwrap();
    for worker in &workers {
        directory(address).command(Command::PutCustomer(customer(&worker.customer, 1000))).await.unwrap();
    }
    for _ in 0..CRASHES {
        let acknowledged = Arc::new(Semaphore::new(0));
        let begin = |worker: Worker| tokio::spawn(worker.work(directory(address), acknowledged.clone()));
        let working: Vec<_> = workers.drain(..).map(begin).collect();
        // So many changes, and then anywhere in the next: a commit takes some ms.
        let changes = acknowledged.acquire_many(random.random_range(1..200));
        drop(timeout(PATIENCE, changes).await.expect("the server does its work").unwrap());
        sleep(Duration::from_micros(random.random_range(0..10_000))).await;
        drop(process);
        for worker in working {
            workers.push(worker.await.unwrap());
        }
        (process, address) = Process::start(folder.path()).await;
        let snapshot = directory(address).snapshot().await.unwrap();
        workers.iter_mut().for_each(|worker| worker.check(&snapshot));
    }
}

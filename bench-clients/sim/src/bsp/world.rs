//! Programs on hosts, from start to end.

use super::{
    Program,
    credit::{Credit, Debits, ENDLESS, TICK, Vcpu},
    directory::{Directory, host_number, micros, vm_id},
};
use crate::Queue;
use std::{collections::BTreeSet, fmt, time::Duration};
use vibra_model::{MilliCpu, Move, Timestamp, UsageSample, UsageWindow, VmId};
use vibra_policy::Policy;

/// The time between samples of a VM: agents report every second.
const SAMPLE: Duration = Duration::from_secs(1);

/// A cluster and what runs on it.
#[derive(Debug)]
pub struct Setup<'a> {
    /// How many hosts, each with one CPU.
    pub hosts: usize,
    /// What may be given away of each host, the background's part included: 1 CPU; more where it is overbooked.
    pub capacity: MilliCpu,
    /// The weight of a program on each host that never rests and is never moved; 0: none.
    pub background: MilliCpu,
    /// What runs. All begin at once.
    pub programs: Vec<Program>,
    /// Who redistributes shares; nobody if `None`.
    pub exchange: Option<Exchange<'a>>,
    /// How long a VM migrates.
    pub migration: Duration,
    /// How many VMs may migrate at once.
    pub concurrent: usize,
    /// How hosts count what VMs ran.
    pub debits: Debits,
}

/// The policy that each program has.
pub struct Exchange<'a> {
    /// T: the time between decisions; whole seconds.
    pub every: Duration,
    /// Makes the policy of one program.
    pub policy: &'a dyn Fn() -> Box<dyn Policy>,
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("every", &self.every).finish_non_exhaustive()
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// How long each program took.
    pub responses: Vec<Duration>,
    /// What VMs had at first and after each exchange until the first program ended.
    pub shares: Vec<Shares>,
    /// The migrations, in order.
    pub migrations: Vec<Migrated>,
    /// The CPU time that programs used until the last one ended, as a part of all that there was.
    pub utilisation: f64,
}

/// What VMs shall have at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// When.
    pub at: Timestamp,
    /// Of each program, of each node.
    pub of: Vec<Vec<MilliCpu>>,
}

/// A migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// When the VM was there.
    pub at: Timestamp,
    /// The VM's program and node.
    pub vm: (usize, usize),
    /// The numbers of the hosts.
    pub from: usize,
    /// Where it went.
    pub to: usize,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Tick,
    Sample,
    /// Work is done or a turn ends on a host, unless something else happened there since.
    Cpu {
        host: usize,
        change: u64,
    },
    Arrival {
        vm: usize,
        to: usize,
    },
}

/// A node of a program.
struct Node {
    program: usize,
    node: usize,
    id: VmId,
    host: usize,
    /// How many iterations it has done.
    done: u32,
    waits: bool,
    /// Whose message woke it up last since the last sample.
    upstream: Option<u32>,
    /// The CPU time that it had used at the last sample.
    sampled: u64,
}

struct World<'a> {
    setup: Setup<'a>,
    queue: Queue<Event>,
    hosts: Vec<Host>,
    nodes: Vec<Node>,
    /// The number of each program's first node.
    first: Vec<usize>,
    /// Of each program, whose messages each node waits for, and who waits for its.
    senders: Vec<Vec<Vec<usize>>>,
    receivers: Vec<Vec<Vec<usize>>>,
    directory: Directory,
    usage: UsageWindow,
    samples: u64,
    migrating: BTreeSet<usize>,
    ended: Vec<Option<Timestamp>>,
    shares: Vec<Shares>,
    migrations: Vec<Migrated>,
}

struct Host {
    cpu: Credit,
    changes: u64,
}

/// Runs all programs to their ends.
///
/// # Panics
/// If a program does not name a host and a share for each of its nodes, if shares do not fit the hosts, or if a policy's
/// plan breaks a rule.
pub fn run(setup: Setup<'_>) -> Outcome {
    let mut world = World::new(setup);
    while world.ended.iter().any(Option::is_none) {
        let Some(event) = world.queue.next() else { break };
        world.happen(event);
    }
    world.outcome()
}

impl<'a> World<'a> {
    fn new(setup: Setup<'a>) -> Self {
        let mut directory = Directory::new(setup.hosts, setup.capacity);
        let (mut nodes, mut first) = (Vec::new(), Vec::new());
        if setup.background.0 > 0 {
            directory.admit(BACKGROUND, &background(&setup), None);
        }
        for (number, program) in setup.programs.iter().enumerate() {
            directory.admit(number, program, setup.exchange.as_ref());
            first.push(nodes.len());
            nodes.extend(program.hosts.iter().enumerate().map(|(node, &host)| Node::new((number, node), host)));
        }
        let mut world = World {
            queue: Queue::default(),
            hosts: (0..setup.hosts).map(|_| Host { cpu: Credit::new(setup.debits), changes: 0 }).collect(),
            senders: setup.programs.iter().map(|program| program.topology.senders()).collect(),
            receivers: setup.programs.iter().map(|program| program.topology.receivers()).collect(),
            ended: vec![None; setup.programs.len()],
            setup,
            nodes,
            first,
            directory,
            usage: UsageWindow::default(),
            samples: 0,
            migrating: BTreeSet::new(),
            shares: Vec::new(),
            migrations: Vec::new(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for host in 0..self.hosts.len() {
            if self.setup.background.0 > 0 {
                let number = self.nodes.len() + host;
                self.hosts[host].cpu.insert(number, Vcpu::new(self.setup.background.0), 0);
                self.hosts[host].cpu.give(number, ENDLESS, 0);
            }
        }
        for vm in 0..self.nodes.len() {
            let weight = self.directory.share(&self.nodes[vm].id).unwrap_or(0);
            let (host, work) = (self.nodes[vm].host, self.work(vm));
            self.hosts[host].cpu.insert(vm, Vcpu::new(weight.max(1)), 0);
            self.hosts[host].cpu.give(vm, work, 0);
        }
        (0..self.hosts.len()).for_each(|host| self.arm(host));
        self.note_shares();
        self.queue.schedule(Timestamp(TICK), Event::Tick);
        if self.setup.exchange.is_some() {
            self.queue.schedule(Timestamp::ZERO.after(SAMPLE), Event::Sample);
        }
    }

    /// The CPU time that a node takes an iteration, in microseconds.
    fn work(&self, vm: usize) -> u64 {
        let Node { program, node, .. } = self.nodes[vm];
        micros(self.setup.programs[program].work[node]).max(1)
    }

    fn now(&self) -> u64 {
        self.queue.now().0
    }

    fn happen(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Tick => {
                self.hosts.iter_mut().for_each(|host| host.cpu.tick(now));
                self.queue.schedule(Timestamp(now + TICK), Event::Tick);
            }
            Event::Cpu { host, change } if self.hosts[host].changes == change => {
                if let Some(vm) = self.hosts[host].cpu.advance(now) {
                    self.complete(vm);
                }
                self.arm(host);
            }
            Event::Cpu { .. } => {}
            Event::Sample => {
                self.sample();
                self.queue.schedule(Timestamp(now).after(SAMPLE), Event::Sample);
            }
            Event::Arrival { vm, to } => self.arrive(vm, to),
        }
    }

    /// Has the next change of a host's CPU happen.
    fn arm(&mut self, host: usize) {
        let host_state = &mut self.hosts[host];
        host_state.changes += 1;
        let change = host_state.changes;
        if let Some(at) = host_state.cpu.next_change() {
            self.queue.schedule(Timestamp(at), Event::Cpu { host, change });
        }
    }

    /// A node has done an iteration: it goes on, waits for a message, or was the last of its program.
    fn complete(&mut self, vm: usize) {
        let now = self.now();
        let Node { program, node, host, .. } = self.nodes[vm];
        self.nodes[vm].done += 1;
        let iterations = self.setup.programs[program].iterations;
        if self.nodes[vm].done == iterations || !self.may_go_on(vm) {
            self.nodes[vm].waits = self.nodes[vm].done < iterations;
            self.hosts[host].cpu.block(vm, now);
        } else {
            let work = self.work(vm);
            self.hosts[host].cpu.give(vm, work, now);
        }
        for i in 0..self.receivers[program][node].len() {
            let other = self.first[program] + self.receivers[program][node][i];
            if self.nodes[other].waits && self.may_go_on(other) {
                self.wake(other, node);
            }
        }
        let nodes = self.senders[program].len();
        let own = &self.nodes[self.first[program]..][..nodes];
        if own.iter().all(|node| node.done == iterations) {
            self.ended[program] = Some(self.queue.now());
            self.directory.dismiss(program, nodes);
        }
    }

    /// Whether all whose messages a node waits for have done as many iterations as this one.
    fn may_go_on(&self, vm: usize) -> bool {
        let Node { program, node, done, .. } = self.nodes[vm];
        let first = self.first[program];
        self.senders[program][node].iter().all(|other| self.nodes[first + other].done >= done)
    }

    /// The message of node `from` of the same program wakes a node up.
    fn wake(&mut self, vm: usize, from: usize) {
        let (now, work, host) = (self.now(), self.work(vm), self.nodes[vm].host);
        self.nodes[vm].waits = false;
        self.nodes[vm].upstream = Some(from as u32);
        self.hosts[host].cpu.give(vm, work, now);
        self.arm(host);
    }

    /// Measures every VM; when it is time, shares are exchanged.
    fn sample(&mut self) {
        let now = self.now();
        for vm in 0..self.nodes.len() {
            let node = &mut self.nodes[vm];
            if self.ended[node.program].is_some() {
                continue;
            }
            let used = self.hosts[node.host].cpu.used(vm, now);
            let sample = UsageSample {
                at: Timestamp(now),
                cpu_time: Some(Duration::from_micros(used - node.sampled)),
                interval: Some(SAMPLE),
                upstream: node.upstream.take(),
                ..UsageSample::default()
            };
            node.sampled = used;
            self.usage.0.entry(node.id.clone()).or_default().push(sample);
        }
        self.samples += 1;
        let every = self.setup.exchange.as_ref().map(|exchange| exchange.every.as_secs().max(1));
        if every.is_some_and(|every| self.samples.is_multiple_of(every)) {
            self.exchange();
        }
    }

    fn exchange(&mut self) {
        let usage = std::mem::take(&mut self.usage);
        let free = self.setup.concurrent - self.migrating.len();
        // What is too much at once is decided on anew when others are there.
        let (nodes, migrating) = (&self.nodes, &self.migrating);
        let number = |id: &VmId| nodes.iter().position(|node| node.id == *id).expect("a node of the program");
        let begins = |step: &Move, begun: usize| begun < free && !migrating.contains(&number(&step.vm));
        let moves = self.directory.exchange(&usage, self.queue.now(), begins);
        let begun: Vec<_> = moves.iter().map(|step| (number(&step.vm), host_number(&step.to))).collect();
        for vm in 0..self.nodes.len() {
            if let Some(share) = self.directory.share(&self.nodes[vm].id) {
                self.hosts[self.nodes[vm].host].cpu.set_weight(vm, share);
            }
        }
        self.note_shares();
        let arrives = self.queue.now().after(self.setup.migration);
        for (vm, to) in begun {
            self.migrating.insert(vm);
            self.queue.schedule(arrives, Event::Arrival { vm, to });
        }
    }

    fn arrive(&mut self, vm: usize, to: usize) {
        self.migrating.remove(&vm);
        let now = self.now();
        let from = std::mem::replace(&mut self.nodes[vm].host, to);
        if let Some(vcpu) = self.hosts[from].cpu.remove(vm, now) {
            self.hosts[to].cpu.insert(vm, vcpu, now);
        }
        self.arm(from);
        self.arm(to);
        let Node { program, node, .. } = self.nodes[vm];
        self.migrations.push(Migrated { at: self.queue.now(), vm: (program, node), from, to });
    }

    fn note_shares(&mut self) {
        if self.ended.iter().any(Option::is_some) {
            return;
        }
        let mut of = vec![Vec::new(); self.setup.programs.len()];
        for node in &self.nodes {
            of[node.program].push(MilliCpu(self.directory.share(&node.id).unwrap_or(0)));
        }
        self.shares.push(Shares { at: self.queue.now(), of });
    }

    fn outcome(mut self) -> Outcome {
        let now = self.now();
        let used: u64 = (0..self.nodes.len()).map(|vm| self.hosts[self.nodes[vm].host].cpu.used(vm, now)).sum();
        let utilisation = used as f64 / (now.max(1) as f64 * self.hosts.len() as f64);
        let responses = self.ended.iter().flatten().map(|at| at.since(Timestamp::ZERO)).collect();
        Outcome { responses, shares: self.shares, migrations: self.migrations, utilisation }
    }
}

/// The number by which the background is known to the directory.
const BACKGROUND: usize = 999;

/// The background as a program that is never run: the directory must know its shares.
fn background(setup: &Setup<'_>) -> Program {
    Program {
        topology: super::Topology::AllToAll(setup.hosts),
        work: Vec::new(),
        iterations: 0,
        shares: vec![setup.background; setup.hosts],
        hosts: (0..setup.hosts).collect(),
    }
}

impl Node {
    fn new((program, node): (usize, usize), host: usize) -> Self {
        let id = vm_id(program, node);
        Node { program, node, id, host, done: 0, waits: false, upstream: None, sampled: 0 }
    }
}

//! What happens on the testbed.

use super::{
    Fared, Testbed,
    memory::{CLUSTER, Memory},
    vm::{State, Thread, Vm},
};
use crate::{Queue, stream};
use rand_chacha::{ChaCha8Rng, rand_core::Rng};
use std::{collections::VecDeque, time::Duration};
use vibra_model::Timestamp;
use vibra_policy::fvm::{Finding, Fvm, Monitor, Observation, Police, PoliceParameters, Tick};

/// What happens to a VM, or to the host.
#[derive(Debug)]
enum Event {
    /// It has had the CPU for a tick.
    Computed(usize),
    /// Its pages are there.
    Paged(usize),
    /// This thread of it has its files.
    Filed(usize, Thread),
    /// It has slept enough.
    Woken(usize),
    /// The police looks.
    Patrol,
}

pub(super) struct World<'a> {
    testbed: &'a Testbed,
    queue: Queue<Event>,
    vms: Vec<Vm>,
    memory: Memory,
    /// VMs that wait for the CPU; the first one has it.
    cpu: VecDeque<usize>,
    /// Who had the CPU last.
    last: Option<usize>,
    /// When the disk is free.
    disk: Timestamp,
    police: Police,
    police_random: ChaCha8Rng,
    findings: Vec<Finding>,
}

impl<'a> World<'a> {
    pub(super) fn new(testbed: &'a Testbed, seed: u64) -> World<'a> {
        let parameters = testbed.parameters;
        let periods = parameters.window.as_secs_f64() / parameters.period.as_secs_f64();
        let vm = |number: usize| {
            // A VM with parameters that make no sense does not adapt.
            let fvm = Fvm::new(parameters).ok().filter(|_| number >= testbed.unfriendly);
            let id = format!("vm{}", number + 1).parse().unwrap_or_else(|_| unreachable!("a name and a number"));
            let watch = Monitor::new(parameters.gamma, periods.round().max(1.0) as usize);
            Vm::new(id, fvm, watch, testbed, stream(seed, number as u64 + 1))
        };
        let laws =
            PoliceParameters { rule: parameters.rule, threshold: parameters.threshold, ..PoliceParameters::default() };
        World {
            testbed,
            queue: Queue::default(),
            vms: (0..testbed.vms).map(vm).collect(),
            memory: Memory::new(testbed, testbed.ticks_of_a_unit()),
            cpu: VecDeque::new(),
            last: None,
            disk: Timestamp::ZERO,
            police: Police::new(laws),
            police_random: stream(seed, 0),
            findings: Vec::new(),
        }
    }

    pub(super) fn run(mut self) -> Fared {
        let end = Timestamp::ZERO.after(self.testbed.warm_up + self.testbed.length);
        for vm in 0..self.vms.len() {
            self.keep_to_limit(vm);
            self.go_on(vm);
        }
        self.queue.schedule(Timestamp::ZERO.after(self.testbed.parameters.period), Event::Patrol);
        while let Some(event) = self.queue.next() {
            if self.queue.now() > end {
                break;
            }
            match event {
                Event::Computed(vm) => self.computed(vm),
                Event::Paged(vm) => self.ticked(vm),
                Event::Filed(vm, thread) => self.filed(vm, thread),
                Event::Woken(vm) => {
                    self.vms[vm].state = State::Idle;
                    self.go_on(vm);
                }
                Event::Patrol => self.patrol(),
            }
        }
        let fared = self.vms.iter().map(|vm| vm.fared(self.testbed.length)).collect();
        Fared { vms: fared, findings: self.findings }
    }

    /// Has `vm` wait for the CPU, if it is idle and has a thread that is ready.
    fn go_on(&mut self, vm: usize) {
        let now = self.queue.now();
        let own = &mut self.vms[vm];
        if own.state != State::Idle || own.ready.is_empty() {
            return;
        }
        own.state = State::Busy;
        own.since = now;
        self.cpu.push_back(vm);
        if self.cpu.len() == 1 {
            self.compute();
        }
    }

    /// Gives the CPU to the first that waits.
    fn compute(&mut self) {
        let Some(&vm) = self.cpu.front() else { return };
        let switch = if self.last == Some(vm) { Duration::ZERO } else { self.testbed.switch };
        self.last = Some(vm);
        self.queue.schedule(self.queue.now().after(switch + self.testbed.tick), Event::Computed(vm));
    }

    /// The thread at the front of `vm` has computed for a tick, and touched a part of its memory.
    fn computed(&mut self, vm: usize) {
        self.cpu.pop_front();
        self.compute();
        let own = &mut self.vms[vm];
        let touch = |thread: &mut Thread| self.memory.touch(&mut thread.memory, thread.done);
        let faults = own.ready.front_mut().map_or(0.0, touch);
        // A part of an access is made as often as it is large.
        let accesses = (faults / CLUSTER + uniform(&mut own.random)).floor();
        if accesses < 1.0 {
            return self.ticked(vm);
        }
        self.disk = self.disk.max(self.queue.now()).after(self.testbed.access.mul_f64(accesses));
        self.queue.schedule(self.disk, Event::Paged(vm));
    }

    fn is_counted(&self) -> bool {
        self.queue.now() > Timestamp::ZERO.after(self.testbed.warm_up)
    }

    /// The clock of `vm` has advanced by a tick.
    fn ticked(&mut self, vm: usize) {
        let (now, counted) = (self.queue.now(), self.is_counted());
        let own = &mut self.vms[vm];
        own.state = State::Idle;
        let took = now.since(own.since);
        let in_use = Some(own.active());
        match &mut own.fvm {
            Some(fvm) => {
                let made = fvm.observe(now, Tick { took: Some(took), in_use });
                own.slowdown = made.map(|made| made.slowdown.ratio).or(own.slowdown);
            }
            None => own.watch.tick(took),
        }
        if counted {
            own.count_tick(took);
        }
        if let Some(Thread { done, memory }) = own.ready.pop_front() {
            if done + 1 < self.testbed.ticks_of_a_unit() {
                // The thread next to it goes first now.
                own.ready.push_back(Thread { done: done + 1, memory });
            } else {
                if counted {
                    own.count_unit();
                }
                own.waiting += 1;
                let wait = self.testbed.files.mul_f64(exponential(&mut own.random));
                self.queue.schedule(now.after(wait), Event::Filed(vm, Thread { done: 0, memory }));
            }
        }
        self.keep_to_limit(vm);
        let own = &mut self.vms[vm];
        match own.pause().map(|pause| own.since.after(pause)).filter(|until| *until > now) {
            Some(until) => {
                own.state = State::Asleep;
                self.queue.schedule(until, Event::Woken(vm));
            }
            None => self.go_on(vm),
        }
    }

    fn filed(&mut self, vm: usize, thread: Thread) {
        let own = &mut self.vms[vm];
        own.waiting -= 1;
        own.ready.push_back(thread);
        self.keep_to_limit(vm);
        self.go_on(vm);
    }

    /// Suspends threads of `vm` that are too many, and resumes threads where there may be more. Those that wait for files
    /// are suspended when they come back; the one that computes is never.
    fn keep_to_limit(&mut self, vm: usize) {
        let own = &mut self.vms[vm];
        let spared = usize::from(own.state == State::Busy);
        while own.active() > own.limit() && own.ready.len() > spared {
            let Some(mut thread) = own.ready.pop_back() else { return };
            self.memory.suspend(&mut thread.memory);
            own.suspended.push(thread);
        }
        while own.active() < own.limit() {
            if let Some(mut thread) = own.suspended.pop() {
                self.memory.resume(&mut thread.memory);
                own.ready.push_back(thread);
            } else if own.fresh > 0 {
                own.fresh -= 1;
                own.ready.push_back(Thread { done: 0, memory: self.memory.begin() });
            } else {
                return;
            }
        }
    }

    /// The host looks who backs off.
    fn patrol(&mut self) {
        let seen = self.vms.iter_mut().map(|vm| {
            let slowdown = vm.slowdown.take().or_else(|| vm.watch.close().map(|slowdown| slowdown.ratio));
            let (limit, usage) = (f64::from(vm.limit()), f64::from(vm.active()));
            (vm.id.clone(), Observation { limit, usage, slowdown })
        });
        let seen: Vec<_> = seen.collect();
        let random = &mut self.police_random;
        let found = self.police.observe(seen.iter().map(|(vm, seen)| (vm, *seen)), || uniform(random));
        self.findings.extend(found);
        self.queue.schedule(self.queue.now().after(self.testbed.parameters.period), Event::Patrol);
    }
}

/// From 0 up to but not including 1.
fn uniform(random: &mut impl Rng) -> f64 {
    (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// With mean 1.
fn exponential(random: &mut impl Rng) -> f64 {
    -(1.0 - uniform(random)).ln()
}

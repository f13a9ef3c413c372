//! One VM: its allocation, how it serves a request, and what its sensors say.

use super::{
    Nanos,
    catalogue::Arrival,
    egress::{Egress, Slot},
    hardware::Hardware,
    storage::{Access, Storage},
    tournament::NEVER,
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};
use vibra_model::{Amount, Bytes, BytesPerSec, Resources, Timestamp, UsageSample};

/// What is counted since the VM started.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    egress: u64,
    requests: u64,
    service: Nanos,
    cpu: Nanos,
    refused: u64,
}

/// What came from disk and what did not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Reads {
    pub(super) blocks: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
}

impl Reads {
    fn and(self, storage: &Storage) -> Reads {
        let (hits, misses) = storage.hits_and_misses();
        Reads { blocks: self.blocks + storage.blocks(), hits: self.hits + hits, misses: self.misses + misses }
    }
}

/// A VM that runs or does not.
#[derive(Debug, Clone)]
pub(super) struct Server {
    hardware: Hardware,
    /// What its actuators are set to.
    has: Resources,
    /// Whether its working set is measured, and over which time.
    window: Option<Duration>,
    /// The step of its timers.
    timer: Nanos,
    runs: bool,
    egress: Egress,
    storage: Storage,
    /// Requests that wait for CPU or disk, by when they are done with it; whether a thread reads for them meanwhile.
    ready: BinaryHeap<Reverse<(Nanos, Slot, bool)>>,
    /// Threads that read.
    reading: usize,
    /// Requests that wait for a thread.
    for_thread: VecDeque<Slot>,
    /// Requests beyond the multiprogramming level.
    admission: VecDeque<Slot>,
    in_service: usize,
    cpu_free_at: Nanos,
    counters: Counters,
    /// Of the lives before this one.
    reads: Reads,
    /// At the last sample, and when that was.
    sampled: Option<(Nanos, Counters, u64)>,
}

/// What becomes of a request that a VM was asked to serve, for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Its last byte has passed.
    Sent,
    /// It waits for its turn, the CPU or the disk: nothing of the answer has passed.
    Waits,
    /// Its answer waits for the shaper.
    Sending,
    /// The disk has too much to do.
    Refused,
}

impl Server {
    pub(super) fn new(hardware: &Hardware, has: Resources, window: Option<Duration>) -> Self {
        let egress = Egress::new(has.bandwidth, hardware.shaper, 0);
        let mut server = Server {
            hardware: hardware.clone(),
            has,
            window,
            timer: hardware.timer.as_nanos() as Nanos,
            runs: true,
            egress,
            storage: Storage::new(0, hardware.disk, window),
            ready: BinaryHeap::new(),
            reading: 0,
            for_thread: VecDeque::new(),
            admission: VecDeque::new(),
            in_service: 0,
            cpu_free_at: 0,
            counters: Counters::default(),
            reads: Reads::default(),
            sampled: None,
        };
        server.fit_memory();
        server
    }

    pub(super) fn runs(&self) -> bool {
        self.runs
    }

    /// What its actuators are set to.
    pub(super) fn has(&self) -> Resources {
        self.has
    }

    /// Fails, with everything that it was about.
    pub(super) fn stop(&mut self) {
        self.runs = false;
        self.ready.clear();
        self.for_thread.clear();
        self.admission.clear();
        (self.in_service, self.reading) = (0, 0);
    }

    /// Runs again, with a cold cache and this allocation.
    pub(super) fn start(&mut self, has: Resources, now: Nanos) {
        self.has = has;
        self.egress = Egress::new(self.has.bandwidth, self.hardware.shaper, now);
        self.reads = self.reads();
        self.storage = Storage::new(0, self.hardware.disk, self.window);
        (self.runs, self.cpu_free_at) = (true, now);
        (self.counters, self.sampled) = (Counters::default(), None);
        self.fit_memory();
    }

    pub(super) fn set(&mut self, amount: Amount, now: Nanos) {
        self.has.set(amount);
        match amount {
            Amount::Bandwidth(rate) => self.egress.set_rate(Some(rate), now),
            Amount::Memory(_) => self.fit_memory(),
            // What is under way has its end; what follows takes longer or shorter.
            Amount::Cpu(_) => {}
        }
    }

    /// Stands still for so long.
    pub(super) fn stand_still(&mut self, time: Nanos, now: Nanos) {
        self.egress.stand_still(time, now);
        self.cpu_free_at = self.cpu_free_at.max(now) + time;
    }

    /// The memory for the cache is what the others leave of it.
    fn fit_memory(&mut self) {
        // Without an allocation of memory everything fits.
        let Some(Bytes(memory)) = self.has.memory else { return self.storage.set_capacity(u64::MAX) };
        let room = memory.saturating_sub(self.hardware.overhead.0);
        let in_service = self.hardware.per_request.0.saturating_mul(self.in_service as u64);
        self.storage.set_capacity(room.saturating_sub(in_service));
        let over = in_service as f64 / room.max(1) as f64 - 1.0;
        self.storage.slowdown = 1.0 + self.hardware.thrash * over.max(0.0);
    }

    fn in_service_changed(&mut self) {
        if self.hardware.per_request > Bytes::ZERO {
            self.fit_memory();
        }
    }

    /// Takes on the request of this slot, of an object of this size.
    #[inline]
    pub(super) fn take_on(&mut self, slot: Slot, request: &Arrival, size: u64, now: Nanos) -> Progress {
        if self.hardware.mpl.is_some_and(|most| self.in_service >= most) {
            self.admission.push_back(slot);
            return Progress::Waits;
        }
        self.begin(slot, request, size, now)
    }

    /// Who is next, if there is room for somebody.
    pub(super) fn admit(&mut self) -> Option<Slot> {
        if self.hardware.mpl.is_some_and(|most| self.in_service >= most) {
            return None;
        }
        self.admission.pop_front()
    }

    /// Begins to serve a request. CPU and disk serve in the order of coming, so that when they are done is known now.
    pub(super) fn begin(&mut self, slot: Slot, request: &Arrival, size: u64, now: Nanos) -> Progress {
        self.in_service += 1;
        self.in_service_changed();
        let computed = self.compute(request, now);
        if request.reads && !self.has_thread() {
            self.for_thread.push_back(slot);
            return Progress::Waits;
        }
        self.look_up(slot, request, size, (computed, now))
    }

    fn has_thread(&self) -> bool {
        self.hardware.threads.is_none_or(|most| self.reading < most)
    }

    /// Who is next to get a thread, if there is one.
    pub(super) fn next_reader(&mut self) -> Option<Slot> {
        if self.has_thread() { self.for_thread.pop_front() } else { None }
    }

    /// Has a request, for which there is a thread, get its data once it is `computed`.
    pub(super) fn look_up(
        &mut self,
        slot: Slot,
        request: &Arrival,
        size: u64,
        (computed, now): (Nanos, Nanos),
    ) -> Progress {
        let read = if request.reads { self.storage.access(request.object, size, computed) } else { Access::Now };
        let (at, reads) = match read {
            Access::Now => (computed, false),
            Access::At(end) => (self.at_tick(end), true),
            Access::Refused => {
                self.counters.refused += 1;
                return Progress::Refused;
            }
        };
        if at <= now {
            return self.send(slot, request, now);
        }
        self.reading += usize::from(reads);
        self.ready.push(Reverse((at, slot, reads)));
        Progress::Waits
    }

    /// When who waits until `at` goes on.
    #[inline]
    fn at_tick(&self, at: Nanos) -> Nanos {
        match self.timer {
            0 => at,
            step => at.checked_next_multiple_of(step).unwrap_or(NEVER),
        }
    }

    /// When the CPU is done with a request.
    #[inline]
    fn compute(&mut self, request: &Arrival, now: Nanos) -> Nanos {
        let cost = self.hardware.cpu;
        if cost.request.is_zero() && cost.kilobyte.is_zero() {
            return now;
        }
        let nanos = cost.request.as_nanos() as f64 + cost.kilobyte.as_nanos() as f64 * request.bytes as f64 / 1e3;
        let cores = self.has.cpu.map_or(1.0, |cpu| cpu.0 as f64 / 1e3);
        self.counters.cpu += nanos as u64;
        self.cpu_free_at = self.cpu_free_at.max(now) + (nanos / cores.max(1e-3) * self.storage.slowdown) as u64;
        self.cpu_free_at
    }

    #[inline]
    fn send(&mut self, slot: Slot, request: &Arrival, now: Nanos) -> Progress {
        let bytes = self.hardware.shaper.on_the_wire(self.hardware.head.0 + request.bytes);
        self.counters.egress += bytes;
        if self.egress.enter(slot, bytes, now) { Progress::Sent } else { Progress::Sending }
    }

    /// A request has left service; `answered`: after so long.
    #[inline]
    pub(super) fn leave(&mut self, answered: Option<Nanos>) {
        self.in_service -= 1;
        self.in_service_changed();
        if let Some(service) = answered {
            self.counters.requests += 1;
            self.counters.service += service;
        }
    }

    /// When something happens here by itself.
    #[inline]
    pub(super) fn next(&self) -> Nanos {
        if !self.runs {
            return NEVER;
        }
        let ready = self.ready.peek().map_or(NEVER, |Reverse((at, ..))| *at);
        ready.min(self.at_tick(self.egress.next()))
    }

    /// The next request that is done with CPU and disk by `now`.
    #[inline]
    pub(super) fn done_reading(&mut self, now: Nanos) -> Option<Slot> {
        let Reverse((at, slot, reads)) = *self.ready.peek()?;
        (at <= now).then(|| {
            self.ready.pop();
            self.reading -= usize::from(reads);
            slot
        })
    }

    /// Sends what was read.
    pub(super) fn read(&mut self, slot: Slot, request: &Arrival, now: Nanos) -> Progress {
        self.send(slot, request, now)
    }

    /// Lets a piece pass the shaper if one is due; the response that has passed with it.
    #[inline]
    pub(super) fn pass(&mut self, now: Nanos, gone: impl Fn(Slot) -> bool) -> Option<Slot> {
        if self.at_tick(self.egress.next()) <= now { self.egress.pass(now, gone) } else { None }
    }

    /// Over all of its lives: blocks of 512 bytes that it has read, and how often memory had what was asked for and not.
    pub(super) fn reads(&self) -> Reads {
        self.reads.and(&self.storage)
    }

    /// What it used since the last sample; `None` for the first since it started.
    pub(super) fn sample(&mut self, now: Nanos) -> Option<UsageSample> {
        let (counters, blocks) = (self.counters, self.storage.blocks());
        let (from, before, blocks_before) = self.sampled.replace((now, counters, blocks))?;
        let interval = Duration::from_nanos(now - from);
        let requests = counters.requests - before.requests;
        let service = Duration::from_nanos(counters.service - before.service);
        let egress = (counters.egress - before.egress) as f64 / interval.as_secs_f64();
        let measures_cpu = self.hardware.cpu != super::hardware::CpuCost::default();
        Some(UsageSample {
            at: Timestamp(now / 1000),
            egress: (!interval.is_zero()).then(|| BytesPerSec(egress.round() as u64)),
            cpu_time: measures_cpu.then(|| Duration::from_nanos(counters.cpu - before.cpu)),
            memory_in_use: Some(Bytes(self.hardware.overhead.0.saturating_add(self.storage.used()))),
            working_set: self.storage.working_set(now).map(Bytes),
            requests: Some(requests),
            in_flight: Some((self.in_service + self.admission.len()) as u64),
            service_time: (requests > 0).then(|| service / requests as u32),
            drops: Some(counters.refused - before.refused),
            disk_blocks: Some(blocks - blocks_before),
            // Paging is modelled by its slowness alone.
            swapped: None,
            upstream: None,
            interval: Some(interval),
        })
    }
}

//! The events, in the order of their times.

use super::{
    Clients, Scenario, SetupError,
    catalogue::{Arrival, Catalogue, Nanos},
    control::Control,
    dispatcher::Dispatcher,
    egress::Slot,
    fault::FaultKind,
    outcome::{End, Outcome, Tally},
    requests::{Place, Requests},
    server::{Progress, Server},
    tournament::{NEVER, Tournament},
};
use crate::{Queue, stream};
use rand_chacha::{ChaCha8Rng, rand_core::Rng};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    time::Duration,
};
use vibra_model::{HostId, Timestamp};
use vibra_policy::Composition;

/// How often hosts report.
const REPORTS: Duration = Duration::from_secs(1);
/// After how long a silent host is taken for dead.
const SILENCE: Duration = Duration::from_secs(3);

/// What happens beside requests.
#[derive(Debug, Clone)]
enum Event {
    /// A host reports and brings its actuators to what they shall be.
    Report(HostId),
    /// A host hears that allocations changed.
    Apply(HostId),
    /// The allocator decides.
    Decide,
    /// The fault of this number begins or ends.
    Fault(usize, Change),
    /// The host that the fault of this number struck has been silent for too long.
    Silent(usize),
    /// The move that is under way is done.
    Moved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Begins,
    Ends,
}

/// A cluster at a moment.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use vibra_model::*;
/// use vibra_policy::{Composition, Policies};
/// use vibra_sim::cluster::*;
///
/// let rate = |n| Resources { bandwidth: Some(BytesPerSec(n)), ..Resources::NONE };
/// let vm = |order: u32| VmSpec {
///     id: format!("vm{order}").parse().unwrap(),
///     customer: "shop".parse().unwrap(),
///     host: "h".parse().unwrap(),
///     address: "10.0.0.1:80".into(),
///     order,
///     weight: 1,
///     floor: rate(10_000),
///     initial: rate(1_000_000),
/// };
/// let scenario = Scenario {
///     vms: (1..=4).map(vm).collect(),
///     hosts: vec![HostSpec { id: "h".parse().unwrap(), capacity: Resources::NONE }],
///     ..Scenario::new(Customer { id: "shop".parse().unwrap(), bounds: rate(4_000_000) })
/// };
///
/// // Two clients ask for one object at the same time: its second reader waits for the same disk read.
/// let mut objects = vibra_trace::Objects::new();
/// let id = objects.intern("/index.html");
/// objects.set_size(id, 5_000);
/// let arrival = |client| Arrival { at: 0, bytes: 5_000, object: 0, client, reads: true };
/// let policy = Policies::shipped().build("proportional", Resource::Bandwidth, serde_json::json!({})).unwrap();
/// let policies = Composition::new(vec![policy]).unwrap();
/// let mut simulation = Simulation::new(&scenario, policies, Arc::new(Catalogue::new(&objects))).unwrap();
/// let outcome = simulation.run([arrival(1), arrival(2)].into_iter());
/// assert_eq!((outcome.completed, outcome.disk_blocks), (2, 20));
/// ```
pub struct Simulation<'a> {
    scenario: &'a Scenario,
    catalogue: std::sync::Arc<Catalogue>,
    control: Control,
    servers: Vec<Server>,
    dispatchers: Vec<Dispatcher>,
    requests: Requests,
    /// When each server has something to do.
    due: Tournament,
    /// Everything but requests.
    queue: Queue<Event>,
    /// Answers on the way to their clients, in the order of their arrival there.
    returning: VecDeque<(Nanos, Slot)>,
    /// When clients give up, in the order of these times.
    deadlines: VecDeque<(Nanos, Slot, u64)>,
    /// Sessions that think, until when.
    thinking: BinaryHeap<Reverse<(Nanos, u32)>>,
    thoughts: Vec<ChaCha8Rng>,
    tally: Tally,
    retries: u64,
    latency: Nanos,
    timeout: Nanos,
}

impl<'a> Simulation<'a> {
    /// The cluster at its beginning, all VMs up, with cold caches.
    ///
    /// # Errors
    /// [`SetupError`] if the scenario makes no sense.
    pub fn new(
        scenario: &'a Scenario,
        policies: Composition,
        catalogue: std::sync::Arc<Catalogue>,
    ) -> Result<Self, SetupError> {
        scenario.check()?;
        let mut control = Control::new(scenario, policies)?;
        let initial = control.directory().vms_of(&scenario.customer.id).map(|vm| vm.desired.resources);
        let servers = initial.map(|has| Server::new(&scenario.hardware, has, scenario.working_set_window));
        let mut servers: Vec<Server> = servers.collect();
        let mut queue = Queue::default();
        for host in control.hosts() {
            control.report(&host, &mut servers, Some(0));
            queue.schedule(after(0, REPORTS), Event::Report(host));
        }
        queue.schedule(after(0, scenario.interval), Event::Decide);
        for (number, fault) in scenario.faults.iter().enumerate() {
            if control.struck(&fault.of).is_none() {
                return Err(SetupError::Nobody { fault: fault.to_string() });
            }
            queue.schedule(after(0, fault.from), Event::Fault(number, Change::Begins));
            if let Some(until) = fault.until {
                queue.schedule(after(0, until), Event::Fault(number, Change::Ends));
            }
        }
        let mut simulation = Simulation {
            due: Tournament::new(servers.len()),
            catalogue,
            servers,
            dispatchers: Vec::new(),
            requests: Requests::default(),
            queue,
            returning: VecDeque::new(),
            deadlines: VecDeque::new(),
            thinking: BinaryHeap::new(),
            thoughts: Vec::new(),
            tally: Tally::new(scenario.warm_up),
            retries: 0,
            latency: nanos(scenario.hardware.latency),
            timeout: nanos(scenario.timeout),
            control,
            scenario,
        };
        if let Some(table) = simulation.control.new_table()? {
            simulation.dispatchers = (0..scenario.dispatchers).map(|_| Dispatcher::new(table.clone())).collect();
        }
        if let Clients::Closed { sessions, .. } = scenario.clients {
            simulation.thoughts = (0..sessions).map(|session| stream(scenario.seed, session.into())).collect();
            (0..sessions).for_each(|session| simulation.think(session, 0));
        }
        Ok(simulation)
    }

    /// Runs until the last of `arrivals`, whose times never decrease, is over.
    pub fn run(&mut self, arrivals: impl Iterator<Item = Arrival>) -> Outcome {
        let mut arrivals = arrivals.peekable();
        let open = self.scenario.clients == Clients::Open;
        loop {
            let arrival = match arrivals.peek() {
                Some(next) if open => next.at,
                Some(_) => self.thinking.peek().map_or(NEVER, |Reverse((at, _))| *at),
                None if self.requests.under_way() == 0 => break,
                None => NEVER,
            };
            let (server, index) = self.due.first();
            let back = self.returning.front().map_or(NEVER, |(at, _)| *at);
            let deadline = self.deadlines.front().map_or(NEVER, |(at, ..)| *at);
            let request = arrival.min(server).min(back).min(deadline);
            let other = self.queue.next_time().map_or(NEVER, |at| at.0.saturating_mul(1000));
            if other <= request {
                self.happen();
            } else if back == request {
                self.returned();
            } else if server == request {
                self.serve(index, server);
            } else if deadline == request {
                self.gave_up();
            } else if let Some(next) = arrivals.next() {
                if open {
                    self.arrive(next, next.at);
                } else if let Some(Reverse((at, session))) = self.thinking.pop() {
                    self.arrive(Arrival { at, client: session, ..next }, at);
                }
            }
        }
        self.finish()
    }

    fn finish(&mut self) -> Outcome {
        let tally = std::mem::replace(&mut self.tally, Tally::new(self.scenario.warm_up));
        let mut outcome = tally.finish();
        outcome.simulated = self.requests.begun();
        outcome.retries = self.retries;
        for reads in self.servers.iter().map(Server::reads) {
            outcome.disk_blocks += reads.blocks;
            outcome.hits += reads.hits;
            outcome.misses += reads.misses;
        }
        outcome.allocator = self.control.decisions.clone();
        outcome.allocations = std::mem::take(&mut self.control.given).0;
        outcome
    }

    fn arrive(&mut self, arrival: Arrival, now: Nanos) {
        let dispatcher = arrival.client % self.dispatchers.len() as u32;
        let slot = self.requests.begin(arrival, dispatcher);
        while let Some(&(_, slot, number)) = self.deadlines.front()
            && !self.requests.waited_for(slot, number)
        {
            self.deadlines.pop_front();
        }
        let deadline = (now.saturating_add(self.timeout), slot, self.requests.get(slot).number);
        self.deadlines.push_back(deadline);
        self.dispatch(slot, now);
    }

    /// Sends a request to the first of its candidates that is there.
    fn dispatch(&mut self, slot: Slot, now: Nanos) {
        let request = self.requests.get_mut(slot);
        let arrival = request.arrival;
        let dispatcher = &mut self.dispatchers[request.dispatcher as usize];
        let candidates = dispatcher.pick(&self.catalogue.names[arrival.object as usize], now);
        for server in candidates {
            if !self.servers[server].runs() {
                self.retries += 1;
                continue;
            }
            dispatcher.sent(server);
            (request.server, request.since, request.place) = (server as u32, now, Place::Server);
            let size = self.catalogue.sizes[arrival.object as usize];
            let progress = self.servers[server].take_on(slot, &arrival, size, now);
            self.progress(slot, progress, now);
            self.due.set(server, self.servers[server].next());
            return;
        }
        self.end(slot, now, End::Unreachable);
    }

    /// What the server says of a request.
    #[inline]
    fn progress(&mut self, slot: Slot, progress: Progress, now: Nanos) {
        match progress {
            Progress::Sent => self.sent(slot, now),
            Progress::Sending => self.requests.get_mut(slot).place = Place::Sending,
            Progress::Waits => {}
            Progress::Refused => {
                let request = self.requests.get(slot);
                let server = request.server as usize;
                self.servers[server].leave(None);
                if request.gone {
                    self.requests.end(slot);
                } else {
                    self.dispatchers[request.dispatcher as usize].over(server);
                    self.end(slot, now, End::Refused);
                }
            }
        }
    }

    /// The last byte of an answer has left its server.
    #[inline]
    fn sent(&mut self, slot: Slot, now: Nanos) {
        let request = self.requests.get_mut(slot);
        let server = request.server as usize;
        if request.gone {
            self.servers[server].leave(None);
            self.requests.end(slot);
        } else {
            request.place = Place::Return;
            self.servers[server].leave(Some(now - request.since));
            self.returning.push_back((now + self.latency, slot));
        }
    }

    /// A server does what is due.
    fn serve(&mut self, index: usize, now: Nanos) {
        while let Some(slot) = self.servers[index].done_reading(now) {
            if self.requests.get(slot).gone {
                self.sent(slot, now);
                continue;
            }
            let arrival = self.requests.get(slot).arrival;
            let progress = self.servers[index].read(slot, &arrival, now);
            self.progress(slot, progress, now);
        }
        self.read_on(index, now);
        let requests = &self.requests;
        if let Some(slot) = self.servers[index].pass(now, |slot| requests.get(slot).gone) {
            self.sent(slot, now);
        }
        self.admit(index, now);
        self.due.set(index, self.servers[index].next());
    }

    /// Has threads that have become free read for who waits for one.
    fn read_on(&mut self, index: usize, now: Nanos) {
        while let Some(slot) = self.servers[index].next_reader() {
            let request = self.requests.get(slot);
            if request.gone {
                self.sent(slot, now);
                continue;
            }
            let arrival = request.arrival;
            let size = self.catalogue.sizes[arrival.object as usize];
            let progress = self.servers[index].look_up(slot, &arrival, size, (now, now));
            self.progress(slot, progress, now);
        }
    }

    /// Takes in who waits for the multiprogramming level.
    fn admit(&mut self, index: usize, now: Nanos) {
        while let Some(slot) = self.servers[index].admit() {
            let request = self.requests.get(slot);
            if request.gone {
                self.requests.end(slot);
                continue;
            }
            let size = self.catalogue.sizes[request.arrival.object as usize];
            let progress = self.servers[index].begin(slot, &request.arrival, size, now);
            self.progress(slot, progress, now);
        }
    }

    /// The next answer reaches its client.
    fn returned(&mut self) {
        let Some((now, slot)) = self.returning.pop_front() else { return };
        let request = self.requests.get(slot);
        if request.gone {
            self.requests.end(slot);
        } else {
            let bytes = request.arrival.bytes;
            self.dispatchers[request.dispatcher as usize].over(request.server as usize);
            self.end(slot, now, End::Answered { bytes });
        }
    }

    /// The client that has waited longest gives up, if it still waits.
    fn gave_up(&mut self) {
        let Some((now, slot, number)) = self.deadlines.pop_front() else { return };
        if !self.requests.waited_for(slot, number) {
            return;
        }
        let request = self.requests.get_mut(slot);
        request.gone = true;
        let (due, client) = (request.arrival.at, request.arrival.client);
        self.dispatchers[request.dispatcher as usize].over(request.server as usize);
        self.tally.count(due, now, End::Timeout);
        self.think_again(client, now);
    }

    /// A request is over; its slot is free.
    #[inline]
    fn end(&mut self, slot: Slot, now: Nanos, end: End) {
        let Arrival { at, client, .. } = self.requests.get(slot).arrival;
        self.requests.end(slot);
        self.tally.count(at, now, end);
        self.think_again(client, now);
    }

    #[inline]
    fn think_again(&mut self, session: u32, now: Nanos) {
        if matches!(self.scenario.clients, Clients::Closed { .. }) {
            self.think(session, now);
        }
    }

    fn think(&mut self, session: u32, now: Nanos) {
        let Clients::Closed { think, .. } = self.scenario.clients else { return };
        // In (0, 1], so that its logarithm is finite.
        let uniform = (1.0 - self.thoughts[session as usize].next_u64() as f64 / 2f64.powi(64)).max(f64::MIN_POSITIVE);
        let time = think.as_secs_f64() * -uniform.ln();
        self.thinking.push(Reverse((now + nanos(Duration::from_secs_f64(time)), session)));
    }

    /// Whatever is due beside requests.
    fn happen(&mut self) {
        let Some(event) = self.queue.next() else { return };
        let now = self.queue.now().0.saturating_mul(1000);
        match event {
            Event::Report(host) => {
                self.control.report(&host, &mut self.servers, Some(now));
                self.apply(&host, now);
                self.queue.schedule(after(now, REPORTS), Event::Report(host));
            }
            Event::Apply(host) => self.apply(&host, now),
            Event::Decide => {
                let idle = self.control.next_move(&self.servers).is_none();
                if self.control.decide(now) {
                    self.tell_hosts(now);
                }
                if idle {
                    self.begin_move(now);
                }
                self.queue.schedule(after(now, self.scenario.interval), Event::Decide);
            }
            Event::Fault(number, change) => self.fault(number, change, now),
            Event::Silent(number) => self.control.host_silent(&self.scenario.faults[number].of),
            Event::Moved => {
                if let Some(index) = self.control.moved() {
                    let downtime = nanos(self.scenario.hardware.migration.downtime);
                    self.servers[index].stand_still(downtime, now);
                }
                self.begin_move(now);
            }
        }
        self.route(now);
        for (index, server) in self.servers.iter().enumerate() {
            self.due.set(index, server.next());
        }
    }

    /// All hosts hear that allocations changed, or that somebody else's did.
    fn tell_hosts(&mut self, now: Nanos) {
        for host in self.control.hosts() {
            self.queue.schedule(after(now, self.scenario.actuator_lag), Event::Apply(host));
        }
    }

    fn apply(&mut self, host: &HostId, now: Nanos) {
        if self.control.apply(host, &mut self.servers, now) && self.control.hosts().len() > 1 {
            self.tell_hosts(now);
        }
    }

    fn begin_move(&mut self, now: Nanos) {
        if let Some(memory) = self.control.next_move(&self.servers) {
            let rate = self.scenario.hardware.migration.rate.0.max(1);
            let takes = Duration::from_secs_f64(memory.0 as f64 / rate as f64);
            self.queue.schedule(after(now, takes), Event::Moved);
        }
    }

    fn fault(&mut self, number: usize, change: Change, now: Nanos) {
        let (fault, begins) = (&self.scenario.faults[number], change == Change::Begins);
        for index in self.control.struck(&fault.of).unwrap_or_default() {
            self.control.breaks(index, fault.kind, begins);
            match (fault.kind, begins) {
                (FaultKind::Down, true) => self.fail(index, now),
                (FaultKind::Down, false) => self.servers[index].start(self.control.desired(index), now),
                _ => {}
            }
        }
        if fault.kind == FaultKind::Down && self.control.silence(&fault.of, begins) && begins {
            self.queue.schedule(after(now, SILENCE), Event::Silent(number));
        }
    }

    /// A server fails: what it had begun to answer is lost, and the rest is sent elsewhere.
    fn fail(&mut self, index: usize, now: Nanos) {
        self.servers[index].stop();
        for slot in self.requests.at(index) {
            let request = self.requests.get(slot);
            if request.gone {
                self.requests.end(slot);
                continue;
            }
            self.dispatchers[request.dispatcher as usize].over(index);
            if request.place == Place::Sending {
                self.end(slot, now, End::Broken);
            } else {
                self.retries += 1;
                self.dispatch(slot, now);
            }
        }
    }

    /// Tells the dispatchers of servers that came or went.
    fn route(&mut self, now: Nanos) {
        // The servers stay the same; only their states change, and a table was built for them at the beginning.
        let Ok(Some(table)) = self.control.new_table() else { return };
        let count = self.dispatchers.len() as u32;
        for (dispatcher, number) in self.dispatchers.iter_mut().zip(1..) {
            let delay = self.scenario.view_delay * number / count;
            dispatcher.send(table.clone(), now.saturating_add(nanos(delay)));
        }
    }
}

fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}

/// So long after `now`, on the clock of directory and policies.
fn after(now: Nanos, duration: Duration) -> Timestamp {
    Timestamp(now / 1000).after(duration)
}

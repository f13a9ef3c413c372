//! The control thread: it hears of the cluster, of the servers' health and of operators, and swaps in a new routing
//! snapshot when one of them changes anything.

use crate::check;
use crate::config::Config;
use crate::dispatcher::{self, Shared};
use crate::error::StartError;
use crate::following::{Following, heard};
use crate::members::{self, Attendant, Member, Order, Orders, Spec};
use crate::reload::{self, ReloadError};
use crate::routes::{Routes, Verdict};
use crate::server::Server;
use crate::tls::Loaded;
use crate::warmup;
use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Release;
use std::sync::{Arc, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::sleep_until;
use vibra_model::{Revision, Snapshot, VmId, VmState};
use vibra_routing::{Cluster, Warmth};

/// News of servers that wait to be taken note of; who has more waits.
const NEWS: usize = 256;

/// News of a server.
#[derive(Debug)]
pub(crate) enum News {
    /// An active check passed or failed.
    Checked(Arc<Server>, bool),
    /// The server's name has been resolved.
    Resolved(Arc<Server>, SocketAddr),
}

/// What an operator wants.
pub(crate) enum Call {
    /// Take over this configuration with its certificates, if they could be read; the answer has the parts that changed.
    Reload(Result<(Box<Config>, Loaded), ReloadError>, oneshot::Sender<Result<Vec<&'static str>, ReloadError>>),
    /// Do so with a server from now on, `None`: as its source and its checks say.
    Order(VmId, Option<Order>, oneshot::Sender<Ordered>),
    /// Say what is wanted of servers, for a successor, and take no other orders.
    HoldOrders(oneshot::Sender<Orders>),
    /// Take orders again: there is no successor, or no predecessor any more.
    TakeOrders(oneshot::Sender<()>),
    /// Say that you are there.
    Hello(oneshot::Sender<()>),
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ordered {
    /// It holds.
    Done,
    /// There is no such server.
    Unknown,
    /// It would be lost, since another process is about to take over.
    Held,
}

/// The control thread's state.
pub(crate) struct Control {
    config: Arc<Config>,
    revision: Revision,
    members: Vec<Member>,
    /// What operators want of servers, also of those that are not there just now.
    orders: Orders,
    /// Whether a successor knows of them, or a predecessor may still go on with its own.
    orders_are_held: bool,
    /// The time that the current routes were made for.
    published: Instant,
    /// When servers that warm up get the next greater share.
    next_step: Option<Instant>,
}

impl Control {
    /// The cluster that is known at the start; `inherited` are the orders of the dispatcher that this one replaces, if it
    /// replaces one.
    ///
    /// # Errors
    /// What is wrong with the servers or the settings.
    pub(crate) fn new(config: &Config, inherited: Option<Orders>) -> Result<Self, StartError> {
        let specs = members::fixed(config)?.unwrap_or_default();
        let orders_are_held = inherited.is_some();
        let orders = inherited.unwrap_or_default();
        let member = |spec: Spec| {
            let order = orders.get(&spec.name).copied();
            Member::new(spec, order, members::size(config))
        };
        Ok(Control {
            config: Arc::new(config.clone()),
            revision: Revision(0),
            members: specs.into_iter().map(member).collect(),
            orders,
            orders_are_held,
            published: Instant::now(),
            next_step: None,
        })
    }

    /// Takes over what the source says. Servers that are still there under the same name and address keep their counts
    /// and connections.
    fn adopt(&mut self, specs: Vec<Spec>) {
        let known = self.members.drain(..).map(|member| (member.spec.name.clone(), member));
        let mut known: HashMap<VmId, Member> = known.collect();
        let (orders, size) = (&self.orders, members::size(&self.config));
        let mut member = |spec: Spec| match known.remove(&spec.name) {
            Some(old) => old.becomes(spec, size),
            None => {
                let order = orders.get(&spec.name).copied();
                Member::new(spec, order, size)
            }
        };
        self.members = specs.into_iter().map(&mut member).collect();
    }

    /// Holds the servers to the levels that their hosts ask for.
    fn limit(&mut self, snapshot: &Snapshot) {
        for member in &mut self.members {
            member.limit(snapshot.vm(&member.spec.name).and_then(|vm| vm.level));
        }
    }

    /// Whether `specs` are the servers that are known already.
    fn has(&self, specs: &[Spec]) -> bool {
        specs.iter().eq(self.members.iter().map(|member| &member.spec))
    }

    /// Swaps in the routing snapshot that follows from what is known.
    fn publish(&mut self, shared: &Shared) {
        shared.routes.store(Arc::new(self.routes(Instant::now())));
    }

    /// The routing snapshot that follows from what is known at `now`.
    pub(crate) fn routes(&mut self, now: Instant) -> Routes {
        self.published = now;
        let verdict = |m: &Member| Verdict { state: m.told(), order: m.order, healthy: m.monitor.is_healthy(now) };
        let verdicts: Vec<Verdict> = self.members.iter().map(verdict).collect();
        let usable = |(m, v): (&Member, &Verdict)| m.is_reachable() && v.healthy;
        let panic = !self.members.iter().zip(&verdicts).any(usable) && self.members.iter().any(Member::is_reachable);
        let is_used = |(m, v): (&Member, &Verdict)| m.is_reachable() && (v.healthy || panic);
        let used: Vec<bool> = self.members.iter().zip(&verdicts).map(is_used).collect();
        let slow_start = self.config.health.slow_start;
        let warmths = members::warmths(&mut self.members, &used, now, slow_start);
        let mut cluster = Cluster { revision: self.revision, servers: Vec::with_capacity(self.members.len()) };
        for ((member, used), &warmth) in self.members.iter().zip(used).zip(&warmths) {
            let state = if used || !member.state().serves() { member.state() } else { VmState::Down };
            cluster.servers.push(member.routed(state, warmth));
        }
        let warming = warmths.iter().any(|&warmth| warmth < Warmth::FULL);
        self.next_step = warming.then(|| now + warmup::step(slow_start));
        let (table, error) = match members::table(&cluster, &self.config.settings) {
            Ok(table) => (table, None),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(error) = &error {
            tracing::error!(revision = %self.revision, "no routing table: {error}");
        }
        let servers = self.members.iter().map(|member| member.server.clone()).collect();
        Routes { config: self.config.clone(), table, cluster, servers, verdicts, panic, error }
    }

    /// Takes note of news; says whether they may change the routes.
    fn learn(&mut self, news: News) -> bool {
        let (News::Checked(server, _) | News::Resolved(server, _)) = &news;
        // What has been removed meanwhile is of no interest.
        let Some(member) = self.members.iter_mut().find(|member| Arc::ptr_eq(&member.server, server)) else {
            return false;
        };
        match news {
            News::Checked(_, passed) => {
                let Some(rules) = &self.config.health.active else { return false };
                let now = Instant::now();
                let before = member.monitor.is_healthy(now);
                member.monitor.checked(passed, rules);
                let after = member.monitor.is_healthy(now);
                if before != after {
                    tracing::info!(server = %member.spec.name, healthy = after, "checks changed the verdict");
                }
                before != after
            }
            News::Resolved(_, address) => {
                member.found_at(address, members::size(&self.config));
                true
            }
        }
    }

    /// Ejects the servers that have failed too often; says whether there was one.
    fn eject(&mut self) -> bool {
        let rules = &self.config.health.passive;
        let now = Instant::now();
        let mut ejected = false;
        for member in self.members.iter_mut().filter(|member| member.server.failures() >= rules.failures) {
            member.server.forget_failures();
            // Requests that were under way when it was ejected may fail in a row as well.
            if member.monitor.eject(now, rules) {
                tracing::warn!(server = %member.spec.name, "ejected after {} failures in a row", rules.failures);
                ejected = true;
            }
        }
        ejected
    }

    /// When the routes change by themselves: the next ejection ends that they know of, or servers get greater shares.
    /// That may be past by now, if other news came first.
    fn next_change(&self) -> Option<Instant> {
        let returns = self.members.iter().filter_map(|member| member.monitor.returns(self.published));
        returns.chain(self.next_step).min()
    }

    /// Sees to it that each server is attended to, but those under maintenance.
    fn attend(&mut self, shared: &Arc<Shared>, news: &mpsc::Sender<News>) {
        let rules = &self.config.health.active;
        for (number, member) in self.members.iter_mut().enumerate() {
            if member.order == Some(Order::Maintenance) {
                member.attendant = None;
            } else if member.attendant.is_none() {
                let task = check::attend(member.server.clone(), rules.clone(), shared.clone(), news.clone(), number);
                member.attendant = Some(Attendant(spawn_local(task)));
            }
        }
    }

    /// Does what an operator wants, and says so once requests follow it.
    fn obey(&mut self, call: Call, shared: &Shared) {
        match call {
            Call::Reload(read, done) => {
                let result = read.and_then(|(config, loaded)| Ok((self.reload(*config)?, loaded)));
                let result = result.map(|(changed, loaded)| {
                    shared.tls.install(loaded);
                    self.publish(shared);
                    changed
                });
                shared.reloads.lock().unwrap_or_else(PoisonError::into_inner).note(&result);
                // Who asked may have gone.
                let _ = done.send(result);
            }
            Call::Order(server, order, done) => {
                let ordered = self.order(&server, order);
                self.publish(shared);
                let _ = done.send(ordered);
            }
            Call::HoldOrders(done) => {
                self.orders_are_held = true;
                let _ = done.send(self.orders.clone());
            }
            Call::TakeOrders(done) => {
                self.orders_are_held = false;
                let _ = done.send(());
            }
            Call::Hello(done) => drop(done.send(())),
        }
    }

    /// Takes over `new`, or nothing of it.
    fn reload(&mut self, mut new: Config) -> Result<Vec<&'static str>, ReloadError> {
        new.peers.via = new.peers.via.after(&self.config.peers.via);
        dispatcher::check(&new)?;
        let changed = reload::changes(&self.config, &new)?;
        match members::fixed(&new)? {
            Some(specs) => self.adopt(specs),
            None => {
                let servers = self.members.iter().map(|member| member.routed(member.state(), Warmth::FULL)).collect();
                let cluster = Cluster { revision: self.revision, servers };
                members::table(&cluster, &new.settings).map_err(StartError::Routing)?;
                self.adopt(self.members.iter().map(|member| member.spec.spoken_to(new.manner)).collect());
            }
        }
        if new.health.active != self.config.health.active {
            for member in &mut self.members {
                member.monitor.forget_checks();
                // A task that looks up the server's name goes on by itself.
                if member.server.address.is_some() {
                    member.attendant = None;
                }
            }
        }
        self.config = Arc::new(new);
        Ok(changed)
    }

    /// Follows an operator's order about a server, if it or an order about it is known.
    fn order(&mut self, server: &VmId, order: Option<Order>) -> Ordered {
        if self.orders_are_held {
            return Ordered::Held;
        }
        let member = self.members.iter_mut().find(|member| member.spec.name == *server);
        let known = member.is_some() || self.orders.contains_key(server);
        if let Some(member) = member {
            if member.order == Some(Order::Maintenance) && order.is_none() {
                // It was perhaps exchanged: what it did before is no reason to keep requests away.
                member.monitor = Default::default();
                member.server.forget_failures();
            }
            member.order = order;
        }
        if !known {
            return Ordered::Unknown;
        }
        match order {
            Some(order) => drop(self.orders.insert(server.clone(), order)),
            None => drop(self.orders.remove(server)),
        }
        tracing::info!(target: "operator", %server, state = order.map_or("ready", Order::name), "server state set");
        Ordered::Done
    }
}

/// Waits for a point in time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}

/// Runs until `over`.
pub(crate) async fn run(
    mut control: Control,
    shared: Arc<Shared>,
    mut calls: mpsc::Receiver<Call>,
    over: impl Future<Output = ()>,
) {
    let mut directory = Following::begin(&control.config.source);
    let (sender, mut news) = mpsc::channel(NEWS);
    tokio::pin!(over);
    loop {
        control.attend(&shared, &sender);
        let next = control.next_change();
        let changed = tokio::select! {
            (snapshot, customer) = heard(&mut directory, &shared) => {
                let specs = members::listed(&snapshot, &customer, control.config.manner);
                if !control.has(&specs) {
                    control.revision = snapshot.revision();
                    control.adopt(specs);
                    control.publish(&shared);
                }
                control.limit(&snapshot);
                // Not before: who reads this revision finds routes that are no older.
                shared.revision.store(snapshot.revision().0, Release);
                false
            }
            Some(news) = news.recv() => control.learn(news),
            Some(call) = calls.recv() => {
                control.obey(call, &shared);
                false
            }
            () = shared.alarm.notified() => control.eject(),
            () = at(next) => true,
            () = &mut over => return,
        };
        if changed {
            control.publish(&shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Manner, PassiveCheck, Source, StaticServer};
    use std::time::Duration;

    fn control(servers: u16) -> Control {
        let server = |n: u16| StaticServer {
            name: format!("s{n}").parse().unwrap(),
            address: format!("127.0.0.1:{n}"),
            weight: 1,
            manner: Manner::default(),
        };
        let servers = Source::Static((1..=servers).map(server).collect());
        Control::new(&Config::new("127.0.0.1:0".parse().unwrap(), servers), None).unwrap()
    }

    #[test]
    fn an_ejection_that_ends_unnoticed_is_still_to_be_noticed() {
        let mut control = control(2);
        let rules = PassiveCheck::default();
        let long_ago = control.published - 10 * rules.first;
        control.published = long_ago;
        control.members[1].monitor.eject(long_ago, &rules);
        assert_eq!(control.next_change(), Some(long_ago + rules.first));
        control.published = Instant::now();
        assert_eq!(control.next_change(), None);
    }

    /// The warmth of each server, in thousandths, so many seconds after `start`.
    fn warmths(control: &mut Control, start: Instant, seconds: u64) -> Vec<u16> {
        let routes = control.routes(start + Duration::from_secs(seconds));
        routes.cluster.servers.iter().map(|server| server.warmth.get()).collect()
    }

    #[test]
    fn who_comes_back_after_a_time_that_others_were_in_use_warms_up() {
        let (mut control, start) = (control(3), Instant::now());
        let name: VmId = "s2".parse().unwrap();
        let order = |control: &mut Control, order| assert_eq!(control.order(&name, order), Ordered::Done);
        assert_eq!(warmths(&mut control, start, 0), [1000; 3], "all begin alike");
        assert_eq!(control.next_change(), None);
        order(&mut control, Some(Order::Maintenance));
        warmths(&mut control, start, 10);
        order(&mut control, None);
        assert_eq!(warmths(&mut control, start, 20), [1000; 3], "the others are hardly warmer yet");
        order(&mut control, Some(Order::Maintenance));
        warmths(&mut control, start, 30);
        order(&mut control, None);
        assert_eq!(warmths(&mut control, start, 40), [1000, 33, 1000]);
        assert_eq!(control.next_change(), Some(start + Duration::from_secs(41)));
        assert_eq!(warmths(&mut control, start, 54), [1000, 500, 1000]);
        // Drained, it keeps its cache, and goes on.
        order(&mut control, Some(Order::Drain));
        warmths(&mut control, start, 55);
        order(&mut control, None);
        assert_eq!(warmths(&mut control, start, 60), [1000, 700, 1000]);
        assert_eq!(warmths(&mut control, start, 69), [1000; 3]);
        assert_eq!(control.next_change(), None);
    }

    #[test]
    fn who_is_new_beside_others_warms_up() {
        let (mut control, start) = (control(2), Instant::now());
        warmths(&mut control, start, 0);
        control.adopt(members::fixed(&self::control(3).config).unwrap().unwrap());
        assert_eq!(warmths(&mut control, start, 100), [1000, 1000, 33]);
    }

    #[test]
    fn an_ejected_server_warms_up_when_it_is_back() {
        let (mut control, start) = (control(2), Instant::now());
        warmths(&mut control, start, 0);
        let at = start + Duration::from_secs(100);
        control.members[0].monitor.eject(at, &PassiveCheck::default());
        assert!(!control.routes(at).cluster.servers[0].state.serves());
        assert_eq!(warmths(&mut control, start, 102), [33, 1000]);
        // Where all failed, none is better than the others.
        let at = start + Duration::from_secs(200);
        assert!(control.members.iter_mut().all(|member| member.monitor.eject(at, &PassiveCheck::default())));
        assert!(control.routes(at).panic);
        assert_eq!(warmths(&mut control, start, 203), [1000; 2]);
    }

    #[test]
    fn a_successor_takes_over_orders_and_takes_others_when_it_is_alone() {
        let mut control = control(2);
        let (here, absent): (VmId, VmId) = ("s2".parse().unwrap(), "s3".parse().unwrap());
        let orders = Orders::from([(here.clone(), Order::Maintenance), (absent.clone(), Order::Drain)]);
        let mut successor = Control::new(&control.config, Some(orders)).unwrap();
        assert_eq!(successor.members[1].order, Some(Order::Maintenance));
        assert_eq!(successor.order(&here, None), Ordered::Held);
        successor.orders_are_held = false;
        assert_eq!(successor.order(&here, None), Ordered::Done);
        assert_eq!(successor.order(&absent, None), Ordered::Done, "it knows of the order, if not of the server");
        control.orders_are_held = true;
        assert_eq!(control.order(&here, Some(Order::Drain)), Ordered::Held);
        assert_eq!(control.members[1].order, None);
    }

    #[test]
    fn an_order_outlives_the_absence_of_its_server() {
        let mut control = control(2);
        let name: VmId = "s2".parse().unwrap();
        assert_eq!(control.order(&name, Some(Order::Drain)), Ordered::Done);
        let all = || members::fixed(&self::control(2).config).unwrap().unwrap();
        control.adopt(all().into_iter().take(1).collect());
        control.adopt(all());
        assert_eq!(control.members[1].order, Some(Order::Drain));
        control.adopt(all().into_iter().take(1).collect());
        assert_eq!(control.order(&name, None), Ordered::Done, "it can be taken back meanwhile");
        control.adopt(all());
        assert_eq!(control.members[1].order, None);
        assert_eq!(control.order(&"s3".parse().unwrap(), Some(Order::Drain)), Ordered::Unknown);
    }
}

//! The control thread: it hears of the cluster and of the servers' health, and swaps in a new routing snapshot when
//! either changes.

use crate::admission::gate;
use crate::check;
use crate::config::{Config, Source};
use crate::dispatcher::{Shared, Stop};
use crate::endpoint::Endpoint;
use crate::error::StartError;
use crate::health::Monitor;
use crate::proxy_protocol::ProxyVersion;
use crate::routes::{Routes, Verdict};
use crate::server::Server;
use crate::tls::TlsError;
use std::collections::HashMap;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::sleep_until;
use vibra_client::{Follower, Link as DirectoryLink, follow};
use vibra_model::{CustomerId, Revision, Snapshot, Vm, VmId, VmState};
use vibra_routing::{Cluster, Settings, Table};

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

/// A server as its source describes it.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    name: VmId,
    endpoint: Endpoint,
    send_proxy: Option<ProxyVersion>,
    weight: u32,
    state: VmState,
}

impl Spec {
    /// What threads share about it, once its address is known.
    fn server(&self, address: Option<SocketAddr>, size: gate::Size) -> Arc<Server> {
        Arc::new(Server::new(self.name.clone(), self.endpoint.clone(), address, self.send_proxy, size))
    }
}

/// A server, and what the control thread knows of it.
struct Member {
    spec: Spec,
    server: Arc<Server>,
    monitor: Monitor,
    /// Resolves its name, then checks it.
    attendant: Option<Attendant>,
}

/// A task that ends with its owner.
struct Attendant(JoinHandle<()>);

impl Drop for Attendant {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Member {
    fn new(spec: Spec, size: gate::Size) -> Self {
        let address = spec.endpoint.address();
        let server = spec.server(address, size);
        Member { spec, server, monitor: Monitor::default(), attendant: None }
    }

    /// Whether requests would get there at all.
    fn is_reachable(&self) -> bool {
        self.spec.state.serves() && self.server.address.is_some()
    }
}

/// The control thread's state.
pub(crate) struct Control {
    /// What each server takes at once.
    size: gate::Size,
    revision: Revision,
    members: Vec<Member>,
    /// The time that the current routes were made for.
    published: Instant,
}

impl Control {
    /// The cluster that is known at the start.
    ///
    /// # Errors
    /// What is wrong with the servers or the settings.
    pub(crate) fn new(config: &Config) -> Result<Self, StartError> {
        config.settings.check()?;
        let mut specs = Vec::new();
        if let Source::Static(servers) = &config.source {
            for (server, position) in servers.iter().zip(1..) {
                let (name, endpoint) = (server.name.clone(), Endpoint::new(&server.address));
                if !endpoint.makes_sense() {
                    return Err(StartError::Address { name, position, address: server.address.clone() });
                }
                if endpoint.has_tls() && config.server_tls.is_none() {
                    return Err(StartError::Tls(TlsError::NotConfigured));
                }
                let (send_proxy, weight) = (server.send_proxy, server.weight);
                specs.push(Spec { name, endpoint, send_proxy, weight, state: VmState::Up });
            }
            Table::build(&cluster(Revision(0), &specs), &config.settings)?;
        }
        let size = gate::Size { most: config.limits.requests_per_server, room: config.limits.queue_per_server };
        Ok(Control {
            size,
            revision: Revision(0),
            members: specs.into_iter().map(|spec| Member::new(spec, size)).collect(),
            published: Instant::now(),
        })
    }

    /// Takes over what the directory says; returns whether it matters for routing. Servers that are still there under
    /// the same name and address keep their counts and connections.
    fn adopt(&mut self, snapshot: &Snapshot, customer: &CustomerId) -> bool {
        let spec = |vm: &Vm| {
            let (name, endpoint) = (vm.id.clone(), Endpoint::new(&vm.address));
            Spec { name, endpoint, send_proxy: None, weight: vm.weight, state: vm.state }
        };
        let specs: Vec<Spec> = snapshot.vms_of(customer).map(spec).collect();
        if specs.iter().eq(self.members.iter().map(|member| &member.spec)) {
            return false;
        }
        self.revision = snapshot.revision();
        let known = self.members.drain(..).map(|member| (member.spec.name.clone(), member));
        let mut known: HashMap<VmId, Member> = known.collect();
        let mut member = |spec: Spec| match known.remove(&spec.name) {
            Some(old) if old.spec.endpoint == spec.endpoint => Member { spec, ..old },
            _ => Member::new(spec, self.size),
        };
        self.members = specs.into_iter().map(&mut member).collect();
        true
    }

    /// Swaps in the routing snapshot that follows from what is known.
    pub(crate) fn publish(&mut self, shared: &Shared) {
        self.published = Instant::now();
        let routes = self.routes(self.published, &shared.config.settings);
        if let Some(error) = &routes.error {
            tracing::error!(revision = %self.revision, "no routing table: {error}");
        }
        shared.routes.store(Arc::new(routes));
    }

    fn routes(&self, now: Instant, settings: &Settings) -> Routes {
        let verdict = |m: &Member| Verdict { state: m.spec.state, healthy: m.monitor.is_healthy(now) };
        let verdicts: Vec<Verdict> = self.members.iter().map(verdict).collect();
        let usable = |(m, v): (&Member, &Verdict)| m.is_reachable() && v.healthy;
        let panic = !self.members.iter().zip(&verdicts).any(usable) && self.members.iter().any(Member::is_reachable);
        let mut cluster = Cluster { revision: self.revision, servers: Vec::with_capacity(self.members.len()) };
        for (member, verdict) in self.members.iter().zip(&verdicts) {
            let used = member.is_reachable() && (verdict.healthy || panic);
            let state = if used || !member.spec.state.serves() { member.spec.state } else { VmState::Down };
            cluster.servers.push(member.spec.routed(state));
        }
        let (table, error) = match build(&cluster, settings) {
            Ok(table) => (table, None),
            Err(error) => (None, Some(error.to_string())),
        };
        let servers = self.members.iter().map(|member| member.server.clone()).collect();
        Routes { table, cluster, servers, verdicts, panic, error }
    }

    /// Takes note of news; says whether they may change the routes.
    fn learn(&mut self, news: News, shared: &Shared) -> bool {
        let (News::Checked(server, _) | News::Resolved(server, _)) = &news;
        // What has been removed meanwhile is of no interest.
        let Some(member) = self.members.iter_mut().find(|member| Arc::ptr_eq(&member.server, server)) else {
            return false;
        };
        match news {
            News::Checked(_, passed) => {
                let Some(rules) = &shared.config.health.active else { return false };
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
                member.server = member.spec.server(Some(address), self.size);
                member.attendant = None;
                true
            }
        }
    }

    /// Ejects the servers that have failed too often; says whether there was one.
    fn eject(&mut self, shared: &Shared) -> bool {
        let rules = &shared.config.health.passive;
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

    /// When the next ejection ends that the current routes know of. That may be past by now, if other news came first.
    fn next_return(&self) -> Option<Instant> {
        self.members.iter().filter_map(|member| member.monitor.returns(self.published)).min()
    }

    /// Sees to it that each server is attended to.
    fn attend(&mut self, shared: &Arc<Shared>, news: &mpsc::Sender<News>) {
        for (number, member) in self.members.iter_mut().enumerate().filter(|(_, member)| member.attendant.is_none()) {
            let task = check::attend(member.server.clone(), shared.clone(), news.clone(), number);
            member.attendant = Some(Attendant(spawn_local(task)));
        }
    }
}

impl Spec {
    fn routed(&self, state: VmState) -> vibra_routing::Server {
        vibra_routing::Server { name: self.name.clone(), weight: self.weight, state }
    }
}

fn cluster(revision: Revision, specs: &[Spec]) -> Cluster {
    Cluster { revision, servers: specs.iter().map(|spec| spec.routed(spec.state)).collect() }
}

/// The table; `None` without servers. A cluster that has shrunk below R servers keeps working with as many as it has:
/// who removes a VM shall not thereby stop the others.
fn build(cluster: &Cluster, settings: &Settings) -> Result<Option<Table>, vibra_routing::BuildError> {
    if cluster.servers.is_empty() {
        return Ok(None);
    }
    let replicas = settings.replicas.min(cluster.servers.len());
    Table::build(cluster, &Settings { replicas, ..settings.clone() }).map(Some)
}

/// A directory that is followed.
struct Following {
    /// Ends when this is dropped.
    _follower: Follower,
    customer: CustomerId,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    link: watch::Receiver<DirectoryLink>,
}

impl Following {
    fn begin(source: &Source) -> Option<Self> {
        let Source::Directory { directory, customer } = source else { return None };
        let follower = follow(directory.clone());
        let (snapshots, link) = (follower.snapshots(), follower.link());
        Some(Following { _follower: follower, customer: customer.clone(), snapshots, link })
    }

    /// Waits for a snapshot; on the way it passes on whether the directory is heard.
    async fn next(&mut self, shared: &Shared) -> Arc<Snapshot> {
        loop {
            tokio::select! {
                Ok(()) = self.snapshots.changed() => return self.snapshots.borrow_and_update().clone(),
                Ok(()) = self.link.changed() => {
                    shared.link.send_replace(self.link.borrow_and_update().clone());
                }
                // The follower lives as long as this: neither channel closes.
                else => return pending().await,
            }
        }
    }
}

/// What the directory says next; nothing ever where there is none.
async fn heard(directory: &mut Option<Following>, shared: &Shared) -> (Arc<Snapshot>, CustomerId) {
    match directory {
        Some(directory) => (directory.next(shared).await, directory.customer.clone()),
        None => pending().await,
    }
}

/// Waits for a point in time, if there is one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => pending().await,
    }
}

/// Runs until the dispatcher is to stop.
pub(crate) async fn run(mut control: Control, shared: Arc<Shared>, mut stop: watch::Receiver<Stop>) {
    let mut directory = Following::begin(&shared.config.source);
    let (sender, mut news) = mpsc::channel(NEWS);
    loop {
        control.attend(&shared, &sender);
        let returns = control.next_return();
        let changed = tokio::select! {
            (snapshot, customer) = heard(&mut directory, &shared) => {
                if control.adopt(&snapshot, &customer) {
                    control.publish(&shared);
                }
                // Not before: who reads this revision finds routes that are no older.
                shared.revision.store(snapshot.revision().0, Release);
                false
            }
            Some(news) = news.recv() => control.learn(news, &shared),
            () = shared.alarm.notified() => control.eject(&shared),
            () = at(returns) => true,
            _ = stop.wait_for(Option::is_some) => return,
        };
        if changed {
            control.publish(&shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{PassiveCheck, StaticServer};

    #[test]
    fn an_ejection_that_ends_unnoticed_is_still_to_be_noticed() {
        let server = |n: u16| StaticServer {
            name: format!("s{n}").parse().unwrap(),
            address: format!("127.0.0.1:{n}"),
            weight: 1,
            send_proxy: None,
        };
        let servers = Source::Static(vec![server(1), server(2)]);
        let mut control = Control::new(&Config::new("127.0.0.1:0".parse().unwrap(), servers)).unwrap();
        let rules = PassiveCheck::default();
        let long_ago = control.published - 10 * rules.first;
        control.published = long_ago;
        control.members[1].monitor.eject(long_ago, &rules);
        assert_eq!(control.next_return(), Some(long_ago + rules.first));
        control.published = Instant::now();
        assert_eq!(control.next_return(), None);
    }
}

//! The agent's two loops on one host.
//!
//! One applies: it follows the directory and brings each VM's actuators to the desired allocation, every decrease
//! before any increase, and raises only what the directory gives leave to raise. The other reports: at once when an
//! actuator changed, because that unlocks the increases of others, and every second with usage, as the sign of life.
//! Neither waits for the other, so that a stuck actuator does not silence the host.

mod apply;
mod level;
mod report;
mod standing;
mod travel;

use crate::{Machine, MachineError, machine::chain};
use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use vibra_client::{ClientError, Directory, follow};
use vibra_model::{Amount, Applied, Command, HostId, HostSpec, Timestamp, VmId, VmSpec};
use vibra_policy::fvm::Fvm;

/// The agent's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentSettings {
    /// How often usage is reported, actuators are read back, and what failed is tried again. No sensor is waited for
    /// longer, and no longer pause is made while the directory cannot be reached: a host that is silent is taken for
    /// dead, with all its VMs.
    pub interval: Duration,
    /// The longest wait for one actuator.
    pub actuator_timeout: Duration,
    /// The longest wait for the directory's answer to a report.
    pub directory_timeout: Duration,
}

impl Default for AgentSettings {
    /// Every second; at most two seconds for an actuator or the directory.
    fn default() -> Self {
        AgentSettings {
            interval: Duration::from_secs(1),
            actuator_timeout: Duration::from_secs(2),
            directory_timeout: Duration::from_secs(2),
        }
    }
}

/// Drives the VMs of one host. It registers nothing: see [`register`].
///
/// ```
/// use std::sync::Arc;
/// use vibra_agent::{Agent, Catalogue, InProcessHost, MachineSpec, OriginSettings, register};
/// use vibra_client::{Directory, FakeDirectory};
/// use vibra_model::*;
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let megabytes = |n: u64| Resources { bandwidth: Some(BytesPerSec(n * 1_000_000)), ..Resources::NONE };
/// let directory = Arc::new(FakeDirectory::new());
/// let shop: CustomerId = "shop".parse().unwrap();
/// directory.run(Command::PutCustomer(Customer { id: shop.clone(), bounds: megabytes(10) })).unwrap();
///
/// let catalogue = Arc::new(Catalogue::new([("/", Bytes(5_000))]).unwrap());
/// let vm1 = MachineSpec { id: "vm1".parse().unwrap(), initial: megabytes(4) };
/// let host = InProcessHost::start(OriginSettings::default(), catalogue, vec![vm1]).await.unwrap();
/// let h1 = HostSpec { id: "h1".parse().unwrap(), capacity: megabytes(100) };
/// let vms = host.machines().iter().zip(1..).map(|(machine, order)| VmSpec {
///     id: machine.id().clone(),
///     customer: shop.clone(),
///     host: h1.id.clone(),
///     address: machine.address().to_owned(),
///     order,
///     weight: 1,
///     floor: megabytes(1),
///     initial: megabytes(4),
/// });
/// register(&*directory, h1.clone(), vms.collect::<Vec<_>>()).await.unwrap();
///
/// let agent = Agent::new(h1.id, host.machines().to_vec(), directory.clone());
/// let up = async {
///     let follower = vibra_client::follow(directory.clone());
///     let mut snapshots = follower.snapshots();
///     snapshots.wait_for(|snapshot| snapshot.vms().any(|vm| vm.state == VmState::Up)).await.unwrap();
/// };
/// agent.run(up).await;
/// # });
/// ```
pub struct Agent {
    host: HostId,
    machines: Vec<Arc<dyn Machine>>,
    directory: Arc<dyn Directory>,
    settings: AgentSettings,
    /// How VMs adapt how many requests they take at once; `None`: they do not.
    level: Option<Fvm>,
    clock: MonotonicClock,
    /// What is in force, as last read back: written by the applying loop, told by the reporting one.
    applied: Mutex<BTreeMap<VmId, Applied>>,
    /// The VMs of this host: likewise.
    duties: Mutex<BTreeMap<VmId, Duty>>,
    /// Something in `applied` or `duties` changed.
    changed: Notify,
}

/// What there is to say of a VM of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Duty {
    /// How it runs.
    Runs,
    /// That it was stopped here, so that it can go where it is to go.
    Left,
}

impl Agent {
    /// The agent of `host`. Of `machines` it drives those whose host the directory says it is: where several agents are
    /// given the same, VMs can move from one to the other ([`Command::MoveVm`]; the hosts need a pool in common).
    pub fn new(host: HostId, machines: Vec<Arc<dyn Machine>>, directory: Arc<dyn Directory>) -> Self {
        Agent {
            host,
            machines,
            directory,
            settings: AgentSettings::default(),
            level: None,
            clock: MonotonicClock::new(),
            applied: Mutex::default(),
            duties: Mutex::default(),
            changed: Notify::new(),
        }
    }

    /// The same agent with other times.
    #[must_use]
    pub fn with_settings(mut self, settings: AgentSettings) -> Self {
        self.settings = settings;
        self
    }

    /// The same agent, whose VMs are friendly: each finds out for itself how many requests it takes at once, and begins
    /// as `fresh`.
    #[must_use]
    pub fn with_level(mut self, fresh: Fvm) -> Self {
        self.level = Some(fresh);
        self
    }

    /// Works until `shutdown` is ready. The VMs then keep running with the allocation they have.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let follower = follow(self.directory.clone());
        tokio::select! {
            () = shutdown => {}
            () = apply::run(&self, follower.snapshots()) => {}
            () = report::run(&self) => {}
        }
    }

    /// Sets and reads back, in bounded time.
    async fn set(&self, machine: &dyn Machine, to: Amount) -> Result<Amount, MachineError> {
        self.bounded(machine, &format!("set its {} to {to}", to.resource()), machine.set(to)).await
    }

    /// Waits for an actuator of `machine` to do `what`, but not for ever.
    async fn bounded<T>(
        &self,
        machine: &dyn Machine,
        what: &str,
        work: impl Future<Output = Result<T, MachineError>>,
    ) -> Result<T, MachineError> {
        let after = self.settings.actuator_timeout;
        let stuck = |_| MachineError::Stuck { vm: machine.id().clone(), what: what.to_owned(), after };
        timeout(after, work).await.map_err(stuck)?
    }

    fn applied(&self) -> MutexGuard<'_, BTreeMap<VmId, Applied>> {
        // Entries are replaced whole: a panic leaves none half done.
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn duties(&self) -> MutexGuard<'_, BTreeMap<VmId, Duty>> {
        // Replaced whole, too.
        self.duties.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which VMs are this host's, and wakes the reporting loop if that is news.
    fn announce(&self, duties: BTreeMap<VmId, Duty>) {
        let before = std::mem::replace(&mut *self.duties(), duties.clone());
        if before != duties {
            self.changed.notify_one();
        }
    }

    /// Notes what is in force, and wakes the reporting loop if that is news.
    fn publish(&self, applied: BTreeMap<VmId, Applied>) {
        let news = {
            let mut current = self.applied();
            let news = *current != applied;
            *current = applied;
            news
        };
        if news {
            self.changed.notify_one();
        }
    }
}

/// Registers a host and its VMs with the directory; their customers must be known already.
///
/// # Errors
/// The [`ClientError`] of the first registration that the directory did not accept; those before it stand.
pub async fn register(directory: &dyn Directory, host: HostSpec, vms: Vec<VmSpec>) -> Result<(), ClientError> {
    directory.command(Command::PutHost(host)).await?;
    for vm in vms {
        directory.command(Command::PutVm(vm)).await?;
    }
    Ok(())
}

/// The time of day that never goes back: read once, then counted on.
struct MonotonicClock {
    start: Timestamp,
    began: Instant,
}

impl MonotonicClock {
    fn new() -> Self {
        // A clock set before 1970 is taken as 1970.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        MonotonicClock { start: Timestamp(0).after(since_epoch), began: Instant::now() }
    }

    fn now(&self) -> Timestamp {
        self.start.after(self.began.elapsed())
    }
}

/// Logs what is wrong when it begins, changes and ends, not each time that it is found so.
#[derive(Default)]
struct Troubles {
    current: BTreeMap<String, String>,
}

impl Troubles {
    /// Notes how `what` went, such as "bandwidth of VM a".
    fn note(&mut self, what: String, error: Option<&dyn std::error::Error>) {
        match error {
            Some(error) => {
                let why = chain(error);
                if self.current.get(&what) != Some(&why) {
                    tracing::warn!(what, "trouble: {why}");
                    self.current.insert(what, why);
                }
            }
            None => {
                if self.current.remove(&what).is_some() {
                    tracing::info!(what, "well again");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;

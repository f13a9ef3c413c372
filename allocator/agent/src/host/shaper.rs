//! Holds VMs to their rates where their traffic leaves a host: one HTB class a VM on a device, and counters before it.
//!
//! A shaper knows what it is to be ([`tree`]) and reads what the kernel has ([`in_force`]). Whenever it looks it mends
//! what somebody else changed. It never touches a queue that it did not make.

mod in_force;
mod tree;

#[cfg(test)]
mod tests;

pub(crate) use tree::{FIRST_CLASS, Hook, SEGMENT, Shaped, Uplink};

use super::command::{CommandError, Step, run_all};
use in_force::{InForce, Kernel};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};
use tree::{MOST_CLASSES, Tree, at_least_one, outward};
use vibra_model::{Bytes, BytesPerSec};

/// Why a shaper does not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ShaperError {
    /// The kernel cannot be asked.
    #[error("could not ask the kernel for the queues of {device}")]
    Kernel {
        /// Of which device.
        device: String,
        /// Why.
        source: io::Error,
    },
    /// There is no such device.
    #[error("there is no network device {device}: `ip link` lists those that there are")]
    NoDevice {
        /// Which one.
        device: String,
    },
    /// Somebody else's queue is there.
    #[error(
        "{device} has a root queue that somebody else made ({kind}, handle {handle:x}:) and that is left alone: remove it \
         (`tc qdisc del dev {device} root`), or name another uplink"
    )]
    Foreign {
        /// On which device.
        device: String,
        /// Its kind.
        kind: String,
        /// Its number.
        handle: u32,
    },
    /// More VMs than there are classes.
    #[error("{0} VMs are too many for one uplink: at most {MOST_CLASSES}")]
    TooMany(usize),
    /// The tools say that all is done, and the kernel has something else.
    #[error("what was changed on {device} did not come to be: {found}")]
    NotInForce {
        /// On which device.
        device: String,
        /// What is not as it should be.
        found: String,
    },
    /// An increase has to wait for a decrease that failed.
    #[error("not raised, because another VM could not be lowered")]
    Waits,
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What was counted of a VM, since its counters were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// What it sent to outside, counted before its queue (section 3.4.5).
    pub(crate) egress: Option<Bytes>,
    /// Packets dropped before its class.
    pub(crate) drops: Option<u64>,
}

/// What became of an order to set a rate: what was read back.
type Outcome = Result<BytesPerSec, Arc<ShaperError>>;

/// The shaper of one device. All methods block, for milliseconds.
#[derive(Debug)]
pub(crate) struct Shaper {
    uplink: Uplink,
    /// Rates that are to be set, by whoever comes first.
    orders: Mutex<BTreeMap<u16, BytesPerSec>>,
    work: Mutex<Work>,
}

#[derive(Debug, Default)]
struct Work {
    kernel: Option<Kernel>,
    /// What is to be in force.
    tree: Tree,
    /// What became of the newest order for each class.
    outcomes: BTreeMap<u16, Outcome>,
    /// What was read last, and when the reading began.
    newest: Option<(Instant, Arc<InForce>)>,
}

impl Shaper {
    /// The shaper of `uplink`, which nothing is made of yet.
    pub(crate) fn new(uplink: Uplink) -> Shaper {
        Shaper { uplink, orders: Mutex::default(), work: Mutex::default() }
    }

    /// What would be run to hold these VMs to their rates where nothing is there yet.
    pub(crate) fn dry_run(uplink: &Uplink, vms: impl IntoIterator<Item = (u16, Shaped)>) -> Vec<Step> {
        uplink.changes(&vms.into_iter().collect(), &InForce::default()).steps
    }

    /// Adds these VMs, by their classes, and makes what they need.
    ///
    /// # Errors
    /// [`ShaperError`]; some of it may have been made then, and is mended with the next look.
    pub(crate) fn put(&self, vms: impl IntoIterator<Item = (u16, Shaped)>) -> Result<(), ShaperError> {
        let mut work = self.lock();
        work.tree.extend(vms);
        if work.tree.len() > MOST_CLASSES {
            return Err(ShaperError::TooMany(work.tree.len()));
        }
        let in_force = self.read(&mut work)?;
        self.bring(&mut work, in_force).map(drop)
    }

    /// Takes a VM's class, filters and counters away.
    ///
    /// # Errors
    /// [`ShaperError`]; what is left then is taken away with the next look.
    pub(crate) fn take(&self, class: u16) -> Result<(), ShaperError> {
        let mut work = self.lock();
        work.tree.remove(&class);
        let in_force = self.read(&mut work)?;
        self.bring(&mut work, in_force).map(drop)
    }

    /// Takes over what an earlier agent left, makes what is missing and removes what is of no VM any more. A VM that has
    /// a class already, found by one of its addresses, keeps that and its rate; others get a new one. At no time is one
    /// that was limited not limited. Returns the classes, in the order of the VMs.
    ///
    /// # Errors
    /// [`ShaperError`] as of [`put`](Self::put).
    pub(crate) fn adopt(&self, vms: Vec<Shaped>) -> Result<Vec<u16>, ShaperError> {
        if vms.len() > MOST_CLASSES {
            return Err(ShaperError::TooMany(vms.len()));
        }
        let mut work = self.lock();
        let in_force = self.read(&mut work)?;
        let mut taken = BTreeSet::new();
        // Addresses may have gone from one VM to another: the first keeps the class.
        let keeps = |vm: &Shaped| in_force.class_of(&vm.addresses).filter(|class| taken.insert(*class));
        let kept: Vec<_> = vms.iter().map(keeps).collect();
        let mut free = (FIRST_CLASS..).filter(|class| !kept.contains(&Some(*class)));
        let classes: Vec<_> = kept.iter().map(|kept| kept.unwrap_or_else(|| free.next().expect("few VMs"))).collect();
        let adopted = vms.into_iter().zip(&classes).map(|(vm, class)| {
            let rate = vm.rate.map(|rate| in_force.class(*class).map_or(rate, |is| is.rate));
            (*class, Shaped { rate, ..vm })
        });
        work.tree = adopted.collect();
        self.bring(&mut work, in_force)?;
        Ok(classes)
    }

    /// Whether a shaper is there, made by this or an earlier agent.
    ///
    /// # Errors
    /// [`ShaperError`] where the kernel cannot be asked, or something else is there.
    pub(crate) fn is_there(&self) -> Result<bool, ShaperError> {
        Ok(self.read(&mut self.lock())?.root.is_some_and(|root| root.is_ours()))
    }

    /// Sets the rate of a class and returns what is then in force. Orders that come while others are carried out are
    /// carried out together, in one run of `tc`, decreases before increases.
    ///
    /// # Errors
    /// [`ShaperError`] where this class was not set, whatever became of the others.
    pub(crate) fn set(&self, class: u16, rate: BytesPerSec) -> Outcome {
        self.orders().insert(class, rate);
        let mut work = self.lock();
        let orders = std::mem::take(&mut *self.orders());
        if !orders.is_empty() {
            work.outcomes.retain(|class, _| !orders.contains_key(class));
            let outcomes = self.carry_out(&mut work, orders);
            work.outcomes.extend(outcomes);
        }
        let gone = || {
            let found = format!("there is no class {class:x} to have {rate}");
            Arc::new(ShaperError::NotInForce { device: self.uplink.device.clone(), found })
        };
        work.outcomes.get(&class).cloned().unwrap_or_else(|| Err(gone()))
    }

    /// The rate of a class; `None` where it is not limited.
    ///
    /// # Errors
    /// [`ShaperError`] where what is in force cannot be read, or not mended.
    pub(crate) fn rate(&self, class: u16) -> Result<Option<BytesPerSec>, ShaperError> {
        Ok(self.look()?.class(class).map(|class| class.rate))
    }

    /// The counters of a class.
    ///
    /// # Errors
    /// As [`rate`](Self::rate).
    pub(crate) fn counters(&self, class: u16) -> Result<Counters, ShaperError> {
        let in_force = self.look()?;
        let drops = in_force.class(class).map(|class| class.drops);
        Ok(Counters { egress: in_force.counter(&outward(class)), drops })
    }

    /// What is in force, read after the call began; what somebody else changed is mended first. Those who ask while it
    /// is being read share the next reading.
    ///
    /// # Errors
    /// [`ShaperError`] where it cannot be read or mended.
    fn look(&self) -> Result<Arc<InForce>, ShaperError> {
        let asked = Instant::now();
        let mut work = self.lock();
        if let Some((_, newest)) = work.newest.as_ref().filter(|(began, _)| *began >= asked) {
            return Ok(newest.clone());
        }
        let began = Instant::now();
        let in_force = self.read(&mut work)?;
        let found = self.uplink.changes(&work.tree, &in_force).found;
        if !found.is_empty() {
            tracing::warn!(device = self.uplink.device, found = found.join("; "), "the shaper was changed: mending it");
        }
        let in_force = Arc::new(self.bring(&mut work, in_force)?);
        work.newest = Some((began, in_force.clone()));
        Ok(in_force)
    }

    /// Takes everything away that this shaper made.
    ///
    /// # Errors
    /// [`ShaperError`] where something could not be removed.
    pub(crate) fn remove(&self) -> Result<(), ShaperError> {
        let mut work = self.lock();
        work.tree.clear();
        let in_force = self.read(&mut work)?;
        Ok(run_all(&self.uplink.removal_steps(&in_force))?)
    }

    /// The refusal of what looks like a shaper and is not known to be one.
    pub(crate) fn unknown(&self) -> ShaperError {
        let (device, kind) = (self.uplink.device.clone(), "htb".to_owned());
        ShaperError::Foreign { device, kind, handle: tree::MAJOR.into() }
    }

    /// What would be run to take away whatever is there.
    ///
    /// # Errors
    /// As [`is_there`](Self::is_there).
    pub(crate) fn dry_removal(&self) -> Result<Vec<Step>, ShaperError> {
        Ok(self.uplink.removal_steps(&self.read(&mut self.lock())?))
    }

    /// Lets go of the namespace, which cannot end as long as there are sockets in it.
    pub(crate) fn close(&self) {
        self.lock().kernel = None;
    }

    fn read(&self, work: &mut Work) -> Result<InForce, ShaperError> {
        let device = &self.uplink.device;
        let failed = |source| ShaperError::Kernel { device: device.clone(), source };
        let mut kernel = match work.kernel.take() {
            Some(kernel) => kernel,
            None => Kernel::open(self.uplink.namespace.as_deref()).map_err(failed)?,
        };
        let read = kernel.read(device, self.uplink.hook).map_err(failed)?;
        // One that failed may have half a list to tell: it is not asked again.
        work.kernel = Some(kernel);
        let in_force = read.ok_or_else(|| ShaperError::NoDevice { device: device.clone() })?;
        match in_force.root.as_ref().filter(|root| !root.is_ours() && root.handle != 0) {
            Some(root) => {
                let (kind, handle) = (root.kind.clone(), root.handle >> 16);
                Err(ShaperError::Foreign { device: device.clone(), kind, handle })
            }
            None => Ok(in_force),
        }
    }

    /// Makes the difference between what is to be and what is `in_force`, and returns what then is.
    fn bring(&self, work: &mut Work, in_force: InForce) -> Result<InForce, ShaperError> {
        let steps = self.uplink.changes(&work.tree, &in_force).steps;
        if steps.is_empty() {
            return Ok(in_force);
        }
        run_all(&steps)?;
        let in_force = self.read(work)?;
        match self.uplink.changes(&work.tree, &in_force).found {
            found if found.is_empty() => Ok(in_force),
            found => Err(ShaperError::NotInForce { device: self.uplink.device.clone(), found: found.join("; ") }),
        }
    }

    fn carry_out(&self, work: &mut Work, orders: BTreeMap<u16, BytesPerSec>) -> BTreeMap<u16, Outcome> {
        match self.set_all(work, &orders) {
            Ok(outcomes) => outcomes,
            Err(error) => {
                let error = Arc::new(error);
                orders.into_keys().map(|class| (class, Err(error.clone()))).collect()
            }
        }
    }

    /// Sets these rates in one run of `tc`. That ends at the first line that fails: then each of the others by itself,
    /// and no increase as long as a decrease is not in force.
    fn set_all(
        &self,
        work: &mut Work,
        orders: &BTreeMap<u16, BytesPerSec>,
    ) -> Result<BTreeMap<u16, Outcome>, ShaperError> {
        let before = self.read(work)?;
        let is = |class: u16| before.class(class).map_or(BytesPerSec(u64::MAX), |class| class.rate);
        let known = orders.iter().filter(|(class, _)| work.tree.contains_key(class));
        let mut rates: Vec<_> = known.map(|(class, rate)| (*class, at_least_one(*rate))).collect();
        rates.sort_by_key(|(class, rate)| rate.0.saturating_sub(is(*class).0));
        let mut failures = BTreeMap::new();
        if self.uplink.rates_step(&rates).run().is_err() {
            let mut lowered = true;
            for &(class, rate) in &rates {
                let raises = rate > is(class);
                let run = match raises && !lowered {
                    true => Err(ShaperError::Waits),
                    false => self.uplink.rates_step(&[(class, rate)]).run().map(drop).map_err(ShaperError::from),
                };
                if let Err(error) = run {
                    lowered &= raises;
                    failures.insert(class, Arc::new(error));
                }
            }
        }
        let after = self.read(work)?;
        let outcome = |&(class, _): &(u16, BytesPerSec)| match failures.get(&class) {
            Some(error) => Some((class, Err(error.clone()))),
            None => Some((class, Ok(after.class(class)?.rate))),
        };
        let outcomes: BTreeMap<_, Outcome> = rates.iter().filter_map(outcome).collect();
        for (class, got) in &outcomes {
            if let (Some(vm), Ok(got)) = (work.tree.get_mut(class), got) {
                vm.rate = Some(*got);
            }
        }
        work.newest = None;
        Ok(outcomes)
    }

    fn lock(&self) -> MutexGuard<'_, Work> {
        // What is noted of the kernel is compared with it at each look: a panic leaves nothing that is not seen.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn orders(&self) -> MutexGuard<'_, BTreeMap<u16, BytesPerSec>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The applying loop: from the directory's desired allocations to the actuators.

use super::{
    Agent, Troubles,
    standing::{Standing, decreases, increases, settles},
    travel::Travel,
};
use crate::{Machine, MachineError};
use futures_util::future::join_all;
use std::{collections::BTreeMap, sync::Arc};
use tokio::{
    sync::{Notify, watch},
    time::{MissedTickBehavior, interval},
};
use vibra_model::{Amount, Revision, Snapshot, VmId};

/// Runs as long as `snapshots` come.
pub(super) async fn run(agent: &Agent, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let mut applier = Applier {
        agent,
        standings: BTreeMap::new(),
        travels: BTreeMap::new(),
        troubles: Troubles::default(),
        seen: Revision(0),
        done: Arc::default(),
    };
    let done = applier.done.clone();
    let mut ticks = interval(agent.settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // The first tick is at once: what the actuators have is known before any is set.
            biased;
            // Actuators are read back although nobody asked: others may have moved them, or they may be stuck.
            _ = ticks.tick() => applier.read_back().await,
            () = done.notified() => {}
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        let snapshot = snapshots.borrow_and_update().clone();
        applier.bring_to(&snapshot).await;
    }
}

pub(super) struct Applier<'a> {
    pub(super) agent: &'a Agent,
    pub(super) standings: BTreeMap<VmId, Standing>,
    /// The VMs that are about to go elsewhere.
    pub(super) travels: BTreeMap<VmId, Travel>,
    pub(super) troubles: Troubles,
    seen: Revision,
    /// Told when something that is done beside this loop is done.
    pub(super) done: Arc<Notify>,
}

impl Applier<'_> {
    /// Takes over the actual values of all actuators that are this host's, or that nothing is known of yet.
    async fn read_back(&mut self) {
        let of_interest = |machine: &&Arc<dyn Machine>| {
            self.standings.get(machine.id()).is_none_or(|standing| standing.is_own() || !standing.is_known())
        };
        let reads = self.agent.machines.iter().filter(of_interest).map(|machine| async {
            let actual = self.agent.bounded(&**machine, "read its allocation", machine.allocation()).await;
            (machine.id().clone(), actual)
        });
        for (vm, actual) in join_all(reads.collect::<Vec<_>>()).await {
            self.troubles.note(format!("allocation of VM {vm}"), actual.as_ref().err().map(|error| error as _));
            // What cannot be read is what it was last known to be.
            if let Ok(actual) = actual {
                self.standings.entry(vm).or_default().has(actual);
            }
        }
    }

    /// Lowers what is to be lowered, everywhere, and then raises what may be raised.
    async fn bring_to(&mut self, snapshot: &Snapshot) {
        self.move_vms(snapshot).await;
        self.adopt(snapshot);
        // To adopt is news already: older allocations will not be carried out any more.
        self.publish();
        self.set_all(decreases(&self.standings)).await;
        self.publish();
        self.set_all(increases(&self.standings, snapshot)).await;
        self.publish();
    }

    /// Adopts what the snapshot desires. The follower hands out none that is older than the one before; so where a
    /// generation goes back, the VM was registered anew, or the directory lost its past.
    fn adopt(&mut self, snapshot: &Snapshot) {
        if snapshot.revision() < self.seen {
            tracing::warn!(from = %self.seen, to = %snapshot.revision(), "the directory lost its past: starting anew");
        }
        self.seen = snapshot.revision();
        for machine in &self.agent.machines {
            let id = machine.id();
            let own = snapshot.vm(id).filter(|vm| vm.host == self.agent.host);
            self.standings.entry(id.clone()).or_default().adopted = own.map(|vm| vm.desired);
        }
    }

    /// Sets these amounts, all VMs at once, and takes over what was read back.
    async fn set_all(&mut self, steps: Vec<(VmId, Amount)>) {
        let agent = self.agent;
        let sets = steps.into_iter().filter_map(|(vm, to)| {
            let machine = agent.machines.iter().find(|machine| *machine.id() == vm)?;
            Some(async move { (vm, to, agent.set(&**machine, to).await) })
        });
        for (vm, to, got) in join_all(sets.collect::<Vec<_>>()).await {
            let what = format!("{} of VM {vm}", to.resource());
            let off = got.as_ref().ok().filter(|actual| !settles(to, actual.raw()));
            let off = off.map(|&actual| MachineError::Off { vm: vm.clone(), asked: to, actual });
            let error = got.as_ref().err().or(off.as_ref());
            self.troubles.note(what, error.map(|error| error as _));
            let standing = self.standings.entry(vm.clone()).or_default();
            match got {
                Ok(actual) => {
                    tracing::debug!(%vm, %to, %actual, "allocation set");
                    standing.was_set(to, actual);
                }
                Err(_) => standing.may_have(to),
            }
        }
    }

    fn publish(&self) {
        let applied = self.standings.iter().filter_map(|(vm, standing)| Some((vm.clone(), standing.applied()?)));
        self.agent.publish(applied.collect());
    }
}

//! VMs that move: one host stops them, another starts them.
//!
//! A VM is its host's until that says it is down; then the directory makes it the other's. So at no time do two agents
//! drive it, nor does it run twice.

use super::{Duty, apply::Applier, standing::Standing};
use crate::Machine;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{Instant, timeout};
use vibra_model::{Snapshot, Vm, VmState};

/// How long a VM that is to go may finish the requests that it has.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest wait for a VM to stop or to start.
const LIFECYCLE: Duration = Duration::from_secs(30);

/// How far a VM is on its way elsewhere.
#[derive(Debug, Clone, Copy)]
pub(super) enum Travel {
    /// It gets no new requests since then, and finishes those that it has.
    Drains(Instant),
    /// It does not run any more.
    Left,
}

impl Applier<'_> {
    /// Stops the VMs that are to go elsewhere, starts those that came, and notes which are this host's.
    pub(super) async fn move_vms(&mut self, snapshot: &Snapshot) {
        let agent = self.agent;
        let mut duties = BTreeMap::new();
        for machine in &agent.machines {
            let Some(vm) = snapshot.vm(machine.id()).filter(|vm| vm.host == agent.host) else {
                self.travels.remove(machine.id());
                continue;
            };
            let duty = match vm.moving {
                Some(_) => self.see_off(&**machine).await,
                None => self.keep(&**machine, vm).await,
            };
            duties.insert(vm.id.clone(), duty);
        }
        agent.announce(duties);
    }

    /// Stops a VM once it has nothing left to do, or has had its time for that.
    async fn see_off(&mut self, machine: &dyn Machine) -> Duty {
        let id = machine.id();
        let since = match self.travels.get(id) {
            Some(Travel::Left) => return Duty::Left,
            Some(Travel::Drains(since)) => *since,
            // The dispatchers have to hear of it first.
            None => {
                tracing::info!(vm = %id, "it is to go to another host: it finishes what it has");
                self.travels.insert(id.clone(), Travel::Drains(Instant::now()));
                return Duty::Runs;
            }
        };
        let reading = self.agent.bounded(machine, "read its sensors", machine.read()).await;
        let idle = reading.is_ok_and(|reading| reading.in_flight == Some(0));
        if !idle && since.elapsed() < DRAIN {
            return Duty::Runs;
        }
        let stopped = timeout(LIFECYCLE, machine.stop()).await.unwrap_or_else(|_| Err(stuck(machine, "stop")));
        self.troubles.note(format!("stopping VM {id}"), stopped.as_ref().err().map(|error| error as _));
        if stopped.is_err() {
            return Duty::Runs;
        }
        tracing::info!(vm = %id, "stopped: another host has it now");
        self.travels.insert(id.clone(), Travel::Left);
        Duty::Left
    }

    /// Starts a VM that has just come, or that was stopped to go and now stays.
    async fn keep(&mut self, machine: &dyn Machine, vm: &Vm) -> Duty {
        let agent = self.agent;
        let comes = !self.standings.get(&vm.id).is_some_and(Standing::is_own);
        if comes {
            // Another agent may have set its actuators since they were last looked at.
            let actual = agent.bounded(machine, "read its allocation", machine.allocation()).await;
            let standing = self.standings.entry(vm.id.clone()).or_default();
            *standing = Standing::default();
            if let Ok(actual) = actual {
                standing.has(actual);
            }
        }
        let stays = matches!(self.travels.remove(&vm.id), Some(Travel::Left));
        if !(stays || comes && vm.state == VmState::Starting) {
            return Duty::Runs;
        }
        let runs = agent.bounded(machine, "tell its state", async { Ok(machine.state().await) }).await;
        if matches!(runs, Ok(VmState::Down)) {
            let started = timeout(LIFECYCLE, machine.start()).await.unwrap_or_else(|_| Err(stuck(machine, "start")));
            self.troubles.note(format!("starting VM {}", vm.id), started.as_ref().err().map(|error| error as _));
            tracing::info!(vm = %vm.id, "started cold");
        }
        Duty::Runs
    }
}

fn stuck(machine: &dyn Machine, what: &str) -> crate::MachineError {
    crate::MachineError::Stuck { vm: machine.id().clone(), what: what.to_owned(), after: LIFECYCLE }
}

//! VMs that move: one host lets them go, as they run or stopped, and another goes on with them.
//!
//! A VM is its host's until that says it has left; then the directory makes it the other's. So at no time do two agents
//! drive it, nor does it run twice.

use super::{Duty, apply::Applier, standing::Standing};
use crate::{
    Machine, MachineError,
    machine::{Migration, Moved},
};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use vibra_model::{HostId, Snapshot, Vm, VmId, VmState};

/// How long a VM that is to go may finish the requests that it has, if they cannot go with it.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest wait for a VM to go or to start: an emulated one takes its time to boot.
const LIFECYCLE: Duration = Duration::from_secs(150);

/// What is being done for a VM, beside what is done for the others.
type Work<T> = JoinHandle<Result<T, MachineError>>;

/// How far a VM is on its way.
pub(super) enum Travel {
    /// It gets no new requests since then, and finishes those that it has.
    Drains(Instant),
    /// It goes.
    Goes(Work<Moved>),
    /// It is not here any more.
    Left,
    /// It has come, and is being started.
    Comes(Work<()>),
}

impl Applier<'_> {
    /// Sees off the VMs that are to go elsewhere, starts those that came, and notes which are this host's.
    pub(super) async fn move_vms(&mut self, snapshot: &Snapshot) {
        let agent = self.agent;
        let mut duties = BTreeMap::new();
        for machine in &agent.machines {
            let Some(vm) = snapshot.vm(machine.id()).filter(|vm| vm.host == agent.host) else {
                self.travels.remove(machine.id());
                continue;
            };
            let duty = match &vm.moving {
                Some(to) => self.see_off(machine, to).await,
                None => self.keep(machine, vm).await,
            };
            duties.insert(vm.id.clone(), duty);
        }
        agent.announce(duties);
    }

    /// Has a VM go, once it has nothing left to do that cannot go with it, or has had its time for that.
    async fn see_off(&mut self, machine: &Arc<dyn Machine>, to: &HostId) -> Duty {
        let id = machine.id();
        match self.travels.remove(id) {
            Some(Travel::Left) => self.note(id, Travel::Left, Duty::Left),
            Some(Travel::Goes(work)) => self.follow(id, work).await,
            Some(Travel::Drains(since)) => {
                let reading = self.agent.bounded(&**machine, "read its sensors", machine.read()).await;
                let idle = reading.is_ok_and(|reading| reading.in_flight == Some(0));
                if !idle && !machine.moves_live() && since.elapsed() < DRAIN {
                    return self.note(id, Travel::Drains(since), Duty::Runs);
                }
                let (going, to) = (machine.clone(), to.clone());
                let work = self.begin(machine, "move", async move { going.move_to(&to).await });
                self.note(id, Travel::Goes(work), Duty::Runs)
            }
            // The dispatchers have to hear of it first.
            None | Some(Travel::Comes(_)) => {
                tracing::info!(vm = %id, %to, "it is to go to another host");
                self.note(id, Travel::Drains(Instant::now()), Duty::Runs)
            }
        }
    }

    fn note(&mut self, vm: &VmId, travel: Travel, duty: Duty) -> Duty {
        self.travels.insert(vm.clone(), travel);
        duty
    }

    /// Does `work` beside everything else; the applying loop looks again when it is done.
    fn begin<T: Send + 'static>(
        &self,
        machine: &Arc<dyn Machine>,
        what: &str,
        work: impl Future<Output = Result<T, MachineError>> + Send + 'static,
    ) -> Work<T> {
        let (vm, what, done) = (machine.id().clone(), what.to_owned(), self.done.clone());
        tokio::spawn(async move {
            let stuck = |_| Err(MachineError::Stuck { vm, what, after: LIFECYCLE });
            let result = timeout(LIFECYCLE, work).await.unwrap_or_else(stuck);
            done.notify_one();
            result
        })
    }

    /// Looks whether a VM has gone.
    async fn follow(&mut self, id: &VmId, work: Work<Moved>) -> Duty {
        if !work.is_finished() {
            return self.note(id, Travel::Goes(work), Duty::Runs);
        }
        let moved = work.await.unwrap_or_else(|error| Err(MachineError::failed(id, "move", error)));
        self.troubles.note(format!("moving VM {id}"), moved.as_ref().err().map(|error| error as _));
        match moved {
            Err(_) => return Duty::Runs,
            Ok(Moved::Live(Migration { duration, downtime, bytes })) => {
                tracing::info!(vm = %id, ?duration, ?downtime, %bytes, "moved as it ran: another host has it now");
            }
            Ok(Moved::Stopped { why: Some(why) }) => {
                tracing::warn!(vm = %id, why, "stopped to move: could not as it ran")
            }
            Ok(Moved::Stopped { why: None }) => tracing::info!(vm = %id, "stopped: another host has it now"),
        }
        self.note(id, Travel::Left, Duty::Left)
    }

    /// Starts a VM that has just come, or that was to go and now stays.
    async fn keep(&mut self, machine: &Arc<dyn Machine>, vm: &Vm) -> Duty {
        let (agent, id) = (self.agent, machine.id());
        let comes = !self.standings.get(id).is_some_and(Standing::is_own);
        if comes {
            // Another agent may have set its actuators since they were last looked at.
            let actual = agent.bounded(&**machine, "read its allocation", machine.allocation()).await;
            let standing = self.standings.entry(id.clone()).or_default();
            *standing = Standing::default();
            if let Ok(actual) = actual {
                standing.has(actual);
            }
        }
        let stays = match self.travels.remove(id) {
            Some(Travel::Goes(work)) => {
                machine.stay();
                // It may have left before it heard of that, and is looked after below then.
                self.follow(id, work).await == Duty::Left && self.travels.remove(id).is_some()
            }
            Some(Travel::Comes(work)) => return self.await_start(id, work).await,
            Some(Travel::Left) => true,
            Some(Travel::Drains(_)) | None => false,
        };
        if !(stays || comes && vm.state == VmState::Starting) {
            return Duty::Runs;
        }
        let runs = agent.bounded(&**machine, "tell its state", async { Ok(machine.state().await) }).await;
        if matches!(runs, Ok(VmState::Down)) {
            let coming = machine.clone();
            let work = self.begin(machine, "start", async move { coming.start().await });
            return self.note(id, Travel::Comes(work), Duty::Runs);
        }
        Duty::Runs
    }

    /// Looks whether a VM that came was started.
    async fn await_start(&mut self, id: &VmId, work: Work<()>) -> Duty {
        if !work.is_finished() {
            return self.note(id, Travel::Comes(work), Duty::Runs);
        }
        let started = work.await.unwrap_or_else(|error| Err(MachineError::failed(id, "start", error)));
        self.troubles.note(format!("starting VM {id}"), started.as_ref().err().map(|error| error as _));
        if started.is_ok() {
            tracing::info!(vm = %id, "started cold");
        }
        Duty::Runs
    }
}

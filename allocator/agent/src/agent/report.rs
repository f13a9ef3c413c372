//! The reporting loop: from sensors and read-back actuators to the directory.

use super::{Agent, Duty, Troubles, level::Levels};
use crate::{Machine, MachineError, Reading};
use futures_util::{
    future::join_all,
    stream::{FuturesUnordered, StreamExt},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use vibra_client::ClientError;
use vibra_model::{Command, Timestamp, UsageReport, UsageSample, VmId, VmReport, VmState};

/// Runs for ever.
pub(super) async fn run(agent: &Agent) {
    let levels = Levels::new(agent.level.clone());
    let (last, troubles) = (BTreeMap::new(), Troubles::default());
    let mut reporter = Reporter { agent, last, running: BTreeSet::new(), levels, troubles, failures: 0 };
    let mut ticks = interval(agent.settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let heard = tokio::select! {
            _ = ticks.tick() => reporter.sense().await,
            // Usage waits for its interval; what changed must not, as others wait for it.
            () = agent.changed.notified() => BTreeMap::new(),
            // Nor must a failure: others take over.
            vm = reporter.one_ended() => reporter.failed(vm).await,
        };
        let began = Instant::now();
        reporter.report(heard).await;
        sleep_until(began + reporter.back_off()).await;
    }
}

/// What a VM said of itself in time.
#[derive(Default)]
struct Heard {
    usage: Option<UsageSample>,
    state: Option<VmState>,
}

struct Reporter<'a> {
    agent: &'a Agent,
    /// The last reading of each VM, and when it was made.
    last: BTreeMap<VmId, (Timestamp, Reading)>,
    /// The VMs of this host that ran when they were last asked.
    running: BTreeSet<VmId>,
    levels: Levels,
    troubles: Troubles,
    /// Reports that failed, in a row.
    failures: u32,
}

impl Reporter<'_> {
    /// The state of each VM, and what it used since the last time; none at its first.
    async fn sense(&mut self) -> BTreeMap<VmId, Heard> {
        let agent = self.agent;
        let patience = agent.settings.interval;
        let duties = agent.duties().clone();
        // As long as nothing is known of whose they are they are all read, so that the first interval is not lost.
        let is_own = |vm: &VmId| duties.is_empty() || duties.get(vm) == Some(&Duty::Runs);
        let own = agent.machines.iter().filter(|machine| is_own(machine.id()));
        let reads = own.map(|machine| async move {
            let read = async {
                let reading = timeout(patience, machine.read()).await.unwrap_or_else(|_| {
                    let what = "read its sensors".to_owned();
                    Err(MachineError::Stuck { vm: machine.id().clone(), what, after: patience })
                });
                (agent.clock.now(), reading)
            };
            let (read, state) = tokio::join!(read, timeout(patience, machine.state()));
            (machine.id().clone(), read, state.ok())
        });
        let mut heard = BTreeMap::new();
        for (vm, (at, reading), state) in join_all(reads.collect::<Vec<_>>()).await {
            self.troubles.note(format!("sensors of VM {vm}"), reading.as_ref().err().map(|error| error as _));
            let usage = self.sample_of(&vm, at, reading);
            self.adapt(&vm, usage.as_ref());
            match state {
                Some(state) if state != VmState::Down && self.is_own(&vm) => drop(self.running.insert(vm.clone())),
                _ => drop(self.running.remove(&vm)),
            }
            heard.insert(vm, Heard { usage, state });
        }
        heard
    }

    fn is_own(&self, vm: &VmId) -> bool {
        self.agent.duties().get(vm) == Some(&Duty::Runs)
    }

    /// The next VM of this host that ends by itself. One that comes from elsewhere is not looked at before it runs here.
    async fn one_ended(&self) -> VmId {
        let running = |machine: &&Arc<dyn Machine>| self.running.contains(machine.id()) && self.is_own(machine.id());
        let running = self.agent.machines.iter().filter(running);
        let mut ends: FuturesUnordered<_> = running
            .map(|machine| async {
                machine.ended().await;
                machine.id().clone()
            })
            .collect();
        match ends.next().await {
            Some(vm) => vm,
            None => std::future::pending().await,
        }
    }

    /// What there is to say of a VM that ended; nothing if it runs again.
    async fn failed(&mut self, vm: VmId) -> BTreeMap<VmId, Heard> {
        // It is waited for again once it was seen to run.
        self.running.remove(&vm);
        let Some(machine) = self.agent.machines.iter().find(|machine| *machine.id() == vm) else {
            return BTreeMap::new();
        };
        match timeout(self.agent.settings.interval, machine.state()).await {
            Ok(VmState::Down) if self.is_own(&vm) => {
                tracing::warn!(%vm, "it has ended by itself");
                [(vm, Heard { usage: None, state: Some(VmState::Down) })].into()
            }
            _ => BTreeMap::new(),
        }
    }

    fn sample_of(&mut self, vm: &VmId, at: Timestamp, reading: Result<Reading, MachineError>) -> Option<UsageSample> {
        let Ok(reading) = reading else {
            // What happened while nothing could be read is of no interval.
            self.last.remove(vm);
            self.levels.forget(vm);
            return None;
        };
        let (from, earlier) = self.last.insert(vm.clone(), (at, reading))?;
        if earlier.life != reading.life {
            self.levels.forget(vm);
        }
        Some(reading.since(&earlier, from, at))
    }

    /// Has `vm` find out how many requests it takes at once.
    fn adapt(&mut self, vm: &VmId, usage: Option<&UsageSample>) {
        let Some(usage) = usage else { return };
        let adapted = self.levels.observe(vm, usage);
        self.troubles.note(format!("level of VM {vm}"), adapted.as_ref().err().map(|error| error as _));
    }

    /// Reports what is in force, and what was heard of the VMs.
    async fn report(&mut self, mut heard: BTreeMap<VmId, Heard>) {
        let applied = self.agent.applied().clone();
        let vms = self.agent.duties().clone().into_iter().map(|(vm, duty)| match duty {
            Duty::Runs => {
                let Heard { usage, state } = heard.remove(&vm).unwrap_or_default();
                VmReport { applied: applied.get(&vm).copied(), level: self.levels.of(&vm), vm, usage, state }
            }
            Duty::Left => VmReport { vm, usage: None, applied: None, level: None, state: Some(VmState::Down) },
        });
        let sent = self.send(UsageReport { host: self.agent.host.clone(), vms: vms.collect() }).await;
        self.troubles.note("report to the directory".to_owned(), sent.as_ref().err().map(|error| error as _));
        self.failures = match sent {
            Ok(()) => 0,
            Err(_) => {
                // What changed was not told yet.
                self.agent.changed.notify_one();
                self.failures.saturating_add(1)
            }
        };
    }

    async fn send(&self, report: UsageReport) -> Result<(), ClientError> {
        let after = self.agent.settings.directory_timeout;
        let silent = |_| ClientError::Silent { address: "its client".to_owned(), after };
        timeout(after, self.agent.directory.command(Command::Report(report))).await.map_err(silent)?.map(drop)
    }

    /// How far apart reports begin after so many failures: none after none, then a tenth of the interval, doubled
    /// with each.
    fn back_off(&self) -> Duration {
        let interval = self.agent.settings.interval;
        match self.failures.checked_sub(1) {
            None => Duration::ZERO,
            Some(doublings) => (interval / 10).saturating_mul(2u32.saturating_pow(doublings)).min(interval),
        }
    }
}

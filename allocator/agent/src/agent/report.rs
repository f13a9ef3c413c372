//! The reporting loop: from sensors and read-back actuators to the directory.

use super::{Agent, Troubles};
use crate::{Machine, MachineError, Reading};
use futures_util::future::join_all;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use vibra_client::ClientError;
use vibra_model::{Command, Timestamp, UsageReport, UsageSample, VmId, VmReport, VmState};

/// Runs for ever.
pub(super) async fn run(agent: &Agent) {
    let mut reporter = Reporter { agent, last: BTreeMap::new(), troubles: Troubles::default(), failures: 0 };
    let mut ticks = interval(agent.settings.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let usage = tokio::select! {
            _ = ticks.tick() => reporter.sample().await,
            // Usage waits for its interval; what changed must not, as others wait for it.
            () = agent.changed.notified() => BTreeMap::new(),
        };
        let pause = reporter.report(usage).await;
        sleep(pause).await;
    }
}

struct Reporter<'a> {
    agent: &'a Agent,
    /// The last reading of each VM, and when it was made.
    last: BTreeMap<VmId, (Timestamp, Reading)>,
    troubles: Troubles,
    /// Reports that failed, in a row.
    failures: u32,
}

impl Reporter<'_> {
    /// What each VM used since the last time; none at its first.
    async fn sample(&mut self) -> BTreeMap<VmId, UsageSample> {
        let reads = self.agent.machines.iter().map(|machine| async {
            let reading = self.agent.bounded(&**machine, "read its sensors", machine.read()).await;
            (machine.id().clone(), self.agent.clock.now(), reading)
        });
        let mut samples = BTreeMap::new();
        for (vm, at, reading) in join_all(reads).await {
            self.troubles.note(format!("sensors of VM {vm}"), reading.as_ref().err().map(|error| error as _));
            if let Some(sample) = self.sample_of(&vm, at, reading) {
                samples.insert(vm, sample);
            }
        }
        samples
    }

    fn sample_of(&mut self, vm: &VmId, at: Timestamp, reading: Result<Reading, MachineError>) -> Option<UsageSample> {
        let Ok(reading) = reading else {
            // What happened while nothing could be read is of no interval.
            self.last.remove(vm);
            return None;
        };
        let (from, earlier) = self.last.insert(vm.clone(), (at, reading))?;
        Some(reading.since(&earlier, from, at))
    }

    /// Reports, and says how long to wait before the next report.
    async fn report(&mut self, mut usage: BTreeMap<VmId, UsageSample>) -> Duration {
        let agent = self.agent;
        let applied = agent.applied().clone();
        let vms = agent.machines.iter().map(|machine| {
            let vm = machine.id().clone();
            let (usage, applied) = (usage.remove(&vm), applied.get(&vm).copied());
            async move {
                let state = state_of(agent, &**machine).await;
                VmReport { vm, usage, applied, state }
            }
        });
        let vms = join_all(vms.collect::<Vec<_>>()).await;
        let sent = self.send(UsageReport { host: self.agent.host.clone(), vms }).await;
        self.troubles.note("report to the directory".to_owned(), sent.as_ref().err().map(|error| error as _));
        match sent {
            Ok(()) => {
                self.failures = 0;
                Duration::ZERO
            }
            Err(_) => {
                // What changed was not told yet.
                self.agent.changed.notify_one();
                self.failures = self.failures.saturating_add(1);
                self.back_off()
            }
        }
    }

    async fn send(&self, report: UsageReport) -> Result<(), ClientError> {
        let after = self.agent.settings.directory_timeout;
        let silent = |_| ClientError::Silent { address: "its client".to_owned(), after };
        timeout(after, self.agent.directory.command(Command::Report(report))).await.map_err(silent)?.map(drop)
    }

    /// The pause after so many failures: a tenth of the interval, doubled with each.
    fn back_off(&self) -> Duration {
        let doublings = 2u32.saturating_pow(self.failures.saturating_sub(1));
        let pause = (self.agent.settings.interval / 10).saturating_mul(doublings);
        pause.min(self.agent.settings.longest_back_off)
    }
}

/// The machine's state; `None` where it does not say in time.
async fn state_of(agent: &Agent, machine: &dyn Machine) -> Option<VmState> {
    timeout(agent.settings.machine_timeout, machine.state()).await.ok()
}

//! One VM, as the agent drives it.

use async_trait::async_trait;
use std::{error::Error, time::Duration};
use vibra_model::{Amount, Bytes, BytesPerSec, HostId, Resource, Resources, Timestamp, UsageSample, VmId, VmState};

/// What a host needs to know of a VM to make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineSpec {
    /// Which VM.
    pub id: VmId,
    /// What it has at its first start; `None`: that resource is neither limited nor managed.
    pub initial: Resources,
}

/// A VM's sensors, actuators and lifecycle.
///
/// All methods may be called at any time, also from several tasks; those that wait do so for a bounded time.
#[async_trait]
pub trait Machine: Send + Sync {
    /// Which VM this is.
    fn id(&self) -> &VmId;

    /// Where it serves HTTP: `host:port`. Stays the same over restarts.
    fn address(&self) -> &str;

    /// Starts it with cold caches and fresh counters, and waits until it serves. It keeps its allocation. Nothing
    /// happens if it runs already.
    ///
    /// # Errors
    /// [`MachineError::Failed`] where it does not come up; nothing is left running then.
    async fn start(&self) -> Result<(), MachineError>;

    /// Ends it at once, with its connections, and waits until it is gone. Nothing happens if it does not run.
    ///
    /// # Errors
    /// [`MachineError::Failed`] where something of it could not be ended.
    async fn stop(&self) -> Result<(), MachineError>;

    /// Takes it to `host`, whose agent drives it from then on: while it runs, where its kind can do that. Where not it is
    /// stopped, and [`start`](Self::start) starts it there.
    ///
    /// # Errors
    /// [`MachineError::Failed`] where it could not even be stopped, or was told to [`stay`](Self::stay): it is here.
    async fn move_to(&self, host: &HostId) -> Result<Moved, MachineError> {
        let _ = host;
        self.stop().await?;
        Ok(Moved::Stopped { why: None })
    }

    /// Whether it goes on with what it does while it moves.
    fn moves_live(&self) -> bool {
        false
    }

    /// Has it stay, if it is on its way elsewhere and has not arrived.
    fn stay(&self) {}

    /// Whether it serves, as far as the host can tell.
    async fn state(&self) -> VmState;

    /// Waits until it does not run, and sees to it that nothing of it does; returns at once if it does not. So a failure
    /// is known when it happens, and not at the next look at its state. By default it never says so.
    async fn ended(&self) {
        std::future::pending().await
    }

    /// Gives it so much of one resource, and returns what the actuator then reads back. One that does not run has it
    /// when it starts. Where the actuator is coarser
    /// than the unit it rounds down: a VM never gets more than was asked for.
    ///
    /// # Errors
    /// [`MachineError::NotManaged`] where it has no such actuator, [`MachineError::Failed`] where that did not work.
    async fn set(&self, amount: Amount) -> Result<Amount, MachineError>;

    /// What it has, as its actuators read back; `None` where it has no actuator.
    ///
    /// # Errors
    /// [`MachineError::Failed`] where an actuator cannot be read.
    async fn allocation(&self) -> Result<Resources, MachineError>;

    /// What its sensors say now. Reading changes nothing.
    ///
    /// # Errors
    /// [`MachineError::Failed`] where the VM does not run or no sensor can be read. One sensor that cannot be read
    /// is `None`.
    async fn read(&self) -> Result<Reading, MachineError>;
}

/// How a VM came to another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// As it ran.
    Live(Migration),
    /// It was stopped, and is to be started there.
    Stopped {
        /// Why it did not go as it ran; `None`: its kind cannot.
        why: Option<String>,
    },
}

/// What it took to move a VM as it ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// From the first byte copied to the last.
    pub duration: Duration,
    /// How long it was halted.
    pub downtime: Option<Duration>,
    /// What was copied.
    pub bytes: Bytes,
}

/// What went wrong with a VM.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// There is no actuator for it.
    #[error("VM {vm} has no actuator for {resource}: give it an initial amount, or leave it out of the allocation")]
    NotManaged {
        /// Which VM.
        vm: VmId,
        /// Of which resource.
        resource: Resource,
    },
    /// Something failed.
    #[error("VM {vm}: could not {what}")]
    Failed {
        /// Which VM.
        vm: VmId,
        /// What was tried.
        what: String,
        /// What came in between.
        source: Box<dyn Error + Send + Sync>,
    },
    /// An actuator did not fail, but has something else than it was asked for.
    #[error("VM {vm} was asked to have {asked} of {} and has {actual}: its actuator is stuck or too coarse", asked.resource())]
    Off {
        /// Which VM.
        vm: VmId,
        /// What was asked for.
        asked: Amount,
        /// What was read back.
        actual: Amount,
    },
    /// It took too long.
    #[error("VM {vm}: could not {what} within {} ms", after.as_millis())]
    Stuck {
        /// Which VM.
        vm: VmId,
        /// What was tried.
        what: String,
        /// How long was waited.
        after: Duration,
    },
}

impl MachineError {
    /// `what` could not be done to `vm` because of `source`.
    pub fn failed(vm: &VmId, what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        MachineError::Failed { vm: vm.clone(), what: what.into(), source: source.into() }
    }
}

/// An error with its causes, for a log line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// What a VM's sensors say at one moment. Counters count since its start; what it has no sensor for is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// How often the VM was started. Counters of different lives have nothing to do with each other.
    pub life: u64,
    /// Egress to outside, counted where it is enqueued, before the shaper (section 3.4.5).
    pub egress: Option<Bytes>,
    /// CPU time used.
    pub cpu_time: Option<Duration>,
    /// Memory in use now.
    pub memory_in_use: Option<Bytes>,
    /// Estimated working set now (section 3.4.6).
    pub working_set: Option<Bytes>,
    /// Requests completed.
    pub requests: Option<u64>,
    /// Requests in flight now.
    pub in_flight: Option<u64>,
    /// Of the completed requests, those whose service times are known.
    pub timed: Option<u64>,
    /// The sum of these service times.
    pub service_time: Option<Duration>,
    /// Packets or requests dropped.
    pub drops: Option<u64>,
    /// Disk blocks of 512 bytes read.
    pub disk_blocks: Option<u64>,
    /// Bytes moved to and from swap.
    pub swapped: Option<Bytes>,
}

impl Reading {
    /// What was used from `earlier`, read at `from`, until this reading, made at `at`. What is measured over an
    /// interval is `None` where there is none: the VM was restarted in it, a counter went back, or no time passed.
    pub fn since(&self, earlier: &Reading, from: Timestamp, at: Timestamp) -> UsageSample {
        let same = self.life == earlier.life;
        let count = |now: Option<u64>, then: Option<u64>| now?.checked_sub(then?).filter(|_| same);
        let time = |now: Option<Duration>, then: Option<Duration>| now?.checked_sub(then?).filter(|_| same);
        let requests = count(self.requests, earlier.requests);
        let seconds = at.since(from).as_secs_f64();
        let rate = |bytes: u64| (seconds > 0.0).then(|| BytesPerSec((bytes as f64 / seconds).round() as u64));
        UsageSample {
            at,
            egress: count(self.egress.map(|x| x.0), earlier.egress.map(|x| x.0)).and_then(rate),
            cpu_time: time(self.cpu_time, earlier.cpu_time),
            memory_in_use: self.memory_in_use,
            working_set: self.working_set,
            requests,
            in_flight: self.in_flight,
            service_time: mean(time(self.service_time, earlier.service_time), count(self.timed, earlier.timed)),
            drops: count(self.drops, earlier.drops),
            disk_blocks: count(self.disk_blocks, earlier.disk_blocks),
            swapped: count(self.swapped.map(|x| x.0), earlier.swapped.map(|x| x.0)).map(Bytes),
            interval: (seconds > 0.0).then(|| at.since(from)),
            upstream: None,
        }
    }
}

/// The mean of `count` times that sum to `sum`; none of no times.
fn mean(sum: Option<Duration>, count: Option<u64>) -> Option<Duration> {
    let count = count.filter(|&count| count > 0)?;
    Some(sum?.div_f64(count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Timestamp = Timestamp(1_000_000);

    fn reading(life: u64, egress: u64, requests: u64, busy_ms: u64) -> Reading {
        Reading {
            life,
            egress: Some(Bytes(egress)),
            requests: Some(requests),
            timed: Some(requests),
            service_time: Some(Duration::from_millis(busy_ms)),
            ..Reading::default()
        }
    }

    #[test]
    fn a_sample_is_the_difference_of_two_readings() {
        let sample = reading(1, 5_000, 14, 180).since(&reading(1, 1_000, 10, 100), SECOND, Timestamp(3_000_000));
        assert_eq!(sample.at, Timestamp(3_000_000));
        assert_eq!(sample.egress, Some(BytesPerSec(2_000)));
        assert_eq!(sample.requests, Some(4));
        assert_eq!(sample.service_time, Some(Duration::from_millis(20)));
        assert_eq!((sample.drops, sample.cpu_time, sample.disk_blocks), (None, None, None));
    }

    #[test]
    fn the_mean_service_time_is_of_those_that_are_known() {
        let timed = |count, reading| Reading { timed: Some(count), ..reading };
        let sample =
            timed(4, reading(1, 0, 14, 180)).since(&timed(2, reading(1, 0, 10, 100)), SECOND, Timestamp(3_000_000));
        assert_eq!((sample.requests, sample.service_time), (Some(4), Some(Duration::from_millis(40))));
        let silent =
            timed(2, reading(1, 0, 14, 100)).since(&timed(2, reading(1, 0, 10, 100)), SECOND, Timestamp(3_000_000));
        assert_eq!((silent.requests, silent.service_time), (Some(4), None));
    }

    #[test]
    fn what_has_no_interval_is_not_measured() {
        let restarted = reading(2, 9_000, 9, 90).since(&reading(1, 0, 0, 0), SECOND, Timestamp(2_000_000));
        let reversed = reading(1, 0, 0, 0).since(&reading(1, 9_000, 9, 90), SECOND, Timestamp(2_000_000));
        let instant = reading(1, 9_000, 0, 0).since(&reading(1, 0, 0, 0), SECOND, SECOND);
        for sample in [restarted, reversed, instant] {
            assert_eq!((sample.egress, sample.service_time), (None, None), "{sample:?}");
        }
        assert_eq!((restarted.requests, reversed.requests, instant.requests), (None, None, Some(0)));
    }
}

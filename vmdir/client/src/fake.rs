//! A directory in memory, for tests: the real rules, and failures on request.

use crate::{ClientError, Directory, EventSource, Watch};
use async_trait::async_trait;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use vibra_model::{
    Command, Event, Rejection, Revision, Snapshot, Timestamp, UsageReport, UsageSample, UsageWindow, VmId,
    api::Accepted,
};

/// How many commits the fake remembers: a watch from further back is told to resync.
const HISTORY: usize = 1024;
/// How many samples the fake remembers of each VM.
const SAMPLES: usize = 1024;

/// What a [`FakeDirectory`] can be told to fail at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`Directory::snapshot`].
    Snapshot,
    /// [`Directory::watch`], before the first commit.
    Watch,
    /// [`Watch::next`] of every running watch.
    Next,
    /// [`Directory::usage`].
    Usage,
    /// [`Directory::command`]; nothing is changed.
    Command,
}

/// A directory in memory. Clones are the same directory. It knows no roles and no time: hosts fall silent when
/// [`Command::HostSilent`] says so.
#[derive(Debug, Clone)]
pub struct FakeDirectory {
    state: Arc<Mutex<State>>,
    /// Wakes the watches: it carries how many times something happened.
    wake: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    snapshot: Snapshot,
    history: VecDeque<Event>,
    usage: BTreeMap<VmId, VecDeque<UsageSample>>,
    failures: BTreeMap<Operation, VecDeque<ClientError>>,
    commands: Vec<Command>,
    /// What running watches end with; each watch compares the count with what it saw when it began.
    cuts: u64,
    cut: Cut,
    held: bool,
}

/// How running watches are ended.
#[derive(Debug, Clone, Copy, Default)]
enum Cut {
    #[default]
    Broken,
    Behind,
}

impl Default for FakeDirectory {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeDirectory {
    /// The empty directory.
    pub fn new() -> Self {
        FakeDirectory { state: Arc::default(), wake: watch::Sender::new(0) }
    }

    /// Carries out a command at once.
    ///
    /// # Errors
    /// The [`Rejection`] that the model's rules give.
    pub fn run(&self, command: Command) -> Result<Accepted, Rejection> {
        let accepted = self.lock().commit(command);
        self.wake();
        accepted
    }

    /// The snapshot, at once.
    pub fn now(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// Every command that was given through [`Directory::command`], whether accepted or not.
    pub fn commands(&self) -> Vec<Command> {
        self.lock().commands.clone()
    }

    /// The next `operation` fails with `error`; several calls make a script.
    pub fn fail(&self, operation: Operation, error: ClientError) {
        self.lock().failures.entry(operation).or_default().push_back(error);
        self.wake();
    }

    /// Ends every running watch as if the connection broke.
    pub fn break_watches(&self) {
        self.cut(Cut::Broken);
    }

    /// Ends every running watch with [`ClientError::Resync`], as if it fell too far behind.
    pub fn outrun_watches(&self) {
        self.cut(Cut::Behind);
    }

    /// From now on watches lag: commits reach them only after [`release_watches`](Self::release_watches).
    pub fn hold_watches(&self) {
        self.lock().held = true;
    }

    /// Ends the lag.
    pub fn release_watches(&self) {
        self.lock().held = false;
        self.wake();
    }

    fn cut(&self, cut: Cut) {
        let mut state = self.lock();
        state.cut = cut;
        state.cuts += 1;
        drop(state);
        self.wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant spans two fields across a panic: what a failed test leaves behind may be read.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.wake.send_modify(|times| *times += 1);
    }

    /// The scripted failure of `operation`, if one is due.
    fn scripted(&self, operation: Operation) -> Result<MutexGuard<'_, State>, ClientError> {
        let mut state = self.lock();
        match state.failures.get_mut(&operation).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }
}

impl State {
    fn commit(&mut self, command: Command) -> Result<Accepted, Rejection> {
        let changes = self.snapshot.decide(&command)?;
        if let Command::Report(report) = command {
            self.keep(report);
        }
        if !changes.is_empty() {
            let event = Event { revision: self.snapshot.revision().next(), changes };
            self.snapshot.apply(event.revision, &event.changes);
            self.history.push_back(event);
            if self.history.len() > HISTORY {
                self.history.pop_front();
            }
        }
        Ok(Accepted { revision: self.snapshot.revision() })
    }

    /// Keeps the samples of a report that are news, of VMs that are on its host.
    fn keep(&mut self, report: UsageReport) {
        for told in report.vms {
            let Some(sample) = told.usage else { continue };
            let samples = self.usage.entry(told.vm.clone()).or_default();
            let own = self.snapshot.vm(&told.vm).is_some_and(|vm| vm.host == report.host);
            if own && samples.back().is_none_or(|last| last.at < sample.at) {
                samples.push_back(sample);
            }
            if samples.len() > SAMPLES {
                samples.pop_front();
            }
        }
        self.usage.retain(|_, samples| !samples.is_empty());
    }

    /// The commit that follows `last`, if there is one.
    fn after(&self, last: Revision) -> Result<Option<Event>, ClientError> {
        if last >= self.snapshot.revision() {
            return Ok(None);
        }
        let next = self.history.iter().find(|event| event.revision == last.next());
        next.cloned().map(Some).ok_or(ClientError::Resync)
    }
}

#[async_trait]
impl Directory for FakeDirectory {
    async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        Ok(self.scripted(Operation::Snapshot)?.snapshot.clone())
    }

    async fn watch(&self, from: Revision) -> Result<Watch, ClientError> {
        let state = self.scripted(Operation::Watch)?;
        if from > state.snapshot.revision() {
            return Err(ClientError::Resync);
        }
        state.after(from)?;
        let source = FakeWatch { directory: self.clone(), wake: self.wake.subscribe(), last: from, cuts: state.cuts };
        Ok(Watch::new(from, source))
    }

    async fn usage(&self, since: Timestamp) -> Result<UsageWindow, ClientError> {
        let state = self.scripted(Operation::Usage)?;
        let after = |samples: &VecDeque<UsageSample>| -> Vec<_> {
            samples.iter().filter(|sample| sample.at > since).copied().collect()
        };
        let window = state.usage.iter().map(|(vm, samples)| (vm.clone(), after(samples)));
        Ok(UsageWindow(window.filter(|(_, samples)| !samples.is_empty()).collect()))
    }

    async fn command(&self, command: Command) -> Result<Accepted, ClientError> {
        self.lock().commands.push(command.clone());
        let accepted = self.scripted(Operation::Command)?.commit(command)?;
        self.wake();
        Ok(accepted)
    }
}

struct FakeWatch {
    directory: FakeDirectory,
    wake: watch::Receiver<u64>,
    last: Revision,
    cuts: u64,
}

impl FakeWatch {
    /// What this watch has to say now, if anything.
    fn news(&mut self) -> Result<Option<Event>, ClientError> {
        let state = self.directory.scripted(Operation::Next)?;
        if state.cuts > self.cuts {
            return Err(match state.cut {
                Cut::Broken => ClientError::Unreachable { address: "fake".into(), source: "connection broken".into() },
                Cut::Behind => ClientError::Resync,
            });
        }
        let event = if state.held { None } else { state.after(self.last)? };
        if let Some(event) = &event {
            self.last = event.revision;
        }
        Ok(event)
    }
}

#[async_trait]
impl EventSource for FakeWatch {
    async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            self.wake.mark_unchanged();
            if let Some(event) = self.news()? {
                return Ok(event);
            }
            // The sender lives in `directory`.
            let _ = self.wake.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::{Customer, HostSpec, Resources, VmReport, VmSpec};

    fn put_customer(name: &str) -> Command {
        Command::PutCustomer(Customer { id: name.parse().unwrap(), bounds: Resources::NONE })
    }

    /// Customer c, host h and VM v on it.
    fn cluster() -> FakeDirectory {
        let directory = FakeDirectory::new();
        directory.run(put_customer("c")).unwrap();
        directory.run(Command::PutHost(HostSpec { id: "h".parse().unwrap(), capacity: Resources::NONE })).unwrap();
        let vm = VmSpec {
            id: "v".parse().unwrap(),
            customer: "c".parse().unwrap(),
            host: "h".parse().unwrap(),
            address: "127.0.0.1:1".into(),
            order: 1,
            weight: 1,
            floor: Resources::NONE,
            initial: Resources::NONE,
        };
        directory.run(Command::PutVm(vm)).unwrap();
        directory
    }

    fn report(vm: &str, at: u64) -> Command {
        let usage = Some(UsageSample { at: Timestamp(at), ..UsageSample::default() });
        let told = VmReport { vm: vm.parse().unwrap(), usage, applied: None, state: None, level: None };
        Command::Report(UsageReport { host: "h".parse().unwrap(), vms: vec![told] })
    }

    #[tokio::test]
    async fn usage_keeps_each_sample_once_and_of_known_vms_only() {
        let directory = cluster();
        for command in [report("v", 5), report("v", 5), report("v", 9), report("stranger", 9)] {
            directory.command(command).await.unwrap();
        }
        let window = directory.usage(Timestamp(0)).await.unwrap();
        let times: Vec<_> = window.samples(&"v".parse().unwrap()).iter().map(|sample| sample.at.0).collect();
        assert_eq!((times, window.0.len()), (vec![5, 9], 1));
        assert_eq!(directory.usage(Timestamp(5)).await.unwrap().samples(&"v".parse().unwrap()).len(), 1);
        assert!(directory.usage(Timestamp(9)).await.unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn failures_come_in_their_order_and_change_nothing() {
        let directory = FakeDirectory::new();
        directory.fail(Operation::Command, ClientError::Failed { status: 503, message: "one".into() });
        directory.fail(Operation::Command, ClientError::Resync);
        let first = directory.command(put_customer("c")).await;
        assert!(matches!(first, Err(ClientError::Failed { .. })), "{first:?}");
        assert!(matches!(directory.command(put_customer("c")).await, Err(ClientError::Resync)));
        assert_eq!(directory.now().revision(), Revision(0));
        assert_eq!(directory.command(put_customer("c")).await.unwrap().revision, Revision(1));
        assert_eq!(directory.commands().len(), 3);
    }

    #[tokio::test]
    async fn what_changes_nothing_is_no_commit() {
        let directory = FakeDirectory::new();
        let mut watch = directory.watch(Revision(0)).await.unwrap();
        for name in ["c", "c", "d"] {
            directory.run(put_customer(name)).unwrap();
        }
        assert_eq!(watch.next().await.unwrap().revision, Revision(1));
        assert_eq!(watch.next().await.unwrap().revision, Revision(2));
    }

    #[tokio::test]
    async fn a_watch_from_an_unknown_revision_must_resync() {
        let directory = FakeDirectory::new();
        assert!(matches!(directory.watch(Revision(1)).await, Err(ClientError::Resync)));
        for number in 0..=HISTORY {
            directory.run(put_customer(&format!("c{number}"))).unwrap();
        }
        assert!(matches!(directory.watch(Revision(0)).await, Err(ClientError::Resync)));
        assert!(directory.watch(Revision(1)).await.is_ok());
    }
}

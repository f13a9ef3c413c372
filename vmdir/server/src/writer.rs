//! The one task that changes the directory.
//!
//! It takes the commands that are waiting as one group, decides each on the state after those before it, makes all
//! their changes durable with one sync, and only then answers: refusals too, since they may rest on changes that are
//! not durable yet. A group that changes nothing, such as one of usage reports alone, costs no sync.

use crate::{
    published::Published,
    records::{self, HOLDER},
    silence::Silence,
    telemetry::Telemetry,
};
use bytes::Bytes;
use std::{sync::Arc, time::Instant};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};
use vibra_model::{Change, Command, Event, Forbidden, HostState, Rejection, Revision, Role, Snapshot, UsageReport};
use vibra_store::{Compare, Contents, Outcome, Store, Transaction, Write};

/// The most commands of one group.
const GROUP: usize = 1024;

/// A command with who gives it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) role: Role,
    pub(crate) command: Command,
    pub(crate) answer: oneshot::Sender<Answer>,
}

/// The revision at which the command is durable, or why it was not carried out.
pub(crate) type Answer = Result<Revision, Refused>;

/// Why a command was not carried out.
#[derive(Debug)]
pub(crate) enum Refused {
    Forbidden(Forbidden),
    Rejected(Rejection),
    /// The queue is full.
    Busy,
    /// The writer is gone.
    Ended,
    /// The store failed; whether the command is durable is not known.
    Failed(String),
}

/// Why the writer ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Store(#[from] vibra_store::StoreError),
    #[error("another directory server has taken over the store ({0}): this one must not go on")]
    Displaced(String),
}

/// The right to write. The first transaction puts [`HOLDER`], on condition that nobody did since the store was read;
/// all later ones, that nobody did since. So of two servers on one store the displaced one cannot write any more.
#[derive(Debug)]
struct Hold {
    modified: Option<Revision>,
    mine: bool,
}

impl Hold {
    fn transaction(&mut self, revision: Revision, changes: &[Change]) -> Transaction {
        let compare = vec![Compare { key: HOLDER.into(), modified: self.modified }];
        let mut writes: Vec<_> = changes.iter().map(records::write).collect();
        if !self.mine {
            writes.push(Write::Put { key: HOLDER.into(), value: Bytes::new(), lease: None });
            *self = Hold { modified: Some(revision), mine: true };
        }
        Transaction { compare, writes }
    }
}

/// What was decided and is not yet durable.
#[derive(Debug, Default)]
struct Group {
    transactions: Vec<Transaction>,
    events: Vec<Event>,
    answers: Vec<(oneshot::Sender<Answer>, Answer)>,
}

#[derive(Debug)]
pub(crate) struct Writer {
    /// The directory with everything that was decided.
    decided: Snapshot,
    hold: Hold,
    silence: Silence,
    store: Arc<dyn Store>,
    published: Arc<Published>,
    telemetry: Arc<Telemetry>,
}

impl Writer {
    /// Begins with `decided`, which was loaded from `contents`.
    pub(crate) fn new(decided: Snapshot, contents: &Contents, silence: Silence, outlets: Outlets) -> Self {
        let hold = Hold { modified: contents.entries.get(HOLDER).map(|entry| entry.modified), mine: false };
        let Outlets { store, published, telemetry } = outlets;
        Writer { decided, hold, silence, store, published, telemetry }
    }

    /// Carries out requests until all their senders are gone, or the store fails.
    pub(crate) async fn run(mut self, mut requests: mpsc::Receiver<Request>) -> Result<(), Failure> {
        let mut tick = interval(self.silence.interval());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::with_capacity(GROUP);
        loop {
            let due = tokio::select! {
                received = requests.recv_many(&mut waiting, GROUP) => {
                    if received == 0 {
                        return Ok(());
                    }
                    None
                }
                at = tick.tick() => Some(at.into_std()),
            };
            if due.is_some() {
                // Reports that have arrived count before their senders are judged.
                while waiting.len() < GROUP
                    && let Ok(request) = requests.try_recv()
                {
                    waiting.push(request);
                }
            }
            let mut group = Group::default();
            for request in waiting.drain(..) {
                self.decide(request, &mut group);
            }
            if due.is_some() {
                self.judge_silence(&mut group);
            }
            self.finish(group).await?;
        }
    }

    fn decide(&mut self, request: Request, group: &mut Group) {
        let Request { role, command, answer } = request;
        let decided = match role.may(&command, &self.decided) {
            Ok(()) => self.carry_out(&command, group).map_err(Refused::Rejected),
            Err(forbidden) => Err(Refused::Forbidden(forbidden)),
        };
        if let (Ok(_), Command::Report(report)) = (&decided, &command) {
            self.hear(report);
        }
        group.answers.push((answer, decided));
    }

    /// Decides on a command; what it changes is put into the group.
    fn carry_out(&mut self, command: &Command, group: &mut Group) -> Result<Revision, Rejection> {
        let changes = self.decided.decide(command)?;
        if !changes.is_empty() {
            let revision = self.decided.revision().next();
            self.decided.apply(revision, &changes);
            group.transactions.push(self.hold.transaction(revision, &changes));
            group.events.push(Event { revision, changes });
        }
        Ok(self.decided.revision())
    }

    fn hear(&mut self, report: &UsageReport) {
        self.silence.hear(&report.host, Instant::now());
        for told in &report.vms {
            let own = self.decided.vm(&told.vm).is_some_and(|vm| vm.host == report.host);
            if let Some(sample) = told.usage.filter(|_| own) {
                self.telemetry.record(&told.vm, sample);
            }
        }
    }

    fn judge_silence(&mut self, group: &mut Group) {
        let up = self.decided.hosts().filter(|host| host.state == HostState::Up).map(|host| &host.id);
        for host in self.silence.overdue(up, Instant::now()) {
            tracing::warn!(%host, "silent past the deadline: it and its VMs are down");
            if let Err(rejection) = self.carry_out(&Command::HostSilent(host), group) {
                tracing::error!(%rejection, "a silent host cannot be marked as down");
            }
        }
    }

    /// Makes the group durable, then tells readers, watches and those who wait for an answer.
    async fn finish(&mut self, group: Group) -> Result<(), Failure> {
        let Group { transactions, events, answers } = group;
        if !transactions.is_empty() {
            let done = self.store.commit(transactions).await.map_err(Failure::from);
            if let Err(failure) = done.and_then(|outcomes| expected(&outcomes, &events)) {
                let message = format!("{failure}; whether the command was carried out is not known");
                answers.into_iter().for_each(|(answer, _)| drop(answer.send(Err(Refused::Failed(message.clone())))));
                return Err(failure);
            }
            let removed = events.iter().flat_map(|event| &event.changes);
            for change in removed {
                if let Change::VmRemoved(vm) = change {
                    self.telemetry.forget(vm);
                }
            }
            self.published.publish(events).await;
        }
        for (answer, decided) in answers {
            // Who does not wait any more gets no answer.
            let _ = answer.send(decided);
        }
        Ok(())
    }
}

/// Where the writer's decisions go.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) published: Arc<Published>,
    pub(crate) telemetry: Arc<Telemetry>,
}

/// Every transaction must have got the revision that it was decided for: only then nobody else wrote in between.
fn expected(outcomes: &[Outcome], events: &[Event]) -> Result<(), Failure> {
    for (outcome, event) in outcomes.iter().zip(events) {
        match outcome {
            Ok(revision) if *revision == event.revision => {}
            Ok(revision) => {
                let what = format!("it is at revision {revision}, not {}", event.revision);
                return Err(Failure::Displaced(what));
            }
            Err(refusal) => return Err(Failure::Displaced(refusal.to_string())),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use vibra_model::{Customer, Resources, api::WatchLine};
    use vibra_store::{MemoryStore, StoreError};

    fn customer(name: &str) -> Command {
        Command::PutCustomer(Customer { id: name.parse().unwrap(), bounds: Resources::NONE })
    }

    /// What becomes of commands that are waiting together; also the published directory.
    async fn carry_out(commands: Vec<(Role, Command)>) -> (Vec<Answer>, Arc<Published>, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new());
        let published = Arc::new(Published::new(Snapshot::default(), 1 << 20));
        let telemetry = Arc::new(Telemetry::new(1));
        let outlets = Outlets { store: store.clone(), published: published.clone(), telemetry };
        let silence = Silence::new(Duration::from_secs(60), Instant::now());
        let writer = Writer::new(Snapshot::default(), &Contents::default(), silence, outlets);
        let (requests, waiting) = mpsc::channel(64);
        let mut answers = Vec::new();
        for (role, command) in commands {
            let (answer, answered) = oneshot::channel();
            requests.try_send(Request { role, command, answer }).unwrap();
            answers.push(answered);
        }
        drop(requests);
        writer.run(waiting).await.unwrap();
        let answers = answers.into_iter().map(|mut answered| answered.try_recv().unwrap()).collect();
        (answers, published, store)
    }

    #[tokio::test]
    async fn later_commands_of_a_group_are_decided_on_what_the_earlier_ones_changed() {
        let commands = [customer("a"), customer("a"), Command::RemoveCustomer("a".parse().unwrap()), customer("b")];
        let commands = commands.map(|command| (Role::Operator, command));
        let (answers, published, store) = carry_out(commands.into()).await;
        let revisions: Vec<_> = answers.into_iter().map(|answer| answer.unwrap().0).collect();
        // To register a again changes nothing.
        assert_eq!(revisions, [1, 1, 2, 3]);
        assert_eq!(store.contents().await.unwrap().revision, Revision(3));
        let known: Snapshot = serde_json::from_slice(&published.snapshot().await).unwrap();
        assert_eq!(known.customers().map(|customer| customer.id.as_str()).collect::<Vec<_>>(), ["b"]);
        let lines = published.lines().follow(Revision(0)).unwrap().next(9).await.unwrap();
        let revision = |line: &Bytes| match serde_json::from_slice(line).unwrap() {
            WatchLine::Event(event) => event.revision.0,
            other => panic!("{other:?}"),
        };
        assert_eq!(lines.iter().map(revision).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[tokio::test]
    async fn refusals_keep_nobody_back() {
        let commands = vec![
            (Role::Reader, customer("a")),
            (Role::Operator, Command::RemoveCustomer("a".parse().unwrap())),
            (Role::Operator, customer("b")),
        ];
        let (answers, _, _) = carry_out(commands).await;
        assert!(matches!(answers[0], Err(Refused::Forbidden(_))), "{answers:?}");
        assert!(matches!(answers[1], Err(Refused::Rejected(_))), "{answers:?}");
        assert!(matches!(answers[2], Ok(Revision(1))), "{answers:?}");
    }

    #[tokio::test]
    async fn what_is_stored_is_what_is_loaded() -> Result<(), StoreError> {
        let commands = [customer("a"), customer("b")].map(|command| (Role::Operator, command));
        let (_, published, store) = carry_out(commands.into()).await;
        let loaded = records::load(&store.contents().await?).unwrap();
        let known: Snapshot = serde_json::from_slice(&published.snapshot().await).unwrap();
        assert_eq!(loaded, known);
        Ok(())
    }
}

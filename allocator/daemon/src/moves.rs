//! Carrying a plan's moves out, one after another.

use crate::{Allocator, Entry, Outcome, Stage, allocator::patient};
use std::{fmt, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use vibra_client::{ClientError, Directory, Follower};
use vibra_model::{Command, Move, Rejection, Revision, Snapshot, Vm};

/// The longest that one move may take; then it is called off.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a move is asked for where the customer's allocations change meanwhile.
const TRIES: usize = 3;

/// What moves are carried out with.
pub(crate) struct Mover<'a> {
    pub(crate) directory: Arc<dyn Directory>,
    pub(crate) follower: &'a Follower,
    /// True once the allocator is to stop.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// What the outcome of a step says of it.
fn outcome(decision: u64, step: &Move, stage: Stage) -> Outcome {
    Outcome::Move { decision, vm: step.vm.clone(), from: step.from.clone(), to: step.to.clone(), stage }
}

/// The first of `moves` that no agents can make, and why.
fn impossible<'a>(moves: &'a [Move], snapshot: &Snapshot) -> Option<(&'a Move, String)> {
    moves.iter().find_map(|step| {
        let vm = snapshot.vm(&step.vm)?;
        let refused = snapshot.may_take(vm, &step.from, &step.to).err()?;
        Some((step, refused.to_string()))
    })
}

impl Mover<'_> {
    /// Makes the moves of a plan that was accepted, one after another, and has `allocator` log how they go. Where one fails,
    /// or cannot be made at all, the plan was for another world than this: the rest is left out.
    pub(crate) async fn make_all(&self, decided: &Entry, allocator: &mut Allocator) {
        let moves = &decided.plan.moves;
        let snapshot = self.follower.current().await;
        if let Some((step, why)) = impossible(moves, &snapshot) {
            let stage = Stage::Failed { why: format!("no move is begun: {why}"), left_out: moves.len() - 1 };
            return allocator.note(outcome(decided.id, step, stage)).await;
        }
        for (number, step) in (1..).zip(moves) {
            allocator.note(outcome(decided.id, step, Stage::Begun)).await;
            let made = self.make(step).await;
            let failed = made.is_err();
            let stage = match made {
                Ok(took) => Stage::Done { took_ms: took.as_millis() as u64 },
                Err(why) => Stage::Failed { why, left_out: moves.len() - number },
            };
            allocator.note(outcome(decided.id, step, stage)).await;
            if failed {
                return;
            }
        }
    }

    /// Makes one move, and waits until the VM serves where it went. Returns how long it took.
    ///
    /// # Errors
    /// Why the VM did not go.
    async fn make(&self, step: &Move) -> Result<Duration, String> {
        let began = Instant::now();
        let asked = self.ask(step).await?;
        let mut snapshots = self.follower.snapshots();
        let mut stopping = self.stopping.clone();
        let over = async {
            let over = snapshots.wait_for(|snapshot| snapshot.revision() >= asked && end(snapshot, step).is_some());
            // The follower outlives this.
            over.await.ok().and_then(|snapshot| end(&snapshot, step)).unwrap_or(Ok(()))
        };
        let stops = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        tokio::select! {
            over = timeout(LIMIT, over) => match over {
                Ok(ended) => ended.map(|()| began.elapsed()),
                Err(_) => Err(self.call_off(step).await),
            },
            () = stops => Err("the allocator stops; the hosts may still finish the move".to_owned()),
        }
    }

    /// Asks for the move; returns the revision that it began at.
    async fn ask(&self, step: &Move) -> Result<Revision, String> {
        let mut last = String::new();
        for _ in 0..TRIES {
            let snapshot = patient(self.directory.snapshot()).await.map_err(in_words)?;
            let vm = snapshot.vm(&step.vm).ok_or("it is not registered any more")?;
            if vm.host != step.from {
                return Err(format!("it is on host {}", vm.host));
            }
            let command = Command::MoveVm { base: snapshot.revision(), vm: step.vm.clone(), to: step.to.clone() };
            match patient(self.directory.command(command)).await {
                Ok(accepted) => return Ok(accepted.revision),
                Err(ClientError::Rejected(stale @ Rejection::Stale { .. })) => last = in_words(stale),
                Err(error) => return Err(in_words(error)),
            }
        }
        Err(last)
    }

    /// Has the VM stay, since the move takes too long; says so.
    async fn call_off(&self, step: &Move) -> String {
        let stay = Command::MoveVm { base: Revision(0), vm: step.vm.clone(), to: step.from.clone() };
        match patient(self.directory.command(stay)).await {
            Ok(_) => format!("it took more than {} s and is called off", LIMIT.as_secs()),
            Err(error) => format!("it took more than {} s and cannot be called off: {error}", LIMIT.as_secs()),
        }
    }
}

fn in_words(error: impl fmt::Display) -> String {
    error.to_string()
}

/// How the move ended; `None` as long as it goes on.
fn end(snapshot: &Arc<Snapshot>, step: &Move) -> Option<Result<(), String>> {
    let failed = |why: String| Some(Err(why));
    match snapshot.vm(&step.vm) {
        None => failed("it was removed meanwhile".to_owned()),
        Some(vm) if vm.moving.is_some() => None,
        Some(Vm { host, state, .. }) if *host == step.to => match state {
            state if state.serves() => Some(Ok(())),
            vibra_model::VmState::Down => failed(format!("it does not run on host {}", step.to)),
            _ => None,
        },
        Some(vm) => failed(format!("it was called off: the VM is on host {}, and one of the hosts failed", vm.host)),
    }
}

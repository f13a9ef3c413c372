//! The balloon: what a guest gives back to its host, and what it says of its memory.
//!
//! A balloon asks. The guest's driver follows as far and as fast as it can, so what is in force is always read back;
//! and the guest's statistics are hints.

use super::qmp::{Qmp, QmpError};
use serde::Deserialize;
use serde_json::{Number, Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use vibra_model::Bytes;

/// Where the device is found; the command line gives it this id.
const DEVICE: &str = "/machine/peripheral/balloon";
/// A guest has its memory in pages of this many bytes.
const PAGE: u64 = 4096;
/// The most that a guest is asked to give back at once: what it cannot bear shows before all is gone.
const STEP: u64 = 16 << 20;
/// How long a balloon may stand still before it counts as stuck.
const STANDSTILL: Duration = Duration::from_millis(500);
/// How often it is looked at while it moves.
const LOOKING: Duration = Duration::from_millis(15);

/// What is wrong with a balloon.
#[derive(Debug, thiserror::Error)]
pub(super) enum BalloonError {
    /// QEMU did not do as it was told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// Nobody in the guest listens.
    #[error("its guest has no balloon driver: it gives no statistics, and its memory stays at {0}")]
    NoDriver(Bytes),
}

/// What a guest said of its memory when it was last heard; `None` is what it did not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct GuestMemory {
    /// All that it has, without what the balloon took.
    pub(super) total: Option<Bytes>,
    /// What nobody uses.
    pub(super) free: Option<Bytes>,
    /// Brought back from swap, and moved there, since it started.
    pub(super) swap_in: Option<Bytes>,
    pub(super) swap_out: Option<Bytes>,
}

impl GuestMemory {
    /// Memory in use, page cache included.
    pub(super) fn in_use(&self) -> Option<Bytes> {
        Some(self.total?.saturating_sub(self.free?))
    }

    /// Bytes moved to and from swap.
    pub(super) fn swapped(&self) -> Option<Bytes> {
        Some(Bytes(self.swap_in?.0.saturating_add(self.swap_out?.0)))
    }
}

/// The memory that the guest has, as QEMU counts it.
pub(super) async fn actual(qmp: &Qmp) -> Result<Bytes, QmpError> {
    #[derive(Deserialize)]
    struct Info {
        actual: u64,
    }
    Ok(Bytes(qmp.ask::<Info>("query-balloon").await?.actual))
}

/// Asks the guest to have so much, and does not wait.
pub(super) async fn aim(qmp: &Qmp, target: Bytes) -> Result<(), QmpError> {
    qmp.order("balloon", json!({ "value": whole_pages(target).0 })).await
}

/// Has QEMU ask the guest for its statistics each second.
pub(super) async fn poll_statistics(qmp: &Qmp) -> Result<(), QmpError> {
    let second = json!({ "path": DEVICE, "property": "guest-stats-polling-interval", "value": 1 });
    qmp.order("qom-set", second).await
}

/// What the guest said last; `None` if it never did.
pub(super) async fn statistics(qmp: &Qmp) -> Result<Option<GuestMemory>, QmpError> {
    let asked = json!({ "path": DEVICE, "property": "guest-stats" });
    Ok(understood(&qmp.execute::<Value>("qom-get", asked).await?))
}

/// Reads `guest-stats`. A `last-update` of 0 is never, and -1 is not known: QEMU prints it as the largest number.
fn understood(answer: &Value) -> Option<GuestMemory> {
    if answer.get("last-update")?.as_u64()? == 0 {
        return None;
    }
    let statistics = answer.get("stats")?;
    let known = |number: &Number| number.as_u64().filter(|&number| number != u64::MAX).map(Bytes);
    let of = |name| statistics.get(name)?.as_number().and_then(known);
    Some(GuestMemory {
        total: of("stat-total-memory"),
        free: of("stat-free-memory"),
        swap_in: of("stat-swap-in"),
        swap_out: of("stat-swap-out"),
    })
}

/// Brings the guest to `target`, in steps, until `deadline` at most or until it does not follow, and returns what it
/// then has. What it was last asked for stands: it may follow later.
///
/// # Errors
/// [`BalloonError`] where QEMU fails, or where there is no driver that could follow.
pub(super) async fn bring_to(qmp: &Qmp, target: Bytes, deadline: Instant) -> Result<Bytes, BalloonError> {
    let target = whole_pages(target);
    let start = actual(qmp).await?;
    let mut now = start;
    while now != target && Instant::now() < deadline {
        let step = next(now, target);
        aim(qmp, step).await?;
        let before = now;
        now = follow(qmp, before, step, deadline).await?;
        if now == before {
            break;
        }
    }
    if now == start && now != target && statistics(qmp).await?.is_none() {
        return Err(BalloonError::NoDriver(now));
    }
    Ok(now)
}

/// Waits until the guest has `step`, stands still, or the `deadline` has come; returns what it has.
async fn follow(qmp: &Qmp, mut now: Bytes, step: Bytes, deadline: Instant) -> Result<Bytes, QmpError> {
    let mut moved = Instant::now();
    while now != step && moved.elapsed() < STANDSTILL && Instant::now() < deadline {
        sleep(LOOKING).await;
        let actual = actual(qmp).await?;
        if actual != now {
            (now, moved) = (actual, Instant::now());
        }
    }
    Ok(now)
}

/// What to ask for next of a guest that has `now` and shall have `target`: what is given is given at once, what is
/// taken in steps.
fn next(now: Bytes, target: Bytes) -> Bytes {
    target.max(Bytes(now.0.saturating_sub(STEP)))
}

/// A guest never gets more than was meant.
fn whole_pages(bytes: Bytes) -> Bytes {
    Bytes(bytes.0 - bytes.0 % PAGE)
}

#[cfg(test)]
mod tests {
    use super::super::script::{Reply, Scripted, scripted};
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A guest whose balloon goes no lower than `least`, and that gives statistics or not.
    fn guest(least: u64, has_driver: bool) -> Scripted {
        let mut actual = 100 * MIB;
        scripted(move |command, arguments| match command {
            "query-balloon" => Reply::Return(json!({ "actual": actual })),
            "balloon" => {
                actual = if has_driver { arguments["value"].as_u64().unwrap().max(least) } else { actual };
                Reply::Return(json!({}))
            }
            _ => Reply::Return(json!({ "last-update": u64::from(has_driver), "stats": {} })),
        })
    }

    async fn bring(qemu: &Scripted, mib: u64) -> Result<u64, BalloonError> {
        let deadline = Instant::now() + Duration::from_secs(20);
        Ok(bring_to(&qemu.qmp, Bytes(mib * MIB), deadline).await?.0 / MIB)
    }

    #[tokio::test]
    async fn a_balloon_is_brought_where_it_shall_be() {
        let qemu = guest(0, true);
        assert_eq!(bring(&qemu, 60).await.unwrap(), 60);
        let aims: Vec<_> =
            qemu.asked.lock().unwrap().iter().filter(|(command, _)| command == "balloon").cloned().collect();
        let aims: Vec<_> = aims.iter().map(|(_, arguments)| arguments["value"].as_u64().unwrap() / MIB).collect();
        assert_eq!(aims, [84, 68, 60]);
        assert_eq!(bring(&qemu, 90).await.unwrap(), 90);
    }

    #[tokio::test]
    async fn a_balloon_that_is_stuck_is_told_as_it_is() {
        assert_eq!(bring(&guest(75 * MIB, true), 60).await.unwrap(), 75);
        assert_eq!(bring(&guest(100 * MIB, true), 60).await.unwrap(), 100, "it speaks, so there is a driver");
    }

    #[tokio::test]
    async fn a_guest_without_driver_is_recognised() {
        let without = guest(0, false);
        let error = bring(&without, 60).await.unwrap_err();
        assert!(error.to_string().contains("no balloon driver"), "{error}");
        assert_eq!(bring(&without, 100).await.unwrap(), 100, "nothing to do is no fault");
    }

    #[test]
    fn what_a_guest_does_not_say_is_not_known() {
        let said = json!({
            "last-update": 1_700_000_000,
            "stats": {
                "stat-total-memory": 200 * MIB, "stat-free-memory": 50 * MIB,
                "stat-swap-in": u64::MAX, "stat-swap-out": -1, "stat-htlb-pgalloc": 0,
            },
        });
        let memory = understood(&said).unwrap();
        assert_eq!(memory.in_use(), Some(Bytes(150 * MIB)));
        assert_eq!((memory.swap_in, memory.swap_out, memory.swapped()), (None, None, None));
        let never = json!({ "last-update": 0, "stats": { "stat-total-memory": 1, "stat-free-memory": 0 } });
        assert_eq!(understood(&never), None);
        assert_eq!(understood(&json!({})), None);
        let liar = json!({ "last-update": 1, "stats": { "stat-total-memory": 1, "stat-free-memory": 9 } });
        assert_eq!(understood(&liar).unwrap().in_use(), Some(Bytes(0)), "a guest that lies does no harm");
    }

    #[test]
    fn memory_is_taken_in_steps_and_given_at_once() {
        let steps = std::iter::successors(Some(Bytes(100 * MIB)), |&now| {
            Some(next(now, Bytes(60 * MIB))).filter(|_| now != Bytes(60 * MIB))
        });
        assert_eq!(steps.map(|step| step.0 / MIB).collect::<Vec<_>>(), [100, 84, 68, 60]);
        assert_eq!(next(Bytes(60 * MIB), Bytes(100 * MIB)), Bytes(100 * MIB));
        assert_eq!(whole_pages(Bytes(8191)), Bytes(4096));
    }
}

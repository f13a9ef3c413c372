//! A running VM's way from one QEMU to another: its memory is copied while it runs, what it changes meanwhile again, and
//! at last it is halted for a moment and goes on there. Where its processor is emulated it is halted before: see
//! [`Copying`].

use super::{
    probe::Accelerator,
    qmp::{Qmp, QmpError},
};
use crate::machine::Migration;
use serde::Deserialize;
use serde_json::json;
use std::{path::Path, time::Duration};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use vibra_model::{Bytes, BytesPerSec};

/// How often QEMU is asked how far it is.
const LOOKING: Duration = Duration::from_millis(100);
/// How long it may take to give a migration up.
const GIVING_UP: Duration = Duration::from_secs(5);
/// How long the VM may take to go on at the destination once all of it is there.
const GOING_ON: Duration = Duration::from_secs(10);
/// The longest that the VM is to be halted, in ms.
const HALT: u64 = 300;
/// How often progress is told.
const TELLING: Duration = Duration::from_secs(1);

/// Why a VM is still where it was.
#[derive(Debug, thiserror::Error)]
pub(super) enum MigrationError {
    /// One of both QEMUs did not do as it was told.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// QEMU gave it up.
    #[error("QEMU gave the migration up ({status}): {why}")]
    Failed { status: String, why: String },
    /// It took too long, and was given up.
    #[error("the migration was given up after {after:?}: {remaining} were left to copy")]
    Late { after: Duration, remaining: Bytes },
    /// It was told to stay.
    #[error("the migration was given up, as the VM is to stay")]
    Stays,
    /// All was copied, and the VM does not run there.
    #[error("all was copied, and the VM does not run at its destination, which says {0:?}")]
    NotThere(String),
}

/// What the VM does while its memory is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copying {
    /// It runs on, and what it changes is copied again.
    Running,
    /// It is halted: QEMU's emulation (7.2) does not find all that a VM changes, which then goes on with damaged memory.
    Halted,
}

impl Copying {
    /// What a VM on this accelerator can bear.
    pub(super) fn on(accelerator: Accelerator) -> Copying {
        match accelerator {
            Accelerator::Kvm => Copying::Running,
            Accelerator::Tcg => Copying::Halted,
        }
    }
}

/// How it is to go.
pub(super) struct Way<'a> {
    /// What the VM does meanwhile.
    pub(super) copying: Copying,
    /// Where both QEMUs meet.
    pub(super) socket: &'a Path,
    /// How fast memory may be copied.
    pub(super) rate: BytesPerSec,
    /// How long it may take.
    pub(super) time: Duration,
    /// Tells the VM to stay after all.
    pub(super) stay: &'a Notify,
}

/// What `query-migrate` says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Progress {
    status: Option<String>,
    error_desc: Option<String>,
    total_time: Option<u64>,
    downtime: Option<u64>,
    ram: Option<Ram>,
}

#[derive(Debug, Deserialize)]
struct Ram {
    transferred: u64,
    remaining: u64,
}

#[derive(Deserialize)]
struct Status {
    status: String,
}

/// Takes the VM from `source` to `destination`, which waits for it. It is done when the source says that all was copied
/// *and* the VM runs at the destination.
///
/// # Errors
/// [`MigrationError`]: the VM may be halted at the source then, and goes on there by "cont" once the destination has ended;
/// unless the source has ended.
pub(super) async fn migrate(source: &Qmp, destination: &Qmp, way: &Way<'_>) -> Result<Migration, MigrationError> {
    let address = format!("unix:{}", way.socket.display());
    for qmp in [source, destination] {
        // Pages that change often are sent as differences, and a VM that changes too many is slowed down.
        let wanted = ["xbzrle", "auto-converge"].map(|capability| json!({ "capability": capability, "state": true }));
        qmp.order("migrate-set-capabilities", json!({ "capabilities": wanted })).await?;
    }
    let limits = json!({ "max-bandwidth": way.rate.0, "downtime-limit": HALT });
    source.order("migrate-set-parameters", limits).await?;
    destination.order("migrate-incoming", json!({ "uri": address })).await?;
    let halted = Instant::now();
    if way.copying == Copying::Halted {
        source.order("stop", json!({})).await?;
    }
    source.order("migrate", json!({ "uri": address })).await?;
    let mut copied = tokio::select! {
        copied = copy(source, way.time) => copied,
        () = way.stay.notified() => give_up(source, MigrationError::Stays).await,
    }?;
    if way.copying == Copying::Halted {
        // It arrives as it left.
        destination.order("cont", json!({})).await?;
        copied.downtime = Some(halted.elapsed());
    }
    match goes_on(destination).await? {
        status if status == "running" => Ok(copied),
        status => Err(MigrationError::NotThere(status)),
    }
}

/// Waits until all was copied.
async fn copy(source: &Qmp, time: Duration) -> Result<Migration, MigrationError> {
    let (began, mut told) = (Instant::now(), Instant::now());
    loop {
        let progress: Progress = source.ask("query-migrate").await?;
        let remaining = progress.ram.as_ref().map_or(Bytes::ZERO, |ram| Bytes(ram.remaining));
        if let Some(ended) = ended(progress) {
            return ended;
        }
        if began.elapsed() > time {
            return give_up(source, MigrationError::Late { after: time, remaining }).await;
        }
        if told.elapsed() > TELLING {
            tracing::info!(%remaining, "a VM is on its way");
            told = Instant::now();
        }
        sleep(LOOKING).await;
    }
}

/// What became of a migration; `None`: it goes on.
fn ended(progress: Progress) -> Option<Result<Migration, MigrationError>> {
    let status = progress.status.unwrap_or_default();
    match status.as_str() {
        "completed" => Some(Ok(Migration {
            duration: Duration::from_millis(progress.total_time.unwrap_or_default()),
            downtime: progress.downtime.map(Duration::from_millis),
            bytes: Bytes(progress.ram.map_or(0, |ram| ram.transferred)),
        })),
        "failed" | "cancelled" => {
            let why = progress.error_desc.unwrap_or_else(|| "it says no more".to_owned());
            Some(Err(MigrationError::Failed { status, why }))
        }
        _ => None,
    }
}

/// Gives a migration up because of `why`. If it was completed before it heard of that, then so it is.
async fn give_up(source: &Qmp, why: MigrationError) -> Result<Migration, MigrationError> {
    source.order("migrate_cancel", json!({})).await?;
    let deadline = Instant::now() + GIVING_UP;
    while Instant::now() < deadline {
        match ended(source.ask("query-migrate").await?) {
            Some(Ok(completed)) => return Ok(completed),
            Some(Err(_)) => break,
            None => sleep(LOOKING).await,
        }
    }
    Err(why)
}

/// Waits until the VM runs at its destination; returns what state it is in.
async fn goes_on(destination: &Qmp) -> Result<String, QmpError> {
    let deadline = Instant::now() + GOING_ON;
    loop {
        let Status { status } = destination.ask("query-status").await?;
        if status == "running" || Instant::now() > deadline {
            return Ok(status);
        }
        sleep(LOOKING).await;
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Reply, Scripted, scripted};
    use super::*;

    /// A QEMU whose migration is in these states, one after another; the last one stays.
    fn source(states: &'static [&'static str]) -> Scripted {
        let (mut at, mut cancelled) = (0, false);
        scripted(move |command, _| match command {
            "migrate_cancel" => {
                cancelled = true;
                Reply::Return(json!({}))
            }
            "query-migrate" if cancelled => Reply::Return(json!({ "status": "cancelled" })),
            "query-migrate" => {
                let status = states[at.min(states.len() - 1)];
                at += 1;
                Reply::Return(json!({
                    "status": status, "total-time": 5_900, "downtime": 2, "error-desc": "no room",
                    "ram": { "transferred": 1000, "remaining": 77, "total": 5000 },
                }))
            }
            _ => Reply::Return(json!({})),
        })
    }

    fn destination(status: &'static str) -> Scripted {
        scripted(move |command, _| match command {
            "query-status" => Reply::Return(json!({ "status": status, "running": status == "running" })),
            _ => Reply::Return(json!({})),
        })
    }

    async fn go(source: &Scripted, destination: &Scripted, stay: &Notify) -> Result<Migration, MigrationError> {
        go_by(Copying::Running, source, destination, stay).await
    }

    async fn go_by(
        copying: Copying,
        source: &Scripted,
        destination: &Scripted,
        stay: &Notify,
    ) -> Result<Migration, MigrationError> {
        let time = Duration::from_millis(500);
        let way = Way { copying, socket: Path::new("/s"), rate: BytesPerSec(12_500_000), time, stay };
        migrate(&source.qmp, &destination.qmp, &way).await
    }

    fn asked(qemu: &Scripted, what: &str) -> bool {
        qemu.asked.lock().unwrap().iter().any(|(command, _)| command == what)
    }

    #[tokio::test]
    async fn a_vm_has_moved_when_all_was_copied_and_it_runs_there() {
        let source = source(&["setup", "active", "device", "completed"]);
        let moved = go(&source, &destination("running"), &Notify::new()).await.unwrap();
        let expected = Migration {
            duration: Duration::from_millis(5_900),
            downtime: Some(Duration::from_millis(2)),
            bytes: Bytes(1000),
        };
        assert_eq!(moved, expected);
    }

    #[tokio::test]
    async fn an_emulated_vm_is_halted_before_anything_is_copied() {
        let (source, destination) = (source(&["active", "completed"]), destination("running"));
        let moved = go_by(Copying::on(Accelerator::Tcg), &source, &destination, &Notify::new()).await.unwrap();
        // From its halt until it goes on, and so not what QEMU says.
        assert!(moved.downtime.is_some_and(|downtime| downtime > Duration::from_millis(2)), "{moved:?}");
        let order =
            |qemu: &Scripted, what: &str| qemu.asked.lock().unwrap().iter().position(|(command, _)| command == what);
        assert!(order(&source, "stop").unwrap() < order(&source, "migrate").unwrap());
        assert!(asked(&destination, "cont") && Copying::on(Accelerator::Kvm) == Copying::Running);
    }

    #[tokio::test]
    async fn what_fails_is_told_with_its_reason() {
        let failed = go(&source(&["active", "failed"]), &destination("inmigrate"), &Notify::new()).await.unwrap_err();
        assert!(failed.to_string().contains("no room"), "{failed}");
        let refuses = scripted(|_, _| Reply::Error("not now"));
        let refused = go(&source(&["active"]), &refuses, &Notify::new()).await.unwrap_err();
        assert!(refused.to_string().contains("not now"), "{refused}");
        let dies = scripted(|command, _| match command {
            "query-migrate" => Reply::Close,
            _ => Reply::Return(json!({})),
        });
        let died = go(&dies, &destination("running"), &Notify::new()).await.unwrap_err();
        assert!(died.to_string().contains("during query-migrate"), "{died}");
    }

    #[tokio::test]
    async fn a_migration_ends_when_it_is_late_or_not_wanted_any_more() {
        let slow = source(&["active"]);
        let late = go(&slow, &destination("inmigrate"), &Notify::new()).await.unwrap_err();
        assert!(matches!(late, MigrationError::Late { remaining: Bytes(77), .. }), "{late}");
        assert!(asked(&slow, "migrate_cancel"));
        let (slow, stay) = (source(&["active"]), Notify::new());
        stay.notify_one();
        let stays = go(&slow, &destination("inmigrate"), &stay).await.unwrap_err();
        assert!(matches!(stays, MigrationError::Stays) && asked(&slow, "migrate_cancel"), "{stays}");
    }
}

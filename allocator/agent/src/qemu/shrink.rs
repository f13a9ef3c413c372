//! Takes memory from a guest by its balloon, as far as the guest bears that: [`Shrink`] is the rule.

use super::{
    balloon::{self, BalloonError},
    guest::{FRESH, Guest},
    qmp::Qmp,
};
use crate::host::memory::{Next, Seen, Shrink, Signs, WATCH, drive::Held};
use std::time::Duration;
use tokio::time::{Instant, sleep};
use vibra_guest::Report;
use vibra_model::Bytes;

/// How long it takes to watch a step: guests report each second, and a report that comes before [`WATCH`] is over is
/// passed over.
const WATCHED: Duration = Duration::from_millis(1_200);

/// Where a guest's memory is on its way to.
#[derive(Debug, Default)]
pub(super) struct Memory {
    shrink: Option<Shrink>,
    /// When the guest was last asked for another amount.
    asked: Option<Instant>,
}

impl Memory {
    /// Gives the guest `target`: what is given is given at once, what is taken goes as far as the guest bears it and
    /// until `deadline` at most. Returns what it then has, and what keeps more from being taken. To be asked for again,
    /// as long as more is in force.
    ///
    /// Of a guest that never told anything, memory is taken in steps that nobody watches. From one that has fallen
    /// silent none is taken: it may be short of memory already.
    ///
    /// # Errors
    /// [`BalloonError`] where QEMU fails, or where there is no driver that could follow.
    pub(super) async fn set(
        &mut self,
        qmp: &Qmp,
        guest: &Guest,
        target: Bytes,
        deadline: Instant,
    ) -> Result<(Bytes, Option<Held>), BalloonError> {
        let begun = self.shrink.take().filter(|shrink| shrink.target() == target);
        let tells = guest.last().is_some_and(|(_, report)| report.memory.is_some());
        if !tells || balloon::actual(qmp).await? <= target {
            let brought = balloon::bring_to(qmp, target, deadline).await;
            self.asked = Some(Instant::now());
            return Ok((brought?, None));
        }
        let shrink = self.shrink.insert(begun.unwrap_or_else(|| Shrink::new(target)));
        let mut held = None;
        while Instant::now() < deadline {
            let actual = balloon::actual(qmp).await?;
            let seen = news(guest, self.asked).and_then(|report| see(&report, actual));
            let mut after = shrink.clone();
            match seen.map_or(Next::Watch, |seen| after.next(seen)) {
                // It is for the next order: now there is no time to watch it.
                Next::Ask(_) if Instant::now() + WATCHED > deadline => break,
                Next::Ask(amount) => {
                    balloon::aim(qmp, amount).await?;
                    self.asked = Some(Instant::now());
                }
                Next::Watch => {}
                Next::Revert(amount, pain) => {
                    balloon::aim(qmp, amount).await?;
                    (*shrink, self.asked) = (after, Some(Instant::now()));
                    // What is given back counts, though it may be on its way.
                    return Ok((actual.max(amount), Some(Held::Pain { borne: amount, pain })));
                }
                next @ (Next::Stuck(_) | Next::Rest(_) | Next::Done) => {
                    *shrink = after;
                    held = if let Next::Stuck(asked) = next { Some(Held::Stuck(asked)) } else { None };
                    break;
                }
            }
            *shrink = after;
            sleep(WATCH.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
        Ok((balloon::actual(qmp).await?, held))
    }
}

/// What a guest says now that it has had what it was `asked` for a while; an older report tells nothing of that.
fn news(guest: &Guest, asked: Option<Instant>) -> Option<Report> {
    let (heard, report) = guest.last()?;
    (heard.elapsed() < FRESH && asked.is_none_or(|asked| heard >= asked + WATCH)).then_some(report)
}

/// What a report shows of a guest that has `actual`. The time is the guest's own, as the counters are those of the
/// moment when it spoke. What its kernel took before it counted is in use, too.
fn see(report: &Report, actual: Bytes) -> Option<Seen> {
    let (memory, faults) = (report.memory?, report.faults);
    let in_use = Bytes(actual.0.saturating_sub(memory.free));
    let files = memory.active_file.saturating_add(memory.inactive_file);
    let signs = Signs {
        stalled: report.pressure.map(Signs::stalled),
        major_faults: faults.map(|faults| faults.major),
        refaults: faults.map(|faults| faults.refaults),
        swapped: faults.map(|faults| faults.swapped_in.saturating_add(faults.swapped_out)),
    };
    let floor = Bytes(in_use.0.saturating_sub(files));
    Some(Seen { at: Duration::from_millis(report.uptime_ms), actual, in_use, floor, signs })
}

#[cfg(test)]
mod tests {
    use super::super::script::{Reply, Scripted, scripted};
    use super::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};
    use tokio::{io::AsyncWriteExt, net::UnixListener};
    use vibra_guest::{Faults, Memory as Said};

    const MIB: u64 = 1 << 20;

    /// A balloon that follows at once, and begins at 100 MiB.
    fn qemu(actual: Arc<Mutex<u64>>) -> Scripted {
        scripted(move |command, arguments| match command {
            "balloon" => {
                *actual.lock().unwrap() = arguments["value"].as_u64().unwrap();
                Reply::Return(json!({}))
            }
            _ => Reply::Return(json!({ "actual": *actual.lock().unwrap(), "last-update": 1, "stats": {} })),
        })
    }

    /// A guest that uses `used` MiB, half of it page cache, and of which `pained` tells whether it suffers at a size. It
    /// reports so many times, a second of its own apart.
    struct Told<P> {
        used: u64,
        pained: P,
        reports: usize,
    }

    async fn guest<P>(directory: &std::path::Path, actual: Arc<Mutex<u64>>, told: Told<P>) -> Guest
    where
        P: Fn(u64) -> bool + Send + 'static,
    {
        let socket = directory.join("guest");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            let (mut port, _) = listener.accept().await.unwrap();
            let (mut uptime_ms, mut major) = (0, 0);
            for _ in 0..told.reports {
                let has = *actual.lock().unwrap();
                uptime_ms += 1000;
                major += if (told.pained)(has) { 1000 } else { 0 };
                // What is no page cache stays as it is.
                let (fixed, used) = (told.used * MIB / 2, (told.used * MIB).min(has));
                let memory = Said { free: has - used, inactive_file: used.saturating_sub(fixed), ..Said::default() };
                let faults = Some(Faults { major, ..Faults::default() });
                let report = Report { uptime_ms, memory: Some(memory), faults, ..Report::default() };
                let line = format!("{}\n", serde_json::to_string(&report).unwrap());
                if port.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
                sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        });
        let guest = Guest::listen(&socket);
        while guest.report().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        guest
    }

    /// Has it go to `target` MiB within `seconds`; returns the MiB that are told, and those in force.
    async fn bring<P>(told: Told<P>, target: u64, seconds: u64) -> ((u64, u64), Option<Held>)
    where
        P: Fn(u64) -> bool + Send + 'static,
    {
        let directory = tempfile::tempdir().unwrap();
        let actual = Arc::new(Mutex::new(100 * MIB));
        let qemu = qemu(actual.clone());
        let guest = guest(directory.path(), actual.clone(), told).await;
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let (has, held) = Memory::default().set(&qemu.qmp, &guest, Bytes(target * MIB), deadline).await.unwrap();
        let in_force = *actual.lock().unwrap() / MIB;
        ((has.0 / MIB, in_force), held)
    }

    fn uses(used: u64) -> Told<fn(u64) -> bool> {
        Told { used, pained: |_| false, reports: usize::MAX }
    }

    #[tokio::test]
    async fn memory_is_taken_from_who_bears_it() {
        assert!(matches!(bring(uses(30), 60, 20).await, ((60, 60), None)), "what holds nothing goes at once");
        assert!(matches!(bring(uses(90), 60, 20).await, ((60, 60), None)), "what holds something in steps");
    }

    #[tokio::test]
    async fn it_stops_where_a_guest_suffers_or_has_nothing_to_give() {
        let pained = |has| has < 70 * MIB;
        let ((has, in_force), held) = bring(Told { used: 90, pained, reports: usize::MAX }, 50, 20).await;
        assert!((70..90).contains(&has), "{has} MiB are what it bears");
        assert_eq!(has, in_force);
        assert!(matches!(held, Some(Held::Pain { .. })), "{held:?}");
        let ((has, _), held) = bring(uses(100), 20, 20).await;
        assert_eq!(has, 50, "half of it is no page cache: {held:?}");
    }

    #[tokio::test]
    async fn the_last_step_is_watched_too() {
        let pained = |has| has < 85 * MIB;
        let (has, held) = bring(Told { used: 90, pained, reports: usize::MAX }, 80, 20).await;
        assert_eq!(has, (100, 100), "{held:?}");
        assert!(matches!(held, Some(Held::Pain { .. })), "{held:?}");
    }

    #[tokio::test]
    async fn nothing_is_taken_that_nobody_watches() {
        assert_eq!(bring(uses(90), 60, 1).await.0, (100, 100), "there is no time to see how it bears that");
        let silent = Told { reports: 1, ..uses(90) };
        assert_eq!(bring(silent, 60, 3).await.0, (100, 100), "it says no more");
    }
}

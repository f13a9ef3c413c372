//! What a service manager is told (sd_notify(3)). Where there is none, nothing happens.

use sd_notify::NotifyState;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, timeout};
use vibra_proxy::Pulse;

/// That the dispatcher serves.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// That the configuration is read again; [`ready`] follows.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!("the service manager is not told of the reload: {error}"),
    }
}

/// That it is about to end.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// That the process `pid` goes on in place of this one.
pub(crate) fn replaced_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// Tells the service manager again and again, where it wants to be told, that all threads of a dispatcher do their work.
/// Where one hangs it is told no more, and starts the service anew.
pub(crate) async fn watch(dispatcher: Pulse) {
    let Some(patience) = sd_notify::watchdog_enabled() else { return };
    let pause = (patience / 2).max(Duration::from_millis(1));
    let mut times = interval(pause);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<Vec<u64>> = None;
    loop {
        times.tick().await;
        let pulse = timeout(pause, dispatcher.read()).await.ok().flatten();
        let goes_on = |(now, then): (&u64, &u64)| now != then;
        match (&pulse, &before) {
            (Some(now), Some(then)) if !now.iter().zip(then).all(goes_on) => tracing::error!("a thread hangs"),
            (Some(_), _) => tell(&[NotifyState::Watchdog]),
            (None, _) => tracing::error!("the control thread hangs"),
        }
        before = pulse;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!("the service manager is not told of {state:?}: {error}");
    }
}

//! When a running part is asked to end.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Waits for SIGINT or SIGTERM.
///
/// # Errors
/// If signals cannot be listened to.
pub(crate) async fn requested() -> std::io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Waits until `stopped` says so, or nobody is left to say it.
pub(crate) async fn told(mut stopped: watch::Receiver<bool>) {
    drop(stopped.wait_for(|stop| *stop).await);
}

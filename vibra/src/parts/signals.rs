//! The signals that a running dispatcher follows.

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// To end (SIGINT, SIGTERM).
    Stop,
    /// To read the configuration again (SIGHUP).
    Reload,
    /// To let a new process take over (SIGUSR2).
    Upgrade,
}

/// The signals as they come.
pub(crate) struct Signals {
    interrupt: Stream,
    terminate: Stream,
    hangup: Stream,
    user: Stream,
}

impl Signals {
    /// From now on signals are noticed, and no longer end the process.
    ///
    /// # Errors
    /// If they cannot be listened to.
    pub(crate) fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.user.recv() => Signal::Upgrade,
        }
    }

    /// Waits until it is asked to end, where there is nothing to reload.
    pub(crate) async fn stop(&mut self) {
        while self.next().await != Signal::Stop {
            tracing::warn!("SIGHUP and SIGUSR2 are for a dispatcher, and none runs here");
        }
    }
}

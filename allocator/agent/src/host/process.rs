//! Processes of VMs: in the host's or the VM's namespace, and in the VM's control groups.

use super::{command::with_search_path, network::enter};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};
use std::{io, os::fd::OwnedFd, path::PathBuf, sync::Arc};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
};

/// Moves itself into the control groups named by its first argument and becomes the command that follows: nothing of
/// the server, nor of what it starts, is ever outside.
const ENTER: &str = r#"for group in $0; do echo $$ > "$group/cgroup.procs" || exit; done; exec "$@""#;

/// A command that runs `program` in `namespace` and in the control groups with these `groups` directories.
pub(crate) fn contained(program: &str, namespace: &str, groups: &[PathBuf]) -> Command {
    let groups: Vec<_> = groups.iter().map(|group| group.to_string_lossy()).collect();
    let mut command = Command::from(with_search_path("sh"));
    command.args(["-c", ENTER, &groups.join(" ")]).args(enter(namespace).split(' ')).arg(program);
    command
}

/// Signals a process; one that has ended already is left alone.
pub(crate) fn signal(child: &Child, signal: Signal) -> io::Result<()> {
    // A process that was waited for has no id any more, so no other can have got it.
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    match pid.map(|pid| kill_process(pid, signal)) {
        None | Some(Ok(()) | Err(rustix::io::Errno::SRCH)) => Ok(()),
        Some(Err(error)) => Err(error.into()),
    }
}

/// The end of a process, to be waited for by anybody, also by several, while its owner keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Exit(Arc<OwnedFd>);

impl Exit {
    /// That of a process that was not waited for yet.
    pub(crate) fn of(child: &Child) -> io::Result<Exit> {
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).ok_or(io::ErrorKind::NotFound)?;
        Ok(Exit(Arc::new(pidfd_open(pid, PidfdFlags::empty())?)))
    }

    /// Waits until the process has ended.
    pub(crate) async fn wait(&self) {
        // The kernel tells of any child's end. To listen before the first look is not to miss this one's.
        if let Ok(mut ends) = unix::signal(SignalKind::child()) {
            while !self.is_over() {
                ends.recv().await;
            }
            return;
        }
        // Without that an end is found out at the next look at the process.
        std::future::pending().await
    }

    fn is_over(&self) -> bool {
        poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_hears_of_a_process_s_end() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let exit = Exit::of(&child).unwrap();
        let other = exit.clone();
        let waiting = tokio::spawn(async move { other.wait().await });
        assert!(!waiting.is_finished());
        child.start_kill().unwrap();
        exit.wait().await;
        waiting.await.unwrap();
        child.wait().await.unwrap();
        exit.wait().await;
    }
}

//! Processes of VMs: in the host's or the VM's namespace, and in the VM's control groups.

use super::{command::with_search_path, network::enter};
use rustix::process::{Pid, Signal, kill_process};
use std::{io, path::PathBuf};
use tokio::process::{Child, Command};

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

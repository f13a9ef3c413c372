//! Processes that a benchmark starts, the CPU time and memory they use, and their end.

use anyhow::{Context, bail};
use rustix::{
    process::{Pid, Signal, kill_process},
    thread::{CpuSet, sched_setaffinity},
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// The core that the proxy under test has for itself; the servers and the load generator share the other one.
pub(super) const PROXY_CORE: usize = 0;
/// The core of everything else.
pub(super) const OTHER_CORE: usize = 1;

/// How long a server may take until it accepts connections, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A clock tick of `/proc/PID/stat`.
const TICK: Duration = Duration::from_millis(10);

/// A server process that ends when this is dropped.
pub(super) struct Server {
    name: String,
    child: Child,
    /// Where it writes standard error: a pipe that nobody reads would stop it one day.
    said: PathBuf,
}

impl Server {
    /// Starts `command` on one core and waits until it accepts connections at `address`. What it says on standard error
    /// goes to a file in `folder`.
    pub(super) fn start(
        name: &str,
        core: usize,
        command: &Command,
        address: SocketAddr,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        // `taskset` becomes the program it starts, so the process id stays that of the server.
        let mut pinned = Command::new("taskset");
        pinned.arg("-c").arg(core.to_string()).arg(command.get_program()).args(command.get_args());
        let said = folder.join(format!("{name}.stderr"));
        pinned.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&said)?);
        let child = pinned.spawn().context("cannot start taskset (Debian package util-linux)")?;
        let mut server = Server { name: name.to_owned(), child, said };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("{name} ended at once ({status}): {}", server.said());
            }
            if Instant::now() > deadline {
                bail!("{name} accepts no connections at {address} after {PATIENCE:?}: {}", server.said());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// CPU time so far, user and system, of the process with its threads that have ended, and of its children.
    pub(super) fn cpu_time(&self) -> anyhow::Result<Duration> {
        self.sum(|pid| {
            let path = format!("/proc/{pid}/stat");
            let stat = fs::read_to_string(&path).with_context(|| self.gone(&path))?;
            cpu_time(&stat).with_context(|| format!("{path} has no CPU times"))
        })
    }

    /// Resident memory of the process and its children, in bytes.
    pub(super) fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.sum(|pid| {
            let path = format!("/proc/{pid}/status");
            let status = fs::read_to_string(&path).with_context(|| self.gone(&path))?;
            resident_bytes(&status).with_context(|| format!("{path} has no VmRSS"))
        })
    }

    /// The sum of what `of` finds for the process and for each of its children.
    fn sum<T: std::iter::Sum>(&self, of: impl Fn(u32) -> anyhow::Result<T>) -> anyhow::Result<T> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        std::iter::once(own).chain(children).map(of).sum()
    }

    fn gone(&self, path: &str) -> String {
        format!("cannot read {path}: {} has ended; it said: {}", self.name, self.said())
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first, so that a master process takes its workers along.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                eprintln!("{} (process {}) does not end: killing it", self.name, self.child.id());
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// CPU time in a text of `/proc/PID/stat`, which is exact to a tick.
fn cpu_time(stat: &str) -> Option<Duration> {
    // The second field is the program's name in parentheses and may hold anything; utime and stime are 14 and 15.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut times = after_name.split_whitespace().skip(11).map_while(|ticks| ticks.parse::<u32>().ok());
    Some(TICK * times.next()?.checked_add(times.next()?)?)
}

/// Resident memory in a text of `/proc/PID/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// An address at `ip` that nothing listened on a moment ago.
pub(super) fn free_address(ip: Ipv4Addr) -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((ip, 0))?.local_addr()?)
}

/// Keeps this process, and what it starts from now on, on the core of the load generator.
pub(super) fn leave_the_proxy_core() -> anyhow::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(OTHER_CORE);
    sched_setaffinity(None, &cores).with_context(|| {
        format!("cannot run on core {OTHER_CORE}: this benchmark needs two cores, one for the proxy alone")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_looks_like_fields_does_not_shift_the_cpu_times() {
        let stat = "12 (a) 9 9) S 1 2 3 4 5 6 7 8 9 10 31 11 0 0 20 0 3 0 100 1 2";
        assert_eq!(cpu_time(stat), Some(Duration::from_millis(420)));
        assert_eq!(cpu_time("12 (a) S 1"), None);
        assert_eq!(cpu_time(""), None);
    }

    #[test]
    fn resident_memory_is_in_kibibytes() {
        assert_eq!(resident_bytes("VmHWM:\t   9 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }

    #[test]
    fn a_process_that_runs_has_memory_and_ends_with_its_owner() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let server = Server::start("sleep", 0, &command, listener.local_addr().unwrap(), folder.path()).unwrap();
        let pid = server.child.id();
        assert!(server.resident_bytes().unwrap() > 0);
        assert!(server.cpu_time().unwrap() < PATIENCE);
        drop(server);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_process_that_ends_at_once_is_told_with_what_it_said() {
        let folder = tempfile::tempdir().unwrap();
        let nowhere = free_address(Ipv4Addr::LOCALHOST).unwrap();
        let error =
            Server::start("absent", 0, &Command::new("./no-such-program"), nowhere, folder.path()).err().unwrap();
        let text = error.to_string();
        assert!(text.contains("absent ended at once") && text.contains("no-such-program"), "{text}");
    }
}

//! Processes that a benchmark starts, the CPU time they use, and their end.

use anyhow::{Context, bail};
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// How long a server may take until it accepts connections.
const START_LIMIT: Duration = Duration::from_secs(10);

/// A server process that ends when this is dropped.
pub(super) struct Server {
    name: &'static str,
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts `command` on one core and waits until it accepts connections at `address`.
    pub(super) fn start(
        name: &'static str,
        core: usize,
        mut command: Command,
        address: SocketAddr,
    ) -> anyhow::Result<Self> {
        // `taskset` becomes the program it starts, so the process id stays that of the server.
        let mut pinned = Command::new("taskset");
        pinned.arg("-c").arg(core.to_string()).arg(command.get_program()).args(command.get_args());
        pinned.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command = pinned;
        let child = command.spawn().with_context(|| format!("cannot start {name} (install it, and util-linux)"))?;
        let mut server = Server { name, child, address };
        let deadline = Instant::now() + START_LIMIT;
        while TcpStream::connect_timeout(&address, Duration::from_millis(100)).is_err() {
            if let Some(status) = server.child.try_wait()? {
                let mut said = String::new();
                if let Some(mut stderr) = server.child.stderr.take() {
                    std::io::Read::read_to_string(&mut stderr, &mut said)?;
                }
                bail!("{name} ended at once ({status}): {}", said.trim());
            }
            if Instant::now() > deadline {
                bail!("{name} accepts no connections at {address} after {START_LIMIT:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// CPU time so far of the process and its children, user and system.
    pub(super) fn cpu_time(&self) -> anyhow::Result<Duration> {
        let pid = self.child.id();
        let own = cpu_time(pid)?;
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().try_fold(own, |sum, child| Ok(sum + cpu_time(child.parse()?)?))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM first, so that a master process takes its workers along.
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").arg(&pid).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.child.kill();
        }
        let deadline = Instant::now() + START_LIMIT;
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                eprintln!("{} (process {pid}) does not end: killing it", self.name);
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// CPU time of one process, from `/proc/PID/stat`, in ticks of 10 ms.
fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}: the process ended"))?;
    // The second field is the program's name in parentheses and may hold anything; utime and stime are 14 and 15.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<u64> = after_name.split_whitespace().skip(11).take(2).filter_map(|t| t.parse().ok()).collect();
    let [user, system] = ticks[..] else { bail!("{path} has no CPU times") };
    Ok(Duration::from_millis((user + system) * 10))
}

/// An address on loopback that nothing listened on a moment ago.
pub(super) fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

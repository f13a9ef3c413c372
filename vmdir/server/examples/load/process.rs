//! The server as a process of its own, and what processor time processes use.

use crate::{Result, cluster::Cluster};
use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    ops::Sub,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};
use vibra_server::Config;
use vibra_store::RedbStore;

/// Where the server process keeps its store. It makes this program the server.
const STORE: &str = "VIBRA_LOAD_STORE";
/// The kernel counts processor time in these units for programs, on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// The store of the server that this process is to be, if it is to be one.
pub(crate) fn store_to_serve() -> Option<PathBuf> {
    env::var_os(STORE).map(PathBuf::from)
}

/// Serves until standard input ends, as it does when the other process is gone.
pub(crate) async fn serve(store: PathBuf) -> Result<()> {
    let store = Arc::new(RedbStore::open(store)?);
    let config = Config::new("127.0.0.1:0".parse()?, store, Cluster::tokens()?);
    let mut server = vibra_server::Server::start(config).await?;
    println!("{}", server.address());
    let ended = tokio::task::spawn_blocking(|| io::copy(&mut io::stdin(), &mut io::sink()));
    tokio::select! {
        _ = ended => Ok(server.stop().await?),
        error = server.failed() => Err(error.into()),
    }
}

/// The server process; it is killed when this is dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .env(STORE, folder.join("directory.redb"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("the server has no output")?;
        // From here on it is killed if anything fails.
        let mut server = Server { child, address: ([127, 0, 0, 1], 0).into() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        server.address = line.trim().parse().map_err(|_| "the server did not start: see above")?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The processor time that it has used.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        cpu(&self.child.id().to_string())
    }

    /// Ends it in order.
    pub(crate) fn stop(mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Sub for Cpu {
    type Output = Cpu;

    fn sub(self, earlier: Cpu) -> Cpu {
        Cpu { user: self.user - earlier.user, system: self.system - earlier.system }
    }
}

/// The processor time that this process has used.
pub(crate) fn own_cpu() -> Result<Cpu> {
    cpu("self")
}

fn cpu(process: &str) -> Result<Cpu> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the program's name in parentheses; user and system time are the 14th and 15th.
    let (_, fields) = stat.rsplit_once(')').ok_or("/proc/PID/stat has no name")?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let seconds = |at: usize| -> Result<f64> {
        let ticks: f64 = fields.get(at).ok_or("/proc/PID/stat is too short")?.parse()?;
        Ok(ticks / TICKS_PER_SECOND)
    };
    Ok(Cpu { user: seconds(11)?, system: seconds(12)? })
}

//! What the whole-system tests share: the command as a process, an HTTP client that sees how a body ends, servers that
//! do as they are told, and waits that have a bound.

// Each test target uses a part of this.
#![allow(dead_code, unused_imports)]

mod cluster;
mod dispatcher;
mod http;
mod origin;
mod process;
mod secure;
mod witness;

pub(crate) use cluster::*;
pub(crate) use dispatcher::*;
pub(crate) use http::*;
pub(crate) use origin::*;
pub(crate) use process::*;
pub(crate) use secure::*;
pub(crate) use witness::*;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long anything may take to happen. Machines are sometimes busy; a test that passes never waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a state that one cannot be woken by is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Looks until `look` finds what it looks for.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => panic!("{what}: not within {PATIENCE:?}; last seen: {seen}"),
            Err(_) => sleep(LOOK),
        }
    }
}

/// A folder for one test, removed at its end.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where `name` is, or would be.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Writes a file; returns where it is.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        std::fs::write(&path, content).expect("a file in the temporary folder");
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        let path = self.file(name);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }
}

/// An address on loopback that is free, for what has to be found there again after a restart. It lies below the ports
/// that the kernel hands out, so that nobody gets it by chance meanwhile.
pub(crate) fn fixed_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() % u32::from(COUNT)) as u16;
    let ports = std::iter::repeat_with(|| FIRST + (start + NEXT.fetch_add(1, Relaxed)) % COUNT);
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let port = ports.take(usize::from(COUNT)).find(free).expect("a free port");
    (Ipv4Addr::LOCALHOST, port).into()
}

//! A new program takes over from the one that runs, which hands it the listening sockets.
//!
//! On SIGUSR2 the dispatcher starts its program again, as it is on disk now, with the same arguments, and with the
//! sockets in the way of systemd's socket activation; what operators want of servers it tells it in the environment. Once
//! the new process serves it ends the old one by SIGTERM; if it does not come so far, the old one goes on.

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use listenfd::ListenFd;
use rustix::process::{Pid, Signal, getppid, kill_process};
use std::{
    env, io,
    net::TcpListener,
    os::fd::OwnedFd,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};
use tokio::process::Child;
use vibra_proxy::{Handle, Orders};

/// The first descriptor that is handed over, by sd_listen_fds(3).
const FIRST: i32 = 3;
/// Names the process to be replaced, by its number.
const PREDECESSOR: &str = "VIBRA_PREDECESSOR";
/// What operators want of servers, in JSON.
const ORDERS: &str = "VIBRA_ORDERS";
/// How long a new process may take until it can serve.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it can.
const LOOK: Duration = Duration::from_millis(20);

/// Where this program is on disk.
static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Notes where this program is, for it may be replaced there while it runs.
///
/// # Errors
/// If the system does not tell.
pub(crate) fn note_program() -> io::Result<()> {
    let program = env::current_exe()?;
    PROGRAM.get_or_init(|| program);
    Ok(())
}

/// The listening sockets that this process was started with.
///
/// # Errors
/// If one of them is none.
pub(crate) fn inherited() -> anyhow::Result<Vec<TcpListener>> {
    let mut given = ListenFd::from_env();
    let mut sockets = Vec::new();
    for place in 0..given.len() {
        let taken = given.take_tcp_listener(place);
        sockets.extend(taken.with_context(|| format!("socket {} of those that were handed over", place + 1))?);
    }
    Ok(sockets)
}

/// What operators wanted of servers of the process that this one takes over from, if there is one.
///
/// # Errors
/// If they cannot be understood.
pub(crate) fn inherited_orders() -> anyhow::Result<Option<Orders>> {
    let Some(_) = predecessor() else { return Ok(None) };
    // A process of before there were orders tells of none.
    let told = env::var(ORDERS).unwrap_or_else(|_| "{}".to_owned());
    serde_json::from_str(&told).map(Some).with_context(|| format!("reading orders about servers from {ORDERS}"))
}

/// Starts the process that is to take over. Until that has failed, no orders about servers are taken.
///
/// # Errors
/// If it cannot be started.
pub(crate) async fn start_successor(handle: &Handle) -> anyhow::Result<Child> {
    let orders = handle.hold_orders().await;
    let started = start_with(handle, &orders);
    if started.is_err() {
        handle.take_orders().await;
    }
    started
}

fn start_with(handle: &Handle, orders: &Orders) -> anyhow::Result<Child> {
    let program = PROGRAM.get().context("it is not known where this program is")?;
    let sockets = handle.sockets().context("duplicating the listening sockets")?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1));
    command.env("LISTEN_FDS", sockets.len().to_string()).env(PREDECESSOR, std::process::id().to_string());
    command.env(ORDERS, serde_json::to_string(orders)?);
    // These name this process, or what it was given.
    for stale in ["LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID"] {
        command.env_remove(stale);
    }
    let mappings =
        (FIRST..).zip(sockets).map(|(child_fd, socket)| FdMapping { parent_fd: OwnedFd::from(socket), child_fd });
    command.fd_mappings(mappings.collect())?;
    tokio::process::Command::from(command).spawn().with_context(|| format!("starting {}", program.display()))
}

/// Ends the process that this one takes over from, if there is one, once this one can serve.
///
/// # Errors
/// If it cannot serve in time: then the old one had better go on.
pub(crate) async fn relieve_predecessor(handle: &Handle) -> anyhow::Result<()> {
    let Some(old) = predecessor() else { return Ok(()) };
    let deadline = Instant::now() + PATIENCE;
    while !can_serve(handle) {
        if Instant::now() > deadline {
            bail!("no server was found to be usable within {PATIENCE:?}: the process {old:?} is not taken over from");
        }
        tokio::time::sleep(LOOK).await;
    }
    kill_process(old, Signal::TERM).context("ending the process that is taken over from")?;
    handle.take_orders().await;
    Ok(())
}

/// Whether requests reach a server, or operators want that they reach none.
fn can_serve(handle: &Handle) -> bool {
    let servers = handle.status().servers;
    let is_out = !servers.is_empty() && servers.iter().all(|server| server.order.is_some());
    is_out || servers.iter().any(|server| server.used)
}

/// The process that has started this one to be replaced. Its number alone could be another's by now.
fn predecessor() -> Option<Pid> {
    let named: i32 = env::var(PREDECESSOR).ok()?.parse().ok()?;
    getppid().filter(|parent| parent.as_raw_nonzero().get() == named)
}

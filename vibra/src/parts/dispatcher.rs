//! The dispatcher.

use crate::{
    config,
    parts::{
        signals::{Signal, Signals},
        systemd, takeover,
    },
};
use anyhow::{Context, anyhow};
use std::{future::pending, sync::Arc};
use tokio::process::Child;
use vibra_client::Directory;
use vibra_proxy::{ActiveCheck, Config, Dispatcher, Given, Handle, Loader, Source, StaticServer};

/// Reads the dispatcher's part of the configuration again.
pub(crate) type Again = Box<dyn Fn() -> anyhow::Result<config::Dispatcher> + Send + Sync>;

/// Starts the dispatcher that `config` describes and says so on standard error. `directory` is there where the
/// configuration has one, `again` where there is a file to reload.
///
/// # Errors
/// If it cannot listen, or has no directory to follow although it should.
pub(crate) fn start(
    config: &config::Dispatcher,
    directory: Option<Arc<dyn Directory>>,
    again: Option<Again>,
) -> anyhow::Result<Handle> {
    let proxy = meant(config, directory.clone())?;
    let loader = again.map(|again| loader(again, directory));
    let given = Given { loader, sockets: takeover::inherited()?, orders: takeover::inherited_orders()? };
    let handle = Dispatcher::start_with(proxy, given).context("starting the dispatcher")?;
    let listening: Vec<_> = handle.urls().collect();
    eprintln!("dispatcher: {}, {}, R = {}", listening.join(" "), config.settings.algorithm, config.settings.replicas);
    if let Some(admin) = handle.admin() {
        eprintln!("dispatcher: admin at http://{admin}/metrics, /snapshot, /explain?url=");
        if !admin.ip().is_loopback() {
            tracing::warn!("the admin address {admin} is open to other machines: whoever reaches it can stop this");
        }
    }
    Ok(handle)
}

/// Whether a new process can take over from this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upgrades {
    /// The dispatcher is all there is to it.
    Possible,
    /// Others run in it.
    Impossible,
}

/// Runs until it is asked to end, by a signal or by operators, and does what else signals ask for.
///
/// # Errors
/// If it was to take over from another process, and cannot.
pub(crate) async fn keep(mut handle: Handle, signals: &mut Signals, upgrades: Upgrades) -> anyhow::Result<()> {
    if let Err(error) = takeover::relieve_predecessor(&handle).await {
        let grace = handle.drain_time();
        handle.hand_over(grace).await;
        return Err(error);
    }
    systemd::ready();
    tokio::spawn(systemd::watch(handle.pulse()));
    let mut successor: Option<Child> = None;
    let cut = loop {
        tokio::select! {
            signal = signals.next() => match (signal, upgrades) {
                (Signal::Reload, _) => reload(&handle),
                (Signal::Upgrade, Upgrades::Possible) if successor.is_none() => {
                    match takeover::start_successor(&handle).await {
                        Ok(child) => successor = Some(child),
                        Err(error) => tracing::error!(target: "operator", "no new process takes over: {error:#}"),
                    }
                }
                (Signal::Upgrade, Upgrades::Possible) => tracing::warn!("a new process is about to take over already"),
                (Signal::Upgrade, Upgrades::Impossible) => {
                    tracing::error!(
                        target: "operator",
                        "no new process takes over: here other parts than the dispatcher run, which cannot be handed over; \
                         to upgrade, start this anew, or run the parts as processes of their own"
                    );
                }
                (Signal::Stop, _) => break end(handle, successor).await,
            },
            status = exit(&mut successor) => {
                successor = None;
                handle.take_orders().await;
                tracing::error!(target: "operator", "the new process ended ({status}); this one goes on");
            }
            cut = handle.stopped() => break cut,
        }
    };
    if cut > 0 {
        eprintln!("dispatcher: cut off {cut} connections that did not end in time");
    }
    Ok(())
}

/// Reloads beside everything else: a signal must not have to wait for a slow disk. The outcome is logged and kept.
fn reload(handle: &Handle) {
    let reload = handle.reload();
    tokio::spawn(async move {
        systemd::reloading();
        let _ = reload.await;
        systemd::ready();
    });
}

/// Ends what is under way; returns how many connections were cut off.
async fn end(handle: Handle, successor: Option<Child>) -> usize {
    let grace = handle.drain_time();
    eprintln!("dispatcher: finishing what is under way");
    match successor.and_then(|child| child.id()) {
        Some(successor) => {
            systemd::replaced_by(successor);
            handle.hand_over(grace).await
        }
        None => {
            systemd::stopping();
            handle.shutdown(grace).await
        }
    }
}

/// Waits until a process ends; for ever where there is none.
async fn exit(process: &mut Option<Child>) -> String {
    match process {
        Some(child) => child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string()),
        None => pending().await,
    }
}

fn loader(again: Again, directory: Option<Arc<dyn Directory>>) -> Loader {
    Box::new(move || {
        let meant = again().and_then(|config| meant(&config, directory.clone()));
        meant.map_err(|error| format!("{error:#}").into())
    })
}

/// What `config` means for the data path.
fn meant(config: &config::Dispatcher, directory: Option<Arc<dyn Directory>>) -> anyhow::Result<Config> {
    let source = match &config.source {
        config::Source::Static(servers) => Source::Static(servers.iter().map(static_server).collect()),
        config::Source::Directory(customer) => {
            let directory =
                directory.ok_or_else(|| anyhow!("the dispatcher follows a directory, but there is none"))?;
            Source::Directory { directory, customer: customer.clone() }
        }
    };
    let mut proxy = Config {
        admin: config.admin,
        threads: config.threads,
        settings: config.settings.clone(),
        peers: config.peers.clone(),
        access_log: config.access_log.clone(),
        trace: config.trace.clone(),
        limits: config.limits.clone(),
        timeouts: config.timeouts.clone(),
        tls: config.tls.clone(),
        manner: config.manner,
        server_tls: config.server_tls.clone(),
        http2: config.http2,
        ..Config::new(config.listen, source)
    };
    proxy.health.active = Some(ActiveCheck { path: config.health_path.clone(), ..ActiveCheck::default() });
    proxy.health.slow_start = config.slow_start.unwrap_or(proxy.health.slow_start);
    proxy.drain = config.drain_timeout.unwrap_or(proxy.drain);
    Ok(proxy)
}

fn static_server(server: &config::Server) -> StaticServer {
    let config::Server { name, address, weight, manner } = server.clone();
    StaticServer { name, address, weight, manner }
}

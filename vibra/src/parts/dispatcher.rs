//! The dispatcher.

use crate::{
    config,
    parts::signals::{Signal, Signals},
};
use anyhow::{Context, anyhow};
use std::sync::Arc;
use vibra_client::Directory;
use vibra_proxy::{ActiveCheck, Config, Dispatcher, Handle, Loader, Source, StaticServer};

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
    let started = match again {
        Some(again) => Dispatcher::start_reloadable(proxy, loader(again, directory)),
        None => Dispatcher::start(proxy),
    };
    let handle = started.context("starting the dispatcher")?;
    let listening: Vec<_> = handle.addresses().iter().map(|a| format!("http://{a}")).collect();
    eprintln!("dispatcher: {}, {}, R = {}", listening.join(" "), config.settings.algorithm, config.settings.replicas);
    if let Some(admin) = handle.admin() {
        eprintln!("dispatcher: admin at http://{admin}/metrics, /snapshot, /explain?url=");
        if !admin.ip().is_loopback() {
            tracing::warn!("the admin address {admin} is open to other machines: whoever reaches it can stop this");
        }
    }
    Ok(handle)
}

/// Runs until it is asked to end, by a signal or by operators, and reloads when it is asked to.
pub(crate) async fn keep(mut handle: Handle, signals: &mut Signals) {
    let cut = loop {
        tokio::select! {
            signal = signals.next() => match signal {
                // The outcome is logged and kept; a signal must not have to wait for a slow disk.
                Signal::Reload => drop(tokio::spawn(handle.reload())),
                Signal::Stop => {
                    eprintln!("dispatcher: finishing what is under way");
                    let grace = handle.drain_time();
                    break handle.shutdown(grace).await;
                }
            },
            cut = handle.stopped() => break cut,
        }
    };
    if cut > 0 {
        eprintln!("dispatcher: cut off {cut} connections that did not end in time");
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
        ..Config::new(config.listen, source)
    };
    proxy.health.active = Some(ActiveCheck { path: config.health_path.clone(), ..ActiveCheck::default() });
    proxy.timeouts.connect = config.connect_timeout.unwrap_or(proxy.timeouts.connect);
    proxy.timeouts.response = config.response_timeout.unwrap_or(proxy.timeouts.response);
    proxy.timeouts.client_idle = config.idle_timeout.unwrap_or(proxy.timeouts.client_idle);
    proxy.health.slow_start = config.slow_start.unwrap_or(proxy.health.slow_start);
    proxy.drain = config.drain_timeout.unwrap_or(proxy.drain);
    Ok(proxy)
}

fn static_server(server: &config::Server) -> StaticServer {
    let config::Server { name, address, weight, send_proxy } = server.clone();
    StaticServer { name, address, weight, send_proxy }
}

//! The dispatcher.

use crate::config;
use anyhow::{Context, anyhow};
use std::sync::Arc;
use vibra_client::Directory;
use vibra_proxy::{ActiveCheck, Config, Dispatcher, Handle, Source, StaticServer};

/// Starts the dispatcher that `config` describes and says so on standard error. `directory` is there where the
/// configuration has one.
///
/// # Errors
/// If it cannot listen, or has no directory to follow although it should.
pub(crate) fn start(config: &config::Dispatcher, directory: Option<Arc<dyn Directory>>) -> anyhow::Result<Handle> {
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
        server_tls: config.server_tls.clone(),
        http2: config.http2,
        ..Config::new(config.listen, source)
    };
    proxy.health.active = Some(ActiveCheck { path: config.health_path.clone(), ..ActiveCheck::default() });
    let handle = Dispatcher::start(proxy).context("starting the dispatcher")?;
    let listening: Vec<_> = handle.urls().collect();
    eprintln!("dispatcher: {}, {}, R = {}", listening.join(" "), config.settings.algorithm, config.settings.replicas);
    if let Some(admin) = handle.admin() {
        eprintln!("dispatcher: admin at http://{admin}/metrics, /snapshot, /explain?url=");
    }
    Ok(handle)
}

fn static_server(server: &config::Server) -> StaticServer {
    let config::Server { name, address, weight, send_proxy } = server.clone();
    StaticServer { name, address, weight, send_proxy }
}

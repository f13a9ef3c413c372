//! What every cell of the benchmark finds in place.

use super::{
    contender::{Certificate, Contender, Running},
    origin::{Origin, SMALL},
    tools::{
        Load, openssl,
        wrk::{self, Connections},
    },
};
use std::{path::Path, time::Duration};

/// The proxies, the servers behind them, and how hard to press them.
pub(super) struct Stage<'a> {
    /// Where processes have their files; it goes away at the end.
    pub(super) folder: &'a Path,
    // Before the origin: a proxy whose servers are gone would complain.
    running: Vec<Running>,
    pub(super) origin: Origin,
    pub(super) certificate: Certificate,
    /// How long a run takes, in whole seconds.
    pub(super) length: Duration,
    /// Keep-alive connections of the closed loops.
    pub(super) connections: u64,
}

impl<'a> Stage<'a> {
    /// Starts everything.
    pub(super) fn set(folder: &'a Path, sizes: &[u64], length: Duration, connections: u64) -> anyhow::Result<Self> {
        let certificate = openssl::certificate(folder)?;
        let origin = Origin::start(folder, sizes)?;
        let start = |contender: Contender| contender.start(folder, &origin, &certificate);
        let running = Contender::ALL.into_iter().map(start).collect::<anyhow::Result<_>>()?;
        let stage = Stage { folder, running, origin, certificate, length, connections };
        stage.running.iter().try_for_each(|proxy| stage.warm_up(proxy))?;
        Ok(stage)
    }

    /// Has a proxy fill its caches and its connections to servers.
    pub(super) fn warm_up(&self, proxy: &Running) -> anyhow::Result<()> {
        self.wrk(proxy, SMALL, Connections::KeepAlive).map(drop)
    }

    /// Runs wrk against a proxy for as long as a run takes.
    pub(super) fn wrk(&self, proxy: &Running, size: u64, lasting: Connections) -> anyhow::Result<Load> {
        let how = (self.connections, lasting);
        wrk::load(self.folder, proxy.listen.plain, size, self.length, how)
    }

    /// A contender that runs in front of two servers.
    pub(super) fn running(&self, contender: Contender) -> &Running {
        &self.running[contender as usize]
    }

    /// Each contender's name and configuration.
    pub(super) fn configurations(&self) -> impl Iterator<Item = (&'static str, String)> {
        Contender::ALL.into_iter().map(|c| (c.name(), self.running(c).configuration.clone()))
    }
}

//! TLS: a connection for each request, with a full or a resumed handshake. The CPU time has the request in it.

use super::{Cell, TEN_PER_CENT_WORSE, Values, closed_loop, contenders, cpu_time, rate};
use crate::bench::{
    compare::Measure,
    contender::Contender,
    origin::{self, SMALL},
    stage::Stage,
    tools::openssl::{self, Handshake},
};

/// Clients at once, each a process: a handshake costs a client about as much as the proxy.
const CLIENTS: usize = 4;

pub(super) struct Tls<'a> {
    stage: &'a Stage<'a>,
    name: &'static str,
    handshake: Handshake,
    /// How much CPU time it may take, in that of the best peer.
    limit: f64,
}

impl<'a> Tls<'a> {
    pub(super) fn full(stage: &'a Stage<'a>) -> Self {
        Tls { stage, name: "TLS, full handshake", handshake: Handshake::Full, limit: TEN_PER_CENT_WORSE }
    }

    pub(super) fn resumed(stage: &'a Stage<'a>) -> Self {
        Tls { stage, name: "TLS, resumed", handshake: Handshake::Resumed, limit: 1.0 }
    }
}

impl Cell for Tls<'_> {
    fn name(&self) -> String {
        self.name.into()
    }

    fn measures(&self) -> Vec<Measure> {
        // The clients set the pace: their rate says nothing of the proxy.
        vec![cpu_time(self.limit), rate(None)]
    }

    fn sides(&self) -> Vec<&'static str> {
        contenders()
    }

    fn run(&mut self, _: u64, side: usize) -> anyhow::Result<Values> {
        let proxy = self.stage.running(Contender::ALL[side]);
        let path = origin::path(SMALL, 0);
        closed_loop(proxy, || openssl::load(proxy.listen.tls, &path, self.stage.length, self.handshake, CLIENTS))
    }
}

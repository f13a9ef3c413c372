//! HTTP/2 over TLS: a few connections with 100 streams each.

use super::{Cell, TEN_PER_CENT_WORSE, Values, closed_loop, contenders, cpu_time, rate};
use crate::bench::{compare::Measure, contender::Contender, origin::SMALL, stage::Stage, tools::h2load};

const CONNECTIONS: usize = 4;
const STREAMS: usize = 100;

pub(super) struct Http2<'a> {
    pub(super) stage: &'a Stage<'a>,
}

impl Cell for Http2<'_> {
    fn name(&self) -> String {
        "HTTP/2".into()
    }

    fn measures(&self) -> Vec<Measure> {
        vec![cpu_time(TEN_PER_CENT_WORSE), rate(Some(TEN_PER_CENT_WORSE))]
    }

    fn sides(&self) -> Vec<&'static str> {
        contenders()
    }

    fn run(&mut self, _: u64, side: usize) -> anyhow::Result<Values> {
        let proxy = self.stage.running(Contender::ALL[side]);
        closed_loop(proxy, || h2load::load(proxy.listen.tls, SMALL, self.stage.length, CONNECTIONS, STREAMS))
    }
}

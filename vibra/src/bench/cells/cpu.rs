//! CPU time a request, and requests a second, in a closed loop over keep-alive connections.

use super::{Cell, TEN_PER_CENT_WORSE, Values, closed_loop, contenders, cpu_time, human, rate};
use crate::bench::{compare::Measure, contender::Contender, stage::Stage, tools::wrk::Connections};

/// Bodies of this many bytes and more are to cost less than the best of the peers takes: they are copied less.
const LARGE: u64 = 1 << 20;

pub(super) struct Cpu<'a> {
    pub(super) stage: &'a Stage<'a>,
    /// Of the bodies, in bytes.
    pub(super) size: u64,
}

impl Cell for Cpu<'_> {
    fn name(&self) -> String {
        format!("cpu {}", human(self.size))
    }

    fn measures(&self) -> Vec<Measure> {
        let limit = if self.size >= LARGE { 0.9 } else { 1.0 };
        vec![cpu_time(limit), rate(Some(TEN_PER_CENT_WORSE))]
    }

    fn sides(&self) -> Vec<&'static str> {
        contenders()
    }

    fn run(&mut self, _: u64, side: usize) -> anyhow::Result<Values> {
        let proxy = self.stage.running(Contender::ALL[side]);
        closed_loop(proxy, || self.stage.wrk(proxy, self.size, Connections::KeepAlive))
    }
}

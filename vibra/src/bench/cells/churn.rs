//! A connection for each request: accepting, one answer, closing.

use super::{Cell, TEN_PER_CENT_WORSE, Values, closed_loop, contenders, cpu_time, rate};
use crate::bench::{compare::Measure, contender::Contender, origin::SMALL, stage::Stage, tools::wrk::Connections};

pub(super) struct Churn<'a> {
    pub(super) stage: &'a Stage<'a>,
}

impl Cell for Churn<'_> {
    fn name(&self) -> String {
        "churn".into()
    }

    fn measures(&self) -> Vec<Measure> {
        vec![cpu_time(1.0), rate(Some(TEN_PER_CENT_WORSE))]
    }

    fn sides(&self) -> Vec<&'static str> {
        contenders()
    }

    fn run(&mut self, _: u64, side: usize) -> anyhow::Result<Values> {
        let proxy = self.stage.running(Contender::ALL[side]);
        closed_loop(proxy, || self.stage.wrk(proxy, SMALL, Connections::OneRequest))
    }
}

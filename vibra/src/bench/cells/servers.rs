//! Whether many servers cost something where few would do.

use super::{Cell, Values, closed_loop, cpu_time, rate, with_and_without};
use crate::bench::{
    compare::Measure,
    contender::{Contender, Running, static_servers, vibra},
    origin::SMALL,
    stage::Stage,
    tools::wrk::Connections,
};
use anyhow::Context;

/// What 100 servers, or 10,000 updates a minute, may change.
pub(super) const THREE_PER_CENT: f64 = 1.03;

pub(super) struct Servers<'a> {
    stage: &'a Stage<'a>,
    /// With 100 more servers.
    with: Option<Running>,
}

impl<'a> Servers<'a> {
    pub(super) fn new(stage: &'a Stage<'a>) -> Self {
        Servers { stage, with: None }
    }
}

impl Cell for Servers<'_> {
    fn name(&self) -> String {
        "100 more servers".into()
    }

    fn measures(&self) -> Vec<Measure> {
        vec![cpu_time(THREE_PER_CENT), rate(None)]
    }

    fn sides(&self) -> Vec<&'static str> {
        with_and_without()
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let servers = static_servers(self.stage.origin.all_servers());
        let with = vibra(self.stage.folder, "vibra-servers", &servers, &self.stage.certificate)?;
        self.stage.warm_up(&with)?;
        self.with = Some(with);
        Ok(())
    }

    fn run(&mut self, _: u64, side: usize) -> anyhow::Result<Values> {
        let proxy = match side {
            0 => self.with.as_ref().context("was not started")?,
            _ => self.stage.running(Contender::Vibra),
        };
        closed_loop(proxy, || self.stage.wrk(proxy, SMALL, Connections::KeepAlive))
    }
}

//! The counters of a host's network, read for all VMs at once.

use super::{
    command::CommandError,
    network::{Network, parse_demand, parse_drops},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use vibra_model::Bytes;

/// What a VM's counters said at one moment; they count since the VM's network was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counters {
    /// What it sent to outside.
    pub(crate) egress: Option<Bytes>,
    /// Packets that its shaper dropped.
    pub(crate) drops: Option<u64>,
}

/// Reads counters.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    /// What was printed last, and when its reading began.
    newest: Mutex<Option<(Instant, Arc<Printed>)>>,
}

/// What the network's tools print about all VMs.
#[derive(Debug)]
struct Printed {
    demand: String,
    queues: String,
}

impl Sampler {
    /// The counters of VM `index`, read after the call began.
    pub(crate) fn read(&self, network: &Network, index: usize) -> Result<Counters, CommandError> {
        let printed = self.print(network)?;
        Ok(Counters { egress: parse_demand(&printed.demand, index), drops: parse_drops(&printed.queues, index) })
    }

    /// Those who ask while the counters are being read share the next reading: to run the tools costs milliseconds, and
    /// all VMs are read at the same time.
    fn print(&self, network: &Network) -> Result<Arc<Printed>, CommandError> {
        let asked = Instant::now();
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, printed)) = newest.as_ref().filter(|(began, _)| *began >= asked) {
            return Ok(printed.clone());
        }
        let began = Instant::now();
        let demand = network.show_demand_step().run()?;
        let printed = Arc::new(Printed { demand, queues: network.show_queues_step().run()? });
        *newest = Some((began, printed.clone()));
        Ok(printed)
    }
}

//! Where a VM is: at a port of a host, with a class of its uplink and a control group there.

use super::{
    Inner,
    process::{Beginning, Launch},
};
use crate::host::{
    cgroup::{self, Cgroup},
    command::Step,
    network::Network,
    shaper::Shaped,
};
use std::{error::Error, io, net::Ipv4Addr, sync::Arc};
use vibra_model::{Amount, Bytes, BytesPerSec, MilliCpu, Resources, VmId};

type BoxError = Box<dyn Error + Send + Sync>;

/// A place for one VM. What is there is removed with the host, or when the VM has gone elsewhere.
pub(super) struct Place {
    pub(super) host: Arc<Inner>,
    /// The number of its port, which its names follow from.
    index: usize,
    cgroup: Box<dyn Cgroup>,
}

impl Place {
    /// A place on `host` for a VM with this address, held to `rate`; without one its egress is not limited. The first
    /// free port is taken.
    pub(super) fn make(host: Arc<Inner>, address: Ipv4Addr, rate: Option<BytesPerSec>) -> Result<Place, BoxError> {
        let index = host.take_port().ok_or("its host has no port left")?;
        let cgroup = host.cgroup(index);
        let place = Place { host, index, cgroup };
        // What limits is there before what could send.
        let made = place.host.shaper.put([(place.class(), Shaped { addresses: vec![address.into()], rate })]);
        let made = made.map_err(BoxError::from).and_then(|()| {
            place.host.network.tap_steps(index).iter().try_for_each(|step| step.run().map(drop)).map_err(BoxError::from)
        });
        match made {
            Ok(()) => Ok(place),
            Err(error) => {
                place.remove();
                Err(error)
            }
        }
    }

    /// Removes what is at this place, processes included. What cannot be removed is said, and goes with the host.
    pub(super) fn remove(&self) {
        let namespace = self.host.network.host_namespace();
        let tap = Step::new(&format!("ip -n {namespace} link delete {}", Network::port(self.index)));
        let directory = self.host.vm_directory(self.index);
        let results: [Result<(), BoxError>; 3] = [
            self.cgroup.directories().iter().try_for_each(|group| cgroup::remove(group)).map_err(BoxError::from),
            tap.run().map(drop).map_err(BoxError::from),
            self.host.shaper.take(self.class()).map_err(BoxError::from),
        ];
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "something is left where a VM was");
        }
        // It may not have been made.
        let _ = std::fs::remove_dir_all(directory);
        self.host.give_port(self.index);
    }

    fn class(&self) -> u16 {
        Network::class(self.index)
    }

    /// What to start here.
    pub(super) fn launch(&self, id: &VmId, address: Ipv4Addr, begins: Beginning) -> Launch {
        let host = &self.host;
        Launch {
            name: format!("vibra-r{}-{id}", host.network.run),
            accelerator: host.accelerator,
            image: host.image.clone(),
            content: host.content.clone(),
            disk: host.settings.disk,
            memory: host.settings.boot_memory,
            address,
            tap: Network::port(self.index),
            directory: host.vm_directory(self.index),
            begins,
        }
    }

    /// The directories of its control group.
    pub(super) fn groups(&self) -> Vec<std::path::PathBuf> {
        self.cgroup.directories()
    }

    /// Makes a fresh control group with its limits, and sets the class. Returns the network's counters.
    pub(super) fn prepare(&self, has: &Resources) -> Result<(Bytes, u64), BoxError> {
        self.cgroup.create()?;
        if let Some(cpu) = has.cpu {
            self.cgroup.set_cpu(cpu)?;
        }
        if let Some(rate) = has.bandwidth {
            self.host.shaper.set(self.class(), rate)?;
        }
        let counters = self.host.shaper.counters(self.class())?;
        Ok((counters.egress.ok_or("its egress is not counted")?, counters.drops.unwrap_or(0)))
    }

    /// Ends what runs here.
    pub(super) fn end(&self) -> io::Result<()> {
        self.cgroup.directories().iter().try_for_each(|group| cgroup::end(group))
    }

    /// Sets what the kernel limits, and reads it back.
    pub(super) fn set(&self, amount: Amount) -> Result<Amount, BoxError> {
        match amount {
            Amount::Bandwidth(rate) => Ok(Amount::Bandwidth(self.host.shaper.set(self.class(), rate)?)),
            Amount::Cpu(limit) => {
                self.cgroup.set_cpu(limit)?;
                Ok(Amount::Cpu(self.cpu()?))
            }
            Amount::Memory(_) => unreachable!("memory is the balloon's"),
        }
    }

    /// The bandwidth in force.
    pub(super) fn rate(&self) -> Result<BytesPerSec, BoxError> {
        self.host.shaper.rate(self.class())?.ok_or_else(|| "no limit of bandwidth is in force".into())
    }

    /// The CPU limit in force.
    pub(super) fn cpu(&self) -> Result<MilliCpu, BoxError> {
        self.cgroup.cpu()?.ok_or_else(|| "no limit of CPU is in force".into())
    }

    /// CPU time used since the control group was made.
    pub(super) fn cpu_time(&self) -> Result<std::time::Duration, BoxError> {
        Ok(self.cgroup.cpu_time()?)
    }

    /// What was sent to outside, and dropped, since the place was made.
    pub(super) fn counters(&self) -> Result<(Option<Bytes>, Option<u64>), BoxError> {
        let counters = self.host.shaper.counters(self.class())?;
        Ok((counters.egress, counters.drops))
    }
}

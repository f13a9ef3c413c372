//! The [`Machine`] side of a namespace VM.

use super::{
    Inner,
    nginx::{self, Server, Site},
};
use crate::{
    Machine, MachineError, MachineSpec, Reading,
    host::{
        cgroup::{self, Cgroup},
        docroot,
        memory::drive::Limit,
        network::Network,
        working_set::Group,
    },
    machine::chain,
};
use async_trait::async_trait;
use std::{
    error::Error,
    io,
    path::PathBuf,
    sync::{Arc, Mutex as StdMutex, PoisonError},
};
use tokio::sync::Mutex;
use vibra_guest::sampler::Sampler;
use vibra_model::{Amount, Bytes, Resource, Resources, VmId, VmState};

type BoxError = Box<dyn Error + Send + Sync>;

/// One VM in a network namespace.
pub(super) struct NamespaceVm {
    shared: Arc<Shared>,
    address: String,
    life: Mutex<Life>,
    /// What it has by order, and what a restart gives it. Whoever works on the actuators holds it until they are done,
    /// even where nobody waits for that any more: an order that was given up must not come to effect after a later one.
    has: Arc<Mutex<Resources>>,
}

/// What the VM's blocking work needs, wherever it runs.
struct Shared {
    host: Arc<Inner>,
    id: VmId,
    index: usize,
    docroot: PathBuf,
    cgroup: Box<dyn Cgroup>,
    /// Where its memory is on its way to.
    memory: StdMutex<Limit>,
    /// Finds out its working set.
    sampler: Sampler,
    /// What it has at its first start; it tells which resources are managed.
    initial: Resources,
}

struct Life {
    /// How often it was started.
    count: u64,
    server: Option<Server>,
    /// The network's counters at the start: they belong to the host and go on.
    egress_before: Bytes,
    drops_before: u64,
}

impl NamespaceVm {
    /// A VM that does not run yet; its network is made.
    pub(super) fn make(host: Arc<Inner>, index: usize, spec: &MachineSpec) -> Result<Self, BoxError> {
        let docroot = host.docroot(index);
        docroot::populate(&docroot, &host.catalogue)?;
        host.network.vm_steps(index).iter().try_for_each(|step| step.run().map(drop))?;
        let group = Group::new(host.cgroup(index), &host.group_name(index), docroot::objects(&docroot));
        let (cgroup, memory, sampler) = (host.cgroup(index), StdMutex::default(), Sampler::start(group)?);
        let (id, initial) = (spec.id.clone(), spec.initial);
        let shared = Shared { id, index, docroot, cgroup, memory, sampler, initial, host };
        let address = format!("{}:80", shared.host.network.vm(index));
        let life = Mutex::new(Life { count: 0, server: None, egress_before: Bytes::ZERO, drops_before: 0 });
        let has = Arc::new(Mutex::new(spec.initial));
        Ok(NamespaceVm { shared: Arc::new(shared), address, life, has })
    }

    /// Does blocking work on the VM, off the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        work: impl FnOnce(&Shared) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, MachineError> {
        let shared = self.shared.clone();
        let done = tokio::task::spawn_blocking(move || work(&shared)).await;
        done.map_err(BoxError::from).and_then(|done| done).map_err(|error| self.failed(what, error))
    }

    /// A master that was killed leaves its workers, and those serve on.
    async fn end_rest(&self) -> Result<(), MachineError> {
        let end = |vm: &Shared| Ok(vm.cgroup.directories().iter().try_for_each(|group| cgroup::end(group))?);
        self.blocking("end what nginx left", end).await
    }

    fn failed(&self, what: impl Into<String>, source: impl Into<BoxError>) -> MachineError {
        MachineError::failed(&self.shared.id, what, source)
    }

    fn not_managed(&self, resource: Resource) -> MachineError {
        MachineError::NotManaged { vm: self.shared.id.clone(), resource }
    }
}

impl Shared {
    fn site(&self) -> Site {
        Site {
            address: self.host.network.vm(self.index),
            objects: docroot::objects(&self.docroot),
            directory: self.host.vm_directory(self.index),
        }
    }

    /// Cold caches, a fresh control group, and its limits.
    fn prepare(&self, has: &Resources) -> Result<(), BoxError> {
        self.cgroup.create()?;
        docroot::forget(&self.docroot, &self.host.catalogue)?;
        if let (Ok(disk), Some(limit)) = (&self.host.disk, self.host.settings.disk) {
            self.cgroup.limit_disk(disk, limit)?;
        }
        has.amounts().try_for_each(|amount| match amount {
            // The group is empty: nothing has to be taken from anybody.
            Amount::Memory(limit) => Ok(self.cgroup.set_memory(limit)?),
            other => self.set(other),
        })
    }

    /// What it does not bear, or cannot, shows in what is read back.
    fn limit_memory(&self, limit: Bytes) -> io::Result<()> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(held) = memory.set(&*self.cgroup, limit)? {
            tracing::warn!(vm = %self.id, %limit, held = crate::machine::chain(&held), "memory cannot be taken from it");
        }
        Ok(())
    }

    fn set(&self, amount: Amount) -> Result<(), BoxError> {
        match amount {
            Amount::Bandwidth(rate) => self.host.shaper.set(self.class(), rate).map(drop)?,
            Amount::Memory(limit) => self.limit_memory(limit)?,
            Amount::Cpu(limit) => self.host.settings.cpu.set(&*self.cgroup, limit)?,
        }
        Ok(())
    }

    fn get(&self, resource: Resource) -> Result<Amount, BoxError> {
        let unlimited = || format!("no limit of {resource} is in force");
        Ok(match resource {
            Resource::Bandwidth => Amount::Bandwidth(self.host.shaper.rate(self.class())?.ok_or_else(unlimited)?),
            Resource::Memory => Amount::Memory(self.cgroup.memory()?.ok_or_else(unlimited)?),
            Resource::Cpu => Amount::Cpu(self.host.settings.cpu.get(&*self.cgroup)?.ok_or_else(unlimited)?),
        })
    }

    fn class(&self) -> u16 {
        Network::class(self.index)
    }
}

#[async_trait]
impl Machine for NamespaceVm {
    fn id(&self) -> &VmId {
        &self.shared.id
    }

    fn address(&self) -> &str {
        &self.address
    }

    async fn start(&self) -> Result<(), MachineError> {
        let mut life = self.life.lock().await;
        if life.server.as_mut().is_some_and(Server::runs) {
            return Ok(());
        }
        life.server = None;
        let has = self.has.clone().lock_owned().await;
        let prepare = move |vm: &Shared| {
            vm.prepare(&has)?;
            let counters = vm.host.shaper.counters(vm.class())?;
            Ok((counters.egress.ok_or("its egress is not counted")?, counters.drops.unwrap_or(0)))
        };
        (life.egress_before, life.drops_before) = self.blocking("make its control group", prepare).await?;
        let namespace = self.shared.host.network.vm_namespace(self.shared.index);
        let server = Server::start(self.shared.site(), &namespace, &self.shared.cgroup.directories()).await;
        life.server = Some(server.map_err(|error| self.failed("start nginx", error))?);
        life.count += 1;
        self.shared.sampler.set(self.shared.host.settings.working_set);
        Ok(())
    }

    async fn stop(&self) -> Result<(), MachineError> {
        let mut life = self.life.lock().await;
        let Some(server) = life.server.take() else { return Ok(()) };
        self.shared.sampler.set(None);
        let stopped = server.stop().await;
        self.end_rest().await?;
        stopped.map_err(|error| self.failed("stop nginx", error))
    }

    async fn state(&self) -> VmState {
        let mut life = self.life.lock().await;
        let runs = life.server.as_mut().is_some_and(Server::runs);
        if runs { VmState::Up } else { VmState::Down }
    }

    async fn ended(&self) {
        loop {
            let exit = {
                let mut life = self.life.lock().await;
                match life.server.as_mut().map(|server| (server.runs(), server.exit())) {
                    None => return,
                    Some((true, exit)) => exit,
                    Some((false, _)) => {
                        life.server = None;
                        if let Err(error) = self.end_rest().await {
                            tracing::warn!("{}", chain(&error));
                        }
                        return;
                    }
                }
            };
            exit.wait().await;
        }
    }

    async fn set(&self, amount: Amount) -> Result<Amount, MachineError> {
        let resource = amount.resource();
        if self.shared.initial.get(resource).is_none() {
            return Err(self.not_managed(resource));
        }
        let mut has = self.has.clone().lock_owned().await;
        let work = move |vm: &Shared| {
            vm.set(amount)?;
            has.set(amount);
            vm.get(resource)
        };
        self.blocking(format!("set its {resource} to {amount}"), work).await
    }

    async fn allocation(&self) -> Result<Resources, MachineError> {
        let has = self.has.clone().lock_owned().await;
        let work = move |vm: &Shared| {
            let managed = has.amounts().map(|amount| vm.get(amount.resource()));
            let amounts = managed.collect::<Result<Vec<_>, _>>()?;
            let mut actual = Resources::NONE;
            amounts.into_iter().for_each(|amount| actual.set(amount));
            Ok(actual)
        };
        self.blocking("read its allocation", work).await
    }

    async fn read(&self) -> Result<Reading, MachineError> {
        let (life, egress_before, drops_before, socket, told) = {
            let life = self.life.lock().await;
            let Some(server) = &life.server else {
                return Err(self.failed("read its sensors", "it does not run"));
            };
            (life.count, life.egress_before, life.drops_before, server.status_socket(), server.told())
        };
        let status = nginx::status(&socket).await;
        let mut reading = self.blocking("read its sensors", |vm| Ok(vm.sense())).await?;
        reading.life = life;
        (reading.timed, reading.service_time) = (Some(told.requests), Some(told.time));
        reading.egress = reading.egress.map(|egress| egress.saturating_sub(egress_before));
        reading.drops = reading.drops.map(|drops| drops.saturating_sub(drops_before));
        if let Ok(status) = status.inspect_err(|error| tracing::warn!(vm = %self.shared.id, %error, "no status")) {
            reading.requests = Some(status.requests);
            reading.in_flight = Some(status.in_flight);
        }
        Ok(reading)
    }
}

impl Shared {
    /// What the host's sensors say; one that fails says nothing.
    fn sense(&self) -> Reading {
        let counters = self.told("network counters", self.host.shaper.counters(self.class()).map_err(BoxError::from));
        Reading {
            egress: counters.and_then(|counters| counters.egress),
            cpu_time: self.told("CPU time", self.cgroup.cpu_time().map_err(BoxError::from)),
            memory_in_use: self.told("memory in use", self.cgroup.memory_in_use().map_err(BoxError::from)),
            drops: counters.and_then(|counters| counters.drops),
            disk_blocks: self.host.disk.as_ref().ok().and_then(|disk| {
                let read = self.cgroup.disk_read(disk).map_err(BoxError::from);
                self.told("disk reads", read).map(|bytes| bytes.0 / 512)
            }),
            working_set: self.sampler.found().working_set.map(|found| Bytes(found.bytes)),
            ..Reading::default()
        }
    }

    fn told<T>(&self, sensor: &str, reading: Result<T, BoxError>) -> Option<T> {
        reading.inspect_err(|error| tracing::warn!(vm = %self.id, sensor, %error, "a sensor says nothing")).ok()
    }
}

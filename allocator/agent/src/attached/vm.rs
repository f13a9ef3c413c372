//! The [`Machine`] side of an attached VM.

use super::{AttachedSpec, Inner};
use crate::{
    Machine, MachineError, Reading,
    host::{
        cgroup::{self, Cgroup, CgroupVersion},
        memory::drive::Limit,
    },
};
use async_trait::async_trait;
use std::{
    error::Error,
    path::Path,
    sync::{Arc, Mutex as Lock, PoisonError},
    time::Duration,
};
use tokio::{net::TcpStream, sync::Mutex, time::timeout};
use vibra_model::{Amount, Bytes, Resource, Resources, VmId, VmState};

type BoxError = Box<dyn Error + Send + Sync>;

/// How long a server may take to accept a connection.
const ANSWERING: Duration = Duration::from_millis(500);

/// One VM that somebody else runs.
pub(super) struct AttachedVm {
    shared: Arc<Shared>,
    /// Whoever works on the actuators holds it until they are done, even where nobody waits for that any more: an order
    /// that was given up must not come to effect after a later one.
    turn: Arc<Mutex<()>>,
}

struct Shared {
    host: Arc<Inner>,
    spec: AttachedSpec,
    class: u16,
    cgroup: Option<Box<dyn Cgroup>>,
    memory: Lock<Limit>,
}

impl AttachedVm {
    pub(super) fn new(host: Arc<Inner>, spec: AttachedSpec, class: u16, version: CgroupVersion) -> Self {
        let open = |name: &std::path::PathBuf| cgroup::open(version, Path::new(cgroup::MOUNT), &name.to_string_lossy());
        let cgroup = spec.cgroup.as_ref().map(open);
        AttachedVm {
            shared: Arc::new(Shared { host, spec, class, cgroup, memory: Lock::default() }),
            turn: Arc::default(),
        }
    }

    /// Does blocking work on the VM, off the runtime's threads.
    async fn blocking<T: Send + 'static>(
        &self,
        what: impl Into<String>,
        work: impl FnOnce(&Shared) -> Result<T, BoxError> + Send + 'static,
    ) -> Result<T, MachineError> {
        let shared = self.shared.clone();
        let turn = self.turn.clone().lock_owned().await;
        let done = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work(&shared)
        });
        done.await.map_err(BoxError::from).and_then(|done| done).map_err(|error| self.failed(what, error))
    }

    fn failed(&self, what: impl Into<String>, source: impl Into<BoxError>) -> MachineError {
        MachineError::failed(self.id(), what, source)
    }
}

impl Shared {
    fn group(&self) -> Result<&dyn Cgroup, BoxError> {
        Ok(self.cgroup.as_deref().ok_or("it has no control group")?)
    }

    fn set(&self, amount: Amount) -> Result<Option<Amount>, BoxError> {
        match amount {
            Amount::Bandwidth(rate) => return Ok(Some(Amount::Bandwidth(self.host.shaper.set(self.class, rate)?))),
            Amount::Memory(limit) => self.limit_memory(limit)?,
            Amount::Cpu(limit) => self.group()?.set_cpu(limit)?,
        }
        self.get(amount.resource())
    }

    /// Takes memory as far as the VM bears it; what is in force is read back.
    fn limit_memory(&self, limit: Bytes) -> Result<(), BoxError> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(held) = memory.set(self.group()?, limit)? {
            let (vm, held) = (&self.spec.machine.id, crate::machine::chain(&held));
            tracing::warn!(%vm, %limit, held, "memory cannot be taken from it");
        }
        Ok(())
    }

    /// What is in force; `None` where it is not limited.
    fn get(&self, resource: Resource) -> Result<Option<Amount>, BoxError> {
        Ok(match resource {
            Resource::Bandwidth => self.host.shaper.rate(self.class)?.map(Amount::Bandwidth),
            Resource::Memory => self.group()?.memory()?.map(Amount::Memory),
            Resource::Cpu => self.group()?.cpu()?.map(Amount::Cpu),
        })
    }

    /// What the host's sensors say; one that fails says nothing.
    fn sense(&self) -> Reading {
        let counters = self.told("network counters", self.host.shaper.counters(self.class).map_err(BoxError::from));
        let cgroup = self.cgroup.as_deref();
        let cpu_time = cgroup.map(|group| self.told("CPU time", group.cpu_time().map_err(BoxError::from)));
        let memory = cgroup.map(|group| self.told("memory in use", group.memory_in_use().map_err(BoxError::from)));
        Reading {
            egress: counters.and_then(|counters| counters.egress),
            drops: counters.and_then(|counters| counters.drops),
            cpu_time: cpu_time.flatten(),
            memory_in_use: memory.flatten(),
            ..Reading::default()
        }
    }

    fn told<T>(&self, sensor: &str, reading: Result<T, BoxError>) -> Option<T> {
        let vm = &self.spec.machine.id;
        reading.inspect_err(|error| tracing::warn!(%vm, sensor, %error, "a sensor says nothing")).ok()
    }
}

#[async_trait]
impl Machine for AttachedVm {
    fn id(&self) -> &VmId {
        &self.shared.spec.machine.id
    }

    fn address(&self) -> &str {
        &self.shared.spec.address
    }

    async fn start(&self) -> Result<(), MachineError> {
        match self.state().await {
            VmState::Up => Ok(()),
            _ => Err(self.failed("start it", "somebody else runs it: start it there")),
        }
    }

    async fn stop(&self) -> Result<(), MachineError> {
        match self.state().await {
            VmState::Down => Ok(()),
            _ => Err(self.failed("stop it", "somebody else runs it: stop it there")),
        }
    }

    async fn state(&self) -> VmState {
        match timeout(ANSWERING, TcpStream::connect(self.address())).await {
            Ok(Ok(_)) => VmState::Up,
            _ => VmState::Down,
        }
    }

    async fn set(&self, amount: Amount) -> Result<Amount, MachineError> {
        let resource = amount.resource();
        if self.shared.spec.machine.initial.get(resource).is_none() {
            return Err(MachineError::NotManaged { vm: self.id().clone(), resource });
        }
        let set = self.blocking(format!("set its {resource} to {amount}"), move |vm| {
            vm.set(amount)?.ok_or_else(|| format!("no limit of {resource} is in force").into())
        });
        set.await
    }

    async fn allocation(&self) -> Result<Resources, MachineError> {
        let read = |vm: &Shared| {
            let mut actual = Resources::NONE;
            for managed in vm.spec.machine.initial.amounts() {
                if let Some(amount) = vm.get(managed.resource())? {
                    actual.set(amount);
                }
            }
            Ok(actual)
        };
        self.blocking("read its allocation", read).await
    }

    async fn read(&self) -> Result<Reading, MachineError> {
        self.blocking("read its sensors", |vm| Ok(vm.sense())).await
    }
}

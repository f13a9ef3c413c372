//! The [`Machine`] side of a virtual machine.

use super::{
    Inner,
    balloon::{self, GuestMemory},
    process::{Beginning, Launch, Qemu},
    qmp::{Qmp, QmpError},
};
use crate::{
    Machine, MachineError, MachineSpec, Reading,
    host::{
        cgroup::{self, Cgroup},
        network::Network,
    },
};
use async_trait::async_trait;
use serde::Deserialize;
use std::{
    error::Error,
    io,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::Mutex,
    time::{Instant, sleep, timeout},
};
use vibra_model::{Amount, Bytes, BytesPerSec, MilliCpu, Resources, VmId, VmState};

type BoxError = Box<dyn Error + Send + Sync>;

/// How long one change of a balloon is waited for: less than the agent waits for an actuator. What is missing then is
/// asked for again.
const BALLOONING: Duration = Duration::from_millis(1500);
/// How long the balloon of a VM that has just booted may take.
const FIRST_BALLOONING: Duration = Duration::from_secs(20);
/// How long a guest may take to answer one request while it boots.
const ANSWERING: Duration = Duration::from_secs(2);
/// How often a guest that boots is asked.
const ASKING: Duration = Duration::from_millis(50);

/// One virtual machine.
pub(super) struct QemuVm {
    shared: Arc<Shared>,
    address: String,
    /// Held by who starts or stops it.
    change: Mutex<u64>,
    /// What it has by order, and what a restart gives it. Whoever works on the actuators holds it until they are done,
    /// even where nobody waits for that any more: an order that was given up must not come to effect after a later one.
    has: Arc<Mutex<Resources>>,
}

/// What the VM's work needs, wherever it runs.
struct Shared {
    host: Arc<Inner>,
    id: VmId,
    index: usize,
    cgroup: Box<dyn Cgroup>,
    /// What it has at its first start; it tells which resources are managed.
    initial: Resources,
    life: StdMutex<Option<Arc<Life>>>,
}

/// One life of a VM, from its start to its end.
struct Life {
    /// The how-manieth.
    count: u64,
    qemu: Qemu,
    /// It served once.
    up: AtomicBool,
    /// The network's counters at the start: they belong to the host and go on.
    egress_before: Bytes,
    drops_before: u64,
}

impl QemuVm {
    /// A VM that does not run yet; its network is made.
    pub(super) fn make(host: Arc<Inner>, index: usize, spec: &MachineSpec) -> Result<Self, BoxError> {
        let most = host.settings.boot_memory;
        if let Some(memory) = spec.initial.memory.filter(|memory| *memory > most) {
            return Err(format!("it shall have {memory} of memory and boots with {most}").into());
        }
        host.network.tap_steps(index).iter().try_for_each(|step| step.run().map(drop))?;
        let cgroup = host.cgroup(index);
        let life = StdMutex::default();
        let shared = Shared { id: spec.id.clone(), index, cgroup, initial: spec.initial, life, host };
        let address = format!("{}:80", shared.host.network.vm(index));
        let has = Arc::new(Mutex::new(spec.initial));
        Ok(QemuVm { shared: Arc::new(shared), address, change: Mutex::new(0), has })
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

    fn failed(&self, what: impl Into<String>, source: impl Into<BoxError>) -> MachineError {
        MachineError::failed(&self.shared.id, what, source)
    }

    /// Boots it and waits until it serves with no more memory than it shall have.
    async fn boot(&self, count: u64) -> Result<(), MachineError> {
        let has = *self.has.lock().await;
        let (egress_before, drops_before) = self.blocking("make its control group", move |vm| vm.prepare(&has)).await?;
        let host = &self.shared.host;
        let (namespace, groups) = (host.network.host_namespace(), self.shared.cgroup.directories());
        let qemu = Qemu::start(self.shared.launch(Beginning::Boot), &namespace, &groups).await;
        let qemu = qemu.map_err(|error| self.failed("start QEMU", error))?;
        let life = Arc::new(Life { count, qemu, up: AtomicBool::new(false), egress_before, drops_before });
        self.shared.begin(life.clone());
        let ready = timeout(host.settings.boot_time, self.shared.ready(&life)).await;
        let late = |_| Err(life.qemu.said(&format!("it did not boot within {:?}", host.settings.boot_time)).into());
        ready.unwrap_or_else(late).map_err(|error: BoxError| self.failed("boot it", error))?;
        let memory = self.has.lock().await.memory;
        if let Some(memory) = memory {
            let brought = balloon::bring_to(life.qemu.qmp(), memory, Instant::now() + FIRST_BALLOONING).await;
            let actual = brought.map_err(|error| self.failed(format!("limit its memory to {memory}"), error))?;
            if actual > memory {
                let asked = Amount::Memory(memory);
                return Err(MachineError::Off { vm: self.shared.id.clone(), asked, actual: Amount::Memory(actual) });
            }
        }
        life.up.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Ends what runs.
    async fn end(&self) -> Result<(), MachineError> {
        let Some(life) = self.shared.life().take() else { return Ok(()) };
        let killed = life.qemu.kill().await;
        let end = |vm: &Shared| Ok(vm.cgroup.directories().iter().try_for_each(|group| cgroup::end(group))?);
        self.blocking("end what QEMU left", end).await?;
        killed.map_err(|error| self.failed("stop QEMU", error))
    }
}

impl Shared {
    fn life(&self) -> std::sync::MutexGuard<'_, Option<Arc<Life>>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, life: Arc<Life>) {
        *self.life() = Some(life);
    }

    /// The life whose process runs.
    fn running(&self) -> Option<Arc<Life>> {
        self.life().clone().filter(|life| life.qemu.runs())
    }

    fn launch(&self, begins: Beginning) -> Launch {
        let host = &self.host;
        Launch {
            name: format!("vibra-r{}-{}", host.network.run, self.id),
            accelerator: host.accelerator,
            image: host.image.clone(),
            content: host.content.clone(),
            disk: host.settings.disk,
            memory: host.settings.boot_memory,
            address: host.network.vm(self.index),
            tap: Network::port(self.index),
            directory: host.vm_directory(self.index),
            begins,
        }
    }

    /// A fresh control group with its limits, and the class. Returns the network's counters.
    fn prepare(&self, has: &Resources) -> Result<(Bytes, u64), BoxError> {
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

    /// Waits until the guest serves, or its QEMU ends.
    async fn ready(&self, life: &Life) -> Result<(), BoxError> {
        let qmp = life.qemu.qmp();
        // The guest follows as soon as it has a driver.
        if let Some(memory) = self.initial.memory {
            balloon::aim(qmp, memory).await?;
        }
        balloon::poll_statistics(qmp).await?;
        while self.ask().await.is_err() {
            if let Some(status) = life.qemu.ended()? {
                return Err(life.qemu.said(&format!("QEMU ended ({status})")).into());
            }
            sleep(ASKING).await;
        }
        Ok(())
    }

    /// Asks the guest's server for anything, as internal traffic; any answer is one.
    async fn ask(&self) -> io::Result<()> {
        let asked = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind((self.host.network.inside(), 0).into())?;
            let mut stream = socket.connect((self.host.network.vm(self.index), 80).into()).await?;
            stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n").await?;
            stream.read_u8().await.map(drop)
        };
        timeout(ANSWERING, asked).await?
    }

    fn class(&self) -> u16 {
        Network::class(self.index)
    }

    fn rate(&self) -> Result<BytesPerSec, BoxError> {
        self.host.shaper.rate(self.class())?.ok_or_else(|| "no limit of bandwidth is in force".into())
    }

    fn cpu(&self) -> Result<MilliCpu, BoxError> {
        self.cgroup.cpu()?.ok_or_else(|| "no limit of CPU is in force".into())
    }

    /// Sets what the kernel limits, and reads it back.
    fn set_outside(&self, amount: Amount) -> Result<Amount, BoxError> {
        match amount {
            Amount::Bandwidth(rate) => Ok(Amount::Bandwidth(self.host.shaper.set(self.class(), rate)?)),
            Amount::Cpu(limit) => {
                self.cgroup.set_cpu(limit)?;
                Ok(Amount::Cpu(self.cpu()?))
            }
            Amount::Memory(_) => unreachable!("memory is the balloon's"),
        }
    }

    /// Sets memory, and reads it back. A VM that does not run has it when it is started.
    async fn set_memory(&self, memory: Bytes) -> Result<Amount, BoxError> {
        let Some(life) = self.running() else { return Ok(Amount::Memory(memory)) };
        let actual = balloon::bring_to(life.qemu.qmp(), memory, Instant::now() + BALLOONING).await?;
        Ok(Amount::Memory(actual))
    }

    /// What the host's sensors say; one that fails says nothing.
    fn sense(&self) -> Reading {
        let counters = self.told("network counters", self.host.shaper.counters(self.class()).map_err(BoxError::from));
        Reading {
            egress: counters.and_then(|counters| counters.egress),
            cpu_time: self.told("CPU time", self.cgroup.cpu_time().map_err(BoxError::from)),
            drops: counters.and_then(|counters| counters.drops),
            ..Reading::default()
        }
    }

    fn told<T>(&self, sensor: &str, reading: Result<T, BoxError>) -> Option<T> {
        reading.inspect_err(|error| tracing::warn!(vm = %self.id, sensor, %error, "a sensor says nothing")).ok()
    }

    /// What the guest said of its memory.
    async fn guest_memory(&self, qmp: &Qmp) -> GuestMemory {
        let said = balloon::statistics(qmp).await.map_err(BoxError::from);
        self.told("balloon statistics", said).flatten().unwrap_or_default()
    }
}

/// Bytes read from the disk with what is served.
async fn disk_read(qmp: &Qmp) -> Result<Option<u64>, QmpError> {
    #[derive(Deserialize)]
    struct Disk {
        device: String,
        stats: Statistics,
    }
    #[derive(Deserialize)]
    struct Statistics {
        rd_bytes: u64,
    }
    let disks: Vec<Disk> = qmp.ask("query-blockstats").await?;
    Ok(disks.iter().find(|disk| disk.device == "content").map(|disk| disk.stats.rd_bytes))
}

#[async_trait]
impl Machine for QemuVm {
    fn id(&self) -> &VmId {
        &self.shared.id
    }

    fn address(&self) -> &str {
        &self.address
    }

    async fn start(&self) -> Result<(), MachineError> {
        let mut lives = self.change.lock().await;
        if self.shared.running().is_some() {
            return Ok(());
        }
        self.end().await?;
        let booted = self.boot(*lives + 1).await;
        match booted {
            Ok(()) => *lives += 1,
            // Why it did not boot matters more than what keeps it from ending, which the next start finds.
            Err(_) => drop(self.end().await),
        }
        booted
    }

    async fn stop(&self) -> Result<(), MachineError> {
        let _lives = self.change.lock().await;
        self.end().await
    }

    async fn state(&self) -> VmState {
        match self.shared.running() {
            None => VmState::Down,
            Some(life) if life.up.load(Ordering::Relaxed) => VmState::Up,
            Some(_) => VmState::Starting,
        }
    }

    async fn set(&self, amount: Amount) -> Result<Amount, MachineError> {
        let resource = amount.resource();
        if self.shared.initial.get(resource).is_none() {
            return Err(MachineError::NotManaged { vm: self.shared.id.clone(), resource });
        }
        let (shared, mut has) = (self.shared.clone(), self.has.clone().lock_owned().await);
        let work = tokio::spawn(async move {
            let got = match amount {
                Amount::Memory(memory) => shared.set_memory(memory).await?,
                other => tokio::task::spawn_blocking(move || shared.set_outside(other)).await??,
            };
            has.set(amount);
            Ok::<_, BoxError>(got)
        });
        let done = work.await.map_err(BoxError::from).and_then(|done| done);
        done.map_err(|error| self.failed(format!("set its {resource} to {amount}"), error))
    }

    async fn allocation(&self) -> Result<Resources, MachineError> {
        let has = *self.has.lock().await;
        let what = "read its allocation";
        let outside = move |vm: &Shared| {
            let bandwidth = has.bandwidth.map(|_| vm.rate()).transpose()?;
            // A VM that never ran has no control group, and gets what it shall have when it is started.
            let cpu = has.cpu.map(|cpu| vm.cpu().or_else(|error| vm.running().map_or(Ok(cpu), |_| Err(error))));
            Ok(Resources { bandwidth, cpu: cpu.transpose()?, memory: has.memory })
        };
        let mut actual = self.blocking(what, outside).await?;
        if let (Some(_), Some(life)) = (has.memory, self.shared.running()) {
            let memory = balloon::actual(life.qemu.qmp()).await;
            actual.memory = Some(memory.map_err(|error| self.failed(what, error))?);
        }
        Ok(actual)
    }

    async fn read(&self) -> Result<Reading, MachineError> {
        let Some(life) = self.shared.running() else {
            return Err(self.failed("read its sensors", "it does not run"));
        };
        let mut reading = self.blocking("read its sensors", |vm| Ok(vm.sense())).await?;
        let memory = self.shared.guest_memory(life.qemu.qmp()).await;
        let disk = disk_read(life.qemu.qmp()).await.map_err(BoxError::from);
        reading.life = life.count;
        reading.egress = reading.egress.map(|egress| egress.saturating_sub(life.egress_before));
        reading.drops = reading.drops.map(|drops| drops.saturating_sub(life.drops_before));
        reading.disk_blocks = self.shared.told("disk reads", disk).flatten().map(|bytes| bytes / 512);
        reading.memory_in_use = memory.in_use();
        reading.swapped = memory.swapped();
        Ok(reading)
    }
}

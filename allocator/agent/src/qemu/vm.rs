//! The [`Machine`] side of a virtual machine.

use super::{
    Inner,
    balloon::{self, GuestMemory},
    guest::Guest,
    migration::{self, Copying, MigrationError, Way},
    place::Place,
    process::{Beginning, Qemu},
    qmp::{Qmp, QmpError},
    shrink::Memory,
};
use crate::{
    Machine, MachineError, MachineSpec, Reading,
    machine::{Migration, Moved, chain},
};
use async_trait::async_trait;
use serde::Deserialize;
use std::{
    error::Error,
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::{Mutex, Notify},
    time::{Instant, sleep, timeout},
};
use vibra_model::{Amount, Bytes, HostId, Resources, VmId, VmState};

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
    /// The number of its lives. Held by who starts, stops or moves it.
    change: Mutex<u64>,
    /// Tells a VM on its way to stay.
    stay: Notify,
    /// What it has by order, and what a restart gives it. Whoever works on the actuators holds it until they are done,
    /// even where nobody waits for that any more: an order that was given up must not come to effect after a later one.
    has: Arc<Mutex<Resources>>,
}

/// What the VM's work needs, wherever it runs.
struct Shared {
    id: VmId,
    address: Ipv4Addr,
    /// Where it is asked from whether it serves, as internal traffic.
    inside: Ipv4Addr,
    /// What it has at its first start; it tells which resources are managed.
    initial: Resources,
    /// Where it is, or is started.
    place: StdMutex<Arc<Place>>,
    life: StdMutex<Option<Arc<Life>>>,
}

/// One life of a VM at one place, from its start or its coming to its end or its going.
struct Life {
    /// The how-manieth.
    count: u64,
    qemu: Qemu,
    guest: Guest,
    /// Where its memory is on its way to.
    memory: Mutex<Memory>,
    /// It served once.
    up: AtomicBool,
    place: Arc<Place>,
    /// The network's counters at the start: they belong to the place and go on.
    egress_before: Bytes,
    drops_before: u64,
}

impl Life {
    /// Begins a life at `place`, whose counters were read before, by starting a QEMU that boots or waits for a state.
    async fn begin(
        shared: &Shared,
        place: Arc<Place>,
        count: u64,
        (egress_before, drops_before): (Bytes, u64),
        begins: Beginning,
    ) -> io::Result<Life> {
        let launch = place.launch(&shared.id, shared.address, begins);
        let qemu = Qemu::start(launch, &place.host.network.host_namespace(), &place.groups()).await?;
        let guest = Guest::listen(&qemu.launch().guest_socket());
        let (memory, up) = (Mutex::default(), AtomicBool::new(false));
        Ok(Life { count, qemu, guest, memory, up, place, egress_before, drops_before })
    }

    /// Whether its process runs and its guest was not heard to fall silent: the process runs on where a guest hangs.
    fn lives(&self) -> bool {
        self.qemu.runs() && !self.guest.fell_silent()
    }
}

impl QemuVm {
    /// A VM that does not run yet; its place on `host` is made.
    pub(super) fn make(host: Arc<Inner>, address: Ipv4Addr, spec: &MachineSpec) -> Result<Self, BoxError> {
        let most = host.settings.boot_memory;
        if let Some(memory) = spec.initial.memory.filter(|memory| *memory > most) {
            return Err(format!("it shall have {memory} of memory and boots with {most}").into());
        }
        let inside = host.network.inside();
        let place = StdMutex::new(Arc::new(Place::make(host, address, spec.initial.bandwidth)?));
        let life = StdMutex::default();
        let shared = Shared { id: spec.id.clone(), address, inside, initial: spec.initial, place, life };
        let has = Arc::new(Mutex::new(spec.initial));
        let (address, change, stay) = (format!("{address}:80"), Mutex::new(0), Notify::new());
        Ok(QemuVm { shared: Arc::new(shared), address, change, stay, has })
    }

    /// Does blocking work for the VM, off the runtime's threads.
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
        let before = self.blocking("make its control group", move |vm| vm.place().prepare(&has)).await?;
        let place = self.shared.place();
        let most = place.host.settings.boot_time;
        let life = Life::begin(&self.shared, place, count, before, Beginning::Boot).await;
        let life = Arc::new(life.map_err(|error| self.failed("start QEMU", error))?);
        *self.shared.life() = Some(life.clone());
        let ready = timeout(most, self.shared.ready(&life)).await;
        let late = |_| Err(life.qemu.said(&format!("it did not boot within {most:?}")).into());
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
        self.blocking("end what QEMU left", move |_| Ok(life.place.end()?)).await?;
        killed.map_err(|error| self.failed("stop QEMU", error))
    }

    /// Takes it to `place` while it runs. If that fails it runs on where it was, unless it ended there.
    async fn migrate(&self, life: &Life, place: &Arc<Place>) -> Result<(Life, Migration), BoxError> {
        let has = *self.has.lock().await;
        let there = place.clone();
        let before = tokio::task::spawn_blocking(move || there.prepare(&has)).await??;
        let next = Life::begin(&self.shared, place.clone(), life.count + 1, before, Beginning::Incoming).await?;
        let settings = &place.host.settings;
        let socket = next.qemu.launch().directory.join("migration");
        let way = Way {
            copying: Copying::on(place.host.accelerator),
            socket: &socket,
            rate: settings.moving_rate,
            time: settings.moving_time,
            stay: &self.stay,
        };
        let migrated = migration::migrate(life.qemu.qmp(), next.qemu.qmp(), &way).await;
        if let Err(error) = &migrated {
            // There must never be two of it: only when it surely does not run there it may go on here.
            next.qemu.kill().await?;
            let goes_on = life.qemu.qmp().order("cont", serde_json::json!({})).await;
            if let Err(halted) = goes_on {
                tracing::warn!(vm = %self.shared.id, %error, %halted, "it did not move, and does not go on where it was");
            }
        }
        let migration = migrated?;
        balloon::poll_statistics(next.qemu.qmp()).await?;
        next.up.store(true, Ordering::Relaxed);
        Ok((next, migration))
    }

    /// Makes `place` the VM's, with the life that it has there, if it has one, and removes the one where it was.
    async fn settle(&self, place: Arc<Place>, life: Option<Life>) -> Result<(), MachineError> {
        let old_life = std::mem::replace(&mut *self.shared.life(), life.map(Arc::new));
        let old = std::mem::replace(&mut *self.shared.place.lock().unwrap_or_else(PoisonError::into_inner), place);
        if let Some(life) = old_life {
            life.qemu.kill().await.map_err(|error| self.failed("end QEMU where it was", error))?;
        }
        self.clear(old).await
    }

    /// Removes a place that is not the VM's any more.
    async fn clear(&self, place: Arc<Place>) -> Result<(), MachineError> {
        let clear = move |_: &Shared| {
            place.remove();
            Ok(())
        };
        self.blocking("clear where it was", clear).await
    }
}

impl Shared {
    fn life(&self) -> MutexGuard<'_, Option<Arc<Life>>> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Arc<Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The life whose process runs, whether its guest still does or not.
    fn running(&self) -> Option<Arc<Life>> {
        self.life().clone().filter(|life| life.qemu.runs())
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
            socket.bind((self.inside, 0).into())?;
            let mut stream = socket.connect((self.address, 80).into()).await?;
            stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n").await?;
            stream.read_u8().await.map(drop)
        };
        timeout(ANSWERING, asked).await?
    }

    /// Sets memory, and reads it back. A VM that does not run has it when it is started.
    async fn set_memory(&self, memory: Bytes) -> Result<Amount, BoxError> {
        let Some(life) = self.running() else { return Ok(Amount::Memory(memory)) };
        let (qmp, deadline) = (life.qemu.qmp(), Instant::now() + BALLOONING);
        let (actual, held) = life.memory.lock().await.set(qmp, &life.guest, memory, deadline).await?;
        if let Some(held) = held {
            tracing::warn!(vm = %self.id, %memory, held = chain(&held), "memory cannot be taken from it");
        }
        Ok(Amount::Memory(actual))
    }

    /// What the host's sensors say of a life; one that fails says nothing.
    fn sense(&self, life: &Life) -> Reading {
        let (egress, drops) = self.told("network counters", life.place.counters()).unwrap_or_default();
        Reading {
            life: life.count,
            egress: egress.map(|egress| egress.saturating_sub(life.egress_before)),
            cpu_time: self.told("CPU time", life.place.cpu_time()),
            drops: drops.map(|drops| drops.saturating_sub(life.drops_before)),
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
        let life = self.shared.life().clone();
        if life.is_some_and(|life| life.lives()) {
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

    async fn move_to(&self, host: &HostId) -> Result<Moved, MachineError> {
        let mut lives = self.change.lock().await;
        let here = self.shared.place().host.clone();
        let Some(peer) = here.peer(host) else {
            self.end().await?;
            let why = format!("no network of host {host} with VMs that serve the same is joined to its own");
            return Ok(Moved::Stopped { why: Some(why) });
        };
        let rate = self.has.lock().await.bandwidth;
        let make = move |vm: &Shared| Ok(Arc::new(Place::make(peer, vm.address, rate)?));
        let place = self.blocking(format!("make its place on host {host}"), make).await?;
        let why = match self.shared.running().filter(|life| life.lives()) {
            None => "it does not run".to_owned(),
            Some(life) => match self.migrate(&life, &place).await {
                Ok((next, migration)) => {
                    *lives += 1;
                    self.settle(place, Some(next)).await?;
                    return Ok(Moved::Live(migration));
                }
                Err(error) if matches!(error.downcast_ref(), Some(MigrationError::Stays)) => {
                    self.clear(place).await?;
                    return Err(self.failed(format!("move to host {host}"), error));
                }
                Err(error) => chain(&*error),
            },
        };
        self.end().await?;
        self.settle(place, None).await?;
        Ok(Moved::Stopped { why: Some(why) })
    }

    fn moves_live(&self) -> bool {
        !self.shared.place().host.peers().is_empty()
    }

    fn stay(&self) {
        self.stay.notify_waiters();
    }

    async fn state(&self) -> VmState {
        match self.shared.running().filter(|life| life.lives()) {
            None => VmState::Down,
            Some(life) if life.up.load(Ordering::Relaxed) => VmState::Up,
            Some(_) => VmState::Starting,
        }
    }

    async fn ended(&self) {
        // With QEMU nothing of it is left.
        while let Some(life) = self.shared.running() {
            life.qemu.exit().wait().await;
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
                other => tokio::task::spawn_blocking(move || shared.place().set(other)).await??,
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
            let place = vm.place();
            let bandwidth = has.bandwidth.map(|_| place.rate()).transpose()?;
            // A VM that never ran here has no control group, and gets what it shall have when it is started.
            let cpu = has.cpu.map(|cpu| place.cpu().or_else(|error| vm.running().map_or(Ok(cpu), |_| Err(error))));
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
        let sensed = life.clone();
        let mut reading = self.blocking("read its sensors", move |vm| Ok(vm.sense(&sensed))).await?;
        let memory = self.shared.guest_memory(life.qemu.qmp()).await;
        let disk = disk_read(life.qemu.qmp()).await.map_err(BoxError::from);
        reading.disk_blocks = self.shared.told("disk reads", disk).flatten().map(|bytes| bytes / 512);
        reading.memory_in_use = memory.in_use();
        reading.swapped = memory.swapped();
        if let Some(report) = life.guest.report() {
            // Each report is one request for the server's status.
            let asked = report.sequence.saturating_add(1);
            reading.requests = report.server.map(|server| server.requests.saturating_sub(asked));
            reading.in_flight = report.server.map(|server| server.in_flight);
            reading.working_set = report.working_set.map(|estimate| Bytes(estimate.bytes));
        }
        Ok(reading)
    }
}

//! The [`Machine`] side of an in-process VM: its allocation, its listener and its lifecycle.

use super::{OriginSettings, origin::Origin};
use crate::{Catalogue, Machine, MachineError, MachineSpec, Reading};
use async_trait::async_trait;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, watch},
    task::{JoinHandle, JoinSet},
};
use vibra_model::{Amount, Resource, Resources, VmId, VmState};

/// The pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections wait to be accepted.
const BACKLOG: u32 = 1_024;

/// One in-process VM.
pub(super) struct InProcessVm {
    id: VmId,
    address: SocketAddr,
    address_text: String,
    settings: OriginSettings,
    catalogue: Arc<Catalogue>,
    /// Bound, but not listening: nobody else gets the port while the VM is stopped.
    _port: TcpSocket,
    /// Whoever starts or stops it is alone.
    lifecycle: tokio::sync::Mutex<()>,
    state: Mutex<State>,
    /// Whether it runs.
    runs: watch::Sender<bool>,
}

struct State {
    has: Resources,
    life: u64,
    running: Option<Running>,
}

struct Running {
    origin: Arc<Origin>,
    server: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl InProcessVm {
    /// A VM that does not run yet, but has its address.
    pub(super) fn new(
        spec: MachineSpec,
        settings: OriginSettings,
        catalogue: Arc<Catalogue>,
    ) -> Result<Self, MachineError> {
        let failed = |error| MachineError::failed(&spec.id, "get a port on 127.0.0.1", error);
        let port = reserved((Ipv4Addr::LOCALHOST, 0).into()).map_err(failed)?;
        let address = port.local_addr().map_err(failed)?;
        let has = Resources { cpu: None, ..spec.initial };
        let state = State { has, life: 0, running: None };
        Ok(InProcessVm {
            id: spec.id,
            address,
            address_text: address.to_string(),
            settings,
            catalogue,
            _port: port,
            lifecycle: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
            runs: watch::Sender::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is a single assignment: a panic leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Machine for InProcessVm {
    fn id(&self) -> &VmId {
        &self.id
    }

    fn address(&self) -> &str {
        &self.address_text
    }

    async fn start(&self) -> Result<(), MachineError> {
        let _alone = self.lifecycle.lock().await;
        if self.lock().running.is_some() {
            return Ok(());
        }
        let listener = reserved(self.address).and_then(|socket| socket.listen(BACKLOG));
        let listener =
            listener.map_err(|error| MachineError::failed(&self.id, format!("listen on {}", self.address), error))?;
        let mut state = self.lock();
        state.life += 1;
        let origin = Arc::new(Origin::new(self.catalogue.clone(), &self.settings, &state.has, state.life));
        let server = tokio::spawn(serve(listener, origin.clone(), self.settings));
        state.running = Some(Running { origin, server });
        self.runs.send_replace(true);
        Ok(())
    }

    async fn stop(&self) -> Result<(), MachineError> {
        let _alone = self.lifecycle.lock().await;
        let Some(mut running) = self.lock().running.take() else { return Ok(()) };
        running.server.abort();
        // It was told to end: that it did is all there is to know.
        let _ = (&mut running.server).await;
        self.runs.send_replace(false);
        Ok(())
    }

    async fn state(&self) -> VmState {
        let state = self.lock();
        match &state.running {
            Some(running) if !running.server.is_finished() => VmState::Up,
            _ => VmState::Down,
        }
    }

    async fn ended(&self) {
        // The sender lives as long as this.
        let _ = self.runs.subscribe().wait_for(|runs| !runs).await;
    }

    async fn set(&self, amount: Amount) -> Result<Amount, MachineError> {
        let mut state = self.lock();
        let resource = amount.resource();
        if state.has.get(resource).is_none() {
            return Err(MachineError::NotManaged { vm: self.id.clone(), resource });
        }
        if let Some(running) = &state.running {
            match amount {
                Amount::Bandwidth(rate) => running.origin.set_bandwidth(rate),
                Amount::Memory(memory) => running.origin.set_memory(memory),
                Amount::Cpu(_) => {
                    return Err(MachineError::NotManaged { vm: self.id.clone(), resource: Resource::Cpu });
                }
            }
        }
        state.has.set(amount);
        Ok(amount)
    }

    async fn allocation(&self) -> Result<Resources, MachineError> {
        Ok(self.lock().has)
    }

    async fn read(&self) -> Result<Reading, MachineError> {
        let state = self.lock();
        match &state.running {
            Some(running) => Ok(running.origin.reading()),
            None => Err(MachineError::failed(&self.id, "read its sensors", "it does not run")),
        }
    }
}

/// A socket with this address. Sockets may share it as long as at most one of them listens.
fn reserved(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts connections until it is aborted; they end with it.
async fn serve(listener: TcpListener, origin: Arc<Origin>, settings: OriginSettings) {
    let places = Arc::new(Semaphore::new(settings.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let origin = origin.clone();
                connections.spawn(async move {
                    serve_connection(stream, origin, settings.idle).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an in-process VM could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, origin: Arc<Origin>, idle: Duration) {
    // Small answers must not wait for the acknowledgement of earlier ones; without it they are late, not wrong.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| origin.clone().answer(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to an in-process VM ended early");
    }
}

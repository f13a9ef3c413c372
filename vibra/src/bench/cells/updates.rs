//! Whether updates of the routing snapshot cost something on the path of requests.

use super::{Cell, Values, closed_loop, cpu_time, rate, servers::THREE_PER_CENT, with_and_without};
use crate::bench::{
    compare::Measure,
    contender::{Running, vibra},
    origin::SMALL,
    process::{OTHER_CORE, Server, free_address},
    stage::Stage,
    tools::wrk::Connections,
};
use anyhow::{Context, ensure};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};
use vibra_client::{Directory, HttpDirectory};
use vibra_model::{Command as Change, Customer, HostSpec, Resources, VmSpec, VmState};

/// From one update to the next: 10,000 a minute.
const INTERVAL: Duration = Duration::from_millis(6);
/// A run with less than this part of its updates says nothing.
const LEAST_PART: f64 = 0.9;
const UPDATES: &str = "updates/min";

pub(super) struct Updates<'a> {
    stage: &'a Stage<'a>,
    running: Option<Cluster>,
}

/// A directory, and the dispatcher that follows it.
struct Cluster {
    proxy: Running,
    _directory: Server,
    client: HttpDirectory,
    runtime: tokio::runtime::Runtime,
    servers: Vec<VmSpec>,
}

impl<'a> Updates<'a> {
    pub(super) fn new(stage: &'a Stage<'a>) -> Self {
        Updates { stage, running: None }
    }
}

impl Cell for Updates<'_> {
    fn name(&self) -> String {
        "10,000 updates a minute".into()
    }

    fn measures(&self) -> Vec<Measure> {
        // The directory works on the core of the load generator, which is the slower for it.
        vec![cpu_time(THREE_PER_CENT), rate(None)]
    }

    fn sides(&self) -> Vec<&'static str> {
        with_and_without()
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let cluster = Cluster::start(self.stage)?;
        self.stage.warm_up(&cluster.proxy)?;
        self.running = Some(cluster);
        Ok(())
    }

    fn run(&mut self, _: u64, side: usize) -> anyhow::Result<Values> {
        let cluster = self.running.as_ref().context("was not started")?;
        let proxy = &cluster.proxy;
        let run = || closed_loop(proxy, || self.stage.wrk(proxy, SMALL, Connections::KeepAlive));
        if side != 0 {
            return run();
        }
        let over = AtomicBool::new(false);
        let (values, updates) = std::thread::scope(|scope| {
            let updates = scope.spawn(|| cluster.update(&over));
            let values = run();
            over.store(true, Relaxed);
            (values, updates.join())
        });
        let a_minute = updates.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let wanted = 60.0 / INTERVAL.as_secs_f64();
        ensure!(
            a_minute >= LEAST_PART * wanted,
            "only {a_minute:.0} updates a minute were made instead of {wanted:.0}"
        );
        let mut values = values?;
        values.insert(UPDATES, a_minute);
        Ok(values)
    }
}

impl Cluster {
    fn start(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let address = free_address(Ipv4Addr::LOCALHOST)?;
        let section = format!("[directory]\nlisten = \"{address}\"\nstore = \"memory\"\nsilence = \"1day\"\n");
        let file = stage.folder.join("directory.toml");
        fs::write(&file, &section)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["directory", "-c"]).arg(file);
        let directory = Server::start("directory", OTHER_CORE, &command, address, stage.folder)?;
        // It makes the token before it listens.
        let token = fs::read_to_string(stage.folder.join("directory.token")).context("the directory's token")?;
        let client = HttpDirectory::new(&address.to_string(), token.trim())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let servers = stage.origin.servers().iter().zip(1..).map(spec).collect::<anyhow::Result<Vec<_>>>()?;
        runtime.block_on(register(&client, &servers))?;
        let source = format!("customer = \"bench\"\n[directory]\nurl = \"{address}\"\nstore = \"memory\"\n");
        let proxy = vibra(stage.folder, "vibra-updates", &source, &stage.certificate)?;
        Ok(Cluster { proxy, _directory: directory, client, runtime, servers })
    }

    /// Changes a weight again and again, which `url-hash` does not look at: every change makes a new routing snapshot
    /// that routes as the one before. Returns how many it made a minute.
    fn update(&self, over: &AtomicBool) -> anyhow::Result<f64> {
        let start = Instant::now();
        let mut made = 0;
        while !over.load(Relaxed) {
            let mut server = self.servers[0].clone();
            server.weight = 1 + (made + 1) % 2;
            self.runtime.block_on(self.client.command(Change::PutVm(server))).context("updating the directory")?;
            made += 1;
            std::thread::sleep((INTERVAL * made).saturating_sub(start.elapsed()));
        }
        Ok(f64::from(made) * 60.0 / start.elapsed().as_secs_f64())
    }
}

/// A server as the directory has it.
fn spec((address, order): (&SocketAddr, u32)) -> anyhow::Result<VmSpec> {
    Ok(VmSpec {
        id: format!("s{order}").parse()?,
        customer: "bench".parse()?,
        host: "host".parse()?,
        address: address.to_string(),
        order,
        weight: 1,
        floor: Resources::NONE,
        initial: Resources::NONE,
    })
}

async fn register(directory: &HttpDirectory, servers: &[VmSpec]) -> anyhow::Result<()> {
    directory.command(Change::PutCustomer(Customer { id: "bench".parse()?, bounds: Resources::NONE })).await?;
    directory.command(Change::PutHost(HostSpec { id: "host".parse()?, capacity: Resources::NONE })).await?;
    for server in servers {
        directory.command(Change::PutVm(server.clone())).await?;
        directory.command(Change::SetVmState { vm: server.id.clone(), state: VmState::Up }).await?;
    }
    Ok(())
}

//! The memory that an idle connection holds.

use super::{Cell, Values, contenders};
use crate::bench::{
    compare::{Better, Measure},
    contender::Contender,
    http1,
    origin::{self, SMALL},
    stage::Stage,
};
use anyhow::{Context, ensure};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

/// Opened first, so that what a proxy sets up once is not divided among the others.
const FIRST: usize = 100;
/// How many idle connections are weighed.
const CONNECTIONS: usize = 5_000;
/// From one address at most, as from real clients: a proxy may limit that.
const FROM_ONE_ADDRESS: usize = 50;
/// How long a proxy has to give back what a connection needs only while it is busy.
const SETTLE: Duration = Duration::from_secs(1);

const MEMORY: &str = "resident bytes each";

pub(super) struct Idle<'a> {
    pub(super) stage: &'a Stage<'a>,
}

impl Cell for Idle<'_> {
    fn name(&self) -> String {
        "idle connections".into()
    }

    fn measures(&self) -> Vec<Measure> {
        vec![Measure { name: MEMORY, better: Better::Lower, limit: Some(1.0), decimals: 0, only_if: None }]
    }

    fn sides(&self) -> Vec<&'static str> {
        contenders()
    }

    /// A process of its own, for memory that was used once may stay with its process.
    fn run(&mut self, _: u64, side: usize) -> anyhow::Result<Values> {
        let Stage { origin, certificate, .. } = self.stage;
        let folder = tempfile::tempdir_in(self.stage.folder)?;
        let proxy = Contender::ALL[side].start(folder.path(), origin, certificate)?;
        let mut connections = Vec::with_capacity(FIRST + CONNECTIONS);
        let mut open = |until: usize| -> anyhow::Result<f64> {
            for number in connections.len()..until {
                connections.push(used_once(proxy.listen.plain, number)?);
            }
            std::thread::sleep(SETTLE);
            Ok(proxy.server.resident_bytes()? as f64)
        };
        let before = open(FIRST)?;
        let after = open(FIRST + CONNECTIONS)?;
        ensure!(after > before, "has no more memory with {CONNECTIONS} connections than without");
        Ok(Values::from([(MEMORY, (after - before) / CONNECTIONS as f64), ("resident bytes before", before)]))
    }
}

/// A keep-alive connection that had one answer.
fn used_once(target: SocketAddr, number: usize) -> anyhow::Result<TcpStream> {
    let client = Ipv4Addr::new(127, 0, 2, u8::try_from(number / FROM_ONE_ADDRESS).context("too many connections")?);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.bind(&SocketAddr::from((client, 0)).into())?;
    socket.connect(&target.into()).with_context(|| format!("connection {number}"))?;
    let mut stream = TcpStream::from(socket);
    http1::exchange(&mut stream, &origin::path(SMALL, number)).with_context(|| format!("connection {number}"))?;
    Ok(stream)
}

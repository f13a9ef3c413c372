//! A server on a free port, a plain HTTP client, and a small cluster.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use std::{net::SocketAddr, str::FromStr, sync::Arc, time::Duration};
use tokio::{net::TcpSocket, time::timeout};
use vibra_model::{api::*, *};
use vibra_server::{Config, Handle, Server, Tokens};
use vibra_store::{MemoryStore, Store};

/// No step of a test takes longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn id<T: FromStr<Err = IdError>>(text: &str) -> T {
    text.parse().unwrap()
}

pub fn bandwidth(rate: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(rate)), ..Resources::NONE }
}

pub fn customer(name: &str, bound: u64) -> Customer {
    Customer { id: id(name), bounds: bandwidth(bound) }
}

pub fn host(name: &str) -> HostSpec {
    HostSpec { id: id(name), capacity: bandwidth(1_000_000) }
}

pub fn vm(name: &str, owner: &str, place: &str, order: u32) -> VmSpec {
    VmSpec {
        id: id(name),
        customer: id(owner),
        host: id(place),
        address: format!("127.0.0.1:{}", 8000 + order),
        order,
        weight: 1,
        floor: bandwidth(1),
        initial: bandwidth(10),
    }
}

pub fn change(vm: &str, rate: u64) -> AllocationChange {
    AllocationChange { vm: id(vm), to: Amount::Bandwidth(BytesPerSec(rate)) }
}

pub fn alive(host: &str, vms: &[&str]) -> UsageReport {
    let up = |vm: &&str| VmReport { vm: id(vm), usage: None, applied: None, state: Some(VmState::Up), level: None };
    UsageReport { host: id(host), vms: vms.iter().map(up).collect() }
}

/// The tokens of these tests: each role's name.
pub fn tokens() -> Tokens {
    let mut tokens = Tokens::new();
    tokens.insert("operator", Role::Operator).unwrap();
    tokens.insert("shop", Role::Customer(id("shop"))).unwrap();
    tokens.insert("h1", Role::Host(id("h1"))).unwrap();
    tokens.insert("reader", Role::Reader).unwrap();
    tokens
}

pub fn config(store: Arc<dyn Store>) -> Config {
    // No test is so slow that a host falls silent that should not.
    Config { silence: 2 * PATIENCE, ..Config::new("127.0.0.1:0".parse().unwrap(), store, tokens()) }
}

pub async fn start() -> Handle {
    Server::start(config(Arc::new(MemoryStore::new()))).await.unwrap()
}

/// An answer, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub fn message(&self) -> String {
        self.json::<ErrorBody>().message
    }

    /// The revision of an accepted command.
    pub fn revision(&self) -> Revision {
        assert_eq!(self.status, StatusCode::OK, "{self:?}");
        self.json::<Accepted>().revision
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    token: String,
}

impl Client {
    pub async fn new(address: SocketAddr, token: &str) -> Self {
        Self::over(TcpSocket::new_v4().unwrap(), address, token).await
    }

    /// One whose socket takes in little that is not read.
    pub async fn narrow(address: SocketAddr, token: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(16 << 10).unwrap();
        Self::over(socket, address, token).await
    }

    async fn over(socket: TcpSocket, address: SocketAddr, token: &str) -> Self {
        let stream = timeout(PATIENCE, socket.connect(address)).await.unwrap().unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Client { sender, token: token.into() }
    }

    async fn open(&mut self, method: Method, path: &str, body: Bytes) -> hyper::Response<Incoming> {
        let request = Request::builder().method(method).uri(path).header("host", "directory");
        let request = if self.token.is_empty() {
            request
        } else {
            request.header("authorization", format!("Bearer {}", self.token))
        };
        timeout(PATIENCE, self.sender.ready()).await.unwrap().unwrap();
        let response = self.sender.send_request(request.body(Full::new(body)).unwrap());
        timeout(PATIENCE, response).await.unwrap().unwrap()
    }

    pub async fn send(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        let (head, body) = self.open(method, path, body.into()).await.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.unwrap().unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, "").await
    }

    pub async fn delete(&mut self, path: &str) -> Answer {
        self.send(Method::DELETE, path, "").await
    }

    pub async fn put(&mut self, path: &str, value: &impl Serialize) -> Answer {
        self.send(Method::PUT, path, serde_json::to_vec(value).unwrap()).await
    }

    pub async fn post(&mut self, path: &str, value: &impl Serialize) -> Answer {
        self.send(Method::POST, path, serde_json::to_vec(value).unwrap()).await
    }

    pub async fn propose(&mut self, base: Revision, changes: Vec<AllocationChange>) -> Answer {
        self.post("/v1/proposals", &Proposal { base, changes }).await
    }

    pub async fn snapshot(&mut self) -> Snapshot {
        self.get("/v1/snapshot").await.json()
    }

    /// Customer "shop" (bound 40) with VMs a and b (10 each) on h1 and h2, both up; customer "other" with c on h2.
    pub async fn register_shop(&mut self) -> Revision {
        for (name, bound) in [("shop", 40), ("other", 1000)] {
            self.put("/v1/customers", &customer(name, bound)).await.revision();
        }
        for name in ["h1", "h2"] {
            self.put("/v1/hosts", &host(name)).await.revision();
        }
        for spec in [vm("a", "shop", "h1", 1), vm("b", "shop", "h2", 2), vm("c", "other", "h2", 1)] {
            self.put("/v1/vms", &spec).await.revision();
        }
        self.post("/v1/usage", &alive("h1", &["a"])).await.revision();
        self.post("/v1/usage", &alive("h2", &["b", "c"])).await.revision()
    }

    /// Begins a watch; the connection is the watch's from now on.
    pub async fn watch(mut self, from: Revision) -> Lines {
        let response = self.open(Method::GET, &format!("/v1/watch?from={from}"), Bytes::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        Lines { body: response.into_body(), text: BytesMut::new(), _client: self }
    }
}

/// The lines of a watch.
pub struct Lines {
    body: Incoming,
    text: BytesMut,
    _client: Client,
}

impl Lines {
    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Option<WatchLine> {
        loop {
            if let Some(end) = self.text.iter().position(|&byte| byte == b'\n') {
                return Some(serde_json::from_slice(&self.text.split_to(end + 1)).unwrap());
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("the watch is silent")?;
            self.text.extend_from_slice(&frame.ok()?.into_data().unwrap());
        }
    }

    /// The next commit.
    pub async fn event(&mut self) -> Event {
        loop {
            match self.next().await {
                Some(WatchLine::Event(event)) => return event,
                Some(WatchLine::Alive(_)) => {}
                other => panic!("no event: {other:?}"),
            }
        }
    }
}

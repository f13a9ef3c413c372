//! What the tests on real sockets share.
#![allow(dead_code, unreachable_pub, reason = "each test target uses some of it")]

use bytes::Bytes as Body;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use vibra_agent::Machine;
use vibra_model::{Bytes, BytesPerSec, Resources};

/// No request of a test takes longer.
const LONGEST: Duration = Duration::from_secs(30);

pub type HttpClient = Client<HttpConnector, Empty<Body>>;

pub fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build(HttpConnector::new())
}

/// A client that connects from this address.
pub fn client_from(address: IpAddr) -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_local_address(Some(address));
    Client::builder(TokioExecutor::new()).build(connector)
}

pub fn get(machine: &dyn Machine, path: &str) -> Request<Empty<Body>> {
    Request::get(format!("http://{}{path}", machine.address())).body(Empty::new()).unwrap()
}

/// The whole answer, in bounded time.
pub async fn fetch(client: &HttpClient, request: Request<Empty<Body>>) -> Response<Body> {
    let whole = async {
        let (head, body) = client.request(request).await.unwrap().into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    };
    tokio::time::timeout(LONGEST, whole).await.expect("an answer in time")
}

/// Connections that receive the same object over and over. Dropped, they end.
pub struct Download {
    received: Arc<AtomicU64>,
    _connections: JoinSet<()>,
}

impl Download {
    pub fn start(machine: &dyn Machine, path: &str, connections: usize) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            let (uri, received) = (get(machine, path).uri().clone(), received.clone());
            tasks.spawn(async move {
                let client = client();
                loop {
                    let mut body = client.get(uri.clone()).await.unwrap().into_body();
                    while let Some(frame) = body.frame().await {
                        let length = frame.unwrap().data_ref().map_or(0, Body::len);
                        received.fetch_add(length as u64, Relaxed);
                    }
                }
            });
        }
        Download { received, _connections: tasks }
    }

    /// Waits until something arrives.
    pub async fn first_byte(&self) {
        let arrives = async {
            while self.received.load(Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LONGEST, arrives).await.expect("something arrives");
    }

    /// The rate over the next `time`, in bytes/s.
    pub async fn rate(&self, time: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.received.load(Relaxed));
        tokio::time::sleep(time).await;
        (self.received.load(Relaxed) - before) as f64 / start.elapsed().as_secs_f64()
    }
}

pub fn resources(bandwidth: u64, memory: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(bandwidth)), memory: Some(Bytes(memory)), cpu: None }
}

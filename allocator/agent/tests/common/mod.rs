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
    time::{Duration, Instant},
};
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

/// The rate in bytes/s at which several connections together receive `path`, over and over, for `seconds`.
pub async fn receive_rate(machine: &dyn Machine, path: &str, connections: usize, seconds: f64) -> f64 {
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let start = Instant::now();
    let receive = |_| async {
        let client = client();
        let mut received = 0u64;
        while Instant::now() < end {
            let request = client.request(get(machine, path));
            let mut body = tokio::time::timeout(LONGEST, request).await.unwrap().unwrap().into_body();
            while Instant::now() < end
                && let Some(frame) = tokio::time::timeout(LONGEST, body.frame()).await.expect("a piece in time")
            {
                received += frame.unwrap().data_ref().map_or(0, Body::len) as u64;
            }
        }
        received
    };
    let received: u64 = futures_util::future::join_all((0..connections).map(receive)).await.into_iter().sum();
    received as f64 / start.elapsed().as_secs_f64()
}

pub fn resources(bandwidth: u64, memory: u64) -> Resources {
    Resources { bandwidth: Some(BytesPerSec(bandwidth)), memory: Some(Bytes(memory)), cpu: None }
}

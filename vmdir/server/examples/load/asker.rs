//! Who asks the directory: one connection each, kept alive.

use crate::{
    Result, Schedule,
    cluster::{self, Cluster},
    result::Counted,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{SendRequest, handshake},
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpStream,
    time::{sleep_until, timeout},
};
use vibra_model::{
    Rejection,
    api::{Accepted, ErrorBody},
};

/// Who has no answer by then counts as having none.
const PATIENCE: Duration = Duration::from_secs(5);

/// An answer, whole.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// One connection.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    authorization: HeaderValue,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr, token: &str) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address)).await??;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let authorization = format!("Bearer {token}").try_into()?;
        Ok(Connection { sender, host: address.to_string().try_into()?, authorization })
    }

    pub(crate) async fn put(&mut self, path: &str, value: &impl Serialize) -> Result<Answer> {
        self.send(Method::PUT, path, value).await
    }

    pub(crate) async fn post(&mut self, path: &str, value: &impl Serialize) -> Result<Answer> {
        self.send(Method::POST, path, value).await
    }

    async fn send(&mut self, method: Method, path: &str, value: &impl Serialize) -> Result<Answer> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, &self.host)
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(serde_json::to_vec(value)?.into()))?;
        let answer = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            Result::Ok(Answer { status: head.status, body: body.collect().await?.to_bytes() })
        };
        timeout(PATIENCE, answer).await?
    }
}

/// A host that reports in each period.
pub(crate) async fn report(
    cluster: Arc<Cluster>,
    address: SocketAddr,
    host: usize,
    schedule: Schedule,
) -> Result<Counted> {
    let mut connection = Connection::open(address, &cluster::host_name(host)).await?;
    let mut counted = Counted::default();
    for at in schedule.of(host, cluster::HOSTS) {
        sleep_until(at).await;
        let answer = connection.post("/v1/usage", &cluster.report(host)?).await;
        let latency = (at >= schedule.counted).then(|| at.elapsed());
        match answer {
            Ok(Answer { status: StatusCode::OK, .. }) => counted.answered(latency),
            Ok(answer) => counted.failed(&format!("{}: {}", answer.status, String::from_utf8_lossy(&answer.body))),
            Err(error) => {
                counted.failed(&error.to_string());
                connection = Connection::open(address, &cluster::host_name(host)).await?;
            }
        }
    }
    Ok(counted)
}

/// A customer who proposes in each period.
pub(crate) async fn propose(
    cluster: Arc<Cluster>,
    address: SocketAddr,
    customer: usize,
    schedule: Schedule,
) -> Result<Counted> {
    let mut connection = Connection::open(address, &cluster::customer_name(customer)).await?;
    let mut counted = Counted::default();
    for (turn, at) in schedule.of(customer, cluster::CUSTOMERS).enumerate() {
        sleep_until(at).await;
        let proposal = cluster.proposal(customer, turn)?;
        let answer = connection.post("/v1/proposals", &proposal).await;
        let latency = (at >= schedule.counted).then(|| at.elapsed());
        match answer {
            Ok(Answer { status: StatusCode::OK, body }) => {
                cluster.accepted(customer, &proposal, serde_json::from_slice::<Accepted>(&body)?.revision);
                counted.answered(latency);
            }
            Ok(Answer { status, body }) => {
                match serde_json::from_slice::<ErrorBody>(&body).map(|body| body.rejection) {
                    Ok(Some(Rejection::Stale { changed, .. })) => {
                        cluster.outdated(customer, changed);
                        counted.stale += 1;
                    }
                    Ok(Some(Rejection::Refused { .. })) => counted.refused += 1,
                    _ => counted.failed(&format!("{status}: {}", String::from_utf8_lossy(&body))),
                }
            }
            Err(error) => {
                counted.failed(&error.to_string());
                connection = Connection::open(address, &cluster::customer_name(customer)).await?;
            }
        }
    }
    Ok(counted)
}

//! The directory over HTTP/JSON, as [`vibra_model::api`] lays it down.

use crate::{ClientError, Directory, EventSource, Watch, lines::Lines};
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{future::Future, time::Duration};
use tokio::time::{Instant, timeout, timeout_at};
use vibra_model::{
    Command, Event, Revision, Snapshot, Timestamp, UsageWindow,
    api::{Accepted, ErrorBody, MoveRequest, PREFIX, WatchLine},
};

/// The largest answer, and the longest line of a watch, that is taken in. A snapshot of 100,000 VMs has some 50 MB.
const LARGEST_ANSWER: usize = 256 << 20;
/// The largest error answer that is taken in.
const LARGEST_ERROR: usize = 1 << 20;
/// How much of an answer that is no [`ErrorBody`] is repeated in the error, in bytes.
const QUOTED: usize = 200;
/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(20);

/// How long to wait for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For a whole answer; of a watch, for its head.
    pub answer: Duration,
    /// For the next line of a watch. The directory says that it is alive more often than that.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect: Duration::from_secs(2), answer: Duration::from_secs(10), silence: Duration::from_secs(10) }
    }
}

/// A directory service at an address. Clones share its connections.
#[derive(Debug, Clone)]
pub struct HttpDirectory {
    client: Client<HttpConnector, Full<Bytes>>,
    address: Authority,
    /// Marked as sensitive, so that it never shows in logs.
    authorization: HeaderValue,
    timeouts: Timeouts,
}

impl HttpDirectory {
    /// The service at `address` (`host:port`, or `http://host:port`), with the bearer `token`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Invalid`] if the address or the token is none.
    pub fn new(address: &str, token: &str) -> Result<Self, ClientError> {
        Self::with_timeouts(address, token, Timeouts::default())
    }

    /// As [`new`](Self::new), with other time-outs.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_timeouts(address: &str, token: &str, timeouts: Timeouts) -> Result<Self, ClientError> {
        let place = address.strip_prefix("http://").unwrap_or(address);
        let parsed = place.strip_suffix('/').unwrap_or(place).parse::<Authority>().ok();
        let parsed = parsed.filter(|place| place.port_u16().is_some() && !place.as_str().contains('@'));
        let parsed = parsed.ok_or_else(|| ClientError::Invalid {
            message: format!("{address:?} is no address of a directory: write host:port or http://host:port"),
        })?;
        // The message must not repeat the token.
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ClientError::Invalid {
            message: "the token has characters that HTTP does not allow".into(),
        })?;
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeouts.connect));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .build(connector);
        Ok(HttpDirectory { client, address: parsed, authorization, timeouts })
    }

    /// Sends a request and returns the answer's head and open body, if it is a good one.
    async fn open(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{PREFIX}{path}", self.address))
            .header(header::AUTHORIZATION, &self.authorization);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(body)).map_err(|error| ClientError::Invalid {
            message: format!("no request can be made of {path:?}: {error}"),
        })?;
        let response = self.client.request(request).await.map_err(|error| self.unreachable(error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ERROR).collect().await;
        // The status alone tells enough where the body is broken or too large.
        Err(refusal(status, &body.map(|body| body.to_bytes()).unwrap_or_default()))
    }

    /// Sends a request and reads the whole answer.
    async fn exchange<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let answer = async {
            let response = self.open(method, path, body).await?;
            let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await;
            body.map(|body| body.to_bytes()).map_err(|source| self.unreachable(source))
        };
        let answer = self.within(self.timeouts.answer, answer).await?;
        parse(&answer)
    }

    async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        match timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(ClientError::Silent { address: self.address.to_string(), after: limit }),
        }
    }

    fn unreachable(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Unreachable { address: self.address.to_string(), source: source.into() }
    }
}

#[async_trait]
impl Directory for HttpDirectory {
    async fn snapshot(&self) -> Result<Snapshot, ClientError> {
        self.exchange(Method::GET, "/snapshot", Bytes::new()).await
    }

    async fn watch(&self, from: Revision) -> Result<Watch, ClientError> {
        let path = format!("/watch?from={from}");
        let opening = self.open(Method::GET, &path, Bytes::new());
        let response = self.within(self.timeouts.answer, opening).await?;
        let source = HttpWatch {
            directory: self.clone(),
            body: response.into_body(),
            lines: Lines::new(LARGEST_ANSWER),
            deadline: Instant::now() + self.timeouts.silence,
            last: from,
            overtaken: None,
        };
        Ok(Watch::new(from, source))
    }

    async fn usage(&self, since: Timestamp) -> Result<UsageWindow, ClientError> {
        self.exchange(Method::GET, &format!("/usage?since={}", since.0), Bytes::new()).await
    }

    async fn command(&self, command: Command) -> Result<Accepted, ClientError> {
        let (method, path, body) = request_of(&command)?;
        self.exchange(method, &path, body).await
    }
}

/// The request that carries a command.
fn request_of(command: &Command) -> Result<(Method, String, Bytes), ClientError> {
    Ok(match command {
        Command::PutCustomer(customer) => (Method::PUT, "/customers".into(), json(customer)?),
        Command::PutHost(host) => (Method::PUT, "/hosts".into(), json(host)?),
        Command::PutVm(vm) => (Method::PUT, "/vms".into(), json(vm)?),
        Command::RemoveCustomer(id) => (Method::DELETE, format!("/customers/{id}"), Bytes::new()),
        Command::RemoveHost(id) => (Method::DELETE, format!("/hosts/{id}"), Bytes::new()),
        Command::RemoveVm(id) => (Method::DELETE, format!("/vms/{id}"), Bytes::new()),
        Command::SetVmState { vm, state } => (Method::PUT, format!("/vms/{vm}/state"), json(state)?),
        Command::JoinPool { host, pool } => (Method::PUT, format!("/hosts/{host}/pool"), json(pool)?),
        Command::MoveVm { base, vm, to } => {
            let request = MoveRequest { base: *base, to: to.clone() };
            (Method::POST, format!("/vms/{vm}/move"), json(&request)?)
        }
        Command::Propose(proposal) => (Method::POST, "/proposals".into(), json(proposal)?),
        Command::Report(report) => (Method::POST, "/usage".into(), json(report)?),
        Command::HostSilent(host) => {
            let message = format!("that host {host} is silent only the directory itself finds");
            return Err(ClientError::Invalid { message });
        }
    })
}

fn json(value: &impl Serialize) -> Result<Bytes, ClientError> {
    let text = serde_json::to_vec(value);
    text.map(Bytes::from).map_err(|error| ClientError::Invalid { message: error.to_string() })
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::Protocol { message: error.to_string() })
}

/// What an answer that is no success means.
fn refusal(status: StatusCode, body: &[u8]) -> ClientError {
    let told = serde_json::from_slice::<ErrorBody>(body).unwrap_or_else(|_| ErrorBody {
        message: String::from_utf8_lossy(&body[..body.len().min(QUOTED)]).into_owned(),
        rejection: None,
    });
    let message = told.message;
    match status {
        _ if told.rejection.is_some() => told.rejection.map_or(ClientError::Resync, ClientError::Rejected),
        StatusCode::UNAUTHORIZED => ClientError::Unauthorised { message },
        StatusCode::FORBIDDEN => ClientError::Forbidden { message },
        StatusCode::GONE => ClientError::Resync,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            ClientError::Failed { status: status.as_u16(), message }
        }
        _ if status.is_client_error() => ClientError::Invalid { message },
        _ if status.is_server_error() => ClientError::Failed { status: status.as_u16(), message },
        _ => ClientError::Protocol { message: format!("HTTP {status}, which is not a part of this API") },
    }
}

/// The lines of `GET /v1/watch`.
struct HttpWatch {
    directory: HttpDirectory,
    body: Incoming,
    lines: Lines,
    /// When the silence is too long. It is kept here, not in [`next`](EventSource::next), whose future may be dropped
    /// and begun again any number of times.
    deadline: Instant,
    last: Revision,
    /// The revision of the last sign of life, if it was ahead of what had come.
    overtaken: Option<Revision>,
}

impl HttpWatch {
    /// What a line says; `None` if only that the directory is alive.
    fn read(&mut self, line: &[u8]) -> Result<Option<Event>, ClientError> {
        self.deadline = Instant::now() + self.directory.timeouts.silence;
        match parse(line)? {
            WatchLine::Event(event) => {
                self.last = event.revision;
                self.overtaken = None;
                Ok(Some(event))
            }
            WatchLine::Resync(_) => Err(ClientError::Resync),
            WatchLine::Alive(newest) if newest > self.last => {
                // A sign of life may overtake a commit that is under way. If nothing has come by the next one, the
                // commit is lost.
                if self.overtaken.replace(newest).is_some() { Err(ClientError::Resync) } else { Ok(None) }
            }
            WatchLine::Alive(_) => Ok(None),
        }
    }
}

#[async_trait]
impl EventSource for HttpWatch {
    async fn next(&mut self) -> Result<Event, ClientError> {
        loop {
            let next = self.lines.next();
            if let Some(line) = next.map_err(|error| ClientError::Protocol { message: error.to_string() })? {
                match self.read(&line)? {
                    Some(event) => return Ok(event),
                    None => continue,
                }
            }
            let piece = match timeout_at(self.deadline, self.body.frame()).await {
                Ok(Some(frame)) => frame.map_err(|error| self.directory.unreachable(error))?.into_data(),
                Ok(None) => return Err(self.directory.unreachable("the watch was ended")),
                Err(_) => {
                    let after = self.directory.timeouts.silence;
                    return Err(ClientError::Silent { address: self.directory.address.to_string(), after });
                }
            };
            // What is no data are trailers, which this API does not have.
            self.lines.push(&piece.unwrap_or_default());
        }
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

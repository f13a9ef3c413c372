//! Attending to one server: finding its address, then checking its health again and again.

use crate::config::{ActiveCheck, Protocol};
use crate::control::News;
use crate::dispatcher::Shared;
use crate::io::Io;
use crate::link::{self, ConnectError};
use crate::server::Server;
use crate::tls::Connector;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

/// How long a look-up of a name may take, and the wait after one that failed.
const LOOK_UP: Duration = Duration::from_secs(2);
/// The first checks of this many servers are spread over one interval.
const SPREAD: u32 = 16;

/// Attends to `server` until nobody wants its news any more. `number` tells it from others that start at the same time.
pub(crate) async fn attend(
    server: Arc<Server>,
    rules: Option<ActiveCheck>,
    shared: Arc<Shared>,
    news: mpsc::Sender<News>,
    number: usize,
) {
    if server.address.is_none() {
        let address = resolve(&server).await;
        let _ = news.send(News::Resolved(server, address)).await;
        return;
    }
    let Some(rules) = rules else { return };
    let place = u32::try_from(number).unwrap_or(0) % SPREAD;
    let first = tokio::time::Instant::now() + rules.interval / SPREAD * place;
    let mut times = interval_at(first, rules.interval);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        times.tick().await;
        let checked = timeout(rules.timeout, check(&server, &shared.tls.connector, &rules)).await;
        let passed = match checked {
            Ok(Ok(())) => true,
            Ok(Err(error)) => failed(&server, &error),
            Err(_) => failed(&server, &format_args!("no answer within {:?}", rules.timeout)),
        };
        if news.send(News::Checked(server.clone(), passed)).await.is_err() {
            return;
        }
    }
}

fn failed(server: &Server, why: &dyn std::fmt::Display) -> bool {
    tracing::debug!(server = %server.name, "check failed: {why}");
    false
}

async fn resolve(server: &Server) -> SocketAddr {
    loop {
        match timeout(LOOK_UP, lookup_host(server.endpoint.authority())).await {
            Ok(Ok(mut found)) => {
                if let Some(address) = found.next() {
                    return address;
                }
                tracing::warn!(server = %server.name, "{} has no address", server.endpoint);
            }
            Ok(Err(error)) => tracing::warn!(server = %server.name, %error, "cannot resolve {}", server.endpoint),
            Err(_) => tracing::warn!(server = %server.name, "no answer for {} within {LOOK_UP:?}", server.endpoint),
        }
        sleep(LOOK_UP).await;
    }
}

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no HTTP response: {0}")]
    Http1(#[from] hyper::Error),
    #[error("no HTTP/2 response: {0}")]
    Http2(#[from] h2::Error),
    #[error("the check's path makes no request: {0}")]
    Request(#[from] http::Error),
    #[error("status {0}")]
    Status(StatusCode),
}

async fn check(server: &Server, connector: &Connector, rules: &ActiveCheck) -> Result<(), CheckError> {
    let (io, protocol) = link::open(server, None, connector).await?;
    let Some(path) = &rules.path else { return Ok(()) };
    let authority = server.endpoint.authority();
    let status = match protocol {
        Protocol::Http1 => ask_http1(io, Request::get(path).header(HOST, authority).body(Empty::new())?).await?,
        Protocol::Http2 => {
            let uri = Uri::builder().scheme(io.scheme()).authority(authority).path_and_query(path.as_str()).build()?;
            ask_http2(io, Request::get(uri).body(())?).await?
        }
    };
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(CheckError::Status(status)) }
}

/// The status of the response.
async fn ask_http1(io: Io, request: Request<Empty<Bytes>>) -> Result<StatusCode, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    let mut response = pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut response => response,
        // The response may have come just before, and is told of the end if not.
        _ = connection => response.await,
    };
    Ok(response?.status())
}

/// The same by HTTP/2.
async fn ask_http2(io: Io, request: Request<()>) -> Result<StatusCode, h2::Error> {
    let (sender, connection) = h2::client::handshake(io).await?;
    let (mut response, _) = sender.ready().await?.send_request(request, true)?;
    let response = tokio::select! {
        response = &mut response => response,
        _ = connection => response.await,
    };
    Ok(response?.status())
}

//! Attending to one server: finding its address, then checking its health again and again.

use crate::config::ActiveCheck;
use crate::control::News;
use crate::link;
use crate::server::Server;
use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::lookup_host;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

/// How long a look-up of a name may take, and the wait after one that failed.
const LOOK_UP: Duration = Duration::from_secs(2);
/// The first checks of this many servers are spread over one interval.
const SPREAD: u32 = 16;

/// Attends to `server` until nobody wants its news any more. `number` tells it from others that start at the same time.
pub(crate) async fn attend(server: Arc<Server>, rules: Option<ActiveCheck>, news: mpsc::Sender<News>, number: usize) {
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
        let checked = timeout(rules.timeout, check(&server, &rules)).await;
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
        match timeout(LOOK_UP, lookup_host(&server.endpoint)).await {
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
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("no HTTP response: {0}")]
    Http(#[from] hyper::Error),
    #[error("the check's path makes no request: {0}")]
    Request(#[from] http::Error),
    #[error("status {0}")]
    Status(StatusCode),
}

async fn check(server: &Server, rules: &ActiveCheck) -> Result<(), CheckError> {
    let stream = link::open(server, None).await?;
    let Some(path) = &rules.path else { return Ok(()) };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(HOST, &server.endpoint).body(Empty::<Bytes>::new())?;
    let response = async {
        tokio::select! {
            response = sender.send_request(request) => response,
            // Ends first only where there is no response, which the other side then learns of.
            Err(error) = connection => Err(error),
        }
    };
    match response.await?.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(CheckError::Status(status)),
    }
}

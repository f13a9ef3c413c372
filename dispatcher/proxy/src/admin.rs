//! What operators ask at the admin address, by GET, and what they change there, by POST.

use crate::change::{Change, Refused};
use crate::dispatcher::Shared;
use crate::export;
use crate::status::Status;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::{sync::Semaphore, task::spawn_local, time::sleep, time::timeout};
use vibra_model::Timestamp;
use vibra_routing::{PickState, object_name};

/// Connections that are served at a time; more wait.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long a connection may wait for the next.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// The longest life of a connection, so that none can hold its place for ever.
const LIFE: Duration = Duration::from_secs(300);
const PATHS: &str = "404: there are GET /metrics, /snapshot, /digest and /explain?url=, \
                     POST /reload, /drain and /servers/NAME/state\n";
const NO_TABLE: &str = "503: there is no routing table yet; see /snapshot\n";
pub(crate) const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves operators until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(seat) = seats.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                spawn_local(async move {
                    let _seat = seat;
                    // A connection that fails or overstays is closed; there is nobody left to tell.
                    let _ = timeout(LIFE, converse(stream, shared)).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections of operators");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>) -> hyper::Result<()> {
    let service = service_fn(|request| async { Ok::<_, Infallible>(respond(&shared, request).await) });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.serve_connection(TokioIo::new(stream), service).await
}

async fn respond(shared: &Arc<Shared>, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is_get = request.method() == Method::GET || request.method() == Method::HEAD;
    let uri = request.uri().clone();
    match uri.path() {
        "/metrics" | "/snapshot" | "/digest" | "/explain" if !is_get => not_allowed("GET, HEAD"),
        "/metrics" => match export::render(shared.clone()) {
            Ok(text) => answer(StatusCode::OK, OPENMETRICS, text),
            Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "500: the metrics cannot be written\n"),
        },
        "/snapshot" => json(StatusCode::OK, &Status::of(shared)),
        "/digest" => digest(shared),
        "/explain" => explain(shared, uri.query().unwrap_or_default()),
        _ => match Change::at(uri.path()) {
            Some(_) if request.method() != Method::POST => not_allowed("POST"),
            Some(change) => match change.make(shared, &mut request).await {
                Ok(response) => response,
                Err(Refused(status, why)) => answer(status, TEXT, format!("{}: {why}\n", status.as_u16())),
            },
            None => answer(StatusCode::NOT_FOUND, TEXT, PATHS),
        },
    }
}

fn not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, format!("405: only {allow}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

/// The table's digest alone, so that those of many dispatchers can be compared with nothing but `curl`.
fn digest(shared: &Shared) -> Response<Full<Bytes>> {
    match &shared.routes.load().table {
        Some(table) => answer(StatusCode::OK, TEXT, format!("{}\n", table.digest())),
        None => answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, NO_TABLE),
    }
}

/// Where a request for a URL would go now, and why. Algorithms that take turns have a turn for each thread; this shows
/// the choice of one that has not begun.
fn explain(shared: &Shared, query: &str) -> Response<Full<Bytes>> {
    let Some(url) = query.split('&').find_map(|pair| pair.strip_prefix("url=")).and_then(percent_decoded) else {
        return answer(StatusCode::BAD_REQUEST, TEXT, "400: name a URL: /explain?url=/path, percent-encoded\n");
    };
    let routes = shared.routes.load();
    let Some(table) = &routes.table else {
        return answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, NO_TABLE);
    };
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(0).after(micros);
    let name = object_name(&url);
    let explanation = if table.shares_state() {
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        table.explain(&state, name, &**routes, now)
    } else {
        table.explain(&PickState::default(), name, &**routes, now)
    };
    json(StatusCode::OK, &explanation)
}

/// The text that `text` encodes; `None` where that is not UTF-8 or an escape is broken.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    let digit = |bytes: &mut std::str::Bytes<'_>| char::from(bytes.next()?).to_digit(16);
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => u8::try_from(digit(&mut bytes)? * 16 + digit(&mut bytes)?).ok()?,
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(value) {
        Ok(text) => answer(status, JSON, text),
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("500: {error}\n")),
    }
}

fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_broken_ones_refused() {
        assert_eq!(percent_decoded("/a%20b%2Fc+d").as_deref(), Some("/a b/c d"));
        assert_eq!(percent_decoded("%C3%A4").as_deref(), Some("ä"));
        for broken in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(percent_decoded(broken), None, "{broken}");
        }
    }
}

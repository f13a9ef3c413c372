//! What operators ask at the admin address: `/metrics`, `/snapshot` and `/explain?url=`.

use crate::dispatcher::Shared;
use crate::export;
use crate::status::Status;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
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
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest life of a connection, so that none can hold its place for ever.
const LIFE: Duration = Duration::from_secs(300);
const JSON: &str = "application/json";
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
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(respond(&shared, &request))));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    builder.serve_connection(TokioIo::new(stream), service).await
}

fn respond<B>(shared: &Arc<Shared>, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "405: only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/metrics" => match export::render(shared.clone()) {
            Ok(text) => answer(StatusCode::OK, OPENMETRICS, text),
            Err(_) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "500: the metrics cannot be written\n"),
        },
        "/snapshot" => json(&Status::of(shared)),
        "/explain" => explain(shared, request.uri().query().unwrap_or_default()),
        _ => answer(StatusCode::NOT_FOUND, TEXT, "404: there are /metrics, /snapshot and /explain?url=\n"),
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
        return answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "503: there is no routing table yet; see /snapshot\n");
    };
    let micros = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(0).after(micros);
    let name = object_name(&url);
    json(&if table.shares_state() {
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        table.explain(&state, name, &**routes, now)
    } else {
        table.explain(&PickState::default(), name, &**routes, now)
    })
}

/// The text that `text` encodes; `None` where that is not UTF-8 or an escape is broken.
fn percent_decoded(text: &str) -> Option<String> {
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

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec_pretty(value) {
        Ok(text) => answer(StatusCode::OK, JSON, text),
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

//! The endpoints of [`vibra_model::api`].

use crate::{
    body::Received,
    error::ApiError,
    published::Published,
    records::json,
    telemetry::Telemetry,
    tokens::Tokens,
    watch,
    writer::{Refused, Request},
};
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Path, Query, State, rejection::PathRejection, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use bytes::Bytes;
use serde::Deserialize;
use std::{str::FromStr, sync::Arc};
use tokio::sync::{Semaphore, mpsc, oneshot, watch as signal};
use vibra_model::{Command, IdError, Revision, Role, Timestamp, VmId, api::Accepted, api::MoveRequest, api::PREFIX};
use vibra_store::Gone;

/// What the handlers work with.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) published: Arc<Published>,
    pub(crate) telemetry: Arc<Telemetry>,
    /// True once the server is to stop.
    pub(crate) stopping: signal::Receiver<bool>,
    /// The largest body, in bytes.
    pub(crate) largest_body: usize,
    /// How many bytes of bodies may be in hand at once.
    pub(crate) bodies: Arc<Semaphore>,
}

type Done = Result<Json<Accepted>, ApiError>;
type PathId = Result<Path<String>, PathRejection>;

/// The routes.
pub(crate) fn router(app: App) -> Router {
    let guarded = Router::new()
        .route("/snapshot", get(snapshot))
        .route("/watch", get(watch))
        .route("/usage", get(usage).post(report))
        .route("/proposals", post(propose))
        .route("/customers", put(put_customer))
        .route("/hosts", put(put_host))
        .route("/vms", put(put_vm))
        .route("/customers/{id}", delete(remove_customer))
        .route("/hosts/{id}", delete(remove_host))
        .route("/vms/{id}", delete(remove_vm))
        .route("/hosts/{id}/pool", put(put_host_pool))
        .route("/vms/{id}/move", post(move_vm))
        .route("/vms/{id}/state", put(put_vm_state))
        .method_not_allowed_fallback(wrong_method)
        .route_layer(middleware::from_fn_with_state(app.clone(), authenticate));
    let open = Router::new().route("/health", get(health)).method_not_allowed_fallback(wrong_method);
    Router::new().nest(PREFIX, guarded.merge(open)).fallback(unknown_path).with_state(app)
}

async fn authenticate(State(app): State<App>, mut request: axum::extract::Request, next: Next) -> Response {
    let told = request.headers().get(header::AUTHORIZATION);
    let Some(token) = told.and_then(bearer) else {
        let message = "this needs a token: send the header Authorization: Bearer TOKEN";
        return ApiError::unauthorized(message).into_response();
    };
    let Some(role) = app.tokens.role(token).cloned() else {
        return ApiError::unauthorized("nobody has this token: see the directory's configuration").into_response();
    };
    request.extensions_mut().insert(role);
    next.run(request).await
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

async fn unknown_path(uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("there is no {}: the API is under {PREFIX}", uri.path()))
}

async fn wrong_method(method: axum::http::Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, format!("{} has no method {method}", uri.path()))
}

async fn health(State(app): State<App>) -> Result<&'static str, ApiError> {
    if app.requests.is_closed() {
        let message = "the store failed, nothing can be changed: see the log and start the directory again";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message));
    }
    Ok("ok\n")
}

fn json_text(text: Bytes) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

async fn snapshot(State(app): State<App>) -> Response {
    json_text(app.published.snapshot().await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WatchQuery {
    from: Revision,
}

async fn watch(State(app): State<App>, query: Result<Query<WatchQuery>, QueryRejection>) -> Result<Response, ApiError> {
    let Query(WatchQuery { from }) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    let lines = watch::lines(&app.published, from, app.stopping)
        .map_err(|gone: Gone| ApiError::new(StatusCode::GONE, gone.to_string()))?;
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(lines)).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsageQuery {
    #[serde(default)]
    since: Timestamp,
}

async fn usage(State(app): State<App>, query: Result<Query<UsageQuery>, QueryRejection>) -> Result<Response, ApiError> {
    let Query(UsageQuery { since }) = query.map_err(|error| ApiError::bad(error.body_text()))?;
    let text = tokio::task::spawn_blocking(move || json(&app.telemetry.window(since))).await;
    let failed = |_| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the usage cannot be written");
    text.map(json_text).map_err(failed)
}

impl App {
    /// Hands a command to the writer and waits until it is durable.
    async fn command(&self, role: Role, command: Command) -> Done {
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(Request { role, command, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Refused::Busy,
            mpsc::error::TrySendError::Closed(_) => Refused::Ended,
        })?;
        let revision = answered.await.unwrap_or(Err(Refused::Ended))?;
        Ok(Json(Accepted { revision }))
    }
}

/// A handler whose body is the command's content.
macro_rules! from_body {
    ($name:ident, $command:path) => {
        async fn $name(State(app): State<App>, Extension(role): Extension<Role>, body: Received) -> Done {
            let (value, _held) = body.json()?;
            app.command(role, $command(value)).await
        }
    };
}

from_body!(report, Command::Report);
from_body!(propose, Command::Propose);
from_body!(put_customer, Command::PutCustomer);
from_body!(put_host, Command::PutHost);
from_body!(put_vm, Command::PutVm);

/// A handler whose path has the id of what is to be removed.
macro_rules! from_path {
    ($name:ident, $command:path) => {
        async fn $name(State(app): State<App>, Extension(role): Extension<Role>, id: PathId) -> Done {
            app.command(role, $command(parse_id(id)?)).await
        }
    };
}

from_path!(remove_customer, Command::RemoveCustomer);
from_path!(remove_host, Command::RemoveHost);
from_path!(remove_vm, Command::RemoveVm);

async fn put_vm_state(State(app): State<App>, Extension(role): Extension<Role>, id: PathId, body: Received) -> Done {
    let vm: VmId = parse_id(id)?;
    let (state, _held) = body.json()?;
    app.command(role, Command::SetVmState { vm, state }).await
}

async fn put_host_pool(State(app): State<App>, Extension(role): Extension<Role>, id: PathId, body: Received) -> Done {
    let host = parse_id(id)?;
    let (pool, _held) = body.json()?;
    app.command(role, Command::JoinPool { host, pool }).await
}

async fn move_vm(State(app): State<App>, Extension(role): Extension<Role>, id: PathId, body: Received) -> Done {
    let vm: VmId = parse_id(id)?;
    let (MoveRequest { base, to }, _held) = body.json()?;
    app.command(role, Command::MoveVm { base, vm, to }).await
}

fn parse_id<T: FromStr<Err = IdError>>(path: PathId) -> Result<T, ApiError> {
    let Path(text) = path.map_err(|error| ApiError::bad(error.body_text()))?;
    text.parse().map_err(|error: IdError| ApiError::bad(error.to_string()))
}

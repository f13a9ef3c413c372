//! What operators change at the admin address.

use crate::admin::{JSON, PATIENCE, json, percent_decoded};
use crate::control::{Call, Ordered};
use crate::dispatcher::Shared;
use crate::error::Chain;
use crate::limits::LONGEST;
use crate::members::Order;
use crate::reload::ReloadOutcome;
use crate::status::Status;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, ORIGIN};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, de::DeserializeOwned};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use vibra_model::VmId;

/// The longest body that is read, in bytes.
const LARGEST_BODY: usize = 4096;

/// What operators can change, each by a POST.
pub(crate) enum Change<'a> {
    Reload,
    Drain,
    /// The state of the server of this name, percent-encoded.
    Server(&'a str),
}

/// The body of `POST /drain`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Drain {
    /// How long connections may take to end. Default: as configured.
    seconds: Option<u64>,
}

/// The body of `POST /servers/NAME/state`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerState {
    state: StateName,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateName {
    Drain,
    Maintenance,
    Ready,
}

impl<'a> Change<'a> {
    /// What a path stands for.
    pub(crate) fn at(path: &'a str) -> Option<Self> {
        match path {
            "/reload" => Some(Change::Reload),
            "/drain" => Some(Change::Drain),
            _ => path.strip_prefix("/servers/")?.strip_suffix("/state").map(Change::Server),
        }
    }
}

/// Why nothing was changed.
pub(crate) struct Refused(pub(crate) StatusCode, pub(crate) String);

impl Refused {
    fn new(status: StatusCode, why: &str) -> Self {
        Refused(status, why.to_owned())
    }
}

type Made = Result<Response<Full<Bytes>>, Refused>;

impl Change<'_> {
    /// Does it, if the request may ask for it.
    pub(crate) async fn make(&self, shared: &Arc<Shared>, request: &mut Request<Incoming>) -> Made {
        let body = body(request).await?;
        match self {
            Change::Reload => reload(shared).await,
            Change::Drain => drain(shared, &parsed(&body)?),
            Change::Server(name) => set_state(shared, name, parsed::<ServerState>(&body)?.state).await,
        }
    }
}

/// The body of a request that changes something. Web pages must not: a browser names the page that a request comes
/// from, and sends JSON to another site only after asking it.
async fn body(request: &mut Request<Incoming>) -> Result<Bytes, Refused> {
    let headers = request.headers();
    if headers.contains_key(ORIGIN) {
        return Err(Refused::new(StatusCode::FORBIDDEN, "nothing is changed for a web page"));
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(JSON) {
        let why = "send JSON, and say so: curl --json '{}'";
        return Err(Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let read = timeout(PATIENCE, Limited::new(request.body_mut(), LARGEST_BODY).collect()).await;
    match read {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(Refused::new(StatusCode::BAD_REQUEST, "the body is broken off, or too long")),
        Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// What `body` says; an empty one says nothing, as `{}` does.
fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Refused(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn reload(shared: &Arc<Shared>) -> Made {
    match shared.reload().await {
        Ok(changed) => Ok(json(StatusCode::OK, &ReloadOutcome::Applied { changed })),
        Err(error) => {
            let refused = ReloadOutcome::Refused { why: Chain(&error).to_string() };
            Ok(json(StatusCode::UNPROCESSABLE_ENTITY, &refused))
        }
    }
}

fn drain(shared: &Shared, order: &Drain) -> Made {
    let grace = order.seconds.map_or(shared.routes.load().config.drain, Duration::from_secs);
    if grace > LONGEST {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "a drain takes a day at most"));
    }
    tracing::info!(target: "operator", "draining, for at most {grace:?}");
    shared.stop(grace);
    Ok(json(StatusCode::ACCEPTED, &Status::of(shared)))
}

async fn set_state(shared: &Shared, name: &str, state: StateName) -> Made {
    let order = match state {
        StateName::Drain => Some(Order::Drain),
        StateName::Maintenance => Some(Order::Maintenance),
        StateName::Ready => None,
    };
    let unknown = || Refused::new(StatusCode::NOT_FOUND, "there is no server of that name; see /snapshot");
    let name: VmId = percent_decoded(name).and_then(|name| name.parse().ok()).ok_or_else(unknown)?;
    match shared.ask(|answer| Call::Order(name.clone(), order, answer)).await {
        Some(Ordered::Done) => Ok(json(StatusCode::OK, &Status::of(shared).server(name.as_str()))),
        Some(Ordered::Unknown) => Err(unknown()),
        Some(Ordered::Held) => {
            let why = "a new process is about to take over: ask again in a moment";
            Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, why))
        }
        None => Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, "the dispatcher is stopping")),
    }
}

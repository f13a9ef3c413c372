//! A request's life, phase by phase:
//!
//! ```text
//! receive ──► pick ──► connect ──► send ──► respond ──► account
//!    │          │       ▲   │        │         │
//!    │          │       │   └─ next candidate  └─ body streamed, connection back to its pool
//!   400, 501   503      └── once, where a used connection turned out closed
//!                           502, 504 where no response comes
//! ```
//!
//! - **receive**: the head is checked and made fit for a server ([`crate::headers`]).
//! - **pick**: the routing table ranks servers by the object's name.
//! - **connect**: an unused connection of this thread's pool, else a new one; where that fails, the next candidate.
//! - **send**: head and body go to the server; the body as it comes.
//! - **respond**: head and body go to the client; the body as it comes.
//! - **account**: the request is complete, whichever way ([`crate::account`]).

use crate::account::Account;
use crate::body::{Relayed, RequestBody, ResponseBody};
use crate::client::Client;
use crate::headers::{self, BadHead};
use crate::link::{ExchangeError, Link};
use crate::metrics::{Failure, Refusal};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use std::{convert::Infallible, rc::Rc, time::Instant};

/// Answers one request.
pub(crate) async fn respond(
    client: Rc<Client>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let began = Instant::now();
    client.awaits_response();
    let response = match receive(&client, request) {
        Ok(request) => relay(&client, request, began).await,
        Err(refusal) => Err(refusal),
    };
    Ok(response.unwrap_or_else(|refusal| refuse(&client, refusal)))
}

/// Makes of the client's request the one for a server.
fn receive(client: &Client, request: Request<Incoming>) -> Result<Request<RequestBody>, Refusal> {
    let (mut head, body) = request.into_parts();
    match headers::prepare_request(&mut head, client.address()) {
        Ok(()) => Ok(Request::from_parts(head, body.into())),
        Err(BadHead::Malformed) => Err(Refusal::BadRequest),
        Err(BadHead::Unsupported) => Err(Refusal::Unsupported),
    }
}

/// Tries the candidates in their order until one cannot be taken back.
async fn relay(
    client: &Rc<Client>,
    mut request: Request<RequestBody>,
    began: Instant,
) -> Result<Response<ResponseBody>, Refusal> {
    let worker = client.worker();
    let view = worker.view();
    let mut refusal = Refusal::NoServer;
    for server in worker.pick(&view, request.uri().path()).into_iter().take(worker.limits().attempts) {
        let account = Account::open(view.pools[server].clone(), client.clone(), began);
        match attempt(client, account, request).await {
            Ok(response) => return Ok(response),
            Err(Attempt::NotConnected(unsent)) => request = *unsent,
            Err(Attempt::Failed(refusal)) => return Err(refusal),
        }
        refusal = Refusal::BadGateway;
    }
    Err(refusal)
}

/// Why an attempt at one server came to nothing.
enum Attempt {
    /// There is no connection; the request can go elsewhere.
    NotConnected(Box<Request<RequestBody>>),
    /// The server may have acted on the request; the client is to decide.
    Failed(Refusal),
}

/// Tries one server: on the connection that was used last and, where that turns out closed, once more on a new one.
async fn attempt(
    client: &Client,
    mut account: Account,
    mut request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, Attempt> {
    let mut link = account.pool().take();
    loop {
        client.awaits_response();
        let mut carrier = match link.take() {
            Some(link) => link,
            None => match connect(client, &account).await {
                Some(link) => link,
                None => {
                    account.failed(Failure::Connect);
                    return Err(Attempt::NotConnected(Box::new(request)));
                }
            },
        };
        if !request.headers().contains_key(HOST) {
            name_host(&mut request, &account);
        }
        let spare = if carrier.is_reused() { copy(&request) } else { None };
        client.awaits_response();
        let error = match carrier.exchange(request, || client.gives_up()).await {
            Ok(response) if is_unfit(&response) => ExchangeError::Garbage,
            Ok(response) => return Ok(deliver(response, carrier, account)),
            Err(error) => error,
        };
        request = match (error, spare) {
            (ExchangeError::Unsent(unsent), _) if carrier.is_reused() => *unsent,
            (ExchangeError::Unsent(unsent), _) => {
                account.failed(Failure::Closed);
                return Err(Attempt::NotConnected(unsent));
            }
            (ExchangeError::Closed, Some(spare)) => spare,
            (error, _) => return Err(Attempt::Failed(give_up(&mut account, &error))),
        };
    }
}

/// Whether a response cannot be handed on: nobody has asked for another protocol or for an encoded body.
fn is_unfit(response: &Response<Incoming>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS || headers::is_coded(response.headers())
}

async fn connect(client: &Client, account: &Account) -> Option<Box<Link>> {
    let (worker, pool) = (client.worker(), account.pool());
    let link = Link::connect(pool.server.address?, worker.timeouts().connect, worker.limits()).await;
    match link {
        Ok(link) => {
            pool.tally.connects.add(1);
            Some(link)
        }
        Err(error) => {
            tracing::debug!(server = %pool.server.name, %error, "not connected");
            None
        }
    }
}

/// HTTP/1.1 wants a host even where an HTTP/1.0 client named none.
fn name_host(request: &mut Request<RequestBody>, account: &Account) {
    if let Ok(host) = HeaderValue::try_from(account.pool().server.endpoint.as_str()) {
        request.headers_mut().insert(HOST, host);
    }
}

/// The request once more, if a server that has perhaps seen it may see it again.
fn copy(request: &Request<RequestBody>) -> Option<Request<RequestBody>> {
    if !matches!(request.body(), RequestBody::Empty) || !request.method().is_idempotent() {
        return None;
    }
    let mut copy = Request::new(RequestBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

fn give_up(account: &mut Account, error: &ExchangeError) -> Refusal {
    let (failure, refusal) = match error {
        ExchangeError::Unsent(_) | ExchangeError::Closed => (Failure::Closed, Refusal::BadGateway),
        ExchangeError::Garbage => (Failure::Garbage, Refusal::BadGateway),
        ExchangeError::Client => (Failure::Client, Refusal::BadRequest),
        ExchangeError::TimedOut => (Failure::TimedOut, Refusal::TimedOut),
    };
    account.failed(failure);
    refusal
}

/// Hands the response on to the client.
fn deliver(response: Response<Incoming>, link: Box<Link>, mut account: Account) -> Response<ResponseBody> {
    let (mut head, body) = response.into_parts();
    account.responded(head.status);
    headers::prepare_response(&mut head);
    Response::from_parts(head, ResponseBody::Relayed(Relayed::new(body, link, account)))
}

/// The dispatcher's own answer.
fn refuse(client: &Client, refusal: Refusal) -> Response<ResponseBody> {
    client.worker().tally().refused[refusal as usize].add(1);
    client.rests();
    let mut response = Response::new(ResponseBody::Own(Some(Bytes::from_static(refusal.text().as_bytes()))));
    *response.status_mut() = refusal.status();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

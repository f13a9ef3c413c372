//! A request's life, phase by phase:
//!
//! ```text
//! receive ──► pick ──► connect ──► send ──► respond ──► account
//!    │          │       ▲   │        │         │
//!    │          │       │   └─ next candidate  ├─ rest of the body from the next candidate
//!    │          │       │                      └─ body streamed, connection back to its pool
//! 400, 501, 508 503      └── next candidate, where the request may be repeated
//!                           502, 504 where no response comes
//! ```
//!
//! - **receive**: the head is read and checked ([`crate::front`], [`crate::http1`]).
//! - **pick**: the routing table ranks servers by the object's name.
//! - **connect**: an unused connection of this thread's pool, else a new one; where that fails, the next candidate.
//! - **send**: head and body go to the server; the body as it comes.
//! - **respond**: head and body go to the client; the body as it comes, even while the request's is still on its way.
//!   Where the server breaks it off, the rest comes from the next candidate if it has the same ([`crate::resume`]).
//! - **account**: the request is complete, whichever way ([`crate::account`]).

use crate::account::Account;
use crate::body::{BodyError, Broken, Side, Transfer};
use crate::client::Client;
use crate::forwarded::Hop;
use crate::front::Front;
use crate::http1::rewrite::Onward;
use crate::http1::{Length, RequestHead, ResponseHead};
use crate::journal::Journal;
use crate::kept::Kept;
use crate::link::{Http1, Link, NoResponse, Unsayable};
use crate::metrics::{Failure, Refusal};
use crate::resume::{Representation, Rest};
use crate::turns::Turns;
use http::StatusCode;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

/// More interim responses than this before the response are no answer.
const MOST_INTERIM: usize = 32;

/// How an exchange ended for the client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// There is a whole response.
    Whole,
    /// There is a part of one: the client must not take it for the whole.
    Broken,
}

/// Carries one request to a server and its response back.
pub(crate) async fn run(client: &Rc<Client>, front: &mut impl Front, head: &RequestHead) -> End {
    let mut journal = Journal::begin(client, Some(head), front.began());
    client.awaits_response();
    client.worker().tally().requests[head.version as usize].add(1);
    let mut memory = client.worker().wire().memory.hold();
    memory.resize(head.fields.size());
    let end = match client.worker().permit(client, head) {
        Ok(()) => relay(client, front, head, &mut journal).await,
        Err(refusal) => Err(refusal),
    };
    match end {
        Ok(end) => end,
        Err(refusal) => answer(client, front, refusal, &mut journal).await,
    }
}

/// Refuses what is no request.
pub(crate) async fn refuse(client: &Client, front: &mut impl Front, refusal: Refusal) -> End {
    let mut journal = Journal::begin(client, None, front.began());
    answer(client, front, refusal, &mut journal).await
}

/// Answers in the dispatcher's own words.
async fn answer(client: &Client, front: &mut impl Front, refusal: Refusal, journal: &mut Journal<'_>) -> End {
    client.worker().tally().refused[refusal as usize].add(1);
    journal.refuses(refusal);
    client.relays();
    // What is left of the request nobody wants to read.
    front.refuse(refusal, refusal.is_the_clients() || !front.has_whole_request(), &journal.own());
    if is_sent(client, front).await {
        client.rests();
        End::Whole
    } else {
        End::Broken
    }
}

/// Sends what is kept for the client; whether he takes it in time.
async fn is_sent(client: &Client, front: &mut impl Front) -> bool {
    poll_fn(|cx| match front.poll_flush(cx) {
        Poll::Pending if client.is_overdue() => Poll::Ready(false),
        flushed => flushed.map(|result| result.is_ok()),
    })
    .await
}

/// A request that is being carried.
struct Carried<'a, 'j, F> {
    client: &'a Rc<Client>,
    front: &'a mut F,
    head: &'a RequestHead,
    journal: &'a mut Journal<'j>,
    upload: Transfer,
    /// What has gone of the request's body, where a server may say that it has not acted on it.
    kept: Option<Box<Kept>>,
    /// Whether the rest of the request's body is not wanted.
    upload_over: bool,
}

/// Tries the candidates in their order until one cannot be taken back.
async fn relay(
    client: &Rc<Client>,
    front: &mut impl Front,
    head: &RequestHead,
    journal: &mut Journal<'_>,
) -> Result<End, Refusal> {
    let worker = client.worker();
    let view = worker.view();
    journal.explain(&view);
    let mut turns = Turns::new(client, &view, head.path());
    let mut turn = Some(turns.first(journal).await?);
    let mut carried =
        Carried { client, front, head, journal, upload: Transfer::default(), kept: None, upload_over: false };
    while let Some(mut account) = turn {
        match carried.attempt(&mut account, None).await {
            Ok((response, link)) => return Ok(carried.deliver(response, link, account, turns).await),
            Err(Attempt::Elsewhere(failure)) => carried.passes_over(&mut account, failure),
            Err(Attempt::Over(failure, refusal)) => {
                account.failed(failure);
                carried.journal.received = carried.upload.bytes;
                return Err(refusal);
            }
        }
        turn = turns.next(carried.journal);
    }
    Err(Refusal::BadGateway)
}

/// Why an attempt at one server came to nothing.
enum Attempt {
    /// The server cannot have acted on the request, or may see it twice: it can go elsewhere.
    Elsewhere(Failure),
    /// The server may have acted on the request; the client is to decide.
    Over(Failure, Refusal),
}

/// Why there is no answer.
enum NoAnswer {
    Server(NoResponse),
    /// The request's body does not go on.
    Body,
    /// The request's body is longer than is taken.
    BodyTooLong,
    /// The client has gone.
    Gone,
    /// Nothing moved for too long, for want of this.
    Overdue(Awaited),
}

enum Awaited {
    Client,
    Server,
}

/// The request cannot be put into the server's version of HTTP.
const UNSAYABLE: Attempt = Attempt::Over(Failure::Client, Refusal::BadRequest);

impl<F: Front> Carried<'_, '_, F> {
    /// Tries one server: on the connection that was used last and, where that turns out closed, once more on a new one; on
    /// one that others have made meanwhile first, where the server takes several requests on one.
    /// With `rest` only that of a representation is asked for.
    async fn attempt(
        &mut self,
        account: &mut Account,
        rest: Option<Rest<'_>>,
    ) -> Result<(ResponseHead, Link), Attempt> {
        if self.journal.asks(account.pool().clone()) > 1 {
            account.pool().tally.retries.add(1);
        }
        let mut link = account.take();
        let mut closed = 0;
        loop {
            // Nothing of the body has gone to a server that was tried before, or it goes again from its beginning.
            self.upload = Transfer::default();
            self.kept.iter_mut().for_each(|kept| kept.rewind());
            self.client.awaits_response();
            let mut carrier = match link.take() {
                Some(link) => link,
                None => connect(self.client, account, self.journal, closed > 1).await.map_err(Attempt::Elsewhere)?,
            };
            self.keeps_body_for(&carrier);
            let peer = self.client.peer();
            let config = self.client.worker().config();
            let onward = Onward {
                hop: Hop {
                    address: &peer.address,
                    trusted: peer.trusted,
                    scheme: self.front.scheme(),
                    host: self.head.host(),
                },
                peers: &config.peers,
                endpoint: account.pool().server.endpoint.authority(),
                marks: self.journal.marks(),
                rest,
            };
            carrier.ask(self.head, &onward).map_err(|Unsayable| UNSAYABLE)?;
            self.client.awaits_response();
            let error = match self.answer(&mut carrier).await {
                Ok(response) => return Ok((response, carrier)),
                Err(error) => error,
            };
            if let NoAnswer::Overdue(Awaited::Server) = error {
                carrier.distrust();
            }
            if !self.may_repeat(&error) {
                return Err(give_up(&error));
            }
            if !carrier.is_reused() {
                return Err(Attempt::Elsewhere(Failure::Closed));
            }
            closed += 1;
        }
    }

    /// Keeps what goes of the body, as far as it fits a buffer, where the server may refuse the request after that.
    fn keeps_body_for(&mut self, link: &Link) {
        if matches!(link, Link::Http2(_)) && self.head.length != Length::None && self.kept.is_none() {
            let worker = self.client.worker();
            self.kept = Some(Box::new(Kept::new(worker.config().limits.buffer, worker.wire().memory.hold())));
        }
    }

    /// Whether the server may see the request again, or another in its place.
    fn may_repeat(&self, error: &NoAnswer) -> bool {
        let nothing_went = self.upload.bytes == 0;
        match error {
            NoAnswer::Server(NoResponse::Refused) => {
                nothing_went || self.kept.as_ref().is_some_and(|kept| kept.is_whole())
            }
            // It has perhaps acted on it.
            NoAnswer::Server(NoResponse::Closed) => nothing_went && self.head.method.is_idempotent(),
            _ => false,
        }
    }

    /// Sends the request and waits for the final response's head.
    async fn answer(&mut self, link: &mut Link) -> Result<ResponseHead, NoAnswer> {
        let to_head = self.head.method == http::Method::HEAD;
        let mut interim = 0;
        self.upload_over = false;
        poll_fn(|cx| {
            loop {
                let uploading = self.poll_upload(cx, link).map_err(|_| NoAnswer::Body)?;
                if self.is_body_too_long() {
                    return Poll::Ready(Err(NoAnswer::BodyTooLong));
                }
                // An interim response must not wait for the final one.
                if let Poll::Ready(Err(_)) = self.front.poll_flush(cx) {
                    return Poll::Ready(Err(NoAnswer::Gone));
                }
                let client = self.client;
                let Poll::Ready(head) = link.poll_response(cx, to_head, || client.moved()) else {
                    if !client.is_overdue() {
                        return Poll::Pending;
                    }
                    let waits_for_client =
                        client.is_slow() || uploading.is_pending() && self.upload.waits_for() == Some(Side::Source);
                    let awaited = if waits_for_client { Awaited::Client } else { Awaited::Server };
                    return Poll::Ready(Err(NoAnswer::Overdue(awaited)));
                };
                let head = head.map_err(NoAnswer::Server)?;
                match head.status {
                    StatusCode::SWITCHING_PROTOCOLS if !head.switches_as_asked(self.head) => {}
                    status if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {
                        interim += 1;
                        if interim <= MOST_INTERIM {
                            self.front.interim(&head);
                            continue;
                        }
                    }
                    _ => return Poll::Ready(Ok(head)),
                }
                return Poll::Ready(Err(NoAnswer::Server(NoResponse::Garbage)));
            }
        })
        .await
    }

    /// Moves the request's body on. A server that takes no more of it may still answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>, link: &mut Link) -> Poll<Result<(), BodyError>> {
        if self.upload_over {
            return Poll::Ready(Ok(()));
        }
        let client = self.client;
        let polled = match &mut self.kept {
            None => self.upload.poll(cx, self.front, link, || client.moved()),
            Some(kept) => self.upload.poll(cx, &mut kept.before(self.front), link, || client.moved()),
        };
        client.upload.report(self.upload.bytes, self.upload.waits_for() == Some(Side::Source));
        let result = ready!(polled);
        self.upload_over = true;
        match result {
            Err(Broken::Source(error)) => Poll::Ready(Err(error)),
            Ok(()) | Err(Broken::Sink) => Poll::Ready(Ok(())),
        }
    }

    /// Whether more of the request's body came than is taken; of what has chunks that shows only so.
    fn is_body_too_long(&self) -> bool {
        self.client.worker().config().limits.body.is_some_and(|most| self.upload.bytes > most)
    }

    /// Hands the response on to the client. Where it breaks off, `others` may have the rest.
    async fn deliver(mut self, response: ResponseHead, link: Link, mut account: Account, mut others: Turns<'_>) -> End {
        account.responded(response.status);
        // The server acts on it.
        drop(self.kept.take_if(|kept| kept.is_through()));
        account.pool().tally.first_byte.record(self.journal.responds(response.status));
        let mut link = match link {
            Link::Http1(link) if response.status == StatusCode::SWITCHING_PROTOCOLS => {
                return Box::pin(self.tunnel(response, link, account)).await;
            }
            link => link,
        };
        // Who refuses a request before it has ended does not read the rest.
        let refused = response.status.is_client_error() || response.status.is_server_error();
        self.front.respond(&response, refused && !self.front.has_whole_request(), &self.journal.own());
        let mut download = Transfer::default();
        let mut representation = None;
        loop {
            let across = poll_fn(|cx| self.poll_across(cx, &mut link, &mut download)).await;
            (self.journal.received, self.journal.sent) = (self.upload.bytes, download.bytes);
            let Err(fault) = across else {
                // Before the client can ask for more: the server is no longer busy with this.
                account.release(link);
                return self.finish(account).await;
            };
            if self.client.is_overdue() && fault == Failure::Broken {
                link.distrust();
            }
            account.failed(fault);
            self.journal.breaks(fault);
            if fault != Failure::Broken {
                return End::Broken;
            }
            representation = representation.or_else(|| Representation::of(self.head, &response));
            let Some(of) = &representation else { return End::Broken };
            self.journal.skips(fault.name());
            match Box::pin(self.resume(Rest { of, from: download.bytes }, &mut others)).await {
                Some(found) => (link, account) = found,
                None => return End::Broken,
            }
        }
    }

    /// Sends what is left of a response that has wholly come.
    async fn finish(self, mut account: Account) -> End {
        let Carried { client, front, journal, .. } = self;
        if is_sent(client, front).await {
            account.complete(journal.completes());
            End::Whole
        } else {
            account.failed(Failure::Client);
            journal.breaks(Failure::Client);
            End::Broken
        }
    }

    /// The next server is to take the place of one that has failed.
    fn passes_over(&mut self, account: &mut Account, failure: Failure) {
        account.failed(failure);
        self.journal.skips(failure.name());
    }

    /// Finds the rest of a representation at another server.
    async fn resume(&mut self, rest: Rest<'_>, others: &mut Turns<'_>) -> Option<(Link, Account)> {
        while let Some(mut account) = others.next(self.journal) {
            match self.attempt(&mut account, Some(rest)).await {
                Ok((response, link)) if rest.is_in(&response) => {
                    account.responded(response.status);
                    self.client.worker().tally().resumed.add(1);
                    return Some((link, account));
                }
                Ok(_) => {
                    account.dismissed();
                    self.journal.skips("differs");
                }
                Err(Attempt::Elsewhere(failure) | Attempt::Over(failure, _)) => self.passes_over(&mut account, failure),
            }
        }
        None
    }

    /// Moves both bodies on; ready once the response's is across.
    fn poll_across(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        download: &mut Transfer,
    ) -> Poll<Result<(), Failure>> {
        if let Poll::Ready(Err(_)) = self.poll_upload(cx, link) {
            return Poll::Ready(Err(Failure::Client));
        }
        if self.is_body_too_long() {
            return Poll::Ready(Err(Failure::Client));
        }
        let client = self.client;
        let polled = download.poll_taken(cx, link, self.front, || client.moved());
        client.download.report(download.bytes, download.waits_for() == Some(Side::Sink));
        match polled {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(Broken::Source(_))) => Poll::Ready(Err(Failure::Broken)),
            Poll::Ready(Err(Broken::Sink)) => Poll::Ready(Err(Failure::Client)),
            Poll::Pending if !client.is_overdue() => Poll::Pending,
            Poll::Pending if client.is_slow() => Poll::Ready(Err(Failure::Client)),
            Poll::Pending if download.waits_for() == Some(Side::Source) => Poll::Ready(Err(Failure::Broken)),
            Poll::Pending => Poll::Ready(Err(Failure::Client)),
        }
    }

    /// Carries bytes of another protocol both ways until both sides have ended.
    async fn tunnel(self, response: ResponseHead, mut link: Box<Http1>, mut account: Account) -> End {
        let Carried { client, front, journal, .. } = self;
        front.switch(&response);
        link.conn.expect(Length::UntilClose);
        link.conn.stage(false);
        client.tunnels();
        let (mut up, mut down) = (Transfer::default(), Transfer::default());
        let (mut up_ended, mut down_ended) = (false, false);
        let ended = poll_fn(|cx| {
            // Who has ended his direction may still listen.
            if !up_ended
                && up.poll(cx, front, &mut link.conn, || client.moved()).map_err(drop)?.is_ready()
                && link.conn.poll_shutdown(cx).map_err(drop)?.is_ready()
            {
                up_ended = true;
            }
            if !down_ended
                && down.poll(cx, &mut link.conn, front, || client.moved()).map_err(drop)?.is_ready()
                && front.poll_shutdown(cx).map_err(drop)?.is_ready()
            {
                down_ended = true;
            }
            match (up_ended, down_ended) {
                (true, true) => Poll::Ready(Ok(())),
                _ if client.is_overdue() => Poll::Ready(Err(())),
                _ => Poll::Pending,
            }
        });
        let ended = ended.await;
        (journal.received, journal.sent) = (up.bytes, down.bytes);
        match ended {
            Ok(()) => {
                account.complete(journal.completes());
                End::Whole
            }
            Err(()) => {
                account.failed(Failure::Client);
                journal.breaks(Failure::Client);
                End::Broken
            }
        }
    }
}

async fn connect(client: &Client, account: &Account, journal: &mut Journal<'_>, new: bool) -> Result<Link, Failure> {
    let (pool, began) = (account.pool(), Instant::now());
    // Its state is large and short-lived: it shall not make every request's task as large.
    match Box::pin(pool.connect(client.worker(), &client.peer().ends, new)).await {
        Ok(link) => {
            journal.connected(began.elapsed());
            Ok(link)
        }
        Err(error) => {
            tracing::debug!(server = %pool.server.name, "not connected: {error}");
            Err(error.failure())
        }
    }
}

fn give_up(error: &NoAnswer) -> Attempt {
    let (failure, refusal) = match error {
        NoAnswer::Server(NoResponse::Closed | NoResponse::Refused) => (Failure::Closed, Refusal::BadGateway),
        NoAnswer::Server(NoResponse::Garbage) => (Failure::Garbage, Refusal::BadGateway),
        NoAnswer::Body | NoAnswer::Gone => (Failure::Client, Refusal::BadRequest),
        NoAnswer::BodyTooLong => (Failure::Client, Refusal::BodyTooLong),
        NoAnswer::Overdue(Awaited::Client) => (Failure::Client, Refusal::Late),
        NoAnswer::Overdue(Awaited::Server) => (Failure::TimedOut, Refusal::TimedOut),
    };
    Attempt::Over(failure, refusal)
}

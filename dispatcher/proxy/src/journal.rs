//! What is known of one request while it is carried, and its line in the log once it has ended.

use crate::client::Client;
use crate::http1::RequestHead;
use crate::http1::head::Name;
use crate::http1::rewrite::{Marks, Own};
use crate::ids::RequestId;
use crate::log::{End, Phases, Record, RequestLine, Skipped};
use crate::metrics::{Failure, Refusal};
use crate::pool::Pool;
use crate::tls::TlsVersion;
use crate::trace::Hop;
use crate::worker::View;
use http::{Method, StatusCode};
use smallvec::SmallVec;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, Instant};
use vibra_routing::{Explanation, Judged};

/// So many candidates are named in an explanation.
const MOST_CANDIDATES: usize = 16;

/// What is known of one request. However the request ends, dropping this logs it.
pub(crate) struct Journal<'a> {
    client: &'a Client,
    /// `None` where the head was never understood.
    head: Option<&'a RequestHead>,
    /// When the request's first byte came.
    began: Instant,
    id: RequestId,
    trace: Option<Hop>,
    explanation: Option<Box<Explanation>>,
    /// The server that is being asked, or was the last.
    server: Option<Rc<Pool>>,
    /// With the reasons.
    skipped: SmallVec<[(Rc<Pool>, &'static str); 2]>,
    attempts: u32,
    status: Option<StatusCode>,
    phases: Phases,
    end: End,
    /// Bytes of the request's body that went to the server.
    pub(crate) received: u64,
    /// Bytes of the response's body that went to the client.
    pub(crate) sent: u64,
}

impl<'a> Journal<'a> {
    /// Of a request whose first byte came at `began`.
    pub(crate) fn begin(client: &'a Client, head: Option<&'a RequestHead>, began: Instant) -> Self {
        let worker = client.worker();
        let trusted = head.filter(|_| client.peer().trusted);
        let field = |name| trusted.into_iter().flat_map(move |head| head.fields.all(name));
        let mut ids = worker.ids();
        let id = ids.request(field(Name::XRequestId).next());
        let trace = worker.sampling().map(|sampling| Hop::join(field(Name::TraceParent), sampling, &mut ids));
        Journal {
            client,
            head,
            began,
            id,
            trace,
            explanation: None,
            server: None,
            skipped: SmallVec::new(),
            attempts: 0,
            status: None,
            phases: Phases::default(),
            end: End::CutOff,
            received: 0,
            sent: 0,
        }
    }

    /// What servers are told of the request.
    pub(crate) fn marks(&self) -> Marks<'_> {
        let start = self.client.worker().clock().date_of(self.began);
        Marks { id: self.id.as_bytes(), start: start.0, trace: self.trace }
    }

    /// What the client is told of the request.
    pub(crate) fn own(&self) -> Own<'_> {
        let explanation = self.explanation.as_ref().map(|explanation| self.tell(explanation));
        Own { id: self.id.as_bytes(), explanation }
    }

    /// Remembers why the request is about to go where it goes, if a trusted peer has asked for that.
    pub(crate) fn explain(&mut self, view: &View) {
        let asks = |head: &RequestHead| self.client.peer().trusted && head.fields.get(Name::XVibraExplain).is_some();
        let head = self.head.filter(|head| asks(head));
        self.explanation = head.and_then(|head| self.client.worker().explain(view, head.path())).map(Box::new);
    }

    /// How it was to go, and how it went, in a line.
    fn tell(&self, planned: &Explanation) -> String {
        let mut told = String::new();
        if let Some(pool) = &self.server {
            let _ = write!(told, "server={} ", pool.server.name);
        }
        for (i, (pool, reason)) in self.skipped.iter().enumerate() {
            let _ = write!(told, "{}{}:{reason}", if i == 0 { "skipped=" } else { "," }, pool.server.name);
        }
        if !self.skipped.is_empty() {
            told.push(' ');
        }
        let names =
            |judged: &[Judged]| judged.iter().map(|judged| judged.server.as_str()).collect::<Vec<_>>().join(",");
        let candidates = &planned.candidates[..planned.candidates.len().min(MOST_CANDIDATES)];
        let _ = write!(told, "attempts={} candidates={}", self.attempts, names(candidates));
        let _ = write!(told, " algorithm={} revision={} table={}", planned.algorithm, planned.revision, planned.digest);
        told
    }

    /// The server of `pool` is asked; returns how many were, with this.
    pub(crate) fn asks(&mut self, pool: Rc<Pool>) -> u32 {
        self.attempts += 1;
        self.server = Some(pool);
        self.attempts
    }

    /// A server is passed over, for it has no place.
    pub(crate) fn finds_full(&mut self, pool: &Rc<Pool>) {
        self.skipped.push((pool.clone(), "full"));
    }

    /// All servers were full, and one was waited for.
    pub(crate) fn waited(&mut self, within: Duration) {
        self.phases.queue = Some(micros(within));
    }

    /// The server that was asked is passed over for the next.
    pub(crate) fn skips(&mut self, reason: &'static str) {
        self.phases.connect = None;
        self.skipped.extend(self.server.take().map(|pool| (pool, reason)));
    }

    /// A connection was made for this request.
    pub(crate) fn connected(&mut self, within: Duration) {
        self.phases.connect = Some(micros(within));
    }

    /// The server's response is here; how long that took from the request's first byte.
    pub(crate) fn responds(&mut self, status: StatusCode) -> Duration {
        let within = self.began.elapsed();
        self.status = Some(status);
        self.phases.first_byte = Some(micros(within));
        within
    }

    /// The client has the whole response; how long that took from the request's first byte.
    pub(crate) fn completes(&mut self) -> Duration {
        self.end = End::Complete;
        self.takes_time()
    }

    /// The response broke off.
    pub(crate) fn breaks(&mut self, failure: Failure) {
        self.end = if failure.is_the_servers() { End::ServerBroke } else { End::ClientGone };
    }

    /// The dispatcher answers itself.
    pub(crate) fn refuses(&mut self, refusal: Refusal) {
        self.end = End::Refused(refusal.name());
        self.status = Some(refusal.status());
        let bodiless = self.head.is_some_and(|head| head.method == Method::HEAD);
        self.sent = if bodiless { 0 } else { refusal.text().len() as u64 };
    }

    fn takes_time(&mut self) -> Duration {
        let total = self.began.elapsed();
        self.phases.total = Some(micros(total));
        total
    }
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        let worker = self.client.worker();
        if !worker.logs() {
            return;
        }
        if self.phases.total.is_none() {
            self.takes_time();
        }
        let skipped: SmallVec<[Skipped<'_>; 2]> =
            self.skipped.iter().map(|&(ref pool, reason)| Skipped { server: &pool.server.name, reason }).collect();
        let field = |name| self.head.and_then(|head| head.fields.get(name));
        let told = self.head.filter(|_| self.client.peer().trusted);
        let origin = told.map(|head| self.client.origin(&head.fields).to_string());
        worker.log(&Record {
            client: origin.as_deref().unwrap_or(&self.client.peer().address),
            time: worker.clock().date_of(self.began),
            request: self.head.map(|head| RequestLine {
                method: head.method.as_str().as_bytes(),
                target: head.target(),
                version: head.version.name(),
            }),
            status: self.status.map(|status| status.as_u16()),
            sent: self.sent,
            received: self.received,
            referer: field(Name::Referer),
            user_agent: field(Name::UserAgent),
            host: self.head.and_then(RequestHead::host),
            id: Some(self.id.as_bytes()),
            server: self.server.as_ref().map(|pool| &pool.server.name),
            skipped: &skipped,
            attempts: self.attempts,
            phases: self.phases,
            end: self.end,
            tls: self.client.tls().map(TlsVersion::name),
            trace: self.trace,
        });
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

//! One life of an in-process VM: its memory, its disk, its egress, its counters, and how it answers a request.

use super::{
    OriginSettings,
    condition::{Part, last_modified, part},
    egress::TokenBucket,
    storage::{Access, Storage},
};
use crate::{Catalogue, Object, ObjectId, Reading};
use bytes::Bytes as Body;
use futures_util::stream::{self, BoxStream, StreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::{Either, Empty, StreamBody};
use std::{
    convert::Infallible,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::time::Instant;
use vibra_model::{Bytes, BytesPerSec, Resources};

/// A body is handed to the egress in pieces of at most this many bytes, so that connections take turns.
const CHUNK: u64 = 16 * 1024;

type BodyStream = StreamBody<BoxStream<'static, Result<Frame<Body>, Infallible>>>;
pub(super) type OriginBody = Either<BodyStream, Empty<Body>>;

/// What is counted since the start.
#[derive(Default)]
struct Counters {
    egress: AtomicU64,
    requests: AtomicU64,
    in_flight: AtomicU64,
    service_micros: AtomicU64,
    drops: AtomicU64,
}

/// The inside of a VM that runs.
pub(super) struct Origin {
    catalogue: Arc<Catalogue>,
    overhead: Bytes,
    egress: TokenBucket,
    storage: Mutex<Storage>,
    counters: Counters,
    life: u64,
}

impl Origin {
    pub(super) fn new(catalogue: Arc<Catalogue>, settings: &OriginSettings, has: &Resources, life: u64) -> Self {
        // Without an allocation of memory everything fits.
        let memory = has.memory.unwrap_or(Bytes(u64::MAX));
        let capacity = memory.saturating_sub(settings.overhead);
        Origin {
            catalogue,
            overhead: settings.overhead,
            egress: TokenBucket::new(has.bandwidth),
            storage: Mutex::new(Storage::new(capacity, settings.disk, settings.working_set_window)),
            counters: Counters::default(),
            life,
        }
    }

    pub(super) fn set_bandwidth(&self, rate: BytesPerSec) {
        self.egress.set_rate(rate);
    }

    pub(super) fn set_memory(&self, memory: Bytes) {
        self.storage().set_capacity(memory.saturating_sub(self.overhead));
    }

    fn storage(&self) -> MutexGuard<'_, Storage> {
        // Every method of Storage leaves it sound, even one that a panic cut short.
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reading(&self) -> Reading {
        let (used, blocks, working_set) = {
            let mut storage = self.storage();
            (storage.used(), storage.blocks(), storage.working_set(Instant::now()))
        };
        let count = |counter: &AtomicU64| Some(counter.load(Relaxed));
        Reading {
            life: self.life,
            egress: count(&self.counters.egress).map(Bytes),
            cpu_time: None,
            memory_in_use: self.overhead.checked_add(used),
            working_set: Some(working_set),
            requests: count(&self.counters.requests),
            timed: count(&self.counters.requests),
            in_flight: count(&self.counters.in_flight),
            service_time: count(&self.counters.service_micros).map(Duration::from_micros),
            drops: count(&self.counters.drops),
            disk_blocks: Some(blocks),
            // It has no swap.
            swapped: None,
        }
    }

    /// Answers a request. The answer's head has passed the shaper; its body passes it as it is polled.
    pub(super) async fn answer<B>(self: Arc<Self>, request: Request<B>) -> Result<Response<OriginBody>, Infallible> {
        let mut service = Service::begin(self.clone());
        let (response, body) = self.prepare(&request).await;
        let head = head_len(&response);
        let length = body.as_ref().map_or(0, |body| body.range.end - body.range.start);
        self.counters.egress.fetch_add(head + length, Relaxed);
        self.egress.take(head).await;
        let body = match body {
            Some(body) => Either::Left(stream_of(body, service)),
            None => {
                service.complete();
                Either::Right(Empty::new())
            }
        };
        Ok(response.map(|()| body))
    }

    /// The answer's head, and what of which object follows it; waits for the disk.
    async fn prepare<B>(self: &Arc<Self>, request: &Request<B>) -> (Response<()>, Option<BodyPart>) {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return (response, None);
        }
        let Some((id, object)) = self.catalogue.find(request.uri().path()) else {
            return (plain(StatusCode::NOT_FOUND), None);
        };
        let part = part(request.headers(), object);
        let response = head(object, &part);
        let range = match part {
            _ if request.method() == Method::HEAD => return (response, None),
            Part::NotModified | Part::Unsatisfiable => return (response, None),
            Part::Whole => 0..object.size.0,
            Part::Range(range) => range,
        };
        let now = Instant::now();
        let access = self.storage().access(id, object.size, now);
        match access {
            Access::Now => {}
            Access::At(end) => tokio::time::sleep_until(end).await,
            Access::Refused => {
                self.counters.drops.fetch_add(1, Relaxed);
                return (plain(StatusCode::SERVICE_UNAVAILABLE), None);
            }
        }
        let body = BodyPart { origin: self.clone(), object: id, range };
        (response, Some(body).filter(|body| !body.range.is_empty()))
    }

    fn object(&self, id: ObjectId) -> &Object {
        self.catalogue.object(id)
    }
}

/// What of an object is still to be sent.
struct BodyPart {
    origin: Arc<Origin>,
    object: ObjectId,
    range: Range<u64>,
}

impl BodyPart {
    /// The next piece, once it has passed the shaper.
    async fn next(&mut self) -> Body {
        let end = self.range.end.min(self.range.start + CHUNK);
        let chunk = self.origin.object(self.object).chunk(self.range.start..end);
        self.origin.egress.take(chunk.len() as u64).await;
        self.range.start += chunk.len() as u64;
        chunk
    }
}

fn stream_of(body: BodyPart, service: Service) -> BodyStream {
    let pieces = stream::unfold((body, service), |(mut body, mut service)| async move {
        if body.range.is_empty() {
            return None;
        }
        let chunk = body.next().await;
        if body.range.is_empty() {
            service.complete();
        }
        Some((Ok(Frame::data(chunk)), (body, service)))
    });
    StreamBody::new(pieces.boxed())
}

/// A request in service: it is in flight until this is dropped, and counts as completed only if it was.
struct Service {
    origin: Arc<Origin>,
    since: Instant,
}

impl Service {
    fn begin(origin: Arc<Origin>) -> Self {
        origin.counters.in_flight.fetch_add(1, Relaxed);
        Service { origin, since: Instant::now() }
    }

    fn complete(&mut self) {
        let micros = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.origin.counters.service_micros.fetch_add(micros, Relaxed);
        self.origin.counters.requests.fetch_add(1, Relaxed);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.origin.counters.in_flight.fetch_sub(1, Relaxed);
    }
}

fn plain(status: StatusCode) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
    response
}

fn head(object: &Object, part: &Part) -> Response<()> {
    let size = object.size.0;
    let (status, length) = match part {
        Part::Whole => (StatusCode::OK, Some(size)),
        Part::Range(range) => (StatusCode::PARTIAL_CONTENT, Some(range.end - range.start)),
        Part::NotModified => (StatusCode::NOT_MODIFIED, None),
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, Some(0)),
    };
    let mut response = Response::builder()
        .status(status)
        .header(header::ETAG, object.etag())
        .header(header::LAST_MODIFIED, httpdate::fmt_http_date(last_modified()))
        .header(header::ACCEPT_RANGES, "bytes");
    if let Some(length) = length {
        response = response.header(header::CONTENT_LENGTH, length);
    }
    response = match part {
        Part::Range(range) => {
            response.header(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", range.start, range.end - 1))
        }
        Part::Unsatisfiable => response.header(header::CONTENT_RANGE, format!("bytes */{size}")),
        Part::Whole | Part::NotModified => response,
    };
    response.body(()).expect("these headers are valid")
}

/// The bytes of an answer's head on the wire, but for the Date that the server adds: they use egress too.
fn head_len(response: &Response<()>) -> u64 {
    const STATUS_LINE: usize = "HTTP/1.1 200 OK\r\n".len();
    const SEPARATORS: usize = ": \r\n".len();
    let fields = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS);
    (STATUS_LINE + fields.sum::<usize>() + "\r\n".len()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    const MEGABYTE: u64 = 1_000_000;

    fn origin(memory: u64) -> Arc<Origin> {
        let catalogue = Catalogue::new([("/a", Bytes(MEGABYTE)), ("/b", Bytes(1_000)), ("/empty", Bytes(0))]).unwrap();
        let has = Resources { bandwidth: Some(BytesPerSec(MEGABYTE)), memory: Some(Bytes(memory)), cpu: None };
        Arc::new(Origin::new(Arc::new(catalogue), &OriginSettings::default(), &has, 1))
    }

    async fn collected(body: OriginBody) -> Body {
        body.collect().await.unwrap().to_bytes()
    }

    fn get(path: &str) -> Request<()> {
        Request::get(path).body(()).unwrap()
    }

    async fn asked(origin: &Arc<Origin>, request: Request<()>) -> (StatusCode, Body) {
        let Ok(response) = origin.clone().answer(request).await;
        let status = response.status();
        (status, collected(response.into_body()).await)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_passes_the_shaper_and_is_counted_before_it() {
        let origin = origin(100 * MEGABYTE);
        let start = Instant::now();
        let Ok(response) = origin.clone().answer(get("/a")).await;
        let enqueued = origin.reading();
        assert_eq!((enqueued.in_flight, enqueued.requests), (Some(1), Some(0)));
        assert!(enqueued.egress.unwrap().0 > MEGABYTE);
        let waited_for_disk = start.elapsed();
        assert_eq!(collected(response.into_body()).await.len() as u64, MEGABYTE);
        let took = (start.elapsed() - waited_for_disk).as_secs_f64();
        assert!((0.95..1.05).contains(&took), "{took}");
        let done = origin.reading();
        assert_eq!((done.in_flight, done.requests, done.egress), (Some(0), Some(1), enqueued.egress));
        assert!(done.service_time.unwrap() >= Duration::from_secs(1));
        assert_eq!(done.disk_blocks, Some(1954));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_keeps_what_was_read() {
        let origin = origin(100 * MEGABYTE);
        asked(&origin, get("/b")).await;
        asked(&origin, get("/b")).await;
        let reading = origin.reading();
        assert_eq!((reading.disk_blocks, reading.requests), (Some(2), Some(2)));
        assert_eq!(reading.working_set, Some(Bytes(1_000)));
        assert_eq!(reading.memory_in_use, Some(Bytes(origin.overhead.0 + 1_000)));
        origin.set_memory(Bytes::ZERO);
        asked(&origin, get("/b")).await;
        assert_eq!(origin.reading().disk_blocks, Some(4));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_leaves_is_in_flight_no_more_and_not_completed() {
        let origin = origin(100 * MEGABYTE);
        let Ok(response) = origin.clone().answer(get("/a")).await;
        let mut body = response.into_body();
        assert!(body.frame().await.is_some());
        drop(body);
        let reading = origin.reading();
        assert_eq!((reading.in_flight, reading.requests), (Some(0), Some(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn statuses() {
        let origin = origin(100 * MEGABYTE);
        let of = |request| asked(&origin, request);
        let with = |name, value: &str| Request::get("/b").header(name, value).body(()).unwrap();
        assert_eq!(of(get("/b")).await.1.len(), 1_000);
        assert_eq!(of(get("/empty")).await, (StatusCode::OK, Body::new()));
        assert_eq!(of(get("/none")).await.0, StatusCode::NOT_FOUND);
        assert_eq!(of(Request::post("/b").body(()).unwrap()).await.0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(of(Request::head("/b").body(()).unwrap()).await, (StatusCode::OK, Body::new()));
        let (status, body) = of(with(header::RANGE, "bytes=10-19")).await;
        assert_eq!((status, body), (StatusCode::PARTIAL_CONTENT, origin.catalogue.find("/b").unwrap().1.chunk(10..20)));
        assert_eq!(of(with(header::RANGE, "bytes=1000-")).await.0, StatusCode::RANGE_NOT_SATISFIABLE);
        let unchanged = of(with(header::IF_MODIFIED_SINCE, "Tue, 30 Jun 1998 18:10:00 GMT")).await;
        assert_eq!(unchanged, (StatusCode::NOT_MODIFIED, Body::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_disk_refuses_is_a_drop() {
        let origin = origin(0);
        // 1 MB takes 25 ms: 1,300 of them keep the disk busy for more than the 30 s that a read may wait.
        for other in 0..1_300 {
            origin.storage().access(ObjectId(9_999 + other), Bytes(MEGABYTE), Instant::now());
        }
        assert_eq!(asked(&origin, get("/b")).await.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(origin.reading().drops, Some(1));
    }
}

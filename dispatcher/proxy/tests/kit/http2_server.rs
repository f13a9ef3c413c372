//! Servers of HTTP/2: one that behaves, by h2, and one that sends what it is told, frame by frame.

use super::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PREFACE, RST_STREAM, SETTINGS, block, frame, read_frame,
};
use super::{Connection, Server};
use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use vibra_proxy::{Config, Handle, Protocol, Source};

/// A request, and where its response goes.
pub struct Exchange {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
}

impl Exchange {
    /// The request's body and trailers.
    pub async fn body(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        read(self.request.body_mut()).await
    }

    /// Begins a response with that status and those fields; with its body, unless it is `empty`.
    pub fn begin(&mut self, status: u16, fields: &[(&'static str, &str)], empty: bool) -> SendStream<Bytes> {
        self.respond.send_response(response(status, fields), empty).unwrap()
    }

    pub fn answer(&mut self, body: impl Into<Bytes>) {
        // Whoever has reset the stream does not hear it.
        let _ = self.begin(200, &[], false).send_data(body.into(), true);
    }

    pub fn path(&self) -> &str {
        self.request.uri().path()
    }
}

pub fn response(status: u16, fields: &[(&'static str, &str)]) -> Response<()> {
    let response = Response::builder().status(status);
    fields.iter().fold(response, |response, (name, value)| response.header(*name, *value)).body(()).unwrap()
}

/// A body and its trailers.
pub async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?))
}

type Answer = Arc<dyn Fn(Exchange) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A server by h2 that answers each request in a task of its own. It ends with all its connections when dropped.
pub struct Http2Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Request<()>>>>,
    running: Option<(oneshot::Sender<()>, thread::JoinHandle<()>)>,
}

impl Http2Server {
    pub fn run<F: Future<Output = ()> + Send + 'static>(
        answer: impl Fn(Exchange) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::with(Builder::new(), None, answer)
    }

    /// With settings of its own, and under TLS if there is an acceptor.
    pub fn with<F: Future<Output = ()> + Send + 'static>(
        builder: Builder,
        tls: Option<TlsAcceptor>,
        answer: impl Fn(Exchange) -> F + Send + Sync + 'static,
    ) -> Self {
        let answer: Answer = Arc::new(move |exchange| Box::pin(answer(exchange)));
        let (connections, open, requests) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<Mutex<Vec<_>>>)>::default();
        let (counted, opened, log) = (connections.clone(), open.clone(), requests.clone());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let serve = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, SeqCst);
                opened.fetch_add(1, SeqCst);
                let (builder, tls) = (builder.clone(), tls.clone());
                let (answer, opened, log) = (answer.clone(), opened.clone(), log.clone());
                tokio::spawn(async move {
                    // How a connection ends is for the dispatcher to judge.
                    let _ = connection(stream, builder, tls, &answer, &log).await;
                    opened.fetch_sub(1, SeqCst);
                });
            }
        };
        let running = thread::spawn(move || {
            super::block_on(async {
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Http2Server { address, connections, open, requests, running: Some((stop, running)) }
    }

    /// A server that answers with the path.
    pub fn echoing() -> Self {
        Self::run(|mut exchange| async move {
            let path = exchange.path().to_owned();
            exchange.answer(path);
        })
    }

    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// How many connections there are.
    pub fn open(&self) -> usize {
        self.open.load(SeqCst)
    }

    /// The heads of every request so far.
    pub fn requests(&self) -> Vec<Request<()>> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Http2Server {
    fn drop(&mut self) {
        let (stop, running) = self.running.take().unwrap();
        drop(stop);
        let _ = running.join();
    }
}

async fn connection(
    stream: TcpStream,
    builder: Builder,
    tls: Option<TlsAcceptor>,
    answer: &Answer,
    log: &Mutex<Vec<Request<()>>>,
) -> Result<(), Box<dyn std::error::Error>> {
    match tls {
        None => serve(builder.handshake(stream).await?, answer, log).await,
        Some(tls) => serve(builder.handshake(tls.accept(stream).await?).await?, answer, log).await,
    }
}

async fn serve<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut connection: h2::server::Connection<T, Bytes>,
    answer: &Answer,
    log: &Mutex<Vec<Request<()>>>,
) -> Result<(), Box<dyn std::error::Error>> {
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted?;
        let (parts, body) = request.into_parts();
        log.lock().unwrap().push(Request::from_parts(parts.clone(), ()));
        tokio::spawn(answer(Exchange { request: Request::from_parts(parts, body), respond }));
    }
    Ok(())
}

/// A server whose every connection runs a script of frames, after settings: identifiers and values.
pub fn scripted(
    settings: &'static [(u16, u32)],
    script: impl Fn(&mut Frames<'_>) -> io::Result<()> + Send + Sync + 'static,
) -> Server {
    Server::run(move |connection| {
        let mut preface = [0; 24];
        connection.read_exact(&mut preface)?;
        assert_eq!(preface, PREFACE);
        let mut frames = Frames { connection };
        frames.settings(settings)?;
        frames.send(SETTINGS, ACK, 0, &[])?;
        script(&mut frames)
    })
}

/// A connection of a scripted server.
pub struct Frames<'a> {
    pub connection: &'a mut Connection,
}

impl Frames<'_> {
    /// Which connection this is, from 0.
    pub fn number(&self) -> usize {
        self.connection.number
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.connection.send(frame(kind, flags, stream, payload))
    }

    /// The next frame of that kind; others are read over.
    pub fn next(&mut self, kind: u8) -> io::Result<Frame> {
        self.next_of(&[kind])
    }

    /// The next frame of one of these kinds.
    pub fn next_of(&mut self, kinds: &[u8]) -> io::Result<Frame> {
        loop {
            let frame = read_frame(&mut self.connection.reader)?;
            if kinds.contains(&frame.kind) {
                return Ok(frame);
            }
        }
    }

    /// The stream of the next request.
    pub fn request(&mut self) -> io::Result<u32> {
        Ok(self.next(HEADERS)?.stream)
    }

    pub fn settings(&mut self, settings: &[(u16, u32)]) -> io::Result<()> {
        let pair = |&(name, value): &(u16, u32)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        self.send(SETTINGS, 0, 0, &settings.iter().flat_map(pair).collect::<Vec<_>>())
    }

    pub fn head(&mut self, stream: u32, fields: &[(&str, &str)], flags: u8) -> io::Result<()> {
        self.send(HEADERS, END_HEADERS | flags, stream, &block(fields))
    }

    /// A whole response.
    pub fn answer(&mut self, stream: u32, body: &str) -> io::Result<()> {
        self.head(stream, &[(":status", "200")], 0)?;
        self.send(DATA, END_STREAM, stream, body.as_bytes())
    }

    pub fn reset(&mut self, stream: u32, code: u32) -> io::Result<()> {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    /// Says that no stream after `last` was looked at.
    pub fn goes_away(&mut self, last: u32, code: u32) -> io::Result<()> {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
    }

    pub fn wait_for_end(&mut self) -> io::Result<()> {
        self.connection.wait_for_end()
    }
}

/// A dispatcher in front of servers that speak HTTP/2: round-robin, so that each has its turn.
pub fn in_front_of(endpoints: &[String], change: impl FnOnce(&mut Config)) -> Handle {
    super::dispatcher(endpoints, |config| {
        let Source::Static(servers) = &mut config.source else { panic!("a fixed list") };
        servers.iter_mut().for_each(|server| server.manner.protocol = Protocol::Http2);
        change(config);
    })
}

pub fn before(server: &Http2Server) -> Handle {
    in_front_of(&[server.endpoint()], |_| {})
}

/// The first server speaks HTTP/2, the second HTTP/1.1.
pub fn mixed(first: &Server, second: &Server, change: impl FnOnce(&mut Config)) -> Handle {
    super::dispatcher(&[first.endpoint(), second.endpoint()], |config| {
        let Source::Static(servers) = &mut config.source else { panic!("a fixed list") };
        servers[0].manner.protocol = Protocol::Http2;
        change(config);
    })
}

/// How many requests to `server` failed in that way.
pub fn failures(dispatcher: &Handle, server: &str, kind: &str) -> u64 {
    dispatcher.status().server(server).unwrap().failures[kind]
}

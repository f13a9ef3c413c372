//! Scripted servers, raw clients and bounded waits. All on real sockets with ephemeral ports.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod authority;
pub mod http2;
pub mod http2_server;
pub mod refusals;
pub mod secure;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use vibra_proxy::{CertificateFiles, Config, Dispatcher, Handle, Health, Manner, Source, StaticServer, Timeouts};
use vibra_routing::Algorithm;

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for a state; panics with `what` if it never comes.
pub fn wait_for(what: &str, mut state: impl FnMut() -> bool) {
    let began = Instant::now();
    while !state() {
        assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A server whose every connection runs a script. It stops listening when dropped.
pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<Mutex<Vec<Message>>>,
    stop: Arc<AtomicBool>,
    listening: Option<thread::JoinHandle<()>>,
}

/// One accepted connection of a [`Server`].
pub struct Connection {
    pub stream: TcpStream,
    pub reader: BufReader<TcpStream>,
    /// Which connection this is, from 0.
    pub number: usize,
    requests: Arc<Mutex<Vec<Message>>>,
}

/// A request or response: its head's lines and its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// The values of a header, joined.
    pub fn header(&self, name: &str) -> Option<String> {
        let values: Vec<_> =
            self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone()).collect();
        (!values.is_empty()).then(|| values.join(" | "))
    }

    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub fn path(&self) -> &str {
        self.start.split(' ').nth(1).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Server {
    /// Runs `script` for each connection, in a thread of its own.
    pub fn run(script: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self::listen(listener, script)
    }

    /// The same, on a listener that is there already.
    pub fn listen(
        listener: TcpListener,
        script: impl Fn(&mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (connections, requests, stop) = <(Arc<AtomicUsize>, Arc<Mutex<Vec<Message>>>, Arc<AtomicBool>)>::default();
        let script = Arc::new(script);
        let (counter, log, stopped) = (connections.clone(), requests.clone(), stop.clone());
        let listening = thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let _ = (stream.set_nodelay(true), stream.set_read_timeout(Some(PATIENCE)));
                let (number, script, requests) = (counter.fetch_add(1, SeqCst), script.clone(), log.clone());
                let reader = BufReader::new(stream.try_clone().unwrap());
                thread::spawn(move || script(&mut Connection { stream, reader, number, requests }));
            }
        });
        Server { address, connections, requests, stop, listening: Some(listening) }
    }

    /// A well-behaved server: what `answer` returns is the response to each request, with its length.
    pub fn well(answer: impl Fn(&Message) -> String + Send + Sync + 'static) -> Self {
        Self::run(move |connection| connection.answer_all(&answer))
    }

    /// A well-behaved server that answers with its own name.
    pub fn named(name: &'static str) -> Self {
        Self::well(move |_| name.to_owned())
    }

    /// A server that takes a request's head on each connection, and says nothing.
    pub fn silent() -> Self {
        Self::run(|connection| {
            connection.head()?;
            connection.wait_for_end()
        })
    }

    /// The same, and where it tells that a connection has ended.
    pub fn silent_until_end() -> (Self, mpsc::Receiver<()>) {
        let (go, gone) = mpsc::channel();
        let server = Self::run(move |connection| {
            connection.head()?;
            connection.wait_for_end()?;
            go.send(()).map_err(io::Error::other)
        });
        (server, gone)
    }

    /// A server that answers one request on each connection with `done`, once it is told to go on.
    pub fn held() -> (Self, mpsc::Sender<()>) {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Mutex::new(gone);
        let server = Self::run(move |connection| {
            connection.request()?;
            gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            connection.answer("done")
        });
        (server, go)
    }

    /// A server whose responses to `HEAD /a`, `/b` and `/c` have no body, each for another reason; all others are `last`.
    pub fn bodiless(last: &'static str) -> Self {
        Self::run(move |connection| {
            loop {
                let request = connection.request()?;
                connection.send(match request.start.as_str() {
                    "HEAD /a HTTP/1.1" => "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
                    "GET /b HTTP/1.1" => "HTTP/1.1 304 Not Modified\r\nETag: \"e\"\r\n\r\n",
                    "GET /c HTTP/1.1" => "HTTP/1.1 204 No Content\r\n\r\n",
                    _ => last,
                })?;
            }
        })
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Every request so far.
    pub fn requests(&self) -> Vec<Message> {
        self.requests.lock().unwrap().clone()
    }

    pub fn endpoint(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.listening.take().map(thread::JoinHandle::join);
    }
}

impl Connection {
    /// The next request; an error once the connection ends.
    pub fn request(&mut self) -> io::Result<Message> {
        let message = read_message(&mut self.reader, Kind::Request)?;
        self.requests.lock().unwrap().push(message.clone());
        Ok(message)
    }

    /// The next request's head; its body is left to be read.
    pub fn head(&mut self) -> io::Result<Message> {
        let message = read_head(&mut self.reader)?;
        self.requests.lock().unwrap().push(message.clone());
        Ok(message)
    }

    pub fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    pub fn answer(&mut self, body: &str) -> io::Result<()> {
        self.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    }

    pub fn answer_all(&mut self, answer: impl Fn(&Message) -> String) -> io::Result<()> {
        loop {
            let request = self.request()?;
            self.answer(&answer(&request))?;
        }
    }

    /// Waits until the other side ends the connection.
    pub fn wait_for_end(&mut self) -> io::Result<()> {
        io::copy(&mut self.reader, &mut io::sink()).map(drop)
    }
}

/// A client that sends what it is told, byte for byte.
pub struct Client {
    pub stream: TcpStream,
    pub reader: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// On a connection that is there already.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    pub fn of(dispatcher: &Handle) -> Self {
        Self::connect(dispatcher.addresses()[0])
    }

    /// With an address of its own.
    pub fn at(address: [u8; 4], dispatcher: &Handle) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
        socket.connect(&dispatcher.addresses()[0].into()).unwrap();
        Self::over(socket.into())
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next response; an error where it is not whole.
    pub fn response(&mut self) -> io::Result<Message> {
        read_message(&mut self.reader, Kind::Response)
    }

    /// The next response's head; its body is left to be read.
    pub fn head(&mut self) -> io::Result<Message> {
        read_head(&mut self.reader)
    }

    pub fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)
    }

    pub fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        self.response().unwrap()
    }

    /// Everything up to the end of the connection, and how that came: an error is a reset.
    pub fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut bytes = Vec::new();
        let end = self.reader.read_to_end(&mut bytes).map(drop);
        (bytes, end)
    }

    /// Whether the other side has ended the connection, in whatever way, with nothing more to read.
    pub fn is_ended(&mut self) -> bool {
        let (bytes, end) = self.rest();
        let timed_out = end.is_err_and(|e| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
        bytes.is_empty() && !timed_out
    }

    pub fn close(self) {
        self.stream.shutdown(Shutdown::Both).unwrap();
    }
}

/// One request on a connection of its own.
pub fn get(dispatcher: &Handle, path: &str) -> Message {
    Client::of(dispatcher).get(path)
}

/// The next response; an error where it is not whole.
pub fn read_response(reader: &mut impl BufRead) -> io::Result<Message> {
    read_message(reader, Kind::Response)
}

/// The next request; an error once there is none.
pub fn read_request(reader: &mut impl BufRead) -> io::Result<Message> {
    read_message(reader, Kind::Request)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    Response,
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<Message> {
    Ok(Message { start: read_line(reader)?, headers: read_fields(reader)?, ..Message::default() })
}

/// Fields up to an empty line.
fn read_fields(reader: &mut impl BufRead) -> io::Result<Vec<(String, String)>> {
    let mut fields = Vec::new();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// Reads a message with its body, as its own head frames it.
fn read_message(reader: &mut impl BufRead, kind: Kind) -> io::Result<Message> {
    let mut message = read_head(reader)?;
    if message.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).map_err(io::Error::other)?;
            if size == 0 {
                message.trailers = read_fields(reader)?;
                return Ok(message);
            }
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk)?;
            message.body.extend(chunk);
            read_line(reader)?;
        }
    }
    match message.header("content-length") {
        Some(length) => {
            message.body.resize(length.parse().map_err(io::Error::other)?, 0);
            reader.read_exact(&mut message.body)?;
        }
        None if kind == Kind::Request || [204, 304].contains(&message.status()) => {}
        None => drop(reader.read_to_end(&mut message.body)?),
    }
    Ok(message)
}

/// Fast time-outs, one thread, no checks: a test switches on what it is about.
pub fn config(source: Source) -> Config {
    Config {
        threads: 1,
        health: Health { active: None, slow_start: Duration::ZERO, ..Health::default() },
        timeouts: Timeouts { tick: Duration::from_millis(5), ..Timeouts::default() },
        ..Config::new("127.0.0.1:0".parse().unwrap(), source)
    }
}

/// A fixed list of servers `s1`, `s2`, ….
pub fn list(endpoints: &[String]) -> Source {
    let server = |(address, n): (&String, usize)| StaticServer {
        name: format!("s{n}").parse().unwrap(),
        address: address.clone(),
        weight: 1,
        manner: Manner::default(),
    };
    Source::Static(endpoints.iter().zip(1..).map(server).collect())
}

/// A dispatcher in front of `endpoints`: round-robin, so that each server has its turn.
pub fn dispatcher(endpoints: &[String], change: impl FnOnce(&mut Config)) -> Handle {
    let mut config = config(list(endpoints));
    config.settings.algorithm = Algorithm::RoundRobin;
    change(&mut config);
    Dispatcher::start(config).unwrap()
}

/// A dispatcher in front of one server.
pub fn before(server: &Server) -> Handle {
    dispatcher(&[server.endpoint()], |_| {})
}

/// The sum of the series of a metric that begin so; the dispatcher has an admin address.
pub fn metric(dispatcher: &Handle, name: &str) -> u64 {
    let mut admin = Client::connect(dispatcher.admin().unwrap());
    let text = admin.get("/metrics");
    let value = |line: &str| -> Option<u64> { line.strip_prefix(name)?.rsplit(' ').next()?.parse().ok() };
    let values: Vec<_> = text.text().lines().filter_map(value).collect();
    assert!(!values.is_empty(), "no {name} in {}", text.text());
    values.iter().sum()
}

/// Gives a dispatcher an admin address.
pub fn with_admin(config: &mut Config) {
    config.admin = Some("127.0.0.1:0".parse().unwrap());
}

/// An address where nothing listens.
pub fn nowhere() -> String {
    // The port stays taken for as long as the socket is open, and connections to it are refused.
    static HELD: Mutex<Vec<socket2::Socket>> = Mutex::new(Vec::new());
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    HELD.lock().unwrap().push(socket);
    address.to_string()
}

/// Runs a future on a runtime of this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

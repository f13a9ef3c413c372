//! Servers that do as a test says.

use super::{PATIENCE, fixed_address};
use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

/// What a server does with a request for a path: writes to the connection what it likes. An error ends the connection.
type Script = dyn Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync;

/// A server on loopback; it ends when this is dropped, at once and with all its connections.
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    script: Box<Script>,
    over: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
    served: Mutex<Vec<String>>,
}

impl Origin {
    /// A server at an address that it can be started at again.
    pub(crate) fn start(script: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static) -> Origin {
        Self::start_at(fixed_address(), script)
    }

    /// A server that answers everything with its name.
    pub(crate) fn named(name: &'static str) -> Origin {
        Self::named_at(fixed_address(), name)
    }

    pub(crate) fn named_at(address: SocketAddr, name: &'static str) -> Origin {
        Self::start_at(address, move |_, stream| answer(stream, name))
    }

    fn start_at(
        address: SocketAddr,
        script: impl Fn(&str, &mut TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Origin {
        let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        let shared = Arc::new(Shared {
            script: Box::new(script),
            over: AtomicBool::new(false),
            connections: Mutex::default(),
            served: Mutex::default(),
        });
        let accepting = shared.clone();
        let acceptor = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.over.load(SeqCst) {
                    break;
                }
                let shared = accepting.clone();
                shared.connections.lock().unwrap().extend(stream.try_clone());
                // The connection's end, whoever brings it about, is how it is to end.
                thread::spawn(move || shared.converse(stream).ok());
            }
        });
        Origin { address, shared, acceptor: Some(acceptor) }
    }

    /// The paths that were asked for so far.
    pub(crate) fn served(&self) -> Vec<String> {
        self.shared.served.lock().unwrap().clone()
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        // Wakes the acceptor.
        let _ = TcpStream::connect_timeout(&self.address, PATIENCE);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(path) = read_request(&mut reader)? {
            self.served.lock().unwrap().push(path.clone());
            if let Err(error) = (self.script)(&path, &mut stream) {
                stream.shutdown(Shutdown::Both)?;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The path of the next request, which has no body; `None` at the connection's end.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            return Ok(first.split(' ').nth(1).map(str::to_owned));
        }
    }
}

/// A whole answer.
pub(crate) fn answer(stream: &mut TcpStream, body: &str) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// Ends a script, and its connection.
pub(crate) fn hang_up() -> io::Result<()> {
    Err(io::ErrorKind::ConnectionAborted.into())
}

/// A gate that is opened once, for a script to wait at.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    /// Waits until it is open.
    pub(crate) fn pass(&self) -> io::Result<()> {
        let (open, news) = &*self.0;
        let (_open, waited) = news.wait_timeout_while(open.lock().unwrap(), PATIENCE, |open| !*open).unwrap();
        if waited.timed_out() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

//! Scripted servers and small traces.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use vibra_replay::{Mode, Options, Progress, Spread, Summary, replay};
use vibra_trace::{Method, Objects, Origin, Request, Trace};

/// What a server does after an answer.
pub(crate) enum Then {
    KeepOpen,
    Close,
}

/// A server on a port of its own that does with each request what its script says; a thread a connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stopped: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
    acceptor: Option<JoinHandle<()>>,
}

impl Server {
    /// The script gets the connection, the head of the request, and which request of the connection it is, from 0.
    pub(crate) fn start(
        script: impl Fn(&mut TcpStream, &str, usize) -> io::Result<Then> + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicUsize::new(0));
        let (stop, count, script) = (stopped.clone(), connections.clone(), Arc::new(script));
        let accept = move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(SeqCst) {
                    return;
                }
                count.fetch_add(1, SeqCst);
                let script = script.clone();
                // Ends when the client closes the connection, which is when the replay is over.
                thread::spawn(move || serve(stream, &*script));
            }
        };
        Server { address, stopped, connections, acceptor: Some(thread::spawn(accept)) }
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        if TcpStream::connect(self.address).is_ok()
            && let Some(acceptor) = self.acceptor.take()
        {
            acceptor.join().expect("the acceptor ends well");
        }
    }
}

fn serve(mut stream: TcpStream, script: &dyn Fn(&mut TcpStream, &str, usize) -> io::Result<Then>) {
    for number in 0.. {
        let Ok(Some(head)) = read_head(&mut stream) else { return };
        match script(&mut stream, &head, number) {
            Ok(Then::KeepOpen) => {}
            Ok(Then::Close) | Err(_) => {
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
        }
    }
}

fn read_head(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        head.push(byte[0]);
    }
    Ok(Some(String::from_utf8(head).expect("the generator writes ASCII")))
}

/// Waits until the client gives up.
pub(crate) fn stall(stream: &mut TcpStream) -> io::Result<Then> {
    io::copy(stream, &mut io::sink())?;
    Ok(Then::Close)
}

/// Answers 200 with `bytes` bytes.
pub(crate) fn answer(stream: &mut TcpStream, bytes: usize) -> io::Result<Then> {
    let mut message = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").into_bytes();
    message.resize(message.len() + bytes, b'x');
    stream.write_all(&message)?;
    Ok(Then::KeepOpen)
}

/// Answers exactly this.
pub(crate) fn answer_raw(stream: &mut TcpStream, raw: &str, then: Then) -> io::Result<Then> {
    stream.write_all(raw.as_bytes())?;
    Ok(then)
}

/// A trace of GETs for these URLs, all of objects of `size` bytes and logged in the first `resolution`.
pub(crate) fn trace(urls: &[&str], size: u64, resolution: Duration) -> Trace {
    let mut objects = Objects::new();
    let mut requests = Vec::new();
    for url in urls {
        let object = objects.intern(url);
        objects.set_size(object, size);
        let bytes = size.into();
        requests.push(Request { at: Duration::ZERO, client: 0, object, bytes, method: Method::Get, status: 200 });
    }
    let origin = Origin::Synthetic { seed: 0 };
    Trace { name: "test".into(), origin, start: None, resolution, objects, requests }
}

/// Evenly spread requests; a lag that a busy machine may cause does not matter.
pub(crate) fn open(target: SocketAddr) -> Options {
    patient(target, Mode::Open { speed: 1.0, spread: Spread::Uniform })
}

pub(crate) fn closed(target: SocketAddr, concurrency: usize) -> Options {
    patient(target, Mode::Closed { concurrency })
}

fn patient(target: SocketAddr, mode: Mode) -> Options {
    Options { lag_limit: Duration::from_secs(60), ..Options::new(target, mode) }
}

/// Runs a replay that must start, and checks what holds for every one.
pub(crate) fn run(trace: &Trace, options: &Options) -> Summary {
    let mut last: Option<Progress> = None;
    let summary = replay(trace, options, |progress| {
        assert!(progress.finished <= progress.started && progress.started <= progress.planned);
        assert!(last.is_none_or(|last| last.finished <= progress.finished));
        last = Some(progress);
    });
    let summary = summary.expect("the replay takes place");
    assert_eq!(summary.requests, summary.completed + summary.errors.total() + summary.unsent);
    let last = last.expect("progress was told");
    assert_eq!(last.started, summary.requests + summary.warm_up_requests);
    assert_eq!(last.finished, last.started);
    summary
}

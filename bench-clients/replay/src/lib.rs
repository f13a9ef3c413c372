//! Replays a [trace](vibra_trace::Trace) against an HTTP server and says how long the answers took.
//!
//! The crate exists because a load generator can lie in ways that are hard to see. It holds to these rules:
//!
//! - **Response time counts from when a request was due**, not from when it was sent, and an open loop never waits for
//!   an answer or for a free connection. A server that stalls is charged for every request that was due meanwhile (no
//!   coordinated omission).
//! - **A generator that fell behind says so**: how late it sent is measured, apart from how slow the answers were, and
//!   a run with too much of it is [void](Summary::void).
//! - **Recorded times are no finer than they are**: most logs have whole seconds, and how requests are
//!   [spread](Spread) within one is declared, not guessed.
//! - **An answer must be right to count**: errors are counted [by class](Errors), and among them a body that was cut off
//!   or has not the length that the trace says. Response times are of right answers only.
//!
//! What a request of the trace becomes on the wire: GET and HEAD stay what they are. Of a GET, the logged status 304
//! makes a conditional request (`If-Modified-Since` the start of the replay), and 206 with n bytes a request for the
//! first n bytes (`Range: bytes=0-(n-1)`). Other methods, of which logs keep no body that could be sent, are skipped
//! and counted.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::time::Duration;
//! use vibra_replay::{Mode, Options, Spread, replay};
//! use vibra_trace::{Method, Objects, Origin, Request, Trace};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Two requests for one object, due in the first tenth of a second.
//! let mut objects = Objects::new();
//! let object = objects.intern("/index.html");
//! objects.set_size(object, 5);
//! let request =
//!     Request { at: Duration::ZERO, client: 1, object, bytes: 5.into(), method: Method::Get, status: 200 };
//! let trace = Trace {
//!     name: "example".into(),
//!     origin: Origin::Synthetic { seed: 0 },
//!     start: None,
//!     resolution: Duration::from_millis(100),
//!     objects,
//!     requests: vec![request; 2],
//! };
//!
//! // A server that answers two requests on one connection.
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let target = listener.local_addr()?;
//! std::thread::spawn(move || -> std::io::Result<()> {
//!     let mut client = listener.accept()?.0;
//!     for _ in 0..2 {
//!         let _request = client.read(&mut [0; 1024])?;
//!         client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")?;
//!     }
//!     Ok(())
//! });
//!
//! let options = Options::new(target, Mode::Open { speed: 1.0, spread: Spread::Uniform });
//! let summary = replay(&trace, &options, |_progress| {})?;
//! assert_eq!((summary.requests, summary.completed, summary.bytes), (2, 2, 10));
//! # Ok(())
//! # }
//! ```

mod connection;
mod error;
mod exchange;
mod message;
mod options;
mod os;
mod pacer;
mod pool;
mod progress;
mod record;
mod run;
mod summary;
mod tally;
mod worker;

pub use error::ReplayError;
pub use options::{Lengths, Mode, Options};
pub use progress::Progress;
pub use run::replay;
pub use summary::{Errors, Second, Summary};
pub use tally::{Bucket, Tally, Times};
pub use vibra_trace::Spread;

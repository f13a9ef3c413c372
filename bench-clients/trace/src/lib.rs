//! Request traces and workloads: what asks for what, when, and how large it is.
//!
//! Replay and the simulator must see the same requests, whether they come from a server's log, from a reconstruction of
//! one or from a model. So there is one form of a trace here ([`Trace`]: requests of 40 bytes that refer to a table of
//! [`Objects`]), readers that bring logs into it ([`Reader`], by stream or as a whole, with an account of all
//! [`Defects`]), writers ([`convert()`], [`Trace::save`]), the times at which requests are due ([`Schedule`]), statistics ([`stat()`],
//! [`subsets`]) and generators ([`generate`]). A trace knows its [`Origin`]: a reconstruction never passes for a recording.
//!
//! ```
//! use vibra_trace::{generate, stat, subsets};
//!
//! let trace = generate::generate("worldcup", &generate::Params { seed: 1, ..Default::default() })?;
//! assert_eq!(trace.origin.to_string(), "reconstruction, seed 1");
//! assert_eq!(stat(&trace).requests, 1_483_126);
//!
//! // How Charsum divides them among four servers: the second one is hot (Table 3.1).
//! let charsum = |name: &str| name.bytes().map(usize::from).sum();
//! let bytes: Vec<u64> = subsets(&trace, 4, &charsum).iter().map(|row| row.bytes).collect();
//! assert!(bytes[1] > bytes[0] + bytes[2] + bytes[3]);
//! # Ok::<(), vibra_trace::Error>(())
//! ```

mod convert;
mod defect;
mod error;
mod format;
pub mod generate;
mod object;
mod read;
mod request;
mod schedule;
mod source;
mod stat;
mod tables;
mod trace;
pub mod vms;

pub use convert::{Converted, convert};
pub use defect::{Defect, DefectClass, Defects};
pub use error::Error;
pub use format::{Format, compact, csv};
pub use object::{Object, ObjectId, Objects};
pub use read::{Options, Reader};
pub use request::{LoggedBytes, Method, Request};
pub use schedule::{Schedule, Spread};
pub use stat::{Stat, Subset, stat, subsets};
pub use trace::{Origin, Trace};

//! Readers and writers of request traces, and workload generators.

mod object;
mod request;
mod trace;

pub use object::{Object, ObjectId, Objects};
pub use request::{LoggedBytes, Method, Request};
pub use trace::{Origin, Trace};

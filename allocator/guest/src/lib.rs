//! Runs in each virtual machine: tells its host what only the guest knows, and that it is alive.
//!
//! The program `vibra-guest` writes a [`Report`] as one line of JSON to a virtio-serial port each second, and takes
//! [`Order`]s from it. To the host a report is a hint: whoever owns the guest may have it say anything.
//!
//! Most of it is about one number, the working set (section 3.4.6): how much memory the VM could not do without. Linux
//! does not tell, as its list of active pages shrinks only when memory runs short. The dissertation added a function to
//! the kernel that deactivates the page cache, waited, and read how much had become active again. [`page_cache`] does
//! the same to an unchanged kernel; the other [`Method`]s stand beside it. The host uses this crate too, for VMs that
//! share its kernel.
//!
//! ```
//! use vibra_guest::{Lines, MOST_BYTES, Report};
//!
//! let mut lines = Lines::new(MOST_BYTES);
//! let line = serde_json::to_vec(&Report { sequence: 7, ..Report::default() }).unwrap();
//! lines.feed(&line);
//! lines.feed(b"\n{\"seq");
//! let whole = lines.next_line().unwrap().unwrap();
//! assert_eq!(serde_json::from_slice::<Report>(&whole).unwrap().sequence, 7);
//! assert!(lines.next_line().is_none(), "the rest has not come yet");
//! ```

mod lines;
pub mod lru_gen;
pub mod page_cache;
mod protocol;
pub mod sampler;
pub mod sensors;
pub mod stat;
mod working_set;

pub use lines::{Lines, TooLong};
pub use protocol::{Faults, MOST_BYTES, Memory, Method, Order, PORT, Report, Sampling, Server, WorkingSet};
pub use working_set::{Observation, estimate};

//! Discrete-event simulation of clusters on virtual time.
//!
//! It runs the same code as the real thing: routing tables of `vibra-routing`, policies of `vibra-policy`, the
//! directory's rules of `vibra-model`. Time and randomness are simulated: [`Queue`] orders events, and each entity draws
//! from a [`stream()`] of its own, so that a change to one entity leaves the luck of all others as it was. The same
//! seed gives the same run.

pub mod bsp;
pub mod cluster;
pub mod fvm;
pub mod hosts;
mod queue;
mod reuse;
mod stream;

pub use queue::Queue;
pub use reuse::Reuse;
pub use stream::stream;

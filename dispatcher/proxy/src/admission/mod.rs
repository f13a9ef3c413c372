//! Who is let in, how far, and for how long: what keeps the dispatcher serving when more is asked of it than it has.
//!
//! Every part is a limit of its own and knows nothing of sockets, requests or clocks. What is refused is refused early,
//! with a word on when to come again, so that what was let in gets what it needs.

pub(crate) mod connections;
pub(crate) mod gate;
pub(crate) mod memory;
pub(crate) mod pace;
pub(crate) mod rate;
pub(crate) mod retries;

use crate::limits::Limits;
use connections::{Addresses, Places};
use governor::clock::MonotonicClock;
use memory::Budget;
use rate::Rate;
use rustix::process::{Resource, getrlimit};
use std::net::IpAddr;
use std::sync::Arc;

/// The addresses that count as one client: an IPv4 address, or the /64 of an IPv6 address, of which every host has
/// 2^64 to choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Block {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Block {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Block::V4(address.to_bits()),
            IpAddr::V6(address) => Block::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// What all threads of a dispatcher share to this end.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) places: Places,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) rate: Option<Rate>,
    pub(crate) memory: Arc<Budget>,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Admission {
            places: Places::new(limits.connections.min(affordable_connections())),
            addresses: Addresses::new(limits.connections_per_address),
            rate: limits.rate.as_ref().map(|rate| Rate::new(rate, MonotonicClock)),
            memory: Budget::new(limits.memory),
        }
    }
}

/// So many connections the system lets the process have: every other descriptor is for a server.
fn affordable_connections() -> usize {
    (descriptors() / 2).max(1)
}

/// How many file descriptors the process may have.
pub(crate) fn descriptors() -> usize {
    let most = getrlimit(Resource::Nofile).current;
    most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(address: &str) -> Block {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_an_ipv4_address_is_another() {
        assert_eq!(block("2001:db8::1"), block("2001:db8::ffff:1"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_ne!(block("192.0.2.1"), block("192.0.2.2"));
        assert_eq!(block("192.0.2.1"), block("::ffff:192.0.2.1"));
        assert_ne!(block("0.0.0.1"), block("0:0:0:1::"));
    }
}

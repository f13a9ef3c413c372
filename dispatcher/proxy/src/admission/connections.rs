//! How many connections clients have.

use super::Block;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many clients can be counted at once without waiting for each other.
const SHARDS: usize = 64;

/// Unused connections are kept for their full time while one place in so many is free.
const ROOMY: usize = 4;

/// How long an unused connection is kept at least, however full it is.
const SHORTEST: Duration = Duration::from_secs(1);

/// Places for all client connections of a dispatcher, over all threads.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    free: Arc<Semaphore>,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        let most = most.min(Semaphore::MAX_PERMITS);
        Places { most, free: Arc::new(Semaphore::new(most)) }
    }

    /// A place, once there is one; who comes first is served first. It is given back by dropping it.
    pub(crate) async fn take(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_owned().await.expect("the places are never closed")
    }

    /// Whether all places are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// How long unused connections are kept, where `idle` is the configured time. The fuller it is the shorter: who
    /// has a request is worth more than who may have one. So idle clients cannot keep others out.
    pub(crate) fn patience(&self, idle: Duration) -> Duration {
        let (free, roomy) = (self.free.available_permits(), self.most.div_ceil(ROOMY));
        if free >= roomy {
            return idle;
        }
        idle.mul_f64(free as f64 / roomy as f64).max(SHORTEST.min(idle))
    }
}

/// How many connections each client address has, over all threads. Holds as many addresses as have connections.
#[derive(Debug)]
pub(crate) struct Addresses {
    most: u32,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<Block, u32>>]>,
}

impl Addresses {
    pub(crate) fn new(most: u32) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Addresses { most, hasher: RandomState::new(), shards })
    }

    /// Counts a connection from `address`; `None` if it has too many.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Seat> {
        let block = Block::from(address);
        let mut shard = self.shard(block);
        let count = shard.entry(block).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Seat { addresses: self.clone(), block })
    }

    fn shard(&self, block: Block) -> MutexGuard<'_, HashMap<Block, u32>> {
        let shard = self.hasher.hash_one(block) as usize % self.shards.len();
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among those of its address, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    addresses: Arc<Addresses>,
    block: Block,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.addresses.shard(self.block);
        if let Some(count) = shard.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                shard.remove(&self.block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Poll, Waker};
    use std::{pin::pin, thread};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_connection_beyond_the_limit_waits_for_one_to_end() {
        let places = Places::new(1);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(first) = pin!(places.take()).poll(&mut cx) else { panic!("no place") };
        assert!(places.is_full());
        let mut second = pin!(places.take());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        drop(first);
        assert!(second.as_mut().poll(&mut cx).is_ready());
    }

    #[test]
    fn the_fuller_the_shorter_are_unused_connections_kept() {
        let places = Places::new(8);
        let mut cx = Context::from_waker(Waker::noop());
        let idle = Duration::from_secs(60);
        let mut taken = Vec::new();
        let mut patience = vec![places.patience(idle)];
        for _ in 0..8 {
            let Poll::Ready(place) = pin!(places.take()).poll(&mut cx) else { panic!("no place") };
            taken.push(place);
            patience.push(places.patience(idle));
        }
        assert_eq!(patience.iter().map(Duration::as_secs).collect::<Vec<_>>(), [60, 60, 60, 60, 60, 60, 60, 30, 1]);
        assert_eq!(places.patience(Duration::from_millis(5)), Duration::from_millis(5));
    }

    #[test]
    fn an_address_has_its_share_and_no_more() {
        let addresses = Addresses::new(2);
        let first = addresses.admit(ip("192.0.2.1")).unwrap();
        let _second = addresses.admit(ip("::ffff:192.0.2.1")).unwrap();
        assert!(addresses.admit(ip("192.0.2.1")).is_none());
        let other = addresses.admit(ip("192.0.2.2"));
        assert!(other.is_some());
        drop(first);
        assert!(addresses.admit(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn an_ipv6_network_shares_its_places() {
        let addresses = Addresses::new(1);
        let _seat = addresses.admit(ip("2001:db8::1")).unwrap();
        assert!(addresses.admit(ip("2001:db8::2")).is_none());
        assert!(addresses.admit(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_have_gone() {
        let addresses = Addresses::new(1000);
        thread::scope(|scope| {
            for n in 0..4u8 {
                let addresses = &addresses;
                scope.spawn(move || {
                    for host in 0..200u8 {
                        let seats: Vec<_> =
                            (0..3).map(|_| addresses.admit(IpAddr::from([192, 0, n % 2, host]))).collect();
                        assert!(seats.iter().all(Option::is_some));
                    }
                });
            }
        });
        assert!(addresses.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}

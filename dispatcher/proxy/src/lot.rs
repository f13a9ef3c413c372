//! Where connections of clients are parked that have had nothing to say for a while.
//!
//! A connection that is served has a task and a registration with the runtime, which take some kilobytes. A parked one has
//! its socket, an entry here, and a place in a set of epoll that the runtime knows as one thing to watch.

use crate::clock::Tick;
use crate::socket::watch;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use slab::Slab;
use std::cell::RefCell;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// So many connections are taken out at once.
const BATCH: usize = 64;

/// The parked connections of a thread.
#[derive(Debug)]
pub(crate) struct Lot<T> {
    epoll: AsyncFd<OwnedFd>,
    parked: RefCell<Slab<Parked<T>>>,
}

/// A parked connection.
#[derive(Debug)]
pub(crate) struct Parked<T> {
    pub(crate) socket: TcpStream,
    /// When it came to rest.
    pub(crate) since: Tick,
    /// What has to be known to serve it again.
    pub(crate) kept: T,
}

impl<T> Lot<T> {
    /// An empty one, for the runtime that this is called in.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = watch(epoll::create(CreateFlags::CLOEXEC)?)?;
        Ok(Lot { epoll, parked: RefCell::default() })
    }

    /// How many are parked.
    pub(crate) fn len(&self) -> usize {
        self.parked.borrow().len()
    }

    /// Parks a connection. Where it has something to say already, it comes out again at once.
    ///
    /// # Errors
    /// If the system cannot watch one more. The connection is then closed.
    pub(crate) fn park(&self, connection: Parked<T>) -> io::Result<()> {
        let mut parked = self.parked.borrow_mut();
        let entry = parked.vacant_entry();
        epoll::add(&self.epoll, &connection.socket, EventData::new_u64(entry.key() as u64), EventFlags::IN)?;
        entry.insert(connection);
        Ok(())
    }

    /// Takes out some connections that sent something or ended; waits until there are any.
    ///
    /// # Errors
    /// Once the runtime ends.
    pub(crate) async fn woken(&self) -> io::Result<Vec<Parked<T>>> {
        loop {
            let mut ready = self.epoll.readable().await?;
            let woken = self.take_woken();
            if !woken.is_empty() {
                return Ok(woken);
            }
            ready.clear_ready();
        }
    }

    /// The same without waiting: none if there are none now.
    pub(crate) fn take_woken(&self) -> Vec<Parked<T>> {
        let mut room = [const { MaybeUninit::uninit() }; BATCH];
        // Fails only for what is no set of epoll.
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut room, Some(&Timespec::default())) else {
            return Vec::new();
        };
        let mut parked = self.parked.borrow_mut();
        let mut take = |key: u64| {
            let connection = parked.try_remove(usize::try_from(key).ok()?)?;
            // Its socket is watched by another from now on.
            let _ = epoll::delete(&self.epoll, &connection.socket);
            Some(connection)
        };
        events.iter().filter_map(|event| take(event.data.u64())).collect()
    }

    /// Closes the connections that may not stay, by when they came to rest; returns how many.
    pub(crate) fn close(&self, may_stay: impl Fn(Tick) -> bool) -> usize {
        let mut parked = self.parked.borrow_mut();
        let before = parked.len();
        parked.retain(|_, connection| {
            let stays = may_stay(connection.since);
            if !stays {
                let _ = epoll::delete(&self.epoll, &connection.socket);
            }
            stays
        });
        before - parked.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Duration;
    use tokio::runtime::Builder;
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Both ends of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        (client, listener.accept().unwrap().0)
    }

    /// A lot with connections that are known by their numbers, and the clients' ends.
    fn lot(connections: usize) -> (Lot<usize>, Vec<TcpStream>) {
        let lot = Lot::new().unwrap();
        let since = Clock::start().now();
        let park = |kept| {
            let (client, socket) = connection();
            lot.park(Parked { socket, since, kept }).unwrap();
            client
        };
        let clients = (0..connections).map(park).collect();
        (lot, clients)
    }

    fn run(test: impl AsyncFnOnce()) {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { timeout(PATIENCE, test()).await.expect("not in time") });
    }

    #[test]
    fn who_says_something_or_leaves_comes_out_and_the_others_stay() {
        run(async || {
            let (lot, mut clients) = lot(4);
            assert!(lot.take_woken().is_empty());
            clients[2].write_all(b"a").unwrap();
            let woken = lot.woken().await.unwrap();
            assert_eq!(woken.iter().map(|parked| parked.kept).collect::<Vec<_>>(), [2]);
            let mut byte = [0];
            (&woken[0].socket).read_exact(&mut byte).unwrap();
            assert_eq!(byte, *b"a");
            drop(clients.remove(0));
            assert_eq!(lot.woken().await.unwrap()[0].kept, 0);
            assert_eq!(lot.len(), 2);
            assert!(lot.take_woken().is_empty());
        });
    }

    #[test]
    fn a_wait_ends_with_the_first_that_comes_and_misses_none() {
        run(async || {
            let (lot, clients) = lot(3 * BATCH);
            let speak = async {
                tokio::task::yield_now().await;
                clients.iter().for_each(|mut client| client.write_all(b"a").unwrap());
            };
            let listen = async {
                let mut woken = Vec::new();
                while woken.len() < clients.len() {
                    woken.extend(lot.woken().await.unwrap().iter().map(|parked| parked.kept));
                }
                woken.sort_unstable();
                woken
            };
            let (woken, ()) = tokio::join!(listen, speak);
            assert_eq!(woken, (0..3 * BATCH).collect::<Vec<_>>());
        });
    }

    #[test]
    fn who_has_spoken_before_is_heard_and_who_comes_again_is_too() {
        run(async || {
            let lot = Lot::new().unwrap();
            let (mut client, socket) = connection();
            client.write_all(b"a").unwrap();
            lot.park(Parked { socket, since: Clock::start().now(), kept: () }).unwrap();
            let parked = lot.woken().await.unwrap().remove(0);
            (&parked.socket).read_exact(&mut [0]).unwrap();
            lot.park(parked).unwrap();
            assert!(lot.take_woken().is_empty());
            client.write_all(b"b").unwrap();
            assert_eq!(lot.woken().await.unwrap().len(), 1);
            assert_eq!(lot.len(), 0);
        });
    }

    #[test]
    fn who_may_not_stay_is_closed() {
        run(async || {
            let (lot, mut clients) = lot(3);
            assert_eq!(lot.close(|_| true), 0);
            assert_eq!(lot.close(|_| false), 3);
            assert_eq!(lot.len(), 0);
            for client in &mut clients {
                assert_eq!(client.read(&mut [0]).unwrap(), 0);
            }
            assert!(lot.take_woken().is_empty());
        });
    }
}

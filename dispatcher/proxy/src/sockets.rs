//! Listening sockets: made here, or inherited.

use crate::error::StartError;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Connections that wait in the kernel to be accepted, per listener.
const BACKLOG: i32 = 1024;

/// Whether several sockets listen at one address.
#[derive(Clone, Copy)]
enum Sharing {
    Alone,
    WithSiblings,
}

/// Listening sockets that were there before: a service manager's, or those of the dispatcher that this one replaces. A
/// connection waits in the queue of one socket until it is accepted, and is reset when that is closed; so all of them
/// are served, however many there are.
pub(crate) struct Inherited(Vec<Group>);

/// The sockets that listen at one address.
struct Group {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// The sockets of one configured address, for each thread.
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    pub(crate) threads: Vec<Vec<TcpListener>>,
}

impl Inherited {
    /// Sorts sockets by their addresses, in the order in which these come first.
    pub(crate) fn new(sockets: Vec<TcpListener>) -> Result<Self, StartError> {
        let mut groups: Vec<Group> = Vec::new();
        for socket in sockets {
            socket.set_nonblocking(true).map_err(StartError::System)?;
            // Those that wait in its queue may be without.
            SockRef::from(&socket).set_tcp_nodelay(true).map_err(StartError::System)?;
            let address = local_address(&socket)?;
            match groups.iter_mut().find(|group| group.address == address) {
                Some(group) => group.sockets.push(socket),
                None => groups.push(Group { address, sockets: vec![socket] }),
            }
        }
        Ok(Inherited(groups))
    }

    /// Those that are meant by a configured address; with port 0, the first whose IP address it is.
    fn take(&mut self, wanted: SocketAddr) -> Option<Group> {
        let is_wanted =
            |group: &Group| group.address == wanted || (wanted.port() == 0 && group.address.ip() == wanted.ip());
        let place = self.0.iter().position(is_wanted)?;
        Some(self.0.remove(place))
    }

    /// Sockets for each of `threads` threads at a configured address: those that were inherited, else new ones.
    pub(crate) fn listen(&mut self, address: SocketAddr, threads: usize) -> Result<Bound, StartError> {
        match self.take(address) {
            Some(group) => group.shared_out(threads).map_err(StartError::System),
            None => bind_all(address, threads),
        }
    }

    /// One socket at a configured address.
    pub(crate) fn listen_alone(&mut self, address: SocketAddr) -> Result<TcpListener, StartError> {
        let inherited = self.take(address).and_then(|mut group| group.sockets.pop());
        inherited.map_or_else(|| bind(address, Sharing::Alone), Ok)
    }

    /// Closes what nobody listens at any more.
    pub(crate) fn close_rest(self) {
        for Group { address, .. } in self.0 {
            tracing::warn!(%address, "an inherited socket is closed: the configuration does not listen there");
        }
    }
}

impl Group {
    fn shared_out(self, threads: usize) -> io::Result<Bound> {
        let mut sets: Vec<Vec<TcpListener>> = (0..threads).map(|_| Vec::new()).collect();
        // Threads without one of their own accept from another's as well.
        for (set, socket) in sets.iter_mut().zip(self.sockets.iter().cycle()).skip(self.sockets.len()) {
            set.push(socket.try_clone()?);
        }
        for (number, socket) in self.sockets.into_iter().enumerate() {
            sets[number % threads].push(socket);
        }
        Ok(Bound { address: self.address, threads: sets })
    }
}

/// One new socket for each thread.
fn bind_all(address: SocketAddr, threads: usize) -> Result<Bound, StartError> {
    let sharing = if threads == 1 { Sharing::Alone } else { Sharing::WithSiblings };
    let first = bind(address, sharing)?;
    // The others take the port that the first has found.
    let address = local_address(&first)?;
    let mut sets = vec![vec![first]];
    for _ in 1..threads {
        sets.push(vec![bind(address, sharing)?]);
    }
    Ok(Bound { address, threads: sets })
}

fn bind(address: SocketAddr, sharing: Sharing) -> Result<TcpListener, StartError> {
    let listen = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if matches!(sharing, Sharing::WithSiblings) {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        // Connections inherit it, which costs less than to ask for it for each.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    listen().map_err(|source: io::Error| StartError::Listen { address, source })
}

/// Accepts a connection, which does not block, and who made it.
///
/// # Errors
/// If none waits, or the system could not accept one.
pub(crate) fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, source) = acceptfrom_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC)?;
    let source = source.and_then(|source| source.try_into().ok()).ok_or(io::ErrorKind::ConnectionAborted)?;
    Ok((stream.into(), source))
}

pub(crate) fn local_address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(StartError::System)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(number: usize) -> (SocketAddr, Vec<TcpListener>) {
        let bound = bind_all("127.0.0.1:0".parse().unwrap(), number).unwrap();
        (bound.address, bound.threads.into_iter().flatten().collect())
    }

    #[test]
    fn all_inherited_sockets_are_served_by_any_number_of_threads() {
        for (number, threads, each) in [(1, 1, [1].as_slice()), (2, 2, &[1, 1]), (1, 3, &[1, 1, 1]), (3, 2, &[2, 1])] {
            let (address, given) = sockets(number);
            let bound = Inherited::new(given).unwrap().listen(address, threads).unwrap();
            assert_eq!(bound.address, address);
            let lengths: Vec<_> = bound.threads.iter().map(Vec::len).collect();
            assert_eq!(lengths, each, "{number} sockets for {threads} threads");
            let mut all = bound.threads.iter().flatten();
            assert!(all.all(|socket| socket.local_addr().unwrap() == address));
        }
    }

    #[test]
    fn connections_inherit_that_nothing_waits_for_acknowledgements() {
        let (address, made) = sockets(1);
        let given = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = given.local_addr().unwrap();
        let inherited = Inherited::new(vec![given]).unwrap().listen_alone(other).unwrap();
        for (address, listener) in [(address, &made[0]), (other, &inherited)] {
            let _client = TcpStream::connect(address).unwrap();
            listener.set_nonblocking(false).unwrap();
            assert!(listener.accept().unwrap().0.nodelay().unwrap());
        }
    }

    #[test]
    fn sockets_are_found_by_their_addresses() {
        let ((one, first), (two, second)) = (sockets(2), sockets(1));
        let mut inherited = Inherited::new(first.into_iter().chain(second).collect()).unwrap();
        assert_eq!(local_address(&inherited.listen_alone(two).unwrap()).unwrap(), two);
        let elsewhere = inherited.listen("[::1]:0".parse().unwrap(), 1).unwrap();
        assert!(elsewhere.address.is_ipv6(), "what was not inherited is made");
        let any = inherited.listen("127.0.0.1:0".parse().unwrap(), 2).unwrap();
        assert_eq!(any.address, one);
        assert!(inherited.0.is_empty());
    }
}

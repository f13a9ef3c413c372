//! Reads what the kernel has, over netlink: queues and filters of a device, counters of nftables.
//!
//! `tc` and `nft` tell the same, but to start them costs some 5 ms of CPU time each, which an agent that looks every second
//! feels; and `tc` prints rates with four digits. Only lists are asked for: every change goes through the tools.
//! The numbers are those of the kernel's headers (`linux/netlink.h`, `rtnetlink.h`, `pkt_sched.h`, `nf_tables.h`).

use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Where `ip netns` keeps its namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

const HEADER: usize = 16;
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
/// The list changed while it was read.
const INTERRUPTED: u16 = 0x10;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
/// An attribute's kind is in the lower bits.
const KIND: u16 = 0x3fff;
/// The kernel sends no more at once.
const BUFFER: usize = 1 << 16;
/// How often a list that changes while it is read is read anew.
const TRIES: usize = 20;

/// A socket to the kernel, in the namespace where it was opened.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

/// One entry of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    /// What follows the header: a fixed part, then attributes.
    pub(crate) body: Vec<u8>,
}

impl Socket {
    /// A socket for traffic control.
    pub(crate) fn route(namespace: Option<&str>) -> io::Result<Socket> {
        Self::open(namespace, None)
    }

    /// A socket for nftables.
    pub(crate) fn netfilter(namespace: Option<&str>) -> io::Result<Socket> {
        Self::open(namespace, Some(netlink::NETFILTER))
    }

    fn open(namespace: Option<&str>, protocol: Option<net::Protocol>) -> io::Result<Socket> {
        let socket = move || {
            Ok(Socket(net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?))
        };
        let Some(namespace) = namespace else { return socket() };
        let file = File::open(Path::new(NAMESPACES).join(namespace))?;
        // A thread that enters a namespace stays in it: one is spent on that, and its socket stays there, too.
        let opened = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(file.as_fd(), None)?;
            socket()
        });
        opened.join().map_err(|_| io::Error::other("the thread in the namespace panicked"))?
    }

    /// The number of a device in the socket's namespace; `None` where there is no such device.
    pub(crate) fn device(&self, name: &str) -> io::Result<Option<u32>> {
        match net::netdevice::name_to_index(&self.0, name) {
            Ok(index) => Ok(Some(index)),
            Err(rustix::io::Errno::NODEV) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// All entries of the list that is asked for by a message of `kind` with `body`.
    pub(crate) fn list(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<Message>> {
        for _ in 0..TRIES {
            if let Some(list) = self.try_list(kind, body)? {
                return Ok(list);
            }
        }
        Err(io::Error::new(io::ErrorKind::Interrupted, "the kernel's list changes faster than it can be read"))
    }

    /// `None` where the list changed meanwhile.
    fn try_list(&mut self, kind: u16, body: &[u8]) -> io::Result<Option<Vec<Message>>> {
        let mut request = Vec::with_capacity(HEADER + body.len());
        request.extend(u32::try_from(HEADER + body.len()).map_err(io::Error::other)?.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((REQUEST | DUMP).to_ne_bytes());
        // Nobody else uses the socket, and it is read to the end of each list: no need for sequence and port numbers.
        request.extend([0; 8]);
        request.extend(body);
        net::send(&self.0, &request, SendFlags::empty())?;
        let (mut list, mut whole) = (Vec::new(), true);
        let mut buffer = vec![0; BUFFER];
        loop {
            let (_, length) = net::recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            for (flags, message) in messages(&buffer[..length]) {
                whole &= flags & INTERRUPTED == 0;
                match message.kind {
                    MESSAGE_DONE => return Ok(whole.then_some(list)),
                    MESSAGE_ERROR => return Err(refusal(&message.body)),
                    _ => list.push(message),
                }
            }
        }
    }
}

/// What the kernel says no with.
fn refusal(body: &[u8]) -> io::Error {
    let code = u32_at(body, 0).map_or(0, |code| code as i32);
    io::Error::from_raw_os_error(code.saturating_neg())
}

/// The messages in what was received, with their flags. What is cut short is left out.
fn messages(mut bytes: &[u8]) -> Vec<(u16, Message)> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind), Some(flags)) = (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6)) {
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { break };
        found.push((flags, Message { kind, body: body.to_owned() }));
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    found
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// The attribute of this kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// The attributes one after another, with their kinds. What is cut short is left out.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(u16_at(bytes, 0)?), u16_at(bytes, 2)? & KIND);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Appends an attribute.
pub(crate) fn push_attribute(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).expect("names and numbers are short");
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
}

/// A text that ends with a zero byte.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes.split(|&byte| byte == 0).next()?).ok()
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    array_at(bytes, at).map(u16::from_ne_bytes)
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    array_at(bytes, at).map(u32::from_ne_bytes)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    array_at(bytes, at).map(u64::from_ne_bytes)
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn attributes_are_found_again() {
        let mut bytes = Vec::new();
        push_attribute(&mut bytes, 1, b"htb\0");
        push_attribute(&mut bytes, 2, &7u32.to_ne_bytes());
        push_attribute(&mut bytes, 3, b"x");
        assert_eq!(attribute(&bytes, 1).and_then(text), Some("htb"));
        assert_eq!(attribute(&bytes, 2).and_then(|value| u32_at(value, 0)), Some(7));
        assert_eq!(attribute(&bytes, 3), Some(&b"x"[..]));
        assert_eq!(attribute(&bytes, 4), None);
    }

    #[test]
    fn a_refusal_is_the_kernels_own_error() {
        assert_eq!(refusal(&(-1i32).to_ne_bytes()).kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn the_loopback_device_is_found_where_it_is() {
        let socket = Socket::route(None).unwrap();
        assert!(socket.device("lo").unwrap().is_some());
        assert_eq!(socket.device("no-such-device").unwrap(), None);
        assert!(Socket::route(Some("no-such-namespace")).is_err());
    }

    proptest! {
        /// The kernel's word is read without trust: nothing in it can make the agent stop.
        #[test]
        fn any_bytes_come_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes).len() <= bytes.len() / HEADER);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}

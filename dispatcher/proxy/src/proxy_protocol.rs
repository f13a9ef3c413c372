//! The PROXY protocol, versions 1 and 2: who really connected, told by a proxy in front of the connection's bytes.
//! The numbers of sections are those of the specification, `proxy-protocol.txt`, that HAProxy publishes.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header of version 1, its line end included (section 2.1).
const LONGEST_V1: usize = 107;

/// The longest header of version 2 that is taken, in bytes. What is usual has less than 536, to fit in any segment;
/// the rest is room for extensions.
pub(crate) const LONGEST: usize = 4096;

/// What version 2 begins with (section 2.2).
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The length of version 2 without addresses and extensions.
const FIXED_V2: usize = 16;

/// The length of two addresses of `AF_UNIX`.
const UNIX_ADDRESSES: usize = 216;

/// The type of the extension that holds a checksum (section 2.2.3).
const TYPE_CRC32C: u8 = 3;

/// The two ends of a connection as the proxy saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    /// Who connected.
    pub(crate) source: SocketAddr,
    /// Where he connected to.
    pub(crate) destination: SocketAddr,
}

/// A header that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// So many bytes of the connection are the header.
    pub(crate) length: usize,
    /// `None` where the proxy speaks for itself or does not know: then the connection's own ends count.
    pub(crate) ends: Option<Ends>,
}

/// Why bytes are no header. The connection must then be closed (section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHeader {
    #[error("the connection does not begin with a PROXY header")]
    Missing,
    #[error("the PROXY header is longer than any may be")]
    TooLong,
    #[error("the PROXY header's line does not end in CR LF")]
    LineEnd,
    #[error("the PROXY header names no known version, command, family or protocol")]
    Unknown,
    #[error("the PROXY header's addresses or ports are none")]
    Addresses,
    #[error("the PROXY header's extensions do not fit in it")]
    Extensions,
    #[error("the PROXY header's checksum is wrong")]
    Checksum,
}

/// Reads the header that `bytes`, the first of a connection, begin with; `None` as long as more bytes are needed.
///
/// # Errors
/// [`BadHeader`], at the latest once the header's line or block is whole or longer than any may be.
pub(crate) fn read(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    if begins(bytes, SIGNATURE) {
        read_v2(bytes)
    } else if begins(bytes, b"PROXY ") {
        read_v1(bytes)
    } else {
        Err(BadHeader::Missing)
    }
}

/// Whether `bytes` begin with `prefix`, as far as they go.
fn begins(bytes: &[u8], prefix: &[u8]) -> bool {
    bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected)
}

fn read_v1(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let shown = &bytes[..bytes.len().min(LONGEST_V1)];
    let Some(end) = shown.iter().position(|&byte| byte == b'\r' || byte == b'\n') else {
        return if bytes.len() < LONGEST_V1 { Ok(None) } else { Err(BadHeader::TooLong) };
    };
    match (shown[end], shown.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if bytes.len() < LONGEST_V1 => return Ok(None),
        (b'\r', None) => return Err(BadHeader::TooLong),
        _ => return Err(BadHeader::LineEnd),
    }
    let line = std::str::from_utf8(&shown[..end]);
    let ends = match line {
        Ok(line) => read_line(line)?,
        // What follows "UNKNOWN" is to be ignored, whatever it is.
        Err(_) if shown.starts_with(b"PROXY UNKNOWN ") => None,
        Err(_) => return Err(BadHeader::Addresses),
    };
    Ok(Some(Header { length: end + 2, ends }))
}

fn read_line(line: &str) -> Result<Option<Ends>, BadHeader> {
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let words = (words.next(), words.next(), words.next(), words.next(), words.next());
    let (Some(source), Some(destination), Some(from), Some(to), None) = words else {
        return Err(if matches!(family, Some("TCP4" | "TCP6")) { BadHeader::Addresses } else { BadHeader::Unknown });
    };
    let (source, destination) = match family {
        Some("TCP4") => (address::<Ipv4Addr>(source), address::<Ipv4Addr>(destination)),
        Some("TCP6") => (address::<Ipv6Addr>(source), address::<Ipv6Addr>(destination)),
        _ => return Err(BadHeader::Unknown),
    };
    let source = source.zip(port(from)).ok_or(BadHeader::Addresses)?;
    let destination = destination.zip(port(to)).ok_or(BadHeader::Addresses)?;
    Ok(Some(Ends { source: source.into(), destination: destination.into() }))
}

fn address<A: std::str::FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// A port in decimal digits, without leading zeros.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn read_v2(bytes: &[u8]) -> Result<Option<Header>, BadHeader> {
    let local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(BadHeader::Unknown),
    };
    let Some(&[kind, high, low]) = bytes.get(13..FIXED_V2) else { return Ok(None) };
    let length = FIXED_V2 + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(BadHeader::TooLong);
    }
    let Some(header) = bytes.get(..length) else { return Ok(None) };
    // A proxy that speaks for itself says nothing else that counts, not even the family.
    let ends = if local { None } else { read_ends(header, kind)? };
    Ok(Some(Header { length, ends }))
}

/// The addresses of a whole header of version 2, whose extensions are checked.
fn read_ends(header: &[u8], kind: u8) -> Result<Option<Ends>, BadHeader> {
    let block = &header[FIXED_V2..];
    let (ends, length) = match kind {
        // Without a family nobody can tell addresses from extensions.
        0x00 => return Ok(None),
        0x11 => (Some(read_block::<4>(block)?), 12),
        0x21 => (Some(read_block::<16>(block)?), 36),
        // Datagrams and local sockets cannot be where an HTTP client is: the connection's own ends count.
        0x12 => (None, 12),
        0x22 => (None, 36),
        0x31 | 0x32 => (None, UNIX_ADDRESSES),
        _ => return Err(BadHeader::Unknown),
    };
    if block.len() < length {
        return Err(BadHeader::Addresses);
    }
    check_extensions(header, FIXED_V2 + length)?;
    Ok(ends)
}

/// Two addresses of `N` bytes and their ports.
fn read_block<const N: usize>(block: &[u8]) -> Result<Ends, BadHeader>
where
    IpAddr: From<[u8; N]>,
{
    let split = block.split_first_chunk::<N>().and_then(|(source, rest)| {
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (ports, _) = rest.split_first_chunk::<4>()?;
        Some((*source, *destination, *ports))
    });
    let (source, destination, [a, b, c, d]) = split.ok_or(BadHeader::Addresses)?;
    let end = |address: [u8; N], port: [u8; 2]| SocketAddr::new(address.into(), u16::from_be_bytes(port));
    Ok(Ends { source: end(source, [a, b]), destination: end(destination, [c, d]) })
}

/// Walks over the extensions, which begin at `at`. None is of use here, but each must fit, and a checksum be right.
fn check_extensions(header: &[u8], mut at: usize) -> Result<(), BadHeader> {
    while at < header.len() {
        let Some(&[kind, high, low]) = header.get(at..at + 3) else { return Err(BadHeader::Extensions) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([high, low]));
        let Some(content) = header.get(value.clone()) else { return Err(BadHeader::Extensions) };
        if kind == TYPE_CRC32C {
            let told = content.try_into().map(u32::from_be_bytes).map_err(|_| BadHeader::Extensions)?;
            let parts = [&header[..value.start], &[0; 4], &header[value.end..]];
            if crc32c(parts.into_iter().flatten()) != told {
                return Err(BadHeader::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// The checksum of RFC 9260, appendix A (once RFC 4960, appendix B).
fn crc32c<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    !bytes.fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 })
    })
}

/// Which version of the protocol a server is spoken to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyVersion {
    /// Version 1, a line of text.
    V1,
    /// Version 2, binary.
    V2,
}

/// Writes the header of a connection that is made for the one between `ends`.
pub(crate) fn write(version: ProxyVersion, ends: &Ends, out: &mut Vec<u8>) {
    let (from, to) = (ends.source.port(), ends.destination.port());
    let addresses = (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
    match (version, addresses) {
        (ProxyVersion::V1, (IpAddr::V4(source), IpAddr::V4(destination))) => {
            line(out, format_args!("TCP4 {source} {destination} {from} {to}"));
        }
        (ProxyVersion::V1, (source, destination)) => {
            line(out, format_args!("TCP6 {} {} {from} {to}", mapped(source), mapped(destination)));
        }
        (ProxyVersion::V2, (IpAddr::V4(source), IpAddr::V4(destination))) => {
            block(out, 0x11, &[&source.octets(), &destination.octets(), &from.to_be_bytes(), &to.to_be_bytes()]);
        }
        (ProxyVersion::V2, (source, destination)) => {
            let (source, destination) = (mapped(source).octets(), mapped(destination).octets());
            block(out, 0x21, &[&source, &destination, &from.to_be_bytes(), &to.to_be_bytes()]);
        }
    }
}

/// Writes the header of a connection between `own` ends that is made for nobody else, such as one that looks whether
/// the server is well. Version 1 has no word for it that every server takes (section 2.1).
pub(crate) fn write_own(version: ProxyVersion, own: &Ends, out: &mut Vec<u8>) {
    match version {
        ProxyVersion::V1 => write(version, own, out),
        ProxyVersion::V2 => {
            out.extend_from_slice(SIGNATURE);
            out.extend_from_slice(&[0x20, 0, 0, 0]);
        }
    }
}

/// Both addresses must be of one family: where they are not, the IPv4 address goes mapped into IPv6.
fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn line(out: &mut Vec<u8>, words: std::fmt::Arguments<'_>) {
    write!(out, "PROXY {words}\r\n").expect("a vector takes what is written to it");
}

fn block(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.extend_from_slice(SIGNATURE);
    out.extend_from_slice(&[0x21, kind, 0, length as u8]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;

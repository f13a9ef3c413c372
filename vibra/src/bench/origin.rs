//! The origin servers, which all proxies have behind them.

use super::{
    contender::nginx,
    process::{OTHER_CORE, Server, free_address},
};
use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
};

/// How many servers a proxy normally has.
pub(super) const SERVERS: usize = 2;
/// How many more there can be.
pub(super) const MORE_SERVERS: usize = 100;
/// Different URLs for a body size, so that hashing has something to spread.
pub(super) const URLS: usize = 16;

/// The body size of cells that have only one, in bytes; there is always a file of it.
pub(super) const SMALL: u64 = 128;

/// One nginx process that listens at an address for each server: to a proxy these are servers of their own, and the
/// core that they share with the load generator switches less.
pub(super) struct Origin {
    _server: Server,
    addresses: Vec<SocketAddr>,
}

impl Origin {
    /// Starts it with [`URLS`] files of [`SMALL`] and of each of these sizes in bytes.
    pub(super) fn start(folder: &Path, sizes: &[u64]) -> anyhow::Result<Self> {
        let root = folder.join("root");
        for size in BTreeSet::from_iter(sizes.iter().copied().chain([SMALL])) {
            write_files(&root, size)?;
        }
        let port = free_address(ip(0))?.port();
        let addresses: Vec<_> =
            (0..SERVERS + MORE_SERVERS).map(|k| SocketAddr::from(SocketAddrV4::new(ip(k), port))).collect();
        let listen: String = addresses.iter().map(|address| format!("listen {address};\n")).collect();
        let http = format!(
            "open_file_cache max=1000 inactive=1h; open_file_cache_valid 1h;\n\
             server {{\n{listen}root {};\n}}\n",
            root.display()
        );
        let (command, _) = nginx(&folder.join("origin"), &http)?;
        let server = Server::start("origin", OTHER_CORE, &command, addresses[0], folder)?;
        Ok(Origin { _server: server, addresses })
    }

    /// The addresses of the usual servers.
    pub(super) fn servers(&self) -> &[SocketAddr] {
        &self.addresses[..SERVERS]
    }

    /// The addresses of the usual servers and of the 100 more.
    pub(super) fn all_servers(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// The path of one of the [`URLS`] for a body size.
pub(super) fn path(size: u64, number: usize) -> String {
    format!("/{size}/{}", number % URLS)
}

/// A server's own address on loopback.
fn ip(number: usize) -> Ipv4Addr {
    let number = u8::try_from(number + 1).expect("fewer than 255 servers");
    Ipv4Addr::new(127, 0, 1, number)
}

/// One file under many names.
fn write_files(root: &Path, size: u64) -> anyhow::Result<()> {
    let folder = root.join(size.to_string());
    fs::create_dir_all(&folder)?;
    let first = root.join(path(size, 0).trim_start_matches('/'));
    fs::write(&first, vec![b'v'; usize::try_from(size)?])?;
    for number in 1..URLS {
        fs::hard_link(&first, root.join(path(size, number).trim_start_matches('/')))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_has_a_file_of_its_size() {
        let folder = tempfile::tempdir().unwrap();
        write_files(folder.path(), 300).unwrap();
        for number in 0..2 * URLS {
            let file = folder.path().join(path(300, number).trim_start_matches('/'));
            assert_eq!(fs::metadata(file).unwrap().len(), 300);
        }
    }

    #[test]
    fn all_servers_have_addresses_of_their_own() {
        assert_ne!(ip(0), ip(1));
        assert_eq!(ip(SERVERS + MORE_SERVERS - 1), Ipv4Addr::new(127, 0, 1, 102));
    }
}

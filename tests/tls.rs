//! The dispatcher as a process that speaks TLS: what the command line and the file say of it, and renewed certificates.

mod support;

#[path = "../dispatcher/proxy/tests/kit/authority.rs"]
mod authority;

use authority::Authority;
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use support::*;
use vibra_proxy::CertificateFiles;

/// Asks for `/` under TLS, as a client that trusts `authority`.
fn get_securely(address: SocketAddr, authority: &Authority) -> String {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("the defaults are possible");
    let config = builder.with_root_certificates(authority.roots()).with_no_client_auth();
    let name = ServerName::try_from("shop.example").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a connection");
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(b"GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n").expect("a request goes out");
    let mut response = String::new();
    tls.read_to_string(&mut response).expect("a whole response");
    response
}

#[test]
fn a_certificate_on_the_command_line_is_enough() {
    let authority = Authority::new();
    let CertificateFiles { chain, key } = authority.issue("site", &["shop.example"]);
    let origin = Origin::named("one");
    let (chain, key, server) = (chain.to_str().unwrap(), key.to_str().unwrap(), origin.address.to_string());
    let arguments = ["dispatcher", "--listen", "127.0.0.1:0", "--server", &server, "--tls-cert", chain];
    let dispatcher = Running::start(&Folder::new(), &[&arguments[..], &["--tls-key", key]].concat());
    let response = get_securely(dispatcher.address("dispatcher: https://"), &authority);
    assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("one"), "{response}");
    // Without the key, which is not in the same file.
    vibra(&Folder::new(), &arguments).ended_with(1).with_stderr(&[chain, "no private key"]);
}

#[test]
fn check_reads_certificates_and_says_what_they_are_for() {
    let authority = Authority::new();
    let site = authority.issue("site", &["shop.example"]);
    let folder = Folder::new();
    let ca = authority.ca();
    folder.write(
        "vibra.toml",
        format!(
            "[dispatcher]\nlisten = \"127.0.0.1:80\"\n\
             [dispatcher.tls]\nlisten = \"127.0.0.1:443\"\nclient_ca = {ca:?}\n\
             [[dispatcher.tls.certificate]]\nchain = {:?}\nkey = {:?}\n\
             [dispatcher.server_tls]\nca = {ca:?}\n\
             [[server]]\nname = \"a\"\naddress = \"https://127.0.0.1:8443\"\n",
            site.chain, site.key
        ),
    );
    vibra(&folder, &["check"]).ended_with(0).with_stdout(&[
        "TLS at 127.0.0.1:443, 1 certificates, clients must show certificates",
        &format!("TLS to servers at https://; their certificates come from {}", ca.display()),
    ]);
    std::fs::remove_file(&site.key).unwrap();
    vibra(&folder, &["check"]).ended_with(2).with_stderr(&["cannot read", site.key.to_str().unwrap()]);
}

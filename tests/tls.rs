//! The dispatcher as a process that speaks TLS: what the command line and the file say of it, and renewed certificates.

mod support;

use std::{io, net::SocketAddr};
use support::*;
use vibra_proxy::CertificateFiles;

#[test]
fn a_certificate_on_the_command_line_is_enough() {
    let authority = Authority::new();
    let CertificateFiles { chain, key } = authority.issue("site", &["shop.example"]);
    let origin = Origin::named("one");
    let (chain, key, server) = (chain.to_str().unwrap(), key.to_str().unwrap(), origin.address.to_string());
    let arguments = ["dispatcher", "--listen", "127.0.0.1:0", "--server", &server, "--tls-cert", chain];
    let dispatcher = Running::start(&Folder::new(), &[&arguments[..], &["--tls-key", key]].concat());
    let response = get_securely(dispatcher.address("dispatcher: https://"), &authority, "/").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "one"));
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
            "[dispatcher]\nlisten = \"127.0.0.1:80\"\ntrusted = [\"10.0.0.1\"]\n\
             [dispatcher.tls]\nlisten = \"127.0.0.1:443\"\nproxy_protocol = \"accept\"\nclient_ca = {ca:?}\n\
             [[dispatcher.tls.certificate]]\nchain = {:?}\nkey = {:?}\n\
             [dispatcher.server_tls]\nca = {ca:?}\n\
             [[server]]\nname = \"a\"\naddress = \"https://127.0.0.1:8443\"\n",
            site.chain, site.key
        ),
    );
    vibra(&folder, &["check"]).ended_with(0).with_stdout(&[
        "connections to 127.0.0.1:443 begin with a PROXY header",
        "TLS at 127.0.0.1:443, 1 certificates, clients must show certificates",
        &format!("TLS to servers at https://; their certificates come from {}", ca.display()),
    ]);
    std::fs::remove_file(&site.key).unwrap();
    vibra(&folder, &["check"]).ended_with(2).with_stderr(&["cannot read", site.key.to_str().unwrap()]);
}

/// Whether somebody who trusts `authority` alone is served at `address`.
fn convinces(address: SocketAddr, authority: &Authority) -> bool {
    match get_securely(address, authority, "/") {
        Ok(response) => {
            assert_eq!(response.text(), "one");
            true
        }
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            false
        }
    }
}

#[test]
fn certificates_are_renewed_by_signal_and_by_request_while_connections_go_on() {
    let [first, second, third] = [(); 3].map(|()| Authority::new());
    let origin = Origin::named("one");
    let CertificateFiles { chain, key } = first.issue("site", &["shop.example"]);
    let tls = format!("[dispatcher.tls]\n[[dispatcher.tls.certificate]]\nchain = {chain:?}\nkey = {key:?}");
    let dispatcher = Dispatcher::start_with(&[("one", origin.address)], &tls);
    let address = dispatcher.address;
    let renew = |authority: &Authority| {
        let new = authority.issue("site", &["shop.example"]);
        std::fs::copy(new.chain, &chain).unwrap();
        std::fs::copy(new.key, &key).unwrap();
    };
    let mut old = Client::over(connect_securely(address, &first, &[]).unwrap(), address);
    let mut streams = Streams::connect(address, &first).unwrap();
    let mut both_go_on = || {
        assert_eq!(old.get("/").unwrap().text(), "one");
        let stream = streams.send("/").unwrap();
        assert_eq!(streams.receive(stream).unwrap().as_deref(), Some(&b"one"[..]));
        assert!(!streams.leaves());
    };
    both_go_on();
    renew(&second);
    assert!(convinces(address, &first), "nothing changes by itself");
    dispatcher.process.hang_up();
    eventually("the second certificate", || if convinces(address, &second) { Ok(()) } else { Err("the first".into()) });
    assert!(!convinces(address, &first));
    both_go_on();
    renew(&third);
    assert_eq!(dispatcher.post("/reload", "").status, 200);
    assert!(convinces(address, &third) && !convinces(address, &second));
    both_go_on();
    std::fs::write(&key, "no key").unwrap();
    let refused = dispatcher.post("/reload", "");
    assert_eq!(refused.status, 422, "{}", refused.text());
    assert!(refused.text().contains(key.to_str().unwrap()), "{}", refused.text());
    assert!(convinces(address, &third), "the one before holds");
    both_go_on();
}

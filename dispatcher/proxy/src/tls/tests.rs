//! Both sides of TLS, over loopback connections, with certificates made here.

use super::authority::Authority;
use super::files::Identity;
use super::*;
use crate::config::Protocol;
use crate::tls::chooser::Chooser;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, date_time_ymd};
use rustls::client::{Resumption, Tls12Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, HandshakeKind, SignatureScheme};
use std::path::Path;
use std::{fs, io, thread};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::{TlsConnector, client};

/// A client that trusts `authority` and remembers its sessions.
fn client_of(authority: &Authority) -> ClientConfig {
    client_with(authority, versions(TlsVersion::Tls12), None)
}

fn client_with(
    authority: &Authority,
    versions: &[&'static rustls::SupportedProtocolVersion],
    certificate: Option<&CertificateFiles>,
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions).unwrap();
    let builder = builder.with_root_certificates(authority.roots());
    match certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let identity = Identity::load(files).unwrap();
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key)))
        }
    }
}

fn front(certificates: &[CertificateFiles]) -> FrontTls {
    FrontTls { certificates: certificates.to_vec(), ..FrontTls::default() }
}

fn acceptor(certificates: &[CertificateFiles]) -> Acceptor {
    accepting(&front(certificates))
}

fn accepting(settings: &FrontTls) -> Acceptor {
    Acceptor::new(Front::load(settings, false, None).unwrap())
}

fn reload(acceptor: &Acceptor, settings: &FrontTls) {
    acceptor.install(Front::load(settings, false, Some(&acceptor.front())).unwrap());
}

fn connecting(settings: &BackTls) -> Connector {
    Connector::new(Some(Back::load(settings).unwrap()))
}

/// The two ends of a connection: the client's, then the server's.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, server) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

type Met = (io::Result<client::TlsStream<TcpStream>>, io::Result<(Stream, Handshake)>);

/// A client asks for `name`, and both shake hands.
async fn meet(client: &ClientConfig, name: &str, acceptor: &Acceptor) -> Met {
    let (near, far) = pair().await;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::join!(TlsConnector::from(Arc::new(client.clone())).connect(name, near), acceptor.accept(far))
}

/// The same, then one byte from the server, before which the client is sent its tickets.
async fn greet(client: &ClientConfig, name: &str, acceptor: &Acceptor) -> (client::TlsStream<TcpStream>, Handshake) {
    let (client, server) = meet(client, name, acceptor).await;
    let (mut client, (mut server, handshake)) = (client.unwrap(), server.unwrap());
    server.write_all(b"!").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'!');
    (client, handshake)
}

async fn resumes(client: &ClientConfig, acceptor: &Acceptor) -> bool {
    let (stream, handshake) = greet(client, "a.test", acceptor).await;
    let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    assert_eq!(handshake.resumed, resumed, "both ends say the same");
    resumed
}

/// The certificate that a client is shown who asks for `name`.
async fn shown(client: &ClientConfig, name: &str, acceptor: &Acceptor) -> CertificateDer<'static> {
    let (stream, _) = greet(client, name, acceptor).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}

fn der(files: &CertificateFiles) -> CertificateDer<'static> {
    Identity::load(files).unwrap().key.cert[0].clone()
}

fn fault<T>(result: io::Result<T>) -> Fault {
    Fault::of(&result.err().expect("the handshake fails"))
}

#[tokio::test]
async fn a_client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let authority = Authority::new();
    let [first, second] = [authority.issue("first", &["a.test"]), authority.issue("second", &["b.test", "c.test"])];
    let acceptor = acceptor(&[first.clone(), second.clone()]);
    let mut client = client_of(&authority);
    for (name, files) in [("a.test", &first), ("b.test", &second), ("c.test", &second), ("B.TEST", &second)] {
        assert_eq!(shown(&client, name, &acceptor).await, der(files), "{name}");
    }
    client.enable_sni = false;
    assert_eq!(shown(&client, "a.test", &acceptor).await, der(&first));
}

#[test]
fn exact_names_come_before_wildcards_and_the_first_certificate_serves_the_rest() {
    let authority = Authority::new();
    let files = [
        authority.issue("default", &["a.test"]),
        authority.issue("wild", &["*.b.test"]),
        authority.issue("exact", &["X.b.test"]),
    ];
    let identities: Vec<_> = files.iter().map(|files| Identity::load(files).unwrap()).collect();
    let chooser = Chooser::new(&identities);
    let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
    let choice = |name| {
        let chosen = chooser.choose(name, &schemes).unwrap();
        identities.iter().position(|identity| Arc::ptr_eq(&identity.key, chosen)).unwrap()
    };
    assert_eq!(choice(Some("x.b.test")), 2);
    assert_eq!(choice(Some("y.b.test")), 1);
    for other in ["b.test", "y.x.b.test", ".b.test.", "unknown.test", "test", ""] {
        assert_eq!(choice(Some(other)), 0, "{other}");
    }
    assert_eq!(choice(None), 0);
    assert!(chooser.choose(Some("a.test"), &[SignatureScheme::ED25519]).is_none(), "nobody could sign");
}

#[test]
fn of_two_certificates_for_a_name_the_first_that_the_client_understands_is_chosen() {
    let authority = Authority::new();
    let modern = authority.issue_as("modern", &["a.test"], &PKCS_ED25519, |_| {});
    let identities = [modern, authority.issue("common", &["a.test"])].map(|files| Identity::load(&files).unwrap());
    let chooser = Chooser::new(&identities);
    let chosen = |schemes: &[_]| chooser.choose(Some("a.test"), schemes).unwrap().cert[0].clone();
    let [modern, common] = identities.each_ref().map(|identity| identity.key.cert[0].clone());
    assert_eq!(chosen(&[SignatureScheme::ECDSA_NISTP256_SHA256]), common);
    assert_eq!(chosen(&[SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ED25519]), modern);
}

#[tokio::test]
async fn both_versions_are_spoken_unless_the_older_is_excluded() {
    let authority = Authority::new();
    let files = authority.issue("site", &["a.test"]);
    let both = acceptor(std::slice::from_ref(&files));
    let old = client_with(&authority, &[&rustls::version::TLS12], None);
    let new = client_with(&authority, &[&rustls::version::TLS13], None);
    assert_eq!(greet(&old, "a.test", &both).await.1.version, TlsVersion::Tls12);
    let (_, handshake) = greet(&new, "a.test", &both).await;
    assert_eq!(handshake.version, TlsVersion::Tls13);
    assert_eq!(handshake.server_name.as_deref(), Some("a.test"));
    assert_eq!(handshake.client, None);

    let settings = FrontTls { min_version: TlsVersion::Tls13, ..front(&[files]) };
    let only_new = accepting(&settings);
    assert_eq!(greet(&new, "a.test", &only_new).await.1.version, TlsVersion::Tls13);
    let (client, server) = meet(&old, "a.test", &only_new).await;
    assert_eq!((fault(client), fault(server)), (Fault::Refused, Fault::Incompatible));
}

#[tokio::test]
async fn the_protocol_is_agreed_on() {
    let authority = Authority::new();
    let settings = front(&[authority.issue("site", &["a.test"])]);
    let mut client = client_of(&authority);
    for (http2, offered, agreed) in [
        (true, protocols(true), true),
        (true, vec![HTTP_1.to_vec(), HTTP_2.to_vec()], true),
        (true, protocols(false), false),
        (true, vec![], false),
        (false, protocols(true), false),
    ] {
        client.alpn_protocols = offered;
        let acceptor = Acceptor::new(Front::load(&settings, http2, None).unwrap());
        let (_, handshake) = greet(&client, "a.test", &acceptor).await;
        assert_eq!(handshake.http2, agreed, "{http2} {:?}", client.alpn_protocols);
    }
    client.alpn_protocols = vec![b"imap".to_vec()];
    let (_, server) = meet(&client, "a.test", &Acceptor::new(Front::load(&settings, true, None).unwrap())).await;
    assert_eq!(fault(server), Fault::Incompatible);
}

#[tokio::test]
async fn sessions_are_resumed_by_ticket_and_by_id_in_both_versions() {
    let authority = Authority::new();
    let acceptor = acceptor(&[authority.issue("site", &["a.test"])]);
    let new = client_with(&authority, &[&rustls::version::TLS13], None);
    let old = client_with(&authority, &[&rustls::version::TLS12], None);
    let mut plain = client_with(&authority, &[&rustls::version::TLS12], None);
    plain.resumption = Resumption::in_memory_sessions(8).tls12_resumption(Tls12Resumption::SessionIdOnly);
    for client in [new, old, plain] {
        assert!(!resumes(&client, &acceptor).await, "the first handshake is whole");
        assert!(resumes(&client, &acceptor).await);
        assert!(resumes(&client, &acceptor).await);
    }
}

/// A thread of the data path: its own runtime, for one connection.
fn resumes_in_another_thread(client: &ClientConfig, acceptor: &Arc<Acceptor>) -> bool {
    let (client, acceptor) = (client.clone(), acceptor.clone());
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    thread::spawn(move || runtime().block_on(resumes(&client, &acceptor))).join().unwrap()
}

#[test]
fn sessions_are_resumed_on_another_thread_and_after_a_reload() {
    let authority = Authority::new();
    let settings = front(&[authority.issue("site", &["a.test"])]);
    let acceptor = Arc::new(accepting(&settings));
    let client = client_of(&authority);
    assert!(!resumes_in_another_thread(&client, &acceptor));
    assert!(resumes_in_another_thread(&client, &acceptor));
    reload(&acceptor, &settings);
    assert!(resumes_in_another_thread(&client, &acceptor));
}

#[tokio::test]
async fn who_was_let_in_under_other_rules_does_not_resume() {
    let authority = Authority::new();
    let settings = front(&[authority.issue("site", &["a.test"])]);
    let acceptor = accepting(&settings);
    let client = client_of(&authority);
    assert!(!resumes(&client, &acceptor).await);
    let auth = |required| Some(ClientAuth { ca: authority.ca(), required });
    let stricter = FrontTls { client_auth: auth(true), ..settings };
    reload(&acceptor, &stricter);
    let (_, server) = meet(&client, "a.test", &acceptor).await;
    assert_eq!(fault(server), Fault::Certificate);
    let milder = FrontTls { client_auth: auth(false), ..stricter };
    reload(&acceptor, &milder);
    assert!(!resumes(&client, &acceptor).await);
    assert!(resumes(&client, &acceptor).await);
}

#[tokio::test]
async fn a_reload_concerns_new_connections_alone() {
    let authority = Authority::new();
    let settings = front(&[authority.issue("site", &["a.test"])]);
    let acceptor = accepting(&settings);
    let client = || client_of(&authority);
    let (old_client, old_server) = meet(&client(), "a.test", &acceptor).await;
    let (mut old_client, mut old_server) = (old_client.unwrap(), old_server.unwrap().0);

    let before = shown(&client(), "a.test", &acceptor).await;
    let renewed = der(&authority.issue("site", &["a.test"]));
    assert_ne!(before, renewed);
    let front = Front::load(&settings, false, Some(&acceptor.front())).unwrap();
    assert_eq!(shown(&client(), "a.test", &acceptor).await, before, "loading changes nothing");
    acceptor.install(front);
    assert_eq!(shown(&client(), "a.test", &acceptor).await, renewed);

    old_client.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    old_server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let authority = Authority::new();
    let good = authority.issue("site", &["a.test"]);
    let acceptor = acceptor(std::slice::from_ref(&good));
    let before = der(&good);
    let other = authority.issue("other", &["b.test"]);
    fs::write(&other.key, "").unwrap();
    authority.issue("site", &["a.test"]);
    let error = Front::load(&front(&[good, other]), false, Some(&acceptor.front())).err().unwrap();
    assert!(matches!(error, TlsError::NoKey { .. }), "{error}");
    assert_eq!(shown(&client_of(&authority), "a.test", &acceptor).await, before);
}

#[test]
fn every_fault_names_its_file_and_what_to_do() {
    let authority = Authority::new();
    let site = authority.issue("site", &["a.test"]);
    let other = authority.issue("other", &["b.test"]);
    let write = |name: &str, text: &str| {
        fs::write(authority.file(name), text).unwrap();
        authority.file(name)
    };
    let missing = authority.file("missing.pem");
    let empty = write("empty.pem", "nothing to see here\n");
    let torn = write("torn.pem", "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n");
    let noise = write("noise.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let weak = write("weak.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");

    let check = |chain: &Path, key: &Path| {
        front(&[CertificateFiles { chain: chain.to_owned(), key: key.to_owned() }]).check().unwrap_err().to_string()
    };
    let says = |error: String, path: &Path, advice: &str| {
        assert!(error.contains(path.to_str().unwrap()) && error.contains(advice), "{error}");
    };
    says(check(&missing, &site.key), &missing, "cannot read");
    says(check(&site.chain, &missing), &missing, "see that it exists");
    says(check(&empty, &site.key), &empty, "no certificate in");
    says(check(&torn, &site.key), &torn, "malformed");
    says(check(&noise, &site.key), &noise, "certificate 1 in");
    says(check(&site.chain, &empty), &empty, "no private key");
    says(check(&site.chain, &site.chain), &site.chain, "not encrypted");
    says(check(&site.chain, &weak), &weak, "cannot be used");
    says(check(&site.chain, &other.key), &other.key, "put its certificate first");
    assert!(front(&[]).check().unwrap_err().to_string().contains("name at least one chain"));

    let auth = |ca: &Path| FrontTls {
        client_auth: Some(ClientAuth { ca: ca.to_owned(), required: true }),
        ..front(std::slice::from_ref(&site))
    };
    says(auth(&empty).check().unwrap_err().to_string(), &empty, "no certificate in");
    says(auth(&noise).check().unwrap_err().to_string(), &noise, "malformed");
    assert_eq!(auth(&authority.ca()).check().unwrap(), []);

    let back = |name: &str| BackTls { server_name: Some(name.to_owned()), ..back_tls(&authority) };
    assert!(back("a b").check().unwrap_err().to_string().contains("\"a b\""));
    assert_eq!(back("a.test").check().unwrap(), []);
}

#[test]
fn a_certificate_and_its_key_may_share_a_file() {
    let authority = Authority::new();
    let site = authority.issue("site", &["a.test"]);
    let both = authority.file("both.pem");
    let text = fs::read_to_string(&site.key).unwrap() + &fs::read_to_string(&site.chain).unwrap();
    fs::write(&both, text).unwrap();
    assert_eq!(front(&[CertificateFiles { chain: both.clone(), key: both }]).check().unwrap(), []);
}

#[test]
fn certificates_out_of_their_time_are_used_with_a_warning() {
    let authority = Authority::new();
    let old = authority.issue_as("old", &["a.test"], &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 2, 3);
    });
    let new = authority.issue_as("new", &["a.test"], &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
        params.not_after = date_time_ymd(4001, 1, 1);
    });
    let warnings = acceptor(&[old.clone(), authority.issue("fine", &["a.test"]), new.clone()]).front().warnings();
    let [TlsWarning::Expired { path: expired, .. }, TlsWarning::Early { path: early, .. }] = &warnings[..] else {
        panic!("{warnings:?}")
    };
    assert_eq!([expired, early], [&old.chain, &new.chain]);
    assert!(warnings[0].to_string().contains("expired on Sun, 03 Feb 2002"), "{}", warnings[0]);
    let back = BackTls { certificate: Some(old), ..back_tls(&authority) };
    assert!(matches!(back.check().unwrap()[..], [TlsWarning::Expired { .. }]));
}

#[test]
fn no_key_is_shown() {
    let authority = Authority::new();
    let site = authority.issue("site", &["a.test"]);
    let text = fs::read_to_string(&site.key).unwrap();
    let secret = text.lines().nth(1).unwrap();
    let settings = front(std::slice::from_ref(&site));
    let back = BackTls { certificate: Some(site), ..back_tls(&authority) };
    let acceptor = accepting(&settings);
    let connector = connecting(&back);
    let shown = format!("{settings:?} {back:?} {acceptor:?} {connector:?}");
    assert!(shown.contains("site.pem") && !shown.contains(secret), "{shown}");
    assert!(shown.len() < 2000, "neither keys in other forms nor whole certificates: {shown}");
}

#[tokio::test]
async fn clients_show_certificates_where_they_must_and_where_they_may() {
    let [authority, stranger] = [Authority::new(), Authority::new()];
    let site = front(&[authority.issue("site", &["a.test"])]);
    let [alice, mallory] = [authority.issue("alice", &[]), stranger.issue("mallory", &[])];
    for version in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let anonymous = client_with(&authority, version, None);
        let known = client_with(&authority, version, Some(&alice));
        let unknown = client_with(&authority, version, Some(&mallory));
        for required in [true, false] {
            let client_auth = Some(ClientAuth { ca: authority.ca(), required });
            let acceptor = accepting(&FrontTls { client_auth, ..site.clone() });
            for expected_resumption in [false, true] {
                let (_, handshake) = greet(&known, "a.test", &acceptor).await;
                assert!(handshake.client.as_deref().is_some_and(|subject| subject.contains("CN=alice")));
                assert_eq!(handshake.resumed, expected_resumption);
            }
            let (_, server) = meet(&unknown, "a.test", &acceptor).await;
            assert_eq!(fault(server), Fault::Certificate);
            let (_, server) = meet(&anonymous, "a.test", &acceptor).await;
            if required {
                assert_eq!(fault(server), Fault::Certificate);
            } else {
                assert_eq!(server.unwrap().1.client, None);
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_told_apart() {
    let [authority, stranger] = [Authority::new(), Authority::new()];
    let acceptor = acceptor(&[authority.issue("site", &["a.test"])]);
    let (mut client, server) = pair().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await.unwrap();
    assert_eq!(fault(acceptor.accept(server).await), Fault::Malformed);
    let (client, server) = pair().await;
    drop(client);
    assert_eq!(fault(acceptor.accept(server).await), Fault::Closed);
    let (client, server) = meet(&client_of(&stranger), "a.test", &acceptor).await;
    assert_eq!((fault(client), fault(server)), (Fault::Certificate, Fault::Refused));
}

fn back_tls(authority: &Authority) -> BackTls {
    BackTls { authorities: Authorities::File(authority.ca()), ..BackTls::default() }
}

/// A dispatcher's `connector` reaches a server that it knows as `host`.
async fn reach(connector: &Connector, host: &str, server: &Acceptor) -> io::Result<(Stream, Stream)> {
    let (near, far) = pair().await;
    let (near, far) = tokio::join!(connector.connect(near, host, Protocol::Http1), server.accept(far));
    Ok((near?.0, far?.0))
}

#[tokio::test]
async fn a_server_needs_a_certificate_for_its_name_from_an_authority_that_counts() {
    let [authority, stranger] = [Authority::new(), Authority::new()];
    let server = acceptor(&[authority.issue("server", &["web-1.test", "127.0.0.1"])]);
    let connector = connecting(&back_tls(&authority));
    for host in ["web-1.test", "127.0.0.1"] {
        reach(&connector, host, &server).await.unwrap();
    }
    for host in ["web-2.test", "127.0.0.2"] {
        assert_eq!(fault(reach(&connector, host, &server).await), Fault::Certificate, "{host}");
    }
    for (connector, host) in [(&connector, "no name"), (&Connector::new(None), "web-1.test")] {
        assert!(reach(connector, host, &server).await.is_err(), "{host}");
    }
    let foreign = acceptor(&[stranger.issue("server", &["web-1.test"])]);
    assert_eq!(fault(reach(&connector, "web-1.test", &foreign).await), Fault::Certificate);
    let expired = authority.issue_as("old", &["web-1.test"], &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = date_time_ymd(2002, 2, 3);
    });
    assert_eq!(fault(reach(&connector, "web-1.test", &acceptor(&[expired])).await), Fault::Certificate);
}

#[tokio::test]
async fn a_server_with_a_certificate_of_its_own_making_is_trusted_by_naming_it() {
    let [folder, other] = [Authority::new(), Authority::new()];
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["web.test".to_owned()]).unwrap();
    let files = CertificateFiles { chain: folder.file("own.pem"), key: folder.file("own.key") };
    fs::write(&files.chain, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    let server = acceptor(std::slice::from_ref(&files));
    let settings = BackTls { authorities: Authorities::File(files.chain), ..BackTls::default() };
    reach(&connecting(&settings), "web.test", &server).await.unwrap();
    let connector = connecting(&back_tls(&other));
    assert_eq!(fault(reach(&connector, "web.test", &server).await), Fault::Certificate);
}

#[tokio::test]
async fn one_name_may_be_that_of_all_servers() {
    let authority = Authority::new();
    let server = acceptor(&[authority.issue("other", &["b.test"]), authority.issue("server", &["web.test"])]);
    let settings = BackTls { server_name: Some("web.test".to_owned()), ..back_tls(&authority) };
    let connector = connecting(&settings);
    reach(&connector, "127.0.0.1", &server).await.unwrap();
}

#[tokio::test]
async fn sessions_with_servers_are_resumed() {
    let authority = Authority::new();
    let server = acceptor(&[authority.issue("server", &["web.test"])]);
    let connector = connecting(&back_tls(&authority));
    for expected in [false, true] {
        let (mut near, mut far) = reach(&connector, "web.test", &server).await.unwrap();
        assert_eq!(near.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed), expected);
        far.write_all(b"!").await.unwrap();
        far.flush().await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'!');
    }
}

#[tokio::test]
async fn a_dispatcher_shows_its_certificate_to_servers_and_can_renew_it() {
    let authority = Authority::new();
    let client_auth = Some(ClientAuth { ca: authority.ca(), required: true });
    let settings = FrontTls { client_auth, ..front(&[authority.issue("server", &["web.test"])]) };
    let server = accepting(&settings);
    let certificate = Some(authority.issue("dispatcher-1", &[]));
    let settings = BackTls { certificate, ..back_tls(&authority) };
    let connector = connecting(&settings);
    let subject = async |connector: &Connector| {
        let (near, far) = pair().await;
        let (near, far) = tokio::join!(connector.connect(near, "web.test", Protocol::Http1), server.accept(far));
        near.unwrap();
        far.unwrap().1.client.unwrap()
    };
    assert!(subject(&connector).await.contains("CN=dispatcher-1"));
    let settings = BackTls { certificate: Some(authority.issue("dispatcher-2", &[])), ..settings };
    connector.install(Some(Back::load(&settings).unwrap()));
    assert!(subject(&connector).await.contains("CN=dispatcher-2"));
}

#[tokio::test]
async fn a_stream_that_is_cut_is_told_from_one_that_has_ended() {
    let authority = Authority::new();
    let server = acceptor(&[authority.issue("server", &["web.test"])]);
    let connector = connecting(&back_tls(&authority));
    for polite in [true, false] {
        let (mut near, mut far) = reach(&connector, "web.test", &server).await.unwrap();
        far.write_all(b"body").await.unwrap();
        far.flush().await.unwrap();
        if polite {
            far.shutdown().await.unwrap();
        }
        drop(far);
        let mut body = Vec::new();
        let end = near.read_to_end(&mut body).await;
        assert_eq!(body, b"body");
        assert_eq!(end.map_err(|error| error.kind()), if polite { Ok(4) } else { Err(io::ErrorKind::UnexpectedEof) });
    }
}

//! Clients of HTTP/2 that ask for more than they may (RFC 9113, section 10.5).

mod kit;

use kit::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GET, GOAWAY, HEADERS, INTERNAL_ERROR, PING,
    PREFACE, PRIORITY, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame,
};
use kit::{PATIENCE, Server, before, dispatcher, wait_for};
use std::io::Write;
use std::time::Duration;
use vibra_proxy::Handle;

const SOON: Duration = Duration::from_millis(300);
/// More than anybody gets through with.
const MANY: u32 = 20_000;

/// Sends what `flood` makes of each number, until the other side says enough; the code that it says it with.
fn flood(peer: &mut Peer, flood: impl Fn(u32) -> Vec<u8> + Send + 'static) -> u32 {
    let mut writer = peer.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        // Fails once the other side has closed.
        let _ = (0..MANY).try_for_each(|n| writer.write_all(&flood(n)));
    });
    let code = peer.next(&[GOAWAY]).code();
    let _ = peer.stream.shutdown(std::net::Shutdown::Both);
    writing.join().unwrap();
    code
}

/// Whether the dispatcher serves others.
fn is_well(dispatcher: &Handle) -> bool {
    let mut peer = Peer::of(dispatcher);
    peer.open(1, &GET, END_STREAM);
    peer.next(&[DATA]).payload == b"well"
}

#[test]
fn frames_that_ask_for_nothing_are_bounded() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    type Each = fn(u32) -> Vec<u8>;
    let floods: [(&str, Each); 7] = [
        ("PING", |_| frame(PING, 0, 0, b"12345678")),
        ("PING that answers nothing", |_| frame(PING, ACK, 0, b"12345678")),
        ("SETTINGS", |_| frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS of windows", |n| frame(SETTINGS, 0, 0, &[&[0, 4][..], &(n & 1).to_be_bytes()].concat())),
        ("PRIORITY", |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7])),
        ("WINDOW_UPDATE", |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())),
        ("unknown", |_| frame(0xbe, 0, 0, b"what")),
    ];
    for (name, each) in floods {
        assert_eq!(flood(&mut Peer::of(&dispatcher), each), ENHANCE_YOUR_CALM, "{name}");
        assert!(is_well(&dispatcher), "{name}");
    }
    assert_eq!(server.requests().len(), 7, "one each to see that all is well");
}

#[test]
fn empty_data_is_bounded() {
    let server = Server::silent();
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &[&[(":method", "POST")], &GET[1..]].concat(), 0);
    assert_eq!(flood(&mut peer, |_| frame(DATA, 0, 1, &[])), ENHANCE_YOUR_CALM);
    wait_for("the request is given up", || dispatcher.status().servers[0].active == 0);
}

#[test]
fn rapid_reset_is_bounded() {
    let server = Server::silent();
    let dispatcher = before(&server);
    let open_and_reset = |n: u32| {
        let stream = 2 * n + 1;
        [frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET)), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])]
            .concat()
    };
    assert_eq!(flood(&mut Peer::of(&dispatcher), open_and_reset), ENHANCE_YOUR_CALM);
    wait_for("no request is left", || dispatcher.status().servers[0].active == 0);
    assert!(dispatcher.status().servers[0].picks <= 1100, "{}", dispatcher.status().servers[0].picks);
}

#[test]
fn a_head_that_does_not_end_is_bounded() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    // Fields that count for nothing, and none.
    for payload in [vec![0x20; 1000], Vec::new(), block(&[("x-a", "1")])] {
        let mut peer = Peer::of(&dispatcher);
        peer.send(frame(HEADERS, END_STREAM, 1, &block(&GET)));
        let code = flood(&mut peer, move |_| frame(CONTINUATION, 0, 1, &payload));
        assert_ne!(code, 0);
        assert!(is_well(&dispatcher));
    }
}

#[test]
fn fields_that_grow_when_unpacked_are_bounded() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    // A field of nearly 4 KB that the table keeps (RFC 7541, section 6.2.1), then so many times its number.
    let kept = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
    let mut bomb = |stream: u32, times: usize| {
        let fields = [&block(&GET)[..], &kept, &vec![0xbe; times]].concat();
        peer.send(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
        peer.next(&[HEADERS, GOAWAY])
    };
    assert_eq!(bomb(1, 1).kind, HEADERS);
    assert_eq!(server.requests().len(), 1);
    let refused = bomb(3, 20);
    assert_eq!(refused.kind, HEADERS, "431: {refused:?}");
    assert_eq!(server.requests().len(), 1);
    let enough = bomb(5, 8000);
    assert_eq!((enough.kind, enough.code()), (GOAWAY, ENHANCE_YOUR_CALM));
    assert!(is_well(&dispatcher));
}

#[test]
fn fields_beyond_the_limits_are_refused() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| config.limits.headers = 20);
    let mut peer = Peer::of(&dispatcher);
    let many = vec![("x-many", "1"); 30];
    peer.open(1, &[&GET[..], &many].concat(), END_STREAM);
    assert!(peer.next(&[DATA]).payload.starts_with(b"431"));
    assert_eq!(server.requests(), []);
}

/// A server that has more to say than anything between holds.
fn endless() -> Server {
    Server::run(|connection| {
        const HUGE: usize = 64 * 1024 * 1024;
        connection.head()?;
        let mut response = format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n").into_bytes();
        response.resize(response.len() + HUGE, b'x');
        connection.send(response)
    })
}

fn impatient(server: &Server) -> Handle {
    dispatcher(&[server.endpoint()], |config| config.timeouts.stall = SOON)
}

#[test]
fn a_stream_whose_window_stays_shut_ends() {
    let server = endless();
    let dispatcher = impatient(&server);
    // SETTINGS_INITIAL_WINDOW_SIZE
    let mut peer = Peer::with(&dispatcher, &[(4, 10)]);
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA]).payload, b"xxxxxxxxxx");
    assert_eq!(peer.next(&[RST_STREAM, DATA]).code(), INTERNAL_ERROR);
    let status = dispatcher.status();
    assert_eq!((status.servers[0].active, status.servers[0].failures["client"]), (0, 1), "not the server's fault");
}

#[test]
fn windows_opened_by_a_byte_are_bounded() {
    let server = endless();
    let dispatcher = before(&server);
    let mut peer = Peer::with(&dispatcher, &[(4, 1)]);
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA]).payload, b"x");
    assert_eq!(flood(&mut peer, |_| frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes())), ENHANCE_YOUR_CALM);
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let server = endless();
    let dispatcher = impatient(&server);
    // Windows as large as can be: what is in the way is the connection itself.
    let mut peer = Peer::with(&dispatcher, &[(4, 0x7fff_ffff)]);
    peer.send(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
    for n in 0..10 {
        peer.open(2 * n + 1, &GET, END_STREAM);
    }
    wait_for("all have asked", || server.requests().len() == 10);
    wait_for("the client is cut off", || dispatcher.status().connections == 0);
    wait_for("the requests are given up", || dispatcher.status().servers[0].active == 0);
}

#[test]
fn who_begins_and_does_not_go_on_is_cut_off() {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        config.timeouts.header = SOON;
        config.timeouts.client_idle = PATIENCE;
    });
    for begun in [&PREFACE[..18], &PREFACE[..20]] {
        let mut peer = Peer::silent(dispatcher.addresses()[0]);
        peer.send(begun);
        assert!(peer.is_ended(), "{begun:?}");
    }
}

#[test]
fn requests_are_no_flood() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    // Each with as many other frames as clients send.
    for n in 0..400 {
        let stream = 2 * n + 1;
        peer.open(stream, &GET, END_STREAM);
        peer.send(frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 7]));
        peer.send(frame(WINDOW_UPDATE, 0, 0, &4_u32.to_be_bytes()));
        peer.send(frame(WINDOW_UPDATE, 0, stream, &4_u32.to_be_bytes()));
        assert_eq!(peer.next(&[DATA, GOAWAY]).payload, b"well");
        peer.send(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
}

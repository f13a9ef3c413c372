//! What connections of HTTP/2 hold is counted by `limits.memory` (RFC 9113, section 10.5).

mod kit;

use kit::http2::{END_STREAM, GET, Peer, WINDOW_UPDATE, frame};
use kit::{Server, dispatcher, get, metric, wait_for, with_admin};

/// A client takes nothing of what it has asked for.
#[test]
fn what_http_2_waits_to_send_is_counted() {
    let server = Server::run(|connection| {
        if connection.head()?.path() == "/small" {
            return connection.answer("small");
        }
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", 8 << 20, "x".repeat(8 << 20));
        connection.send(response)
    });
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.memory = 1 << 20;
    });
    let memory = || metric(&dispatcher, "vibra_proxy_memory_bytes");
    // SETTINGS_INITIAL_WINDOW_SIZE: the windows are as large as can be, what is in the way is the connection itself.
    let mut hungry = Peer::with(&dispatcher, &[(4, 0x7fff_ffff)]);
    hungry.send(frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes()));
    let mut streams = 0;
    wait_for("new requests are sent away", || {
        hungry.open(2 * streams + 1, &GET, END_STREAM);
        streams += 1;
        get(&dispatcher, "/small").status() == 503
    });
    assert!(streams > 3 && memory() > 512 << 10, "{} bytes with {streams} streams", memory());
    // Closed with something unread, it ends in a reset.
    drop(hungry);
    wait_for("nothing is held", || memory() <= 256 << 10);
}

/// What a client has sent and no server takes may fill a window for each body, or as much as it is long.
#[test]
fn what_http_2_has_read_and_nobody_takes_is_counted() {
    let server = Server::silent();
    let dispatcher = dispatcher(&[server.endpoint()], |config| {
        with_admin(config);
        config.limits.streams = 50;
    });
    let memory = || metric(&dispatcher, "vibra_proxy_memory_bytes");
    let post = |more: &[(&'static str, &'static str)]| [&[(":method", "POST")], &GET[1..], more].concat();
    let mut peer = Peer::of(&dispatcher);
    for n in 0..20 {
        peer.open(2 * n + 1, &post(&[("content-length", "10")]), 0);
    }
    wait_for("all are there", || server.requests().len() == 20);
    let before = memory();
    assert!(before < 20 * (64 << 10), "{before}: short bodies are short");
    for n in 20..40 {
        peer.open(2 * n + 1, &post(&[]), 0);
    }
    wait_for("all are there", || server.requests().len() == 40);
    assert!(memory() >= before + 20 * (64 << 10) - (256 << 10), "{} after {before}", memory());
    drop(peer);
    wait_for("nothing is held", || memory() <= 256 << 10);
}

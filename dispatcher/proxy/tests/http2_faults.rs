//! Frames that break the rules of RFC 9113, byte by byte: which error each is, and that others are served on.

mod kit;

use kit::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, Frame, GET, GOAWAY,
    HEADERS, PING, PREFACE, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, Peer, RST_STREAM, SETTINGS, STREAM_CLOSED,
    WINDOW_UPDATE, block, frame,
};
use kit::{Server, before};
use vibra_proxy::Handle;

const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;
const POST: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "shop.example")];

/// Sends these frames, and waits for the error.
fn fault(dispatcher: &Handle, frames: &[u8]) -> Frame {
    let mut peer = Peer::of(dispatcher);
    peer.send(frames);
    peer.next(&[GOAWAY, RST_STREAM])
}

/// Whether an error is this one. Where the section has one of its own, h2 often has the general one.
fn is(fault: &Frame, code: u32) -> bool {
    [code, PROTOCOL_ERROR].contains(&fault.code())
}

/// Ends its connection with this error, and no server hears of a request.
#[track_caller]
fn assert_ends(name: &str, code: u32, frames: &[u8]) {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let fault = fault(&dispatcher, frames);
    assert!(fault.kind == GOAWAY && is(&fault, code), "{name}: {fault:?}");
    assert_eq!(server.requests(), [], "{name}");
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA, GOAWAY]).payload, b"well", "{name}: others are served");
}

fn settings(identifier: u16, value: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[&identifier.to_be_bytes()[..], &value.to_be_bytes()].concat())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn get(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&GET))
}

#[test]
fn rfc9113_3_4_what_begins_otherwise_is_no_http_2() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    // A wrong end of the preface; no settings after it.
    for begun in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r"[..], &[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()] {
        let mut peer = Peer::silent(dispatcher.addresses()[0]);
        peer.send(begun);
        assert!(peer.is_ended(), "{begun:?}");
    }
    assert_eq!(server.requests(), []);
}

#[test]
fn rfc9113_4_2_frames_have_their_sizes() {
    for (name, frames) in [
        ("a frame beyond the largest", frame(0xbe, 0, 0, &vec![0; 16_385])),
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 4])),
        ("RST_STREAM", [get(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat()),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0; 5])),
        ("SETTINGS that answer with something", frame(SETTINGS, ACK, 0, &[0; 6])),
        ("PING", frame(PING, 0, 0, &[0; 7])),
        ("GOAWAY", frame(GOAWAY, 0, 0, &[0; 7])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0; 3])),
    ] {
        let server = Server::silent();
        let dispatcher = before(&server);
        let fault = fault(&dispatcher, &frames);
        assert!(fault.kind == GOAWAY && is(&fault, FRAME_SIZE_ERROR), "{name}: {fault:?}");
    }
}

#[test]
fn rfc9113_4_3_a_field_block_that_cannot_be_read_ends_the_connection() {
    const COMPRESSION_ERROR: u32 = 9;
    for (name, fields) in [
        ("a number that is in no table", &[0xff, 0xff, 0xff, 0x07][..]),
        ("a number that does not end", &[0xff; 20]),
        ("number 0", &[0x80]),
        ("a table beyond what was agreed on", &[0x3f, 0xe1, 0xff, 0x03]),
        ("a text that is cut off", &[0, 5, b'x']),
        ("padding of a code that is none", &[0, 0x81, 0x00, 0]),
    ] {
        assert_ends(name, COMPRESSION_ERROR, &frame(HEADERS, END_HEADERS | END_STREAM, 1, fields));
    }
}

#[test]
fn rfc9113_5_1_frames_come_where_streams_are_ready_for_them() {
    for (name, frames) in [
        ("DATA on an idle stream", frame(DATA, END_STREAM, 1, b"x")),
        ("RST_STREAM on an idle stream", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("WINDOW_UPDATE on an idle stream", window(1, 1)),
        ("CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &block(&GET))),
    ] {
        assert_ends(name, PROTOCOL_ERROR, &frames);
    }
}

#[test]
fn rfc9113_5_1_what_follows_a_request_s_end_is_an_error() {
    for (name, late) in [("DATA", frame(DATA, 0, 1, b"x")), ("HEADERS", get(1))] {
        let server = Server::silent();
        let dispatcher = before(&server);
        let fault = fault(&dispatcher, &[get(1), late].concat());
        assert!(is(&fault, STREAM_CLOSED), "{name}: {fault:?}");
    }
}

#[test]
fn rfc9113_5_1_1_clients_streams_are_odd_and_grow() {
    assert_ends("an even number", PROTOCOL_ERROR, &get(2));
    assert_ends("stream 0", PROTOCOL_ERROR, &get(0));
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(5, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA]).payload, b"well");
    peer.open(3, &GET, END_STREAM);
    let fault = peer.next(&[GOAWAY, DATA]);
    assert_eq!(fault.kind, GOAWAY, "{fault:?}");
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn rfc9113_6_1_padding_is_shorter_than_its_frame() {
    assert_ends("HEADERS", PROTOCOL_ERROR, &frame(HEADERS, PADDED | END_HEADERS | END_STREAM, 1, &[200, 0, 0]));
    let server = Server::silent();
    let dispatcher = before(&server);
    let open = frame(HEADERS, END_HEADERS, 1, &block(&POST));
    let fault = fault(&dispatcher, &[open, frame(DATA, PADDED, 1, &[4, b'x'])].concat());
    assert_eq!((fault.kind, fault.code()), (GOAWAY, PROTOCOL_ERROR));
}

#[test]
fn rfc9113_6_1_padding_is_no_part_of_a_body() {
    let server = Server::well(|request| request.text().to_owned());
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    let fields = block(&[&POST[..], &[("content-length", "3")]].concat());
    let padded = [&[4][..], &fields, &[0; 4]].concat();
    peer.send(frame(HEADERS, PADDED | END_HEADERS, 1, &padded));
    peer.send(frame(DATA, PADDED | END_STREAM, 1, b"\x05abc\0\0\0\0\0"));
    assert_eq!(peer.next(&[DATA, RST_STREAM, GOAWAY]).payload, b"abc");
}

#[test]
fn rfc9113_6_2_a_field_block_is_not_interrupted() {
    let begun = frame(HEADERS, END_STREAM, 1, &block(&GET));
    for (name, between) in [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("HEADERS of another stream", get(3)),
        ("CONTINUATION of another stream", frame(CONTINUATION, END_HEADERS, 3, &[])),
        ("an unknown frame", frame(0xbe, 0, 1, b"x")),
    ] {
        assert_ends(name, PROTOCOL_ERROR, &[begun.clone(), between].concat());
    }
}

#[test]
fn rfc9113_6_3_priorities_mean_nothing() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.send(frame(PRIORITY, 0, 7, &[0x80, 0, 0, 5, 255]));
    let with_priority = [&[0x80, 0, 0, 3, 9][..], &block(&GET)].concat();
    peer.send(frame(HEADERS, WITH_PRIORITY | END_HEADERS | END_STREAM, 1, &with_priority));
    assert_eq!(peer.next(&[DATA, RST_STREAM, GOAWAY]).payload, b"well");
}

#[test]
fn rfc9113_6_5_settings_have_their_values() {
    for (name, code, frames) in [
        ("push of neither", PROTOCOL_ERROR, settings(2, 2)),
        ("a window beyond the largest", FLOW_CONTROL_ERROR, settings(4, 0x8000_0000)),
        ("frames smaller than may be", PROTOCOL_ERROR, settings(5, 16_383)),
        ("frames larger than may be", PROTOCOL_ERROR, settings(5, 16_777_216)),
        ("settings of a stream", PROTOCOL_ERROR, frame(SETTINGS, 0, 1, &[])),
    ] {
        assert_ends(name, code, &frames);
    }
}

#[test]
fn rfc9113_6_5_2_unknown_settings_are_passed_over() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::with(&dispatcher, &[(0xbeef, 7)]);
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA, RST_STREAM, GOAWAY]).payload, b"well");
}

#[test]
fn rfc9113_6_6_clients_promise_nothing() {
    let promise = [&4_u32.to_be_bytes()[..], &block(&GET)].concat();
    assert_ends("PUSH_PROMISE", PROTOCOL_ERROR, &frame(PUSH_PROMISE, END_HEADERS, 1, &promise));
}

#[test]
fn rfc9113_6_7_a_ping_is_of_the_connection() {
    assert_ends("PING", PROTOCOL_ERROR, &frame(PING, 0, 1, &[0; 8]));
}

#[test]
fn rfc9113_6_8_a_client_that_goes_away_gets_its_answers() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.send([get(1), frame(GOAWAY, 0, 0, &[0; 8])].concat());
    assert_eq!(peer.next(&[DATA, RST_STREAM]).payload, b"well");
}

#[test]
fn rfc9113_6_9_windows_open_by_something() {
    assert_ends("a connection's window by nothing", PROTOCOL_ERROR, &window(0, 0));
    let server = Server::silent();
    let dispatcher = before(&server);
    let fault = fault(&dispatcher, &[get(1), window(1, 0)].concat());
    assert_eq!(fault.code(), PROTOCOL_ERROR, "{fault:?}");
}

#[test]
fn rfc9113_6_9_1_windows_do_not_overflow() {
    assert_ends("the connection's", FLOW_CONTROL_ERROR, &window(0, 0x7fff_ffff));
    let server = Server::silent();
    let dispatcher = before(&server);
    let fault = fault(&dispatcher, &[get(1), window(1, 0x7fff_ffff)].concat());
    assert_eq!((fault.kind, fault.stream, fault.code()), (RST_STREAM, 1, FLOW_CONTROL_ERROR));
}

#[test]
fn rfc9113_6_9_1_what_is_beyond_the_windows_is_an_error() {
    let server = Server::silent();
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &POST, 0);
    // 64 KiB are a stream's window, which a server that takes nothing does not open again; sockets hold a little more.
    let piece = frame(DATA, 0, 1, &[0; 16_384]);
    let mut writer = peer.stream.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        // Fails once the other side has closed.
        let _ = (0..4000).try_for_each(|_| std::io::Write::write_all(&mut writer, &piece));
    });
    let fault = peer.next(&[GOAWAY, RST_STREAM]);
    assert_eq!(fault.code(), FLOW_CONTROL_ERROR, "{fault:?}");
    let _ = peer.stream.shutdown(std::net::Shutdown::Both);
    writing.join().unwrap();
}

#[test]
fn rfc9113_6_9_2_windows_may_shrink_below_nothing() {
    let server = Server::well(|_| "0123456789".repeat(10));
    let dispatcher = before(&server);
    let mut peer = Peer::with(&dispatcher, &[(4, 60)]);
    peer.open(1, &GET, END_STREAM);
    assert_eq!(peer.next(&[DATA]).payload.len(), 60);
    // 60 were sent of what is now a window of 10; of 51 more the first 50 make up for that.
    peer.send([settings(4, 10), window(1, 51)].concat());
    assert_eq!(peer.next(&[DATA, RST_STREAM, GOAWAY]).payload.len(), 1);
    peer.send(window(1, 100));
    assert_eq!(peer.next(&[DATA, RST_STREAM, GOAWAY]).payload.len(), 39);
}

#[test]
fn rfc9113_8_1_trailers_end_a_request_and_have_no_pseudo_fields() {
    for (name, trailers) in [
        ("not at the end", frame(HEADERS, END_HEADERS, 1, &block(&[("x-a", "1")]))),
        ("of a connection", frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("connection", "close")]))),
        ("with a name in capitals", frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("X-A", "1")]))),
        ("with a line end", frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[("x-a", "1\r\nx-b: 2")]))),
    ] {
        let server = Server::run(|connection| {
            connection.request()?;
            connection.answer("taken for whole")
        });
        let dispatcher = before(&server);
        let mut peer = Peer::of(&dispatcher);
        peer.send([frame(HEADERS, END_HEADERS, 1, &block(&POST)), frame(DATA, 0, 1, b"abc"), trailers].concat());
        let answer = peer.next(&[GOAWAY, RST_STREAM, HEADERS]);
        assert!(answer.kind != HEADERS && answer.code() == PROTOCOL_ERROR, "{name}: {answer:?}");
        assert_eq!(server.requests(), [], "{name}: no server has seen it end");
    }
}

/// They are malformed; h2 passes over them instead, so they change nothing.
#[test]
fn rfc9113_8_1_pseudo_fields_of_trailers_go_no_further() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    let trailers = block(&[(":path", "/b"), ("x-sum", "1")]);
    peer.open(1, &POST, 0);
    peer.send([frame(DATA, 0, 1, b"abc"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers)].concat());
    assert_eq!(peer.next(&[DATA, RST_STREAM]).payload, b"well");
    let request = &server.requests()[0];
    assert_eq!((request.path(), request.text()), ("/", "abc"));
    assert_eq!(request.trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[test]
fn rfc9113_8_2_3_crumbs_of_cookies_are_one_cookie() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    let crumbs = [("cookie", "a=1"), ("x-between", "1"), ("cookie", "b=2"), ("cookie", "c=\"3; 4\"")];
    peer.open(1, &[&GET[..], &crumbs].concat(), END_STREAM);
    assert_eq!(peer.next(&[DATA, RST_STREAM]).payload, b"well");
    assert_eq!(server.requests()[0].header("cookie").as_deref(), Some("a=1; b=2; c=\"3; 4\""));
}

#[test]
fn rfc9113_8_3_1_what_a_path_may_be() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    for (path, passed) in [
        ("/", Some("/")),
        ("//other.example/", Some("//other.example/")),
        ("/a?b?c", Some("/a?b?c")),
        ("/..", Some("/..")),
        ("/%0d%0aX:%20y", Some("/%0d%0aX:%20y")),
        ("?a", None),
        ("a", None),
        ("http://other.example/", None),
        ("/a\tb", None),
        ("/a\u{7f}", None),
        ("/a HTTP/1.1\r\nX: y", None),
    ] {
        let before = server.requests().len();
        let mut peer = Peer::of(&dispatcher);
        peer.open(1, &GET.map(|field| if field.0 == ":path" { (":path", path) } else { field }), END_STREAM);
        match (passed, peer.next(&[DATA, RST_STREAM])) {
            (Some(target), answer) => {
                assert_eq!(answer.payload, b"well", "{path:?}");
                assert_eq!(server.requests().last().unwrap().path(), target);
            }
            (None, answer) => {
                assert_eq!((answer.kind, answer.code()), (RST_STREAM, PROTOCOL_ERROR), "{path:?}");
                assert_eq!(server.requests().len(), before, "{path:?}");
            }
        }
    }
}

/// RFC 8441 must be offered first, which the dispatcher does not.
#[test]
fn rfc8441_4_extended_connect_is_not_spoken() {
    let server = Server::named("well");
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    let offered = peer.next(&[SETTINGS]).payload;
    assert!(offered.chunks(6).all(|setting| setting[..2] != [0, 8]), "SETTINGS_ENABLE_CONNECT_PROTOCOL: {offered:?}");
    let connect = GET.map(|field| if field.0 == ":method" { (":method", "CONNECT") } else { field });
    peer.open(1, &[&connect[..], &[(":protocol", "websocket")]].concat(), 0);
    let answer = peer.next(&[RST_STREAM, GOAWAY]);
    assert_eq!(answer.code(), PROTOCOL_ERROR, "{answer:?}");
    assert_eq!(server.requests(), []);
}

/// A switch of protocols is for HTTP/1.1 alone.
#[test]
fn rfc9113_8_6_no_101_comes_through() {
    let server = Server::run(|connection| {
        connection.request()?;
        connection.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.open(1, &GET, END_STREAM);
    peer.next(&[HEADERS]);
    assert!(peer.next(&[DATA]).payload.starts_with(b"502"));
}

#[test]
fn rfc9113_7_an_error_that_nobody_knows_is_an_error() {
    let server = Server::silent();
    let dispatcher = before(&server);
    let mut peer = Peer::of(&dispatcher);
    peer.send([get(1), frame(RST_STREAM, 0, 1, &u32::MAX.to_be_bytes()), frame(PING, 0, 0, &[7; 8])].concat());
    let pong = peer.next(&[PING, GOAWAY]);
    assert_eq!((pong.kind, pong.flags), (PING, ACK), "the connection goes on");
}

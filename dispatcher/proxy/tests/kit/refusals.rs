//! What is to be refused, byte by byte.

use super::{Client, Server, before, dispatcher};
use vibra_proxy::Config;

/// Refused with `status`, connection closed, and no server hears of it.
#[track_caller]
pub fn assert_refused(request: &[u8], status: u16, change: impl FnOnce(&mut Config)) {
    let server = Server::named("well");
    let dispatcher = dispatcher(&[server.endpoint()], change);
    let mut client = Client::of(&dispatcher);
    client.send(request);
    let shown = String::from_utf8_lossy(request);
    let response = client.response().unwrap_or_else(|error| panic!("{error} after {shown:?}"));
    assert_eq!(response.status(), status, "{shown:?}");
    assert_eq!(response.header("connection").as_deref(), Some("close"), "{shown:?}");
    assert!(client.is_ended(), "{shown:?}");
    assert_eq!(server.requests(), [], "{shown:?}");
}

/// As [`assert_refused`], with 400, for lines after a good request line and `Host`.
#[track_caller]
pub fn assert_bad(fields: &str) {
    assert_refused(format!("POST / HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes(), 400, |_| {});
}

/// 502 for what a server sends, whose connection is not used again.
#[track_caller]
pub fn assert_bad_response(sent: &'static [u8]) {
    let server = Server::run(move |connection| {
        connection.request()?;
        connection.send(sent)?;
        connection.wait_for_end()
    });
    let dispatcher = before(&server);
    let shown = String::from_utf8_lossy(sent);
    let mut client = Client::of(&dispatcher);
    assert_eq!(client.get("/").status(), 502, "{shown:?}");
    assert_eq!(client.get("/").status(), 502, "{shown:?}");
    assert_eq!(server.connections(), 2, "{shown:?}");
}

//! As much of HTTP/1.1 as a load generator needs that knows its servers.

use anyhow::{Context, bail, ensure};
use httparse::{EMPTY_HEADER, Response, Status};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The request for a path.
pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
}

/// The head of a response: its length and that of the body after it, in bytes. `None`: there is more to read.
///
/// # Errors
/// If it is no response, not 200, has a body without a length, or closes the connection.
pub(super) fn head(bytes: &[u8]) -> anyhow::Result<Option<(usize, u64)>> {
    let mut headers = [EMPTY_HEADER; 64];
    let mut response = Response::new(&mut headers);
    let Status::Complete(length) = response.parse(bytes).context("an answer that is not HTTP/1.1")? else {
        return Ok(None);
    };
    let status = response.code.unwrap_or_default();
    ensure!(status == 200, "an answer with status {status}");
    let mut body = None;
    for header in response.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            body = std::str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok());
        } else if header.name.eq_ignore_ascii_case("connection") && header.value.eq_ignore_ascii_case(b"close") {
            bail!("an answer that closes its connection");
        }
    }
    Ok(Some((length, body.context("an answer without Content-Length")?)))
}

/// Asks for a path, and waits for the whole answer.
///
/// # Errors
/// As [`head`], and if it does not come.
pub(super) fn exchange(stream: &mut TcpStream, path: &str) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&get(path))?;
    let mut answer = Vec::new();
    loop {
        let mut part = [0; 1024];
        let length = stream.read(&mut part)?;
        ensure!(length > 0, "a connection that closes before its answer is complete");
        answer.extend_from_slice(&part[..length]);
        if head(&answer)?.is_some_and(|(head, body)| answer.len() as u64 >= head as u64 + body) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        let whole = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello";
        assert_eq!(head(whole).unwrap(), Some((whole.len() - 5, 5)));
        assert_eq!(head(&whole[..40]).unwrap(), None);
        assert_eq!(head(b"").unwrap(), None);
    }

    #[test]
    fn answers_that_are_not_wanted_are_errors() {
        for (answer, says) in [
            ("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "status 503"),
            ("HTTP/1.1 200 OK\r\n\r\n", "without Content-Length"),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", "closes its connection"),
            ("SSH-2.0-x\r\n\r\n", "not HTTP/1.1"),
        ] {
            let error = head(answer.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

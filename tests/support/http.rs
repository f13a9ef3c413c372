//! An HTTP client that says how a body ended.

use super::PATIENCE;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
};

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// As its framing says.
    Whole,
    /// Before that.
    Broken,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: End,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        assert_eq!((self.status, self.end), (200, End::Whole), "{}", self.text());
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

/// A socket whose waits have a bound.
pub(crate) fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that is kept.
pub(crate) struct Client<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
    host: SocketAddr,
}

impl Client {
    pub(crate) fn connect(to: SocketAddr) -> io::Result<Client> {
        Ok(Client::over(connect(to)?, to))
    }
}

impl<S: Read + Write> Client<S> {
    /// On a connection to `host` that is there already.
    pub(crate) fn over(stream: S, host: SocketAddr) -> Self {
        Client { stream: BufReader::new(stream), host }
    }

    /// Sends a request with these header lines, each with its line end.
    pub(crate) fn send(&mut self, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<()> {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\n{length}{headers}\r\n", self.host);
        self.stream.get_mut().write_all(&[head.as_bytes(), body].concat())
    }

    /// Waits for the response to what was sent.
    pub(crate) fn receive(&mut self) -> io::Result<Response> {
        let mut response = self.receive_head()?;
        self.receive_body(&mut response)?;
        Ok(response)
    }

    /// Waits for the body that follows the head `response`, and for how it ends.
    pub(crate) fn receive_body(&mut self, response: &mut Response) -> io::Result<()> {
        let chunked = response.header("transfer-encoding").is_some_and(|coding| coding == "chunked");
        let length = response.header("content-length").map(|length| length.parse().expect("a number"));
        let bodiless = matches!(response.status, 204 | 304);
        let read = match length {
            _ if bodiless => Ok(()),
            _ if chunked => self.receive_chunks(&mut response.body),
            Some(length) => self.receive_exactly(length, &mut response.body),
            None => self.stream.read_to_end(&mut response.body).map(drop),
        };
        response.end = match read {
            Ok(()) => End::Whole,
            // That nothing comes any more is no end: it is a test's failure.
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Err(e),
            Err(_) => End::Broken,
        };
        Ok(())
    }

    /// Waits for a response's head alone.
    pub(crate) fn receive_head(&mut self) -> io::Result<Response> {
        let status = self.line()?;
        let code = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.ok_or_else(|| io::Error::other(format!("no status line: {status:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
                None if line.is_empty() => break,
                None => return Err(io::Error::other(format!("no header line: {line:?}"))),
            }
        }
        Ok(Response { status, headers, body: Vec::new(), end: End::Broken })
    }

    pub(crate) fn get(&mut self, target: &str) -> io::Result<Response> {
        self.send("GET", target, "", b"")?;
        self.receive()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn receive_exactly(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let read = self.stream.by_ref().take(length).read_to_end(body)?;
        if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn receive_chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(|_| io::Error::other("no chunk size"))?;
            self.receive_exactly(size, body)?;
            if !self.line()?.is_empty() {
                return Err(io::Error::other("a chunk longer than it says"));
            }
            if size == 0 {
                return Ok(());
            }
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn get(from: SocketAddr, target: &str) -> io::Result<Response> {
    request(from, "GET", target, "", b"")
}

/// One request on a connection of its own, with these header lines.
pub(crate) fn request(to: SocketAddr, method: &str, target: &str, headers: &str, body: &[u8]) -> io::Result<Response> {
    let mut client = Client::connect(to)?;
    client.send(method, target, &format!("connection: close\r\n{headers}"), body)?;
    client.receive()
}

/// The header line that presents the token in `file`.
pub(crate) fn bearer(file: &Path) -> String {
    let token = std::fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    format!("authorization: Bearer {}\r\n", token.trim())
}

//! Lines in JSON (RFC 8259).

use super::fields::{self, Fields, Key, append_number};
use super::record::{Record, Skipped};
use super::{escape, stamp::Stamp};

/// Appends the line of `record`, whose second `stamp` writes.
pub(super) fn append(record: &Record<'_>, stamp: &Stamp, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    out.extend_from_slice(stamp.rfc3339());
    out.extend_from_slice(&fraction(record.time.0 % 1_000_000));
    out.extend_from_slice(b"Z\",\"client\":\"");
    escape::json(record.client.as_bytes(), out);
    out.push(b'"');
    if let Some(line) = record.request {
        out.extend_from_slice(b",\"method\":\"");
        escape::json(line.method, out);
        out.extend_from_slice(b"\",\"target\":\"");
        escape::json(line.target, out);
        out.extend_from_slice(b"\",\"version\":\"");
        out.extend_from_slice(line.version.as_bytes());
        out.push(b'"');
    }
    if let Some(status) = record.status {
        out.extend_from_slice(b",\"status\":");
        append_number(status.into(), out);
    }
    out.extend_from_slice(b",\"sent\":");
    append_number(record.sent, out);
    for (key, text) in [(&b",\"referer\":\""[..], record.referer), (b",\"user_agent\":\"", record.user_agent)] {
        if let Some(text) = text {
            out.extend_from_slice(key);
            escape::json(text, out);
            out.push(b'"');
        }
    }
    fields::write(record, &mut Json(out));
    out.extend_from_slice(b"}\n");
}

/// `.` and the six digits of `micros`.
fn fraction(mut micros: u64) -> [u8; 7] {
    let mut digits = *b".000000";
    for digit in digits[1..].iter_mut().rev() {
        *digit += (micros % 10) as u8;
        micros /= 10;
    }
    digits
}

/// `,"key":value`
struct Json<'a>(&'a mut Vec<u8>);

impl Json<'_> {
    fn key(&mut self, key: Key) {
        self.0.extend_from_slice(key.json.as_bytes());
    }
}

impl Fields for Json<'_> {
    fn text(&mut self, key: Key, text: &[u8]) {
        self.key(key);
        self.0.push(b'"');
        escape::json(text, self.0);
        self.0.push(b'"');
    }

    fn number(&mut self, key: Key, number: u64) {
        self.key(key);
        append_number(number, self.0);
    }

    fn word(&mut self, key: Key, word: &[u8]) {
        self.key(key);
        self.0.push(b'"');
        self.0.extend_from_slice(word);
        self.0.push(b'"');
    }

    fn skipped(&mut self, key: Key, skipped: &[Skipped<'_>]) {
        self.key(key);
        for (i, Skipped { server, reason }) in skipped.iter().enumerate() {
            self.0.extend_from_slice(if i == 0 { b"[{\"server\":\"" } else { b",{\"server\":\"" });
            self.0.extend_from_slice(server.as_str().as_bytes());
            self.0.extend_from_slice(b"\",\"reason\":\"");
            self.0.extend_from_slice(reason.as_bytes());
            self.0.extend_from_slice(b"\"}");
        }
        self.0.push(b']');
    }
}

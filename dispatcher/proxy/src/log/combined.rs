//! Lines in the combined format.

use super::fields::{self, Fields, Key, append_number};
use super::record::{Record, Skipped};
use super::{escape, stamp::Stamp};

/// Appends the line of `record`, whose second `stamp` writes.
pub(super) fn append(record: &Record<'_>, stamp: &Stamp, out: &mut Vec<u8>) {
    escape::hex(record.client.as_bytes(), out);
    out.extend_from_slice(b" - - [");
    out.extend_from_slice(stamp.common());
    out.extend_from_slice(b"] \"");
    match record.request {
        Some(line) => {
            escape::hex(line.method, out);
            out.push(b' ');
            escape::hex(line.target, out);
            out.push(b' ');
            out.extend_from_slice(line.version.as_bytes());
        }
        None => out.push(b'-'),
    }
    out.extend_from_slice(b"\" ");
    match record.status {
        Some(status) => append_number(status.into(), out),
        None => out.push(b'-'),
    }
    out.push(b' ');
    append_number(record.sent, out);
    for text in [record.referer, record.user_agent] {
        out.extend_from_slice(b" \"");
        match text {
            Some(text) => escape::hex(text, out),
            None => out.push(b'-'),
        }
        out.push(b'"');
    }
    fields::write(record, &mut Combined(out));
    out.push(b'\n');
}

/// `key=value`
struct Combined<'a>(&'a mut Vec<u8>);

impl Combined<'_> {
    fn key(&mut self, key: Key) {
        self.0.extend_from_slice(key.combined.as_bytes());
    }
}

impl Fields for Combined<'_> {
    fn text(&mut self, key: Key, text: &[u8]) {
        self.key(key);
        self.0.push(b'"');
        escape::hex(text, self.0);
        self.0.push(b'"');
    }

    fn number(&mut self, key: Key, number: u64) {
        self.key(key);
        append_number(number, self.0);
    }

    fn word(&mut self, key: Key, word: &[u8]) {
        self.key(key);
        self.0.extend_from_slice(word);
    }

    fn skipped(&mut self, key: Key, skipped: &[Skipped<'_>]) {
        self.key(key);
        for (i, Skipped { server, reason }) in skipped.iter().enumerate() {
            if i > 0 {
                self.0.push(b',');
            }
            self.0.extend_from_slice(server.as_str().as_bytes());
            self.0.push(b':');
            self.0.extend_from_slice(reason.as_bytes());
        }
    }
}

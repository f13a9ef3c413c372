//! The fields that both formats have, listed once.

use super::record::{End, Record, Skipped};

/// A field's name as each format begins the field.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) combined: &'static str,
    pub(super) json: &'static str,
}

macro_rules! key {
    ($name:literal) => {
        Key { combined: concat!(" ", $name, "="), json: concat!(",\"", $name, "\":") }
    };
}

/// How a format writes a field.
pub(super) trait Fields {
    /// Text from the network.
    fn text(&mut self, key: Key, text: &[u8]);
    /// Letters, digits and `-`, `_`, `.`.
    fn word(&mut self, key: Key, word: &[u8]);
    /// A number.
    fn number(&mut self, key: Key, number: u64);
    /// A list that is not empty.
    fn skipped(&mut self, key: Key, skipped: &[Skipped<'_>]);
}

/// Writes those fields of `record` whose values are known.
#[inline]
pub(super) fn write(record: &Record<'_>, fields: &mut impl Fields) {
    if let Some(host) = record.host {
        fields.text(key!("host"), host);
    }
    if let Some(id) = record.id {
        fields.text(key!("id"), id);
    }
    if let Some(server) = record.server {
        fields.word(key!("server"), server.as_str().as_bytes());
    }
    if !record.skipped.is_empty() {
        fields.skipped(key!("skipped"), record.skipped);
    }
    fields.number(key!("attempts"), record.attempts.into());
    if let Some(queue) = record.phases.queue {
        fields.number(key!("queue_us"), queue);
    }
    if let Some(connect) = record.phases.connect {
        fields.number(key!("connect_us"), connect);
    }
    if let Some(first_byte) = record.phases.first_byte {
        fields.number(key!("first_byte_us"), first_byte);
    }
    if let Some(total) = record.phases.total {
        fields.number(key!("total_us"), total);
    }
    fields.number(key!("received"), record.received);
    fields.word(key!("end"), record.end.name().as_bytes());
    if let End::Refused(reason) = record.end {
        fields.word(key!("reason"), reason.as_bytes());
    }
    if let Some(tls) = record.tls {
        fields.word(key!("tls"), tls.as_bytes());
    }
    if let Some(hop) = record.trace {
        fields.word(key!("trace"), &hop.trace.digits());
        fields.word(key!("span"), &hop.span.digits());
        if let Some(parent) = hop.parent {
            fields.word(key!("parent"), &parent.digits());
        }
    }
}

/// Appends a number in decimal.
#[inline]
pub(super) fn append_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

//! The YouTube requests of a campus, of the UMass trace repository.

use super::lines::{LineFormat, seconds};
use super::{Frame, Record};
use crate::tables::Tables;
use crate::{LoggedBytes, Method};
use std::fmt::Write as _;
use std::time::Duration;

/// `time server client REQUEST id server-address`, with blanks; the time in decimal seconds since 1970. The id is in
/// the query of the real URL, which dispatchers do not hash, so the object becomes `/v/id.flv`. Neither status nor bytes
/// are logged.
#[derive(Default)]
pub(crate) struct YouTube {
    url: String,
}

impl LineFormat for YouTube {
    fn parse(&mut self, line: &str, offset: u64, tables: &mut Tables) -> Result<Option<Record>, String> {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let &[time, _, client, request, id, _] = fields.as_slice() else {
            return Err(format!("{} fields instead of 6", fields.len()));
        };
        if !matches!(request, "GETVIDEO" | "LLNWD") {
            return Err(format!("no request for a video: {:?}", super::lines::shortened(request)));
        }
        let (time, _) = seconds(time)?;
        // An id may have parameters behind it.
        let id = id.split('&').next().unwrap_or_default();
        self.url.clear();
        let _ = write!(self.url, "/v/{id}.flv");
        let object = tables.objects.intern(&self.url);
        let client = tables.client(client);
        Ok(Some(Record { offset, time, client, object, bytes: LoggedBytes::NONE, method: Method::Get, status: 0 }))
    }

    fn frame(&self) -> Frame {
        Frame::log(Duration::from_micros(1))
    }
}

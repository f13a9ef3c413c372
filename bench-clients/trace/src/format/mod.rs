//! The formats of traces, and how to tell them apart.

pub(crate) mod clf;
pub mod compact;
pub mod csv;
pub(crate) mod json;
pub(crate) mod lines;
pub(crate) mod nasa;
pub(crate) mod worldcup;
pub(crate) mod youtube;

use crate::source::Source;
use crate::tables::Tables;
use crate::{Defect, Error, LoggedBytes, Method, ObjectId, Origin};
use lines::Lines;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use vibra_model::Timestamp;

/// A format of traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// This crate's own (see [`crate::compact`]).
    Compact,
    /// The binary log of the 1998 World Cup site: records of 20 bytes, with or without the map of its objects.
    WorldCup,
    /// Apache's and nginx's common and combined log.
    Log,
    /// An access log with a JSON object a line, as this project's dispatcher, nginx, Caddy, Traefik and Envoy write it.
    Json,
    /// Comma-separated values with a header (see [`crate::csv`]).
    Csv,
    /// The NASA log of 1995 as tab-separated values with a header.
    Nasa,
    /// The YouTube requests of a campus, of the UMass trace repository.
    YouTube,
}

impl Format {
    /// All of them.
    pub const ALL: [Format; 7] =
        [Format::Compact, Format::WorldCup, Format::Log, Format::Json, Format::Csv, Format::Nasa, Format::YouTube];

    /// Its name, which [`FromStr`] knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Compact => "compact",
            Format::WorldCup => "worldcup",
            Format::Log => "log",
            Format::Json => "json",
            Format::Csv => "csv",
            Format::Nasa => "nasa",
            Format::YouTube => "youtube",
        }
    }

    pub(crate) fn names() -> String {
        Format::ALL.map(Format::as_str).join(", ")
    }

    /// The format of a trace that begins with `head` (not gzipped) and is called `name`. The content decides; the name
    /// is asked only when the content does not tell.
    pub fn detect(head: &[u8], name: &str) -> Option<Format> {
        Self::of_content(head).or_else(|| Self::of_name(name))
    }

    /// The format that a file's name suggests: `.vtr`, `.csv`, `.log`, `.json`, `wc_day…`, each also with `.gz`.
    pub fn of_name(name: &str) -> Option<Format> {
        let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("vtr") => Some(Format::Compact),
            Some("csv") => Some(Format::Csv),
            Some("log") => Some(Format::Log),
            Some("json" | "jsonl" | "ndjson") => Some(Format::Json),
            _ if name.starts_with("wc_day") => Some(Format::WorldCup),
            _ => None,
        }
    }

    fn of_content(head: &[u8]) -> Option<Format> {
        if compact::is_magic(head) {
            return Some(Format::Compact);
        }
        if csv::Csv::is_header(head) {
            return Some(Format::Csv);
        }
        if nasa::Nasa::is_header(head) {
            return Some(Format::Nasa);
        }
        let text = [
            (Format::Log, lines::share::<clf::Log>(head)),
            (Format::Json, lines::share::<json::Json>(head)),
            (Format::YouTube, lines::share::<youtube::YouTube>(head)),
        ];
        // A log's first lines may be broken; half of them must fit.
        let text = text.into_iter().find(|&(_, share)| share >= 0.5);
        text.map(|(format, _)| format).or_else(|| worldcup::is_like(head).then_some(Format::WorldCup))
    }

    /// The decoder of `source` in this format.
    pub(crate) fn decoder(self, source: Source, map: Option<worldcup::ObjectMap>) -> Result<Box<dyn Decode>, Error> {
        Ok(match self {
            Format::Compact => Box::new(compact::read::Compact::new(source)?),
            Format::WorldCup => Box::new(worldcup::WorldCup::new(source, map)),
            Format::Log => Box::new(Lines::<clf::Log>::new(source)),
            Format::Json => Box::new(Lines::<json::Json>::new(source)),
            Format::Nasa => Box::new(Lines::<nasa::Nasa>::new(source)),
            Format::YouTube => Box::new(Lines::<youtube::YouTube>::new(source)),
            Format::Csv => Box::new(csv::open(source)?),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = Error;

    /// # Errors
    ///
    /// [`Error::UnknownFormat`], which lists those that there are.
    fn from_str(name: &str) -> Result<Self, Error> {
        let known = Format::ALL.into_iter().find(|format| format.as_str() == name);
        known.ok_or_else(|| Error::UnknownFormat { name: format!("{name:?}") })
    }
}

/// A record of a trace, as its format has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    /// Where it begins: bytes of the decompressed trace.
    pub(crate) offset: u64,
    /// Nanoseconds since the trace's zero (see [`Zero`]).
    pub(crate) time: u64,
    pub(crate) client: u32,
    pub(crate) object: ObjectId,
    pub(crate) bytes: LoggedBytes,
    pub(crate) method: Method,
    pub(crate) status: u16,
}

impl Record {
    /// Whether a whole body was sent, as far as is known, and it is not logged how long it was.
    pub(crate) fn has_unknown_body(&self) -> bool {
        self.method == Method::Get && matches!(self.status, 0 | 200) && self.bytes.get().is_none()
    }
}

/// From when a format counts its times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zero {
    /// From 1970: where the trace begins is known only from its records.
    Epoch,
    /// From the trace's first second, which is this one.
    Start(Option<Timestamp>),
}

/// Where the sizes of a trace's objects come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sizes {
    /// From the bytes that its records log.
    Logged,
    /// The decoder sets them.
    Stated,
}

/// What a format says of the whole trace. Some of it is known only at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) name: Option<String>,
    pub(crate) origin: Origin,
    pub(crate) zero: Zero,
    pub(crate) resolution: Duration,
    pub(crate) sizes: Sizes,
}

impl Frame {
    /// Of a server's log with the clock step `resolution`.
    pub(crate) fn log(resolution: Duration) -> Frame {
        Frame { name: None, origin: Origin::Recorded, zero: Zero::Epoch, resolution, sizes: Sizes::Logged }
    }
}

/// Turns bytes into records.
pub(crate) trait Decode: Send {
    /// The next record or defect; `None` after the last.
    fn next(&mut self, tables: &mut Tables) -> Option<Result<Record, Defect>>;

    /// As far as is known so far.
    fn frame(&self) -> Frame;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known() {
        for format in Format::ALL {
            assert_eq!(format.as_str().parse::<Format>().unwrap(), format);
        }
        let error = "pcap".parse::<Format>().unwrap_err().to_string();
        assert!(error.contains("compact, worldcup"), "{error}");
    }

    #[test]
    fn a_name_decides_only_when_the_content_does_not() {
        for (name, format) in [
            ("x/a.vtr.gz", Some(Format::Compact)),
            ("access.log", Some(Format::Log)),
            ("wc_day66_8.gz", Some(Format::WorldCup)),
            ("notes.txt", None),
        ] {
            assert_eq!(Format::of_name(name), format);
            assert_eq!(Format::detect(b"", name), format);
        }
        assert_eq!(Format::detect(b"time,client,method,url,status,bytes\n", "a.vtr"), Some(Format::Csv));
    }
}

//! The binary log of the 1998 World Cup site (M. Arlitt and T. Jin).
//!
//! Records of 20 bytes, big-endian: time (u32, seconds since 1970), client (u32), object (u32), size (u32, all ones:
//! not logged), method (u8), status and protocol (u8: the index of the status in the low 6 bits), type (u8), server (u8).

use super::{Decode, Frame, Record};
use crate::source::Source;
use crate::tables::Tables;
use crate::{Defect, DefectClass, Error, LoggedBytes, Method, ObjectId};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

const RECORD: usize = 20;

/// Records read at once.
const BATCH: usize = 4096;

/// Status codes by their index; the last index stands for all others.
const STATUS: [u16; 38] = [
    100, 101, 200, 201, 202, 203, 204, 205, 206, 300, 301, 302, 303, 304, 305, 400, 401, 402, 403, 404, 405, 406, 407,
    408, 409, 410, 411, 412, 413, 414, 415, 500, 501, 502, 503, 504, 505, 0,
];

/// When the log was taken, a little generously: 1998-04-20 to 1998-08-10, in seconds since 1970.
const EVENT: std::ops::Range<u32> = 893_030_400..902_707_200;

pub(crate) struct WorldCup {
    source: Source,
    map: Option<ObjectMap>,
    ids: HashMap<u32, ObjectId>,
    batch: Vec<u8>,
    /// Where the next record is in the batch.
    next: usize,
    over: bool,
}

impl WorldCup {
    pub(crate) fn new(source: Source, map: Option<ObjectMap>) -> Self {
        WorldCup { source, map, ids: HashMap::new(), batch: Vec::new(), next: 0, over: false }
    }

    /// Reads on; what remains of the batch is then less than a record only at the end of the trace.
    fn refill(&mut self) -> Result<(), String> {
        self.batch.resize(RECORD * BATCH, 0);
        self.next = 0;
        let filled = self.source.fill(&mut self.batch);
        self.batch.truncate(*filled.as_ref().unwrap_or(&0));
        filled.map(drop).map_err(|error| error.to_string())
    }

    fn record(&mut self, raw: [u8; RECORD], offset: u64, tables: &mut Tables) -> Result<Record, String> {
        let word = |at: usize| u32::from_be_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let (time, client, object, size, method, status) =
            (word(0), word(4), word(8), word(12), raw[16], raw[17] & 0x3f);
        // The log's own numbers end with "other": 8.
        let method = Method::ALL[..9].get(usize::from(method)).copied();
        let method = method.ok_or_else(|| format!("there is no method {}", raw[16]))?;
        let status =
            STATUS.get(usize::from(status)).copied().ok_or_else(|| format!("there is no status index {status}"))?;
        let object = self.object(object, tables);
        let bytes = if size == u32::MAX { LoggedBytes::NONE } else { u64::from(size).into() };
        Ok(Record { offset, time: u64::from(time) * 1_000_000_000, client, object, bytes, method, status })
    }

    /// The object's URL by the map; without a map, or if it lacks the object, `/object/` and its number.
    fn object(&mut self, number: u32, tables: &mut Tables) -> ObjectId {
        *self.ids.entry(number).or_insert_with(|| match self.map.as_ref().and_then(|map| map.urls.get(&number)) {
            Some(url) => tables.objects.intern(url),
            None => tables.objects.intern(&format!("/object/{number}")),
        })
    }
}

impl Decode for WorldCup {
    fn next(&mut self, tables: &mut Tables) -> Option<Result<Record, Defect>> {
        if self.over {
            return None;
        }
        if self.next == self.batch.len() {
            let offset = self.source.offset();
            if let Err(detail) = self.refill() {
                self.over = true;
                return Some(Err(Defect { class: DefectClass::Unreadable, offset, detail }));
            }
        }
        let rest = self.batch.len() - self.next;
        let offset = self.source.offset() - rest as u64;
        if let Some(raw) = self.batch[self.next..].first_chunk::<RECORD>() {
            let raw = *raw;
            self.next += RECORD;
            let record = self.record(raw, offset, tables);
            return Some(record.map_err(|detail| Defect { class: DefectClass::Broken, offset, detail }));
        }
        self.over = true;
        let detail = format!("{rest} bytes of a record of {RECORD}");
        (rest > 0).then_some(Err(Defect { class: DefectClass::Truncated, offset, detail }))
    }

    fn frame(&self) -> Frame {
        Frame::log(Duration::from_secs(1))
    }
}

/// Whether `head` looks like this log: most of its first records have a time of the event, a method and a status.
pub(crate) fn is_like(head: &[u8]) -> bool {
    let good = |raw: &&[u8]| {
        let time = u32::from_be_bytes([raw[0], raw[1], raw[2], raw[3]]);
        EVENT.contains(&time) && raw[16] < 9 && usize::from(raw[17] & 0x3f) < STATUS.len()
    };
    let records: Vec<&[u8]> = head.chunks_exact(RECORD).take(100).collect();
    let good = records.iter().filter(|raw| good(raw)).count();
    !records.is_empty() && good * 2 > records.len()
}

/// The URLs of the World Cup log's objects, by number.
#[derive(Debug, Default)]
pub(crate) struct ObjectMap {
    urls: HashMap<u32, Box<str>>,
}

impl ObjectMap {
    /// Reads lines `number url`, in the order of the numbers, blanks before the number allowed. Some URLs of the log hold
    /// line breaks: a line that does not begin with a larger number goes on with the URL before it.
    pub(crate) fn open(path: &Path) -> Result<ObjectMap, Error> {
        let fault = |action| move |source| Error::File { action, path: path.into(), source };
        let file = BufReader::new(File::open(path).map_err(fault("open"))?);
        let mut map = ObjectMap::default();
        let mut last: Option<(u32, String)> = None;
        for (line, bytes) in (1u64..).zip(file.split(b'\n')) {
            let bytes = bytes.map_err(fault("read"))?;
            let text = String::from_utf8_lossy(&bytes);
            let entry = entry_of(&text);
            last = Some(match (entry, last) {
                (Some((number, url)), None) => (number, url.into()),
                (Some((number, url)), Some((before, known))) if number > before => {
                    map.urls.insert(before, known.into());
                    (number, url.into())
                }
                (_, Some((before, known))) => (before, known + "\n" + &text),
                (None, None) => {
                    let detail = "expected an object's number, a blank and its URL".into();
                    return Err(Error::ObjectMap { path: path.into(), line, detail });
                }
            });
        }
        map.urls.extend(last.map(|(number, url)| (number, url.into())));
        Ok(map)
    }
}

fn entry_of(line: &str) -> Option<(u32, &str)> {
    let (number, url) = line.trim_start_matches(' ').split_once(' ')?;
    Some((number.parse().ok()?, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_may_have_urls_of_several_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "     0 /a\n     3 /b \"\n\n2 /c\n    17 /d\n").unwrap();
        let map = ObjectMap::open(file.path()).unwrap();
        let mut urls: Vec<_> = map.urls.iter().map(|(number, url)| (*number, &**url)).collect();
        urls.sort();
        assert_eq!(urls, [(0, "/a"), (3, "/b \"\n\n2 /c"), (17, "/d")]);
    }

    #[test]
    fn a_map_must_begin_with_an_entry() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "url,id\n").unwrap();
        let error = ObjectMap::open(file.path()).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}

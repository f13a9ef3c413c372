//! Reading traces.

use crate::format::worldcup::ObjectMap;
use crate::format::{Decode, Frame, Record, Zero};
use crate::source::Source;
use crate::tables::Tables;
use crate::{Defect, DefectClass, Defects, Error, Format, Objects, Origin, Request, Trace};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vibra_model::Timestamp;

const SECOND: u64 = 1_000_000_000;

/// How to read a trace.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its format; `None`: as its content, or else its name, tells.
    pub format: Option<Format>,
    /// For [`Format::WorldCup`]: the file with the URLs of the objects, in lines `number url`. `None`: they become
    /// `/object/number`.
    pub object_map: Option<PathBuf>,
    /// In logs: the size in bytes of objects whose whole bodies were sent, but not how long these were. `None`: unknown, and
    /// so 0.
    pub object_size: Option<u64>,
    /// In logs: how far a record's time may be from that of the record before it. One farther off is no late record but
    /// a clock that was wrong, and left out.
    pub max_gap: Duration,
}

impl Default for Options {
    /// 30 days of gap; all else as the trace tells.
    fn default() -> Self {
        Options { format: None, object_map: None, object_size: None, max_gap: Duration::from_secs(30 * 86_400) }
    }
}

/// Reads a trace request by request, in the space of its distinct objects and clients.
///
/// As an iterator it yields the requests in the order of the trace, as they are, and each defect in its place. A record
/// that is earlier than the one before it is counted in [`Reader::defects`] and yielded as a request all the same, so a
/// request may be earlier than the one before; only one that is earlier than the trace's first second has no time to be
/// yielded with and comes as a defect. [`Reader::read_all`] keeps that one too, and sorts.
///
/// ```
/// use vibra_trace::{Options, Reader};
///
/// let csv = "time,url,status,bytes\n10,/a,200,700\nx,/b,200,1\n12,/a,304,0\n";
/// let mut reader = Reader::new(csv.as_bytes(), "small.csv", &Options::default())?;
/// let seconds: Vec<u64> = reader.by_ref().flatten().map(|request| request.at.as_secs()).collect();
/// assert_eq!(seconds, [0, 2]);
/// assert_eq!(reader.objects().total_bytes(), 700);
/// assert_eq!(reader.defects().first()[0].offset, 36);
/// # Ok::<(), vibra_trace::Error>(())
/// ```
pub struct Reader {
    decoder: Box<dyn Decode>,
    tables: Tables,
    defects: Defects,
    format: Format,
    name: String,
    clock: Clock,
    object_size: Option<u64>,
    /// Records that were read ahead to find the trace's beginning.
    ahead: VecDeque<Result<Record, Defect>>,
    /// What the decoder said when the first record was read.
    frame: Frame,
}

/// Judges the records' times.
struct Clock {
    /// The trace's first second as far as the stream goes, in nanoseconds.
    zero: u64,
    /// Of the last plausible record.
    before: Option<u64>,
    /// What the first one is held against.
    middle: u64,
    /// `None`: all times are plausible.
    max_gap: Option<u64>,
}

impl Reader {
    /// Opens a trace, plain or gzipped.
    ///
    /// # Errors
    ///
    /// If the file or the object map cannot be read, or the format is unknown or another than the one named.
    pub fn open(path: &Path, options: &Options) -> Result<Reader, Error> {
        let file = File::open(path).map_err(|source| Error::File { action: "open", path: path.into(), source })?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::new(file, &name, options)
    }

    /// Reads a trace, plain or gzipped, that is called `name`.
    ///
    /// # Errors
    ///
    /// As [`Reader::open`].
    pub fn new(input: impl Read + Send + 'static, name: &str, options: &Options) -> Result<Reader, Error> {
        let mut source = Source::new(input)?;
        let format = options.format.or_else(|| Format::detect(source.head(), name));
        let format = format.ok_or_else(|| Error::UnknownFormat { name: name.into() })?;
        let map = options.object_map.as_deref().map(ObjectMap::open).transpose()?;
        if format != Format::Csv {
            source.forget_head();
        }
        let decoder = format.decoder(source, map)?;
        let frame = decoder.frame();
        let gap = u64::try_from(options.max_gap.as_nanos()).unwrap_or(u64::MAX);
        let max_gap = (frame.zero == Zero::Epoch).then_some(gap);
        let mut reader = Reader {
            decoder,
            tables: Tables::default(),
            defects: Defects::default(),
            format,
            name: frame.name.clone().unwrap_or_else(|| name.into()),
            clock: Clock { zero: 0, before: None, middle: 0, max_gap },
            ahead: VecDeque::new(),
            object_size: options.object_size,
            frame,
        };
        reader.begin();
        Ok(reader)
    }

    /// Where a log begins is the first second of its first three records, less those whose time is far from the middle
    /// one: the very first record may be one whose clock was wrong.
    fn begin(&mut self) {
        let Some(gap) = self.clock.max_gap else { return };
        let mut times = Vec::new();
        while times.len() < 3
            && let Some(next) = self.decoder.next(&mut self.tables)
        {
            times.extend(next.as_ref().map(|record| record.time).ok());
            self.ahead.push_back(next);
        }
        times.sort_unstable();
        let middle = times.get(times.len() / 2).copied().unwrap_or(0);
        let first = times.iter().copied().find(|time| time.abs_diff(middle) <= gap).unwrap_or(middle);
        self.clock = Clock { zero: first - first % SECOND, before: None, middle, max_gap: Some(gap) };
    }

    /// The next record that can be used, in the order of the trace; all defects are counted.
    fn record(&mut self) -> Option<Result<Record, Defect>> {
        let next = self.ahead.pop_front().or_else(|| self.decoder.next(&mut self.tables))?;
        let judged = next.and_then(|record| self.clock.plausible(record));
        match &judged {
            Ok(record) => {
                if let Some(early) = self.clock.tick(record.time) {
                    let (class, offset) = (DefectClass::OutOfOrder, record.offset);
                    let detail = || format!("{early:?} earlier than the record before it");
                    self.defects.note(class, || Defect { class, offset, detail: detail() });
                }
                self.tables.learn(record, self.frame.sizes);
                if let Some(size) = self.object_size.filter(|_| record.has_unknown_body()) {
                    self.tables.objects.set_size(record.object, size);
                }
            }
            Err(defect) => self.defects.note(defect.class, || defect.clone()),
        }
        Some(judged)
    }

    /// What the trace is in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What it is called: as it says itself, or its file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    pub fn origin(&self) -> Origin {
        self.frame.origin
    }

    /// The first second, from which the times of the yielded requests count.
    pub fn start(&self) -> Option<Timestamp> {
        match self.frame.zero {
            Zero::Epoch => Some(Timestamp(self.clock.zero / 1000)),
            Zero::Start(start) => start,
        }
    }

    /// The step of its clock, as far as is known yet: that of a CSV is the finest so far.
    pub fn resolution(&self) -> Duration {
        self.decoder.frame().resolution
    }

    /// The objects so far, with their sizes as far as they are known yet.
    pub fn objects(&self) -> &Objects {
        &self.tables.objects
    }

    /// The defects so far.
    pub fn defects(&self) -> &Defects {
        &self.defects
    }

    /// Reads the rest into memory. Records that are out of order are sorted in, stably: those of one time keep the order
    /// of the trace. The trace then begins with the first second of its earliest record.
    pub fn read_all(mut self) -> (Trace, Defects) {
        let mut records = Vec::new();
        while let Some(next) = self.record() {
            records.extend(next.ok());
        }
        if self.defects.count(DefectClass::OutOfOrder) > 0 {
            records.sort_by_key(|record| record.time);
        }
        if let (Zero::Epoch, Some(first)) = (self.frame.zero, records.first()) {
            self.clock.zero = first.time - first.time % SECOND;
        }
        let zero = self.clock.zero;
        let requests = records.iter().filter_map(|record| request(record, zero)).collect();
        let start = self.start().filter(|_| !records.is_empty() || self.frame.zero != Zero::Epoch);
        let resolution = self.resolution();
        let (name, origin, objects) = (self.name, self.frame.origin, self.tables.objects);
        (Trace { name, origin, start, resolution, objects, requests }, self.defects)
    }
}

impl Clock {
    fn plausible(&mut self, record: Record) -> Result<Record, Defect> {
        let gap = Duration::from_nanos(record.time.abs_diff(self.before.unwrap_or(self.middle)));
        if self.max_gap.is_some_and(|max| gap > Duration::from_nanos(max)) {
            let days = gap.as_secs() / 86_400;
            let detail = format!("{days} days from the record before it");
            return Err(Defect { class: DefectClass::ImplausibleTime, offset: record.offset, detail });
        }
        Ok(record)
    }

    /// Goes on to the time of a plausible record, and tells how much earlier than the one before it is.
    fn tick(&mut self, time: u64) -> Option<Duration> {
        let before = self.before.replace(time)?;
        (time < before).then(|| Duration::from_nanos(before - time))
    }
}

fn request(record: &Record, zero: u64) -> Option<Request> {
    let &Record { client, object, bytes, method, status, .. } = record;
    let at = Duration::from_nanos(record.time.checked_sub(zero)?);
    Some(Request { at, client, object, bytes, method, status })
}

impl Iterator for Reader {
    type Item = Result<Request, Defect>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.record()?.and_then(|record| {
            request(&record, self.clock.zero).ok_or_else(|| {
                let detail = "earlier than the trace's first second".into();
                Defect { class: DefectClass::OutOfOrder, offset: record.offset, detail }
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_logged_is_as_long_as_is_said() {
        let csv = "time,url,status,bytes\n1,/a,200,\n1,/b,304,\n1,/c,200,7\n";
        let options = Options { object_size: Some(5), ..Options::default() };
        let (trace, _) = Reader::new(csv.as_bytes(), "x.csv", &options).unwrap().read_all();
        assert_eq!(trace.objects.iter().map(|(_, object)| object.size).collect::<Vec<_>>(), [5, 0, 7]);
    }
}

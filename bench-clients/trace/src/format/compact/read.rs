//! Reading the compact format, damaged or whole.

use super::wire::{Payload, unzigzag};
use super::{Header, MAGIC, MAX_PAYLOAD};
use crate::format::{Decode, Format, Frame, Record, Sizes, Zero};
use crate::source::Source;
use crate::tables::Tables;
use crate::{Defect, DefectClass, Error, LoggedBytes, Method, ObjectId};
use flate2::Crc;
use std::ops::Range;

pub(crate) struct Compact {
    source: Source,
    header: Header,
    objects: Numbers,
    payload: Vec<u8>,
    /// Where the payload begins in the trace.
    base: u64,
    /// The block of requests that is being read.
    run: Option<Run>,
    requests: u64,
    over: bool,
}

/// What is left of a block of requests.
struct Run {
    left: u64,
    unit: u64,
    before: u64,
    /// Bytes of the payload that were read.
    read: usize,
}

/// A block's outcome that is no record.
type Outcome = Result<(), (DefectClass, String)>;

impl Compact {
    pub(crate) fn new(mut source: Source) -> Result<Self, Error> {
        let wrong = |detail: String| Error::WrongFormat { format: Format::Compact, detail };
        let mut magic = [0; MAGIC.len()];
        let filled = source.fill(&mut magic)?;
        if filled < magic.len() || magic[..7] != MAGIC[..7] {
            return Err(wrong("it does not begin as one".into()));
        }
        if magic[7] != MAGIC[7] {
            return Err(wrong(format!("version {}, this program reads version {}", magic[7], MAGIC[7])));
        }
        let mut payload = Vec::new();
        match read_block(&mut source, &mut payload) {
            Ok(Some(b'H')) => {}
            Ok(_) => return Err(wrong("its header is missing".into())),
            Err((_, detail)) => return Err(wrong(format!("its header: {detail}"))),
        }
        let header = Payload(&payload).header().map_err(|detail| wrong(format!("its header: {detail}")))?;
        let objects = Numbers::default();
        Ok(Compact { source, header, objects, payload, base: 0, run: None, requests: 0, over: false })
    }

    /// The next request of the block; a fault costs the rest of the block.
    fn request(&mut self, mut run: Run) -> Result<Record, Defect> {
        let offset = self.base + run.read as u64;
        let mut payload = Payload(&self.payload[run.read..]);
        match decode(&mut payload, &mut run, &self.objects) {
            Ok(record) => {
                run.read = self.payload.len() - payload.0.len();
                run.left -= 1;
                self.run = (run.left > 0).then_some(run);
                self.requests += 1;
                Ok(Record { offset, ..record })
            }
            Err(detail) => {
                let detail = format!("{detail}; {} requests are lost", run.left);
                Err(Defect { class: DefectClass::Broken, offset, detail })
            }
        }
    }

    fn block(&mut self, kind: u8, tables: &mut Tables) -> Outcome {
        let broken = |detail: String| (DefectClass::Broken, detail);
        let mut payload = Payload(&self.payload);
        match kind {
            b'H' => self.header = payload.header().map_err(broken)?,
            b'O' => self.objects.read(&mut payload, tables).map_err(broken)?,
            b'S' => read_sizes(&mut payload, &self.objects, tables).map_err(broken)?,
            b'R' => {
                let left = payload.number().map_err(broken)?;
                let unit = payload.number().map_err(broken)?;
                let read = self.payload.len() - payload.0.len();
                self.run = (left > 0).then_some(Run { left, unit, before: 0, read });
            }
            b'E' => {
                self.over = true;
                let (requests, objects) = (payload.number().map_err(broken)?, payload.number().map_err(broken)?);
                let known = tables.objects.len() as u64;
                if (requests, objects) != (self.requests, known) {
                    let read = self.requests;
                    return Err(broken(format!(
                        "{read} of {requests} requests and {known} of {objects} objects were read"
                    )));
                }
            }
            other => {
                self.over = true;
                return Err((DefectClass::Unreadable, format!("there is no block of kind {other}")));
            }
        }
        Ok(())
    }
}

impl Decode for Compact {
    fn next(&mut self, tables: &mut Tables) -> Option<Result<Record, Defect>> {
        while !self.over {
            if let Some(run) = self.run.take() {
                return Some(self.request(run));
            }
            let offset = self.source.offset();
            let block = read_block(&mut self.source, &mut self.payload);
            self.base = self.source.offset() - self.payload.len() as u64;
            let outcome = match block {
                Ok(Some(kind)) => self.block(kind, tables),
                Ok(None) => Err((DefectClass::Truncated, "its end is missing".into())),
                Err(fault) => Err(fault),
            };
            if let Err((class, detail)) = outcome {
                self.over |= class != DefectClass::Broken;
                return Some(Err(Defect { class, offset, detail }));
            }
        }
        None
    }

    fn frame(&self) -> Frame {
        let Header { name, origin, start, resolution } = self.header.clone();
        Frame { name: Some(name), origin, zero: Zero::Start(start), resolution, sizes: Sizes::Stated }
    }
}

/// Reads a block's payload and returns its kind; `None` at the end of the input.
fn read_block(source: &mut Source, payload: &mut Vec<u8>) -> Result<Option<u8>, (DefectClass, String)> {
    payload.clear();
    let unreadable = |error: std::io::Error| (DefectClass::Unreadable, error.to_string());
    let cut = |what: &str| (DefectClass::Truncated, format!("it ends in {what}"));
    let mut head = [0; 9];
    match source.fill(&mut head).map_err(unreadable)? {
        0 => return Ok(None),
        9 => {}
        _ => return Err(cut("the head of a block")),
    }
    let [kind, l0, l1, l2, l3, c0, c1, c2, c3] = head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    if length > MAX_PAYLOAD {
        return Err((DefectClass::Unreadable, format!("a block of {length} bytes, at most {MAX_PAYLOAD} are allowed")));
    }
    payload.resize(length, 0);
    let filled = source.fill(payload).map_err(unreadable)?;
    payload.truncate(filled);
    if filled < length {
        return Err(cut("a block"));
    }
    let mut crc = Crc::new();
    crc.update(&[kind]);
    crc.update(payload);
    if crc.sum() != u32::from_le_bytes([c0, c1, c2, c3]) {
        return Err((
            DefectClass::Broken,
            format!("the checksum of a block of {length} bytes is wrong; it is left out"),
        ));
    }
    Ok(Some(kind))
}

fn decode(payload: &mut Payload<'_>, run: &mut Run, objects: &Numbers) -> Result<Record, String> {
    run.before = run.before.wrapping_add(unzigzag(payload.number()?) as u64);
    let time = run.before.checked_mul(run.unit).ok_or("a time is too large")?;
    let client = payload.narrow("a client")?;
    let number = payload.narrow("an object")?;
    let object = objects.find(number).ok_or_else(|| format!("object {number} is not in the trace"))?;
    let bytes = payload.number()?.checked_sub(1).map_or(LoggedBytes::NONE, Into::into);
    let method: usize = payload.narrow("a method")?;
    let method = Method::ALL.get(method).copied().ok_or_else(|| format!("there is no method {method}"))?;
    let status = payload.narrow("a status")?;
    Ok(Record { offset: 0, time, client, object, bytes, method, status })
}

fn read_sizes(payload: &mut Payload<'_>, objects: &Numbers, tables: &mut Tables) -> Result<(), String> {
    for _ in 0..payload.number()? {
        let number = payload.narrow("an object")?;
        let id = objects.find(number).ok_or_else(|| format!("a size of object {number}, which is not in the trace"))?;
        tables.objects.set_size(id, payload.number()?);
    }
    Ok(())
}

/// From a trace's own numbers of its objects to ids here. They differ only behind a block of objects that was lost.
#[derive(Default)]
struct Numbers {
    /// Runs of consecutive numbers in ascending order, each with the id of its first.
    runs: Vec<(Range<u64>, u32)>,
}

impl Numbers {
    fn find(&self, number: u32) -> Option<ObjectId> {
        let number = u64::from(number);
        let (numbers, first) = self.runs.get(self.runs.partition_point(|(numbers, _)| numbers.end <= number))?;
        numbers.contains(&number).then(|| ObjectId(first + (number - numbers.start) as u32))
    }

    fn read(&mut self, payload: &mut Payload<'_>, tables: &mut Tables) -> Result<(), String> {
        let mut number: u32 = payload.narrow("an object")?;
        for _ in 0..payload.number()? {
            let (url, size) = (payload.text()?, payload.number()?);
            let expected = tables.objects.len() as u32;
            let id = tables.objects.intern(url);
            if id.0 != expected {
                return Err(format!("object {number} was listed before"));
            }
            tables.objects.set_size(id, size);
            self.add(number, id.0)?;
            number = number.checked_add(1).ok_or("an object's number is too large")?;
        }
        Ok(())
    }

    fn add(&mut self, number: u32, id: u32) -> Result<(), String> {
        let number = u64::from(number);
        match self.runs.last_mut() {
            Some((numbers, _)) if numbers.end > number => {
                return Err(format!("object {number} comes after object {}", numbers.end - 1));
            }
            Some((numbers, first)) if numbers.end == number && *first + (number - numbers.start) as u32 == id => {
                numbers.end += 1;
            }
            _ => self.runs.push((number..number + 1, id)),
        }
        Ok(())
    }
}

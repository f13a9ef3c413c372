//! Writing the compact format in one pass.

use super::wire::{put, put_header, put_text, zigzag};
use super::{Header, MAGIC, MAX_PAYLOAD, next_id};
use crate::{Objects, Request};
use flate2::Crc;
use std::io::{self, Write};

/// Requests of a block: what one damaged byte can cost.
const BLOCK_REQUESTS: usize = 8192;

/// Bytes at which a block of objects or sizes is closed.
const BLOCK_BYTES: usize = 256 * 1024;

/// Writes a trace request by request. Objects are written before the first request that could ask for them; what becomes
/// of their sizes until the end is added there.
pub struct Writer<W> {
    output: W,
    header: Header,
    /// Sizes of the objects as they were written.
    sizes: Vec<u64>,
    pending: Vec<(u64, Request)>,
    requests: u64,
    payload: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a trace.
    ///
    /// # Errors
    ///
    /// What `output` fails with.
    pub fn new(output: W, header: Header) -> io::Result<Self> {
        let mut writer =
            Writer { output, header, sizes: Vec::new(), pending: Vec::new(), requests: 0, payload: Vec::new() };
        writer.output.write_all(&MAGIC)?;
        put_header(&mut writer.payload, &writer.header);
        writer.block(b'H')?;
        Ok(writer)
    }

    /// Adds a request for one of `objects`, which must be the same table each time, and may have grown.
    ///
    /// # Errors
    ///
    /// What the output fails with; [`io::ErrorKind::InvalidInput`] for a time beyond 584 years, an object that is not in
    /// the table or a URL beyond 16 MiB.
    pub fn push(&mut self, request: &Request, objects: &Objects) -> io::Result<()> {
        self.write_objects(objects)?;
        let at = u64::try_from(request.at.as_nanos()).map_err(|_| invalid("a request later than 584 years"))?;
        if u64::from(request.object.0) >= next_id(objects) {
            return Err(invalid("a request for an object that is not in the table"));
        }
        self.pending.push((at, *request));
        if self.pending.len() == BLOCK_REQUESTS { self.write_requests() } else { Ok(()) }
    }

    /// Ends the trace, whose objects now have their final sizes and whose header is now known in full (its start must be
    /// the one it began with), and returns the output.
    ///
    /// # Errors
    ///
    /// As [`Writer::push`].
    pub fn finish(mut self, objects: &Objects, header: Header) -> io::Result<W> {
        self.write_objects(objects)?;
        self.write_requests()?;
        self.write_sizes(objects)?;
        if header != self.header {
            put_header(&mut self.payload, &header);
            self.block(b'H')?;
        }
        put(&mut self.payload, self.requests);
        put(&mut self.payload, next_id(objects));
        self.block(b'E')?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn write_objects(&mut self, objects: &Objects) -> io::Result<()> {
        while self.sizes.len() < objects.len() {
            let first = self.sizes.len();
            let mut entries = Vec::new();
            for (_, object) in objects.iter().skip(first) {
                put_text(&mut entries, &object.url);
                put(&mut entries, object.size);
                self.sizes.push(object.size);
                if entries.len() >= BLOCK_BYTES {
                    break;
                }
            }
            put(&mut self.payload, first as u64);
            put(&mut self.payload, (self.sizes.len() - first) as u64);
            self.payload.append(&mut entries);
            self.block(b'O')?;
        }
        Ok(())
    }

    fn write_sizes(&mut self, objects: &Objects) -> io::Result<()> {
        let changed = objects.iter().zip(&self.sizes).filter(|((_, object), size)| object.size != **size);
        let changed: Vec<(u64, u64)> = changed.map(|((id, object), _)| (id.0.into(), object.size)).collect();
        // A number takes at most ten bytes, an entry two numbers.
        for part in changed.chunks(BLOCK_BYTES / 20) {
            put(&mut self.payload, part.len() as u64);
            for &(id, size) in part {
                put(&mut self.payload, id);
                put(&mut self.payload, size);
            }
            self.block(b'S')?;
        }
        Ok(())
    }

    fn write_requests(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let step = u64::try_from(self.header.resolution.as_nanos()).unwrap_or(0);
        let whole = step > 0 && self.pending.iter().all(|(at, _)| at % step == 0);
        let unit = if whole { step } else { 1 };
        put(&mut self.payload, self.pending.len() as u64);
        put(&mut self.payload, unit);
        let mut before = 0;
        for (at, request) in self.pending.drain(..) {
            let at = at / unit;
            // Wrapping, so that any two times have a difference.
            put(&mut self.payload, zigzag(at.wrapping_sub(before) as i64));
            before = at;
            put(&mut self.payload, request.client.into());
            put(&mut self.payload, request.object.0.into());
            put(&mut self.payload, request.bytes.get().map_or(0, |bytes| bytes + 1));
            put(&mut self.payload, request.method as u64);
            put(&mut self.payload, request.status.into());
            self.requests += 1;
        }
        self.block(b'R')
    }

    /// Writes the payload as a block of this kind and empties it.
    fn block(&mut self, kind: u8) -> io::Result<()> {
        let length = self.payload.len();
        if length > MAX_PAYLOAD {
            return Err(invalid("a name or a URL of more than 16 MiB"));
        }
        let mut crc = Crc::new();
        crc.update(&[kind]);
        crc.update(&self.payload);
        self.output.write_all(&[kind])?;
        self.output.write_all(&(length as u32).to_le_bytes())?;
        self.output.write_all(&crc.sum().to_le_bytes())?;
        self.output.write_all(&self.payload)?;
        self.payload.clear();
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("the compact format cannot hold {what}"))
}

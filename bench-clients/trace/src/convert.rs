//! Writing traces, and from one format to another.

use crate::format::{compact, csv};
use crate::{Defects, Error, Format, Objects, Reader, Request, Trace};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::Duration;
use vibra_model::Timestamp;

/// What [`convert`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Converted {
    /// Requests written.
    pub requests: u64,
    /// What was wrong with the trace that was read.
    pub defects: Defects,
}

/// Writes what `reader` reads to `path`, as [`Format::Compact`] or [`Format::Csv`], gzipped if the name ends with `.gz`.
///
/// The trace is not held in memory, so its requests stay in their order: those that are out of order come out as they are
/// (a [`Reader`] sorts them again), and one that is earlier than the trace's first second is left out, as a defect.
///
/// # Errors
///
/// If the file cannot be written, or the format is one that is only read.
pub fn convert(mut reader: Reader, path: &Path, format: Format) -> Result<Converted, Error> {
    with_output(path, |output| {
        let mut requests = 0;
        match format {
            Format::Compact => {
                let mut writer = compact::Writer::new(output, header_of(&reader))?;
                while let Some(next) = reader.next() {
                    if let Ok(request) = next {
                        writer.push(&request, reader.objects())?;
                        requests += 1;
                    }
                }
                writer.finish(reader.objects(), header_of(&reader))?;
            }
            Format::Csv => {
                let mut writer = CsvWriter::new(output, reader.start())?;
                while let Some(next) = reader.next() {
                    if let Ok(request) = next {
                        writer.push(&request, reader.objects(), reader.resolution())?;
                        requests += 1;
                    }
                }
                writer.finish()?;
            }
            other => return Err(Error::ReadOnlyFormat(other)),
        }
        Ok(Converted { requests, defects: reader.defects().clone() })
    })
}

impl Trace {
    /// Writes the trace to `path`, as [`Format::Compact`] or [`Format::Csv`], gzipped if the name ends with `.gz`. CSV
    /// keeps neither name and origin nor the objects that nobody asks for.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or the format is one that is only read.
    pub fn save(&self, path: &Path, format: Format) -> Result<(), Error> {
        with_output(path, |output| match format {
            Format::Compact => Ok(compact::write(self, output)?),
            Format::Csv => {
                let mut writer = CsvWriter::new(output, self.start)?;
                for request in &self.requests {
                    writer.push(request, &self.objects, self.resolution)?;
                }
                Ok(writer.finish()?)
            }
            other => Err(Error::ReadOnlyFormat(other)),
        })
    }
}

fn header_of(reader: &Reader) -> compact::Header {
    compact::Header {
        name: reader.name().into(),
        origin: reader.origin(),
        start: reader.start(),
        resolution: reader.resolution(),
    }
}

/// Runs `write` with the file, through gzip if its name asks for it. A file that is there already is replaced once all
/// of it is written: it may be the very trace that is being read. What is no file, such as a pipe, is written to.
fn with_output<T>(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<T, Error>) -> Result<T, Error> {
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return into_file(path, path, write);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let fault = |source| Error::File { action: "write", path: path.into(), source };
    let result = into_file(partial, path, write).and_then(|result| {
        fs::rename(partial, path).map_err(fault)?;
        Ok(result)
    });
    if result.is_err() {
        // It may never have been there.
        let _ = fs::remove_file(partial);
    }
    result
}

/// Writes to `file`, which becomes, or is, `path`.
fn into_file<T>(file: &Path, path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<T, Error>) -> Result<T, Error> {
    let fault = |source| Error::File { action: "write", path: path.into(), source };
    let mut file = BufWriter::new(File::create(file).map_err(fault)?);
    let result = if path.extension().is_some_and(|extension| extension == "gz") {
        let mut gzip = GzEncoder::new(&mut file, Compression::default());
        let result = write(&mut gzip);
        gzip.finish().map_err(fault)?;
        result
    } else {
        write(&mut file)
    };
    file.flush().map_err(fault)?;
    result.map_err(|error| match error {
        Error::Io(source) => fault(source),
        other => other,
    })
}

struct CsvWriter<W: Write> {
    rows: ::csv::Writer<W>,
    /// Seconds and nanoseconds since 1970 of the times' zero.
    zero: Duration,
}

impl<W: Write> CsvWriter<W> {
    fn new(output: W, start: Option<Timestamp>) -> io::Result<Self> {
        let mut columns = csv::COLUMNS;
        if start.is_none() {
            columns[0] = "offset";
        }
        let mut rows = ::csv::Writer::from_writer(output);
        rows.write_record(columns)?;
        Ok(CsvWriter { rows, zero: Duration::from_micros(start.map_or(0, |Timestamp(micros)| micros)) })
    }

    fn push(&mut self, request: &Request, objects: &Objects, resolution: Duration) -> io::Result<()> {
        let time = decimal(self.zero + request.at, resolution);
        let client = request.client.to_string();
        // A record of the format is one line.
        let url = objects[request.object].url.replace('\n', "%0A").replace('\r', "%0D");
        let status = if request.status == 0 { String::new() } else { request.status.to_string() };
        let bytes = request.bytes.get().map_or(String::new(), |bytes| bytes.to_string());
        self.rows.write_record([&time, &client, request.method.as_str(), &url, &status, &bytes])?;
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.rows.flush()
    }
}

/// Seconds with as many decimals as the clock's step has, or all nine if that would cut something off.
fn decimal(time: Duration, resolution: Duration) -> String {
    let (seconds, nanos, step) = (time.as_secs(), time.subsec_nanos(), resolution.subsec_nanos());
    let digits = (0..9u32).find(|&digits| {
        let unit = 10u32.pow(9 - digits);
        nanos.is_multiple_of(unit) && step.is_multiple_of(unit)
    });
    match digits {
        Some(0) => seconds.to_string(),
        digits => {
            let digits = digits.unwrap_or(9) as usize;
            format!("{seconds}.{:0digits$}", nanos / 10u32.pow(9 - digits as u32))
        }
    }
}

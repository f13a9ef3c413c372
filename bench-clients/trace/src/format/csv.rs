//! Comma-separated values.
//!
//! The first line is the header `time,client,method,url,status,bytes`, in any order of columns, perhaps with others,
//! which are not read. `url` and one of the times are necessary.
//!
//! | column | meaning | if missing or empty |
//! | --- | --- | --- |
//! | `time` | seconds since 1970, decimals allowed | |
//! | `offset`, instead of `time` | seconds since the trace's start, whose place in time is not known | |
//! | `client` | any name or number; the same one is the same client | client 0 |
//! | `method` | | `GET` |
//! | `url` | path and query | |
//! | `status` | of the response | not logged |
//! | `bytes` | of the body sent | not logged |
//!
//! A field may stand in double quotes, with `""` for a quote in it. A record is one line: a quote that is not closed
//! spoils its line and no more. The size of an object is the largest `bytes` of its 200 responses.

use super::lines::{LineFormat, Lines, bytes, seconds, shortened, status};
use super::{Format, Frame, Record, Sizes, Zero};
use crate::source::Source;
use crate::tables::Tables;
use crate::{Error, Method, Origin};
use std::borrow::Cow;
use std::time::Duration;

/// Columns of the header that [`crate::convert`] writes; `offset` instead of `time` if the trace has no place in time.
pub(crate) const COLUMNS: [&str; 6] = ["time", "client", "method", "url", "status", "bytes"];

pub(crate) struct Csv {
    columns: usize,
    time: usize,
    url: usize,
    client: Option<usize>,
    method: Option<usize>,
    status: Option<usize>,
    bytes: Option<usize>,
    zero: Zero,
    /// The most decimals of a time so far.
    decimals: u32,
    header: bool,
}

impl Csv {
    pub(crate) fn is_header(head: &[u8]) -> bool {
        Csv::new(head).is_ok()
    }

    /// For the header that `head` begins with.
    fn new(head: &[u8]) -> Result<Csv, String> {
        let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line =
            std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| "the header is no text")?;
        let fields = split(line)?;
        let column = |name: &str| fields.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
        let (time, zero) = match (column("time"), column("offset")) {
            (Some(time), None) => (time, Zero::Epoch),
            (None, Some(offset)) => (offset, Zero::Start(None)),
            (None, None) => return Err("the header has neither a column time nor a column offset".into()),
            (Some(_), Some(_)) => return Err("the header has both a column time and a column offset".into()),
        };
        let [client, method, status, bytes] = ["client", "method", "status", "bytes"].map(column);
        let url = column("url").ok_or("the header has no column url")?;
        let columns = fields.len();
        Ok(Csv { columns, time, url, client, method, status, bytes, zero, decimals: 0, header: true })
    }
}

pub(crate) fn open(source: Source) -> Result<Lines<Csv>, Error> {
    let csv = Csv::new(source.head()).map_err(|detail| Error::WrongFormat { format: Format::Csv, detail })?;
    Ok(Lines::with(source, csv))
}

/// The fields of one line. (The csv crate takes a quote that is not closed, and with it the rest of the trace, for one
/// field; to begin its reader anew with each line costs thirty times as much as this.)
fn split(line: &str) -> Result<Vec<Cow<'_, str>>, String> {
    let mut fields = Vec::with_capacity(COLUMNS.len());
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let (field, after) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (Cow::Borrowed(field), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(fields),
            None => return Err(format!("text after a closing quote: {:?}", shortened(after))),
        }
    }
}

/// The field whose opening quote is before `text`, and what follows its closing quote.
fn unquoted(text: &str) -> Result<(Cow<'_, str>, &str), String> {
    let mut from = 0;
    while let Some(quote) = text[from..].find('"').map(|at| from + at) {
        let after = &text[quote + 1..];
        if !after.starts_with('"') {
            let field = &text[..quote];
            let field = if from == 0 { Cow::Borrowed(field) } else { Cow::Owned(field.replace("\"\"", "\"")) };
            return Ok((field, after));
        }
        from = quote + 2;
    }
    Err("a quote is not closed".into())
}

impl LineFormat for Csv {
    fn parse(&mut self, line: &str, offset: u64, tables: &mut Tables) -> Result<Option<Record>, String> {
        if std::mem::take(&mut self.header) {
            return Ok(None);
        }
        let fields = split(line)?;
        if fields.len() != self.columns {
            return Err(format!("{} columns instead of {}", fields.len(), self.columns));
        }
        let field = |column: Option<usize>| column.map_or("", |column| fields[column].trim());
        let (time, decimals) = seconds(field(Some(self.time)))?;
        let method = match field(self.method) {
            "" => Method::Get,
            name => Method::named(name),
        };
        let url = field(Some(self.url));
        if url.is_empty() {
            return Err(format!("no url: {:?}", shortened(line)));
        }
        let status = status(field(self.status))?;
        let bytes = bytes(field(self.bytes))?;
        let client = match field(self.client) {
            "" => 0,
            name => tables.client(name),
        };
        let object = tables.objects.intern(url);
        self.decimals = self.decimals.max(decimals);
        Ok(Some(Record { offset, time, client, object, bytes, method, status }))
    }

    fn frame(&self) -> Frame {
        let resolution = Duration::from_nanos(10u64.pow(9 - self.decimals));
        Frame { name: None, origin: Origin::Recorded, zero: self.zero, resolution, sizes: Sizes::Logged }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(header: &str, line: &str) -> Result<(Record, String), String> {
        let mut csv = Csv::new(header.as_bytes())?;
        let mut tables = Tables::default();
        assert!(csv.parse(header, 0, &mut tables)?.is_none());
        let record = csv.parse(line, 0, &mut tables)?.ok_or("no record")?;
        Ok((record, tables.objects[record.object].url.to_string()))
    }

    #[test]
    fn columns_stand_in_any_order_and_may_be_quoted() {
        let (record, url) = parse("bytes,url,host,time", r#"12,"/a,""b"" c",x,1.25"#).unwrap();
        assert_eq!((url.as_str(), record.time, record.bytes.get()), ("/a,\"b\" c", 1_250_000_000, Some(12)));
        assert_eq!((record.method, record.status, record.client), (Method::Get, 0, 0));
        let (record, _) = parse("offset,client,method,url,status,bytes", "3,c,HEAD,/,200,").unwrap();
        assert_eq!((record.method, record.status, record.bytes.get()), (Method::Head, 200, None));
    }

    #[test]
    fn headers_and_lines_that_do_not_fit_are_refused() {
        for (header, line, detail) in [
            ("client,url", "", "neither"),
            ("time,offset,url", "", "both"),
            ("time,client", "", "no column url"),
            ("time,url", "1", "1 columns instead of 2"),
            ("time,url", "x,/", "no number of seconds"),
            ("time,url", "1,", "no url"),
            ("time,url,status", "1,\"/a,200", "not closed"),
            ("time,url,status", "1,\"/a\"b,200", "after a closing quote"),
            ("time,url,bytes", "1,/,-5", "no number"),
        ] {
            let error = parse(header, line).unwrap_err();
            assert!(error.contains(detail), "{header} {line}: {error}");
        }
    }
}

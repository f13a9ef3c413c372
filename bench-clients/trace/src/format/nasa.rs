//! The NASA log of 1995 as tab-separated values.

use super::lines::{LineFormat, bytes, seconds, status};
use super::{Frame, Record};
use crate::Method;
use crate::tables::Tables;
use std::time::Duration;

/// `host logname time method url response bytes referer useragent`, with tabs and a header; `time` in seconds since
/// 1970.
#[derive(Default)]
pub(crate) struct Nasa;

const HEADER: &str = "host\tlogname\ttime\tmethod\turl\tresponse\tbytes";

impl Nasa {
    pub(crate) fn is_header(head: &[u8]) -> bool {
        head.starts_with(HEADER.as_bytes())
    }
}

impl LineFormat for Nasa {
    fn parse(&mut self, line: &str, offset: u64, tables: &mut Tables) -> Result<Option<Record>, String> {
        if Self::is_header(line.as_bytes()) {
            return Ok(None);
        }
        let mut fields = line.split('\t');
        let mut next = |what: &str| fields.next().ok_or_else(|| format!("no {what}"));
        let (host, _) = (next("host")?, next("logname")?);
        let (time, _) = seconds(next("time")?)?;
        let (method, url) = (Method::named(next("method")?), next("url")?);
        let (status, bytes) = (status(next("response")?)?, bytes(next("bytes")?)?);
        if url.is_empty() {
            return Err("no url".into());
        }
        let object = tables.objects.intern(url);
        Ok(Some(Record { offset, time, client: tables.client(host), object, bytes, method, status }))
    }

    fn frame(&self) -> Frame {
        Frame::log(Duration::from_secs(1))
    }
}

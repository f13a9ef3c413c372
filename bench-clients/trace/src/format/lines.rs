//! Formats with one record a line.

use super::{Decode, Frame, Record};
use crate::source::{Line, Source};
use crate::tables::Tables;
use crate::{Defect, DefectClass};
use std::borrow::Cow;
use std::fmt::Write as _;

/// A format whose records are lines.
pub(crate) trait LineFormat: Send {
    /// Reads a line that begins at `offset`. `None`: a line that is rightly there but no record, such as a header.
    fn parse(&mut self, line: &str, offset: u64, tables: &mut Tables) -> Result<Option<Record>, String>;

    fn frame(&self) -> Frame;
}

pub(crate) struct Lines<F> {
    source: Source,
    format: F,
    line: Vec<u8>,
    over: bool,
}

impl<F: LineFormat> Lines<F> {
    pub(crate) fn new(source: Source) -> Self
    where
        F: Default,
    {
        Self::with(source, F::default())
    }

    pub(crate) fn with(source: Source, format: F) -> Self {
        Lines { source, format, line: Vec::new(), over: false }
    }
}

impl<F: LineFormat> Decode for Lines<F> {
    fn next(&mut self, tables: &mut Tables) -> Option<Result<Record, Defect>> {
        while !self.over {
            let offset = self.source.offset();
            let defect = |class, detail: String| Some(Err(Defect { class, offset, detail }));
            let ended = match self.source.line(&mut self.line) {
                Ok(Line::Whole { ended }) => ended,
                Ok(Line::TooLong) => return defect(DefectClass::Broken, "the line is too long".into()),
                Ok(Line::End) => {
                    self.over = true;
                    return None;
                }
                Err(error) => {
                    self.over = true;
                    return defect(DefectClass::Unreadable, error.to_string());
                }
            };
            if self.line.is_empty() {
                continue;
            }
            match self.format.parse(&text(&self.line), offset, tables) {
                Ok(Some(record)) => return Some(Ok(record)),
                Ok(None) => {}
                Err(detail) if ended => return defect(DefectClass::Broken, detail),
                Err(detail) => return defect(DefectClass::Truncated, format!("the last line has no end: {detail}")),
            }
        }
        None
    }

    fn frame(&self) -> Frame {
        self.format.frame()
    }
}

/// The line as text; bytes that are no UTF-8 are percent-encoded, as a client would send them.
fn text(line: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(line) {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(line.len() + 16);
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    Cow::Owned(text)
}

/// How many of the lines of `head` this format can read, from 0 to 1. The last, perhaps cut, counts only if it is alone.
pub(crate) fn share<F: LineFormat + Default>(head: &[u8]) -> f64 {
    let mut format = F::default();
    let mut tables = Tables::default();
    let mut lines: Vec<&[u8]> = head.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).take(20).collect();
    if lines.len() > 1 && head.last() != Some(&b'\n') && lines.len() < 20 {
        lines.pop();
    }
    let good = lines.iter().filter(|line| format.parse(&text(line), 0, &mut tables).is_ok()).count();
    if lines.is_empty() { 0.0 } else { good as f64 / lines.len() as f64 }
}

/// A whole number in a text field.
pub(crate) fn number<T: std::str::FromStr>(field: &str, what: &str) -> Result<T, String> {
    field.parse().map_err(|_| format!("{what} is no number that fits: {:?}", shortened(field)))
}

/// Bytes of a body in a text field: `-` or nothing means that they are not logged.
pub(crate) fn bytes(field: &str) -> Result<crate::LoggedBytes, String> {
    match field {
        "" | "-" => Ok(crate::LoggedBytes::NONE),
        digits => number::<u64>(digits, "the size").map(Into::into),
    }
}

/// A status code in a text field: `-` or nothing means that it is not logged.
pub(crate) fn status(field: &str) -> Result<u16, String> {
    match field {
        "" | "-" => Ok(0),
        digits => match number(digits, "the status")? {
            code @ 100..=999 => Ok(code),
            code => Err(format!("there is no status {code}")),
        },
    }
}

/// Nanoseconds of a time in decimal seconds, and how many decimals it has. At most nine decimals count.
pub(crate) fn seconds(field: &str) -> Result<(u64, u32), String> {
    let (whole, fraction) = field.split_once('.').unwrap_or((field, ""));
    let digits = fraction.len().min(9);
    let known = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !known(whole) || !known(fraction) {
        return Err(format!("the time is no number of seconds: {:?}", shortened(field)));
    }
    let whole: u64 = number(whole, "the time")?;
    let fraction: u64 = if digits == 0 { 0 } else { number(&fraction[..digits], "the time")? };
    let nanos =
        whole.checked_mul(1_000_000_000).and_then(|nanos| nanos.checked_add(fraction * 10u64.pow(9 - digits as u32)));
    nanos.map(|nanos| (nanos, digits as u32)).ok_or_else(|| format!("the time is too large: {:?}", shortened(field)))
}

/// At most 40 characters of `text`, for messages.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_their_decimals() {
        assert_eq!(seconds("1.5"), Ok((1_500_000_000, 1)));
        assert_eq!(seconds("0.000000001"), Ok((1, 9)));
        assert_eq!(seconds("12"), Ok((12_000_000_000, 0)));
        assert_eq!(seconds("1.0000000019"), Ok((1_000_000_001, 9)));
        for wrong in ["", ".5", "-1", "1e3", "1.2.3", "99999999999999999999", "18446744074"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_logged_differs_from_nought() {
        assert_eq!(bytes("-").unwrap().get(), None);
        assert_eq!(bytes("0").unwrap().get(), Some(0));
        assert!(bytes("12a").is_err());
        assert_eq!((status("-"), status("304")), (Ok(0), Ok(304)));
        assert!(status("99").is_err() && status("1000").is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_encoded() {
        assert_eq!(text(b"/caf\xe9/\xc3\xa9"), "/caf%E9/\u{e9}");
    }
}

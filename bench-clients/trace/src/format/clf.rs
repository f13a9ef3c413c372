//! Apache's and nginx's common and combined log.

use super::lines::{LineFormat, bytes, number, shortened, status};
use super::{Frame, Record};
use crate::Method;
use crate::tables::Tables;
use std::time::Duration;

/// `host ident user [day/Mon/year:hh:mm:ss ±hhmm] "METHOD url HTTP/x" status bytes`, then, in the combined format,
/// `"referer" "agent"`. What follows the bytes is not looked at.
#[derive(Default)]
pub(crate) struct Log;

impl LineFormat for Log {
    fn parse(&mut self, line: &str, offset: u64, tables: &mut Tables) -> Result<Option<Record>, String> {
        let (host, rest) = line.split_once(' ').ok_or("no blank after the client")?;
        let (_, rest) = rest.split_once('[').ok_or("no time in brackets")?;
        let (time, rest) = rest.split_once(']').ok_or("the bracket of the time is not closed")?;
        let time = time_of(time)?;
        let rest = rest.trim_start().strip_prefix('"').ok_or("no request in quotes")?;
        let (request, rest) = quoted(rest)?;
        let (method, url) = method_and_url(&request)?;
        let mut fields = rest.split_ascii_whitespace();
        let status = status(fields.next().ok_or("no status")?)?;
        let bytes = bytes(fields.next().ok_or("no size")?)?;
        let object = tables.objects.intern(path_of(url));
        Ok(Some(Record { offset, time, client: tables.client(host), object, bytes, method, status }))
    }

    fn frame(&self) -> Frame {
        Frame::log(Duration::from_secs(1))
    }
}

/// The text up to the closing quote, without its escapes, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut inside = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((inside, &text[at + 1..])),
            // Of Apache's escapes only \" and \\ hide what would mislead here; \xhh stays as it is.
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => inside.push(escaped),
                Some((_, other)) => inside.extend(['\\', other]),
                None => break,
            },
            other => inside.push(other),
        }
    }
    Err("the quote of the request is not closed".into())
}

/// Method and URL of a request line. The protocol may be missing (HTTP/0.9), and the URL may hold blanks.
pub(super) fn method_and_url(request: &str) -> Result<(Method, &str), String> {
    let (method, rest) = request.split_once(' ').ok_or_else(|| format!("no request: {:?}", shortened(request)))?;
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'-' || byte == b'_') {
        return Err(format!("no method: {:?}", shortened(request)));
    }
    let url = match rest.rsplit_once(' ') {
        Some((url, protocol)) if protocol.starts_with("HTTP/") => url,
        _ => rest,
    };
    match url.trim() {
        "" => Err(format!("no URL: {:?}", shortened(request))),
        url => Ok((Method::named(method), url)),
    }
}

/// The URL without scheme and authority, which requests to a proxy have.
pub(super) fn path_of(url: &str) -> &str {
    let Some((_, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.bytes().all(|b| b.is_ascii_alphanumeric()))
    else {
        return url;
    };
    rest.find('/').map_or("/", |slash| &rest[slash..])
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Nanoseconds since 1970 of `17/May/2015:10:05:03 +0000`.
pub(super) fn time_of(text: &str) -> Result<u64, String> {
    parts_of(text).unwrap_or_else(|| Err(format!("no time: {:?}", shortened(text))))
}

fn parts_of(text: &str) -> Option<Result<u64, String>> {
    let (stamp, zone) = text.split_once(' ')?;
    let (date, clock) = stamp.split_once(':')?;
    let mut date = date.split('/');
    let (day, month, year) = (date.next()?, date.next()?, date.next()?);
    let month = MONTHS.iter().position(|&name| name == month)? as i64 + 1;
    let mut clock = clock.split(':');
    let mut next = || number::<u8>(clock.next()?, "").ok().map(i64::from);
    let (hour, minute, second) = (next()?, next()?, next()?);
    let (day, year) = (number::<u8>(day, "").ok()?, number::<u16>(year, "").ok()?);
    // 60: a leap second.
    if !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let seconds = days(year.into(), month, day.into()) * 86_400 + hour * 3600 + minute * 60 + second - offset_of(zone)?;
    let nanos = u64::try_from(seconds).ok().and_then(|seconds| seconds.checked_mul(1_000_000_000));
    Some(nanos.ok_or_else(|| format!("the time is before 1970 or after 2554: {:?}", shortened(text))))
}

/// Seconds east of Greenwich of `+0200`.
fn offset_of(zone: &str) -> Option<i64> {
    let sign = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits = zone.get(1..).filter(|digits| digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit()))?;
    let (hours, minutes) = (digits[..2].parse::<i64>().ok()?, digits[2..].parse::<i64>().ok()?);
    Some(sign * (hours * 3600 + minutes * 60))
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
pub(super) fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March, so that the leap day is their last; 153 days are five months from there.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<(Record, String), String> {
        let mut tables = Tables::default();
        let record = Log.parse(line, 0, &mut tables)?.ok_or("no record")?;
        Ok((record, tables.objects[record.object].url.to_string()))
    }

    #[test]
    fn common_and_combined_lines_are_read() {
        let (record, url) = parse(
            r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a%20b?x=\"1\" HTTP/1.0" 200 2326 "http://r/" "agent \" x""#,
        )
        .unwrap();
        assert_eq!(record.time, 971_211_336 * 1_000_000_000);
        assert_eq!((record.status, record.bytes.get(), record.method), (200, Some(2326), Method::Get));
        assert_eq!(url, "/a%20b?x=\"1\"");
        let (record, url) =
            parse(r#"h - - [29/Feb/1996:00:00:00 +0200] "POST http://h.example HTTP/1.1" 304 -"#).unwrap();
        assert_eq!((record.bytes.get(), url.as_str(), record.method), (None, "/", Method::Post));
        assert_eq!(record.time, 825_544_800 * 1_000_000_000);
        assert_eq!(parse(r#"h - - [01/Jan/1970:00:00:00 +0000] "GET /with blank" 200 1"#).unwrap().1, "/with blank");
    }

    #[test]
    fn broken_lines_say_what_is_wrong() {
        for (line, detail) in [
            ("x", "no blank"),
            ("x - - GET", "no time"),
            (r#"x - - [99/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200 1"#, "no time"),
            (r#"x - - [10/Oct/2000:13:55:36] "GET / HTTP/1.0" 200 1"#, "no time"),
            (r#"x - - [10/Oct/1960:13:55:36 +0000] "GET / HTTP/1.0" 200 1"#, "before 1970"),
            (r#"x - - [10/Oct/2000:13:55:36 -0700] "-" 408 -"#, "no request"),
            (r#"x - - [10/Oct/2000:13:55:36 -0700] "\x16\x03 \x01" 400 226"#, "no method"),
            (r#"x - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0"#, "not closed"),
            (r#"x - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 200"#, "no size"),
            (r#"x - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.0" 20 1"#, "no status 20"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(detail), "{line}: {error}");
        }
    }

    #[test]
    fn days_follow_the_calendar() {
        assert_eq!(days(1970, 1, 1), 0);
        assert_eq!(days(2000, 3, 1) - days(2000, 2, 28), 2);
        assert_eq!(days(1900, 3, 1) - days(1900, 2, 28), 1);
        assert_eq!(days(2015, 5, 17), 16_572);
    }
}

//! Access logs with a JSON object a line: this project's dispatcher, nginx with a `log_format` of one's own, Caddy,
//! Traefik, Envoy.

use super::clf::{days, method_and_url, path_of, time_of};
use super::lines::{LineFormat, bytes, number, seconds, shortened, status};
use super::{Frame, Record};
use crate::tables::Tables;
use crate::{LoggedBytes, Method};
use serde_json::{Map, Value};
use std::time::Duration;

/// What is known by these names, of which the first that is there counts: in the object itself, or below `request`. Numbers
/// may be written as text.
const TIME: &[&str] =
    &["time", "ts", "timestamp", "@timestamp", "time_iso8601", "msec", "time_local", "StartUTC", "start_time"];
const CLIENT: &[&str] = &["client", "remote_addr", "remote_ip", "client_ip", "ClientHost", "downstream_remote_address"];
const METHOD: &[&str] = &["method", "request_method", "RequestMethod"];
const URL: &[&str] = &["target", "request_uri", "uri", "url", "path", "RequestPath"];
const STATUS: &[&str] = &["status", "DownstreamStatus", "response_code"];
const BYTES: &[&str] = &["sent", "body_bytes_sent", "size", "bytes", "bytes_sent", "DownstreamContentSize"];

/// From this number on a time is in milliseconds; in seconds it would be the year 5138.
const MILLISECONDS: u64 = 100_000_000_000;

/// Times with as many decimals as they have.
#[derive(Default)]
pub(crate) struct Json {
    /// The most that were seen.
    decimals: u32,
}

impl LineFormat for Json {
    fn parse(&mut self, line: &str, offset: u64, tables: &mut Tables) -> Result<Option<Record>, String> {
        let log: Map<String, Value> = serde_json::from_str(line).map_err(|error| format!("no JSON object: {error}"))?;
        let (time, decimals) = time(&text(&log, TIME).ok_or_else(|| lacks("time", TIME))?)?;
        let line = log.get("request").and_then(Value::as_str).map(method_and_url).transpose()?;
        let url = text(&log, URL).or_else(|| Some(line?.1.to_owned())).ok_or_else(|| lacks("URL", URL))?;
        let method = text(&log, METHOD).map(|name| Method::named(&name)).or(line.map(|(method, _)| method));
        let status = text(&log, STATUS).map_or(Ok(0), |code| status(&code))?;
        let bytes = text(&log, BYTES).map_or(Ok(LoggedBytes::NONE), |size| bytes(&size))?;
        self.decimals = self.decimals.max(decimals);
        let client = tables.client(text(&log, CLIENT).as_deref().unwrap_or("-"));
        let object = tables.objects.intern(path_of(&url));
        Ok(Some(Record { offset, time, client, object, bytes, method: method.unwrap_or(Method::Get), status }))
    }

    fn frame(&self) -> Frame {
        Frame::log(Duration::from_nanos(10u64.pow(9 - self.decimals.min(9))))
    }
}

fn lacks(what: &str, names: &[&str]) -> String {
    format!("no {what}, which would be called {}", names.join(", "))
}

/// The first of these that is there and is text or a number.
fn text(log: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let below = log.get("request").and_then(Value::as_object);
    let found = |name: &&str| match log.get(*name).or_else(|| below?.get(*name))? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    names.iter().find_map(found)
}

/// Nanoseconds since 1970 of a time in seconds or milliseconds, as RFC 3339 or as Apache writes it; and its decimals.
fn time(text: &str) -> Result<(u64, u32), String> {
    if text.contains('/') {
        return Ok((time_of(text)?, 0));
    }
    if text.get(4..5) == Some("-") {
        return rfc3339(text).ok_or_else(|| format!("no time: {:?}", shortened(text)));
    }
    match text.parse::<u64>() {
        Ok(millis) if millis >= MILLISECONDS => {
            let nanos = millis.checked_mul(1_000_000).ok_or_else(|| format!("the time is too large: {text}"))?;
            Ok((nanos, 3))
        }
        _ => seconds(text),
    }
}

/// `2026-11-21T11:25:03.000042Z`, or with an offset such as +02:00 or +0200.
fn rfc3339(text: &str) -> Option<(u64, u32)> {
    let (date, clock) = text.split_at_checked(10)?;
    let clock = clock.strip_prefix(['T', 't', ' '])?;
    let two = |text: &str, from: usize| number::<u8>(text.get(from..from + 2)?, "").ok().map(i64::from);
    let (year, month, day) = (number::<u16>(date.get(..4)?, "").ok()?, two(date, 5)?, two(date, 8)?);
    let (hour, minute, second) = (two(clock, 0)?, two(clock, 3)?, two(clock, 6)?);
    let in_place = date.get(7..8) == Some("-") && clock.get(2..3) == Some(":") && clock.get(5..6) == Some(":");
    if !in_place || !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let rest = clock.get(8..)?;
    let zone = rest.find(|c: char| c != '.' && !c.is_ascii_digit())?;
    let (fraction, zone) = rest.split_at(zone);
    let (fraction, decimals) = seconds(&format!("0{fraction}")).ok()?;
    let east = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let digits = zone.strip_prefix(['+', '-'])?.replace(':', "");
            sign * (two(&digits, 0)? * 3600 + two(&digits, 2)? * 60)
        }
    };
    let whole = days(year.into(), month, day) * 86_400 + hour * 3600 + minute * 60 + second - east;
    let nanos = u64::try_from(whole).ok()?.checked_mul(1_000_000_000)?.checked_add(fraction)?;
    Some((nanos, decimals))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time, status, bytes, method, and the URL.
    type Read = (u64, u16, Option<u64>, Method, String);

    fn parse(line: &str) -> Result<(Read, Json), String> {
        let (mut json, mut tables) = (Json::default(), Tables::default());
        let record = json.parse(line, 0, &mut tables)?.ok_or("no record")?;
        let url = tables.objects[record.object].url.to_string();
        Ok(((record.time, record.status, record.bytes.get(), record.method, url), json))
    }

    const NOON: u64 = 1_792_584_000_000_000_000;

    #[test]
    fn logs_of_several_servers_are_read() {
        for (line, nanos, resolution) in [
            // This project's dispatcher.
            (
                r#"{"time":"2026-10-21T12:00:00.000042Z","client":"::1","method":"GET","target":"/a","status":200,"sent":7}"#,
                42_000,
                Duration::from_micros(1),
            ),
            // nginx, with a format as its users write it: all text.
            (
                r#"{"time_local":"21/Oct/2026:14:00:00 +0200","remote_addr":"::1","request":"GET /a HTTP/1.1","status":"200","body_bytes_sent":"7"}"#,
                0,
                Duration::from_secs(1),
            ),
            (
                r#"{"time_iso8601":"2026-10-21T14:00:00+02:00","request_method":"GET","request_uri":"/a","uri":"/b","status":"200","bytes_sent":7}"#,
                0,
                Duration::from_secs(1),
            ),
            // Caddy.
            (
                r#"{"ts":1792584000.25,"request":{"remote_ip":"::1","method":"GET","uri":"/a"},"size":7,"status":200}"#,
                250_000_000,
                Duration::from_millis(10),
            ),
            // Traefik.
            (
                r#"{"StartUTC":"2026-10-21T12:00:00.000000001Z","ClientHost":"::1","RequestMethod":"GET","RequestPath":"http://h/a","DownstreamStatus":200,"DownstreamContentSize":7}"#,
                1,
                Duration::from_nanos(1),
            ),
            (
                r#"{"timestamp":1792584000123,"method":"GET","path":"/a","response_code":200,"bytes":7}"#,
                123_000_000,
                Duration::from_millis(1),
            ),
        ] {
            let (read, json) = parse(line).unwrap();
            assert_eq!(read, (NOON + nanos, 200, Some(7), Method::Get, "/a".to_owned()), "{line}");
            assert_eq!(json.frame().resolution, resolution, "{line}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        let ((_, status, bytes, method, _), _) =
            parse(r#"{"time":1792584000,"url":"/a","status":null,"bytes":"-"}"#).unwrap();
        assert_eq!((status, bytes, method), (0, None, Method::Get));
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        for (line, word) in [
            ("[1]", "no JSON object"),
            ("{", "no JSON object"),
            (r#"{"url":"/a"}"#, "no time"),
            (r#"{"time":1}"#, "no URL"),
            (r#"{"time":"noon","url":"/a"}"#, "noon"),
            (r#"{"time":"2026-13-21T12:00:00Z","url":"/a"}"#, "2026-13"),
            (r#"{"time":"2026-10-21T12:00:00","url":"/a"}"#, "2026-10"),
            (r#"{"time":"2026-10-21T12:00:00+é0:00","url":"/a"}"#, "2026-10"),
            (r#"{"time":-1,"url":"/a"}"#, "-1"),
            (r#"{"time":1e300,"url":"/a"}"#, "1e"),
            (r#"{"time":18446744073709551615,"url":"/a"}"#, "too large"),
            (r#"{"time":1,"url":"/a","status":42}"#, "status 42"),
            (r#"{"time":1,"request":"nonsense"}"#, "no request"),
        ] {
            let error = parse(line).map(|(read, _)| read).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}

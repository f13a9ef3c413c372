//! Lengths of time and quantities as configurations write them: text with a unit, such as "3s" or "48MiB".
//!
//! For serde's `deserialize_with`; a field that may be left out has `default` beside it.

use serde::{Deserialize, Deserializer, de};
use std::{fmt::Display, str::FromStr, time::Duration};

/// A length of time, such as "3s" or "500ms".
///
/// # Errors
/// If it is no such text.
pub fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = |_| de::Error::custom(format!("{text:?} is no length of time: write \"3s\" or \"500ms\""));
    humantime::parse_duration(&text).map_err(wrong)
}

/// As [`duration`], where it may be left out.
///
/// # Errors
/// As there.
pub fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// A quantity, such as "48MiB" for [`Bytes`](crate::Bytes).
///
/// # Errors
/// If it is no such text.
pub fn quantity<'de, T, D>(from: D) -> Result<T, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}

/// As [`quantity`], where it may be left out.
///
/// # Errors
/// As there.
pub fn some_quantity<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    quantity(from).map(Some)
}

#[cfg(test)]
mod tests {
    use crate::{Bytes, BytesPerSec};
    use serde::Deserialize;
    use std::time::Duration;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Written {
        #[serde(deserialize_with = "super::duration")]
        wait: Duration,
        #[serde(default, deserialize_with = "super::some_duration")]
        longer: Option<Duration>,
        #[serde(deserialize_with = "super::quantity")]
        size: Bytes,
        #[serde(default, deserialize_with = "super::some_quantity")]
        rate: Option<BytesPerSec>,
    }

    #[test]
    fn text_is_read_with_its_unit_and_numbers_alone_are_refused() {
        let read: Written = serde_json::from_str(r#"{"wait":"500ms","size":"2KiB","rate":"3kB/s"}"#).unwrap();
        let wait = Duration::from_millis(500);
        assert_eq!(read, Written { wait, longer: None, size: Bytes(2048), rate: Some(BytesPerSec(3000)) });
        for (bad, hint) in [(r#"{"wait":"5","size":"1B"}"#, "500ms"), (r#"{"wait":"5s","size":"5"}"#, "48MiB")] {
            let error = serde_json::from_str::<Written>(bad).unwrap_err().to_string();
            assert!(error.contains(hint), "{error}");
        }
    }
}

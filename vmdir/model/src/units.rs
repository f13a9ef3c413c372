//! Quantities with their units. Arithmetic that can overflow is checked; conversions say what they convert.

use serde::{Deserialize, Serialize};
use std::{fmt, iter::Sum, str::FromStr, time::Duration};

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: write {hint}")]
pub struct UnitError {
    text: String,
    what: &'static str,
    hint: &'static str,
}

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// None of it.
            pub const ZERO: Self = Self(0);

            /// The sum, or `None` on overflow.
            pub fn checked_add(self, other: Self) -> Option<Self> {
                self.0.checked_add(other.0).map(Self)
            }

            /// The difference, or zero where `other` is larger.
            #[must_use]
            pub fn saturating_sub(self, other: Self) -> Self {
                Self(self.0.saturating_sub(other.0))
            }
        }

        impl Sum for $name {
            /// The sum; it stays at the largest value instead of wrapping.
            fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
                Self(iter.fold(0, |sum, x| sum.saturating_add(x.0)))
            }
        }
    };
}

unit! {
    /// An amount of memory or data, in bytes.
    Bytes
}
unit! {
    /// A data rate, in bytes per second.
    BytesPerSec
}
unit! {
    /// An amount of CPU, in thousandths of one core.
    MilliCpu
}
unit! {
    /// A point in time: microseconds since 1970-01-01 00:00 UTC (or since the start of a simulation).
    Timestamp
}

impl Timestamp {
    /// How long after `earlier` this is; zero if it is not after.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This much later; the largest timestamp on overflow.
    #[must_use]
    pub fn after(self, elapsed: Duration) -> Timestamp {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        Timestamp(self.0.saturating_add(micros))
    }
}

/// Splits `text` into its number and its unit, as in "2.7MB/s" or "48 MiB".
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim_start()))
}

/// `number` × `scale` as a whole number, if it is one that fits.
fn scaled(number: f64, scale: f64) -> Option<u64> {
    let value = (number * scale).round();
    // 2^53: beyond it a float no longer tells neighbouring whole numbers apart.
    (0.0..9_007_199_254_740_992.0).contains(&value).then_some(value as u64)
}

fn data_scale(unit: &str) -> Option<f64> {
    Some(match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1_048_576.0,
        "GiB" => 1_073_741_824.0,
        "TiB" => 1_099_511_627_776.0,
        _ => return None,
    })
}

fn rate_scale(unit: &str) -> Option<f64> {
    Some(match unit {
        "bit/s" => 0.125,
        "kbit/s" => 125.0,
        "Mbit/s" => 125e3,
        "Gbit/s" => 125e6,
        _ => data_scale(unit.strip_suffix("/s")?)?,
    })
}

macro_rules! parse {
    ($name:ident, $what:literal, $hint:literal, $scale:expr) => {
        impl FromStr for $name {
            type Err = UnitError;
            fn from_str(text: &str) -> Result<Self, UnitError> {
                let parsed = split(text).and_then(|(number, unit)| scaled(number, $scale(unit)?));
                parsed.map(Self).ok_or_else(|| UnitError { text: text.to_owned(), what: $what, hint: $hint })
            }
        }
    };
}

parse!(Bytes, "amount of memory", "a number with B, kB, MB, GB, KiB, MiB or GiB, such as \"48MiB\"", data_scale);
parse!(BytesPerSec, "data rate", "a number with a unit per second, such as \"2.7MB/s\" or \"100Mbit/s\"", rate_scale);
parse!(MilliCpu, "amount of CPU", "cores such as \"1.5\", or thousandths of a core such as \"1500m\"", |unit| {
    match unit {
        "" => Some(1000.0),
        "m" => Some(1.0),
        _ => None,
    }
});

/// Writes `value` with the largest decimal prefix that keeps it at 1 or above.
fn with_prefix(f: &mut fmt::Formatter<'_>, value: u64, unit: &str) -> fmt::Result {
    let (scale, prefix) = match value {
        0..1_000 => return f.pad(&format!("{value} {unit}")),
        1_000..1_000_000 => (1e3, "k"),
        1_000_000..1_000_000_000 => (1e6, "M"),
        _ => (1e9, "G"),
    };
    f.pad(&format!("{:.2} {prefix}{unit}", value as f64 / scale))
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_prefix(f, self.0, "B")
    }
}

impl fmt::Display for BytesPerSec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        with_prefix(f, self.0, "B/s")
    }
}

impl fmt::Display for MilliCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}m", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_their_units() {
        assert_eq!("2.7MB/s".parse(), Ok(BytesPerSec(2_700_000)));
        assert_eq!("100 Mbit/s".parse(), Ok(BytesPerSec(12_500_000)));
        assert_eq!("48MiB".parse(), Ok(Bytes(48 << 20)));
        assert_eq!("1.5".parse(), Ok(MilliCpu(1500)));
        assert_eq!("250m".parse(), Ok(MilliCpu(250)));
    }

    #[test]
    fn wrong_units_are_refused() {
        for bad in ["", "5", "5MB", "-1MB/s", "1.2.3MB/s", "1e9GB/s", "99999999999999TB/s"] {
            assert!(bad.parse::<BytesPerSec>().is_err(), "{bad:?}");
        }
        for bad in ["5", "5MB/s", "5mb", "MB"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad:?}");
        }
        let message = "5".parse::<Bytes>().unwrap_err().to_string();
        assert!(message.contains("48MiB"), "{message}");
    }

    #[test]
    fn sums_saturate() {
        assert_eq!([Bytes(u64::MAX), Bytes(1)].into_iter().sum::<Bytes>(), Bytes(u64::MAX));
    }

    #[test]
    fn time_differences_never_go_below_zero() {
        let (early, late) = (Timestamp(5), Timestamp(9));
        assert_eq!(late.since(early), Duration::from_micros(4));
        assert_eq!(early.since(late), Duration::ZERO);
        assert_eq!(early.after(Duration::from_micros(4)), late);
    }
}

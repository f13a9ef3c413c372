//! How a second is written.

use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};
use vibra_model::Timestamp;

const MICROS: u64 = 1_000_000;
/// The last second of the year 9999, which is the last that RFC 3339 can write.
const LAST: u64 = 253_402_300_799;
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// A second in both ways of writing. Requests come by the thousand a second, so it is written once.
#[derive(Clone, Debug)]
pub(super) struct Stamp {
    /// Since 1970; `None` before the first.
    second: Option<u64>,
    /// `2026-11-21T11:25:03Z`
    rfc3339: [u8; 20],
    /// `21/Nov/2026:11:25:03 +0000`
    common: [u8; 26],
}

impl Default for Stamp {
    fn default() -> Self {
        Stamp { second: None, rfc3339: *b"0000-00-00T00:00:00Z", common: *b"00/???/0000:00:00:00 +0000" }
    }
}

impl Stamp {
    /// This stamp, brought to `time`.
    pub(super) fn at(&mut self, time: Timestamp) -> &Stamp {
        let second = (time.0 / MICROS).min(LAST);
        if self.second != Some(second) {
            self.write(second);
            self.second = Some(second);
        }
        self
    }

    #[cold]
    fn write(&mut self, second: u64) {
        let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(second));
        write!(&mut self.rfc3339[..], "{text}").expect("20 bytes up to the year 9999");
        let [year, month, day, time] = [0..4, 5..7, 8..10, 11..19].map(|part| &self.rfc3339[part]);
        let number = usize::from(month[0] - b'0') * 10 + usize::from(month[1] - b'0');
        self.common[0..2].copy_from_slice(day);
        self.common[3..6].copy_from_slice(MONTHS[number - 1]);
        self.common[7..11].copy_from_slice(year);
        self.common[12..20].copy_from_slice(time);
    }

    /// `2026-11-21T11:25:03`, without a zone: it is UTC.
    pub(super) fn rfc3339(&self) -> &[u8] {
        &self.rfc3339[..19]
    }

    /// `21/Nov/2026:11:25:03 +0000`
    pub(super) fn common(&self) -> &[u8] {
        &self.common
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_written_in_both_ways() {
        let mut stamp = Stamp::default();
        for (second, rfc3339, common) in [
            (0, "1970-01-01T00:00:00", "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "2000-02-28T23:59:59", "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "2000-02-29T00:00:00", "29/Feb/2000:00:00:00 +0000"),
            (1_795_260_303, "2026-11-21T11:25:03", "21/Nov/2026:11:25:03 +0000"),
            (LAST, "9999-12-31T23:59:59", "31/Dec/9999:23:59:59 +0000"),
        ] {
            let stamp = stamp.at(Timestamp(second * MICROS + 999_999));
            assert_eq!(stamp.rfc3339(), rfc3339.as_bytes());
            assert_eq!(stamp.common(), common.as_bytes());
        }
    }

    #[test]
    fn no_time_is_too_late() {
        assert_eq!(Stamp::default().at(Timestamp(u64::MAX)).rfc3339(), b"9999-12-31T23:59:59");
    }
}

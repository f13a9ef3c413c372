//! The afternoon and the evening of 1998-06-30 by sub-namespace (Figure 3.5).

use super::{COLUMNS, HOT, HOT_COLUMN, catalogue::column, facts};
use std::time::Duration;
use vibra_model::Timestamp;

/// Bytes of each minute from [`START`] on, from the Internet Traffic Archive's counts by minute; under the notice in
/// [`super::NOTICE`].
const MINUTES: &str = include_str!("../../../data/worldcup98/minutes.txt");

/// The first minute: 1998-06-30 14:00:00 UTC, 16:00 on the site, in seconds since 1970.
const START: u64 = 899_215_200;

/// From which minute on the evening's game is what is asked for: an hour before its kick-off at 21:00 on the site. An
/// assumption: when it was is not to be had.
const EVENING: usize = 4 * 60;

/// Bytes of one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Minute {
    /// When it began.
    pub at: Timestamp,
    /// Bytes of each sub-namespace under Charsum, modulo 4; the first is the dissertation's sub-namespace 1.
    pub bytes: [u64; COLUMNS],
}

/// Eight hours with both games of the day, by minute: 16:00 to 24:00 (GMT+2).
///
/// The bytes of each minute are those of the log. How they fall on sub-namespaces is a reconstruction: as Table 3.1 has
/// them for ten minutes of the afternoon's game (8878), all day; from an hour before the evening's game on its pages
/// (8877) have the part that the afternoon's had, and stand in the sub-namespace of their own names.
pub fn history() -> Vec<Minute> {
    let moved: [Move; HOT.len()] = std::array::from_fn(|index| Move::of(HOT[index], facts::HOT_BYTES[index]));
    let minute = |(index, line): (usize, &str)| {
        let total: f64 = line.parse().unwrap_or(0.0);
        let mut percent = facts::BYTES.map(|percent| percent as f64);
        if index >= EVENING {
            for Move { to, percent: part } in moved {
                percent[HOT_COLUMN] -= part;
                percent[to] += part;
            }
        }
        let at = Timestamp(START * 1_000_000).after(Duration::from_secs(60 * index as u64));
        Minute { at, bytes: percent.map(|percent| (percent / 100.0 * total).round() as u64) }
    };
    MINUTES.lines().enumerate().map(minute).collect()
}

/// Where a hot file's counterpart of the evening stands.
#[derive(Clone, Copy)]
struct Move {
    to: usize,
    /// Of all bytes.
    percent: f64,
}

impl Move {
    fn of(url: &str, percent: f64) -> Move {
        Move { to: column(&url.replace("8878", "8877")), percent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_of_the_trace_is_as_its_facts_say() {
        let history = history();
        assert_eq!(history.len(), 8 * 60);
        let first = history.iter().position(|minute| minute.at.0 == facts::START * 1_000_000).expect("16:10 UTC");
        for (minute, (_, bytes)) in history[first..].iter().zip(facts::MINUTES) {
            assert!(minute.bytes.iter().sum::<u64>().abs_diff(bytes) <= 2, "{minute:?}: {bytes}");
            assert!(minute.bytes[HOT_COLUMN].abs_diff(bytes * 64 / 100) <= 1, "{minute:?}");
        }
    }

    #[test]
    fn the_evenings_game_is_in_sub_namespace_1() {
        let evening = history()[5 * 60].bytes.map(|bytes| bytes as f64);
        let part = evening[0] / evening.iter().sum::<f64>();
        // 14 % of all, and the four pages of the game: 19.8 %.
        assert!((part - 0.338).abs() < 0.001, "{part}");
    }
}

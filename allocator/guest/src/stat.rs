//! The kernel's text files of numbers, understood. Pure.

use serde::{Deserialize, Serialize};

/// The size of a page on x86-64, in bytes.
pub const PAGE: u64 = 4096;

/// The number of `key` in lines such as "workingset_refault_file 12", "MemFree:  12 kB" or "Active(file):  3 kB", as it
/// stands there; `None` where there is no such line, or no number in it.
pub fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        (name.strip_suffix(':').unwrap_or(name) == key).then(|| words.next()?.parse().ok())?
    })
}

/// The number of `key` in /proc/meminfo, in bytes.
pub fn meminfo(text: &str, key: &str) -> Option<u64> {
    field(text, key)?.checked_mul(1024)
}

/// How long tasks have waited for a resource since the start, in µs (pressure stall information).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    /// While at least one waited.
    pub some_us: u64,
    /// While all waited. The system as a whole has none for its processors.
    pub full_us: Option<u64>,
}

impl Pressure {
    /// Of a file such as /proc/pressure/memory or a control group's memory.pressure; `None` where that says no times.
    pub fn parse(text: &str) -> Option<Pressure> {
        let total = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind)?.strip_prefix(' '))?;
            line.split_whitespace().find_map(|pair| pair.strip_prefix("total=")?.parse().ok())
        };
        Some(Pressure { some_us: total("some")?, full_us: total("full") })
    }
}

/// The time all processors were busy, of /proc/stat with this many ticks a second, in ms. Waiting for a disk is idle, and
/// so is what a hypervisor gave to others.
pub fn busy_ms(text: &str, ticks_per_second: u64) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks = line.split_whitespace().map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().ok()?;
    // user, nice, system, idle, iowait, irq, softirq, steal, and guests, whose time is in user's.
    let busy = [0, 1, 2, 5, 6].iter().map(|&at| ticks.get(at).copied()).sum::<Option<u64>>()?;
    busy.checked_mul(1000)?.checked_div(ticks_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemTotal:         108520 kB\nActive:            1 kB\nActive(file):      6328 kB\nHugePages_Total:       0\n";
        assert_eq!(meminfo(text, "MemTotal"), Some(108_520 * 1024));
        assert_eq!(meminfo(text, "Active(file)"), Some(6328 * 1024));
        assert_eq!(meminfo(text, "Mem"), None);
        assert_eq!(field("pgmajfault 7\npgmajfault_x 8\nbad x\nempty\n", "pgmajfault"), Some(7));
        assert_eq!((field("bad x\n", "bad"), field("empty\n", "empty")), (None, None));
        assert_eq!(meminfo("A: 18446744073709551615 kB", "A"), None, "more than fits");
    }

    #[test]
    fn pressure_is_read_in_all_its_forms() {
        let memory =
            "some avg10=0.00 avg60=1.50 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=99\n";
        assert_eq!(Pressure::parse(memory), Some(Pressure { some_us: 1234, full_us: Some(99) }));
        let processors = "some avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        assert_eq!(Pressure::parse(processors), Some(Pressure { some_us: 5, full_us: None }));
        assert_eq!(Pressure::parse(""), None);
        assert_eq!(Pressure::parse("some avg10=0.00\n"), None);
    }

    #[test]
    fn busy_time_leaves_waiting_out() {
        let text = "cpu  100 5 20 1000 300 3 2 50 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n";
        assert_eq!(busy_ms(text, 100), Some(1_300));
        assert_eq!((busy_ms("cpu  1 2\n", 100), busy_ms("", 100), busy_ms(text, 0)), (None, None, None));
    }
}

//! What is said over the port: one JSON object a line.
//!
//! Fields that the other side does not know are passed over, and those that it does not say are as in `default()`: host
//! and guest may be of different versions.

use crate::stat::Pressure;
use serde::{Deserialize, Serialize};

/// The name of the virtio-serial port.
pub const PORT: &str = "org.vibra.guest";
/// No line of either side is longer, in bytes.
pub const MOST_BYTES: usize = 4096;

/// What a guest says once a second. Its heartbeat, too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Grows by one with each report of one life of the guest agent.
    pub sequence: u64,
    /// Since the guest's start, in ms.
    pub uptime_ms: u64,
    /// Time its processors were busy since its start, in ms.
    pub cpu_ms: Option<u64>,
    /// Where its memory is.
    pub memory: Option<Memory>,
    /// Counters of what went wrong for lack of memory.
    pub faults: Option<Faults>,
    /// How long tasks waited for memory.
    pub pressure: Option<Pressure>,
    /// The newest estimate of its working set.
    pub working_set: Option<WorkingSet>,
    /// How the working set is being sampled; `None`: not at all.
    pub sampling: Option<Sampling>,
    /// What its server says of itself; `None`: it does not answer.
    pub server: Option<Server>,
    /// What keeps the guest agent from its work.
    pub trouble: Option<String>,
}

/// Where a guest's memory is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// What the kernel manages; less when the balloon grows.
    pub total: u64,
    /// Used for nothing.
    pub free: u64,
    /// What could be used without swapping, as the kernel guesses.
    pub available: u64,
    /// Page cache.
    pub cached: u64,
    /// Page cache on the active list.
    pub active_file: u64,
    /// Page cache on the inactive list.
    pub inactive_file: u64,
    /// Memory of processes.
    pub anonymous: u64,
}

/// Counters since the guest's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Faults {
    /// Faults that had to read from a disk.
    pub major: u64,
    /// Pages of files that were read again soon after they had been given up.
    pub refaults: u64,
    /// Pages swapped in.
    pub swapped_in: u64,
    /// Pages swapped out.
    pub swapped_out: u64,
}

/// How a working set is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The page cache of the served files is deactivated; what is active after the period has been used in it. The
    /// method of section 3.4.6. It sees what is read with `read`, and wants the classic lists of pages.
    Deactivation,
    /// The multi-generation LRU is aged; what is in the youngest generation after the period has been used in it. It
    /// sees what is mapped, and not what is read with `read`: a page that is read keeps its generation.
    LruGen,
    /// Nothing is touched: what the kernel holds for active, and what it had to read again within the period.
    Refaults,
    /// The page cache is dropped; what is there after the period has been used in it. As expensive as it sounds: the
    /// dissertation has it to compare with (Figure 3.11).
    DropCaches,
}

/// What the working set is found out with, and over what time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// How.
    pub method: Method,
    /// What is used at least once in so long is in the working set, in ms.
    pub period_ms: u64,
}

/// An estimate of a working set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingSet {
    /// Memory that the guest could not do without, in bytes: all but what was not used in the period.
    pub bytes: u64,
    /// Of it the page cache, in bytes: the size of the active list in Figure 3.12.
    pub page_cache: u64,
    /// How it was found out.
    pub sampling: Sampling,
    /// How many periods had passed since the method was chosen.
    pub count: u64,
    /// How long it took to begin the period, in µs: what the measurement costs.
    pub cost_us: u64,
}

/// What a web server says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Requests since its start, those for its status included.
    pub requests: u64,
    /// Requests being read or answered.
    pub in_flight: u64,
}

/// What a host asks of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Sample the working set so from now on; `None`: no more.
    Sample(Option<Sampling>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_report_fits_in_a_line() {
        let most = u64::MAX;
        let sampling = Sampling { method: Method::Deactivation, period_ms: most };
        let memory = Memory {
            total: most,
            free: most,
            available: most,
            cached: most,
            active_file: most,
            inactive_file: most,
            anonymous: most,
        };
        let report = Report {
            sequence: most,
            uptime_ms: most,
            cpu_ms: Some(most),
            memory: Some(memory),
            faults: Some(Faults { major: most, refaults: most, swapped_in: most, swapped_out: most }),
            pressure: Some(Pressure { some_us: most, full_us: Some(most) }),
            working_set: Some(WorkingSet { bytes: most, page_cache: most, sampling, count: most, cost_us: most }),
            sampling: Some(sampling),
            server: Some(Server { requests: most, in_flight: most }),
            trouble: None,
        };
        let line = serde_json::to_string(&report).unwrap();
        assert!(line.len() < MOST_BYTES / 2, "{} bytes leave room for trouble", line.len());
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    }

    #[test]
    fn orders_look_as_documented() {
        let sample = Order::Sample(Some(Sampling { method: Method::LruGen, period_ms: 20_000 }));
        assert_eq!(serde_json::to_string(&sample).unwrap(), r#"{"sample":{"method":"lru-gen","period_ms":20000}}"#);
        assert_eq!(serde_json::from_str::<Order>(r#"{"sample":null}"#).unwrap(), Order::Sample(None));
        assert!(serde_json::from_str::<Order>(r#"{"reboot":null}"#).is_err());
    }

    #[test]
    fn a_guest_of_another_version_is_understood() {
        let report: Report = serde_json::from_str(r#"{"sequence":3,"colour":"blue","memory":{"total":5}}"#).unwrap();
        assert_eq!((report.sequence, report.memory.unwrap().total, report.server), (3, 5, None));
    }
}

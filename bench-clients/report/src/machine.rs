//! The machine that a result was measured on.

use serde::{Deserialize, Serialize};
use std::fs;

/// The machine that a result was measured on, as far as it tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu_model: Option<String>,
    /// Processors that this process may use.
    pub cores: Option<usize>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// The kernel's name and release.
    pub kernel: Option<String>,
    /// How many tasks ran or waited on average over the last minute: what else the machine was doing.
    pub load_1m: Option<f64>,
}

impl Machine {
    /// The machine that this runs on, as it is now.
    pub fn here() -> Machine {
        let read = |path| fs::read_to_string(path).ok();
        let kernel = |release: String| format!("Linux {}", release.trim());
        Machine {
            cpu_model: read("/proc/cpuinfo").and_then(|text| field(&text, "model name").map(str::to_owned)),
            cores: std::thread::available_parallelism().ok().map(Into::into),
            memory_bytes: read("/proc/meminfo").and_then(|text| memory_bytes(&text)),
            kernel: read("/proc/sys/kernel/osrelease").map(kernel),
            load_1m: read("/proc/loadavg").and_then(|text| text.split(' ').next()?.parse().ok()),
        }
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let kibibytes: u64 = field(meminfo, "MemTotal")?.strip_suffix(" kB")?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 85\nmodel name\t: A CPU @ 2.66GHz\n\nprocessor\t: 1\n";
        assert_eq!(field(cpuinfo, "model name"), Some("A CPU @ 2.66GHz"));
        assert_eq!(field(cpuinfo, "absent"), None);
        assert_eq!(memory_bytes("MemTotal:       24576 kB\nMemFree:  1 kB\n"), Some(24576 * 1024));
        assert_eq!(memory_bytes("MemTotal: many\n"), None);
    }

    #[test]
    fn this_machine_tells_something() {
        let here = Machine::here();
        assert!(here.cores.is_some_and(|cores| cores > 0));
        if cfg!(target_os = "linux") {
            assert!(here.memory_bytes.is_some_and(|bytes| bytes > 1 << 20), "{here:?}");
            assert!(here.kernel.is_some_and(|kernel| kernel.starts_with("Linux ")));
        }
    }
}

//! Traces of virtual machines: what each used, every few minutes.
//!
//! ```
//! let text = "12\n0\n100\n";
//! let vm = vibra_trace::vms::planetlab("vm1", text)?;
//! assert_eq!(vm.points[0].cpu, Some(120.0), "12 % of a core, in thousandths of one");
//! # Ok::<(), vibra_trace::vms::VmTraceError>(())
//! ```

use std::time::Duration;

/// What one VM used over time.
#[derive(Debug, Clone, PartialEq)]
pub struct VmTrace {
    /// The VM.
    pub name: String,
    /// Oldest first.
    pub points: Vec<VmPoint>,
}

/// What a VM used up to a moment, on average since the point before. What was not measured is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct VmPoint {
    /// The moment, since an origin that all VMs of a trace have in common.
    pub at: Duration,
    /// In thousandths of a core.
    pub cpu: Option<f64>,
    /// Memory in bytes.
    pub memory: Option<f64>,
    /// Egress in bytes a second.
    pub egress: Option<f64>,
    /// How much CPU it was provisioned with, in thousandths of a core.
    pub provisioned_cpu: Option<f64>,
    /// How much memory it was provisioned with, in bytes.
    pub provisioned_memory: Option<f64>,
}

/// Why a text is no trace of a VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("VM {vm}, line {line}: {what}")]
pub struct VmTraceError {
    /// Which VM.
    pub vm: String,
    /// From 1.
    pub line: usize,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// The interval of [`planetlab`].
pub const PLANETLAB_INTERVAL: Duration = Duration::from_secs(300);

/// A file of the PlanetLab workload traces: the CPU used, in per cent of a core, a number a line, every 300 s.
///
/// # Errors
/// [`VmTraceError`] for the first line that is no number from 0 to 100, or an empty file.
pub fn planetlab(vm: &str, text: &str) -> Result<VmTrace, VmTraceError> {
    let fault = |line, what| VmTraceError { vm: vm.to_owned(), line, what };
    let mut points = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let percent = line.trim().parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
        let percent = percent.ok_or_else(|| fault(number + 1, format!("{line:?} is no per cent of a CPU")))?;
        let at = PLANETLAB_INTERVAL * (number as u32 + 1);
        points.push(VmPoint { at, cpu: Some(percent * 10.0), ..VmPoint::default() });
    }
    if points.is_empty() {
        return Err(fault(1, "there is nothing in it".to_owned()));
    }
    Ok(VmTrace { name: vm.to_owned(), points })
}

/// A file of the Bitbrains traces (GWA-T-12): columns separated by `;` with names in the first line. Time stamps are
/// seconds, whatever their column's name says; CPU is counted in per cent of the cores, memory in KiB, the network in kB/s.
///
/// # Errors
/// [`VmTraceError`] for a column that is missing, and for the first line with a field that is no number.
pub fn bitbrains(vm: &str, text: &str) -> Result<VmTrace, VmTraceError> {
    let fault = |line, what| VmTraceError { vm: vm.to_owned(), line, what };
    let mut lines = text.lines().enumerate();
    let (_, header) = lines.next().ok_or_else(|| fault(1, "there is nothing in it".to_owned()))?;
    let names: Vec<&str> = header.split(';').map(str::trim).collect();
    let column = |name: &str| {
        let found = names.iter().position(|known| known.starts_with(name));
        found.ok_or_else(|| fault(1, format!("there is no column {name:?}")))
    };
    let columns = [
        column("Timestamp")?,
        column("CPU cores")?,
        column("CPU usage [%]")?,
        column("Memory usage")?,
        column("Memory capacity")?,
        column("Network transmitted")?,
    ];
    let mut points = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(';').collect();
        let mut values = [0.0; 6];
        for (value, column) in values.iter_mut().zip(columns) {
            let field = fields.get(column).map_or("", |field| field.trim());
            let parsed = field.parse::<f64>().ok().filter(|value| value.is_finite() && *value >= 0.0);
            *value = parsed.ok_or_else(|| fault(number + 1, format!("{field:?} is no {}", names[column])))?;
        }
        let [seconds, cores, percent, used, provisioned, egress] = values;
        points.push(VmPoint {
            at: Duration::try_from_secs_f64(seconds).map_err(|error| fault(number + 1, error.to_string()))?,
            cpu: Some(cores * percent * 10.0),
            memory: Some(used * 1024.0),
            egress: Some(egress * 1000.0),
            provisioned_cpu: Some(cores * 1000.0),
            provisioned_memory: Some(provisioned * 1024.0),
        });
    }
    Ok(VmTrace { name: vm.to_owned(), points })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitbrains_columns_are_found_by_name() {
        let text = "Timestamp [ms];\tCPU cores;\tCPU capacity provisioned [MHZ];\tCPU usage [MHZ];\tCPU usage [%];\tMemory \
                    capacity provisioned [KB];\tMemory usage [KB];\tDisk read throughput [KB/s];\tDisk write throughput \
                    [KB/s];\tNetwork received throughput [KB/s];\tNetwork transmitted throughput [KB/s]\n\
                    1372629804;\t2;\t5800.0;\t2900.0;\t50.0;\t1024.0;\t512.0;\t0.0;\t0.9;\t1.0;\t2.5\n";
        let vm = bitbrains("7", text).unwrap();
        let point = VmPoint {
            at: Duration::from_secs(1_372_629_804),
            cpu: Some(1000.0),
            memory: Some(524_288.0),
            egress: Some(2500.0),
            provisioned_cpu: Some(2000.0),
            provisioned_memory: Some(1_048_576.0),
        };
        assert_eq!(vm.points, [point]);
        let error = bitbrains("7", &text.replace("50.0", "much")).unwrap_err();
        assert_eq!((error.line, error.to_string().contains("CPU usage [%]")), (2, true), "{error}");
        assert!(bitbrains("7", "a;b\n").unwrap_err().to_string().contains("Timestamp"));
    }

    #[test]
    fn planetlab_is_a_number_a_line() {
        let vm = planetlab("x", "6\n8\n").unwrap();
        assert_eq!(
            vm.points.iter().map(|point| (point.at.as_secs(), point.cpu)).collect::<Vec<_>>(),
            [(300, Some(60.0)), (600, Some(80.0))]
        );
        assert_eq!(planetlab("x", "6\n101\n").unwrap_err().line, 2);
        assert!(planetlab("x", "").is_err());
    }
}

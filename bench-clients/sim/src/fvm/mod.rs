//! The testbed of "Friendly Virtual Machines" (section 5.1): VMs with threads on one host whose memory is overcommitted.
//!
//! Each VM is a User-Mode Linux, which its host sees as one process: it runs one of its threads at a time, and a page fault
//! of any of them stops it as a whole. A thread takes a buffer, computes, waits for its files, and begins again. What the
//! paper states is taken from there; what it does not state is a field of [`Testbed`] that says so. A VM that adapts runs
//! [`Fvm`](vibra_policy::fvm::Fvm) on the real time between two ticks of its virtual clock; the host polices them with
//! [`Police`](vibra_policy::fvm::Police).
//!
//! ```
//! use std::time::Duration;
//! use vibra_sim::fvm::Testbed;
//!
//! let short = Testbed { vms: 6, warm_up: Duration::from_secs(60), length: Duration::from_secs(60), ..Testbed::default() };
//! let (plain, friendly) = (Testbed { unfriendly: 6, ..short.clone() }.run(1), short.run(1));
//! assert!(friendly.throughput() > 3.0 * plain.throughput(), "thrashing is not worth it");
//! ```

mod memory;
mod vm;
mod world;

use std::time::Duration;
use vibra_model::Bytes;
use vibra_policy::fvm::{Finding, FvmParameters, fairness_index};

/// A host, its VMs and what they do.
#[derive(Debug, Clone, PartialEq)]
pub struct Testbed {
    /// VMs on the host; the paper has 1 to 6.
    pub vms: usize,
    /// Threads of each VM; the paper has 50 (Figure 5), 1 to 300 (Figure 6).
    pub threads: u32,
    /// How many of the VMs, the first ones, do not adapt.
    pub unfriendly: usize,
    /// How the others adapt. The prototype was tested with control of the level alone (the paper's slides).
    pub parameters: FvmParameters,
    /// Memory that the VMs share: 400 MB (stated).
    pub memory: Bytes,
    /// What a VM has in use without any thread. Not stated: 16 MiB, with which three VMs of 50 threads fit and four do not
    /// (stated).
    pub base: Bytes,
    /// What a thread uses: a buffer of 1 MB (stated), and as much of the file that it reads into it.
    pub of_thread: Bytes,
    /// CPU time of a unit of work. Not stated: 20 ms, for what a Pentium 4 needs to copy and compute over 1 MB in UML.
    pub compute: Duration,
    /// The mean time that a unit waits for its files, exponentially distributed. Not stated: 40 ms.
    pub files: Duration,
    /// A tick of a VM's virtual clock, and the time for which it keeps the CPU: 10 ms, as Linux 2.4 has it.
    pub tick: Duration,
    /// What it costs to give the CPU to another VM. Not stated: 0.2 ms.
    pub switch: Duration,
    /// An access to the disk that pages are on, which brings in 8 pages, as Linux 2.4 reads ahead: 8 ms, as disks of that
    /// time took.
    pub access: Duration,
    /// How long it runs before anything is counted: 10 minutes (stated).
    pub warm_up: Duration,
    /// How long it is counted. Not stated: 10 minutes.
    pub length: Duration,
}

impl Default for Testbed {
    /// Four friendly VMs of 50 threads.
    fn default() -> Self {
        Testbed {
            vms: 4,
            threads: 50,
            unfriendly: 0,
            parameters: FvmParameters { rate_step: 0.0, ..FvmParameters::default() },
            memory: Bytes(400_000_000),
            base: Bytes(16 << 20),
            of_thread: Bytes(2_000_000),
            compute: Duration::from_millis(20),
            files: Duration::from_millis(40),
            tick: Duration::from_millis(10),
            switch: Duration::from_micros(200),
            access: Duration::from_millis(8),
            warm_up: Duration::from_secs(600),
            length: Duration::from_secs(600),
        }
    }
}

/// How the VMs fared.
#[derive(Debug, Clone, PartialEq)]
pub struct Fared {
    /// Each VM.
    pub vms: Vec<VmFared>,
    /// Whom the police found, in time order.
    pub findings: Vec<Finding>,
}

/// How a VM fared.
#[derive(Debug, Clone, PartialEq)]
pub struct VmFared {
    /// Units of work that it completed in a second.
    pub throughput: f64,
    /// The mean real time of a tick of its clock; `None` if it had none.
    pub vct: Option<Duration>,
    /// Its mean multiprogramming level, over its ticks; all its threads if it does not adapt.
    pub level: f64,
}

impl Testbed {
    /// Runs it from a seed; the same seed gives the same run.
    pub fn run(&self, seed: u64) -> Fared {
        world::World::new(self, seed).run()
    }

    /// The ticks that a unit of work computes.
    fn ticks_of_a_unit(&self) -> u32 {
        (self.compute.as_secs_f64() / self.tick.as_secs_f64()).round().max(1.0) as u32
    }

    /// What each VM would complete in a second if the host shared its CPU fairly and all memory were there: o of the
    /// fairness index.
    pub fn optimum(&self) -> f64 {
        let unit = self.compute.as_secs_f64();
        let alone = f64::from(self.threads) / (unit + self.files.as_secs_f64());
        // With several VMs the CPU is given away at every tick.
        let switches = if self.vms > 1 { self.switch.as_secs_f64() / self.tick.as_secs_f64() } else { 0.0 };
        alone.min(1.0 / (unit * (1.0 + switches)) / self.vms as f64)
    }
}

impl Fared {
    /// Units of work that all VMs together completed in a second.
    pub fn throughput(&self) -> f64 {
        self.vms.iter().map(|vm| vm.throughput).sum()
    }

    /// The mean VCT of the VMs that had one.
    pub fn vct(&self) -> Option<Duration> {
        let known: Vec<_> = self.vms.iter().filter_map(|vm| vm.vct).collect();
        (!known.is_empty()).then(|| known.iter().sum::<Duration>() / known.len() as u32)
    }

    /// The fairness index of the throughputs, where each VM should have `optimum`.
    pub fn fairness(&self, optimum: f64) -> Option<f64> {
        let measured: Vec<_> = self.vms.iter().map(|vm| vm.throughput).collect();
        fairness_index(&measured, &vec![optimum; measured.len()])
    }
}

#[cfg(test)]
mod tests;

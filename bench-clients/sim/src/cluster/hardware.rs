//! What VMs, their disks and their links are like.

use std::time::Duration;
use vibra_model::{Bytes, BytesPerSec};

/// What all VMs have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Hardware {
    /// What a request takes beyond all waiting: network, dispatcher, and whatever else is not modelled by itself.
    pub latency: Duration,
    /// Bytes of a response's head; they pass the shaper too.
    pub head: Bytes,
    /// What of a VM's memory is not left for objects: kernel, server processes, buffers.
    pub overhead: Bytes,
    /// The disk of each VM.
    pub disk: Disk,
    /// The shaper of each VM.
    pub shaper: Shaper,
    /// The step of its timers: who waits for disk or shaper goes on at the next multiple of it, and what that delays is
    /// made up for, as neither stands still meanwhile. Zero: at once.
    pub timer: Duration,
    /// What a request costs in CPU.
    pub cpu: CpuCost,
    /// The most requests in service at once; more wait, first come, first served. `None`: any number.
    pub mpl: Option<usize>,
    /// The threads that get data from memory and disk, each for one request until that has it; more wait, also those whose
    /// data is in memory. `None`: as many as there are requests.
    pub threads: Option<usize>,
    /// Memory that each request in service takes from the cache.
    pub per_request: Bytes,
    /// By how much overcommitted memory slows a VM down: where requests in service take x times the memory that there is
    /// for them, CPU and disk take 1 + `thrash` (x - 1) times as long.
    pub thrash: f64,
    /// How a VM is moved to another host.
    pub migration: Migration,
}

impl Default for Hardware {
    /// 0.3 ms a request, heads of 200 bytes, 16 MiB of overhead; the default disk and shaper; timers that are exact; CPU
    /// costs nothing, and any number of requests is served at once.
    fn default() -> Self {
        Hardware {
            latency: Duration::from_micros(300),
            head: Bytes(200),
            overhead: Bytes(16 << 20),
            disk: Disk::default(),
            shaper: Shaper::default(),
            timer: Duration::ZERO,
            cpu: CpuCost::default(),
            mpl: None,
            threads: None,
            per_request: Bytes::ZERO,
            thrash: 10.0,
            migration: Migration::default(),
        }
    }
}

impl Hardware {
    /// The agent's in-process VMs: their heads have 135 bytes, and a turn of their own; their timers tokio rounds up to a
    /// millisecond twice, when one is due, and how long it is waited for.
    pub fn in_process() -> Self {
        let head = Bytes(135);
        Hardware {
            head,
            shaper: Shaper { first: head, ..Shaper::default() },
            timer: Duration::from_millis(2),
            ..Hardware::default()
        }
    }

    /// The agent's VMs in namespaces: the heads are nginx's; HTB counts Ethernet frames, of 66 bytes of headers each, and
    /// its bucket holds 16 KiB and 10 ms; the kernel reads and keeps whole pages, and lets 117 reads a second pass by
    /// slices of 100 ms. nginx has all data read by a pool of 32 threads, so that those who wait for the disk hold up those who
    /// need not. What a read takes then is the real disk's affair: 0.3 ms is a guess, to be fitted.
    pub fn namespaces() -> Self {
        let throttle = Throttle { reads_per_s: 117, slice: Duration::from_millis(100) };
        Hardware {
            head: Bytes(240),
            shaper: Shaper { depth: Bytes(16 << 10), headers: Bytes(66), ..Shaper::default() },
            disk: Disk {
                seek: Duration::from_micros(300),
                throttle: Some(throttle),
                page: Bytes(4_096),
                ..Disk::default()
            },
            threads: Some(32),
            ..Hardware::default()
        }
    }
}

/// A disk with one arm: a read costs a seek and the transfer, and reads follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Time to get to the data: seek and half a turn.
    pub seek: Duration,
    /// Transfer rate.
    pub transfer: BytesPerSec,
    /// A read that would have to wait longer than this is refused, and its request with it.
    pub longest_wait: Duration,
    /// Which reads wait before they come to the arm; `None`: none. With it nothing waits for the arm, which is as fast as
    /// it has to be, and nothing is refused.
    pub throttle: Option<Throttle>,
    /// Objects take whole pages of this size, on the disk and in memory.
    pub page: Bytes,
}

impl Default for Disk {
    /// A SATA disk of 2009 at 7,200 turns a minute: 8.5 ms and 60 MB/s; waits up to 30 s; no throttle, and no pages.
    fn default() -> Self {
        Disk {
            seek: Duration::from_micros(8_500),
            transfer: BytesPerSec(60_000_000),
            longest_wait: Duration::from_secs(30),
            throttle: None,
            page: Bytes(1),
        }
    }
}

impl Disk {
    /// How long the arm is busy with a read of `size`.
    pub fn service_time(&self, size: Bytes) -> Duration {
        self.seek + Duration::from_secs_f64(size.0 as f64 / self.transfer.0.max(1) as f64)
    }
}

/// A limit of reads a second, which the kernel counts by slices of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttle {
    /// How many; at least 1.
    pub reads_per_s: u32,
    /// How long a slice is.
    pub slice: Duration,
}

/// A token bucket at which responses take turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shaper {
    /// The most of a response that passes before the next one's turn ...
    pub piece: Bytes,
    /// ... and in its first turn, where the head goes alone.
    pub first: Bytes,
    /// The bucket's depth ...
    pub depth: Bytes,
    /// ... and what flows in this time besides.
    pub slack: Duration,
    /// Responses pass in segments of at most so many bytes ...
    pub segment: Bytes,
    /// ... each with so many more for its headers.
    pub headers: Bytes,
}

impl Shaper {
    /// What `bytes` of a response take with their headers.
    #[inline]
    pub fn on_the_wire(&self, bytes: u64) -> u64 {
        match self.headers.0 {
            0 => bytes,
            headers => bytes + bytes.div_ceil(self.segment.0.max(1)) * headers,
        }
    }
}

impl Default for Shaper {
    /// Turns of 16 KiB; a bucket of 32 KiB and 10 ms; no headers.
    fn default() -> Self {
        Shaper {
            piece: Bytes(16 << 10),
            first: Bytes(16 << 10),
            depth: Bytes(32 << 10),
            slack: Duration::from_millis(10),
            segment: Bytes(1_448),
            headers: Bytes::ZERO,
        }
    }
}

/// What a request costs on one core. A VM with c thousandths of a core takes 1000/c times as long; one whose CPU is not
/// managed has one core. Requests use the CPU one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuCost {
    /// Whatever its size.
    pub request: Duration,
    /// For each kilobyte (1,000 bytes) of its body besides.
    pub kilobyte: Duration,
}

/// How a VM is moved: its memory is copied while it runs, then it stands still for a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// At which rate memory is copied.
    pub rate: BytesPerSec,
    /// How long the VM stands still at the end.
    pub downtime: Duration,
}

impl Default for Migration {
    /// 100 MB/s, which is a link of 1 Gbit/s nearly full; 100 ms.
    fn default() -> Self {
        Migration { rate: BytesPerSec(100_000_000), downtime: Duration::from_millis(100) }
    }
}

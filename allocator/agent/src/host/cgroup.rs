//! Control groups: memory, CPU and disk of a VM, in version 1 and 2 behind one trait.

mod v1;
mod v2;

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    thread::sleep,
    time::{Duration, Instant},
};
use vibra_guest::stat::{Pressure, field};
use vibra_model::{Bytes, BytesPerSec, MilliCpu};

/// Where control groups are mounted.
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";
/// The period over which a CPU limit holds, in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// What the kernel gives a group that nobody has weighed, in its units of version 1; here it stands for one processor.
const CPU_SHARES: u64 = 1024;
/// How long to wait for killed processes to leave.
const EMPTYING: Duration = Duration::from_secs(5);

/// Which version of control groups a machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy a controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// What an allocation of CPU means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CpuControl {
    /// No more than that, also where others use none; and weight in proportion where there is not enough for all. As
    /// bandwidth is: what a customer has bought is what he gets.
    #[default]
    Quota,
    /// Weight in proportion where there is not enough for all, and what others leave. Counts in hundredths of a
    /// processor at best; no more than 100 processors.
    Weight,
}

impl CpuControl {
    /// Gives `group` so much.
    pub(crate) fn set(self, group: &dyn Cgroup, amount: MilliCpu) -> io::Result<()> {
        match self {
            CpuControl::Quota => group.set_cpu(amount),
            CpuControl::Weight => group.set_cpu_weight(amount),
        }
    }

    /// What `group` has; `None`: as much as there is.
    pub(crate) fn get(self, group: &dyn Cgroup) -> io::Result<Option<MilliCpu>> {
        match self {
            CpuControl::Quota => group.cpu(),
            CpuControl::Weight => group.cpu_weight().map(Some),
        }
    }
}

/// What a VM's disk gives at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimit {
    /// Reads a second.
    pub reads_per_s: u32,
    /// Bytes read a second.
    pub read: BytesPerSec,
}

impl Default for DiskLimit {
    /// A SATA disk of 2009 at 7,200 turns a minute: 8.5 ms a read, and 60 MB/s.
    fn default() -> Self {
        DiskLimit { reads_per_s: 117, read: BytesPerSec(60_000_000) }
    }
}

/// The control group of one VM. Amounts that are read back are those in force; `None` is no limit.
pub(crate) trait Cgroup: Send + Sync {
    /// Makes the group; an old one of the same name is removed first, with its counters.
    fn create(&self) -> io::Result<()>;
    /// The directories of the group, one a hierarchy; those of its parents likewise hold nothing else.
    fn directories(&self) -> Vec<PathBuf>;
    /// Limits memory. Where that means to give pages up it may take half a second; see [`Limit`](super::memory::drive)
    /// for how much to ask for at once.
    ///
    /// [`io::ErrorKind::ResourceBusy`]: the kernel cannot take so much now. No process is killed for it.
    fn set_memory(&self, limit: Bytes) -> io::Result<()>;
    /// The limit of memory.
    fn memory(&self) -> io::Result<Option<Bytes>>;
    /// Memory in use, page cache included.
    fn memory_in_use(&self) -> io::Result<Bytes>;
    /// What is in that memory, and what was missing from it.
    fn memory_statistics(&self) -> io::Result<MemoryStatistics>;
    /// How long the group's processes waited for memory; `None` where groups have no such file (version 1).
    fn pressure(&self) -> Option<Pressure>;
    /// Limits CPU, and gives its processes weight in proportion where there is not enough for all.
    fn set_cpu(&self, limit: MilliCpu) -> io::Result<()>;
    /// The limit of CPU.
    fn cpu(&self) -> io::Result<Option<MilliCpu>>;
    /// Gives its processes weight in proportion, and no limit: what others leave is theirs as well.
    fn set_cpu_weight(&self, share: MilliCpu) -> io::Result<()>;
    /// The CPU that its weight stands for, rounded as the kernel keeps it.
    fn cpu_weight(&self) -> io::Result<MilliCpu>;
    /// CPU time used.
    fn cpu_time(&self) -> io::Result<Duration>;
    /// Limits reads from the disk with this number (`major:minor`).
    fn limit_disk(&self, disk: &str, limit: DiskLimit) -> io::Result<()>;
    /// Bytes read from that disk.
    fn disk_read(&self, disk: &str) -> io::Result<Bytes>;
}

/// What is in a control group's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemoryStatistics {
    /// All of it.
    pub(crate) in_use: Bytes,
    /// Page cache on the active list.
    pub(crate) active_file: Bytes,
    /// Page cache on the inactive list.
    pub(crate) inactive_file: Bytes,
    /// Faults that had to read from a disk, since the group was made.
    pub(crate) major_faults: Option<u64>,
    /// Pages of files that were given up and read again.
    pub(crate) refaults: Option<u64>,
    /// Pages that were read from swap.
    pub(crate) swapped_in: Option<u64>,
}

impl MemoryStatistics {
    /// Of `memory.stat`, whose names are the same in both versions.
    fn of(in_use: Bytes, path: &Path) -> io::Result<Self> {
        let text = fs::read_to_string(path)?;
        let size = |key| field(&text, key).map(Bytes).ok_or_else(|| unexpected(path, &text));
        Ok(MemoryStatistics {
            in_use,
            active_file: size("active_file")?,
            inactive_file: size("inactive_file")?,
            major_faults: field(&text, "pgmajfault"),
            refaults: field(&text, "workingset_refault_file"),
            swapped_in: field(&text, "workingset_refault_anon"),
        })
    }
}

/// The version that manages memory below `mount`.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] where there is none.
pub(crate) fn version(mount: &Path) -> io::Result<CgroupVersion> {
    let controllers = fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default();
    if controllers.split_whitespace().any(|name| name == "memory") {
        Ok(CgroupVersion::V2)
    } else if mount.join("memory/memory.limit_in_bytes").exists() || mount.join("memory/cgroup.procs").exists() {
        Ok(CgroupVersion::V1)
    } else {
        let message = format!("no memory controller is mounted below {}", mount.display());
        Err(io::Error::new(io::ErrorKind::NotFound, message))
    }
}

/// The group `name`, such as "vibra-r0/vm0", below `mount`.
pub(crate) fn open(version: CgroupVersion, mount: &Path, name: &str) -> Box<dyn Cgroup> {
    match version {
        CgroupVersion::V1 => Box::new(v1::Group::new(mount, name)),
        CgroupVersion::V2 => Box::new(v2::Group::new(mount, name)),
    }
}

/// Ends all processes in these groups and the groups below, and removes them. What is not there is no error.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::TimedOut`] where processes did not leave.
pub(crate) fn remove(directory: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    let deadline = Instant::now() + EMPTYING;
    loop {
        kill_all(directory)?;
        match fs::remove_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
        if Instant::now() > deadline {
            return Err(lingering(directory));
        }
        sleep(Duration::from_millis(5));
    }
}

/// Ends all processes in this group, and waits until they have left it.
///
/// # Errors
/// As [`remove`].
pub(crate) fn end(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + EMPTYING;
    while !fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().is_empty() {
        kill_all(directory)?;
        if Instant::now() > deadline {
            return Err(lingering(directory));
        }
        sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The disk that holds `files`, whose reads the control groups below `parent` can limit and count; found out by trying.
/// Makes `files` where it is not there.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::Unsupported`] where they are on no disk of their own.
pub(crate) fn limitable_disk(version: CgroupVersion, parent: &str, files: &Path) -> io::Result<String> {
    fs::create_dir_all(files)?;
    let disk = disk_of(files)?.ok_or_else(|| {
        let message = format!("{} is on no disk of its own, whose rate could be limited", files.display());
        io::Error::new(io::ErrorKind::Unsupported, message)
    })?;
    let group = open(version, Path::new(MOUNT), &format!("{parent}/disk"));
    group.create()?;
    let tried = group.limit_disk(&disk, DiskLimit::default()).and_then(|()| group.disk_read(&disk));
    group.directories().iter().try_for_each(|directory| remove(directory))?;
    tried.map(|_| disk)
}

fn lingering(directory: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("processes in {} do not end", directory.display()))
}

/// Kills what is in the group: only this crate puts processes there.
fn kill_all(directory: &Path) -> io::Result<()> {
    for pid in fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default().lines() {
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            match rustix::process::kill_process(pid, rustix::process::Signal::KILL) {
                // It ended by itself.
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Reads one number from a file.
fn number<T: FromStr>(path: &Path) -> io::Result<T> {
    let text = fs::read_to_string(path)?;
    text.trim().parse().map_err(|_| unexpected(path, &text))
}

fn unexpected(path: &Path, text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} says {text:?}", path.display()))
}

/// Writes to a control file; the error says what to where.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let explain = |error: io::Error| {
        let message = format!("write {value:?} to {}: {error}", path.display());
        io::Error::new(error.kind(), message)
    };
    fs::write(path, value).map_err(explain)
}

/// The number (`major:minor`) of the whole disk that holds `path`; `None` where it is on no disk of its own, such as
/// on tmpfs or overlayfs.
fn disk_of(path: &Path) -> io::Result<Option<String>> {
    let device = fs::metadata(path)?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let Ok(entry) = fs::canonicalize(format!("/sys/dev/block/{number}")) else { return Ok(None) };
    // Limits are for disks, not for their partitions.
    match entry.parent().filter(|_| entry.join("partition").exists()) {
        Some(disk) => Ok(Some(fs::read_to_string(disk.join("dev"))?.trim().to_owned())),
        None => Ok(Some(number)),
    }
}

#[cfg(test)]
mod tests;

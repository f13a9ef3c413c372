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
use vibra_model::{Bytes, BytesPerSec, MilliCpu};

/// Where control groups are mounted.
pub(crate) const MOUNT: &str = "/sys/fs/cgroup";
/// The period over which a CPU limit holds, in microseconds.
const CPU_PERIOD: u64 = 100_000;
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
    /// Limits memory. Where that means to give pages up it may take several steps, for half a second at most.
    fn set_memory(&self, limit: Bytes) -> io::Result<()>;
    /// The limit of memory.
    fn memory(&self) -> io::Result<Option<Bytes>>;
    /// Memory in use, page cache included.
    fn memory_in_use(&self) -> io::Result<Bytes>;
    /// Limits CPU.
    fn set_cpu(&self, limit: MilliCpu) -> io::Result<()>;
    /// The limit of CPU.
    fn cpu(&self) -> io::Result<Option<MilliCpu>>;
    /// CPU time used.
    fn cpu_time(&self) -> io::Result<Duration>;
    /// Limits reads from the disk with this number (`major:minor`).
    fn limit_disk(&self, disk: &str, limit: DiskLimit) -> io::Result<()>;
    /// Bytes read from that disk.
    fn disk_read(&self, disk: &str) -> io::Result<Bytes>;
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

/// Writes a memory limit. The kernel refuses with EBUSY what it cannot reach by giving pages up: half the way first.
fn write_memory(path: &Path, current: Option<Bytes>, limit: Bytes) -> io::Result<()> {
    const TRIES: u32 = 10;
    let mut current = current.map_or(limit.0, |current| current.0);
    for attempt in 1.. {
        match write(path, &limit.0.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < TRIES => {
                let half_way = limit.0.midpoint(current.max(limit.0));
                if write(path, &half_way.to_string()).is_ok() {
                    current = half_way;
                }
                sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
    unreachable!("the last try returns")
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

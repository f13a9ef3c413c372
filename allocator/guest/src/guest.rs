//! The whole guest as the subject of a sampler.

use std::{fs, io, path::PathBuf};
use vibra_guest::{
    Method, Observation, lru_gen,
    page_cache::Deactivator,
    sampler::Subject,
    sensors::{faults, memory},
    stat::PAGE,
};

/// A machine whose memory is all its server's.
pub(crate) struct Guest {
    /// What is served.
    files: PathBuf,
    deactivator: Deactivator,
}

impl Guest {
    pub(crate) fn new(files: PathBuf) -> io::Result<Guest> {
        Ok(Guest { files, deactivator: Deactivator::new()? })
    }
}

impl Subject for Guest {
    fn begin(&mut self, method: Method) -> io::Result<()> {
        // A kernel without the multi-generation LRU has no such file, and is as if it were off.
        let generations = method == Method::LruGen;
        if generations || fs::exists(lru_gen::ENABLED)? {
            write(lru_gen::ENABLED, if generations { "y" } else { "n" })?;
        }
        match method {
            Method::Deactivation => self.deactivator.directory(&self.files).map(drop),
            Method::LruGen => age(),
            Method::Refaults => Ok(()),
            Method::DropCaches => write("/proc/sys/vm/drop_caches", "1"),
        }
    }

    fn observe(&mut self, method: Method) -> io::Result<Observation> {
        let generations = match method {
            Method::LruGen => {
                // What was used since the last time moves to the youngest now.
                age()?;
                Some(files_of(&shown()?))
            }
            _ => None,
        };
        let memory = memory().ok_or_else(|| unclear("/proc/meminfo"))?;
        let (page_cache, idle) = match (generations, method) {
            (Some((files, idle)), _) => (files * PAGE, idle * PAGE),
            (None, Method::DropCaches) => (memory.active_file + memory.inactive_file, 0),
            (None, _) => (memory.active_file + memory.inactive_file, memory.inactive_file),
        };
        let in_use = memory.total.saturating_sub(memory.free);
        Ok(Observation { in_use, page_cache, idle, refaults: self.refaults()? })
    }

    fn refaults(&mut self) -> io::Result<u64> {
        faults().map(|faults| faults.refaults).ok_or_else(|| unclear("/proc/vmstat"))
    }
}

fn shown() -> io::Result<Vec<lru_gen::Lru>> {
    let text = fs::read_to_string(lru_gen::FILE).map_err(|error| explain(lru_gen::FILE, error))?;
    lru_gen::parse(&text)
        .map_err(|line| io::Error::other(format!("{} is not understood in line {line}", lru_gen::FILE)))
}

fn age() -> io::Result<()> {
    shown()?.iter().filter_map(lru_gen::Lru::aging).try_for_each(|command| write(lru_gen::FILE, &command))
}

/// Pages of files in all generations, and in all but the youngest.
fn files_of(all: &[lru_gen::Lru]) -> (u64, u64) {
    all.iter().map(lru_gen::Lru::files).fold((0, 0), |(files, idle), (more, old)| (files + more, idle + old))
}

fn write(path: &str, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| explain(path, error))
}

fn explain(path: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{path}: {error}"))
}

fn unclear(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} does not say what it should"))
}

//! The whole guest as the subject of a sampler.

use std::{fs, io, path::PathBuf};
use vibra_guest::{
    Method, Observation, lru_gen,
    page_cache::deactivate,
    sampler::Subject,
    sensors::{faults, memory},
    stat::PAGE,
};

/// A machine whose memory is all its server's.
pub(crate) struct Guest {
    /// What is served.
    files: PathBuf,
}

impl Guest {
    pub(crate) fn new(files: PathBuf) -> Guest {
        Guest { files }
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
            Method::Deactivation => deactivate(&self.files).map(drop),
            Method::LruGen => lru_gen::age(&lru_gen::shown()?),
            Method::Refaults => Ok(()),
            Method::DropCaches => write("/proc/sys/vm/drop_caches", "1"),
        }
    }

    fn observe(&mut self, method: Method) -> io::Result<Observation> {
        let generations = match method {
            Method::LruGen => {
                // What was used since the last time moves to the youngest now.
                lru_gen::age(&lru_gen::shown()?)?;
                Some(lru_gen::files(&lru_gen::shown()?))
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

fn write(path: &str, value: &str) -> io::Result<()> {
    fs::write(path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

fn unclear(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} does not say what it should"))
}

//! The working set of a control group whose memory is mostly page cache of files in one place (section 3.4.6).

use super::cgroup::Cgroup;
use std::{io, path::PathBuf};
use vibra_guest::{
    Method, Observation, lru_gen,
    page_cache::{deactivate, drop_directory},
    sampler::Subject,
    stat::PAGE,
};

/// A control group as the subject of a sampler.
pub(crate) struct Group {
    cgroup: Box<dyn Cgroup>,
    /// Its path below the mount point, as the kernel shows it.
    path: String,
    /// What is served.
    files: PathBuf,
}

impl Group {
    /// The group with this `name` below the mount point, which serves `files`.
    pub(crate) fn new(cgroup: Box<dyn Cgroup>, name: &str, files: PathBuf) -> Group {
        Group { cgroup, path: format!("/{name}"), files }
    }

    /// The group's generations of pages, on all nodes.
    fn generations(&self) -> io::Result<Vec<lru_gen::Lru>> {
        let mut all = lru_gen::shown()?;
        all.retain(|lru| lru.path == self.path);
        Ok(all)
    }
}

/// What can be done on a kernel: its settings are the host's own, and left as they are.
fn possible(method: Method, generations: bool) -> io::Result<()> {
    let message = match (method, generations) {
        (Method::Deactivation, true) => {
            "the kernel's multi-generation LRU is on, and does not tell which pages are read: sample by refaults, or \
             switch it off in /sys/kernel/mm/lru_gen/enabled"
        }
        (Method::LruGen, false) => "the kernel has no multi-generation LRU, or it is off: sample by deactivation",
        _ => return Ok(()),
    };
    Err(io::Error::new(io::ErrorKind::Unsupported, message))
}

impl Subject for Group {
    fn begin(&mut self, method: Method) -> io::Result<()> {
        let begun = possible(method, lru_gen::is_on()).and_then(|()| match method {
            Method::Deactivation => deactivate(&self.files).map(drop),
            Method::LruGen => lru_gen::age(&self.generations()?),
            Method::Refaults => Ok(()),
            Method::DropCaches => drop_directory(&self.files),
        });
        begun.inspect_err(|error| tracing::warn!(group = self.path, %error, "its working set is not known"))
    }

    fn observe(&mut self, method: Method) -> io::Result<Observation> {
        let files = match method {
            Method::LruGen => {
                // What was used since the last time moves to the youngest now.
                lru_gen::age(&self.generations()?)?;
                Some(lru_gen::files(&self.generations()?))
            }
            _ => None,
        };
        let memory = self.cgroup.memory_statistics()?;
        let cached = memory.active_file.0 + memory.inactive_file.0;
        let (page_cache, idle) = match (files, method) {
            (Some((all, idle)), _) => (all * PAGE, idle * PAGE),
            (None, Method::DropCaches) => (cached, 0),
            (None, _) => (cached, memory.inactive_file.0),
        };
        Ok(Observation { in_use: memory.in_use.0, page_cache, idle, refaults: memory.refaults.unwrap_or(0) })
    }

    fn refaults(&mut self) -> io::Result<u64> {
        Ok(self.cgroup.memory_statistics()?.refaults.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::cgroup::{CgroupVersion, open};
    use std::fs;

    const STATISTICS: &str = "active_file 40960\ninactive_file 8192\npgmajfault 1\nworkingset_refault_file 3\n";

    #[test]
    fn what_is_inactive_was_not_used() {
        let mount = tempfile::tempdir().unwrap();
        for (file, text) in [("g/memory.current", "100000\n"), ("g/memory.stat", STATISTICS)] {
            fs::create_dir_all(mount.path().join("g")).unwrap();
            fs::write(mount.path().join(file), text).unwrap();
        }
        let cgroup = open(CgroupVersion::V2, mount.path(), "g");
        let mut group = Group::new(cgroup, "g", mount.path().to_owned());
        let seen = group.observe(Method::Deactivation).unwrap();
        assert_eq!(seen, Observation { in_use: 100_000, page_cache: 49_152, idle: 8_192, refaults: 3 });
        assert_eq!(group.observe(Method::DropCaches).unwrap().idle, 0);
        assert_eq!(group.refaults().unwrap(), 3);
        fs::remove_file(mount.path().join("g/memory.stat")).unwrap();
        assert!(group.observe(Method::Refaults).is_err(), "no file, no number");
    }

    #[test]
    fn a_method_that_the_kernel_does_not_bear_says_which_does() {
        for generations in [false, true] {
            let classic = possible(Method::Deactivation, generations);
            let multi = possible(Method::LruGen, generations);
            assert_eq!((classic.is_ok(), multi.is_ok()), (!generations, generations));
            let told = classic.and(multi).unwrap_err().to_string();
            assert!(told.contains("sample by"), "{told}");
            assert!(possible(Method::Refaults, generations).is_ok());
        }
    }
}

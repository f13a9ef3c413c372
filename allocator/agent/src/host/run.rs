//! A run's number, which all its names follow from, and the removal of what it made.
//!
//! Every number has a file below [`STATE`], which a run keeps locked while it lives. It notes its process there, and
//! empties the file once everything is removed. A file that has a note and no lock is of a run that crashed.

use super::{
    cgroup,
    command::{CommandError, Step},
    netlink::NAMESPACES,
    network::Network,
};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
};

/// Where runs keep their state.
pub(super) const STATE: &str = "/run/vibra";

/// Why a run could not begin or end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state file cannot be used.
    #[error("could not use {path}: are you root?")]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process shapes the uplink.
    #[error("another agent shapes {device}: end it first")]
    Taken {
        /// Which uplink.
        device: String,
    },
    /// All numbers are taken.
    #[error("256 runs live already: end one of them")]
    Full,
    /// Something of a run could not be removed.
    #[error("could not remove {what} of run {run}")]
    Remove {
        /// Whose.
        run: u8,
        /// What.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A command failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// A number that no other run on this machine has while this lives.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) number: u8,
    lock: File,
}

impl Run {
    /// Takes the lowest free number; what a crashed run left under it is removed first.
    pub(crate) fn begin() -> Result<Run, RunError> {
        for number in 0..=u8::MAX {
            let Some(mut run) = Run::lock(number)? else { continue };
            if run.note()?.is_some() {
                run.remove()?;
            }
            let note = format!("process {}\n", std::process::id());
            run.lock.write_all(note.as_bytes()).map_err(|source| state_error(number, source))?;
            return Ok(run);
        }
        Err(RunError::Full)
    }

    /// The run with this number, unless it lives.
    fn lock(number: u8) -> Result<Option<Run>, RunError> {
        let failed = |source| state_error(number, source);
        fs::create_dir_all(STATE).map_err(failed)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(state_file(number));
        let lock = options.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Run { number, lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// What the file says; `None` if it is empty.
    fn note(&mut self) -> Result<Option<String>, RunError> {
        let mut note = String::new();
        let read = self.lock.rewind().and_then(|()| self.lock.read_to_string(&mut note));
        read.map_err(|source| state_error(self.number, source))?;
        Ok(Some(note).filter(|note| !note.is_empty()))
    }

    /// A directory for this run's files.
    pub(crate) fn directory(&self) -> PathBuf {
        Path::new(STATE).join(format!("r{}", self.number))
    }

    /// The control group of all its VMs.
    pub(crate) fn cgroup(&self) -> String {
        format!("vibra-r{}", self.number)
    }

    /// Removes everything that a run of this number made: processes, control groups, namespaces, links, files. What
    /// cannot be removed does not keep the rest; the first failure is returned.
    pub(crate) fn remove(&mut self) -> Result<(), RunError> {
        let results = [self.remove_cgroups(), self.remove_namespaces(), self.remove_link(), self.remove_files()];
        results.into_iter().collect::<Result<Vec<()>, _>>()?;
        let emptied = self.lock.set_len(0).and_then(|()| self.lock.rewind());
        emptied.map_err(|source| state_error(self.number, source))
    }

    fn failed(&self, what: &Path) -> impl Fn(io::Error) -> RunError + use<> {
        let (run, what) = (self.number, what.display().to_string());
        move |source| RunError::Remove { run, what: what.clone(), source }
    }

    fn remove_cgroups(&self) -> Result<(), RunError> {
        let mount = Path::new(cgroup::MOUNT);
        let name = self.cgroup();
        let hierarchies = fs::read_dir(mount).into_iter().flatten().flatten().map(|entry| entry.path().join(&name));
        for directory in hierarchies.chain([mount.join(&name)]) {
            cgroup::remove(&directory).map_err(self.failed(&directory))?;
        }
        Ok(())
    }

    fn remove_namespaces(&self) -> Result<(), RunError> {
        let prefix = Network::namespace_prefix(self.number);
        for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
            if let Some(name) = entry.file_name().to_str().filter(|name| name.starts_with(&prefix)) {
                Step::new(&format!("ip netns delete {name}")).run()?;
            }
        }
        Ok(())
    }

    fn remove_link(&self) -> Result<(), RunError> {
        [Network::outer_link(self.number), Network::joint(self.number)].iter().try_for_each(|link| {
            // It goes with its peer's namespace, but that takes the kernel a moment, and may go before it is asked to.
            let path = Path::new("/sys/class/net").join(link);
            if path.exists()
                && let Err(error) = Step::new(&format!("ip link delete {link}")).run()
                && path.exists()
            {
                return Err(error.into());
            }
            Ok(())
        })
    }

    fn remove_files(&self) -> Result<(), RunError> {
        let directory = self.directory();
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.failed(&directory)(error)),
            _ => Ok(()),
        }
    }
}

fn state_file(number: u8) -> PathBuf {
    Path::new(STATE).join(format!("run-{number}"))
}

fn state_error(number: u8, source: io::Error) -> RunError {
    RunError::State { path: state_file(number), source }
}

/// Removes what crashed runs left behind, and returns their numbers. Runs that live are left alone.
///
/// # Errors
/// [`RunError`] of the first run that could not be removed.
pub fn cleanup_stale() -> Result<Vec<u8>, RunError> {
    let mut cleaned = Vec::new();
    for number in (0..=u8::MAX).filter(|&number| state_file(number).exists()) {
        let Some(mut run) = Run::lock(number)? else { continue };
        if run.note()?.is_some() {
            run.remove()?;
            cleaned.push(number);
        }
    }
    Ok(cleaned)
}

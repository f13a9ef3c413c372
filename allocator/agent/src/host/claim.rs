//! Who shapes an uplink: one agent at a time, which finds its own again after a crash.

use super::run::{RunError, STATE};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// An uplink that no other agent on this machine shapes while this lives. What was made on it stays noted in a file
/// below [`STATE`] until it is removed; the file goes with a restart of the machine, as what was made does.
#[derive(Debug)]
pub(crate) struct Claim {
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Takes `device` in the network namespace that the file `namespace` is of.
    ///
    /// # Errors
    /// [`RunError::Taken`] where another process has it, [`RunError::State`] where the file cannot be used.
    pub(crate) fn take(device: &str, namespace: &Path) -> Result<Claim, RunError> {
        let failed = |path: &Path, source| RunError::State { path: path.to_owned(), source };
        let number = fs::metadata(namespace).map_err(|source| failed(namespace, source))?.ino();
        let path = Path::new(STATE).join(format!("uplink-{device}-{number}"));
        loop {
            let opened = fs::create_dir_all(STATE)
                .and_then(|()| OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path));
            let file = opened.map_err(|source| failed(&path, source))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(RunError::Taken { device: device.to_owned() }),
                Err(TryLockError::Error(source)) => return Err(failed(&path, source)),
            }
            // Whoever had it before may have removed it after it was opened here.
            let same = |there: fs::Metadata| file.metadata().is_ok_and(|ours| ours.ino() == there.ino());
            if fs::metadata(&path).is_ok_and(same) {
                return Ok(Claim { path, file });
            }
        }
    }

    /// Whether something was made that was not removed.
    ///
    /// # Errors
    /// [`RunError::State`] where the file cannot be read.
    pub(crate) fn is_noted(&self) -> Result<bool, RunError> {
        let mut note = String::new();
        let read = (&self.file).rewind().and_then(|()| (&self.file).read_to_string(&mut note));
        read.map(|_| !note.is_empty()).map_err(|source| self.failed(source))
    }

    /// Notes that something is made.
    ///
    /// # Errors
    /// [`RunError::State`] where the file cannot be written.
    pub(crate) fn note(&self) -> Result<(), RunError> {
        let note = format!("process {}\n", std::process::id());
        let written = self.empty().and_then(|()| (&self.file).write_all(note.as_bytes()));
        written.map_err(|source| self.failed(source))
    }

    /// Notes that all of it was removed.
    ///
    /// # Errors
    /// As [`note`](Self::note).
    pub(crate) fn clear(&self) -> Result<(), RunError> {
        self.empty().map_err(|source| self.failed(source))
    }

    fn empty(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        (&self.file).rewind()
    }

    fn failed(&self, source: io::Error) -> RunError {
        RunError::State { path: self.path.clone(), source }
    }
}

impl Drop for Claim {
    /// Leaves no file that says nothing.
    fn drop(&mut self) {
        if self.is_noted().is_ok_and(|noted| !noted) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_uplink_has_one_agent_and_keeps_its_note() {
        let device = format!("t{}", std::process::id());
        let own = Path::new("/proc/self/ns/net");
        let claim = match Claim::take(&device, own) {
            Ok(claim) => claim,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        assert!(!claim.is_noted().unwrap());
        claim.note().unwrap();
        assert!(matches!(Claim::take(&device, own), Err(RunError::Taken { .. })));
        let path = claim.path.clone();
        drop(claim);
        let claim = Claim::take(&device, own).unwrap();
        assert!(claim.is_noted().unwrap());
        claim.clear().unwrap();
        assert!(!claim.is_noted().unwrap());
        drop(claim);
        assert!(!path.exists());
    }
}

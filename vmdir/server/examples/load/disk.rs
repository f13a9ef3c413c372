//! How long the disk takes for a sync while the load runs.

use crate::Result;
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often it is tried.
const EVERY: Duration = Duration::from_millis(50);
/// How much is written before a sync, in bytes: a page.
const WRITTEN: usize = 4096;

/// Syncs a file of its own, again and again.
pub(crate) struct Probe {
    stop: Sender<()>,
    probing: JoinHandle<io::Result<Vec<Duration>>>,
}

impl Probe {
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let mut file = File::create(folder.join("probe"))?;
        file.write_all(&[0; WRITTEN])?;
        file.sync_all()?;
        let (stop, stopped) = channel();
        Ok(Probe { stop, probing: thread::spawn(move || probe(file, &stopped)) })
    }

    /// How long each sync took.
    pub(crate) fn stop(self) -> Result<Vec<Duration>> {
        drop(self.stop);
        Ok(self.probing.join().map_err(|_| "the probe of the disk failed")??)
    }
}

fn probe(mut file: File, stopped: &Receiver<()>) -> io::Result<Vec<Duration>> {
    let mut took = Vec::new();
    while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
        file.seek(SeekFrom::Start(0))?;
        let begin = Instant::now();
        file.write_all(&[1; WRITTEN])?;
        file.sync_data()?;
        took.push(begin.elapsed());
    }
    Ok(took)
}

//! Takes files from the active part of the page cache, without a change to the kernel.
//!
//! Section 3.4.6 adds a function to the kernel, `deactivate_caches`: active pages that are mapped nowhere become inactive
//! and are marked as referenced, so that the next access makes them active again. What is active after a while has been
//! used in it. An unchanged kernel deactivates a page of a file in one case: when it is asked to forget the page
//! (`POSIX_FADV_DONTNEED`), and cannot as somebody else holds it. So somebody does: a pipe, into which the pages are
//! spliced, which lends them and copies nothing. Reading one byte of each page afterwards, without waiting for any disk,
//! marks it as referenced.
//!
//! This is for the kernel's classic lists. The multi-generation LRU does not move pages that are read with `read`.

use crate::stat::PAGE;
use rustix::{
    fs::{Advice, fadvise},
    io::{Errno, ReadWriteFlags, preadv2},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};
use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    num::NonZeroU64,
    ops::Range,
    os::fd::OwnedFd,
    path::Path,
};

/// What anybody may have a pipe hold, in bytes.
const PIPE: usize = 1 << 20;

/// Deactivates pages of files.
#[derive(Debug)]
pub struct Deactivator {
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// How much the pipe holds, in pages.
    capacity: u64,
    nowhere: File,
}

impl Deactivator {
    /// Makes ready.
    ///
    /// # Errors
    /// Those of making a pipe.
    pub fn new() -> io::Result<Self> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Whoever has many pipes gets smaller ones, which take more steps.
        let _ = fcntl_setpipe_size(&write_end, PIPE);
        let capacity = (fcntl_getpipe_size(&write_end)? as u64 / PAGE).max(1);
        let nowhere = File::options().write(true).open("/dev/null")?;
        Ok(Deactivator { read_end, write_end, capacity, nowhere })
    }

    /// Deactivates all files in and below `directory`, and returns how many pages of theirs are in the page cache.
    /// Symbolic links are not followed. Files that vanish meanwhile are no error.
    ///
    /// # Errors
    /// What the file system says; files before the one that failed are deactivated.
    pub fn directory(&self, directory: &Path) -> io::Result<u64> {
        let mut pages = 0;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = entry.path();
            let done = match (kind.is_dir(), kind.is_file()) {
                (true, _) => self.directory(&path),
                (_, true) => File::open(&path).and_then(|file| self.file(&file)),
                _ => Ok(0),
            };
            match done {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
                Ok(more) => pages += more,
            }
        }
        Ok(pages)
    }

    /// Deactivates a file, and returns how many of its pages are in the page cache.
    ///
    /// # Errors
    /// What the file system says.
    pub fn file(&self, file: &File) -> io::Result<u64> {
        let all = file.metadata()?.len().div_ceil(PAGE);
        let mut cached = 0;
        // What the pipe holds at once begins at a multiple of that: so does whatever the kernel keeps together.
        for first in (0..all).step_by(self.capacity as usize) {
            let part = first..all.min(first + self.capacity);
            let runs = resident(file, part.clone())?;
            if runs.is_empty() {
                continue;
            }
            let held = self.hold(file, &runs);
            let deactivated = held.and_then(|()| forget(file, &part));
            self.let_go()?;
            deactivated?;
            for page in runs.into_iter().flatten() {
                cached += u64::from(touch(file, page)?);
            }
        }
        Ok(cached)
    }

    /// Lends the pages to the pipe.
    fn hold(&self, file: &File, runs: &[Range<u64>]) -> io::Result<()> {
        for run in runs {
            let (mut at, end) = (run.start * PAGE, run.end * PAGE);
            while at < end {
                let length = (end - at) as usize;
                match splice(file, Some(&mut at), &self.write_end, None, length, SpliceFlags::NONBLOCK) {
                    // The file ends in its last page; or the pipe is full, as others share what all pipes may hold.
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(_) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Empties the pipe.
    fn let_go(&self) -> io::Result<()> {
        loop {
            match splice(&self.read_end, None, &self.nowhere, None, PIPE, SpliceFlags::NONBLOCK) {
                Ok(0) | Err(Errno::AGAIN) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Asks the kernel to forget these pages; those that are held become inactive.
fn forget(file: &File, pages: &Range<u64>) -> io::Result<()> {
    Ok(fadvise(file, pages.start * PAGE, NonZeroU64::new((pages.end - pages.start) * PAGE), Advice::DontNeed)?)
}

/// Which of these pages are in the page cache.
fn resident(file: &File, pages: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for page in pages {
        if touch(file, page)? {
            match runs.last_mut() {
                Some(run) if run.end == page => run.end += 1,
                _ => runs.push(page..page + 1),
            }
        }
    }
    Ok(runs)
}

/// Reads one byte of a page if that is in the page cache, and tells whether it was.
fn touch(file: &File, page: u64) -> io::Result<bool> {
    match preadv2(file, &mut [IoSliceMut::new(&mut [0])], page * PAGE, ReadWriteFlags::NOWAIT) {
        Ok(read) => Ok(read == 1),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

//! Takes files from the active part of the page cache, without a change to the kernel.
//!
//! Section 3.4.6 adds a function to the kernel, `deactivate_caches`: active pages that are mapped nowhere become inactive
//! and are marked as referenced, so that the next access makes them active again. What is active after a while has been
//! used in it. An unchanged kernel deactivates a page of a file in one case: when it is asked to forget the page
//! (`POSIX_FADV_DONTNEED`), and cannot as somebody else holds it. So somebody does: a pipe, into which the pages are
//! spliced, which lends them and copies nothing. Reading one byte of each page afterwards marks it as referenced.
//!
//! Nothing must come into the page cache by that, so a file is touched only if all of it is there, as `fincore` of
//! util-linux knows. Of a file that is there in part the kernel has begun to take pages back; those that are left are
//! inactive already, or in use.
//!
//! This is for the kernel's classic lists. The multi-generation LRU does not move pages that are read with `read`.

use crate::stat::PAGE;
use rustix::{
    fs::{Advice, fadvise},
    io::{Errno, ReadWriteFlags, preadv2},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};
use serde::Deserialize;
use std::{
    fs::{self, File},
    io::{self, IoSliceMut},
    num::NonZeroU64,
    ops::Range,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

/// What anybody may have a pipe hold, in bytes.
const PIPE: u64 = 1 << 20;
/// So many pipes hold what is deactivated at once: more than the kernel keeps together of a file (2 MiB).
const PIPES: usize = 4;
/// So many files are looked at at once: their names have to fit in a command's arguments.
const BATCH: usize = 256;

/// Deactivates the files in and below `directory` that are in the page cache as a whole, and returns how many pages they
/// have. What of them goes meanwhile stays away.
///
/// # Errors
/// What the file system says, or that there is no `fincore`; some files may be deactivated then.
pub fn deactivate(directory: &Path) -> io::Result<u64> {
    // What all pipes of a user may hold is bounded, so there is one holder at a time.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut all = Vec::new();
    each_file(directory, &mut |path| {
        all.push(path.to_owned());
        Ok(())
    })?;
    let mut cached = Vec::new();
    for batch in all.chunks(BATCH) {
        cached.extend(cached_whole(batch)?);
    }
    let holder = Holder::new()?;
    // A processor collects some pages before it moves them, and they would lose their mark then. Whatever it has
    // collected it moves when the kernel fails to forget yet another file, the smallest here.
    let smallest = cached.iter().min_by_key(|found| found.size);
    for found in cached.iter().chain(smallest) {
        vanished(File::open(&found.file).and_then(|file| holder.deactivate(&file)))?;
    }
    for found in &cached {
        vanished(File::open(&found.file).and_then(|file| mark(&file)))?;
    }
    Ok(cached.iter().map(|found| found.size.div_ceil(PAGE)).sum())
}

/// Holds pages of files.
struct Holder {
    pipes: Vec<Pipe>,
    nowhere: File,
}

struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// How much it holds, in pages.
    capacity: u64,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Whoever has many pipes gets smaller ones, which take more steps.
        let _ = fcntl_setpipe_size(&write_end, PIPE as usize);
        let capacity = fcntl_getpipe_size(&write_end)? as u64 / PAGE;
        Ok(Pipe { read_end, write_end, capacity })
    }
}

impl Holder {
    fn new() -> io::Result<Holder> {
        let pipes = (0..PIPES).map(|_| Pipe::new()).collect::<io::Result<_>>()?;
        Ok(Holder { pipes, nowhere: File::options().write(true).open("/dev/null")? })
    }

    /// Makes the pages of a file inactive.
    fn deactivate(&self, file: &File) -> io::Result<()> {
        let pages = file.metadata()?.len().div_ceil(PAGE);
        let capacity: u64 = self.pipes.iter().map(|pipe| pipe.capacity).sum();
        fadvise(file, 0, None, Advice::Random)?;
        // What is held at once begins at a multiple of that: so does whatever the kernel keeps together.
        for first in (0..pages).step_by(capacity.max(1) as usize) {
            let held = self.hold(file, first..pages.min(first + capacity));
            // What is not held must not be forgotten.
            let deactivated = held.and_then(|held| forget(file, &held));
            self.let_go()?;
            deactivated?;
        }
        Ok(())
    }

    /// Lends pages to the pipes, and returns which.
    fn hold(&self, file: &File, pages: Range<u64>) -> io::Result<Range<u64>> {
        let (mut at, end) = (pages.start * PAGE, pages.end * PAGE);
        for pipe in &self.pipes {
            let full = end.min(at + pipe.capacity * PAGE);
            while at < full {
                let length = (full - at) as usize;
                match splice(file, Some(&mut at), &pipe.write_end, None, length, SpliceFlags::NONBLOCK) {
                    // The file ends within its last page.
                    Ok(0) => return Ok(pages),
                    Ok(_) => {}
                    Err(Errno::AGAIN) => return Ok(pages.start..at / PAGE),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(pages)
    }

    /// Empties the pipes.
    fn let_go(&self) -> io::Result<()> {
        for pipe in &self.pipes {
            loop {
                match splice(&pipe.read_end, None, &self.nowhere, None, PIPE as usize, SpliceFlags::NONBLOCK) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(_) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

/// Marks the pages of a file as referenced, by reading a byte of each.
fn mark(file: &File) -> io::Result<()> {
    fadvise(file, 0, None, Advice::Random)?;
    for page in 0..file.metadata()?.len().div_ceil(PAGE) {
        // Without waiting: a page that went meanwhile was not in use.
        match preadv2(file, &mut [IoSliceMut::new(&mut [0])], page * PAGE, ReadWriteFlags::NOWAIT) {
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Drops all files in and below `directory` from the page cache, but for pages that are mapped or not yet written.
///
/// # Errors
/// What the file system says.
pub fn drop_directory(directory: &Path) -> io::Result<()> {
    each_file(directory, &mut |path| Ok(fadvise(File::open(path)?, 0, None, Advice::DontNeed)?))
}

/// Does this for all files in and below `directory`. Symbolic links are not followed, and files that vanish meanwhile
/// are passed over.
fn each_file(directory: &Path, work: &mut impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let path = entry.path();
        let done = match (kind.is_dir(), kind.is_file()) {
            (true, _) => each_file(&path, work),
            (_, true) => work(&path),
            _ => Ok(()),
        };
        let explain = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        vanished(done).map_err(explain)?;
    }
    Ok(())
}

/// What is not there any more is no error.
fn vanished<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

/// What `fincore` says.
#[derive(Deserialize)]
struct Residency {
    fincore: Vec<Resident>,
}

/// What it says of a file.
#[derive(Deserialize)]
struct Resident {
    pages: u64,
    size: u64,
    file: PathBuf,
}

/// Those of these files that are in the page cache as a whole, and not empty.
fn cached_whole(files: &[PathBuf]) -> io::Result<Vec<Resident>> {
    let output = Command::new("fincore")
        .args(["--json", "--bytes", "--output", "PAGES,SIZE,FILE", "--"])
        .args(files)
        .output()
        .map_err(|error| {
            io::Error::new(error.kind(), format!("could not run fincore (Debian: util-linux-extra): {error}"))
        })?;
    // It fails where a file has vanished, and tells of the others all the same.
    let told: Residency = serde_json::from_slice(&output.stdout).map_err(|_| {
        let said = String::from_utf8_lossy(&output.stderr);
        io::Error::new(io::ErrorKind::InvalidData, format!("fincore tells nothing: {}", said.trim()))
    })?;
    let whole = |told: &Resident| told.size > 0 && told.pages >= told.size.div_ceil(PAGE);
    Ok(told.fincore.into_iter().filter(whole).collect())
}

/// Asks the kernel to forget these pages; those that are held become inactive.
fn forget(file: &File, pages: &Range<u64>) -> io::Result<()> {
    // No length would mean: to the end.
    if pages.is_empty() {
        return Ok(());
    }
    Ok(fadvise(file, pages.start * PAGE, NonZeroU64::new((pages.end - pages.start) * PAGE), Advice::DontNeed)?)
}

//! Lines to a file or to standard output.

use super::pipe::{Lost, Report};
use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who may read a new file: a log tells of people.
const MODE: u32 = 0o640;

/// Where the lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// The end of a file, which is made if need be. Where the file is moved away or deleted, as log rotation does, the
    /// next lines go to a new one of the same name.
    File(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Stdout => f.write_str("standard output"),
            Target::File(path) => path.display().fmt(f),
        }
    }
}

/// Writes batches of lines.
#[derive(Debug)]
pub(super) struct Writer {
    file: File,
    /// Where to open the file anew; `None` for standard output.
    path: Option<PathBuf>,
    /// Whether the last byte in the file is amid a line.
    torn: bool,
    report: Report,
}

impl Writer {
    pub(super) fn open(target: Target) -> io::Result<Self> {
        let name = target.to_string();
        let (file, path) = match target {
            Target::Stdout => (io::stdout().as_fd().try_clone_to_owned()?.into(), None),
            Target::File(path) => (open(&path)?, Some(path)),
        };
        Ok(Writer { file, path, torn: false, report: Report::new(name) })
    }

    /// Writes whole lines, or counts those that cannot be written.
    pub(super) fn write(&mut self, lines: &[u8], lost: &Lost) {
        // Where there is no new file, the old one is better than none.
        let reopened = self.reopen_if_moved();
        let mut rest = lines;
        let written = self.write_all(&mut rest);
        lost.add(rest);
        self.report.outcome(reopened.and(written), lost);
    }

    fn write_all(&mut self, rest: &mut &[u8]) -> io::Result<()> {
        if self.torn {
            self.file.write_all(b"\n")?;
            self.torn = false;
        }
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.torn = rest[count - 1] != b'\n';
                    *rest = &rest[count..];
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes over to a new file if the name no longer means the one that is open.
    fn reopen_if_moved(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let identity = |file: &Metadata| (file.dev(), file.ino());
        let open_one = identity(&self.file.metadata()?);
        if fs::metadata(path).is_ok_and(|named| identity(&named) == open_one) {
            return Ok(());
        }
        self.file = open(path)?;
        self.torn = false;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Format, Log, Record, Sink};
    use std::io::{BufRead, Read};
    use std::thread;
    use std::time::{Duration, Instant};
    use vibra_model::Timestamp;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn log_one(sink: &mut Sink, client: &str) {
        sink.log(&Record::new(client, Timestamp(0)));
    }

    /// Whether `log` is written within `patience`.
    fn finish(log: Log, patience: Duration) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(log.finish(patience))
    }

    fn clients(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
        text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
    }

    fn wait_for(what: &str, state: impl Fn() -> bool) {
        let began = Instant::now();
        while !state() {
            assert!(began.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn every_line_of_every_thread_is_written_by_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = Log::write(Target::File(path.clone()), Format::Combined).unwrap();
        thread::scope(|threads| {
            for thread in 0..3 {
                let mut sink = log.sink();
                threads.spawn(move || (0..2000).for_each(|i| log_one(&mut sink, &format!("{thread}-{i}"))));
            }
        });
        assert_eq!(log.lost().lines(), 0);
        assert!(finish(log, PATIENCE));
        let clients = clients(&path);
        assert_eq!(clients.len(), 6000);
        for thread in 0..3 {
            let prefix = format!("{thread}-");
            let own: Vec<_> = clients.iter().filter(|client| client.starts_with(&prefix)).cloned().collect();
            assert_eq!(own, (0..2000).map(|i| format!("{thread}-{i}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lines_are_added_to_a_file_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        fs::write(&path, "old\n").unwrap();
        let log = Log::write(Target::File(path.clone()), Format::Combined).unwrap();
        log_one(&mut log.sink(), "new");
        assert!(finish(log, PATIENCE));
        assert_eq!(clients(&path), ["old", "new"]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Log::write(Target::File(dir.path().join("none/access.log")), Format::Combined).is_err());
    }

    #[test]
    fn a_file_that_was_moved_is_followed_by_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
        let log = Log::write(Target::File(path.clone()), Format::Combined).unwrap();
        let mut sink = log.sink();
        log_one(&mut sink, "first");
        sink.flush();
        wait_for("the first line", || !clients(&path).is_empty());
        fs::rename(&path, &moved).unwrap();
        log_one(&mut sink, "second");
        drop(sink);
        assert!(finish(log, PATIENCE));
        assert_eq!((clients(&moved), clients(&path)), (vec!["first".to_owned()], vec!["second".to_owned()]));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
    }

    #[test]
    fn where_no_new_file_can_be_made_the_old_one_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, moved) = (dir.path().join("logs"), dir.path().join("moved"));
        fs::create_dir(&inner).unwrap();
        let mut writer = Writer::open(Target::File(inner.join("access.log"))).unwrap();
        fs::rename(&inner, &moved).unwrap();
        writer.write(b"one\n", &Lost::default());
        assert!(writer.report.is_failing());
        assert_eq!(clients(&moved.join("access.log")), ["one"]);
        fs::create_dir(&inner).unwrap();
        writer.write(b"two\n", &Lost::default());
        assert!(!writer.report.is_failing());
        assert_eq!(clients(&inner.join("access.log")), ["two"]);
    }

    #[test]
    fn lines_that_a_full_disk_refuses_are_counted() {
        let log = Log::write(Target::File("/dev/full".into()), Format::Combined).unwrap();
        let mut sink = log.sink();
        (0..5).for_each(|_| log_one(&mut sink, "lost"));
        sink.flush();
        wait_for("five lost lines", || log.lost().lines() == 5);
        drop(sink);
        assert!(finish(log, PATIENCE));
    }

    #[test]
    fn a_torn_line_ends_before_the_next_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let mut writer = Writer::open(Target::File(path.clone())).unwrap();
        writer.write(b"whole\nhalf a li", &Lost::default());
        writer.write(b"next\n", &Lost::default());
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\nhalf a li\nnext\n");
    }

    #[test]
    fn the_end_does_not_wait_for_ever() {
        let (reader, writer) = io::pipe().unwrap();
        let file = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&writer));
        let log = Log::write(Target::File(file.into()), Format::Combined).unwrap();
        drop(writer);
        let mut sink = log.sink();
        // More than a pipe holds.
        (0..20_000).for_each(|_| log_one(&mut sink, "192.0.2.7"));
        drop(sink);
        assert!(!finish(log, Duration::from_millis(10)));
        let mut first = String::new();
        io::BufReader::new(reader.take(200)).read_line(&mut first).unwrap();
        assert!(first.starts_with("192.0.2.7 - - ["), "{first}");
    }
}

//! The command as a process.

use super::{Folder, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// What a command that came to its end said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// It ended with this exit code.
    #[track_caller]
    pub(crate) fn ended_with(self, code: i32) -> Said {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// It said each of `parts` on standard output.
    #[track_caller]
    pub(crate) fn with_stdout(self, parts: &[&str]) -> Said {
        contains_all("stdout", &self.stdout, parts);
        self
    }

    /// It said each of `parts` on standard error.
    #[track_caller]
    pub(crate) fn with_stderr(self, parts: &[&str]) -> Said {
        contains_all("stderr", &self.stderr, parts);
        self
    }
}

#[track_caller]
pub(crate) fn contains_all(what: &str, text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{what} lacks {part:?}:\n{text}");
    }
}

/// Runs `vibra` with these arguments in `folder` to its end.
#[track_caller]
pub(crate) fn vibra(folder: &Folder, arguments: &[&str]) -> Said {
    Running::start(folder, arguments).end()
}

/// A command that runs. It is killed when this is dropped.
pub(crate) struct Running {
    name: String,
    child: Child,
    stdout: Option<JoinHandle<String>>,
    stderr: Lines,
}

impl Running {
    /// Starts `vibra` with these arguments in `folder`.
    pub(crate) fn start(folder: &Folder, arguments: &[&str]) -> Running {
        Self::start_with(folder, arguments, |_| {})
    }

    /// The same, in changed circumstances.
    pub(crate) fn start_with(folder: &Folder, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vibra"));
        command.args(arguments).current_dir(folder.path()).env_remove("RUST_LOG");
        change(&mut command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let mut stdout = child.stdout.take().expect("a pipe");
        let stderr = Lines::of(child.stderr.take().expect("a pipe"));
        let read = move || {
            let mut text = Vec::new();
            // What was read before an error is all there is to see.
            let _ = stdout.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        let name = format!("vibra {}", arguments.join(" "));
        Running { name, child, stdout: Some(thread::spawn(read)), stderr }
    }

    /// Waits until it says a line on standard error in which `find` finds something.
    #[track_caller]
    pub(crate) fn says<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        self.stderr.find(find).unwrap_or_else(|said| panic!("{} does not say {what}; it said:\n{said}", self.name))
    }

    /// Waits until it says where something listens: the address behind this beginning of a line.
    #[track_caller]
    pub(crate) fn address(&self, beginning: &str) -> SocketAddr {
        self.says(&format!("its address in a line {beginning:?}"), |line| {
            let rest = line.strip_prefix(beginning)?;
            let end = rest.find(|c: char| c == ',' || c == '/' || c.is_whitespace()).unwrap_or(rest.len());
            rest[..end].parse().ok()
        })
    }

    /// All that it said on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends SIGHUP.
    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Sends SIGUSR2.
    pub(crate) fn upgrade(&self) {
        self.signal(Signal::USR2);
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.number(), signal).expect("it runs");
    }

    /// The process's number.
    pub(crate) fn number(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32).expect("a process has a number")
    }

    /// Sends SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(self) -> Said {
        self.end_within(2 * PATIENCE)
    }

    /// Waits for the end of something that takes its time.
    #[track_caller]
    pub(crate) fn end_within(mut self, limit: Duration) -> Said {
        let Some(status) = wait(&mut self.child, limit) else {
            panic!("{} does not end; it said:\n{}", self.name, self.stderr());
        };
        let code = status.code().unwrap_or_else(|| panic!("{} ended by a signal: {status}", self.name));
        let stdout = self.stdout.take().expect("taken here alone").join().expect("the reader ends with the pipe");
        Said { code, stdout, stderr: self.stderr.all() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("-- {} said:\n{}", self.name, self.stderr());
        }
    }
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The lines of a pipe as they come.
struct Lines(Arc<(Mutex<Heard>, Condvar)>);

#[derive(Default)]
struct Heard {
    lines: Vec<String>,
    over: bool,
}

impl Lines {
    fn of(pipe: impl Read + Send + 'static) -> Lines {
        let lines = Lines(Arc::default());
        let shared = lines.0.clone();
        thread::spawn(move || {
            let (read, news) = &*shared;
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                read.lock().unwrap().lines.push(String::from_utf8_lossy(&line).into_owned());
                news.notify_all();
            }
            read.lock().unwrap().over = true;
            news.notify_all();
        });
        lines
    }

    /// The first thing found in a line; all lines if nothing is found before their end, or in time.
    fn find<T>(&self, find: impl Fn(&str) -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        let (read, news) = &*self.0;
        let mut read = read.lock().unwrap();
        loop {
            if let Some(found) = read.lines.iter().find_map(|line| find(line)) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if read.over || left.is_zero() {
                return Err(read.lines.join("\n"));
            }
            read = news.wait_timeout(read, left).unwrap().0;
        }
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }

    /// All lines, once the pipe has ended.
    fn all(&self) -> String {
        let (read, news) = &*self.0;
        let waited = news.wait_timeout_while(read.lock().unwrap(), PATIENCE, |read| !read.over).unwrap();
        waited.0.lines.join("\n")
    }
}

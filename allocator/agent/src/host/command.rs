//! Runs `ip`, `tc`, `nft` and the like, or says what it would run.

use std::{
    env,
    ffi::OsString,
    fmt,
    io::{self, Write},
    process::{Command, Stdio},
};

/// No command may take longer, in seconds; `timeout` of coreutils sees to it.
const LONGEST: &str = "10";

/// How `timeout`, `nsenter` and shells end where there is no such program.
const NOT_FOUND: i32 = 127;

/// A command that did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be run.
    #[error("could not run `{step}`: is it installed?")]
    NotRun {
        /// The command, without its input.
        step: String,
        /// Why.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{step}` failed ({status}): {message}")]
    Failed {
        /// The command, with its input.
        step: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        message: String,
    },
}

/// One command with its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    words: Vec<String>,
    input: String,
}

impl Step {
    /// A command of blank-separated words.
    pub(crate) fn new(words: &str) -> Self {
        Step { words: words.split_whitespace().map(str::to_owned).collect(), input: String::new() }
    }

    /// The same with one more word, which may hold blanks.
    pub(crate) fn with_word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// The same with this input.
    pub(crate) fn with_input(mut self, input: impl Into<String>) -> Self {
        self.input = input.into();
        self
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// [`CommandError`] where it cannot be run, fails, or takes longer than ten seconds.
    pub(crate) fn run(&self) -> Result<String, CommandError> {
        let not_run = |source| CommandError::NotRun { step: self.words.join(" "), source };
        let mut child = with_search_path("timeout")
            .arg(LONGEST)
            .args(&self.words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(not_run)?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that ends without reading it all says itself what is wrong.
            let _ = stdin.write_all(self.input.as_bytes());
        }
        let output = child.wait_with_output().map_err(not_run)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        let message = String::from_utf8_lossy(said).trim().replace('\n', "; ");
        if output.status.code() == Some(NOT_FOUND) {
            return Err(not_run(io::Error::new(io::ErrorKind::NotFound, message)));
        }
        Err(CommandError::Failed { step: self.to_string(), status: output.status, message })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words.join(" "))?;
        if self.input.is_empty() { Ok(()) } else { write!(f, " <<END\n{}\nEND", self.input.trim_end()) }
    }
}

/// A command that finds programs as [`search_path`] has it.
///
/// `env` sets the variable: if it were set here, the standard library would fork instead of spawning, and copying the
/// page tables of a large process holds up all of its threads for tens of milliseconds.
pub(crate) fn with_search_path(program: &str) -> Command {
    let mut setting = OsString::from("PATH=");
    setting.push(search_path(env::var_os("PATH")));
    let mut command = Command::new("env");
    command.arg(setting).arg(program);
    command
}

/// Where programs are looked for: in this PATH, and then where Debian has `tc`, `nft` and nginx, which the PATH of a
/// user lacks, and root's too unless he logged in as such.
fn search_path(path: Option<OsString>) -> OsString {
    let mut path = path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// Runs steps one after another, up to the first that fails.
pub(crate) fn run_all(steps: &[Step]) -> Result<(), CommandError> {
    steps.iter().try_for_each(|step| step.run().map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_and_output_pass() {
        assert_eq!(Step::new("cat").with_input("hello").run().unwrap(), "hello");
    }

    #[test]
    fn a_failure_says_what_was_run_and_what_was_said() {
        let error = Step::new("ls /no/such/place").run().unwrap_err().to_string();
        assert!(error.contains("`ls /no/such/place` failed") && error.contains("cannot access"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_told_by_its_name() {
        for step in [Step::new("no-such-program"), Step::new("sh -c").with_word("no-such-program 2>&1")] {
            let CommandError::NotRun { source, .. } = step.with_input("input").run().unwrap_err() else { panic!() };
            assert!(source.to_string().contains("no-such-program"), "{source}");
        }
    }

    #[test]
    fn programs_of_the_administrator_are_found() {
        assert_eq!(search_path(Some("/mine".into())), "/mine:/usr/local/sbin:/usr/sbin:/sbin");
        assert_eq!(search_path(None), search_path(Some("".into())));
        let path = Step::new("sh -c").with_word("echo $PATH").run().unwrap();
        assert!(path.trim().ends_with(":/usr/sbin:/sbin"), "{path}");
    }

    #[test]
    fn a_step_shows_itself_as_a_shell_would_take_it() {
        assert_eq!(Step::new("tc -batch -").with_input("a\nb\n").to_string(), "tc -batch - <<END\na\nb\nEND");
    }
}

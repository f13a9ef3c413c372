//! Load generators of others: how they are called and what they say.

pub(super) mod h2load;
pub(super) mod openssl;
pub(super) mod wrk;

use anyhow::{Context, bail};
use std::process::{Command, Output};

/// A program that the benchmark starts, and the Debian package that has it.
pub(super) type Tool = (&'static str, &'static str);

/// What every cell needs.
pub(super) const ALWAYS: [Tool; 5] = [
    ("haproxy", "haproxy"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("taskset", "util-linux"),
    ("wrk", "wrk"),
];
/// What the cell on HTTP/2 needs besides.
pub(super) const FOR_HTTP2: Tool = ("h2load", "nghttp2-client");

/// What a run of a load generator came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    /// Right answers.
    pub(super) requests: u64,
    /// Wrong ones, and requests without one.
    pub(super) errors: u64,
    /// How long it took.
    pub(super) seconds: f64,
}

/// Refuses to begin where programs are missing, and names the packages to install.
pub(super) fn require(tools: impl IntoIterator<Item = Tool>) -> anyhow::Result<()> {
    // Debian keeps some of them where only root looks.
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let there = |program: &str| std::env::split_paths(&paths).any(|folder| folder.join(program).is_file());
    let missing: Vec<_> =
        tools.into_iter().filter(|(program, _)| !there(program)).map(|(_, package)| package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("not found in PATH: apt-get install {} (and /usr/sbin must be in PATH)", missing.join(" "))
}

/// The first line that a program says of its version.
pub(super) fn first_line(program: &str, flag: &str) -> String {
    let Ok(output) = Command::new(program).arg(flag).output() else { return format!("{program}: not installed") };
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().unwrap_or(program).to_owned()
}

/// Runs a load generator to its end: what it said on standard output.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("cannot start {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status}): {}", String::from_utf8_lossy(&stderr).trim());
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_programs_are_told_by_their_packages() {
        let error = require([("sh", "dash"), ("no-such-program", "a-package"), ("nor-this", "another")]).unwrap_err();
        assert!(error.to_string().contains("apt-get install a-package another "), "{error}");
        require([("sh", "dash")]).unwrap();
    }

    #[test]
    fn a_program_that_fails_is_told_with_what_it_said() {
        let error = said(Command::new("sh").args(["-c", "echo no luck >&2; exit 7"])).unwrap_err().to_string();
        assert!(error.contains("sh failed") && error.contains("no luck"), "{error}");
    }
}

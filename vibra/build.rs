//! Tells the program which commit it is built from, for the results that it writes.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=../.git/HEAD");
    println!("cargo::rerun-if-changed=../.git/refs/heads");
    let said = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let commit = said.ok().filter(|output| output.status.success());
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    if let Some(commit) = commit {
        println!("cargo::rustc-env=VIBRA_COMMIT={}", commit.trim());
    }
}

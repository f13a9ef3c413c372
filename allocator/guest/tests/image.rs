//! `images/build` where it cannot do its work: each time a word that says why and what to do, and nothing left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/build")
}

/// Runs it with a guest agent, so that none is built, and this cache.
fn build(cache: &Path, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(script());
    command.args(["--guest", env!("CARGO_BIN_EXE_vibra-guest"), "--cache"]).arg(cache);
    change(&mut command);
    command.output().unwrap()
}

/// What it said, of a run that failed and printed no image.
fn complaint(output: &Output) -> String {
    assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A directory with links to programs: all that the script needs but the one that is left out.
fn programs(without: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for found in ["/usr/bin", "/bin"].iter().flat_map(|bin| fs::read_dir(bin).unwrap()) {
        let path = found.unwrap().path();
        let name = path.file_name().unwrap();
        if name != without {
            let _ = std::os::unix::fs::symlink(&path, directory.path().join(name));
        }
    }
    directory
}

#[test]
fn without_apt_it_says_that_it_needs_debian() {
    let (cache, programs) = (tempfile::tempdir().unwrap(), programs("apt-get"));
    let said = complaint(&build(cache.path(), |command| _ = command.env("PATH", programs.path())));
    assert!(said.contains("apt-get is not installed") && said.contains("Debian"), "{said}");
}

#[test]
fn a_disk_without_room_is_told_before_anything_is_written() {
    let (cache, programs) = (tempfile::tempdir().unwrap(), programs("df"));
    let full = "#!/bin/sh\necho Filesystem 1M-blocks Used Available Use% Mounted\necho /dev/full 500 400 100 80% /\n";
    let df = programs.path().join("df");
    fs::write(&df, full).unwrap();
    fs::set_permissions(&df, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let said = complaint(&build(cache.path(), |command| _ = command.env("PATH", programs.path())));
    assert!(said.contains("only 100 MiB are free in") && said.contains("make room"), "{said}");
    assert_eq!(fs::read_dir(cache.path().join("packages")).unwrap().count(), 0);
}

#[test]
fn a_cache_that_cannot_be_made_and_words_that_are_not_understood() {
    let said = complaint(&build(Path::new("/proc/none"), |_| ()));
    assert!(said.contains("could not make /proc/none") && said.contains("--cache"), "{said}");
    let cache = tempfile::tempdir().unwrap();
    let said = complaint(&build(cache.path(), |command| _ = command.arg("--colour")));
    assert!(said.contains("--colour is not understood"), "{said}");
    let said = complaint(&build(cache.path(), |command| _ = command.args(["--guest", "/no/such/agent"])));
    assert!(said.contains("no guest agent at /no/such/agent"), "{said}");
}

#[test]
fn a_disk_that_fills_meanwhile_leaves_nothing_half_made() {
    let (cache, programs) = (tempfile::tempdir().unwrap(), programs("dpkg-deb"));
    let failing = "#!/bin/sh\necho 'dpkg-deb: error: No space left on device' >&2\nexit 2\n";
    let tool = programs.path().join("dpkg-deb");
    fs::write(&tool, failing).unwrap();
    fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    // apt that knows packages of these names and hands out empty files.
    let apt = r#"#!/bin/sh
empty=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
mode=fetch
for word in "$@"; do case $word in --print-uris) mode=list ;; esac; done
for word in "$@"; do case $word in download | -* | *=*) ;; *)
    if [ $mode = list ]; then echo "'http://none' ${word}_1.deb 0 SHA256:$empty"; else : >"${word}_1.deb"; fi
esac; done
"#;
    for (name, text) in [("apt-get", apt), ("apt-cache", "#!/bin/sh\necho '  Depends: linux-image-1-cloud-amd64'\n")] {
        let tool = programs.path().join(name);
        let _ = fs::remove_file(&tool);
        fs::write(&tool, text).unwrap();
        fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let said = complaint(&build(cache.path(), |command| _ = command.env("PATH", programs.path())));
    assert!(said.contains("No space left on device") && said.contains("is the disk full?"), "{said}");
    let mut left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["lock", "packages"], "no image, and nothing of one");
}

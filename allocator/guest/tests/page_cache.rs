//! Deactivation on the real kernel: the pages that a control group has read become inactive, stay in memory, and those
//! that are read again become active.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};
use vibra_guest::{lru_gen, page_cache::deactivate, stat::field};

const FILES: u64 = 40;
const SIZE: u64 = 300_000;
const LARGE: u64 = 20_000_000;
const PAGE: u64 = 4096;

/// A control group of this machine's; `None`, and a word why, where none can be made.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Group> {
        if lru_gen::is_on() {
            eprintln!("skipped: the kernel's multi-generation LRU is on");
            return None;
        }
        let name = format!("vibra-test-{}-cache", std::process::id());
        let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.procs").exists())?;
        let group = Group(root.join(name));
        if let Err(error) = fs::create_dir(&group.0) {
            eprintln!("skipped: no control group can be made here: {error}");
            return None;
        }
        if !group.0.join("memory.stat").exists() {
            eprintln!("skipped: the control groups here manage no memory");
            return None;
        }
        Some(group)
    }

    /// Has a process of the group read these files.
    fn read(&self, files: &[PathBuf]) {
        let script = r#"echo $$ > "$0/cgroup.procs"; cat "$@" > /dev/null"#;
        assert!(Command::new("sh").args(["-c", script]).arg(&self.0).args(files).status().unwrap().success());
    }

    /// Pages of its page cache: active, and in all.
    fn pages(&self) -> (u64, u64) {
        let text = fs::read_to_string(self.0.join("memory.stat")).unwrap();
        let of = |key| field(&text, key).unwrap() / PAGE;
        (of("active_file"), of("active_file") + of("inactive_file"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fs::remove_dir(&self.0).unwrap();
    }
}

/// Files that are on disk and not in the page cache.
fn cold(directory: &Path) -> Vec<PathBuf> {
    let sizes = (0..FILES).map(|_| SIZE).chain([LARGE]);
    let write = |(number, size): (usize, u64)| {
        let path = directory.join(format!("{number} of them.obj"));
        fs::write(&path, vec![7; size as usize]).unwrap();
        let file = File::open(&path).unwrap();
        rustix::fs::fsync(&file).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        path
    };
    sizes.enumerate().map(write).collect()
}

#[test]
fn what_is_read_again_is_active_again_and_nothing_else() {
    let Some(group) = Group::make() else { return };
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let files = cold(directory.path());
    let all = FILES * SIZE.div_ceil(PAGE) + LARGE.div_ceil(PAGE);
    assert_eq!(deactivate(directory.path()).unwrap(), 0, "nothing is cached, and nothing is read");
    group.read(&files);
    group.read(&files);
    let (active, cached) = group.pages();
    assert!(active > all * 9 / 10 && cached >= all, "{active} of {cached}, {all} read");

    for again in [&files[..10], &files[40..], &files[..0]] {
        assert_eq!(deactivate(directory.path()).unwrap(), all);
        let (idle, left) = group.pages();
        // The shell's and cat's own pages, and those that a processor has not put on a list yet.
        assert!(idle < all / 50, "{idle} active of {left}");
        assert!(left >= all, "all stays in memory: {left} of {cached}");
        group.read(again);
        let expected: u64 = again.iter().map(|file| fs::metadata(file).unwrap().len().div_ceil(PAGE)).sum();
        let (active, _) = group.pages();
        assert!(active.abs_diff(expected) <= expected * 15 / 100 + 100, "{active} active, {expected} read again");
    }
}

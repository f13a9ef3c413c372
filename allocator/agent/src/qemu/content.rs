//! The disk image that holds what a VM serves.

use crate::{
    Catalogue,
    catalogue::LAST_MODIFIED,
    host::{command::with_search_path, docroot},
};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Stdio,
};

/// Sizes are those of ext4 with blocks of this many bytes.
const BLOCK: u64 = 4096;
/// What an inode takes.
const INODE: u64 = 256;
/// What the file system takes beside files and inodes: its tables, and directories.
const SLACK: u64 = 8 << 20;

/// The image of `catalogue` in `directory`, made unless it is there: an ext4 file system whose root holds the object
/// `/a/b` as `a/b.obj`. Images of the same catalogue are the same to the byte on machines that make them alike.
///
/// # Errors
/// What the file system or mke2fs says; nothing half-made is left then.
pub(super) fn image(directory: &Path, catalogue: &Catalogue) -> io::Result<PathBuf> {
    fs::create_dir_all(directory)?;
    let name = format!("content-{:016x}-{}", catalogue.digest(), catalogue.len());
    let image = directory.join(format!("{name}.ext4"));
    // Others who want the same image wait until it is whole.
    let lock = File::create(directory.join("content.lock"))?;
    lock.lock()?;
    if image.exists() {
        return Ok(image);
    }
    let (tree, part) = (directory.join(format!("{name}.tree")), directory.join(format!("{name}.part")));
    let made = docroot::populate(&tree, catalogue)
        .and_then(|()| make(&docroot::objects(&tree), &part, catalogue))
        .and_then(|()| fs::rename(&part, &image));
    let cleared = fs::remove_dir_all(&tree);
    if made.is_err() {
        // It may not be there yet; that it failed matters more.
        let _ = fs::remove_file(&part);
        made?;
    }
    cleared?;
    Ok(image)
}

fn make(tree: &Path, part: &Path, catalogue: &Catalogue) -> io::Result<()> {
    let inodes = 2 * catalogue.len() as u64 + 64;
    File::create(part)?.set_len(size(catalogue, inodes))?;
    // Nothing in it follows from when or where it was made.
    let id = format!("00000000-0000-4000-8000-{:012x}", catalogue.digest() & 0xffff_ffff_ffff);
    let output = with_search_path("mke2fs")
        .env("E2FSPROGS_FAKE_TIME", LAST_MODIFIED.to_string())
        .args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-b", &BLOCK.to_string()])
        .args(["-I", &INODE.to_string(), "-N", &inodes.to_string(), "-U", &id])
        .args(["-E", &format!("lazy_itable_init=0,root_owner=0:0,hash_seed={id}"), "-d"])
        .arg(tree)
        .arg(part)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        let hint = "is e2fsprogs installed, and is there room on the disk?";
        return Err(io::Error::other(format!("mke2fs could not make {}: {said}: {hint}", part.display())));
    }
    Ok(())
}

/// What the image needs at most, in bytes.
fn size(catalogue: &Catalogue, inodes: u64) -> u64 {
    // Directories have a block each, of which there are no more than inodes beyond those of objects.
    let blocks: u64 = catalogue.objects().map(|object| object.size.0.div_ceil(BLOCK) + 1).sum();
    // Bitmaps and group descriptors grow with the whole.
    let content = blocks * BLOCK + inodes * INODE;
    (content + content / 32 + SLACK).next_multiple_of(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use vibra_model::Bytes;

    fn catalogue() -> Catalogue {
        let many = (0..500).map(|number| (format!("/many/{number}/x"), Bytes(number)));
        let few = [("/a", 3_000_000), ("/a/b", 5), ("/", 7)].map(|(path, size)| (path.to_owned(), Bytes(size)));
        Catalogue::new(many.chain(few)).unwrap()
    }

    #[test]
    fn an_image_holds_the_objects_and_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        if with_search_path("mke2fs").arg("-V").stderr(Stdio::null()).status().is_ok_and(|status| !status.success()) {
            return eprintln!("skipped: there is no mke2fs");
        }
        let catalogue = catalogue();
        let path = image(directory.path(), &catalogue).unwrap();
        let shown = |file: &str| {
            let mut command: Command = with_search_path("debugfs");
            command.args(["-R", &format!("cat {file}")]).arg(&path).stderr(Stdio::null()).output().unwrap().stdout
        };
        for (file, name) in [("a/b.obj", "/a/b"), (".obj", "/"), ("many/77/x.obj", "/many/77/x")] {
            let object = catalogue.find(name).unwrap().1;
            assert_eq!(shown(file), object.chunk(0..object.size.0), "{file}");
        }
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the image and its lock: {left:?}");
        let made = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(image(directory.path(), &catalogue).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let too_long = Catalogue::new([(format!("/{}", "x".repeat(300)), Bytes(1))]).unwrap();
        assert!(image(directory.path(), &too_long).is_err());
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["content.lock"]);
    }
}

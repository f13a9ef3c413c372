//! The files that VMs with a real server serve.

use crate::{Catalogue, Object, catalogue::LAST_MODIFIED};
use rustix::fs::Advice;
use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes},
    io::{self, BufWriter, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

/// The suffix of every file: `/a` and `/a/b` can then both be objects, although no path can be file and directory.
pub(crate) const SUFFIX: &str = ".obj";
/// Says which catalogue the files are of; written last.
const MANIFEST: &str = "manifest";

/// Where an object's body is.
fn file_of(root: &Path, object: &Object) -> PathBuf {
    let mut name = object.path[1..].to_vec();
    name.extend_from_slice(SUFFIX.as_bytes());
    root.join("objects").join(OsStr::from_bytes(&name))
}

/// The directory that paths are relative to.
pub(crate) fn objects(root: &Path) -> PathBuf {
    root.join("objects")
}

/// Writes the bodies of all objects below `root`, unless they are there already, and leaves none of them in the page
/// cache. What else was there is removed.
///
/// # Errors
/// What the file system says; a part of a path may be no longer than 251 bytes.
pub(crate) fn populate(root: &Path, catalogue: &Catalogue) -> io::Result<()> {
    let manifest = format!("{:016x} {}\n", catalogue.digest(), catalogue.len());
    if fs::read_to_string(root.join(MANIFEST)).is_ok_and(|there| there == manifest) {
        return forget(root, catalogue);
    }
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::create_dir_all(objects(root))?;
    for object in catalogue.objects() {
        write_object(&file_of(root, object), object)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", file_of(root, object).display())))?;
    }
    // What is not on disk yet cannot leave the page cache.
    rustix::fs::syncfs(File::open(root)?)?;
    forget(root, catalogue)?;
    fs::write(root.join(MANIFEST), manifest)
}

fn write_object(path: &Path, object: &Object) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = BufWriter::with_capacity(1 << 16, File::create(path)?);
    let (mut at, size) = (0, object.size.0);
    while at < size {
        let chunk = object.chunk(at..size);
        file.write_all(&chunk)?;
        at += chunk.len() as u64;
    }
    let modified = UNIX_EPOCH + Duration::from_secs(LAST_MODIFIED);
    file.into_inner()?.set_times(FileTimes::new().set_modified(modified))
}

/// Drops all objects from the page cache, so that the next reads come from disk.
pub(crate) fn forget(root: &Path, catalogue: &Catalogue) -> io::Result<()> {
    for object in catalogue.objects() {
        rustix::fs::fadvise(File::open(file_of(root, object))?, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use vibra_model::Bytes;

    #[test]
    fn files_hold_the_bodies_and_are_written_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let sizes = [("/a", 300_000), ("/a/b", 5), ("/", 7), ("/dir/", 0), ("/%ff", 3)];
        let catalogue = Catalogue::new(sizes.map(|(path, size)| (path, Bytes(size)))).unwrap();
        populate(&root, &catalogue).unwrap();
        let (_, a) = catalogue.find("/a").unwrap();
        let file = file_of(&root, a);
        assert_eq!(file, root.join("objects/a.obj"));
        let body = fs::read(&file).unwrap();
        assert_eq!(body.len(), 300_000);
        assert_eq!(&body[..100], &a.chunk(0..100)[..]);
        assert_eq!(fs::metadata(&file).unwrap().mtime() as u64, LAST_MODIFIED);
        assert!(fs::metadata(&file).unwrap().blocks() * 512 >= 300_000, "real blocks, no hole");
        for (name, size) in [("a/b.obj", 5), (".obj", 7), ("dir/.obj", 0)] {
            assert_eq!(fs::metadata(root.join("objects").join(name)).unwrap().len(), size);
        }
        let inode = fs::metadata(&file).unwrap().ino();
        populate(&root, &catalogue).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), inode);
        let other = Catalogue::new([("/a", Bytes(1))]).unwrap();
        populate(&root, &other).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().len(), 1);
        assert!(!root.join("objects/dir").exists());
    }
}

//! What can be wrong with the file of a store.

use std::{fs, path::Path};
use tempfile::TempDir;
use vibra_store::*;

async fn filled(path: &Path) {
    let store = RedbStore::open(path).unwrap();
    for n in 0..20 {
        let write = Write::Put { key: format!("key-{n}"), value: vec![n; 500].into(), lease: None };
        store.commit(vec![Transaction { compare: vec![], writes: vec![write] }]).await.unwrap();
    }
}

#[tokio::test]
async fn a_store_is_as_it_was_when_it_is_opened_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let contents = RedbStore::open(&path).unwrap().contents().await.unwrap();
    assert_eq!((contents.revision.0, contents.entries.len()), (20, 20));
    assert_eq!(contents.entries["key-7"].value, vec![7; 500]);
    assert_eq!(contents.entries["key-7"].modified.0, 8);
}

#[tokio::test]
async fn a_store_is_open_only_once() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.redb");
    let _first = RedbStore::open(&path).unwrap();
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("store.redb"), "{error}");
}

#[tokio::test]
async fn what_is_no_store_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("letter.txt");
    fs::write(&path, "Dear Sir or Madam,\n".repeat(1000)).unwrap();
    let error = RedbStore::open(&path).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(fs::read_to_string(&path).unwrap().starts_with("Dear"), "it was changed");
    let error = RedbStore::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Failed { .. }), "{error}");
}

/// Whether the file, as it now is, is refused or still has all that was put into it. Nothing else may be.
async fn refused_or_whole(path: &Path) -> bool {
    match RedbStore::open(path) {
        Err(StoreError::Damaged { .. } | StoreError::Failed { .. }) => true,
        Err(other) => panic!("{other}"),
        Ok(store) => match store.contents().await {
            Err(_) => true,
            Ok(contents) => {
                assert_eq!((contents.revision.0, contents.entries.len()), (20, 20));
                for n in 0..20 {
                    assert_eq!(contents.entries[&format!("key-{n}")].value, vec![n; 500], "key-{n}");
                }
                false
            }
        },
    }
}

/// Whatever is cut off or overwritten: an error, or the contents as they were, never others or the end of the process.
#[tokio::test]
async fn damage_is_found_and_does_not_end_the_process() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.redb");
    let mut refused = 0;
    for tenth in 0..10 {
        let at = whole.len() * tenth / 10;
        let mut overwritten = whole.clone();
        let end = (at + 5000).min(whole.len());
        overwritten[at..end].fill(0xA5);
        for text in [&whole[..at.max(1)], &overwritten] {
            fs::write(&damaged, text).unwrap();
            refused += usize::from(refused_or_whole(&damaged).await);
        }
    }
    assert!(refused > 0);
}

#[tokio::test]
async fn a_single_wrong_byte_is_found() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.redb");
    filled(&path).await;
    let whole = fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.redb");
    let used: Vec<usize> = (0..whole.len()).filter(|&at| whole[at] != 0).collect();
    let mut refused = 0;
    for &at in used.iter().step_by(used.len() / 60) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&damaged, flipped).unwrap();
        refused += usize::from(refused_or_whole(&damaged).await);
    }
    assert!(refused > 0);
}

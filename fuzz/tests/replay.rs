//! Every target on its corpus, and on so many mutations of it. The mutations are the same in every run.

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use vibra_fuzz::{TARGETS, Target};

/// Mutations of a target's corpus, in all.
const MUTATIONS: usize = 10_000;

/// Inputs do not grow beyond this, in bytes.
const LONGEST: usize = 4096;

fn corpus(target: &Target) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", folder.display());
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).unwrap())).collect()
}

/// Runs a target, and names the input where it fails.
fn check(target: &Target, input: &[u8], origin: &str) {
    if catch_unwind(AssertUnwindSafe(|| (target.check)(input))).is_err() {
        let shown = input[..input.len().min(LONGEST)].escape_ascii();
        panic!("{} fails on {origin}; to keep as corpus/{0}/NAME: b\"{shown}\"", target.name);
    }
}

fn replay(target: &Target) {
    let corpus = corpus(target);
    for (path, input) in &corpus {
        check(target, input, &path.display().to_string());
    }
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for number in 0..MUTATIONS {
        let mut input = corpus[random.random_range(0..corpus.len())].1.clone();
        for _ in 0..random.random_range(1..=4) {
            let other = &corpus[random.random_range(0..corpus.len())].1;
            mutate(&mut input, other, target.words, &mut random);
        }
        input.truncate(LONGEST);
        check(target, &input, &format!("mutation {number}"));
    }
}

/// Changes an input in one of the ways that find faults in readers.
fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&str], random: &mut impl Rng) {
    let at = random.random_range(0..=input.len());
    let end = random.random_range(at..=input.len().min(at + 32));
    match random.random_range(0..7) {
        0 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
        1 if at < input.len() => input[at] = [0, b'\n', b'\r', b' ', b':', 0x7f, 0x80, 0xff][random.random_range(0..8)],
        2 => drop(input.drain(at..end)),
        3 => input.extend_from_within(at..end),
        4 => input.truncate(at),
        5 => {
            let from = random.random_range(0..=other.len());
            input.splice(at..end, other[from..other.len().min(from + 64)].iter().copied());
        }
        _ => {
            let word = words[random.random_range(0..words.len())];
            input.splice(at..at, word.bytes());
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for entry in std::fs::read_dir(corpus).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(TARGETS.iter().any(|target| *target.name == *name), "{name:?} is no target");
    }
}

macro_rules! replayed {
    ($($test:ident: $target:literal,)*) => {
        $(
            #[test]
            fn $test() {
                replay(TARGETS.iter().find(|target| target.name == $target).unwrap());
            }
        )*

        #[test]
        fn every_target_is_replayed() {
            assert_eq!(TARGETS.iter().map(|target| target.name).collect::<Vec<_>>(), [$($target),*]);
        }
    };
}

replayed! {
    chunked: "chunked",
    configuration: "configuration",
    forwarded: "forwarded",
    http2_request: "http2-request",
    proxy_header: "proxy-header",
    request: "request",
    response: "response",
    routing_key: "routing-key",
}

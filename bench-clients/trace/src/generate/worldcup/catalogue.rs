//! What is known of the objects of the World Cup site, and which of them the window asks for.

use super::{COLUMNS, HOT, charsum, facts};
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Embedded, under the notice in [`super::NOTICE`]. Made by the example `worldcup_catalogue`, which says of what. A line:
/// number in the log, size in bytes or `-`, requests and not-modified responses in the evening sample, URL.
const CATALOGUE: &str = include_str!("../../../data/worldcup98/catalogue.tsv");

/// How far the sizes of a column's objects together may be from Table 3.1, in bytes. The table is rounded to megabytes.
const SIZE_TOLERANCE: u64 = 100_000;

/// Exchanges of objects after which the search for a column's total size ends. Hundreds do.
const MAX_EXCHANGES: usize = 100_000;

/// An object of the site.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) url: &'static str,
    /// Bytes; 0 in the catalogue if it is not known.
    pub(super) size: u64,
    /// Requests and not-modified responses in the evening sample.
    pub(super) requests: u64,
    pub(super) not_modified: u64,
    pub(super) kind: Kind,
}

/// Pages and images differ in size and in how often browsers revalidate them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Page,
    Image,
    Other,
}

impl Kind {
    fn of(url: &str) -> Kind {
        match url.rsplit_once('.').map(|(_, ending)| ending) {
            Some("htm" | "html") | None => Kind::Page,
            Some("gif" | "GIF" | "jpg" | "jpeg") => Kind::Image,
            Some(_) => Kind::Other,
        }
    }
}

/// Sub-namespace under Charsum with four servers, from 0.
pub(super) fn column(url: &str) -> usize {
    charsum(url) % COLUMNS
}

/// All entries of the catalogue.
pub(super) fn entries() -> Vec<Entry> {
    let entry = |line: &'static str| {
        let mut fields = line.splitn(5, '\t').skip(1);
        let mut number = || fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
        let (size, requests, not_modified) = (number(), number(), number());
        let url = fields.next()?;
        Some(Entry { url, size, requests, not_modified, kind: Kind::of(url) })
    };
    CATALOGUE.lines().filter_map(entry).collect()
}

/// The part of the evening sample's requests for objects of this kind that ended with 304.
pub(super) fn not_modified_share(entries: &[Entry], kind: Kind) -> f64 {
    let of_kind = || entries.iter().filter(|entry| entry.kind == kind);
    let requests: u64 = of_kind().map(|entry| entry.requests).sum();
    let not_modified: u64 = of_kind().map(|entry| entry.not_modified).sum();
    not_modified as f64 / requests.max(1) as f64
}

/// Gives every entry a size: a match page the median size of the sampled pages of its family in its language or, if none
/// was sampled, of the family; any other one a size drawn from those that are known of its kind.
pub(super) fn complete(entries: &mut [Entry], rng: &mut ChaCha8Rng) {
    let known: Vec<Entry> = entries.iter().filter(|entry| entry.size > 0).copied().collect();
    for entry in entries.iter_mut().filter(|entry| entry.size == 0) {
        let family = HOT.contains(&entry.url).then(|| median(&known, entry.url)).flatten();
        entry.size = family.unwrap_or_else(|| {
            let kin: Vec<u64> = known.iter().filter(|other| other.kind == entry.kind).map(|other| other.size).collect();
            kin[rng.random_range(0..kin.len())]
        });
    }
}

/// Median size of the pages that were sampled in the evening and whose names begin as that of `url`, up to its number.
fn median(known: &[Entry], url: &str) -> Option<u64> {
    let family = url.trim_end_matches(|c: char| !c.is_ascii_digit()).trim_end_matches(|c: char| c.is_ascii_digit());
    let (_, page) = family.rsplit_once('/')?;
    let of = |fits: &dyn Fn(&str) -> bool| {
        let mut sizes: Vec<u64> =
            known.iter().filter(|entry| entry.requests > 0 && fits(entry.url)).map(|entry| entry.size).collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).copied()
    };
    of(&|name| name.starts_with(family)).or_else(|| of(&|name| name.contains(&format!("/{page}"))))
}

/// The objects that the window asks for, by column, as many and as large together as Table 3.1 says: the hot ones, those
/// that were delivered in the evening sample, and others by lot. The lot is then corrected towards the total size:
/// objects outside are exchanged for objects inside as long as that brings it nearer.
pub(super) fn choose(entries: &[Entry], rng: &mut ChaCha8Rng) -> [Vec<Entry>; COLUMNS] {
    std::array::from_fn(|index| {
        let (mut inside, mut others): (Vec<Entry>, Vec<Entry>) = (entries.iter())
            .filter(|entry| column(entry.url) == index)
            .partition(|entry| entry.requests > 0 || HOT.contains(&entry.url));
        let fixed = inside.len();
        others.shuffle(rng);
        let outside = others.split_off(facts::OBJECTS[index] - fixed);
        inside.append(&mut others);
        exchange(&mut inside, outside, (fixed, facts::DISTINCT_BYTES[index]), rng);
        inside
    })
}

/// Exchanges entries of `inside`, from `fixed` on, for entries of `outside`, until those inside have `target` bytes.
fn exchange(inside: &mut [Entry], mut outside: Vec<Entry>, (fixed, target): (usize, u64), rng: &mut ChaCha8Rng) {
    let mut total: u64 = inside.iter().map(|entry| entry.size).sum();
    for _ in 0..MAX_EXCHANGES {
        if total.abs_diff(target) <= SIZE_TOLERANCE {
            return;
        }
        let (i, o) = (rng.random_range(fixed..inside.len()), rng.random_range(0..outside.len()));
        let exchanged = total - inside[i].size + outside[o].size;
        if exchanged.abs_diff(target) < total.abs_diff(target) {
            std::mem::swap(&mut inside[i], &mut outside[o]);
            total = exchanged;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn the_catalogue_is_whole() {
        let entries = entries();
        assert_eq!(entries.len(), CATALOGUE.lines().count());
        assert!(entries.iter().all(|entry| entry.url.starts_with('/') && !entry.url.contains('?')));
        assert!(entries.iter().all(|entry| entry.not_modified <= entry.requests));
        for (index, needed) in facts::OBJECTS.into_iter().enumerate() {
            let there = entries.iter().filter(|entry| column(entry.url) == index).count();
            assert!(there > needed, "column {index} has {there} entries, {needed} are needed");
        }
        for url in HOT {
            assert!(entries.iter().any(|entry| entry.url == url), "{url}");
        }
    }

    /// Section 3.5.1: the eight hot files are all in sub-namespace 2 because prog and stat, and english and french, have
    /// the same sum. The second game of the day (21:00) is in sub-namespace 1 (Figure 3.5).
    #[test]
    fn the_hot_files_share_a_sub_namespace() {
        assert!(HOT.iter().all(|url| column(url) == 1));
        assert_eq!(column("/english/competition/matchprog8877.htm"), 0);
    }

    #[test]
    fn the_choice_is_as_large_as_the_table_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut entries = entries();
        complete(&mut entries, &mut rng);
        assert!(entries.iter().all(|entry| entry.size > 0));
        for (index, chosen) in choose(&entries, &mut rng).into_iter().enumerate() {
            let bytes: u64 = chosen.iter().map(|entry| entry.size).sum();
            assert_eq!(chosen.len(), facts::OBJECTS[index]);
            assert!(bytes.abs_diff(facts::DISTINCT_BYTES[index]) <= SIZE_TOLERANCE, "column {index}: {bytes}");
        }
    }

    #[test]
    fn match_pages_are_as_large_as_others_of_their_family() {
        let known = entries();
        let sizes = ["prog", "stat"].map(|page| median(&known, &format!("/english/competition/match{page}8878.htm")));
        assert!((39_304..=49_203).contains(&sizes[0].unwrap()), "{sizes:?}");
        assert!((21_194..=23_596).contains(&sizes[1].unwrap()), "{sizes:?}");
    }
}

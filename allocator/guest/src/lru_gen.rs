//! The multi-generation LRU as the kernel shows it in debugfs (Documentation/admin-guide/mm/multigen_lru.rst).
//!
//! ```text
//! memcg     1 /
//!  node     0
//!           0     114208       2310        1874
//!           1     101560          0           3
//!           2      12012       1288        6120
//!           3        100        301         512
//! ```
//!
//! A line is a generation: its number, its age in ms, its pages of processes and its pages of files.

use std::{fs, io};

/// Where it is shown, and where it is told to age.
pub const FILE: &str = "/sys/kernel/debug/lru_gen";
/// What switches it on and off.
pub const ENABLED: &str = "/sys/kernel/mm/lru_gen/enabled";

/// One generation of pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation {
    /// Its number; the youngest has the highest.
    pub number: u64,
    /// How long ago it was the youngest, in ms.
    pub age_ms: u64,
    /// Its pages of processes.
    pub anonymous: u64,
    /// Its pages of files.
    pub file: u64,
}

/// The generations of one control group on one node of memory, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lru {
    /// The control group's number.
    pub group: u64,
    /// Its path below the mount point.
    pub path: String,
    /// The node.
    pub node: u64,
    /// Oldest first.
    pub generations: Vec<Generation>,
}

impl Lru {
    /// What to write to make a generation that is younger than all: pages that were used since the last time move to it.
    /// `None` where there is no generation yet.
    pub fn aging(&self) -> Option<String> {
        let youngest = self.generations.last()?;
        // Neither may pages of processes be passed over, nor the scan be skipped for lack of need.
        Some(format!("+ {} {} {} 1 1", self.group, self.node, youngest.number))
    }

    /// Pages of files in all generations, and in all but the youngest.
    pub fn files(&self) -> (u64, u64) {
        let all = self.generations.iter().map(|generation| generation.file).sum();
        (all, all - self.generations.last().map_or(0, |youngest| youngest.file))
    }
}

/// All that is shown.
///
/// # Errors
/// The number of the first line that is not understood, from 1.
pub fn parse(text: &str) -> Result<Vec<Lru>, usize> {
    let mut all: Vec<Lru> = Vec::new();
    let mut group = None;
    for (index, line) in text.lines().enumerate() {
        let words: Vec<_> = line.split_whitespace().collect();
        let understood = match words[..] {
            ["memcg", number, ref path @ ..] => {
                group = number.parse().ok().map(|number| (number, path.join(" ")));
                group.as_ref().map(drop)
            }
            ["node", node] => node.parse().ok().zip(group.clone()).map(|(node, (group, path))| {
                all.push(Lru { group, path, node, generations: Vec::new() });
            }),
            [number, age, anonymous, file] => all.last_mut().and_then(|lru| {
                let [number, age_ms] = [number, age].map(|word| word.parse().ok());
                // What is marked belongs to no generation of its kind any more.
                let [anonymous, file] = [anonymous, file].map(|word| word.trim_end_matches('x').parse().ok());
                let generation = Generation { number: number?, age_ms: age_ms?, anonymous: anonymous?, file: file? };
                lru.generations.push(generation);
                Some(())
            }),
            [] => Some(()),
            _ => None,
        };
        understood.ok_or(index + 1)?;
    }
    Ok(all)
}

/// Whether the kernel has it, and has it switched on.
pub fn is_on() -> bool {
    let text = fs::read_to_string(ENABLED).unwrap_or_default();
    let bits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(bits, 16).is_ok_and(|bits| bits & 1 == 1)
}

/// All that the kernel shows now.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] without debugfs or the multi-generation LRU; [`io::ErrorKind::InvalidData`] where what is
/// shown is not understood.
pub fn shown() -> io::Result<Vec<Lru>> {
    let text = fs::read_to_string(FILE).map_err(|error| io::Error::new(error.kind(), format!("{FILE}: {error}")))?;
    let unclear = |line| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE} is not understood in line {line}"));
    parse(&text).map_err(unclear)
}

/// Has all of these make a younger generation.
///
/// # Errors
/// Those of debugfs.
pub fn age<'a>(all: impl IntoIterator<Item = &'a Lru>) -> io::Result<()> {
    all.into_iter().filter_map(Lru::aging).try_for_each(|command| fs::write(FILE, command))
}

/// Pages of files in all generations of all of these, and in all but the youngest of each.
pub fn files<'a>(all: impl IntoIterator<Item = &'a Lru>) -> (u64, u64) {
    all.into_iter().map(Lru::files).fold((0, 0), |(files, idle), (more, old)| (files + more, idle + old))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "\
memcg     1 /
 node     0
          0     114208       2310x       1874 
          1     101560          0           3 
          2      12012       1288        6120 
          3        100        301         512 
memcg    37 /system.slice/with blank.service
 node     0
          4         20          0           0 
 node     1
          1         20          5           7 
";

    #[test]
    fn what_the_kernel_shows_is_understood() {
        let all = parse(SHOWN).unwrap();
        assert_eq!(all.len(), 3);
        assert_eq!((all[0].group, all[0].path.as_str(), all[0].node), (1, "/", 0));
        assert_eq!(all[0].generations[0], Generation { number: 0, age_ms: 114_208, anonymous: 2_310, file: 1_874 });
        assert_eq!(all[0].aging().unwrap(), "+ 1 0 3 1 1");
        assert_eq!(all[0].files(), (8_509, 7_997));
        assert_eq!((all[2].group, all[2].node, all[2].path.as_str()), (37, 1, "/system.slice/with blank.service"));
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn what_is_not_understood_is_told_by_its_line() {
        for (text, line) in
            [("node 0\n", 1), ("memcg 1 /\n 1 2 3 4\n", 2), ("memcg x /\n", 1), ("memcg 1 /\n node 0\n 1 2 3\n", 3)]
        {
            assert_eq!(parse(text), Err(line), "{text:?}");
        }
    }
}

//! What is wrong with a trace, and where.

use std::fmt;

/// Kinds of defects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum DefectClass {
    /// A record that does not say what its format demands. It is left out.
    Broken,
    /// The trace ends within a record, or before the end that its format announces.
    Truncated,
    /// A record that is earlier than the one before it. A loaded trace keeps it, in its right place.
    OutOfOrder,
    /// A record whose time is too far from all others to be true. It is left out.
    ImplausibleTime,
    /// The input cannot be read any further.
    Unreadable,
}

impl DefectClass {
    /// All of them.
    pub const ALL: [DefectClass; 5] = [
        DefectClass::Broken,
        DefectClass::Truncated,
        DefectClass::OutOfOrder,
        DefectClass::ImplausibleTime,
        DefectClass::Unreadable,
    ];
}

impl fmt::Display for DefectClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DefectClass::Broken => "broken",
            DefectClass::Truncated => "truncated",
            DefectClass::OutOfOrder => "out of order",
            DefectClass::ImplausibleTime => "implausible time",
            DefectClass::Unreadable => "unreadable",
        })
    }
}

/// One defect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {class}: {detail}")]
pub struct Defect {
    /// What kind.
    pub class: DefectClass,
    /// Where its record begins: bytes from the beginning of the trace, after decompression.
    pub offset: u64,
    /// What is wrong.
    pub detail: String,
}

/// How many defects of each class to keep in full.
const KEPT: usize = 5;

/// The defects of a trace: how many of each class, and the first few in full.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Defects {
    counts: [u64; DefectClass::ALL.len()],
    first: Vec<Defect>,
}

impl Defects {
    pub(crate) fn note(&mut self, class: DefectClass, defect: impl FnOnce() -> Defect) {
        let count = &mut self.counts[class as usize];
        if *count < KEPT as u64 {
            self.first.push(defect());
        }
        *count += 1;
    }

    /// How many of this class.
    pub fn count(&self, class: DefectClass) -> u64 {
        self.counts[class as usize]
    }

    /// How many in all.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The first five of each class, in the order in which they were found.
    pub fn first(&self) -> &[Defect] {
        &self.first
    }
}

/// A line for each class that occurred, below it its first defects; `no defects` without any.
impl fmt::Display for Defects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.total() == 0 {
            return f.write_str("no defects");
        }
        let mut separator = "";
        for class in DefectClass::ALL.into_iter().filter(|&class| self.count(class) > 0) {
            write!(f, "{separator}{class}: {}", self.count(class))?;
            separator = "\n";
            for defect in self.first.iter().filter(|defect| defect.class == class) {
                write!(f, "\n  byte {}: {}", defect.offset, defect.detail)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_counted_and_few_are_kept() {
        let mut defects = Defects::default();
        assert_eq!(defects.to_string(), "no defects");
        for offset in 0..20 {
            let class = DefectClass::Broken;
            defects.note(class, || Defect { class, offset, detail: "no time".into() });
        }
        assert_eq!((defects.total(), defects.count(DefectClass::Broken), defects.first().len()), (20, 20, KEPT));
        assert!(defects.to_string().starts_with("broken: 20\n  byte 0: no time\n"));
    }
}

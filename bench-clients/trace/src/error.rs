//! What can go wrong before a trace's first record, and with its generation and writing.

use crate::Format;
use std::io;
use std::path::PathBuf;

/// Why a trace could not be opened, made or written. What is wrong *within* a trace is a [`crate::Defect`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried: open, read, write.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Reading or writing failed.
    #[error("cannot read or write the trace")]
    Io(#[from] io::Error),
    /// The input is like no known format.
    #[error("{name} is in no known format (known: {}); name its format", Format::names())]
    UnknownFormat {
        /// Of the input.
        name: String,
    },
    /// The input is of another format, or of a later version of it, than the one named.
    #[error("not a trace in the format {format}: {detail}")]
    WrongFormat {
        /// The format that was named or detected.
        format: Format,
        /// What does not fit.
        detail: String,
    },
    /// Traces cannot be written in this format.
    #[error("traces cannot be written as {0}; write {compact} or {csv}", compact = Format::Compact, csv = Format::Csv)]
    ReadOnlyFormat(Format),
    /// A line of an object map is wrong.
    #[error("{}, line {line}: {detail}", path.display())]
    ObjectMap {
        /// Of the map.
        path: PathBuf,
        /// From 1.
        line: u64,
        /// What is wrong.
        detail: String,
    },
    /// There is no such generator.
    #[error("there is no generator {name:?} (known: {known})", known = crate::generate::NAMES.join(", "))]
    UnknownGenerator {
        /// The name asked for.
        name: String,
    },
    /// A generator cannot work with a parameter.
    #[error("generator {generator}: {detail}")]
    Parameter {
        /// Which generator.
        generator: &'static str,
        /// What is wrong, and what would do.
        detail: String,
    },
}

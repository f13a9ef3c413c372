//! Result documents.

use crate::Machine;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

/// Where a result comes from: enough to measure it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    /// The command that measured it, with its arguments.
    pub command: String,
    /// The commit that it was built from, if that is known.
    pub commit: Option<String>,
    /// The seed of its random numbers, if it drew any.
    pub seed: Option<u64>,
    /// When it began, as `2026-06-30T16:10:00Z`.
    pub started: String,
    /// The machine.
    pub machine: Machine,
}

/// A result as a program reads it: where it comes from, what holds for all of it, and its rows. The fields of the
/// first two stand at the top level of the JSON object, beside `rows`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document<Setup, Row> {
    /// Where it comes from.
    #[serde(flatten)]
    pub provenance: Provenance,
    /// What holds for all rows.
    #[serde(flatten)]
    pub setup: Setup,
    /// What was measured.
    pub rows: Vec<Row>,
}

/// Why a document could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentError {
    /// The file system refused.
    #[error("the result document {path} could not be {verb}")]
    File {
        /// Which file.
        path: PathBuf,
        /// `written` or `read`.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It is no result document of this kind.
    #[error("{path} is not a result document of the expected kind")]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
}

impl Provenance {
    /// Of a result that this machine begins to measure now. `commit` and `seed` are the caller's to know.
    pub fn now(commit: Option<String>, seed: Option<u64>) -> Provenance {
        let command: Vec<String> = std::env::args_os().map(|argument| quote(&argument.to_string_lossy())).collect();
        Provenance {
            command: command.join(" "),
            commit,
            seed,
            started: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            machine: Machine::here(),
        }
    }
}

/// An argument as a shell takes it.
fn quote(argument: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_./:=,@%+".contains(character);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

impl<Setup: Serialize, Row: Serialize> Document<Setup, Row> {
    /// Writes it as JSON for people to look into, with a line end at the end. A file is replaced as a whole: who reads
    /// it meanwhile finds the old one. What is no file, such as `/dev/stdout`, is written to.
    ///
    /// # Errors
    ///
    /// If the directory is not there or may not be written to.
    pub fn write(&self, path: &Path) -> Result<(), DocumentError> {
        let content = |source| DocumentError::Content { path: path.to_owned(), source };
        let mut text = serde_json::to_vec_pretty(self).map_err(content)?;
        text.push(b'\n');
        let file = |source| DocumentError::File { path: path.to_owned(), verb: "written", source };
        if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            return fs::write(path, text).map_err(file);
        }
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let replaced = fs::write(&partial, text).and_then(|()| fs::rename(&partial, path));
        replaced.map_err(|source| {
            // It may never have been there.
            let _ = fs::remove_file(&partial);
            file(source)
        })
    }
}

impl<Setup: DeserializeOwned, Row: DeserializeOwned> Document<Setup, Row> {
    /// Reads what [`write`](Self::write) wrote.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        let text =
            fs::read(path).map_err(|source| DocumentError::File { path: path.to_owned(), verb: "read", source })?;
        serde_json::from_slice(&text).map_err(|source| DocumentError::Content { path: path.to_owned(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Setup {
        rate: u32,
    }

    type Example = Document<Setup, (String, Option<f64>)>;

    fn example() -> Example {
        Document {
            provenance: Provenance::now(Some("abc".into()), Some(7)),
            setup: Setup { rate: 5 },
            rows: vec![("a".into(), Some(1.5)), ("b".into(), None)],
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("result.json");
        let example = example();
        fs::write(&path, "something older").expect("written");
        example.write(&path).expect("written");
        assert_eq!(Example::read(&path).expect("read"), example);
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn what_is_no_file_is_written_to_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sink");
        std::os::unix::fs::symlink("/dev/null", &path).expect("a link");
        example().write(&path).expect("written");
        assert!(fs::symlink_metadata(&path).expect("still there").is_symlink());
        let names: Vec<_> = fs::read_dir(directory.path()).expect("a directory").flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    #[test]
    fn what_cannot_be_replaced_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a-directory");
        fs::create_dir(&path).expect("made");
        example().write(&path).expect_err("a directory");
        assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1);
    }

    #[test]
    fn what_holds_for_all_stands_on_top_and_what_was_not_measured_is_null() {
        let json = serde_json::to_value(example()).expect("serialisable");
        assert_eq!((&json["commit"], &json["seed"], &json["rate"]), (&"abc".into(), &7.into(), &5.into()));
        assert!(json["machine"]["cores"].is_u64());
        assert!(json["rows"][1][1].is_null());
        let started = json["started"].as_str().expect("a date");
        assert!(humantime::parse_rfc3339(started).expect("a date") <= SystemTime::now());
    }

    #[test]
    fn what_cannot_be_written_or_read_is_told_with_its_path() {
        let directory = tempfile::tempdir().expect("a directory");
        let absent = directory.path().join("absent/result.json");
        let refusal = example().write(&absent).expect_err("no directory").to_string();
        assert!(refusal.contains("absent/result.json could not be written"), "{refusal}");
        let other = directory.path().join("other.json");
        fs::write(&other, "[1]").expect("written");
        let refusal = Example::read(&other).expect_err("another kind").to_string();
        assert!(refusal.contains("other.json is not a result document"), "{refusal}");
    }

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let quoted = ["demo", "--seconds", "it's", ""].map(quote).join(" ");
        assert_eq!(quoted, r"demo --seconds 'it'\''s' ''");
    }
}

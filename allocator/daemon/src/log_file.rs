//! The decision log on disk: lines of JSON in files that do not grow without limit.

use crate::{Entry, Player, Recipe, Recorded, Whole};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use tokio::io::AsyncWriteExt;
use vibra_model::{CustomerId, Snapshot, Timestamp, UsageWindow};

/// How large a decision log grows before a new one is begun, unless it is configured: 64 MiB.
pub const LOG_SIZE: u64 = 64 << 20;
/// How many older files are kept beside the newest.
pub const OLDER: u32 = 4;

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The decision.
    #[serde(flatten)]
    pub entry: Entry,
    /// What it was made from, where something was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recorded: Option<Recorded>,
}

/// The file with the age `age`: 0 is written to, 1 was before that, and so on.
pub fn aged(path: &Path, age: u32) -> PathBuf {
    if age == 0 { path.to_owned() } else { path.with_added_extension(age.to_string()) }
}

/// What a decision was made from.
pub(crate) struct Made<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) usage: &'a UsageWindow,
    /// Samples up to this time were not asked for.
    pub(crate) from: Timestamp,
    /// The policies' state before it, where [`LogFile::wants_state`] said so.
    pub(crate) state: Option<Value>,
}

/// Whose log it is.
#[derive(Debug, Clone)]
pub(crate) struct About {
    pub(crate) customer: CustomerId,
    pub(crate) recipe: Recipe,
}

/// Writes the log of one allocator.
pub(crate) struct LogFile {
    path: PathBuf,
    /// How large a file grows, in bytes.
    limit: u64,
    about: About,
    open: Option<Open>,
    recorder: Player,
}

struct Open {
    file: tokio::fs::File,
    written: u64,
}

impl LogFile {
    pub(crate) fn new(path: PathBuf, limit: u64, about: About) -> Self {
        LogFile { path, limit, about, open: None, recorder: Player::default() }
    }

    /// The number of the last decision that stands in it; 0 if none does.
    ///
    /// # Errors
    /// If there is a file that cannot be read.
    pub(crate) fn last_id(&self) -> io::Result<u64> {
        let mut last = 0;
        for age in [1, 0] {
            let file = match File::open(aged(&self.path, age)) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let mut file = BufReader::new(file);
            while let Some(beginning) = skim(&mut file)? {
                last = last.max(id_of(&beginning).unwrap_or(0));
            }
        }
        Ok(last)
    }

    /// Whether the next decision is recorded whole, with the state of the policies before it.
    pub(crate) fn wants_state(&self) -> bool {
        self.open.as_ref().is_none_or(|open| open.written >= self.limit)
    }

    /// Appends a decision.
    ///
    /// # Errors
    /// If it cannot be written. The next is then recorded whole.
    pub(crate) async fn write(&mut self, entry: &Entry, made: Option<Made<'_>>) -> io::Result<()> {
        if self.open.as_ref().is_some_and(|open| open.written >= self.limit) {
            self.open = None;
            rotate(&self.path)?;
        }
        let written = self.append(entry, made).await;
        if written.is_err() {
            self.open = None;
            self.recorder = Player::default();
        }
        written
    }

    async fn append(&mut self, entry: &Entry, made: Option<Made<'_>>) -> io::Result<()> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => open(&self.path).await?,
        };
        let line = self.line(entry, made)?;
        open.file.write_all(&line).await?;
        open.file.flush().await?;
        open.written += line.len() as u64;
        self.open = Some(open);
        Ok(())
    }

    /// The line, ended; without the inputs where they are too large.
    fn line(&mut self, entry: &Entry, made: Option<Made<'_>>) -> io::Result<Vec<u8>> {
        let recorded = made.map(|made| self.recorded(entry.id, made));
        let mut line = Line { entry: entry.clone(), recorded };
        let mut text = serde_json::to_vec(&line)?;
        if line.recorded.is_some() && text.len() as u64 > self.limit / 2 {
            self.recorder = Player::default();
            line.recorded = Some(Recorded::LeftOut { bytes: text.len() as u64 });
            text = serde_json::to_vec(&line)?;
        }
        text.push(b'\n');
        Ok(text)
    }

    fn recorded(&mut self, id: u64, made: Made<'_>) -> Recorded {
        let since = match &made.state {
            Some(_) => None,
            None => self.recorder.record(id, (made.snapshot, made.usage), made.from),
        };
        since.unwrap_or_else(|| {
            let whole = Recorded::Whole(Box::new(Whole {
                customer: self.about.customer.clone(),
                recipe: self.about.recipe.clone(),
                state: made.state,
                snapshot: made.snapshot.clone(),
                usage: made.usage.clone(),
            }));
            self.recorder.play(id, &whole);
            whole
        })
    }
}

/// Opens the file at its end; a line that was cut off there is ended.
async fn open(path: &Path) -> io::Result<Open> {
    let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await?;
    let written = file.metadata().await?.len();
    if !ended(path)? {
        file.write_all(b"\n").await?;
    }
    Ok(Open { file, written })
}

fn ended(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(true);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Makes each file one older; the oldest goes.
fn rotate(path: &Path) -> io::Result<()> {
    for age in (0..OLDER).rev() {
        match std::fs::rename(aged(path, age), aged(path, age + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The beginning of the next line; the rest of it is passed over.
fn skim(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut beginning = Vec::new();
    if file.take(32).read_until(b'\n', &mut beginning)? == 0 {
        return Ok(None);
    }
    if beginning.last() != Some(&b'\n') {
        file.skip_until(b'\n')?;
    }
    Ok(Some(beginning))
}

/// The number of the decision on a line that begins so.
fn id_of(beginning: &[u8]) -> Option<u64> {
    let digits: Vec<u8> = beginning.strip_prefix(b"{\"id\":")?.iter().copied().take_while(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

/// The lines of a log, oldest file first.
///
/// # Errors
/// If a file cannot be read; none is there at all.
pub fn read_log(path: &Path) -> io::Result<impl Iterator<Item = io::Result<Line>> + use<>> {
    let ages = (0..=OLDER).rev().map(|age| aged(path, age)).filter(|file| file.exists());
    let files = ages.map(File::open).collect::<Result<Vec<_>, _>>()?;
    if files.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no {}", path.display())));
    }
    let lines = files.into_iter().flat_map(|file| BufReader::new(file).split(b'\n'));
    Ok(lines.filter_map(|line| match line {
        // A line that was cut off when its allocator was killed says nothing; what follows it is recorded whole.
        Ok(line) => serde_json::from_slice(&line).ok().map(Ok),
        Err(error) => Some(Err(error)),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Inputs, Outcome, testing::*};
    use vibra_model::Plan;

    fn about() -> About {
        About { customer: id("shop"), recipe: Recipe::default() }
    }

    fn entry(id: u64) -> Entry {
        Entry {
            id,
            at: Timestamp(id),
            inputs: Inputs::default(),
            plan: Plan::default(),
            outcome: Outcome::Nothing,
            alarms: Vec::new(),
            shadows: Vec::new(),
        }
    }

    async fn write(log: &mut LogFile, id: u64) {
        let (snapshot, usage) = (directory().now(), usage(id, &[("hot", 5)]));
        let state = log.wants_state().then_some(Value::Null);
        let made = Made { snapshot: &snapshot, usage: &usage, from: Timestamp(id - 1), state };
        log.write(&entry(id), Some(made)).await.unwrap();
    }

    #[tokio::test]
    async fn files_are_bounded_in_size_and_number_and_each_begins_with_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let mut log = LogFile::new(path.clone(), 20_000, about());
        for id in 1..=2_000 {
            write(&mut log, id).await;
        }
        for age in 0..=OLDER {
            let file = aged(&path, age);
            assert!(file.metadata().unwrap().len() < 25_000);
            let first: Line =
                serde_json::from_str(std::fs::read_to_string(&file).unwrap().lines().next().unwrap()).unwrap();
            assert!(matches!(&first.recorded, Some(Recorded::Whole(_))), "{file:?}");
        }
        assert!(!aged(&path, OLDER + 1).exists());
        let lines: Vec<_> = read_log(&path).unwrap().map(Result::unwrap).collect();
        let ids: Vec<_> = lines.iter().map(|line| line.entry.id).collect();
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]) && ids.last() == Some(&2_000), "{ids:?}");
        let mut player = Player::default();
        assert!(lines.iter().all(|line| player.play(line.entry.id, line.recorded.as_ref().unwrap())));
        assert_eq!(player.usage, usage(2_000, &[("hot", 5)]));
    }

    #[tokio::test]
    async fn a_log_goes_on_where_it_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let mut log = LogFile::new(path.clone(), LOG_SIZE, about());
        for id in 1..=12 {
            write(&mut log, id).await;
        }
        let text = std::fs::read(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 20]).unwrap();
        let mut log = LogFile::new(path.clone(), LOG_SIZE, about());
        assert_eq!(log.last_id().unwrap(), 12);
        write(&mut log, 13).await;
        let lines: Vec<_> = read_log(&path).unwrap().map(Result::unwrap).collect();
        assert_eq!(lines.iter().map(|line| line.entry.id).collect::<Vec<_>>(), [(1..12).collect(), vec![13]].concat());
        assert!(matches!(lines.last().unwrap().recorded, Some(Recorded::Whole(_))));
    }

    #[tokio::test]
    async fn inputs_that_are_too_large_are_left_out_and_the_decision_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("decisions.jsonl");
        let mut log = LogFile::new(path.clone(), 1_000, about());
        write(&mut log, 1).await;
        let line = read_log(&path).unwrap().next().unwrap().unwrap();
        assert!(matches!(line.recorded, Some(Recorded::LeftOut { bytes }) if bytes > 500), "{line:?}");
    }

    #[test]
    fn a_log_that_is_not_there_is_named() {
        let error = read_log(Path::new("/no/such/log")).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("/no/such/log"));
        assert_eq!(LogFile::new("/no/such/log".into(), 1, about()).last_id().unwrap(), 0);
    }
}

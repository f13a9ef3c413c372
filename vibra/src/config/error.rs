//! What is wrong in a configuration, where, and what to do.

use std::{fmt, ops::Range, path::Path};
use toml::de::{DeTable, DeValue};

/// A fault at a place in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigError {
    /// File, line and column, such as `vibra.toml:3:9`; lines and columns count from 1.
    pub(crate) place: String,
    /// What is wrong.
    pub(crate) message: String,
    /// The line with a mark below the place.
    excerpt: String,
    /// What to do.
    pub(crate) hint: Option<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        if !self.excerpt.is_empty() {
            write!(f, "\n{}", self.excerpt)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

/// A configuration text, to name places in it.
pub(super) struct Source<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Source<'_> {
    /// A fault at `span` (byte offsets).
    pub(super) fn fault(&self, span: Range<usize>, message: impl Into<String>, hint: Option<String>) -> ConfigError {
        let before = &self.text[..span.start.min(self.text.len())];
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before[start..].chars().count() + 1;
        let content = self.text[start..].lines().next().unwrap_or("");
        let width = self.text.get(span.clone()).map_or(1, |marked| marked.lines().next().unwrap_or("").chars().count());
        let gutter = line.to_string();
        // A line may be longer than the widest field of a format.
        let [pad, skip, mark] = [(" ", gutter.len()), (" ", column - 1), ("^", width.max(1))].map(|(c, n)| c.repeat(n));
        let excerpt = format!("  {gutter} | {content}\n  {pad} | {skip}{mark}");
        ConfigError {
            place: format!("{}:{line}:{column}", self.path.display()),
            message: message.into(),
            excerpt,
            hint,
        }
    }

    /// Where the value of a key stands, such as `dispatcher.limits.buffer`; where it is left out, the table that it
    /// belongs in.
    pub(super) fn place(&self, key: &str) -> Range<usize> {
        let Ok(root) = DeTable::parse(self.text) else { return 0..0 };
        let (mut span, mut table) = (0..0, root.get_ref());
        for part in key.split('.') {
            let Some(value) = table.get(part) else { break };
            span = value.span();
            let DeValue::Table(inner) = value.get_ref() else { break };
            table = inner;
        }
        span
    }

    /// A fault that the TOML reader found.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().to_owned();
        let hint = unknown_key(&message);
        self.fault(span, message, hint)
    }
}

/// For "unknown field `a`, expected one of `b`, `c`" the nearest of those expected.
fn unknown_key(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let wrong = quoted.next()?;
    let score = |known: &&str| (strsim::jaro_winkler(wrong, known) * 1000.0) as u64;
    let nearest = quoted.max_by_key(score).filter(|known| score(known) > 700)?;
    Some(format!("did you mean `{nearest}`?"))
}

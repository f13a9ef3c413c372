//! Progress bars. They show on a terminal alone, on standard error.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over requests.
pub(crate) fn requests(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {human_pos}/{human_len} requests, {elapsed} gone, {eta} left {msg}")
}

/// A bar over steps, each with its name.
pub(crate) fn steps(total: u64) -> ProgressBar {
    bar(total, "{bar:40} {pos}/{len} {elapsed} gone, {msg}")
}

fn bar(total: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

//! The directory: as a service, and as its client.

use crate::config;
use anyhow::{Context, bail};
use std::{path::Path, sync::Arc};
use vibra_client::{Directory, HttpDirectory};

/// A client of the directory that `config` names, with the token that is this process's own.
///
/// # Errors
/// If there is no token, or the address makes no sense.
pub(crate) fn client(config: &config::Directory) -> anyhow::Result<Arc<dyn Directory>> {
    let token = match (&config.token_file, operator_file(config)) {
        (Some(file), _) => read_token(file)?,
        (None, Some(file)) => read_token(&file)?,
        (None, None) => bail!("[directory] names no token_file, and a store in memory keeps none"),
    };
    let client = HttpDirectory::new(&config.authority, &token).context("the directory's address")?;
    Ok(Arc::new(client))
}

/// Where the operator's token is that the directory makes when it first starts.
fn operator_file(config: &config::Directory) -> Option<std::path::PathBuf> {
    let mut name = config.path.clone()?.into_os_string();
    name.push(".token");
    Some(name.into())
}

/// The secret in `file`: its text without the line end.
fn read_token(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading the token in {}", file.display()))?;
    let token = text.trim();
    if token.is_empty() {
        bail!("{} holds no token", file.display());
    }
    Ok(token.to_owned())
}

//! The directory: as a service, and as its client.

use crate::config;
use anyhow::{Context, bail};
use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};
use vibra_client::{Directory, HttpDirectory};
use vibra_model::{Command, Customer, Role};
use vibra_server::{Config, Handle, Server, Tokens};
use vibra_store::{MemoryStore, RedbStore, Store};

/// Bytes of randomness in a token that is made here.
const TOKEN_BYTES: usize = 32;

/// Starts the service on tasks of the current runtime and says so on standard error.
///
/// # Errors
/// If it is not to run here, its store or tokens cannot be read, or it cannot listen.
pub(crate) async fn start(config: &config::Directory) -> anyhow::Result<Handle> {
    let Some(listen) = config.listen else {
        bail!("[directory] has no listen: it runs elsewhere, at {}", config.authority)
    };
    let store: Arc<dyn Store> = match &config.path {
        Some(path) => Arc::new(RedbStore::open(path).with_context(|| format!("opening {}", path.display()))?),
        None => Arc::new(MemoryStore::new()),
    };
    let mut settings = Config::new(listen, store, tokens(config)?);
    settings.silence = config.silence.unwrap_or(settings.silence);
    let handle = Server::start(settings).await?;
    eprintln!("directory: http://{}/v1", handle.address());
    Ok(handle)
}

/// A client of the directory that `config` names, with this process's own token.
///
/// # Errors
/// If there is no token, or the address makes no sense.
pub(crate) fn client(config: &config::Directory) -> anyhow::Result<Arc<dyn Directory>> {
    client_at(config, &config.authority)
}

/// As [`client`], of a directory at `authority`, `host:port`.
///
/// # Errors
/// As there.
pub(crate) fn client_at(config: &config::Directory, authority: &str) -> anyhow::Result<Arc<dyn Directory>> {
    let token = read_token(&config.token_file)?;
    let client = HttpDirectory::new(authority, &token).context("the directory's address")?;
    Ok(Arc::new(client))
}

/// Registers the configuration's customers.
///
/// # Errors
/// If the directory cannot be reached, or refuses one.
pub(crate) async fn register(directory: &dyn Directory, customers: &[Customer]) -> anyhow::Result<()> {
    for customer in customers {
        let registered = directory.command(Command::PutCustomer(customer.clone())).await;
        registered.with_context(|| format!("registering customer {}", customer.id))?;
    }
    Ok(())
}

/// Whose token is which: those of the configuration, else one for an operator, made at the first start.
fn tokens(config: &config::Directory) -> anyhow::Result<Tokens> {
    let mut tokens = Tokens::new();
    if config.tokens.is_empty() {
        if !config.token_file.exists() {
            make_token(&config.token_file)?;
            eprintln!("directory: made an operator's token, {}", config.token_file.display());
        }
        tokens.insert(&read_token(&config.token_file)?, Role::Operator)?;
    }
    for (role, file) in &config.tokens {
        let token = read_token(file)?;
        tokens.insert(&token, role.clone()).with_context(|| format!("the token in {}", file.display()))?;
    }
    Ok(tokens)
}

/// A new secret that nobody can guess.
///
/// # Errors
/// If the machine gives no random bytes.
pub(crate) fn random_secret() -> anyhow::Result<String> {
    let mut random = [0; TOKEN_BYTES];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .context("reading /dev/urandom")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes a new random token that its owner alone can read.
fn make_token(file: &Path) -> anyhow::Result<()> {
    let text = random_secret()?;
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let written = opened.and_then(|mut file| writeln!(file, "{text}"));
    written.with_context(|| format!("writing the token to {}", file.display()))
}

/// The secret in `file`: its text without the line end.
fn read_token(file: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("reading the token in {}", file.display()))?;
    let token = text.trim();
    if token.is_empty() {
        bail!("{} holds no token", file.display());
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_made_token_is_its_owners_alone_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        make_token(&file).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(read_token(&file).unwrap().len(), 2 * TOKEN_BYTES);
        assert!(make_token(&file).is_err());
        fs::write(&file, "\n").unwrap();
        assert!(read_token(&file).unwrap_err().to_string().contains("holds no token"));
    }
}

//! `vibra dispatcher`: the dispatcher alone, from a file or from the command line.

use crate::{
    cli,
    config::{self, Config, Runs, Server, Source},
    exit::{Failure, Outcome},
    parts::{
        self,
        dispatcher::{Again, Upgrades},
        signals::Signals,
    },
};
use anyhow::{anyhow, bail};
use std::{collections::BTreeSet, path::Path, sync::Arc};
use vibra_client::Directory;
use vibra_proxy::{Authorities, BackTls, CertificateFiles, FrontTls, Limits, Manner, Peers, Timeouts};
use vibra_routing::Settings;

/// Runs until it is asked to end.
pub(crate) fn run(args: &cli::Dispatcher) -> Outcome {
    let (dispatcher, directory, again) = match &args.config {
        Some(path) => from_file(path)?,
        None => (from_arguments(args).map_err(Failure::Usage)?, None, None),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let handle = parts::dispatcher::start(&dispatcher, directory, again)?;
        Ok(parts::dispatcher::keep(handle, &mut signals, Upgrades::Possible).await?)
    })
}

/// What a dispatcher is started from.
type Started = (config::Dispatcher, Option<Arc<dyn Directory>>, Option<Again>);

fn from_file(path: &Path) -> Result<Started, Failure> {
    let config = Config::load(path).map_err(Failure::Usage)?;
    let missing = || Failure::Usage(anyhow!("{} has no [dispatcher]", path.display()));
    let dispatcher = config.dispatcher.clone().ok_or_else(missing)?;
    let directory = config.directory.as_ref().map(parts::directory::client).transpose()?;
    let path = path.to_owned();
    let again: Again = Box::new(move || config.dispatcher_again(&path, Runs::Dispatcher));
    Ok((dispatcher, directory, Some(again)))
}

/// What the command line says, with the same checks as a file has.
fn from_arguments(args: &cli::Dispatcher) -> anyhow::Result<config::Dispatcher> {
    let servers: Vec<Server> = (1..).zip(&args.servers).map(|(i, text)| server(i, text)).collect::<Result<_, _>>()?;
    let mut names = BTreeSet::new();
    if let Some(twice) = servers.iter().find(|server| !names.insert(&server.name)) {
        bail!("--server: a second server named {}", twice.name);
    }
    let replicas = args.replicas.unwrap_or_else(|| servers.len().min(2));
    if !(1..=servers.len()).contains(&replicas) {
        bail!("--replicas {replicas}: R is at least 1 and at most the number of servers, {}", servers.len());
    }
    if args.threads == Some(0) {
        bail!("--threads 0 serve nothing: leave it out for one a core");
    }
    let settings =
        Settings { algorithm: args.algorithm.parse()?, hash: args.hash.parse()?, replicas, ..Settings::default() };
    let tls = args.tls_cert.as_ref().map(|chain| FrontTls {
        certificates: vec![CertificateFiles {
            chain: chain.clone(),
            key: args.tls_key.as_ref().unwrap_or(chain).clone(),
        }],
        ..FrontTls::default()
    });
    let authorities = args.server_ca.clone().map_or(Authorities::System, Authorities::File);
    let by_tls = servers.iter().any(|server| server.address.starts_with("https://"));
    Ok(config::Dispatcher {
        listen: args.listen.ok_or_else(|| anyhow!("--listen is missing"))?,
        admin: args.admin,
        settings,
        threads: args.threads.unwrap_or_else(config::default_threads),
        http2: true,
        source: Source::Static(servers),
        access_log: args
            .access_log
            .as_ref()
            .map(|path| config::access_log(path, args.access_log_format, Path::to_owned)),
        trace: None,
        health_path: None,
        peers: Peers::default(),
        drain_timeout: None,
        slow_start: None,
        limits: Limits::default(),
        timeouts: Timeouts::default(),
        manner: Manner::default(),
        tls,
        server_tls: by_tls.then(|| BackTls { authorities, ..BackTls::default() }),
    })
}

/// `host:port`, which is then called `server-I`, or `NAME=host:port`; either with `https://` before the host.
fn server(i: usize, text: &str) -> anyhow::Result<Server> {
    let (name, address) = match text.split_once('=') {
        Some((name, address)) => (name.to_owned(), address),
        None => (format!("server-{i}"), text),
    };
    let address = address.strip_prefix("http://").unwrap_or(address).trim_end_matches('/');
    config::check_server(address).map_err(|hint| anyhow!("--server {text}: {hint}"))?;
    let name = name.parse().map_err(|e| anyhow!("--server {text}: {e}"))?;
    Ok(Server { name, address: address.to_owned(), weight: 1, manner: Manner::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use vibra_proxy::log::{Format, Target};

    fn parsed(line: &str) -> anyhow::Result<config::Dispatcher> {
        let cli::Command::Dispatcher(args) = cli::Cli::try_parse_from(line.split(' '))?.command else {
            panic!("not the dispatcher")
        };
        from_arguments(&args)
    }

    #[test]
    fn addresses_are_enough() {
        let config =
            parsed("vibra dispatcher --listen 127.0.0.1:0 --server 127.0.0.1:81 --server b=http://h:82/").unwrap();
        let Source::Static(servers) = config.source else { panic!("not static") };
        let named: Vec<_> = servers.iter().map(|s| (s.name.as_str(), s.address.as_str())).collect();
        assert_eq!(named, [("server-1", "127.0.0.1:81"), ("b", "h:82")]);
        assert_eq!(config.settings.replicas, 2);
        assert_eq!(config.access_log, None);
    }

    #[test]
    fn requests_are_logged_where_the_command_line_says() {
        let with = |rest: &str| parsed(&format!("vibra dispatcher --listen 127.0.0.1:0 --server a:1 {rest}"));
        let log = |rest: &str| with(rest).unwrap().access_log.unwrap();
        assert_eq!(log("--access-log a.log").target, Target::File("a.log".into()));
        assert_eq!(log("--access-log a.log").format, Format::Combined);
        assert_eq!(log("--access-log - --access-log-format json").target, Target::Stdout);
        assert_eq!(log("--access-log - --access-log-format json").format, Format::Json);
        assert!(with("--access-log-format json").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let with =
            |rest: &str| parsed(&format!("vibra dispatcher --listen 127.0.0.1:0 {rest}")).unwrap_err().to_string();
        assert!(with("--server a:1 --replicas 2").contains("at most the number of servers, 1"));
        assert!(with("--server a:1 --replicas 0").contains("at least 1"));
        assert!(with("--server x=a:1 --server x=b:1").contains("second server named x"));
        assert!(with("--server a").contains("host:port"));
        assert!(with("--server a:1 --algorithm best").contains("url-hash"));
        let none = parsed("vibra dispatcher --listen 127.0.0.1:0").unwrap_err().to_string();
        assert!(none.contains("--server"), "{none}");
    }
}

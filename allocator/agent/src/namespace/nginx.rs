//! A VM's server process: nginx, run in the VM's namespace and control group.

use super::times::{Times, Told};
use crate::host::{
    docroot::SUFFIX,
    process::{Exit, contained, signal},
};
use rustix::process::Signal;
use std::{
    fs::{self, File},
    io,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Child,
    time::{sleep, timeout},
};

/// How long the server may take to answer for the first time.
const STARTING: Duration = Duration::from_secs(10);
/// How long it may take to end before it is killed.
const ENDING: Duration = Duration::from_secs(3);
/// How long it may take to tell its status.
const TELLING: Duration = Duration::from_millis(500);

/// Where and what to serve.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) address: Ipv4Addr,
    pub(super) objects: PathBuf,
    /// For configuration, logs, sockets and temporary files; made anew at each start.
    pub(super) directory: PathBuf,
}

impl Site {
    fn status_socket(&self) -> PathBuf {
        self.directory.join("status")
    }

    fn times_socket(&self) -> PathBuf {
        self.directory.join("times")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("error.log")
    }

    fn config(&self) -> String {
        let (directory, objects, address) = (self.directory.display(), self.objects.display(), self.address);
        let temp = |kind: &str| format!("    {kind}_temp_path {directory}/{kind};\n");
        let temps: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(temp).concat();
        // The workers stay root: they serve generated files only, which may lie where nobody else may look. Threads
        // read from disk, so that an object that has to be read does not keep those in memory waiting. sendfile would
        // lend pages of the page cache to sockets, which the kernel gives back late, even after the server's end: until
        // then nothing can take them from the cache, and the next start is not cold. That a time could not be told is
        // a warning, one for each request: the log is for errors.
        format!(
            "daemon off;\nuser root;\nworker_processes 1;\nworker_rlimit_nofile 16384;\n\
             pid {directory}/pid;\nerror_log {log} error;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n{temps}    log_format time $request_time;\n    \
             access_log syslog:server=unix:{times},nohostname,tag=vibra time;\n    server_tokens off;\n    default_type application/octet-stream;\n    \
             sendfile off;\n    aio threads;\n    tcp_nodelay on;\n    if_modified_since before;\n    \
             keepalive_timeout 3600s;\n    keepalive_requests 1000000;\n    \
             server {{\n        listen {address}:80 backlog=4096;\n        root {objects};\n        \
             location / {{ try_files $uri{SUFFIX} =404; }}\n    }}\n    \
             server {{\n        listen unix:{status};\n        access_log off;\n        location / {{ stub_status; }}\n    }}\n}}\n",
            log = self.log().display(),
            times = self.times_socket().display(),
            status = self.status_socket().display(),
        )
    }
}

/// nginx's own counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    /// Requests since its start.
    pub(super) requests: u64,
    /// Requests being read or answered.
    pub(super) in_flight: u64,
}

/// A server that runs. Dropped, it is told to end.
#[derive(Debug)]
pub(super) struct Server {
    site: Site,
    child: Child,
    times: Times,
    exit: Exit,
}

impl Server {
    /// Starts it in `namespace` and in the control groups with these `groups` directories, and waits until it answers.
    pub(super) async fn start(site: Site, namespace: &str, groups: &[PathBuf]) -> io::Result<Server> {
        if site.directory.exists() {
            fs::remove_dir_all(&site.directory)?;
        }
        fs::create_dir_all(&site.directory)?;
        let config = site.directory.join("nginx.conf");
        fs::write(&config, site.config())?;
        let log = File::create(site.log())?;
        let times = Times::listen(&site.times_socket())?;
        let mut command = contained("nginx", namespace, groups);
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn()?;
        let mut server = Server { exit: Exit::of(&child)?, child, site, times };
        match timeout(STARTING, server.answers()).await {
            Ok(Ok(())) => Ok(server),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, server.said("nginx does not answer"))),
        }
    }

    /// Waits for the first answer, or for the end.
    async fn answers(&mut self) -> io::Result<()> {
        while self.status().await.is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(self.said(&format!("nginx ended ({status})"))));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// `what`, and the end of the error log.
    fn said(&self, what: &str) -> String {
        let log = fs::read_to_string(self.site.log()).unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(3).collect();
        format!("{what}: {}", last.into_iter().rev().collect::<Vec<_>>().join("; "))
    }

    /// Whether it runs.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Its end.
    pub(super) fn exit(&self) -> Exit {
        self.exit.clone()
    }

    /// Where to ask for its status.
    pub(super) fn status_socket(&self) -> PathBuf {
        self.site.status_socket()
    }

    /// How long its requests took, as far as it was told.
    pub(super) fn told(&self) -> Told {
        self.times.told()
    }

    async fn status(&self) -> io::Result<Status> {
        status(&self.status_socket()).await
    }

    /// Ends it at once, with its connections, and waits for its end.
    pub(super) async fn stop(mut self) -> io::Result<()> {
        signal(&self.child, Signal::TERM)?;
        if timeout(ENDING, self.child.wait()).await.is_err() {
            self.child.kill().await?;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The master process hands the end on to its workers.
        if let Err(error) = signal(&self.child, Signal::TERM) {
            tracing::warn!(%error, "nginx could not be told to end");
        }
    }
}

/// Asks the server behind `socket` for its counters. The asking is not counted.
pub(super) async fn status(socket: &Path) -> io::Result<Status> {
    let ask = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let silent = |_| io::Error::new(io::ErrorKind::TimedOut, "nginx does not tell its status");
    let answer = timeout(TELLING, ask).await.map_err(silent)??;
    parse_status(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{answer:?} is no status")))
}

/// Reads what `stub_status` prints: "accepts handled requests" counts, then what connections are doing.
fn parse_status(text: &str) -> Option<Status> {
    let (_, counts) = text.split_once("requests\n")?;
    let requests = counts.split_whitespace().nth(2)?.parse().ok()?;
    let doing = |what| text.split_once(what)?.1.split_whitespace().next()?.parse::<u64>().ok();
    // The asking itself is being answered.
    let in_flight = (doing("Reading:")? + doing("Writing:")?).saturating_sub(1);
    Some(Status { requests, in_flight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_is_understood() {
        let page = "HTTP/1.1 200 OK\r\n\r\nActive connections: 9 \nserver accepts handled requests\n 20 20 45 \n\
                    Reading: 1 Writing: 3 Waiting: 5 \n";
        assert_eq!(parse_status(page), Some(Status { requests: 45, in_flight: 3 }));
        assert_eq!(parse_status("HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }

    #[test]
    fn the_configuration_stays_within_its_directory() {
        let site = Site {
            address: Ipv4Addr::new(10, 177, 0, 130),
            objects: "/objects".into(),
            directory: "/run/vibra/r0/vm0".into(),
        };
        let config = site.config();
        assert!(config.contains("listen 10.177.0.130:80 "), "{config}");
        assert!(config.contains("try_files $uri.obj =404;"), "{config}");
        for line in config.lines().filter(|line| line.contains("_path") || line.contains("pid")) {
            assert!(line.contains("/run/vibra/r0/vm0/"), "{line}");
        }
    }
}

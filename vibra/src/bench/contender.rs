//! The contenders: this dispatcher, HAProxy and nginx, each with one thread, two servers, hashing of URLs, and keep-alive on
//! both sides.
//!
//! This dispatcher has switched on what it has in production. The peers are configured as their own guides say for
//! speed: without access log and metrics, nginx also without health checks.

use super::{
    http1,
    origin::{self, Origin, SMALL},
    process::{PROXY_CORE, Server, free_address},
    tools,
};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// How long a proxy may take until it serves: its servers' health, or the directory, comes first.
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    Vibra,
    HaProxy,
    Nginx,
}

/// A certificate of the peers and of this dispatcher, and its key.
pub(super) struct Certificate {
    /// The certificate.
    pub(super) chain: PathBuf,
    /// Its private key.
    pub(super) key: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub(super) both: PathBuf,
}

/// Where a contender serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listen {
    /// HTTP/1.1 without TLS.
    pub(super) plain: SocketAddr,
    /// HTTP/1.1 and HTTP/2 over TLS.
    pub(super) tls: SocketAddr,
}

/// A contender that runs.
pub(super) struct Running {
    pub(super) server: Server,
    pub(super) listen: Listen,
    /// Its configuration file's text.
    pub(super) configuration: String,
    /// Its access log, if it writes one.
    log: Option<PathBuf>,
}

impl Contender {
    /// This dispatcher, which is judged, and then its peers.
    pub(super) const ALL: [Contender; 3] = [Contender::Vibra, Contender::HaProxy, Contender::Nginx];

    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Vibra => "vibra",
            Contender::HaProxy => "haproxy",
            Contender::Nginx => "nginx",
        }
    }

    /// Its version line.
    pub(super) fn version(self) -> String {
        match self {
            Contender::Vibra => format!("vibra {}", env!("CARGO_PKG_VERSION")),
            Contender::HaProxy => tools::first_line("haproxy", "-v"),
            Contender::Nginx => tools::first_line("nginx", "-v"),
        }
    }

    /// Starts it in front of the origin's usual servers; its files go to `folder`.
    pub(super) fn start(self, folder: &Path, origin: &Origin, certificate: &Certificate) -> anyhow::Result<Running> {
        let servers = origin.servers();
        let (plain, tls) = (free_address(Ipv4Addr::LOCALHOST)?, free_address(Ipv4Addr::LOCALHOST)?);
        let (command, configuration) = match self {
            Contender::Vibra => return vibra(folder, self.name(), &static_servers(servers), certificate),
            Contender::HaProxy => haproxy(folder, [plain, tls], servers, certificate)?,
            Contender::Nginx => nginx_proxy(folder, [plain, tls], servers, certificate)?,
        };
        let listen = Listen { plain, tls };
        Running::start(self.name(), folder, &command, listen, configuration)
    }
}

impl Running {
    /// Starts a proxy, and waits until it has an answer to a request.
    fn start(
        name: &str,
        folder: &Path,
        command: &Command,
        listen: Listen,
        configuration: String,
    ) -> anyhow::Result<Self> {
        let server = Server::start(name, PROXY_CORE, command, listen.plain, folder)?;
        let deadline = Instant::now() + PATIENCE;
        let answer = || http1::exchange(&mut TcpStream::connect(listen.plain)?, &origin::path(SMALL, 0));
        while let Err(error) = answer() {
            if Instant::now() > deadline {
                return Err(error.context(format!("{name} does not serve after {PATIENCE:?}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Running { server, listen, configuration, log: None })
    }

    /// Removes what its access log has by now, which would fill the disk; it goes on with a new file.
    pub(super) fn rotate_log(&self) {
        if let Some(log) = &self.log {
            // It may not be there yet.
            let _ = fs::remove_file(log);
        }
    }
}

/// Starts this dispatcher. `source` says in its configuration file where servers come from; it begins in `[dispatcher]`.
pub(super) fn vibra(folder: &Path, name: &str, source: &str, certificate: &Certificate) -> anyhow::Result<Running> {
    let [plain, tls, admin] = [(); 3].map(|()| free_address(Ipv4Addr::LOCALHOST));
    let (listen, admin) = (Listen { plain: plain?, tls: tls? }, admin?);
    let log = folder.join(format!("{name}.log"));
    let configuration = format!(
        "[dispatcher]\nlisten = \"{}\"\nadmin = \"{admin}\"\nthreads = 1\nalgorithm = \"url-hash\"\nreplicas = 2\n\
         access_log = {{ path = \"{}\" }}\n{source}\
         [dispatcher.tls]\nlisten = \"{}\"\n[[dispatcher.tls.certificate]]\nchain = \"{}\"\nkey = \"{}\"\n",
        listen.plain,
        log.display(),
        listen.tls,
        certificate.chain.display(),
        certificate.key.display()
    );
    let file = folder.join(format!("{name}.toml"));
    fs::write(&file, &configuration)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["dispatcher", "-c"]).arg(file);
    let running = Running::start(name, folder, &command, listen, configuration)?;
    Ok(Running { log: Some(log), ..running })
}

/// A fixed list of servers for [`vibra`].
pub(super) fn static_servers(addresses: &[SocketAddr]) -> String {
    let server = |(k, address)| format!("[[server]]\nname = \"s{k}\"\naddress = \"{address}\"\n");
    (1..).zip(addresses).map(server).collect()
}

fn haproxy(
    folder: &Path,
    [plain, tls]: [SocketAddr; 2],
    servers: &[SocketAddr],
    certificate: &Certificate,
) -> anyhow::Result<(Command, String)> {
    let server = |(k, address)| format!("  server s{k} {address} check\n");
    let servers: String = (1..).zip(servers).map(server).collect();
    let configuration = format!(
        "global\n  nbthread 1\n  maxconn 8192\n  tune.bufsize 32768\n  ssl-default-bind-options ssl-min-ver TLSv1.2\n\
         defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n\
         \x20 timeout connect 5s\n  timeout client 75s\n  timeout server 60s\n\
         frontend f\n  bind {plain}\n  bind {tls} ssl crt {} alpn h2,http/1.1\n  default_backend b\n\
         backend b\n  balance uri\n{servers}",
        certificate.both.display()
    );
    let file = folder.join("haproxy.cfg");
    fs::write(&file, &configuration)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Ok((command, configuration))
}

fn nginx_proxy(
    folder: &Path,
    [plain, tls]: [SocketAddr; 2],
    servers: &[SocketAddr],
    certificate: &Certificate,
) -> anyhow::Result<(Command, String)> {
    let servers: String = servers.iter().map(|address| format!("server {address}; ")).collect();
    let (chain, key) = (certificate.chain.display(), certificate.key.display());
    let http = format!(
        "upstream origin {{ hash $request_uri; {servers}keepalive 128; keepalive_requests 1000000000; }}\n\
         ssl_certificate {chain}; ssl_certificate_key {key};\n\
         ssl_protocols TLSv1.2 TLSv1.3; ssl_session_cache shared:tls:10m;\n\
         server {{ listen {plain}; listen {tls} ssl http2;\n\
         location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
         proxy_buffers 16 32k; proxy_buffer_size 32k; proxy_max_temp_file_size 0; }} }}"
    );
    nginx(&folder.join("nginx"), &http)
}

/// One nginx worker with this `http` section and everything it writes below `folder`: its command and its configuration.
pub(super) fn nginx(folder: &Path, http: &str) -> anyhow::Result<(Command, String)> {
    fs::create_dir_all(folder)?;
    let root = folder.display();
    let configuration = format!(
        "user root; worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;\n\
         events {{ worker_connections 8192; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 75s;\n\
         client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
         uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n{http}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, &configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(file).arg("-e").arg(folder.join("error.log"));
    Ok((command, configuration))
}

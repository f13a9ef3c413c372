//! The contenders: this dispatcher, HAProxy and nginx, each with one thread, keep-alive on both sides and no access log.
//! The peers are configured as their own guides say for that.

use super::process::{Server, free_address};
use std::{fs, net::SocketAddr, path::Path, process::Command};

/// The core that the proxy under test has for itself; the servers and the load generator share the other one.
pub(super) const PROXY_CORE: usize = 0;
/// The core of everything else.
pub(super) const OTHER_CORE: usize = 1;

/// A proxy under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Contender {
    Vibra,
    HaProxy,
    Nginx,
}

impl Contender {
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
        let (program, flag) = match self {
            Contender::Vibra => return format!("vibra {}", env!("CARGO_PKG_VERSION")),
            Contender::HaProxy => ("haproxy", "-v"),
            Contender::Nginx => ("nginx", "-v"),
        };
        let Ok(output) = Command::new(program).arg(flag).output() else { return format!("{program}: not installed") };
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).lines().next().unwrap_or(program).to_owned()
    }

    /// Starts it in front of `origin`; its files go to `folder`.
    pub(super) fn start(self, folder: &Path, origin: SocketAddr) -> anyhow::Result<Server> {
        let address = free_address()?;
        let command = match self {
            Contender::Vibra => vibra(address, origin)?,
            Contender::HaProxy => haproxy(folder, address, origin)?,
            Contender::Nginx => nginx_proxy(folder, address, origin)?,
        };
        Server::start(self.name(), PROXY_CORE, command, address)
    }
}

fn vibra(address: SocketAddr, origin: SocketAddr) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["dispatcher", "--threads", "1", "--algorithm", "url-hash"]);
    command.args(["--listen", &address.to_string(), "--server", &origin.to_string()]);
    Ok(command)
}

fn haproxy(folder: &Path, address: SocketAddr, origin: SocketAddr) -> anyhow::Result<Command> {
    let file = folder.join("haproxy.cfg");
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n  tune.bufsize 32768\n\
         defaults\n  mode http\n  option http-keep-alive\n  http-reuse always\n\
         \x20 timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend f\n  bind {address}\n  default_backend b\n\
         backend b\n  balance uri\n  server origin {origin} check\n"
    );
    fs::write(&file, text)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(file);
    Ok(command)
}

fn nginx_proxy(folder: &Path, address: SocketAddr, origin: SocketAddr) -> anyhow::Result<Command> {
    let http = format!(
        "upstream origin {{ server {origin}; keepalive 128; keepalive_requests 1000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://origin; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_buffers 16 32k; proxy_buffer_size 32k; }} }}"
    );
    nginx(&folder.join("proxy"), &http)
}

/// The origin: nginx that serves the files in `root`.
pub(super) fn origin(folder: &Path, root: &Path) -> anyhow::Result<Server> {
    let address = free_address()?;
    let http = format!("server {{ listen {address}; root {}; }}", root.display());
    Server::start("nginx", OTHER_CORE, nginx(&folder.join("origin"), &http)?, address)
}

/// One nginx worker with everything it writes below `folder`.
fn nginx(folder: &Path, http: &str) -> anyhow::Result<Command> {
    fs::create_dir_all(folder)?;
    let root = folder.display();
    let text = format!(
        "user root; worker_processes 1; daemon off; pid {root}/pid; error_log {root}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; keepalive_timeout 75s;\n\
         client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/fastcgi;\n\
         uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n{http}\n}}\n"
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(file).arg("-e").arg(folder.join("error.log"));
    Ok(command)
}

//! A dispatcher as a process, and those that take over from it.

use super::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A dispatcher with a file.
pub(crate) struct Dispatcher {
    pub(crate) folder: Folder,
    pub(crate) process: Running,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
}

/// Its file: these servers, each URL at one, and `more` of `[dispatcher]`.
pub(crate) fn configuration(servers: &[(&str, SocketAddr)], more: &str) -> String {
    let server =
        |(name, address): &(&str, SocketAddr)| format!("[[server]]\nname = \"{name}\"\naddress = \"{address}\"\n");
    let servers: String = servers.iter().map(server).collect();
    format!("[dispatcher]\nlisten = \"127.0.0.1:0\"\nadmin = 0\nreplicas = 1\nhash = \"charsum\"\n{more}\n{servers}")
}

impl Dispatcher {
    pub(crate) fn start(servers: &[(&str, SocketAddr)]) -> Dispatcher {
        Self::start_with(servers, "")
    }

    pub(crate) fn start_with(servers: &[(&str, SocketAddr)], more: &str) -> Dispatcher {
        let folder = Folder::new();
        folder.write("vibra.toml", configuration(servers, more));
        let process = Running::start(&folder, &["dispatcher", "-c", "vibra.toml"]);
        let scheme = if more.contains("[dispatcher.tls]") { "https" } else { "http" };
        let address = process.address(&format!("dispatcher: {scheme}://"));
        let admin = process.address("dispatcher: admin at http://");
        Dispatcher { folder, process, address, admin }
    }

    /// Who serves some URLs, each once.
    pub(crate) fn answering(&self) -> Vec<String> {
        let answer = |i| get(self.address, &format!("/{i}")).expect("an answer").text();
        let mut names: Vec<_> = (0..8).map(answer).collect();
        names.sort();
        names.dedup();
        names
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> Response {
        request(self.admin, "POST", path, "content-type: application/json\r\n", body.as_bytes()).expect("an answer")
    }
}

/// A process that was started by another one; ended in any case.
pub(crate) struct Successor(Pid);

impl Successor {
    /// Waits until the process that serves operators is another one than `old`.
    pub(crate) fn of(old: Pid, admin: SocketAddr) -> Successor {
        let status = wait_for_status(admin, "another process", |status| number(status) != old);
        Successor(number(&status))
    }

    pub(crate) fn upgrade(&self) {
        kill_process(self.0, Signal::USR2).expect("it runs");
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        kill_process(self.0, Signal::TERM).expect("it runs");
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&self) {
        kill_process(self.0, Signal::KILL).expect("it runs");
    }

    /// Its number.
    pub(crate) fn number(&self) -> Pid {
        self.0
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// The number of the process that has given this answer.
pub(crate) fn number(status: &Value) -> Pid {
    Pid::from_raw(status["process"].as_i64().expect("a number") as i32).expect("a process has a number")
}

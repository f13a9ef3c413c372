//! What the guest's kernel and its server say.

use crate::{
    protocol::{Faults, Memory, Server},
    stat::{Pressure, busy_ms, field, meminfo},
};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long a server may take to tell its status.
const TELLING: Duration = Duration::from_millis(500);
/// No status is longer, in bytes.
const LONGEST_STATUS: u64 = 4096;
/// What the kernel calls a second in /proc/stat (USER_HZ).
const TICKS: u64 = 100;

/// Where memory is; `None` where the kernel does not say all of it.
pub fn memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let of = |key| meminfo(&text, key);
    Some(Memory {
        total: of("MemTotal")?,
        free: of("MemFree")?,
        available: of("MemAvailable")?,
        cached: of("Cached")?,
        active_file: of("Active(file)")?,
        inactive_file: of("Inactive(file)")?,
        anonymous: of("AnonPages")?,
    })
}

/// What went wrong for lack of memory; `None` where the kernel does not say all of it.
pub fn faults() -> Option<Faults> {
    let text = fs::read_to_string("/proc/vmstat").ok()?;
    let of = |key| field(&text, key);
    Some(Faults {
        major: of("pgmajfault")?,
        refaults: of("workingset_refault_file")?,
        swapped_in: of("pswpin")?,
        swapped_out: of("pswpout")?,
    })
}

/// How long tasks waited for memory; `None` where the kernel does not count that.
pub fn pressure() -> Option<Pressure> {
    Pressure::parse(&fs::read_to_string("/proc/pressure/memory").ok()?)
}

/// Time all processors were busy, in ms.
pub fn cpu_ms() -> Option<u64> {
    busy_ms(&fs::read_to_string("/proc/stat").ok()?, TICKS)
}

/// Time since the start, in ms.
pub fn uptime_ms() -> Option<u64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((seconds * 1e3) as u64)
}

/// What nginx says at the socket of its `stub_status`.
///
/// # Errors
/// Those of the socket; [`io::ErrorKind::InvalidData`] where the answer is no status.
pub fn server(socket: &Path) -> io::Result<Server> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(TELLING))?;
    stream.set_write_timeout(Some(TELLING))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(LONGEST_STATUS).read_to_string(&mut answer)?;
    stub_status(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no status: {answer:?}")))
}

/// What an answer of nginx's `stub_status` says.
pub fn stub_status(answer: &str) -> Option<Server> {
    let after = |label: &str| answer.split_once(label)?.1.split_whitespace().next()?.parse::<u64>().ok();
    let counters = answer.split_once("server accepts handled requests")?.1;
    let requests = counters.split_whitespace().nth(2)?.parse().ok()?;
    // The question for the status is being answered itself.
    let in_flight = (after("Reading: ")? + after("Writing: ")?).saturating_sub(1);
    Some(Server { requests, in_flight })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_page_is_understood() {
        let page = "HTTP/1.1 200 OK\r\n\r\nActive connections: 9 \nserver accepts handled requests\n 20 20 45 \n\
                    Reading: 1 Writing: 3 Waiting: 5 \n";
        assert_eq!(stub_status(page), Some(Server { requests: 45, in_flight: 3 }));
        assert_eq!(stub_status("HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }

    #[test]
    fn this_kernel_is_understood() {
        let memory = memory().unwrap();
        assert!(memory.total > memory.free && memory.available > 0, "{memory:?}");
        assert!(uptime_ms().unwrap() > 0 && cpu_ms().unwrap() > 0);
        // Not every kernel counts them, but those that do say it in full.
        eprintln!("{:?} {:?}", faults(), pressure());
    }
}

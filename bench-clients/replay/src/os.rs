//! What the generator asks of the operating system.

use rustix::process::{Resource, Rlimit, getpriority_process, getrlimit, setpriority_process, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Descriptors that a process has open besides its connections, generously.
const OTHERS: u64 = 256;

/// The nice value that generator threads ask for.
const NICE: i32 = -10;

/// Raises the soft limit on open files, which is often 1,024, so that `connections` more fit in; the hard limit
/// allowing.
///
/// Where it does not, opening a connection may fail later, and the requests concerned are counted as not sent.
pub(crate) fn make_room(connections: usize) {
    let needed = connections as u64 + OTHERS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_some_and(|current| current < needed) {
        let current = Some(maximum.map_or(needed, |maximum| maximum.min(needed)));
        // A limit that stays as it is shows when it is reached.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
    }
}

/// Asks for the calling thread to go before others, and tells the nice value that it has now.
///
/// Where the system under test is on the same machine, the generator stands for clients that are not, whose requests
/// come whether or not the servers are busy. It takes privilege; without it the generator is one among many, and its
/// lag tells whether that was enough.
pub(crate) fn take_precedence() -> i32 {
    // A nice value, like all scheduling attributes of Linux, is a thread's and not a process's.
    let _ = setpriority_process(None, NICE);
    getpriority_process(None).unwrap_or_default()
}

/// Processor time that the calling thread has used.
pub(crate) fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_grows_and_never_shrinks() {
        let limit = || getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let before = limit();
        make_room(1);
        assert!(limit() >= before);
        make_room(2000);
        let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        assert!(limit() >= hard.min(2000 + OTHERS));
    }

    #[test]
    fn precedence_is_the_threads_own() {
        let before = getpriority_process(None).expect("a nice value");
        let thread = std::thread::spawn(take_precedence).join().expect("no panic");
        assert!(thread == NICE || thread == before, "{thread}");
        assert_eq!(getpriority_process(None).expect("a nice value"), before);
    }

    #[test]
    fn processor_time_passes_with_work() {
        let before = cpu_time();
        while cpu_time() == before {
            std::hint::spin_loop();
        }
        assert!(cpu_time() > before);
    }
}

//! What guests say of themselves, over their virtio-serial port.
//!
//! Whoever owns a guest may have it say anything, or anything as fast as it can: lines are bounded, what is read in a
//! second is bounded, and what is understood is a hint.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    net::UnixStream,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use vibra_guest::{Lines, MOST_BYTES, Report};

/// A guest that was heard and is silent for longer does not live: ten of its reports are missing. On a
/// machine that is busy one may well be late.
const SILENCE: Duration = Duration::from_secs(10);
/// A report that is older tells nothing of now.
pub(super) const FRESH: Duration = Duration::from_secs(5);
/// What is read of one guest in a second, in bytes: many reports.
const MOST_A_SECOND: usize = 16 * MOST_BYTES;
/// How long to wait before a port that cannot be read is opened again.
const AGAIN: Duration = Duration::from_millis(200);

/// Listens to one guest. Dropped, it stops.
#[derive(Debug)]
pub(super) struct Guest {
    heard: Arc<Mutex<Heard>>,
    listening: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Heard {
    /// The last report that was understood, and when it came.
    last: Option<(Instant, Report)>,
    /// Lines that were not understood.
    strange: u64,
}

impl Heard {
    fn line(&mut self, line: &[u8]) {
        match serde_json::from_slice(line) {
            Ok(report) => self.last = Some((Instant::now(), report)),
            Err(error) => {
                if self.strange == 0 {
                    tracing::warn!(%error, "a guest says what is not understood");
                }
                self.strange += 1;
            }
        }
    }
}

impl Guest {
    /// Listens at QEMU's `socket` for a guest's port.
    pub(super) fn listen(socket: &Path) -> Guest {
        let heard = Arc::<Mutex<Heard>>::default();
        let listening = tokio::spawn(listen(socket.to_owned(), heard.clone()));
        Guest { heard, listening }
    }

    /// What it said last, unless that is old.
    pub(super) fn report(&self) -> Option<Report> {
        self.last().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, report)| report)
    }

    /// What it said last, however old, and when that was heard.
    pub(super) fn last(&self) -> Option<(Instant, Report)> {
        lock(&self.heard).last.clone()
    }

    /// Whether it was heard once and is not heard any more. A guest that never spoke may have no agent.
    pub(super) fn fell_silent(&self) -> bool {
        lock(&self.heard).last.as_ref().is_some_and(|(at, _)| at.elapsed() > SILENCE)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn lock(heard: &Mutex<Heard>) -> MutexGuard<'_, Heard> {
    // What is in it is replaced whole.
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen(socket: PathBuf, heard: Arc<Mutex<Heard>>) {
    loop {
        if let Ok(stream) = UnixStream::connect(&socket).await {
            hear(stream, &heard).await;
        }
        sleep(AGAIN).await;
    }
}

/// Hears what comes until nothing can come any more. A guest that says more than it may in a second has to wait.
async fn hear(mut read: impl AsyncRead + Unpin, heard: &Mutex<Heard>) {
    let (mut lines, mut buffer) = (Lines::new(MOST_BYTES), vec![0; MOST_BYTES]);
    let (mut second, mut spent) = (Instant::now(), 0);
    while let Ok(count @ 1..) = read.read(&mut buffer).await {
        lines.feed(&buffer[..count]);
        while let Some(line) = lines.next_line() {
            lock(heard).line(&line.unwrap_or_default());
        }
        if second.elapsed() >= Duration::from_secs(1) {
            (second, spent) = (Instant::now(), 0);
        }
        spent += count;
        if spent > MOST_A_SECOND {
            sleep_until(second + Duration::from_secs(1)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::{io::AsyncWriteExt, time::timeout};

    fn heard() -> Mutex<Heard> {
        Mutex::default()
    }

    #[tokio::test]
    async fn reports_are_heard_among_what_is_none() {
        let heard = heard();
        let said =
            [b"{\"sequence\":1}\nhello\n".to_vec(), vec![b'x'; 3 * MOST_BYTES], b"\n{\"sequence\":7}\n{\"se".to_vec()];
        hear(&said.concat()[..], &heard).await;
        let heard = lock(&heard);
        assert_eq!(heard.last.as_ref().unwrap().1.sequence, 7);
        assert_eq!(heard.strange, 2, "no report, and a line too long");
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_floods_has_to_wait() {
        let heard = heard();
        let (began, seconds) = (Instant::now(), 10);
        let flood = tokio::io::repeat(b'\n').take((seconds * MOST_A_SECOND) as u64);
        hear(flood, &heard).await;
        let took = began.elapsed().as_secs();
        assert!((seconds as u64 - 2..=seconds as u64).contains(&took), "{took} s");
    }

    #[tokio::test]
    async fn a_port_is_heard_once_it_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("guest");
        let guest = Guest::listen(&socket);
        assert!(guest.report().is_none() && !guest.fell_silent(), "a guest that never spoke is not dead");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let (mut port, _) = timeout(Duration::from_secs(10), listener.accept()).await.unwrap().unwrap();
        port.write_all(b"{\"sequence\":3,\"server\":{\"requests\":5,\"in_flight\":1}}\n").await.unwrap();
        let spoken = async {
            while guest.report().is_none() {
                sleep(Duration::from_millis(5)).await;
            }
            guest.report().unwrap().server.unwrap().requests
        };
        assert_eq!(timeout(Duration::from_secs(10), spoken).await.unwrap(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed() {
        let guest = Guest::listen(Path::new("/nowhere"));
        lock(&guest.heard).line(b"{}");
        assert!(guest.report().is_some());
        tokio::time::advance(FRESH).await;
        assert!(guest.report().is_none() && !guest.fell_silent());
        tokio::time::advance(SILENCE).await;
        assert!(guest.fell_silent());
    }

    proptest! {
        #[test]
        fn nothing_that_a_guest_says_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(hear(&bytes[..], &heard()));
        }
    }
}

//! How long a VM's server takes for its requests: nginx tells each one's time in a datagram.
//!
//! Neither waits for the other: where the socket's queue is full the kernel drops what comes, and nginx goes on. So
//! memory is bounded by the kernel, and a mean is over the requests that were told.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{net::UnixDatagram, task::JoinHandle};

/// More than a message has: its priority, its time, the tag and a number.
const LONGEST: usize = 256;

/// What was told since the server's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Requests whose time was told.
    pub(super) requests: u64,
    /// The sum of their times.
    pub(super) time: Duration,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Times {
    told: Arc<Mutex<Told>>,
    listener: JoinHandle<()>,
}

impl Drop for Times {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Times {
    /// Listens at `socket`, which must not be there yet.
    pub(super) fn listen(socket: &Path) -> io::Result<Times> {
        let socket = UnixDatagram::bind(socket)?;
        let told = Arc::<Mutex<Told>>::default();
        let listener = tokio::spawn(hear(socket, told.clone()));
        Ok(Times { told, listener })
    }

    /// What was told so far.
    pub(super) fn told(&self) -> Told {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn hear(socket: UnixDatagram, told: Arc<Mutex<Told>>) {
    let mut message = [0; LONGEST];
    loop {
        let length = match socket.recv(&mut message).await {
            Ok(length) => length,
            Err(error) => return tracing::warn!(%error, "nobody hears how long requests take any more"),
        };
        if let Some(took) = parse(&message[..length]) {
            let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
            told.requests += 1;
            told.time += took;
        }
    }
}

/// The time in a message such as `<190>Nov 21 20:58:35 vibra: 0.013`: seconds with three decimals, at its end.
fn parse(message: &[u8]) -> Option<Duration> {
    let (_, number) = std::str::from_utf8(message).ok()?.rsplit_once(' ')?;
    let (seconds, millis) = number.trim_end().split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(millis) || millis.len() != 3 {
        return None;
    }
    let seconds = Duration::from_secs(seconds.parse().ok()?);
    seconds.checked_add(Duration::from_millis(millis.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[test]
    fn the_time_stands_at_the_end_of_a_message() {
        let took = |text: &str| parse(text.as_bytes());
        assert_eq!(took("<190>Nov 21 20:58:35 vibra: 0.013"), Some(Duration::from_millis(13)));
        assert_eq!(took("<190>Nov  1 20:58:35 vibra: 12.000\n"), Some(Duration::from_secs(12)));
        for wrong in ["", "vibra: ", "vibra: -", "vibra: 0", "vibra: 0.1", "vibra: +1.000", "vibra: 0.+13", "x 1.0000"]
        {
            assert_eq!(took(wrong), None, "{wrong:?}");
        }
        assert_eq!(parse(b"\xff 0.001"), None);
    }

    #[tokio::test]
    async fn what_is_told_is_summed_and_what_nobody_takes_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("times");
        let times = Times::listen(&path).unwrap();
        let sender = std::os::unix::net::UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        // The listener shares this thread: nobody takes anything as long as there is no await.
        let mut sent = 0;
        let error = loop {
            match sender.send_to(b"<190>Nov 21 20:58:35 vibra: 0.002", &path) {
                Ok(_) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "the queue is bounded, and its end waits for nobody");
        let all = async {
            while times.told().requests < sent {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), all).await.unwrap();
        assert_eq!(times.told(), Told { requests: sent, time: Duration::from_millis(2 * sent) });
    }
}

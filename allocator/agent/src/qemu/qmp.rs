//! QEMU's machine protocol (QMP): one JSON object a line over a unix socket, one command at a time.
//!
//! Replies are read into types that have those fields alone that are used here: they differ between QEMU's versions
//! (`docs/decisions/qmp.md`).

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    time::timeout,
};

/// How long one command may take; QEMU answers within milliseconds unless it hangs.
const ANSWERING: Duration = Duration::from_secs(1);
/// The longest line that is read, in bytes.
const LONGEST: u64 = 1 << 20;

/// A command that was not carried out, or of which that is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// There is nobody at the socket.
    #[error("could not reach QEMU at {socket} for {command}")]
    Connect { socket: PathBuf, command: String, source: io::Error },
    /// The connection ended before the answer came.
    #[error("QEMU closed its socket during {command}: whether it was carried out is not known")]
    Closed { command: String },
    /// The connection failed before the answer came.
    #[error("lost QEMU during {command}: whether it was carried out is not known")]
    Lost { command: String, source: io::Error },
    /// QEMU did not answer.
    #[error("QEMU did not answer {command} within {} ms", ANSWERING.as_millis())]
    Silent { command: String },
    /// QEMU answered with something else.
    #[error("QEMU answered {command} with {answer}")]
    Strange { command: String, answer: String, source: serde_json::Error },
    /// QEMU refused it.
    #[error("QEMU refused {command}: {0}", command = .1)]
    Refused(Refusal, String),
}

/// What QEMU says to a command that it does not carry out.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Refusal {
    pub(super) class: String,
    pub(super) desc: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.desc, self.class)
    }
}

/// A line that QEMU sends.
#[derive(Deserialize)]
struct Line {
    id: Option<u64>,
    #[serde(rename = "return")]
    answer: Option<Value>,
    error: Option<Refusal>,
}

/// Asks the QEMU behind one socket. It connects when it is first asked, and anew after a failure.
#[derive(Debug)]
pub(super) struct Qmp {
    socket: PathBuf,
    connection: Mutex<Option<Connection>>,
}

#[derive(Debug)]
struct Connection {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    commands: u64,
}

impl Qmp {
    pub(super) fn new(socket: &Path) -> Self {
        Qmp { socket: socket.to_owned(), connection: Mutex::default() }
    }

    /// Carries out a command without arguments.
    pub(super) async fn ask<T: DeserializeOwned>(&self, command: &str) -> Result<T, QmpError> {
        self.execute(command, json!({})).await
    }

    /// Carries out a command whose answer says nothing.
    pub(super) async fn order(&self, command: &str, arguments: Value) -> Result<(), QmpError> {
        self.execute::<Value>(command, arguments).await.map(drop)
    }

    /// Carries out a command and reads its answer. Who stops waiting ends the connection with it: its answer is not
    /// taken for that of the next command.
    pub(super) async fn execute<T: DeserializeOwned>(&self, command: &str, arguments: Value) -> Result<T, QmpError> {
        let work = async {
            let mut slot = self.connection.lock().await;
            // Taken out, it is closed if this is dropped half-way.
            let mut connection = match slot.take() {
                Some(connection) => connection,
                None => Connection::open(&self.socket, command).await?,
            };
            let answer = connection.exchange(command, &arguments).await;
            if matches!(answer, Ok(_) | Err(QmpError::Refused(..))) {
                *slot = Some(connection);
            }
            answer
        };
        let silent = |_| QmpError::Silent { command: command.to_owned() };
        let answer = timeout(ANSWERING, work).await.map_err(silent)??;
        serde_json::from_value(answer.clone()).map_err(|source| QmpError::Strange {
            command: command.to_owned(),
            answer: answer.to_string(),
            source,
        })
    }
}

impl Connection {
    async fn open(socket: &Path, command: &str) -> Result<Connection, QmpError> {
        let failed = |source| QmpError::Connect { socket: socket.to_owned(), command: command.to_owned(), source };
        let (read, write) = UnixStream::connect(socket).await.map_err(failed)?.into_split();
        let mut connection = Connection { read: BufReader::new(read), write, commands: 0 };
        // The greeting tells QEMU's version; commands are taken once its capabilities were negotiated.
        connection.line("the greeting").await?;
        connection.exchange("qmp_capabilities", &json!({})).await?;
        Ok(connection)
    }

    /// Sends a command, and reads until its answer; events come in between.
    async fn exchange(&mut self, command: &str, arguments: &Value) -> Result<Value, QmpError> {
        self.commands += 1;
        let id = self.commands;
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": id }));
        self.write.write_all(line.as_bytes()).await.map_err(|error| lost(command, error))?;
        loop {
            let line = self.line(command).await?;
            let strange = |source| QmpError::Strange { command: command.to_owned(), answer: line.clone(), source };
            let line: Line = serde_json::from_str(&line).map_err(strange)?;
            match line {
                Line { id: Some(answered), answer: Some(answer), .. } if answered == id => return Ok(answer),
                Line { error: Some(refusal), .. } => return Err(QmpError::Refused(refusal, command.to_owned())),
                _ => {}
            }
        }
    }

    async fn line(&mut self, command: &str) -> Result<String, QmpError> {
        let mut line = String::new();
        let read = (&mut self.read).take(LONGEST).read_line(&mut line).await.map_err(|error| lost(command, error))?;
        if read == 0 || !line.ends_with('\n') {
            return Err(QmpError::Closed { command: command.to_owned() });
        }
        Ok(line)
    }
}

fn lost(command: &str, source: io::Error) -> QmpError {
    match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed { command: command.to_owned() },
        _ => QmpError::Lost { command: command.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::super::script::{Reply, scripted};
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Status {
        status: String,
    }

    #[tokio::test]
    async fn answers_are_told_from_events_and_from_one_another() {
        let mut count = 0;
        let qemu = scripted(move |_, _| {
            count += 1;
            Reply::Return(json!({ "status": format!("{count}"), "more": [1] }))
        });
        for expected in ["1", "2"] {
            assert_eq!(qemu.qmp.ask::<Status>("query-status").await.unwrap().status, expected);
        }
        let strange = qemu.qmp.ask::<Vec<u8>>("query-status").await.unwrap_err();
        assert!(strange.to_string().contains("answered query-status with"), "{strange}");
    }

    #[tokio::test]
    async fn a_socket_that_closes_mid_command_is_told_and_the_next_command_connects_anew() {
        let mut first = true;
        let qemu = scripted(move |_, _| match std::mem::take(&mut first) {
            true => Reply::Close,
            false => Reply::Return(json!({ "status": "running" })),
        });
        let closed = qemu.qmp.ask::<Status>("query-status").await.unwrap_err();
        assert!(matches!(closed, QmpError::Closed { .. }), "{closed}");
        assert!(closed.to_string().contains("during query-status"), "{closed}");
        assert_eq!(qemu.qmp.ask::<Status>("query-status").await.unwrap().status, "running");
    }

    #[tokio::test]
    async fn a_refusal_is_told_and_the_connection_serves_on() {
        let qemu = scripted(|command, _| match command {
            "balloon" => Reply::Error("No balloon device has been activated"),
            _ => Reply::Return(json!({ "status": "running" })),
        });
        let refused = qemu.qmp.order("balloon", json!({ "value": 1 })).await.unwrap_err();
        assert_eq!(refused.to_string(), "QEMU refused balloon: No balloon device has been activated (GenericError)");
        assert!(qemu.qmp.ask::<Status>("query-status").await.is_ok());
    }

    #[tokio::test]
    async fn silence_and_noise_end() {
        let qemu = scripted(|command, _| match command {
            "a" => Reply::Silence,
            "b" => Reply::Line("no JSON"),
            _ => Reply::Return(json!({ "status": "running" })),
        });
        let silent = qemu.qmp.ask::<Status>("a").await.unwrap_err();
        assert!(matches!(silent, QmpError::Silent { .. }), "{silent}");
        let noise = qemu.qmp.ask::<Status>("b").await.unwrap_err();
        assert!(matches!(noise, QmpError::Strange { .. }), "{noise}");
        assert!(qemu.qmp.ask::<Status>("c").await.is_ok(), "and a late answer is nobody's");
        let nobody = Qmp::new(Path::new("/nowhere/qmp")).ask::<Status>("query-status").await.unwrap_err();
        assert!(matches!(nobody, QmpError::Connect { .. }), "{nobody}");
    }
}

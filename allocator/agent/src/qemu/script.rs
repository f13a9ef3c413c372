//! A QEMU for tests, which answers by script.

use super::qmp::Qmp;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

/// What it does on a command.
pub(super) enum Reply {
    /// Answers.
    Return(Value),
    /// Refuses.
    Error(&'static str),
    /// Sends this line instead.
    Line(&'static str),
    /// Closes the connection.
    Close,
    /// Says nothing, for ever.
    Silence,
}

/// A scripted QEMU and a client of it. It sends an event before every answer.
pub(super) struct Scripted {
    pub(super) qmp: Qmp,
    /// The commands that came, with their arguments.
    pub(super) asked: Arc<Mutex<Vec<(String, Value)>>>,
    _directory: tempfile::TempDir,
}

/// Starts one that replies as `script` says.
pub(super) fn scripted(script: impl FnMut(&str, &Value) -> Reply + Send + 'static) -> Scripted {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("qmp");
    let (listener, asked) = (UnixListener::bind(&socket).unwrap(), Arc::<Mutex<Vec<_>>>::default());
    let (qmp, noted) = (Qmp::new(&socket), asked.clone());
    tokio::spawn(async move {
        let mut script = script;
        while let Ok((stream, _)) = listener.accept().await {
            // One client at a time, as QEMU has it.
            let _ = serve(stream, &mut script, &noted).await;
        }
    });
    Scripted { qmp, asked, _directory: directory }
}

async fn serve(
    stream: UnixStream,
    script: &mut (impl FnMut(&str, &Value) -> Reply + Send),
    asked: &Mutex<Vec<(String, Value)>>,
) -> std::io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\n").await?;
    while let Some(line) = lines.next_line().await? {
        let line: Value = serde_json::from_str(&line)?;
        let (command, id) = (line["execute"].as_str().unwrap_or_default(), &line["id"]);
        let reply = match command {
            "qmp_capabilities" => Reply::Return(json!({})),
            command => {
                asked.lock().unwrap().push((command.to_owned(), line["arguments"].clone()));
                script(command, &line["arguments"])
            }
        };
        let said = match reply {
            Reply::Return(answer) => json!({ "return": answer, "id": id }).to_string(),
            Reply::Error(why) => json!({ "error": { "class": "GenericError", "desc": why }, "id": id }).to_string(),
            Reply::Line(line) => line.to_owned(),
            Reply::Close => return Ok(()),
            Reply::Silence => continue,
        };
        write.write_all(format!("{{\"event\": \"RTC_CHANGE\", \"data\": {{}}}}\n{said}\n").as_bytes()).await?;
    }
    Ok(())
}

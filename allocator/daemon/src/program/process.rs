//! One run of a program: lines in, lines out, in bounded time and space.

use super::ProgramParameters;
use std::{
    io::{self, BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

/// The longest line that a program may write, in bytes.
const LONGEST: u64 = 64 << 20;

/// A running program. It is killed when this is dropped.
pub(super) struct Process {
    child: Child,
    questions: Sender<String>,
    answers: Receiver<io::Result<Vec<u8>>>,
}

impl Process {
    pub(super) fn start(parameters: &ProgramParameters) -> Result<Self, String> {
        let mut command = Command::new(&parameters.command[0]);
        command.args(&parameters.command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(folder) = &parameters.folder {
            command.current_dir(folder);
        }
        let mut child =
            command.spawn().map_err(|error| format!("cannot start {:?}: {error}", parameters.command[0]))?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = (input, output) else { return Err("it has no pipes".to_owned()) };
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        // It ends when the questions do, or the program's pipes.
        let thread = thread::Builder::new().name("policy-program".to_owned());
        let talks = thread.spawn(move || talk(input, BufReader::new(output), &asked, &answer));
        let process = Process { child, questions, answers };
        talks.map(|_| process).map_err(|error| format!("no thread to talk to it: {error}"))
    }

    /// The line that it answers to `question`.
    pub(super) fn exchange(&mut self, question: String, timeout: Duration) -> Result<Vec<u8>, String> {
        // If the thread is gone the answer tells why.
        let _ = self.questions.send(question);
        match self.answers.recv_timeout(timeout) {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(error)) => Err(self.end(&error.to_string())),
            Err(RecvTimeoutError::Disconnected) => Err(self.end("it does not talk any more")),
            Err(RecvTimeoutError::Timeout) => Err(format!("no answer within {} ms", timeout.as_millis())),
        }
    }

    /// What happened, and how it ended if it did.
    fn end(&mut self, what: &str) -> String {
        match self.child.try_wait() {
            Ok(Some(status)) => format!("{what} ({status})"),
            _ => what.to_owned(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for, so that nothing of it stays.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hands questions over and answers back, until one of both fails.
fn talk(
    mut input: ChildStdin,
    mut output: BufReader<ChildStdout>,
    asked: &Receiver<String>,
    answer: &Sender<io::Result<Vec<u8>>>,
) {
    while let Ok(question) = asked.recv() {
        let line = input.write_all(format!("{question}\n").as_bytes()).and_then(|()| line(&mut output));
        let failed = line.is_err();
        if answer.send(line).is_err() || failed {
            return;
        }
    }
}

fn line(output: &mut BufReader<ChildStdout>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    output.take(LONGEST).read_until(b'\n', &mut line)?;
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(line);
    }
    Err(io::Error::other(match line.len() as u64 {
        LONGEST => "its answer is longer than 64 MiB",
        0 => "it ended",
        _ => "it ended in the middle of an answer",
    }))
}

//! The guest agent: one line a second to the host, and orders from it. The library says what they mean.

mod guest;
mod port;

use guest::Guest;
use std::{
    env,
    error::Error,
    fs::File,
    io::{self, Read, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use vibra_guest::{Lines, MOST_BYTES, Method, Order, PORT, Report, Sampling, TooLong, sampler::Sampler, sensors};

/// A heartbeat.
const BEAT: Duration = Duration::from_secs(1);
/// How long to wait before looking again whether the host has connected: its device does not tell.
const UNCONNECTED: Duration = Duration::from_millis(200);
/// How the working set is found out until the host says otherwise.
const FIRST: Sampling = Sampling { method: Method::Deactivation, period_ms: 60_000 };

/// No trouble is told in more characters: a report has to fit in a line.
const MOST_TROUBLE: usize = 300;

const USAGE: &str = "usage: vibra-guest [--port PATH] [--files DIRECTORY] [--status SOCKET]

Tells the host once a second what only the guest knows, and takes orders from it.

  --port PATH        where to; otherwise the virtio-serial port org.vibra.guest
  --files DIRECTORY  what is served; /srv without it
  --status SOCKET    where nginx tells its status; /run/status without it";

struct Options {
    port: Option<PathBuf>,
    files: PathBuf,
    status: PathBuf,
}

fn main() -> ExitCode {
    let options = match options(env::args().skip(1)) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("vibra-guest: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vibra-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options { port: None, files: "/srv".into(), status: "/run/status".into() };
    while let Some(word) = words.next() {
        let mut value = || words.next().map(PathBuf::from).ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "--port" => options.port = Some(value()?),
            "--files" => options.files = value()?,
            "--status" => options.status = value()?,
            _ => return Err(format!("{word} is not understood")),
        }
    }
    Ok(options)
}

/// Reports until the port fails; init starts a new one then.
fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let port = port::open(options.port.as_deref(), PORT)?;
    let sampler = Arc::new(Sampler::start(Guest::new(options.files.clone()))?);
    sampler.set(Some(FIRST));
    let (inbox, told) = (port.try_clone()?, sampler.clone());
    thread::Builder::new().name("orders".to_owned()).spawn(move || {
        if let Err(error) = listen(inbox, &told) {
            eprintln!("vibra-guest: no more orders are taken: {error}");
        }
    })?;
    report(port, options, &sampler)
}

fn report(mut port: File, options: &Options, sampler: &Sampler) -> Result<(), Box<dyn Error>> {
    let mut next = Instant::now();
    for sequence in 0.. {
        let mut line = serde_json::to_vec(&observe(sequence, options, sampler))?;
        line.push(b'\n');
        // Waits while no host is connected; one that was away gets one report, not all that it missed.
        port.write_all(&line)?;
        next = (next + BEAT).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(())
}

fn observe(sequence: u64, options: &Options, sampler: &Sampler) -> Report {
    let found = sampler.found();
    let server = sensors::server(&options.status);
    let trouble = found.trouble.or_else(|| server.as_ref().err().map(|error| format!("the server's status: {error}")));
    Report {
        sequence,
        uptime_ms: sensors::uptime_ms().unwrap_or(0),
        cpu_ms: sensors::cpu_ms(),
        memory: sensors::memory(),
        faults: sensors::faults(),
        pressure: sensors::pressure(),
        working_set: found.working_set,
        sampling: found.sampling,
        server: server.ok(),
        trouble: trouble.map(|text| text.chars().take(MOST_TROUBLE).collect()),
    }
}

/// Takes orders until the port fails. What is no order is told on the console and passed over.
fn listen(mut port: File, sampler: &Sampler) -> io::Result<()> {
    let mut lines = Lines::new(MOST_BYTES);
    let mut bytes = [0; MOST_BYTES];
    loop {
        match port.read(&mut bytes)? {
            0 => thread::sleep(UNCONNECTED),
            read => lines.feed(&bytes[..read]),
        }
        while let Some(line) = lines.next_line() {
            match line.map(|line| serde_json::from_slice(&line)) {
                Ok(Ok(Order::Sample(sampling))) => sampler.set(sampling),
                Ok(Err(error)) => eprintln!("vibra-guest: an order is not understood: {error}"),
                Err(TooLong) => eprintln!("vibra-guest: an order is longer than {MOST_BYTES} bytes"),
            }
        }
    }
}

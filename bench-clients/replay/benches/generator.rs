//! What the load generator itself can do: how many requests a second one thread sends, what processor time a request
//! takes it, and how late it sends them. Against a server that does next to nothing, on a thread of its own.
//!
//! `cargo bench -p vibra-replay -- [SECONDS]`; prints a table, and each run as a line of JSON on standard error.

use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use vibra_replay::{Mode, Options, Spread, Summary, replay};
use vibra_trace::{Method, Objects, Origin, Request, Trace};

/// Length of the objects in bytes.
const SIZE: usize = 1024;

/// Concurrency of the closed loop.
const CLIENTS: usize = 32;

/// Rates of the open loop in requests a second.
const RATES: [usize; 5] = [1000, 2500, 5000, 10_000, 15_000];

fn main() {
    // Cargo adds flags such as --bench.
    let seconds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(3);
    let target = start_server();
    println!("{:<24}{:>10}{:>10}{:>31}{:>22}  void", "", "requests", "CPU us", "sent late, us", "response time, us");
    println!(
        "{:<24}{:>10}{:>10}{:>9}{:>11}{:>11}{:>11}{:>11}",
        "", "/s", "/request", "p50", "p99", "max", "mean", "p99"
    );
    let mut options = Options::new(target, Mode::Closed { concurrency: CLIENTS });
    options.stop_after = Some(Duration::from_secs(seconds));
    options.warm_up = Duration::from_millis(200);
    print(&format!("closed, {CLIENTS} clients"), &run(&trace(100_000, seconds), &options));
    for rate in RATES {
        for (name, spread) in [("poisson", Spread::Poisson { seed: 1 }), ("uniform", Spread::Uniform)] {
            options.mode = Mode::Open { speed: 1.0, spread };
            print(&format!("open, {name}, {rate}/s"), &run(&trace(rate, seconds), &options));
        }
    }
}

fn run(trace: &Trace, options: &Options) -> Summary {
    replay(trace, options, |_| {}).expect("the replay takes place")
}

fn print(name: &str, summary: &Summary) {
    let micros = |millis: Option<f64>| millis.map_or("-".into(), |millis| format!("{:.0}", millis * 1e3));
    let (lag, response) = (summary.send_lag, summary.response_time);
    let cpu = summary.generator_cpu_s * 1e6 / (summary.requests + summary.warm_up_requests) as f64;
    println!(
        "{name:<24}{:>10.0}{cpu:>10.1}{:>9}{:>11}{:>11}{:>11}{:>11}  {}",
        summary.requests_per_s.unwrap_or_default(),
        micros(lag.map(|lag| lag.p50_ms)),
        micros(lag.map(|lag| lag.p99_ms)),
        micros(lag.map(|lag| lag.max_ms)),
        micros(response.map(|response| response.mean_ms)),
        micros(response.map(|response| response.p99_ms)),
        summary.void.as_deref().unwrap_or("no"),
    );
    assert_eq!(summary.errors.total(), 0, "{:?}", summary.errors);
    let brief = Summary { histogram: Vec::new(), seconds: Vec::new(), ..summary.clone() };
    eprintln!("{}", serde_json::to_string(&brief).expect("serialisable"));
}

/// `rate` requests in each of so many seconds, for one object.
fn trace(rate: usize, seconds: u64) -> Trace {
    let mut objects = Objects::new();
    let object = objects.intern("/images/a-usual-name-of-forty-bytes.gif");
    objects.set_size(object, SIZE as u64);
    let bytes = (SIZE as u64).into();
    let request = |second| Request {
        at: Duration::from_secs(second),
        client: 0,
        object,
        bytes,
        method: Method::Get,
        status: 200,
    };
    Trace {
        name: "generator".into(),
        origin: Origin::Synthetic { seed: 0 },
        start: None,
        resolution: Duration::from_secs(1),
        objects,
        requests: (0..seconds).flat_map(|second| std::iter::repeat_n(request(second), rate)).collect(),
    }
}

/// Starts a server that answers whatever it reads, until the program ends.
fn start_server() -> std::net::SocketAddr {
    let (sender, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            sender.send(listener.local_addr().expect("an address")).expect("main waits for it");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
    });
    address.recv().expect("the server starts")
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").into_bytes();
    answer.resize(answer.len() + SIZE, b'x');
    let mut request = [0; 4096];
    // A request is small and comes in one segment; the next one only after the answer.
    while stream.read(&mut request).await? > 0 {
        stream.write_all(&answer).await?;
    }
    Ok(())
}

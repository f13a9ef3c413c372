//! The command line.

use crate::{
    config::{self, LogFormat},
    simulate::{PolicySet, Sweep},
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use vibra_model::{Bytes, BytesPerSec, CustomerId};
use vibra_routing::Algorithm;
use vibra_sim::cluster::Fault;

/// An HTTP load balancer and cluster resource agent that work as one.
///
/// The dispatcher sends every request for a URL to the same few servers, so that they serve it from memory. Where that
/// makes one server hot, the allocator moves bandwidth and memory to it, within what its customer has bought.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "Begin with `vibra demo`. Exit codes: 0 fine, 1 failed at run time, 2 wrong usage or \
    configuration, 3 a stated threshold missed, 4 a run that is void."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what Vibra does: a four-VM cluster on this machine, one trace, seven ways to serve it, one table.
    Demo(Demo),
    /// Run everything that the configuration names in one process.
    Up(Up),
    /// Run the dispatcher alone.
    ///
    /// Without a file: `vibra dispatcher --listen 127.0.0.1:8080 --server 127.0.0.1:8081 --server 127.0.0.1:8082`
    Dispatcher(Dispatcher),
    /// Run the directory alone.
    Directory(WithConfig),
    /// Run the allocator alone.
    Allocator(WithConfig),
    /// Run the agent of one host alone.
    Agent(Agent),
    /// Check a configuration and say what it means.
    Check(WithConfig),
    /// Say which server gets a URL, which others could, and why; or why an allocator decided as it did.
    Explain(Explain),
    /// Decide again what stands in an allocator's decision log, with other policies, and list the differences.
    ///
    /// Each decision is made from what was recorded, which followed from what the real policies decided before: this
    /// tells what the others would have done at each moment, not where they would have led.
    #[command(after_help = "Examples:\n  \
        vibra replay-decisions --log decisions.jsonl                       the same policies: no differences\n  \
        vibra replay-decisions --log decisions.jsonl --policy static\n  \
        vibra replay-decisions -c vibra.toml --policy 'bandwidth = { policy = \"proportional\", alpha = 0.5 }'")]
    ReplayDecisions(ReplayDecisions),
    /// Show the state of a running dispatcher and directory.
    Status(Status),
    /// Replay a trace against a URL and measure response times.
    Replay(Replay),
    /// Simulate a cluster under a trace: every combination of algorithms, R and policies that you name.
    ///
    /// The cluster file is what `vibra up` takes: what is simulated can be run. Dispatching, policies and the directory's
    /// rules are the very code that runs live; clients, network, servers, disks and failures are modelled on virtual time,
    /// so that ten minutes take a second or less. All combinations see the same requests at the same times, and the same
    /// seed gives the same result. Nothing but the trace decides when requests come (open loop), unless --sessions asks for
    /// clients that wait for their answers (closed loop).
    #[command(after_help = "Examples:\n  \
        vibra simulate --trace worldcup --cluster docs/examples/cluster.toml\n      \
            what that cluster would do under ten minutes of the World Cup\n  \
        vibra simulate --trace access.log --cluster vibra.toml --algorithm url-hash,lard,least-connection \\\n      \
            --replicas 1,2 --policy static,proportional --plots out\n      \
            which algorithm, R and policy for your own log\n  \
        vibra simulate --trace worldcup --cluster vibra.toml --sweep bandwidth=0.6:1.2:0.1 --plots out\n      \
            how much bandwidth is enough\n  \
        vibra simulate --trace worldcup --cluster vibra.toml --fault vm2:down@60s..90s --dispatchers 2 --view-delay 2s\n      \
            what a failure does\n  \
        vibra simulate --calibrate demo.json\n      \
            how far simulations are from a real `vibra demo --json demo.json`")]
    Simulate(Box<Simulate>),
    /// Say which cluster, algorithm, R and policy your access log asks for, what they gain, and how sure that is.
    ///
    /// Reads the log (combined, common, JSON, World Cup, CSV or compact; plain or gzipped), finds its busiest stretch, sizes a
    /// cluster from its rate, its bytes and its working set, and simulates ways to run it with the code that runs live.
    #[command(after_help = "Examples:\n  \
        vibra whatif /var/log/nginx/access.log\n  \
        vibra whatif access.log.gz --now round-robin --servers 8 --json advice.json\n  \
        vibra whatif access.log --bandwidth 100Mbit/s --memory 2GiB      for the cluster that you have")]
    Whatif(Whatif),
    /// Convert, summarise or generate traces.
    #[command(subcommand)]
    Trace(Trace),
    /// Repeat the evaluation of the dissertation on this machine: its tables and figures, with its numbers beside the measured.
    ///
    /// What needs servers runs on four VMs that are made for it (network namespaces with nginx, an HTB class, a memory cgroup and
    /// a throttled disk; servers in this process where that cannot be), with the dispatcher in front, and the agent, the
    /// directory and the allocator beside it. Each figure says what was scaled, and how. A figure that this machine cannot make
    /// is skipped with the reason.
    #[command(after_help = "Examples:\n  \
        vibra figures --list                        which figures there are\n  \
        vibra figures --quick --out out             a look at everything in a few minutes, with out/report.html\n  \
        vibra figures --only 3.7,table-3.1          some of them\n\n\
        Exit codes: 0 everything stated is reached, 3 something is not, 4 a figure failed.")]
    Figures(Figures),
    /// Measure this machine's Vibra against its peers and its own promises.
    #[command(subcommand)]
    Bench(Bench),
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// How long to measure each row of the table, after as long, but at most 5 s, to fill caches.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    pub(crate) seconds: u64,
    /// Also write the result to this file, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Use in-process servers even where network namespaces could be made.
    #[arg(long)]
    pub(crate) in_process: bool,
    /// The seed of the trace and of the arrival times within a second.
    #[arg(long, default_value_t = 1998)]
    pub(crate) seed: u64,
}

/// Options of commands that need nothing but a configuration.
#[derive(Debug, Args)]
pub(crate) struct WithConfig {
    /// The configuration.
    #[arg(short, long, default_value = "vibra.toml")]
    pub(crate) config: PathBuf,
}

/// Options of `dispatcher`.
#[derive(Debug, Args)]
pub(crate) struct Dispatcher {
    /// The configuration; without it, --listen and --server say everything.
    #[arg(short, long, conflicts_with_all = ["listen", "servers"])]
    pub(crate) config: Option<PathBuf>,
    /// Where to listen.
    #[arg(long, required_unless_present = "config")]
    pub(crate) listen: Option<SocketAddr>,
    /// A server as host:port, or https://host:port, with NAME= before it or not; once for each, in cluster order.
    #[arg(long = "server", value_name = "SERVER", required_unless_present = "config")]
    pub(crate) servers: Vec<String>,
    /// Speak TLS to clients, with this certificate and those that link it to its authority, in PEM.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, in PEM. Default: in the same file.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Trust the authorities in this file, in PEM, to vouch for servers that are reached by https://, instead of the
    /// system's.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) server_ca: Option<PathBuf>,
    /// Where to serve operators: a port of this machine, or ADDRESS:PORT.
    #[arg(long, conflicts_with = "config", value_parser = config::admin_address)]
    pub(crate) admin: Option<SocketAddr>,
    /// How to choose a server.
    #[arg(long, conflicts_with = "config", default_value = "url-hash")]
    pub(crate) algorithm: String,
    /// How to hash a URL: charsum, md5, sha1 or xxh3.
    #[arg(long, conflicts_with = "config", default_value = "xxh3")]
    pub(crate) hash: String,
    /// Over how many servers each URL is spread: R. Default: 2, or 1 where there is one server.
    #[arg(long, conflicts_with = "config")]
    pub(crate) replicas: Option<usize>,
    /// Worker threads. Default: one for each core.
    #[arg(long, conflicts_with = "config")]
    pub(crate) threads: Option<usize>,
    /// Log each request to this file; - is standard output.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub(crate) access_log: Option<PathBuf>,
    /// How the access log is written.
    #[arg(long, value_enum, default_value_t, requires = "access_log")]
    pub(crate) access_log_format: LogFormat,
}

/// Options of `up`.
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// The configuration.
    #[arg(short, long, default_value = "vibra.toml")]
    pub(crate) config: PathBuf,
    /// Print the commands that would make and shape the VMs, and run none. Needs no privilege.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Options of `agent`.
#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// The configuration.
    #[arg(short, long, default_value = "vibra.toml")]
    pub(crate) config: PathBuf,
    /// Which host of the configuration this is; may be left out where there is one.
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// Print the commands that would be run, and run none. Needs no privilege.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Lift the limits that an agent left on the host's uplink, and end.
    #[arg(long)]
    pub(crate) remove_limits: bool,
}

/// Options of `explain`.
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The configuration.
    #[arg(short, long, default_value = "vibra.toml")]
    pub(crate) config: PathBuf,
    /// The URL, or its path.
    #[arg(required_unless_present = "decision")]
    pub(crate) url: Option<String>,
    /// Servers to regard as failed; may be given more than once.
    #[arg(long, value_name = "NAME")]
    pub(crate) down: Vec<String>,
    /// Explain this decision of the allocator: inputs, plan, reasons, refusals, outcome, and what the other policies
    /// would have done.
    #[arg(long, value_name = "ID", conflicts_with_all = ["url", "down"])]
    pub(crate) decision: Option<u64>,
    /// The decision log. Default: the configuration's.
    #[arg(long, value_name = "FILE", requires = "decision")]
    pub(crate) log: Option<PathBuf>,
    /// Whose decision, where the configuration has several customers.
    #[arg(long, value_name = "NAME", requires = "decision")]
    pub(crate) customer: Option<CustomerId>,
    /// Write JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `replay-decisions`.
#[derive(Debug, Args)]
pub(crate) struct ReplayDecisions {
    /// The configuration that names the decision log.
    #[arg(short, long, default_value = "vibra.toml")]
    pub(crate) config: PathBuf,
    /// The decision log. Default: the configuration's.
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Whose decisions, where the configuration has several customers.
    #[arg(long, value_name = "NAME", conflicts_with = "log")]
    pub(crate) customer: Option<CustomerId>,
    /// A policy to decide with instead of the recorded one: NAME, RESOURCE=NAME, or as in a configuration. May be given
    /// once for each resource. Default: those that are recorded.
    #[arg(long, value_name = "POLICY")]
    pub(crate) policy: Vec<String>,
    /// Show so many differences.
    #[arg(long, default_value_t = 50)]
    pub(crate) most: usize,
    /// Write JSON, with all differences.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `status`.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// The configuration of what runs.
    #[arg(short, long, default_value = "vibra.toml")]
    pub(crate) config: PathBuf,
    /// Write JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How requests that a trace puts into one second are spread within it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Spread {
    /// All at the beginning of the second.
    Burst,
    /// Evenly.
    Uniform,
    /// At random, seeded: a Poisson process with the recorded count.
    Poisson,
}

/// Options of `replay`.
#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// A trace file of any known format (see `vibra trace stat`), or `worldcup` or `youtube` for a generated one.
    pub(crate) trace: String,
    /// World Cup object map, `id url` a line, where the trace is in that format.
    #[arg(long)]
    pub(crate) objects: Option<PathBuf>,
    /// Where to send the requests, such as http://127.0.0.1:8080
    #[arg(long)]
    pub(crate) target: String,
    /// Replay the recorded times this much faster.
    #[arg(long, default_value_t = 1.0, conflicts_with = "concurrency")]
    pub(crate) speed: f64,
    /// How to spread requests within the trace's resolution.
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) spread: Spread,
    /// Closed loop: ignore recorded times and keep so many requests in flight.
    #[arg(long)]
    pub(crate) concurrency: Option<usize>,
    /// Stop after so many seconds of the trace.
    #[arg(long)]
    pub(crate) seconds: Option<u64>,
    /// Do not count the requests of the first so many seconds of the replay.
    #[arg(long, default_value_t = 0)]
    pub(crate) warm_up: u64,
    /// Give a request up after so many seconds.
    #[arg(long, default_value_t = 10)]
    pub(crate) timeout: u64,
    /// Do not compare the length of what comes back with the trace.
    #[arg(long)]
    pub(crate) any_length: bool,
    /// The seed of the arrival times and of a generated trace.
    #[arg(long, default_value_t = 1998)]
    pub(crate) seed: u64,
    /// Fail with exit code 3 where the mean response time is above so many milliseconds.
    #[arg(long)]
    pub(crate) max_mean_ms: Option<f64>,
    /// Also write the result to this file, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// Options of `simulate`.
#[derive(Debug, Args)]
pub(crate) struct Simulate {
    /// A trace file of any known format (see `vibra trace stat`), or `worldcup` or `youtube` for a generated one.
    #[arg(long, required_unless_present = "calibrate")]
    pub(crate) trace: Option<String>,
    /// World Cup object map, `id url` a line, where the trace is in that format.
    #[arg(long, value_name = "FILE")]
    pub(crate) objects: Option<PathBuf>,
    /// The cluster: a configuration as `vibra up` takes it, with a customer and his VMs.
    #[arg(long, value_name = "FILE", required_unless_present = "calibrate")]
    pub(crate) cluster: Option<PathBuf>,
    /// How to choose servers, separated by commas. Default: as the cluster file says.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) algorithm: Vec<Algorithm>,
    /// R, separated by commas, for the algorithms that have it. Default: as the cluster file says.
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    pub(crate) replicas: Vec<usize>,
    /// Policies, separated by commas: NAME is for bandwidth; RESOURCE=NAME+RESOURCE=NAME for several resources. Resources
    /// that are not named, and parameters, are as the cluster file says.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) policy: Vec<PolicySet>,
    /// Let a parameter take several values: speed, bandwidth, memory (these two as multiples of the cluster file's),
    /// replicas, interval, view-delay, lag (these three in seconds), dispatchers or sessions.
    #[arg(long, value_name = "PARAM=FROM:TO:STEP")]
    pub(crate) sweep: Option<Sweep>,
    /// Use so many seconds of the trace.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) seconds: Option<u64>,
    /// Play the recorded times this much faster.
    #[arg(long, default_value_t = 1.0)]
    pub(crate) speed: f64,
    /// How to spread requests within the trace's resolution.
    #[arg(long, value_enum, default_value = "poisson")]
    pub(crate) spread: Spread,
    /// Do not count the requests of the first so many seconds.
    #[arg(long, default_value_t = 0)]
    pub(crate) warm_up: u64,
    /// Clients give up after so many seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
    /// Closed loop: ignore recorded times; so many sessions each wait for an answer before they ask again.
    #[arg(long, conflicts_with = "speed")]
    pub(crate) sessions: Option<u32>,
    /// Closed loop: the mean time that a session thinks, exponentially distributed.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration, requires = "sessions")]
    pub(crate) think: Duration,
    /// How many dispatchers there are. Each counts its own requests alone.
    #[arg(long, default_value_t = 1)]
    pub(crate) dispatchers: usize,
    /// After how long the last of the dispatchers hears of a server's failure or return.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) view_delay: Duration,
    /// How long after a decision the actuators act.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) actuator_lag: Duration,
    /// What goes wrong: NAME:WHAT@FROM..UNTIL, where WHAT is down (a VM or a host), stuck-RESOURCE or stale. May be given
    /// more than once.
    #[arg(long = "fault", value_name = "FAULT")]
    pub(crate) faults: Vec<Fault>,
    /// What a request takes beyond all waiting, in milliseconds.
    #[arg(long, default_value_t = 0.3, value_parser = amount)]
    pub(crate) latency_ms: f64,
    /// What a disk read takes beside its transfer at 60 MB/s, in milliseconds.
    #[arg(long, default_value_t = 8.5, value_parser = amount)]
    pub(crate) seek_ms: f64,
    /// What a request costs on one core, in milliseconds.
    #[arg(long, default_value_t = 0.0, value_parser = amount)]
    pub(crate) cpu_ms: f64,
    /// The most requests that a VM serves at once. Default: any number.
    #[arg(long)]
    pub(crate) mpl: Option<usize>,
    /// The seed of everything random.
    #[arg(long, default_value_t = 1998)]
    pub(crate) seed: u64,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Also write plots (SVG) into this folder.
    #[arg(long, value_name = "DIR")]
    pub(crate) plots: Option<PathBuf>,
    /// Instead: simulate what these results of `vibra demo --json`, separated by commas, measured, and say how far off each
    /// row is. A request's latency is fitted to the first; runs of the same seed and length are taken together.
    #[arg(long, value_delimiter = ',', value_name = "FILES", conflicts_with_all = ["trace", "cluster", "sweep", "plots"])]
    pub(crate) calibrate: Vec<PathBuf>,
}

/// Options of `whatif`.
#[derive(Debug, Args)]
pub(crate) struct Whatif {
    /// The access log, or `worldcup` or `youtube` for a generated trace.
    pub(crate) log: String,
    /// World Cup object map, `id url` a line, where the log is in that format.
    #[arg(long, value_name = "FILE")]
    pub(crate) objects: Option<PathBuf>,
    /// What an answer has where the log does not say, as logs of video requests do not. Default: nothing.
    #[arg(long, value_name = "SIZE")]
    pub(crate) object_size: Option<Bytes>,
    /// What chooses servers now, with a fixed share of the bandwidth for each: the others are compared with it.
    #[arg(long, default_value = "least-connection")]
    pub(crate) now: Algorithm,
    /// How many servers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) servers: u32,
    /// What all of them may send together. Default: a quarter more than the log's peak of ten seconds.
    #[arg(long)]
    pub(crate) bandwidth: Option<BytesPerSec>,
    /// The memory of each. Default: 16 MiB and room for the working set twice among them all.
    #[arg(long)]
    pub(crate) memory: Option<Bytes>,
    /// How long a stretch of the log to simulate.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    pub(crate) seconds: u64,
    /// How often to simulate it, each time with other arrivals within the steps of the log's clock.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1998)]
    pub(crate) seed: u64,
    /// Also write the result to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// An amount of something, up to a million.
fn amount(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1e6).contains(number));
    number.ok_or_else(|| format!("{text:?} is no amount: use 0 to 1000000"))
}

/// Subcommands of `trace`.
#[derive(Debug, Subcommand)]
pub(crate) enum Trace {
    /// Write a trace in another format.
    Convert {
        /// The trace to read.
        input: PathBuf,
        /// The file to write: .vtr (compact) or .csv.
        output: PathBuf,
        /// World Cup object map, `id url` a line, where the input is in that format.
        #[arg(long)]
        objects: Option<PathBuf>,
    },
    /// Summarise a trace: requests, bytes, objects, and how each hash divides it (Table 3.1).
    Stat {
        /// The trace, or `worldcup` or `youtube`.
        trace: String,
        /// World Cup object map, `id url` a line, where the trace is in that format.
        #[arg(long)]
        objects: Option<PathBuf>,
        /// Into how many sub-namespaces to divide.
        #[arg(long, default_value_t = 4)]
        servers: usize,
        /// The seed of a generated trace.
        #[arg(long, default_value_t = 1998)]
        seed: u64,
    },
    /// Print the notice under which data of the World Cup site is built into this program.
    Notice,
    /// Generate a trace.
    Generate {
        /// Which: `worldcup` (a reconstruction of 1998-06-30 18:10-18:20) or `youtube`.
        kind: String,
        /// The file to write: .vtr (compact) or .csv.
        output: PathBuf,
        /// The seed.
        #[arg(long, default_value_t = 1998)]
        seed: u64,
        /// YouTube: multiply files, requests and bytes by this.
        #[arg(long, default_value_t = 1.0)]
        scale: f64,
    },
}

/// Subcommands of `bench`.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Compare one dispatcher thread with HAProxy and nginx: CPU time, latency, memory.
    ///
    /// Starts this dispatcher, HAProxy and nginx, each on a core of its own (core 0, one at a time under load) in front of
    /// the same two origin servers, and gives each the same load from core 1, in interleaved rounds. This dispatcher runs
    /// as in production: url-hash over R = 2 servers, health checks, metrics, an access log. The peers are tuned for speed and write no
    /// log.
    ///
    /// Each row compares the dispatcher with the better of the two in that row. A ratio above 1 means that the dispatcher
    /// is worse, whatever the row measures. It is the median over the rounds, with a 95 % bootstrap interval, and is held
    /// against the project's promise ("at most"). A verdict with a question mark says that the interval holds the limit:
    /// run more rounds.
    ///
    /// Everything together takes about 22 minutes with the usual 10 rounds, and wants a machine of two cores that does
    /// nothing else. Needs the Debian packages haproxy, nginx-light, wrk, nghttp2-client, openssl and util-linux.
    #[command(after_help = "Examples:\n  \
        vibra bench proxy --quick                        a look at everything, about 5 minutes\n  \
        vibra bench proxy --only cpu --sizes 128         the CPU time of small requests\n  \
        vibra bench proxy --only latency,churn --rounds 20 --json out.json\n  \
        vibra bench proxy --only h2 --merge --json out.json   that row anew, and the others as they were\n\n\
        Exit codes: 0 every promise is met, 3 one is missed, 4 a measurement failed and means nothing.")]
    Proxy(BenchProxy),
    /// Draw the papers' figures of the policies anew, from the same code that runs live, beside the papers' numbers.
    ///
    /// Each figure is a table, with a check for each number that its paper states: what the paper has, what was measured,
    /// and whether that is within what is asked for. Everything is computed or simulated, and seeded: the same seed gives the
    /// same figures.
    #[command(after_help = "Examples:\n  \
        vibra bench policies --list                      which figures there are\n  \
        vibra bench policies --only fvm-3                one of them\n  \
        vibra bench policies --quick                     a look at everything\n  \
        vibra bench policies --out docs/figures/raw/policies\n\n\
        Exit codes: 0 everything stated is reached, 3 something is not, 4 a figure failed.")]
    Policies(BenchPolicies),
}

/// Options of `bench policies`.
#[derive(Debug, Args)]
pub(crate) struct BenchPolicies {
    /// Which figures, separated by commas: ids, or beginnings of ids such as fvm. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub(crate) only: Vec<String>,
    /// Shorter runs and fewer points: for a look, not for a result.
    #[arg(long)]
    pub(crate) quick: bool,
    /// List the figures and what their papers state, and run none.
    #[arg(long)]
    pub(crate) list: bool,
    /// Also write each figure's raw result (ID.json), its table (ID.txt) and its plots (ID.1.svg, …) into this folder, and
    /// report.html, which ties them together.
    #[arg(long, value_name = "DIR", conflicts_with = "list")]
    pub(crate) out: Option<PathBuf>,
    /// The seed of everything random.
    #[arg(long, default_value_t = 1998)]
    pub(crate) seed: u64,
    /// The folder of traces that are not part of the project, for the figures real-…: bitbrains-rnd/ with the CSV files of
    /// GWA-T-12, planetlab/ with a folder a day. Without it these figures are left out.
    #[arg(long, value_name = "DIR")]
    pub(crate) traces: Option<PathBuf>,
}

/// Options of `figures`.
#[derive(Debug, Args)]
pub(crate) struct Figures {
    /// Which figures, separated by commas: ids, or table for all tables. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    pub(crate) only: Vec<String>,
    /// Shorter runs and fewer points: for a look, not for a result.
    #[arg(long)]
    pub(crate) quick: bool,
    /// List the figures and what the dissertation states, and run none.
    #[arg(long)]
    pub(crate) list: bool,
    /// Also write each figure's raw result (ID.json), its table (ID.txt) and its plots (ID.1.svg, …) into this folder, and
    /// report.html, which ties them together.
    #[arg(long, value_name = "DIR", conflicts_with = "list")]
    pub(crate) out: Option<PathBuf>,
    /// Use in-process servers even where network namespaces could be made.
    #[arg(long)]
    pub(crate) in_process: bool,
    /// The most rounds in which measurements on VMs are repeated, until the 95 % confidence intervals are within 5 % of the means.
    /// One in a quick look.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
    /// The seed of traces, of arrival times within a second, and of everything else that is random.
    #[arg(long, default_value_t = 1998)]
    pub(crate) seed: u64,
    /// Instead: what Table 3.2 asks a process of its own.
    #[arg(long, hide = true)]
    pub(crate) footprint: Option<usize>,
}

/// Options of `bench proxy`.
#[derive(Debug, Args)]
pub(crate) struct BenchProxy {
    /// What to measure, separated by commas. Default: everything.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "CELLS")]
    pub(crate) only: Vec<crate::bench::cells::Kind>,
    /// Body sizes in bytes, of the cells `cpu` and `latency`.
    #[arg(long, value_delimiter = ',', value_name = "BYTES", default_value = "128,10240,102400,1048576")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub(crate) sizes: Vec<u64>,
    /// 3 rounds of 1 s, unless told otherwise: for a look, not for a result.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Rounds; each runs every proxy once, in changing order. Default: 10.
    #[arg(long, value_parser = clap::value_parser!(u64).range(2..=1000))]
    pub(crate) rounds: Option<u64>,
    /// How long each proxy runs in a cell and round, in seconds. Default: 2.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: Option<u64>,
    /// Keep-alive connections of the closed loops.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=4096))]
    pub(crate) connections: u64,
    /// Hold every promised ratio against this limit instead.
    #[arg(long, value_name = "RATIO")]
    pub(crate) max_ratio: Option<f64>,
    /// Also write the comparison, the raw results and the proxies' configurations to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Keep what that file holds of other cells: what is measured now takes the place of the same cells there.
    #[arg(long, requires = "json")]
    pub(crate) merge: bool,
}

//! The one command of Vibra: configuration, composition of the parts, the demo and the benchmarks.

mod bench;
mod cli;
mod commands;
mod config;
mod demo;
mod exit;
mod figure;
mod figures;
mod live;
mod parts;
mod progress;
mod simulate;
mod whatif;

use clap::Parser;
use cli::{Cli, Command};
use exit::Outcome;
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::EnvFilter;

/// The commit that this program was built from, where that was known.
const COMMIT: Option<&str> = option_env!("VIBRA_COMMIT");

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Logs go to standard error, so that results on standard output can be piped; RUST_LOG says how much. The demo and the
    // figures overload servers on purpose, and warnings of that would tear its progress bar. What operators change is always told.
    let usual =
        if matches!(cli.command, Command::Demo(_) | Command::Figures(_)) { "error" } else { "warn,operator=info" };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(usual));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr).init();
    parts::raise_descriptor_limit();
    if let Err(error) = parts::takeover::note_program() {
        tracing::warn!("this process cannot be upgraded: {error}");
    }
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Check(args) => commands::check::run(&args.config),
        Command::Explain(args) => commands::explain::run(&args),
        Command::ReplayDecisions(args) => commands::replay_decisions::run(&args),
        Command::Replay(args) => commands::replay::run(&args),
        Command::Simulate(args) => simulate::run(&args),
        Command::Whatif(args) => whatif::run(&args),
        Command::Trace(command) => commands::trace::run(command),
        Command::Bench(cli::Bench::Proxy(args)) => bench::proxy::run(&args),
        Command::Bench(cli::Bench::Policies(args)) => bench::policies::run(&args),
        Command::Figures(args) => figures::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Dispatcher(args) => commands::dispatcher::run(&args),
        Command::Up(args) => commands::up::up(&args),
        Command::Directory(args) => commands::up::directory(&args.config),
        Command::Allocator(args) => commands::up::allocator(&args.config),
        Command::Agent(args) => commands::up::agent(&args),
        Command::Status(args) => commands::status::run(&args),
    }
}

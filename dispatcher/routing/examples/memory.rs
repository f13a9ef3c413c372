//! The memory that a dispatcher needs for each distinct object (Table 3.2), as growth of this process's resident set.
//!
//! `cargo run --release -p vibra-routing --example memory [OBJECTS]`; 90,000 objects, the number of the table, unless
//! told otherwise. One line of JSON an algorithm; each is measured in a process of its own.

use std::{env, fs, process::Command};
use vibra_model::{Revision, Timestamp, VmState};
use vibra_routing::*;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = env::args().skip(1);
    let first = args.next().unwrap_or_else(|| "90000".into());
    if let Ok(algorithm) = first.parse::<Algorithm>() {
        let objects = args.next().ok_or("say how many objects")?.parse()?;
        return measure(algorithm, objects);
    }
    let objects: usize = first.parse()?;
    for algorithm in Algorithm::ALL {
        let status = Command::new(env::current_exe()?).args([algorithm.name(), &objects.to_string()]).status()?;
        if !status.success() {
            return Err(format!("{algorithm}: {status}").into());
        }
    }
    Ok(())
}

/// Picks for `objects` objects and prints how the resident set has grown.
fn measure(algorithm: Algorithm, objects: usize) -> Result<(), Failure> {
    let server = |i| Ok::<_, Failure>(Server::new(format!("vm{i}").parse()?, 1, VmState::Up));
    let servers = (1..=4).map(server).collect::<Result<_, _>>()?;
    let settings = Settings { algorithm, hash: HashKind::Charsum, ..Settings::default() };
    let table = Table::build(&Cluster { revision: Revision(1), servers }, &settings)?;
    let mut state = PickState::default();
    // What does not depend on the number of objects is in place after one.
    table.pick(&mut state, "/", &Idle, Timestamp(0));
    let before = resident_pages()?;
    for i in 0..objects {
        table.pick(&mut state, &format!("/english/competition/statistics/{i:08}"), &Idle, Timestamp(0));
    }
    let pages = resident_pages()?.saturating_sub(before);
    let bytes = (pages * 4096) as f64 / objects as f64;
    println!(
        r#"{{"algorithm":"{algorithm}","objects":{objects},"pages":{pages},"bytes_per_object":{bytes:.1},"remembered":{}}}"#,
        state.objects()
    );
    Ok(())
}

/// The resident set in pages of 4 KiB.
fn resident_pages() -> Result<usize, Failure> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    Ok(statm.split_whitespace().nth(1).ok_or("no resident set in /proc/self/statm")?.parse()?)
}

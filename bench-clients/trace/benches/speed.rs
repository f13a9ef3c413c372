//! How fast traces are read, written and made.
//!
//! `cargo bench -p vibra-trace` (needs no more than this repository and some 300 MB of memory).

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use std::io::Cursor;
use std::path::Path;
use std::sync::LazyLock;
use vibra_trace::generate::worldcup::WorldCup;
use vibra_trace::generate::youtube::YouTube;
use vibra_trace::{Format, Options, Reader, Trace, compact};

/// The ten-minute window: 1,483,126 requests.
static WINDOW: LazyLock<Trace> = LazyLock::new(|| WorldCup { seed: 1 }.generate());

fn main() {
    divan::main();
}

fn traces() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces")
}

/// Reads by stream and counts the requests.
fn stream(bencher: Bencher<'_, '_>, bytes: Vec<u8>, format: Format) {
    let options = Options { format: Some(format), ..Options::default() };
    let open = |bytes: Vec<u8>| Reader::new(Cursor::new(bytes), "x", &options).expect("a trace");
    let requests = open(bytes.clone()).flatten().count();
    bencher.counter(ItemsCount::new(requests)).with_inputs(|| bytes.clone()).bench_values(|bytes| {
        black_box(open(bytes).flatten().count());
    });
}

#[divan::bench(sample_count = 10)]
fn read_world_cup(bencher: Bencher<'_, '_>) {
    let log = std::fs::read(traces().join("worldcup98/wc_day50_4.head.bin")).expect("the sample");
    stream(bencher, log.repeat(100), Format::WorldCup);
}

#[divan::bench(sample_count = 10)]
fn read_compact(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    compact::write(&WINDOW, &mut bytes).expect("memory");
    stream(bencher, bytes, Format::Compact);
}

#[divan::bench(sample_count = 10)]
fn read_csv(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("x.csv");
    WINDOW.save(&path, Format::Csv).expect("a file");
    stream(bencher, std::fs::read(path).expect("a file"), Format::Csv);
}

#[divan::bench(sample_count = 10)]
fn read_apache_gzipped(bencher: Bencher<'_, '_>) {
    stream(bencher, std::fs::read(traces().join("apache/access.head.log.gz")).expect("the sample"), Format::Log);
}

#[divan::bench(sample_count = 10)]
fn load_compact(bencher: Bencher<'_, '_>) {
    let mut bytes = Vec::new();
    compact::write(&WINDOW, &mut bytes).expect("memory");
    let open = |bytes: Vec<u8>| Reader::new(Cursor::new(bytes), "x", &Options::default()).expect("a trace").read_all();
    bencher.counter(ItemsCount::new(WINDOW.requests.len())).with_inputs(|| bytes.clone()).bench_values(open);
}

#[divan::bench(sample_count = 10)]
fn write_compact(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(WINDOW.requests.len())).bench(|| compact::write(&WINDOW, std::io::sink()));
}

#[divan::bench(sample_count = 5)]
fn generate_world_cup(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(WINDOW.requests.len())).bench(|| WorldCup { seed: black_box(1) }.generate());
}

#[divan::bench(sample_count = 10)]
fn generate_youtube(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(4_000u32)).bench(|| YouTube::of_dissertation(black_box(1)).generate());
}

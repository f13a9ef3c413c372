//! What a line of the access log costs the thread that serves the request.
//!
//! `cargo bench -p vibra-proxy --bench log`, per 1,000 lines. `line` is the formatting alone, `logged` with the way to the writer.

use divan::{Bencher, black_box, counter::ItemsCount};
use vibra_model::{Timestamp, VmId};
use vibra_proxy::log::{
    End, Format, Formatter, Hop, Log, Phases, Record, RequestLine, Skipped, SpanId, Target, TraceId,
};

const FORMATS: [Format; 2] = [Format::Combined, Format::Json];

/// In a row: a single one is too short to be measured.
const LINES: usize = 1000;

fn main() {
    divan::main();
}

/// As a browser would send it; the first server was not there.
fn with_record(run: impl FnOnce(&Record<'_>)) {
    let [first, second]: [VmId; 2] = ["web-1", "web-2"].map(|name| name.parse().expect("an id"));
    let trace = TraceId::new(0x4bf92f3577b34da6a3ce929d0e0e4736).expect("not 0");
    let span = SpanId::new(0x00f067aa0ba902b7).expect("not 0");
    run(&Record {
        client: "203.0.113.77",
        time: Timestamp(1_795_260_303_000_042),
        request: Some(RequestLine {
            method: b"GET",
            target: b"/english/competition/statistics/page.htm?lang=en",
            version: "HTTP/1.1",
        }),
        status: Some(200),
        sent: 10_240,
        received: 0,
        referer: Some(b"https://shop.example/english/competition/"),
        user_agent: Some(
            b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
        ),
        host: Some(b"shop.example"),
        id: Some(b"00112233445566778899aabbccddeeff"),
        server: Some(&first),
        skipped: &[Skipped { server: &second, reason: "connect" }],
        attempts: 2,
        phases: Phases { queue: Some(0), connect: Some(210), first_byte: Some(1530), total: Some(1822) },
        end: End::Complete,
        tls: Some("TLSv1.3"),
        trace: Some(Hop::new(trace, span, Some(span))),
    });
}

#[divan::bench(args = FORMATS)]
fn line(bencher: Bencher<'_, '_>, format: Format) {
    let (mut formatter, mut lines) = (Formatter::new(format), Vec::new());
    with_record(|record| {
        bencher.counter(ItemsCount::new(LINES)).bench_local(|| {
            for _ in 0..LINES {
                lines.clear();
                formatter.append(black_box(record), &mut lines);
            }
        });
    });
}

/// Written to `/dev/null`: a disk's speed is no part of this.
#[divan::bench(args = FORMATS)]
fn logged(bencher: Bencher<'_, '_>, format: Format) {
    let log = Log::write(Target::File("/dev/null".into()), format).expect("opened");
    let mut sink = log.sink();
    with_record(|record| {
        bencher.counter(ItemsCount::new(LINES)).bench_local(|| {
            for _ in 0..LINES {
                sink.log(black_box(record));
            }
        });
    });
}

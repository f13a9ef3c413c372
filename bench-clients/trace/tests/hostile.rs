//! Input that is damaged, or no trace at all: it costs no more than itself.

use flate2::{Compression, Crc, write::GzEncoder};
use proptest::prelude::*;
use std::io::{Cursor, Write};
use vibra_trace::{DefectClass, Format, Options, Reader, stat, subsets};

fn reader(bytes: Vec<u8>, format: Option<Format>) -> Result<Reader, vibra_trace::Error> {
    Reader::new(Cursor::new(bytes), "x", &Options { format, ..Options::default() })
}

proptest! {
    /// Any bytes, read as any format, end without a panic, and each record is either a request or a defect with its place.
    #[test]
    fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..2000), format in 0..Format::ALL.len()) {
        let length = bytes.len() as u64;
        let Ok(reader) = reader(bytes, Some(Format::ALL[format])) else { return Ok(()) };
        let (trace, defects) = reader.read_all();
        prop_assert!(trace.requests.is_sorted_by_key(|request| request.at));
        prop_assert!(defects.first().iter().all(|defect| defect.offset <= length));
    }

    /// Blocks of the compact format whose checksums are right, with any numbers in them.
    #[test]
    fn any_blocks_can_be_read(
        resolution in number(),
        blocks in prop::collection::vec((0..4usize, prop::collection::vec(number(), 0..12)), 0..12),
    ) {
        let header = block(b'H', &[&[1, b'n', 0], &*varint(resolution), &[0, 0]].concat());
        let mut bytes = [&b"\x89VTR\r\n\x1a\x01"[..], &header].concat();
        for (kind, numbers) in blocks {
            let payload: Vec<u8> = match kind {
                // One object with this number and size; its URL differs from all others but by chance.
                0 => {
                    let (number, size) = (numbers.first().copied().unwrap_or(0), numbers.get(1).copied().unwrap_or(0));
                    let url = format!("/{}", bytes.len());
                    [varint(number), varint(1), varint(url.len() as u64), url.into_bytes(), varint(size)].concat()
                }
                _ => numbers.iter().flat_map(|&number| varint(number)).collect(),
            };
            bytes.extend(block(b"OSRE"[kind], &payload));
        }
        let (trace, _) = reader(bytes, Some(Format::Compact)).unwrap().read_all();
        prop_assert!(trace.requests.is_sorted_by_key(|request| request.at));
        let rows = subsets(&trace, 2, &str::len);
        prop_assert_eq!(rows.iter().map(|row| row.requests).sum::<u64>(), stat(&trace).requests);
        prop_assert!(trace.objects.total_bytes() >= trace.objects.iter().map(|(_, object)| object.size).max().unwrap_or(0));
    }

    /// Lines of a log with any byte exchanged.
    #[test]
    fn a_changed_byte_costs_one_line(at in 0..240usize, to: u8) {
        let line = "h - - [10/Oct/2000:13:55:36 -0700] \"GET /a HTTP/1.0\" 200 2326\n";
        let mut bytes = line.repeat(4).into_bytes();
        bytes[at] = to;
        let (trace, _) = reader(bytes, Some(Format::Log)).unwrap().read_all();
        prop_assert!(trace.requests.len() >= 2, "{}", trace.requests.len());
    }
}

/// Small numbers, and those at which sums overflow.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..4u64, Just(u32::MAX.into()), (u64::MAX - 2)..=u64::MAX]
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// A block of the compact format with its checksum.
fn block(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut crc = Crc::new();
    crc.update(&[kind]);
    crc.update(payload);
    [&[kind], &(payload.len() as u32).to_le_bytes()[..], &crc.sum().to_le_bytes(), payload].concat()
}

/// Two requests for two bytes fewer than a u64 can count.
#[test]
fn sums_that_overflow_stop_at_their_end() {
    let csv = "offset,url,status,bytes\n1,/a,200,18446744073709551613\n2,/b,200,18446744073709551613\n";
    let (trace, _) = reader(csv.into(), None).unwrap().read_all();
    assert_eq!((stat(&trace).bytes, stat(&trace).distinct_bytes), (u64::MAX, u64::MAX));
    assert_eq!(trace.objects.total_bytes(), u64::MAX);
}

fn record(time: u32, method: u8) -> Vec<u8> {
    let words = [time, 1, 2, 300].map(u32::to_be_bytes).concat();
    [words, vec![method, 2, 1, 0]].concat()
}

#[test]
fn world_cup_records_are_judged_one_by_one() {
    const TIME: u32 = 897_861_223;
    let mut bytes =
        [record(TIME, 0), record(TIME, 0), record(TIME, 77), record(5, 0), record(TIME - 1, 0), record(TIME + 1, 0)]
            .concat();
    bytes.truncate(bytes.len() - 3);
    let mut reader = reader(bytes, None).unwrap();
    assert_eq!(reader.format(), Format::WorldCup);
    let streamed: Vec<String> = reader
        .by_ref()
        .map(|next| match next {
            Ok(request) => format!("{:?}", request.at),
            Err(defect) => format!("{} at {}", defect.class, defect.offset),
        })
        .collect();
    assert_eq!(
        streamed,
        ["0ns", "0ns", "broken at 40", "implausible time at 60", "out of order at 80", "truncated at 100"]
    );
    assert_eq!(reader.defects().count(DefectClass::OutOfOrder), 1);
}

/// The first record's clock was wrong: the trace begins with the second.
#[test]
fn a_wrong_first_time_does_not_move_the_trace() {
    let csv = "time,url\n9,/a\n1000000000,/b\n1000000001,/c\n1000000000.5,/d\n";
    let (trace, defects) = reader(csv.into(), None).unwrap().read_all();
    let times: Vec<f64> = trace.requests.iter().map(|request| request.at.as_secs_f64()).collect();
    assert_eq!(times, [0.0, 0.5, 1.0]);
    assert_eq!(trace.start.unwrap().0, 1_000_000_000_000_000);
    assert_eq!((defects.count(DefectClass::ImplausibleTime), defects.count(DefectClass::OutOfOrder)), (1, 1));
    assert_eq!(defects.first()[0].offset, 9);
}

/// A record earlier than the first second of the stream is sorted in when the trace is loaded.
#[test]
fn early_records_are_kept_by_loading() {
    let csv = "time,url\n100,/a\n101,/b\n102,/c\n40,/d\n103,/e\n";
    let (trace, _) = reader(csv.into(), None).unwrap().read_all();
    assert_eq!(trace.requests.iter().map(|request| request.at.as_secs()).collect::<Vec<_>>(), [0, 60, 61, 62, 63]);
    let streamed: Vec<bool> = reader(csv.into(), None).unwrap().map(|next| next.is_ok()).collect();
    assert_eq!(streamed, [true, true, true, false, true]);
}

#[test]
fn a_cut_gzip_is_told_and_the_rest_is_used() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(b"time,url\n").unwrap();
    gzip.write_all("7,/a\n".repeat(50_000).as_bytes()).unwrap();
    let mut bytes = gzip.finish().unwrap();
    bytes.truncate(bytes.len() / 2);
    let (trace, defects) = reader(bytes, None).unwrap().read_all();
    assert!(trace.requests.len() > 20_000, "{}", trace.requests.len());
    assert_eq!((defects.total(), defects.count(DefectClass::Unreadable)), (1, 1), "{defects}");
}

#[test]
fn a_last_line_that_is_cut_is_told() {
    let (trace, defects) = reader("time,url,bytes\n1,/a,5\n2,/b".into(), None).unwrap().read_all();
    assert_eq!((trace.requests.len(), defects.count(DefectClass::Truncated)), (1, 1));
    assert_eq!(defects.first()[0].offset, 22);
}

#[test]
fn what_is_no_trace_is_refused() {
    for bytes in [&b""[..], b"hello\nworld\n", &[0; 1000], b"{\"a\": 1}"] {
        let error = reader(bytes.to_vec(), None).err().unwrap().to_string();
        assert!(error.contains("no known format"), "{error}");
    }
}

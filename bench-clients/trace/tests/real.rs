//! The real traces in `traces/`, whose counts are known.

use std::path::{Path, PathBuf};
use std::time::Duration;
use vibra_trace::{DefectClass, Defects, Format, Method, Options, Reader, Stat, Trace, stat};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../traces").join(name)
}

fn load(name: &str, format: Format) -> (Trace, Defects, Stat) {
    let reader = Reader::open(&file(name), &Options::default()).unwrap();
    assert_eq!(reader.format(), format, "{name}");
    let (trace, defects) = reader.read_all();
    assert!(trace.requests.is_sorted_by_key(|request| request.at), "{name}");
    let stat = stat(&trace);
    (trace, defects, stat)
}

#[test]
fn world_cup_without_and_with_its_map() {
    let (trace, defects, stat) = load("worldcup98/wc_day50_4.head.bin", Format::WorldCup);
    assert_eq!(defects.total(), 0, "{defects}");
    assert_eq!((stat.requests, stat.clients, stat.objects, stat.bytes), (10_000, 1_026, 1_244, 47_458_780));
    // 1998-06-14 21:53:43 to 21:54:25 UTC.
    assert_eq!(trace.start.unwrap().0, 897_861_223_000_000);
    assert_eq!(trace.duration(), Duration::from_secs(43));
    assert_eq!(
        (stat.statuses[&200], stat.statuses[&304], stat.statuses[&404], stat.statuses[&206]),
        (8_828, 1_102, 61, 7)
    );

    let map = Some(file("worldcup98/object_mappings.head.txt"));
    let options = Options { object_map: map, ..Options::default() };
    let (mapped, _) = Trace::open(&file("worldcup98/wc_day50_4.head.bin"), &options).unwrap();
    assert_eq!(mapped.requests, trace.requests);
    let splash = mapped.objects.find("/english/splash_inet.html").unwrap();
    assert_eq!(mapped.objects[splash].size, 55_202);
    assert_eq!(mapped.requests.iter().filter(|request| request.object == splash).count(), 121);
    assert!(mapped.objects.iter().all(|(_, object)| !object.url.starts_with("/object/")));
}

#[test]
fn apache_combined() {
    let (trace, defects, stat) = load("apache/access.head.log.gz", Format::Log);
    assert_eq!((stat.requests, stat.clients, stat.objects), (2_000, 409, 644));
    assert_eq!((defects.total(), defects.count(DefectClass::OutOfOrder)), (983, 983));
    // 2015-05-17 10:05:00 UTC, three seconds before the first line's.
    assert_eq!(trace.start.unwrap().0, 1_431_857_100_000_000);
    assert_eq!(trace.requests.iter().filter(|request| request.method == Method::Head).count(), 7);
    assert_eq!((stat.bytes, stat.unlogged), (440_646_553, 73));
}

#[test]
fn nasa() {
    let (trace, defects, stat) = load("nasa/nasa_19950801.head.tsv.gz", Format::Nasa);
    assert_eq!(defects.total(), 0, "{defects}");
    assert_eq!((stat.requests, stat.clients, stat.objects), (2_000, 205, 476));
    assert_eq!(trace.start.unwrap().0, 807_256_800_000_000);
    assert_eq!((stat.unlogged, stat.bytes), (0, 37_421_542));
}

/// The last record has a time of 1988, two others are hours early.
#[test]
fn youtube_with_wrong_clocks() {
    let (trace, defects, stat) = load("youtube/youtube.parsed.012908.S1.tail.dat.gz", Format::YouTube);
    assert_eq!(defects.count(DefectClass::ImplausibleTime), 1, "{defects}");
    assert_eq!(defects.count(DefectClass::OutOfOrder), 2, "{defects}");
    assert_eq!(defects.total(), 3, "{defects}");
    assert_eq!((stat.requests, stat.unlogged), (1_999, 1_999));
    assert_eq!((stat.clients, stat.objects), (944, 1_286));
    assert_eq!(trace.resolution, Duration::from_micros(1));
    assert!(trace.duration() < Duration::from_secs(86_400), "{:?}", trace.duration());
}

//! The compact format: it keeps all, and shows every damage.

use proptest::prelude::*;
use std::time::Duration;
use vibra_model::Timestamp;
use vibra_trace::{
    DefectClass, Defects, Format, Method, ObjectId, Objects, Options, Origin, Reader, Request, Trace, compact, convert,
};

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        Just(Origin::Recorded),
        any::<u64>().prop_map(|seed| Origin::Reconstruction { seed }),
        any::<u64>().prop_map(|seed| Origin::Synthetic { seed }),
    ]
}

fn objects() -> impl Strategy<Value = Objects> {
    prop::collection::vec((".{0,30}", any::<u64>()), 1..20).prop_map(|list| {
        let mut objects = Objects::new();
        for (url, size) in list {
            let id = objects.intern(&url);
            objects.set_size(id, size);
        }
        objects
    })
}

fn request() -> impl Strategy<Value = (Request, prop::sample::Index)> {
    let fields =
        (any::<u64>(), any::<u32>(), any::<prop::sample::Index>(), any::<Option<u64>>(), 0..10usize, any::<u16>());
    fields.prop_map(|(at, client, object, bytes, method, status)| {
        let (at, bytes, method) = (Duration::from_nanos(at), bytes.into(), Method::ALL[method]);
        (Request { at, client, object: ObjectId(0), bytes, method, status }, object)
    })
}

prop_compose! {
    fn trace()(
        (name, origin, objects) in (".{0,30}", origin(), objects()),
        start in prop::option::of(any::<u64>().prop_map(Timestamp)),
        (seconds, nanos) in (any::<u32>(), 0..1_000_000_000u32),
        list in prop::collection::vec(request(), 0..50),
    ) -> Trace {
        let mut requests: Vec<Request> = list
            .into_iter()
            .map(|(request, index)| Request { object: ObjectId(index.index(objects.len()) as u32), ..request })
            .collect();
        requests.sort_by_key(|request| request.at);
        Trace { name, origin, start, resolution: Duration::new(seconds.into(), nanos), objects, requests }
    }
}

fn written(trace: &Trace) -> Vec<u8> {
    let mut bytes = Vec::new();
    compact::write(trace, &mut bytes).unwrap();
    bytes
}

fn read(bytes: Vec<u8>) -> (Trace, Defects) {
    let reader = Reader::new(std::io::Cursor::new(bytes), "x", &Options::default()).unwrap();
    assert_eq!(reader.format(), Format::Compact);
    reader.read_all()
}

proptest! {
    #[test]
    fn a_trace_comes_back_as_it_was(trace in trace()) {
        let (back, defects) = read(written(&trace));
        prop_assert_eq!(defects.total(), 0);
        prop_assert_eq!(back, trace);
    }

    /// What is cut off is told, and what is left is a part of the trace.
    #[test]
    fn a_cut_is_seen(trace in trace(), at in any::<prop::sample::Index>()) {
        let mut bytes = written(&trace);
        bytes.truncate(at.index(bytes.len()));
        let Ok(reader) = Reader::new(std::io::Cursor::new(bytes), "x.vtr", &Options::default()) else { return Ok(()) };
        let (back, defects) = reader.read_all();
        prop_assert_eq!(defects.count(DefectClass::Truncated), 1, "{}", defects);
        prop_assert!(trace.requests.starts_with(&back.requests));
    }

    /// A changed byte is told, whichever it is.
    #[test]
    fn a_changed_byte_is_seen(trace in trace(), at in any::<prop::sample::Index>(), change in 1..=255u8) {
        let mut bytes = written(&trace);
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        let Ok(reader) = Reader::new(std::io::Cursor::new(bytes), "x.vtr", &Options::default()) else { return Ok(()) };
        let (_, defects) = reader.read_all();
        prop_assert!(defects.total() > 0);
    }
}

/// Three blocks of requests; the second one is damaged.
#[test]
fn a_damaged_block_costs_itself_only() {
    let mut objects = Objects::new();
    let object = objects.intern("/a");
    let request = |second| Request {
        at: Duration::from_secs(second),
        client: 1,
        object,
        bytes: 5.into(),
        method: Method::Get,
        status: 200,
    };
    let requests: Vec<Request> = (0..20_000).map(request).collect();
    let resolution = Duration::from_secs(1);
    let trace = Trace { name: "n".into(), origin: Origin::Recorded, start: None, resolution, objects, requests };
    let mut bytes = written(&trace);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let (back, defects) = read(bytes);
    let lost = trace.requests.len() - back.requests.len();
    assert_eq!(lost, 8192);
    assert_eq!(back.requests[8191], trace.requests[8191]);
    assert_eq!(back.requests[8192], trace.requests[8192 + lost]);
    assert_eq!(defects.count(DefectClass::Broken), 2, "{defects}");
    assert!(defects.to_string().contains("11808 of 20000 requests"), "{defects}");
}

#[test]
fn later_versions_are_refused() {
    let mut bytes = written(&Reader::new(&b"time,url\n1,/\n"[..], "x", &Options::default()).unwrap().read_all().0);
    bytes[7] = 2;
    let error = Reader::new(std::io::Cursor::new(bytes), "x", &Options::default()).err().unwrap().to_string();
    assert!(error.contains("version 2"), "{error}");
}

/// Sizes and the clock's step are known only at the end of a CSV, and still arrive.
#[test]
fn a_conversion_by_stream_is_that_of_the_whole() {
    let csv = "time,client,url,status,bytes\n5,a,/a,304,0\n5.5,b,/b,200,7\nbroken\n6,a,/a,200,90\n6.25,a,/a,200,40\n";
    let open = || Reader::new(csv.as_bytes(), "x.csv", &Options::default()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for (name, format) in [("x.vtr", Format::Compact), ("x.vtr.gz", Format::Compact), ("y.csv", Format::Csv)] {
        let path = directory.path().join(name);
        let converted = convert(open(), &path, format).unwrap();
        assert_eq!((converted.requests, converted.defects.total()), (4, 1));
        let (back, defects) = Trace::open(&path, &Options::default()).unwrap();
        assert_eq!(defects.total(), 0, "{defects}");
        let (whole, _) = open().read_all();
        assert_eq!(Trace { name: "x.csv".into(), ..back }, whole, "{name}");
        whole.save(&path, format).unwrap();
        let (back, _) = Trace::open(&path, &Options::default()).unwrap();
        assert_eq!(Trace { name: "x.csv".into(), ..back }, whole, "{name}");
    }
    let refused = convert(open(), &directory.path().join("x.log"), Format::Log).unwrap_err().to_string();
    assert!(refused.contains("compact"), "{refused}");
}

#[test]
fn a_trace_can_be_converted_in_place_and_a_failure_leaves_it_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.csv");
    let rows: String = (0..20_000).map(|time| format!("{time},/{time},200,7\n")).collect();
    std::fs::write(&path, format!("time,url,status,bytes\n{rows}")).unwrap();
    let open = || Reader::open(&path, &Options::default()).unwrap();
    convert(open(), &path, Format::Log).unwrap_err();
    assert_eq!(convert(open(), &path, Format::Compact).unwrap().requests, 20_000);
    assert_eq!(open().read_all().0.requests.len(), 20_000);
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
}

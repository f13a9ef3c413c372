//! What the trace says by itself (section 3.5.1): Table 3.1, Figures 3.4 and 3.5.

use crate::figure::{Cell, Check, Figure, Heading, Line, Measured, Panel, Run, Wanted};
use vibra_report::{Axis, mean};
use vibra_routing::HashKind;
use vibra_trace::{
    ObjectId, Subset, Trace,
    generate::worldcup::{HOT, WorldCup, history},
    stat, subsets,
};

pub(super) const FIGURES: &[Figure] = &[
    Figure {
        id: "table-3.1",
        title: "Statistics of each subset of requests under different dispatching algorithms",
        paper: "Table 3.1: hashing reduces the distinct objects of a server from 2,800 to 1,160 and divides requests and bytes \
                unevenly, whichever hash is used; under Charsum sub-namespace 2 has 64 % of the bytes.",
        make: subset_statistics,
    },
    Figure {
        id: "3.4",
        title: "Distribution of the throughput over objects, by their contribution",
        paper: "Figure 3.4: in sub-namespace 2 eight files make 90 % of the bytes; the English splash screen alone makes 37 % of \
                them, 24 % of all. The distributions of the sub-namespaces differ; under round-robin they would be alike.",
        make: contributions,
    },
    Figure {
        id: "3.5",
        title: "Throughput of each sub-namespace over eight hours, under Charsum",
        paper: "Figure 3.5: the hot spot moves from sub-namespace 2, which has the splash screens and the afternoon's game, to \
                sub-namespace 1, which has the evening's.",
        make: eight_hours,
    },
];

/// Servers and sub-namespaces.
const N: usize = 4;

/// Table 3.1 as printed: of each subset percent of the requests and of the bytes, distinct objects and their megabytes.
const TABLE: [(&str, [[f64; N]; 4]); 4] = [
    ("round-robin", [[25.0; N], [25.0; N], [2821.0, 2766.0, 2833.0, 2803.0], [34.0, 34.0, 33.0, 27.0]]),
    (
        "charsum",
        [
            [27.0, 27.0, 20.0, 26.0],
            [14.0, 64.0, 10.0, 12.0],
            [1167.0, 1159.0, 1143.0, 1187.0],
            [15.0, 13.0, 14.0, 14.0],
        ],
    ),
    (
        "md5",
        [
            [29.0, 17.0, 28.0, 26.0],
            [39.0, 25.0, 16.0, 19.0],
            [1179.0, 1156.0, 1164.0, 1157.0],
            [11.0, 12.0, 16.0, 17.0],
        ],
    ),
    (
        "sha1",
        [
            [27.0, 22.0, 24.0, 27.0],
            [45.0, 15.0, 25.0, 15.0],
            [1170.0, 1159.0, 1198.0, 1129.0],
            [20.0, 13.0, 13.0, 11.0],
        ],
    ),
];

/// What holds for all figures made from it.
const RECONSTRUCTION: &str = "The ten minutes 18:10-18:20 (GMT+2) of 1998-06-30, reconstructed: requests and bytes by minute are the \
    log's, what falls on each sub-namespace under Charsum is made to agree with Table 3.1, and the hot files with section 3.5.1 \
    (and through them roughly with the bytes of MD5 and SHA-1). ";

fn trace(run: &Run) -> Trace {
    WorldCup { seed: run.seed }.generate()
}

fn subset_statistics(run: &Run) -> anyhow::Result<Measured> {
    let trace = trace(run);
    let hashed = |kind: HashKind| subsets(&trace, N, &move |name| (kind.of(name) % N as u64) as usize);
    let parts = [in_turn(&trace), hashed(HashKind::Charsum), hashed(HashKind::Md5), hashed(HashKind::Sha1)];
    let parts: Vec<[[f64; N]; 4]> = parts.iter().map(|parts| numbers(parts)).collect();
    let mut rows = Vec::new();
    for ((name, paper), here) in TABLE.iter().zip(&parts) {
        for subset in 0..N {
            let cells = (0..4).flat_map(|what| [here[what][subset].into(), paper[what][subset].into()]);
            rows.push([(*name).into(), ((subset + 1) as f64).into()].into_iter().chain(cells).collect());
        }
    }
    let columns = [("requests (%)", 1), ("bytes (%)", 1), ("objects", 0), ("their MB", 1)];
    let columns = columns
        .into_iter()
        .flat_map(|(name, decimals)| [Heading::numbers(name, decimals), Heading::numbers(format!("{name}, paper"), 0)]);
    let series = TABLE.iter().zip(&parts).map(|((name, _), here)| ((*name).to_owned(), here[1].map(Some).to_vec()));
    Ok(Measured {
        conditions: format!(
            "{RECONSTRUCTION}Rows of Charsum agree by construction, those of the others show how good it is."
        ),
        columns: [Heading::words("algorithm"), Heading::numbers("subset", 0)].into_iter().chain(columns).collect(),
        rows,
        panels: vec![Panel::Bars {
            title: "Bytes of each subset".into(),
            y: Axis::linear("% of all bytes"),
            groups: (1..=N).map(|subset| format!("subset {subset}")).collect(),
            series: series.collect(),
        }],
        checks: subset_checks(&parts),
    })
}

fn subset_checks(parts: &[[[f64; N]; 4]]) -> Vec<Check> {
    let off = |algorithm: usize, what: usize| {
        let pairs = parts[algorithm][what].iter().zip(TABLE[algorithm].1[what]);
        pairs.map(|(here, paper)| (here - paper).abs()).reduce(f64::max)
    };
    let share = |what: usize, algorithm: usize| {
        let (here, round) = (&parts[algorithm][what], &parts[0][what]);
        Some(here.iter().sum::<f64>() / round.iter().sum::<f64>())
    };
    let spread = |what: usize, algorithm: usize| {
        let values = parts[algorithm][what];
        Some(values.into_iter().reduce(f64::max)? / values.into_iter().reduce(f64::min)?)
    };
    let mut checks = Vec::new();
    for (algorithm, limit) in [(1, 3.0), (2, 5.0), (3, 5.0)] {
        let name = TABLE[algorithm].0;
        let what = format!("{name}: largest difference of a subset's requests to the paper, points");
        checks.push(
            Check::new(what, "0", off(algorithm, 0), Wanted::AtMost(limit))
                .with_decimals(1)
                .because("of MD5 and SHA-1 the reconstruction knows nothing but the bytes of the hot files"),
        );
        let what = format!("{name}: largest difference of a subset's bytes to the paper, points");
        checks.push(Check::new(what, "0", off(algorithm, 1), Wanted::AtMost(limit)).with_decimals(1));
    }
    checks.extend([
        Check::new("round-robin: distinct objects of a server", "2,806", mean(&parts[0][2]), Wanted::Within(2500.0, 3100.0))
            .with_decimals(0)
            .because(
                "of the objects that are seldom asked for the reconstruction knows how many there are and not how seldom: it \
                 asks for each more often than the log did",
            ),
        Check::new("distinct objects a server, charsum to round-robin", "0.41", share(2, 1), Wanted::Within(0.25, 0.5)),
        Check::new("bytes, largest to smallest subset, charsum", "over 6", spread(1, 1), Wanted::AtLeast(6.0)),
        Check::new("bytes, largest to smallest subset, md5", "2.4", spread(1, 2), Wanted::Within(2.0, 3.2)),
    ]);
    checks
}

/// What falls on each server under round-robin.
fn in_turn(trace: &Trace) -> Vec<Subset> {
    let of = |server: usize| {
        let requests = trace.requests.iter().skip(server).step_by(N).copied().collect();
        let part = stat(&Trace { requests, ..trace.window(std::time::Duration::ZERO, std::time::Duration::ZERO) });
        Subset {
            requests: part.requests,
            bytes: part.bytes,
            objects: part.objects,
            distinct_bytes: part.distinct_bytes,
        }
    };
    (0..N).map(of).collect()
}

/// In the units of the table.
fn numbers(parts: &[Subset]) -> [[f64; N]; 4] {
    let percent = |of: fn(&Subset) -> u64| {
        let all: u64 = parts.iter().map(of).sum();
        move |part: &Subset| 100.0 * of(part) as f64 / all as f64
    };
    let (requests, bytes) = (percent(|part| part.requests), percent(|part| part.bytes));
    [
        std::array::from_fn(|i| requests(&parts[i])),
        std::array::from_fn(|i| bytes(&parts[i])),
        std::array::from_fn(|i| parts[i].objects as f64),
        std::array::from_fn(|i| parts[i].distinct_bytes as f64 / 1e6),
    ]
}

/// The objects of a subset by their bytes, most first.
struct Contributions {
    name: String,
    bytes: Vec<u64>,
}

impl Contributions {
    /// Those of the requests for which `belongs` is true, by their place in the trace and their object.
    fn of(name: impl Into<String>, trace: &Trace, belongs: impl Fn(usize, ObjectId) -> bool) -> Contributions {
        let mut by_object = vec![None; trace.objects.len()];
        for (index, request) in trace.requests.iter().enumerate() {
            if belongs(index, request.object) {
                *by_object[request.object.0 as usize].get_or_insert(0) += request.bytes.get().unwrap_or(0);
            }
        }
        let mut bytes: Vec<u64> = by_object.into_iter().flatten().collect();
        bytes.sort_unstable_by(|a, b| b.cmp(a));
        Contributions { name: name.into(), bytes }
    }

    /// Percent of the bytes over percent of the objects.
    fn distribution(&self) -> Vec<(f64, f64)> {
        let (all, objects) = (self.bytes.iter().sum::<u64>() as f64, self.bytes.len() as f64);
        let mut until = 0;
        let point = |(index, bytes): (usize, &u64)| {
            until += bytes;
            (100.0 * (index + 1) as f64 / objects, 100.0 * until as f64 / all)
        };
        self.bytes.iter().enumerate().map(point).collect()
    }

    /// How many objects have `percent` of the bytes.
    fn objects_for(&self, percent: f64) -> Option<f64> {
        self.distribution().iter().position(|point| point.1 >= percent).map(|index| (index + 1) as f64)
    }
}

fn contributions(run: &Run) -> anyhow::Result<Measured> {
    let trace = trace(run);
    let column = |object: ObjectId| (HashKind::Charsum.of(trace.objects[object].name()) % N as u64) as usize;
    let columns: Vec<usize> = trace.objects.iter().map(|(id, _)| column(id)).collect();
    let mut all: Vec<Contributions> = (0..N)
        .map(|i| Contributions::of(format!("sub-namespace {}", i + 1), &trace, |_, id| columns[id.0 as usize] == i))
        .collect();
    all.extend([0, 1].map(|server| {
        Contributions::of(format!("round-robin, VM {}", server + 1), &trace, |index, _| index % N == server)
    }));
    let hot = Contributions::of("hot", &trace, |_, id| HOT.contains(&trace.objects[id].name()));
    let (total, second) = (
        trace.requests.iter().filter_map(|r| r.bytes.get()).sum::<u64>() as f64,
        all[1].bytes.iter().sum::<u64>() as f64,
    );
    let part = |bytes: u64, of: f64| Some(100.0 * bytes as f64 / of);
    let row = |subset: &Contributions| -> Vec<Cell> {
        let most = |count: usize| {
            part(subset.bytes[..count.min(subset.bytes.len())].iter().sum(), subset.bytes.iter().sum::<u64>() as f64)
        };
        vec![
            subset.name.as_str().into(),
            (subset.bytes.len() as f64).into(),
            subset.objects_for(50.0).into(),
            subset.objects_for(90.0).into(),
            most(1).into(),
            most(8).into(),
        ]
    };
    let least_of_others = [0, 2, 3].into_iter().filter_map(|i| all[i].objects_for(90.0)).reduce(f64::min);
    let turns = [&all[4], &all[5]].map(|subset| subset.objects_for(90.0));
    let apart = turns[0].zip(turns[1]).map(|(a, b)| 100.0 * (a - b).abs() / a);
    Ok(Measured {
        conditions: format!("{RECONSTRUCTION}Logarithmic: the hot objects are less than 1 % of all."),
        columns: [
            ("objects", 0),
            ("for 50 % of the bytes", 0),
            ("for 90 %", 0),
            ("in the first (%)", 1),
            ("in the first 8 (%)", 1),
        ]
        .into_iter()
        .fold(vec![Heading::words("subset")], |mut columns, (name, decimals)| {
            columns.push(Heading::numbers(name, decimals));
            columns
        }),
        rows: all.iter().map(row).collect(),
        panels: vec![Panel::Lines {
            title: "Bytes in the objects that contribute most".into(),
            x: Axis::logarithmic("% of the subset's objects, by their bytes"),
            y: Axis::linear("% of the subset's bytes"),
            lines: all.iter().map(|subset| Line { name: subset.name.clone(), points: subset.distribution() }).collect(),
        }],
        checks: vec![
            Check::new(
                "bytes of the eight hot files, % of sub-namespace 2",
                "90 %",
                part(hot.bytes.iter().sum(), second),
                Wanted::Within(88.0, 92.0),
            )
            .with_decimals(1),
            Check::new("objects with 90 % of sub-namespace 2", "8", all[1].objects_for(90.0), Wanted::AtMost(9.0))
                .with_decimals(0),
            Check::new(
                "English splash screen, % of sub-namespace 2",
                "37 %",
                part(hot.bytes[0], second),
                Wanted::Within(35.0, 39.0),
            )
            .with_decimals(1),
            Check::new(
                "English splash screen, % of all",
                "24 %",
                part(hot.bytes[0], total),
                Wanted::Within(23.0, 25.0),
            )
            .with_decimals(1),
            Check::new(
                "objects with 90 % of the least concentrated other sub-namespace",
                "more",
                least_of_others,
                Wanted::AtLeast(30.0),
            )
            .with_decimals(0),
            Check::new(
                "round-robin: difference between two VMs in objects for 90 %, %",
                "the same shape",
                apart,
                Wanted::AtMost(10.0),
            )
            .with_decimals(1),
        ],
    })
}

fn eight_hours(_: &Run) -> anyhow::Result<Measured> {
    let history = history();
    let hour = |index: usize| 16.0 + index as f64 / 60.0;
    let rate = |index: usize, column: usize| history[index].bytes[column] as f64 / 60.0 / 1e6;
    let line = |column: usize| Line {
        name: format!("sub-namespace {}", column + 1),
        points: (0..history.len()).map(|index| (hour(index), rate(index, column))).collect(),
    };
    // Ten minutes of each game, as long after its beginning: the trace's in the afternoon.
    let shares = |from: usize| {
        let sum = |column: usize| (from..from + 10).map(|index| rate(index, column)).sum::<f64>();
        let all: f64 = (0..N).map(sum).sum();
        std::array::from_fn::<f64, N, _>(|column| 100.0 * sum(column) / all)
    };
    let (afternoon, evening) = (shares(2 * 60 + 10), shares(6 * 60 + 40));
    let row = |(name, shares): (&str, [f64; N])| -> Vec<Cell> {
        [name.into()].into_iter().chain(shares.map(Cell::from)).collect()
    };
    Ok(Measured {
        conditions: "16:00 to 24:00 (GMT+2) of 1998-06-30. The bytes of each minute are the log's. Their division is a \
                     reconstruction: all day as Table 3.1 has it for ten minutes of the afternoon's game; from 20:00 on, the \
                     evening's game's pages, which have a Charsum of their own, take the part of the afternoon's."
            .into(),
        columns: [Heading::words("ten minutes from, % of bytes")]
            .into_iter()
            .chain((1..=N).map(|i| Heading::numbers(format!("sub-namespace {i}"), 1)))
            .collect(),
        rows: [("18:10, first game", afternoon), ("22:40, second game", evening)].map(row).into(),
        panels: vec![Panel::Lines {
            title: "Throughput by sub-namespace".into(),
            x: Axis::linear("hour of the day (GMT+2)"),
            y: Axis::linear("MB/s"),
            lines: (0..N).map(line).collect(),
        }],
        checks: vec![
            Check::new("first game: sub-namespace 2, % of bytes", "64 %", Some(afternoon[1]), Wanted::Within(62.0, 66.0))
                .with_decimals(1),
            Check::new("sub-namespace 1: share in the second game to that in the first", "rises", Some(evening[0] / afternoon[0]), Wanted::AtLeast(1.5)),
            Check::new("second game: sub-namespace 1 to sub-namespace 2", "over 1", Some(evening[0] / evening[1]), Wanted::AtLeast(1.0))
                .because(
                    "what was asked for in the evening is not to be had. If it had the mixture of the afternoon, the splash screens, \
                     29 % of all bytes, would keep sub-namespace 2 ahead: the dissertation's curves say that the game's pages had more",
                ),
        ],
    })
}

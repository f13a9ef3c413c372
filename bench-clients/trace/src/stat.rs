//! What a trace has in it.

use crate::{Request, Trace};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};

/// Statistics of a trace.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stat {
    /// How many requests.
    pub requests: u64,
    /// Bytes of all bodies that were logged.
    pub bytes: u64,
    /// Requests whose bytes are not logged.
    pub unlogged: u64,
    /// Different clients.
    pub clients: u64,
    /// Different objects that are asked for.
    pub objects: u64,
    /// Bytes of these objects.
    pub distinct_bytes: u64,
    /// Those of them whose size the trace does not tell.
    pub unsized_objects: u64,
    /// From the first second to the end of the last clock step, in seconds.
    pub seconds: f64,
    /// Logged bytes a request whose bytes are logged; `None` without any.
    pub mean_bytes: Option<f64>,
    /// Requests a second; `None` for a trace without duration.
    pub requests_per_s: Option<f64>,
    /// Logged bytes a second; `None` for a trace without duration.
    pub bytes_per_s: Option<f64>,
    /// Requests by status code; 0: not logged.
    pub statuses: BTreeMap<u16, u64>,
}

/// Statistics of a trace.
pub fn stat(trace: &Trace) -> Stat {
    let whole = subset_rows(trace, 1, |_| 0).remove(0);
    let clients: HashSet<u32> = trace.requests.iter().map(|request| request.client).collect();
    let mut statuses = BTreeMap::new();
    for request in &trace.requests {
        *statuses.entry(request.status).or_default() += 1;
    }
    let unlogged = trace.requests.iter().filter(|request| request.bytes.get().is_none()).count() as u64;
    let seconds = trace.duration().as_secs_f64();
    let ratio = |number: u64, by: f64| (by > 0.0).then(|| number as f64 / by);
    Stat {
        requests: whole.requests,
        bytes: whole.bytes,
        unlogged,
        clients: clients.len() as u64,
        objects: whole.objects,
        distinct_bytes: whole.distinct_bytes,
        unsized_objects: requested(trace).filter(|&index| trace.objects[crate::ObjectId(index)].size == 0).count()
            as u64,
        seconds,
        mean_bytes: ratio(whole.bytes, (whole.requests - unlogged) as f64),
        requests_per_s: ratio(whole.requests, seconds),
        bytes_per_s: ratio(whole.bytes, seconds),
        statuses,
    }
}

/// One column of Table 3.1: what falls on one sub-namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Subset {
    /// How many requests.
    pub requests: u64,
    /// Logged bytes of their bodies ("total transfer size").
    pub bytes: u64,
    /// Different objects that are asked for.
    pub objects: u64,
    /// Bytes of these objects.
    pub distinct_bytes: u64,
}

/// What falls on each of `count` sub-namespaces: entry i is that of the objects with `hash(name) % count == i`, where the
/// name is the URL without its query. Sub-namespaces of the dissertation count from 1, so its sub-namespace i is entry
/// i - 1. Without sub-namespaces (`count` 0): nothing.
pub fn subsets(trace: &Trace, count: usize, hash: &dyn Fn(&str) -> usize) -> Vec<Subset> {
    if count == 0 {
        return Vec::new();
    }
    subset_rows(trace, count, |name| hash(name) % count)
}

fn subset_rows(trace: &Trace, count: usize, index: impl Fn(&str) -> usize) -> Vec<Subset> {
    let by_object: Vec<usize> = trace.objects.iter().map(|(_, object)| index(object.name())).collect();
    let mut rows = vec![Subset::default(); count];
    for Request { object, bytes, .. } in &trace.requests {
        let row = &mut rows[by_object[object.0 as usize]];
        row.requests += 1;
        row.bytes = row.bytes.saturating_add(bytes.get().unwrap_or(0));
    }
    for id in requested(trace) {
        let row = &mut rows[by_object[id as usize]];
        row.objects += 1;
        row.distinct_bytes = row.distinct_bytes.saturating_add(trace.objects[crate::ObjectId(id)].size);
    }
    rows
}

/// Indices of the objects that are asked for.
fn requested(trace: &Trace) -> impl Iterator<Item = u32> {
    let mut asked = vec![false; trace.objects.len()];
    for request in &trace.requests {
        asked[request.object.0 as usize] = true;
    }
    (0..).zip(asked).filter_map(|(id, asked)| asked.then_some(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, Reader};

    const CSV: &str = "time,client,url,status,bytes\n\
        100,a,/a,200,10\n100,b,/a,304,0\n101,a,/b?x,200,30\n103,a,/b?x,206,\n103,c,/c,404,5\n";

    fn trace() -> Trace {
        Reader::new(CSV.as_bytes(), "x.csv", &Options::default()).unwrap().read_all().0
    }

    #[test]
    fn everything_is_counted() {
        let stat = stat(&trace());
        assert_eq!((stat.requests, stat.bytes, stat.unlogged, stat.clients), (5, 45, 1, 3));
        assert_eq!((stat.objects, stat.distinct_bytes, stat.unsized_objects), (3, 40, 1));
        assert_eq!((stat.seconds, stat.mean_bytes, stat.requests_per_s), (4.0, Some(11.25), Some(1.25)));
        assert_eq!(stat.statuses, BTreeMap::from([(200, 2), (206, 1), (304, 1), (404, 1)]));
    }

    #[test]
    fn an_empty_trace_has_no_rates() {
        let (empty, _) = Reader::new(&b"time,url\n"[..], "x.csv", &Options::default()).unwrap().read_all();
        let stat = stat(&empty);
        assert_eq!((stat.requests, stat.mean_bytes, stat.requests_per_s), (0, None, None));
        assert_eq!(empty.start, None);
    }

    #[test]
    fn names_without_query_are_hashed() {
        let rows = subsets(&trace(), 2, &|name| name.len() + usize::from(name == "/b"));
        assert_eq!(rows[0], Subset { requests: 3, bytes: 15, objects: 2, distinct_bytes: 10 });
        assert_eq!(rows[1], Subset { requests: 2, bytes: 30, objects: 1, distinct_bytes: 30 });
        assert!(subsets(&trace(), 0, &|_| 0).is_empty());
    }
}

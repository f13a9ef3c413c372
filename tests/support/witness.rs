//! Somebody who looks all the time.

use super::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

/// Looks at the directory all the time, and remembers what must never be.
pub(crate) struct Witness {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Vec<String>)>,
}

impl Witness {
    pub(crate) fn watching(cluster: &Arc<Cluster>) -> Witness {
        let over = Arc::new(AtomicBool::new(false));
        let (cluster, is_over) = (cluster.clone(), over.clone());
        let thread = thread::spawn(move || {
            let (mut observations, mut violations) = (0, Vec::new());
            while !is_over.load(SeqCst) {
                let Ok(snapshot) = cluster.snapshot() else { continue };
                observations += 1;
                let (bandwidth, memory) = (snapshot.applied("bandwidth"), snapshot.applied("memory"));
                if bandwidth > BOUND || memory > MEMORY_BOUND {
                    violations.push(format!("{bandwidth} bytes/s and {memory} bytes: {}", snapshot.0));
                }
            }
            (observations, violations)
        });
        Witness { over, thread }
    }

    /// Nothing that must never be was ever seen.
    #[track_caller]
    pub(crate) fn attests(self) {
        self.over.store(true, SeqCst);
        let (observations, violations) = self.thread.join().expect("the witness ends");
        assert!(violations.is_empty(), "{violations:#?}");
        assert!(observations > 20, "{observations} observations attest nothing");
    }
}

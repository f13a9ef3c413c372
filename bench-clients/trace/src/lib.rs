//! Readers and writers of request traces, and workload generators.

//! Benchmarks that need whole processes. What fits in one process stands in the crates' own `benches`.

mod peers;
mod process;
pub(crate) mod proxy;

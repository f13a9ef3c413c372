//! The one command of Vibra.
fn main() {}

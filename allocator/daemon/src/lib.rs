//! Collect, decide, check, propose, audit.

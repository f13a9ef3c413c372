//! Typed access to the directory, and an in-memory fake of it for tests.

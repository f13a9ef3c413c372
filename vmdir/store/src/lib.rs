//! Where the directory keeps what it acknowledged.

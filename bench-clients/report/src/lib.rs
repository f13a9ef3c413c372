//! Statistics and tables of measured results.

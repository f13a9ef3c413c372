//! Turns measurements into results that can be read, compared and checked.
//!
//! The crate exists so that every result, of the demo as of a benchmark, is told alike: with its uncertainty
//! ([`bootstrap`], [`Paired`]), with the machine, the command and the commit that it was measured with
//! ([`Provenance`]), as a [`Table`] and a [`Plot`] for people and as a JSON [`Document`] for programs. What was not
//! measured is `None` in the document and a dash in the table, never 0.
//!
//! ```
//! use vibra_report::{Column, Paired, Resampling, Table, number};
//!
//! # fn main() -> Result<(), vibra_report::StatisticsError> {
//! // Mean response times of five runs in ms, before and after a change.
//! let pairs = Paired::new(&[41.0, 39.5, 44.2, 40.3, 42.1], &[20.4, 19.9, 22.5, 19.6, 21.8])?;
//! let change = pairs.relative_change(Resampling::with_seed(1))?;
//! assert!(change.high < -0.4, "at least 40 % less, with 95 % confidence");
//!
//! let mut table = Table::new([Column::left("what"), Column::right("change %")]);
//! table.push(["mean response time".into(), number(Some(100.0 * change.value), 1)]);
//! assert_eq!(
//!     table.to_string(),
//!     "what                change %\n\
//!      ------------------  --------\n\
//!      mean response time     -49.7\n"
//! );
//! # Ok(())
//! # }
//! ```

mod demo;
mod document;
mod machine;
mod paired;
mod plot;
mod resampling;
mod statistics;
mod table;

pub use demo::{DemoRow, DemoSetup, demo_table};
pub use document::{Document, DocumentError, Provenance};
pub use machine::Machine;
pub use paired::Paired;
pub use plot::{Axis, Bars, Plot, PlotError, Series};
pub use resampling::{Estimate, Resampling, bootstrap};
pub use statistics::{StatisticsError, mean, median, quantile, standard_deviation};
pub use table::{Column, Sheet, Table, number};

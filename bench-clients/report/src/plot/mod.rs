//! Plots, as SVG.

mod axis;
mod bars;
mod canvas;
mod line;

pub use axis::Axis;
pub use bars::Bars;
pub use line::{Plot, Series};

/// Why a plot could not be drawn.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// There is nothing to draw.
    #[error("the plot {plot:?} has no values")]
    Empty {
        /// The plot's title.
        plot: String,
    },
    /// A value has no place on its axis: it is not finite, or not above 0 on a logarithmic axis.
    #[error("the plot {plot:?} has no place for {value} of the series {series:?}")]
    OutOfRange {
        /// The plot's title.
        plot: String,
        /// The series' name.
        series: String,
        /// The value.
        value: f64,
    },
    /// A series of bars has not one value for each group.
    #[error("the plot {plot:?} has {groups} groups, but the series {series:?} has {values} values")]
    Groups {
        /// The plot's title.
        plot: String,
        /// The series' name.
        series: String,
        /// How many groups there are.
        groups: usize,
        /// How many values the series has.
        values: usize,
    },
    /// The library refused.
    #[error("the plot {plot:?} could not be drawn: {reason}")]
    Drawing {
        /// The plot's title.
        plot: String,
        /// What the library says.
        reason: String,
    },
}

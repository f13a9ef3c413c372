//! Axes, and where values stand on them.

use crate::number;
use plotters::coord::{
    combinators::{IntoLogRange, LogCoord},
    ranged1d::{DefaultFormatting, KeyPointHint, Ranged},
    types::RangedCoordf64,
};
use serde::Serialize;
use std::ops::Range;

/// An axis: what it shows, in which unit, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Axis {
    label: String,
    scale: Scale,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Scale {
    Linear,
    Logarithmic,
}

impl Axis {
    /// In equal steps, from 0 where all values are above 0 and the least is not far from it. The label tells the unit.
    pub fn linear(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), scale: Scale::Linear }
    }

    /// In powers of ten; all values must be above 0. The label tells the unit.
    pub fn logarithmic(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), scale: Scale::Logarithmic }
    }

    /// What it shows, in which unit.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether a value has a place on it.
    pub(super) fn holds(&self, value: f64) -> bool {
        value.is_finite() && (self.scale == Scale::Linear || value > 0.0)
    }

    /// Where values stand, if these are the least and the greatest; both have a place.
    pub(super) fn coordinate(&self, least: f64, greatest: f64) -> Coordinate {
        match self.scale {
            Scale::Linear => Coordinate::Linear(linear_range(least, greatest).into()),
            Scale::Logarithmic => {
                let (low, high) = if least < greatest { (least, greatest) } else { (least / 2.0, greatest * 2.0) };
                Coordinate::Logarithmic((low..high).log_scale().into())
            }
        }
    }

    /// How the ticks of this coordinate of it are labelled: with the decimals that tell them apart.
    pub(super) fn ticks(&self, coordinate: &Coordinate) -> impl Fn(&f64) -> String + use<> {
        let Range { start, end } = coordinate.range();
        let scale = self.scale;
        move |&value| {
            let step = match scale {
                Scale::Linear => (end - start) / 10.0,
                Scale::Logarithmic => value,
            };
            number(Some(value), decimals(step))
        }
    }
}

/// With some room beside the values, and from 0 if they begin in the lower third.
fn linear_range(least: f64, greatest: f64) -> Range<f64> {
    let low = if least >= 0.0 && least <= greatest / 3.0 { 0.0 } else { least };
    let high = if greatest <= 0.0 && greatest >= low / 3.0 { 0.0 } else { greatest };
    if low == high {
        let room = if low == 0.0 { 1.0 } else { low.abs() / 10.0 };
        return low - room..high + room;
    }
    let room = 0.03 * (high - low);
    let beside = |value: f64, room: f64| if value == 0.0 { 0.0 } else { value + room };
    beside(low, -room)..beside(high, room)
}

/// A linear or logarithmic coordinate.
pub(super) enum Coordinate {
    Linear(RangedCoordf64),
    Logarithmic(LogCoord<f64>),
}

/// The decimals that tell values of this step apart.
fn decimals(step: f64) -> usize {
    let places = -step.abs().log10().floor();
    if places.is_finite() { places.clamp(0.0, 9.0) as usize } else { 0 }
}

impl Ranged for Coordinate {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        match self {
            Coordinate::Linear(linear) => linear.map(value, limit),
            Coordinate::Logarithmic(logarithmic) => logarithmic.map(value, limit),
        }
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self {
            Coordinate::Linear(linear) => linear.key_points(hint),
            Coordinate::Logarithmic(logarithmic) => logarithmic.key_points(hint),
        }
    }

    fn range(&self) -> Range<f64> {
        match self {
            Coordinate::Linear(linear) => linear.range(),
            Coordinate::Logarithmic(logarithmic) => logarithmic.range(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_axes_begin_at_zero_where_it_is_near() {
        assert_eq!(linear_range(1.0, 10.0), 0.0..10.3);
        assert_eq!(linear_range(90.0, 100.0), 89.7..100.3);
        assert_eq!(linear_range(-10.0, -1.0), -10.3..0.0);
        assert_eq!(linear_range(5.0, 5.0), 4.5..5.5);
        assert_eq!(linear_range(0.0, 0.0), -1.0..1.0);
    }

    #[test]
    fn ticks_have_the_decimals_that_tell_them_apart() {
        let ticks = |axis: Axis, to| axis.ticks(&axis.coordinate(to / 1e6, to));
        assert_eq!(ticks(Axis::linear("s"), 0.5)(&0.2), "0.20");
        assert_eq!(ticks(Axis::linear("s"), 50_000.0)(&10_000.0), "10,000");
        let logarithmic = ticks(Axis::logarithmic("s"), 1e4);
        assert_eq!([0.01, 0.1, 1.0, 1000.0].map(|value| logarithmic(&value)), ["0.01", "0.1", "1", "1,000"]);
    }
}

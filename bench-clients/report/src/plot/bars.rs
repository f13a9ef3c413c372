//! Bars in groups.

use super::{
    Axis, PlotError,
    canvas::{self, Area, Drawn, colour},
};
use plotters::prelude::{ChartBuilder, Color, Rectangle};

/// A chart of bars: for each group one bar a series.
///
/// ```
/// use vibra_report::{Axis, Bars};
///
/// let bars = Bars {
///     title: "Unmet demand".into(),
///     y: Axis::linear("share, %"),
///     groups: vec!["bitbrains".into(), "planetlab".into()],
///     series: vec![("static".into(), vec![Some(4.1), Some(6.0)]), ("proportional".into(), vec![Some(1.2), None])],
/// };
/// assert!(bars.svg().expect("it has values").starts_with("<svg"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// What the bars' heights are.
    pub y: Axis,
    /// The groups' names, from left to right.
    pub groups: Vec<String>,
    /// The series' names, and of each the values of all groups: `None` for what was not measured, which has no bar.
    pub series: Vec<(String, Vec<Option<f64>>)>,
}

/// How much of a group's width its bars take.
const WIDTH: f64 = 0.8;

impl Bars {
    /// Draws them. The same bars give the same text.
    ///
    /// # Errors
    /// If there are no values, one has no place on the axis, or a series has not one for each group.
    pub fn svg(&self) -> Result<String, PlotError> {
        let names: Vec<_> = self.series.iter().map(|(name, _)| name.as_str()).collect();
        let extent = self.extent()?;
        canvas::svg(&self.title, &names, |area| self.draw(area, extent))
    }

    /// The least and the greatest value; a linear axis always shows 0.
    fn extent(&self) -> Result<(f64, f64), PlotError> {
        let mut extent: Option<(f64, f64)> = None;
        for (name, values) in &self.series {
            let (plot, series) = (|| self.title.clone(), || name.clone());
            if values.len() != self.groups.len() {
                let (groups, values) = (self.groups.len(), values.len());
                return Err(PlotError::Groups { plot: plot(), series: series(), groups, values });
            }
            for &value in values.iter().flatten() {
                if !self.y.holds(value) {
                    return Err(PlotError::OutOfRange { plot: plot(), series: series(), value });
                }
                let (least, greatest) = extent.get_or_insert((value, value));
                (*least, *greatest) = (least.min(value), greatest.max(value));
            }
        }
        let (least, greatest) = extent.ok_or_else(|| PlotError::Empty { plot: self.title.clone() })?;
        // The bars begin at 0, or at the foot of a logarithmic axis, which is below all of them.
        Ok(if self.y.holds(0.0) { (least.min(0.0), greatest.max(0.0)) } else { (least / 2.0, greatest) })
    }

    fn draw(&self, area: &Area<'_>, (least, greatest): (f64, f64)) -> Drawn {
        let y = self.y.coordinate(least, greatest);
        let y_tick = self.y.ticks(&y);
        let foot = if self.y.holds(0.0) { 0.0 } else { least };
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, canvas::TITLE)
            .margin(12)
            .x_label_area_size(34)
            .y_label_area_size(74)
            .build_cartesian_2d(Groups(self.groups.len()), y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .label_style(canvas::TEXT)
            .x_labels(self.groups.len())
            .y_desc(self.y.label())
            .x_label_formatter(&|&x| self.groups.get(x.floor() as usize).cloned().unwrap_or_default())
            .y_label_formatter(&y_tick)
            .max_light_lines(1)
            .draw()?;
        let width = WIDTH / self.series.len() as f64;
        for (number, (_, values)) in self.series.iter().enumerate() {
            let left = |group: usize| group as f64 + (1.0 - WIDTH) / 2.0 + number as f64 * width;
            let bars = values.iter().enumerate().filter_map(|(group, &value)| Some((left(group), value?)));
            let style = colour(number).color.filled();
            chart
                .draw_series(bars.map(|(left, value)| Rectangle::new([(left, foot), (left + width, value)], style)))?;
        }
        Ok(())
    }
}

/// So many groups side by side, each from one whole number to the next, with its name below its middle.
struct Groups(usize);

impl plotters::coord::ranged1d::Ranged for Groups {
    type FormatOption = plotters::coord::ranged1d::DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (from, to): (i32, i32)) -> i32 {
        from + (value / self.0 as f64 * f64::from(to - from)).round() as i32
    }

    fn key_points<Hint: plotters::coord::ranged1d::KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (0..self.0).map(|group| group as f64 + 0.5).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        0.0..self.0 as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::{Document, Node};

    fn bars(y: Axis, values: Vec<Option<f64>>) -> Bars {
        let groups = (0..values.len()).map(|group| format!("group {group}")).collect();
        Bars { title: "t".into(), y, groups, series: vec![("s".into(), values)] }
    }

    /// The heights of the bars, in pixels, from left to right.
    fn heights(svg: &str) -> Vec<f64> {
        let document = Document::parse(svg).expect("well-formed");
        let of = |node: Node<'_, '_>, name| node.attribute(name).and_then(|text| text.parse::<f64>().ok());
        let rectangles = document.descendants().filter(|node| node.has_tag_name("rect"));
        let bars = rectangles.filter(|node| node.attribute("fill") == Some("#0072B2"));
        bars.map(|node| of(node, "height").expect("a height")).collect()
    }

    #[test]
    fn heights_are_in_proportion_and_what_was_not_measured_has_none() {
        let svg = bars(Axis::linear("y"), vec![Some(10.0), None, Some(20.0)]).svg().expect("drawn");
        let heights = heights(&svg);
        assert_eq!(heights.len(), 2);
        assert!((heights[1] / heights[0] - 2.0).abs() < 0.02, "{heights:?}");
        for name in ["group 0", "group 1", "group 2"] {
            assert!(svg.contains(name), "{svg}");
        }
    }

    #[test]
    fn on_a_logarithmic_axis_the_least_has_a_bar_too() {
        let svg = bars(Axis::logarithmic("y"), vec![Some(1.0), Some(100.0)]).svg().expect("drawn");
        let heights = heights(&svg);
        assert!(heights[0] > 10.0 && heights[1] > 2.0 * heights[0], "{heights:?}");
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let missing = Bars { groups: vec!["a".into(), "b".into()], ..bars(Axis::linear("y"), vec![Some(1.0)]) };
        assert!(matches!(missing.svg(), Err(PlotError::Groups { groups: 2, values: 1, .. })));
        assert!(matches!(bars(Axis::linear("y"), vec![None]).svg(), Err(PlotError::Empty { .. })));
        let infinite = bars(Axis::linear("y"), vec![Some(f64::INFINITY)]);
        assert!(matches!(infinite.svg(), Err(PlotError::OutOfRange { .. })));
    }
}

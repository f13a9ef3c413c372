//! Lines.

use super::{
    Axis, PlotError,
    canvas::{self, Area, Drawn, colour},
};
use plotters::prelude::{ChartBuilder, Circle, Color, LineSeries, Polygon};

/// A plot of several series over one another.
///
/// ```
/// use vibra_report::{Axis, Plot, Series};
///
/// let lard = Series::new("lard", [(1.0, 60.5), (2.0, 66.0), (3.0, 90.1)]);
/// let hashed = Series::new("url-hash", [(1.0, 7.4), (2.0, 8.0), (3.0, 9.2)])
///     .with_band([(7.0, 7.9), (7.5, 8.4), (8.8, 9.9)]);
/// let plot = Plot {
///     title: "Response time over load".into(),
///     x: Axis::linear("speed of the trace"),
///     y: Axis::logarithmic("mean response time, ms"),
///     series: vec![lard, hashed],
/// };
/// assert!(plot.svg().expect("it has values").starts_with("<svg"));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// What varies.
    pub x: Axis,
    /// What follows.
    pub y: Axis,
    /// One line each, in this order.
    pub series: Vec<Series>,
}

/// A line of a plot.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    name: String,
    points: Vec<(f64, f64)>,
    /// Of each point, from where to where its value may be.
    band: Vec<(f64, f64)>,
}

impl Series {
    /// A line through these points, in this order. What was not measured is left out, and the line goes on past it.
    pub fn new(name: impl Into<String>, points: impl IntoIterator<Item = (f64, f64)>) -> Series {
        Series { name: name.into(), points: points.into_iter().collect(), band: Vec::new() }
    }

    /// With a confidence interval for each point: its lower and its upper end.
    ///
    /// # Panics
    /// If these are not as many as the points.
    #[must_use]
    pub fn with_band(mut self, band: impl IntoIterator<Item = (f64, f64)>) -> Series {
        self.band = band.into_iter().collect();
        assert_eq!(self.band.len(), self.points.len(), "the band of {:?} has one interval for each point", self.name);
        self
    }

    /// All values that need a place on the plot.
    fn places(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        let ends = self.points.iter().zip(&self.band).flat_map(|(&(x, _), &(low, high))| [(x, low), (x, high)]);
        self.points.iter().copied().chain(ends)
    }
}

/// The least and the greatest values.
struct Extent {
    x: (f64, f64),
    y: (f64, f64),
}

/// More points than these are drawn without marks.
const MARKED: usize = 40;

impl Plot {
    /// Draws it. The same plot gives the same text.
    ///
    /// # Errors
    /// If it has no points, or one has no place on its axes.
    pub fn svg(&self) -> Result<String, PlotError> {
        let names: Vec<_> = self.series.iter().map(|series| series.name.as_str()).collect();
        let extent = self.extent()?;
        canvas::svg(&self.title, &names, |area| self.draw(area, &extent))
    }

    fn extent(&self) -> Result<Extent, PlotError> {
        let mut extent: Option<Extent> = None;
        for series in &self.series {
            for (x, y) in series.places() {
                let outside = [(&self.x, x), (&self.y, y)].into_iter().find(|(axis, value)| !axis.holds(*value));
                if let Some((_, value)) = outside {
                    let (plot, series) = (self.title.clone(), series.name.clone());
                    return Err(PlotError::OutOfRange { plot, series, value });
                }
                let Extent { x: xs, y: ys } = extent.get_or_insert(Extent { x: (x, x), y: (y, y) });
                *xs = (xs.0.min(x), xs.1.max(x));
                *ys = (ys.0.min(y), ys.1.max(y));
            }
        }
        extent.ok_or_else(|| PlotError::Empty { plot: self.title.clone() })
    }

    fn draw(&self, area: &Area<'_>, &Extent { x, y }: &Extent) -> Drawn {
        let (x, y) = (self.x.coordinate(x.0, x.1), self.y.coordinate(y.0, y.1));
        let (x_tick, y_tick) = (self.x.ticks(&x), self.y.ticks(&y));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, canvas::TITLE)
            .margin(12)
            .x_label_area_size(46)
            .y_label_area_size(74)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .label_style(canvas::TEXT)
            .x_desc(self.x.label())
            .y_desc(self.y.label())
            .x_label_formatter(&x_tick)
            .y_label_formatter(&y_tick)
            .max_light_lines(1)
            .draw()?;
        for (number, series) in self.series.iter().enumerate() {
            let style = colour(number);
            if !series.band.is_empty() {
                let ends = series.points.iter().zip(&series.band);
                let there = ends.clone().map(|(&(x, _), &(low, _))| (x, low));
                let back = ends.rev().map(|(&(x, _), &(_, high))| (x, high));
                let outline: Vec<_> = there.chain(back).collect();
                chart.draw_series([Polygon::new(outline, style.color.mix(0.2).filled())])?;
            }
            chart.draw_series(LineSeries::new(series.points.iter().copied(), style))?;
            if series.points.len() <= MARKED {
                chart.draw_series(series.points.iter().map(|&point| Circle::new(point, 3, style.color.filled())))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roxmltree::{Document, Node};

    fn plot(series: Vec<Series>) -> Plot {
        let (x, y) = (Axis::linear("load"), Axis::logarithmic("mean, ms"));
        Plot { title: "a < b & \"c\"".into(), x, y, series }
    }

    fn texts(document: &Document<'_>) -> Vec<String> {
        let texts = document.descendants().filter(|node| node.has_tag_name("text"));
        texts.filter_map(|node| node.text()).map(|text| text.trim().to_owned()).collect()
    }

    fn points(node: Node<'_, '_>) -> Vec<(f64, f64)> {
        let pairs = node.attribute("points").unwrap_or_default().split_whitespace();
        let number = |text: &str| text.parse::<f64>().expect("a number");
        pairs.map(|pair| pair.split_once(',').expect("a pair")).map(|(x, y)| (number(x), number(y))).collect()
    }

    #[test]
    fn title_labels_and_names_are_told() {
        let svg = plot(vec![Series::new("x<y", [(1.0, 1.0), (2.0, 10.0)])]).svg().expect("drawn");
        let document = Document::parse(&svg).expect("well-formed");
        let texts = texts(&document);
        for expected in ["a < b & \"c\"", "load", "mean, ms", "x<y", "10"] {
            assert!(texts.iter().any(|text| text == expected), "{expected} in {texts:?}");
        }
    }

    #[test]
    fn values_stand_where_the_scale_puts_them() {
        let svg = plot(vec![Series::new("s", [(0.0, 1.0), (5.0, 10.0), (10.0, 100.0)])]).svg().expect("drawn");
        let document = Document::parse(&svg).expect("well-formed");
        let line = document.descendants().filter(|node| node.has_tag_name("polyline")).map(points);
        let line = line.into_iter().find(|points| points.len() == 3).expect("the series' line");
        let [a, b, c] = line[..] else { unreachable!("three points") };
        assert!(a.0 < b.0 && a.1 > b.1, "to the right and up: {line:?}");
        assert!(((b.0 - a.0) - (c.0 - b.0)).abs() <= 1.0, "linear: {line:?}");
        assert!(((b.1 - a.1) - (c.1 - b.1)).abs() <= 1.0, "logarithmic: {line:?}");
    }

    #[test]
    fn a_band_encloses_its_line() {
        let series = Series::new("s", [(1.0, 10.0), (2.0, 20.0)]).with_band([(5.0, 15.0), (18.0, 22.0)]);
        let svg = plot(vec![series]).svg().expect("drawn");
        let document = Document::parse(&svg).expect("well-formed");
        let band = document.descendants().find(|node| node.has_tag_name("polygon")).map(points).expect("a band");
        assert_eq!(band.len(), 4);
        assert!(band[0].1 > band[3].1 && band[1].1 > band[2].1, "lower ends are lower: {band:?}");
    }

    #[test]
    fn the_same_plot_gives_the_same_text_and_another_colour_a_series() {
        let lines = |name: &str| Series::new(name, [(1.0, 1.0), (2.0, 2.0)]);
        let plot = plot(vec![lines("a"), lines("b")]);
        let svg = plot.svg().expect("drawn");
        assert_eq!(plot.svg().expect("drawn"), svg);
        assert!(svg.contains("#0072B2") && svg.contains("#D55E00"), "{svg}");
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let error = plot(vec![Series::new("s", [(1.0, 0.0)])]).svg().expect_err("0 on a logarithmic axis");
        assert_eq!(error.to_string(), r#"the plot "a < b & \"c\"" has no place for 0 of the series "s""#);
        let error = plot(vec![Series::new("s", [(f64::NAN, 1.0)])]).svg().expect_err("no number");
        assert!(matches!(error, PlotError::OutOfRange { .. }), "{error}");
        let error = plot(vec![Series::new("s", [])]).svg().expect_err("no values");
        assert!(matches!(error, PlotError::Empty { .. }), "{error}");
    }
}

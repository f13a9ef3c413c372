//! What all plots look like: a title on top, the chart below it, and at the right what each colour means.

use super::PlotError;
use plotters::{
    coord::Shift,
    drawing::DrawingAreaErrorKind,
    prelude::{Color, DrawingArea, IntoDrawingArea, PathElement, RGBColor, SVGBackend, ShapeStyle, Text, WHITE},
};

const SIZE: (u32, u32) = (900, 480);

/// What a font is: the viewer's, and its size in pixels.
pub(super) const TITLE: (&str, i32) = ("sans-serif", 20);
pub(super) const TEXT: (&str, i32) = ("sans-serif", 15);

/// A character of text, a line of it, and a line's sample, in pixels.
const CHARACTER: u32 = 7;
const LINE: i32 = 20;
const SAMPLE: i32 = 24;

/// Eight colours that the colour-blind can tell apart (after Okabe and Ito 2008), the dark ones first.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(0, 0, 0),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(148, 136, 20),
];

/// The colour of the series of this number; from the ninth on they are the same, but paler.
pub(super) fn colour(series: usize) -> ShapeStyle {
    let opacity = if series < COLOURS.len() { 1.0 } else { 0.45 };
    COLOURS[series % COLOURS.len()].mix(opacity).stroke_width(2)
}

/// Where a plot is drawn.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// Whether the library could draw.
pub(super) type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// The SVG of what `draw` draws on an empty area, with the names of the series beside it.
pub(super) fn svg(title: &str, names: &[&str], draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String, PlotError> {
    let mut text = String::new();
    let drawn = {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default() as u32;
        let beside = (longest * CHARACTER + SAMPLE as u32 + 20).min(SIZE.0 / 2);
        let (chart, legend) = area.split_horizontally(SIZE.0 - beside);
        area.fill(&WHITE)
            .and_then(|()| draw(&chart))
            .and_then(|()| draw_legend(&legend, names))
            .and_then(|()| area.present())
    };
    drawn.map_err(|error| PlotError::Drawing { plot: title.to_owned(), reason: error.to_string() })?;
    Ok(text)
}

fn draw_legend(area: &Area<'_>, names: &[&str]) -> Drawn {
    let mut y = 60;
    for (series, name) in names.iter().enumerate() {
        area.draw(&PathElement::new([(0, y), (SAMPLE - 6, y)], colour(series).color.stroke_width(4)))?;
        area.draw(&Text::new((*name).to_owned(), (SAMPLE, y - 7), TEXT))?;
        y += LINE;
    }
    Ok(())
}

//! A book of figures as one page of HTML that needs nothing else: no scripts, and the plots within it.

use super::{Book, Check, Figure, Measured, book::Fate};
use std::fmt::{self, Display, Write};
use vibra_report::{Machine, PlotError, Provenance, number};

const STYLE: &str = "\
body { font: 15px/1.5 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: .2em .7em; text-align: left; vertical-align: top; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.met { color: #00734f; } .missed { color: #b03a00; font-weight: bold; } .note { color: #666; }
svg { max-width: 100%; height: auto; }
section { border-top: 2px solid #222; margin-top: 2.5em; }";

/// The page.
///
/// # Errors
/// If a plot cannot be drawn.
pub(super) fn html(
    book: &Book,
    provenance: &Provenance,
    quick: bool,
    fates: &[(&Figure, Fate)],
) -> Result<String, PlotError> {
    let mut page = Page::default();
    page.line("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">");
    page.line(format_args!("<title>{}</title>\n<style>\n{STYLE}\n</style></head><body>", Escaped(book.title)));
    page.line(format_args!("<h1>{}</h1>", Escaped(book.title)));
    page.paragraph(book.preface);
    if quick {
        page.line("<p class=\"missed\">A quick look: runs are short and points few. It shows that everything works, not how well.</p>");
    }
    page.origin(provenance);
    page.contents(fates);
    for (figure, fate) in fates {
        page.figure(figure, fate)?;
    }
    page.line("</body></html>");
    Ok(page.0)
}

/// What is written of the page.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: impl Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{text}");
    }

    fn paragraph(&mut self, text: &str) {
        self.line(format_args!("<p>{}</p>", Escaped(text)));
    }

    fn origin(&mut self, provenance: &Provenance) {
        let Machine { cpu_model, cores, memory_bytes, kernel, load_1m } = &provenance.machine;
        let unknown = || "unknown".to_owned();
        let facts = [
            ("Command", provenance.command.clone()),
            ("Commit", provenance.commit.clone().unwrap_or_else(unknown)),
            ("Begun", provenance.started.clone()),
            ("Seed", provenance.seed.map_or_else(unknown, |seed| seed.to_string())),
            ("Processor", cpu_model.clone().unwrap_or_else(unknown)),
            ("Cores", cores.map_or_else(unknown, |cores| cores.to_string())),
            (
                "Memory",
                memory_bytes.map_or_else(unknown, |bytes| format!("{:.1} GiB", bytes as f64 / 1f64.exp2().powi(30))),
            ),
            ("Kernel", kernel.clone().unwrap_or_else(unknown)),
            ("Load before", number(*load_1m, 2)),
        ];
        self.line("<h2>Machine and command</h2>\n<table>");
        for (name, value) in facts {
            self.line(format_args!("<tr><th>{name}</th><td>{}</td></tr>", Escaped(&value)));
        }
        self.line("</table>");
    }

    fn contents(&mut self, fates: &[(&Figure, Fate)]) {
        self.line("<h2>Figures</h2>\n<table><tr><th>figure</th><th>title</th><th>what came out</th></tr>");
        for (figure, fate) in fates {
            let outcome = match fate {
                Fate::Made(measured) => {
                    let met = measured.checks.iter().filter(|check| check.is_met()).count();
                    format!("{met} of {} checks met", measured.checks.len())
                }
                Fate::Skipped(why) => format!("skipped: {why}"),
                Fate::Failed(why) => format!("failed: {why}"),
            };
            let (id, title, outcome) = (Escaped(figure.id), Escaped(figure.title), Escaped(&outcome));
            self.line(format_args!("<tr><td><a href=\"#{id}\">{id}</a></td><td>{title}</td><td>{outcome}</td></tr>"));
        }
        self.line("</table>");
    }

    fn figure(&mut self, figure: &Figure, fate: &Fate) -> Result<(), PlotError> {
        let id = Escaped(figure.id);
        self.line(format_args!("<section id=\"{id}\"><h2>{id}: {}</h2>", Escaped(figure.title)));
        self.line(format_args!("<p><b>The paper:</b> {}</p>", Escaped(figure.paper)));
        match fate {
            Fate::Made(measured) => self.measured(figure, measured)?,
            Fate::Skipped(why) => self.line(format_args!("<p class=\"missed\">Skipped: {}</p>", Escaped(why))),
            Fate::Failed(why) => self.line(format_args!("<p class=\"missed\">Failed: {}</p>", Escaped(why))),
        }
        self.line("</section>");
        Ok(())
    }

    fn measured(&mut self, figure: &Figure, measured: &Measured) -> Result<(), PlotError> {
        self.line(format_args!("<p><b>Here:</b> {}</p>", Escaped(&measured.conditions)));
        self.checks(&measured.checks);
        for panel in &measured.panels {
            if let Some(svg) = panel.svg()? {
                self.line(svg);
            }
        }
        self.table(measured);
        let id = Escaped(figure.id);
        self.line(format_args!("<p class=\"note\">Raw result: <a href=\"{id}.json\">{id}.json</a></p>"));
        Ok(())
    }

    fn checks(&mut self, checks: &[Check]) {
        if checks.is_empty() {
            return;
        }
        self.line("<table><tr><th>checked</th><th>paper</th><th>measured</th><th>wanted</th><th>verdict</th></tr>");
        for check in checks {
            let (what, paper, wanted) = (Escaped(&check.what), Escaped(&check.paper), check.wanted());
            let (measured, verdict) = (number(check.measured, check.decimals), check.verdict());
            let class = verdict.to_lowercase();
            let reason = check.reason.as_deref().unwrap_or_default();
            self.line(format_args!(
                "<tr><td>{what}<div class=\"note\">{}</div></td><td>{paper}</td><td class=\"number\">{measured}</td>\
                 <td>{wanted}</td><td class=\"{class}\">{verdict}</td></tr>",
                Escaped(reason)
            ));
        }
        self.line("</table>");
    }

    fn table(&mut self, measured: &Measured) {
        let headings: String =
            measured.columns.iter().map(|heading| format!("<th>{}</th>", Escaped(&heading.name))).collect();
        self.line(format_args!("<table><tr>{headings}</tr>"));
        for row in measured.shown() {
            let cell = |(text, heading): (&String, &super::Heading)| match heading.decimals {
                Some(_) => format!("<td class=\"number\">{}</td>", Escaped(text)),
                None => format!("<td>{}</td>", Escaped(text)),
            };
            let cells: String = row.iter().zip(&measured.columns).map(cell).collect();
            self.line(format_args!("<tr>{cells}</tr>"));
        }
        self.line("</table>");
    }
}

/// Text that stands in HTML as it is, also in an attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Heading, Line, Panel, Wanted};
    use vibra_report::Axis;

    fn measured() -> Measured {
        let lines = vec![Line { name: "R < N".into(), points: vec![(1.0, 2.0), (2.0, 3.0)] }];
        let check = |value| Check::new("gain", "35 %", Some(value), Wanted::AtLeast(35.0));
        Measured {
            conditions: "scaled by \"1/4\"".into(),
            columns: vec![Heading::words("algorithm"), Heading::numbers("ms", 1)],
            rows: vec![vec!["lard".into(), 1.25.into()], vec!["round-robin".into(), None.into()]],
            panels: vec![
                Panel::Lines { title: "T".into(), x: Axis::linear("x"), y: Axis::linear("y"), lines },
                Panel::Lines { title: "E".into(), x: Axis::linear("x"), y: Axis::linear("y"), lines: vec![] },
            ],
            checks: vec![check(36.0), check(34.0).because("a < b")],
        }
    }

    #[test]
    fn the_page_holds_everything_and_needs_nothing_else() {
        let figure = Figure { id: "3.7", title: "Response time", paper: "35 % lower", make: |_| Ok(measured()) };
        let book = Book { title: "Figures", preface: "How to read it.", figures: &[] };
        let provenance = Provenance::now(None, Some(7));
        let page = html(&book, &provenance, false, &[(&figure, Fate::Made(measured()))]).expect("drawn");
        for part in [
            "1 of 2 checks met",
            "<section id=\"3.7\">",
            "scaled by &quot;1/4&quot;",
            "<svg",
            "<td class=\"number\">1.2</td>",
            "<td class=\"number\">-</td>",
            "<td class=\"missed\">MISSED</td>",
            "<td class=\"met\">met</td>",
            "a &lt; b",
            "href=\"3.7.json\"",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        assert_eq!(page.matches("<svg").count(), 1, "what has no values has no plot");
        assert!(!page.contains("<script") && !page.contains("src="), "{page}");
        assert!(!page.contains("quick look"));
    }
}

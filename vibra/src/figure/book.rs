//! Figures that belong together: which there are, and how those that are asked for are made.

use super::{Figure, Measured, Run, Unable, report, told::Told};
use crate::exit::{Failure, Outcome};
use anyhow::{Context, anyhow};
use serde::Serialize;
use std::{fs, path::Path};
use vibra_report::{Column, Document, Provenance, Sheet};

/// Figures that belong together.
pub(crate) struct Book {
    pub(crate) title: &'static str,
    /// How to read them.
    pub(crate) preface: &'static str,
    /// All of them, in the order in which they are made.
    pub(crate) figures: &'static [&'static [Figure]],
}

/// What became of a figure.
pub(super) enum Fate {
    Made(Measured),
    /// This machine cannot make it, for this reason.
    Skipped(String),
    Failed(String),
}

/// What the raw result says beside its rows.
#[derive(Debug, Serialize)]
struct Setup<'a> {
    figure: &'static str,
    title: &'static str,
    paper: &'static str,
    quick: bool,
    #[serde(flatten)]
    measured: &'a Measured,
}

impl Book {
    /// The figures whose ids begin with one of `wanted`; all where nothing is wanted.
    ///
    /// # Errors
    /// If there is none of a name.
    pub(crate) fn chosen(&self, wanted: &[String]) -> Result<Vec<&'static Figure>, Failure> {
        let all = || self.figures.iter().copied().flatten();
        // A group's name means all of its figures, a figure's name itself alone: fvm-1 is not fvm-10.
        let means =
            |text: &str, id: &str| id.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        if let Some(text) = wanted.iter().find(|text| !all().any(|figure| means(text, figure.id))) {
            let known: Vec<_> = all().map(|figure| figure.id).collect();
            return Err(Failure::usage(anyhow!("there is no figure {text:?}: use some of {}", known.join(", "))));
        }
        let is_wanted = |figure: &&Figure| wanted.is_empty() || wanted.iter().any(|text| means(text, figure.id));
        Ok(all().filter(is_wanted).collect())
    }

    /// The list of these figures.
    pub(crate) fn list(&self, figures: &[&Figure]) -> Sheet {
        let mut sheet = Sheet::new(vec![Column::left("figure"), Column::left("title"), Column::left("the paper")]);
        for figure in figures {
            sheet.push([figure.id, figure.title, figure.paper].map(str::to_owned).into());
        }
        sheet
    }

    /// Makes figures and prints them. With `folder`, writes of each its raw result (`ID.json`), its table (`ID.txt`) and
    /// its plots (`ID.1.svg`, …), and of all of them one report (`report.html`).
    ///
    /// # Errors
    /// [`Failure::Missed`] where something that a paper states is not reached, [`Failure::Void`] where a figure failed.
    pub(crate) fn make(&self, figures: &[&'static Figure], run: &Run, folder: Option<&Path>) -> Outcome {
        if let Some(folder) = folder {
            fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
        }
        let whole = provenance(run);
        let mut fates = Vec::new();
        for &figure in figures {
            run.bar.set_message(figure.id);
            let provenance = provenance(run);
            let fate = fate((figure.make)(run));
            run.bar.inc(1);
            run.bar.suspend(|| match &fate {
                Fate::Made(measured) => println!("{}", Told(figure, measured)),
                Fate::Skipped(why) => println!("{}: {}\nskipped: {why}\n", figure.id, figure.title),
                Fate::Failed(why) => eprintln!("{} failed: {why}", figure.id),
            });
            if let (Some(folder), Fate::Made(measured)) = (folder, &fate) {
                write(folder, figure, provenance, run.quick, measured)?;
            }
            fates.push((figure, fate));
            if run.is_stopped() {
                break;
            }
        }
        run.bar.finish_and_clear();
        if let Some(folder) = folder {
            let path = folder.join("report.html");
            let report = report::html(self, &whole, run.quick, &fates)?;
            fs::write(&path, report).with_context(|| format!("writing {}", path.display()))?;
            eprintln!("the report: {}", path.display());
        }
        verdict(&fates)
    }
}

fn provenance(run: &Run) -> Provenance {
    Provenance::now(crate::COMMIT.map(str::to_owned), Some(run.seed))
}

fn fate(made: anyhow::Result<Measured>) -> Fate {
    match made {
        Ok(measured) => Fate::Made(measured),
        Err(error) => match error.downcast_ref::<Unable>() {
            Some(Unable(why)) => Fate::Skipped(why.clone()),
            None => Fate::Failed(format!("{error:#}")),
        },
    }
}

fn verdict(fates: &[(&Figure, Fate)]) -> Outcome {
    let (mut missed, mut failed, mut checks) = (Vec::new(), Vec::new(), 0);
    for (figure, fate) in fates {
        match fate {
            Fate::Made(measured) => {
                checks += measured.checks.len();
                let unmet = measured.checks.iter().filter(|check| !check.is_met());
                missed.extend(unmet.map(|check| format!("{}, {}", figure.id, check.what)));
            }
            Fate::Skipped(_) => {}
            Fate::Failed(why) => failed.push(format!("{}: {why}", figure.id)),
        }
    }
    match (failed.as_slice(), missed.as_slice()) {
        ([], []) => Ok(()),
        ([], missed) => Err(Failure::Missed(format!("{} of {checks}: {}", missed.len(), missed.join("; ")))),
        (failed, _) => Err(Failure::Void(failed.join("; "))),
    }
}

fn write(
    folder: &Path,
    figure: &Figure,
    provenance: Provenance,
    quick: bool,
    measured: &Measured,
) -> anyhow::Result<()> {
    let file = |ending: &str| folder.join(format!("{}.{ending}", figure.id));
    let text = file("txt");
    fs::write(&text, Told(figure, measured).to_string()).with_context(|| format!("writing {}", text.display()))?;
    for (panel, number) in measured.panels.iter().zip(1..) {
        let Some(svg) = panel.svg()? else { continue };
        let plot = file(&format!("{number}.svg"));
        fs::write(&plot, svg).with_context(|| format!("writing {}", plot.display()))?;
    }
    let setup = Setup { figure: figure.id, title: figure.title, paper: figure.paper, quick, measured };
    Document { provenance, setup, rows: measured.rows.clone() }.write(&file("json"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn made(_: &Run) -> anyhow::Result<Measured> {
        Ok(Measured { conditions: "none".into(), columns: vec![], rows: vec![], panels: vec![], checks: vec![] })
    }

    const fn figure(id: &'static str, make: fn(&Run) -> anyhow::Result<Measured>) -> Figure {
        Figure { id, title: "A title", paper: "A statement", make }
    }

    const FIGURES: &[&[Figure]] = &[
        &[figure("fvm-1", made), figure("fvm-10", |_| Err(Unable("no <disk>".into()).into()))],
        &[figure("3.7", |_| bail!("out of order"))],
    ];
    const BOOK: Book = Book { title: "A & B", preface: "Read it.", figures: FIGURES };

    #[test]
    fn a_figure_is_chosen_by_its_id_or_by_its_group() {
        let ids = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|&text| text.to_owned()).collect();
            BOOK.chosen(&wanted).map(|figures| figures.iter().map(|figure| figure.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["fvm-1"]).unwrap(), ["fvm-1"]);
        assert_eq!(ids(&["fvm", "3.7"]).unwrap(), ["fvm-1", "fvm-10", "3.7"]);
        assert_eq!(ids(&[]).unwrap().len(), 3);
        let Err(Failure::Usage(error)) = ids(&["fvm-33"]) else { panic!("there is no fvm-33") };
        assert!(error.to_string().contains("fvm-1, fvm-10, 3.7"), "{error}");
        assert!(ids(&["fv"]).is_err(), "half a name is none");
    }

    #[test]
    fn what_cannot_be_made_is_skipped_with_its_reason_and_what_fails_is_void() {
        let folder = tempfile::tempdir().unwrap();
        let figures = BOOK.chosen(&["fvm".to_owned()]).unwrap();
        BOOK.make(&figures, &Run::new(true, 1, figures.len()), Some(folder.path())).unwrap();
        let report = fs::read_to_string(folder.path().join("report.html")).unwrap();
        for part in ["A &amp; B", "Read it.", "no &lt;disk&gt;", "fvm-10", "A statement", "quick"] {
            assert!(report.contains(part), "{part} in {report}");
        }
        assert!(folder.path().join("fvm-1.json").exists() && !folder.path().join("fvm-10.json").exists());
        let figures = BOOK.chosen(&[]).unwrap();
        let Err(Failure::Void(why)) = BOOK.make(&figures, &Run::new(true, 1, 3), None) else { panic!("3.7 fails") };
        assert_eq!(why, "3.7: out of order");
    }
}

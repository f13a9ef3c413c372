//! `vibra bench policies`: the figures of the papers that the policies come from.
//!
//! A file here holds the figures of a policy; [`FIGURES`] has all of them. A figure's worlds stand in `vibra-sim`, its
//! policies in `vibra-policy`; what is here turns what they measured into a table, a plot and checks.

mod dps;
mod figure;
mod fvm;
mod real;
mod sandpiper;
mod testbed;

use crate::{
    cli::BenchPolicies,
    exit::{Failure, Outcome},
    progress,
};
use anyhow::{Context, anyhow};
use figure::{Figure, Measured, Run, Told};
use serde::Serialize;
use std::{path::Path, time::Duration};
use vibra_report::{Column, Document, Provenance, Sheet};

/// All figures, in the order in which they are made.
const FIGURES: &[&[Figure]] = &[dps::FIGURES, fvm::FIGURES, testbed::FIGURES, sandpiper::FIGURES, real::FIGURES];

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

/// Makes figures, prints them, writes raw results, and fails where something stated is missed.
pub(crate) fn run(args: &BenchPolicies) -> Outcome {
    let mut figures = chosen(&args.only)?;
    if args.list {
        print!("{}", list(&figures));
        return Ok(());
    }
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| format!("the folder {}", folder.display()))?;
    }
    if args.only.is_empty() && args.traces.is_none() {
        figures.retain(|figure| !real::FIGURES.iter().any(|real| real.id == figure.id));
        eprintln!("the figures real-… need traces that are not part of the project: see --traces");
    }
    let bar = progress::steps(figures.len() as u64);
    bar.enable_steady_tick(Duration::from_millis(200));
    let run = Run { quick: args.quick, seed: args.seed, traces: args.traces.clone(), bar };
    let (mut missed, mut failed, mut checks) = (Vec::new(), Vec::new(), 0);
    for figure in figures {
        run.bar.set_message(figure.id);
        let provenance = Provenance::now(crate::COMMIT.map(str::to_owned), Some(run.seed));
        let made = (figure.make)(&run);
        run.bar.inc(1);
        match made {
            Ok(measured) => {
                run.bar.suspend(|| println!("{}", Told(figure, &measured)));
                if let Some(folder) = &args.out {
                    write(folder, figure, provenance, args.quick, &measured)?;
                }
                checks += measured.checks.len();
                let unmet = measured.checks.iter().filter(|check| !check.is_met());
                missed.extend(unmet.map(|check| format!("{}, {}", figure.id, check.what)));
            }
            Err(error) => failed.push(format!("{}: {error:#}", figure.id)),
        }
    }
    run.bar.finish_and_clear();
    match (failed.as_slice(), missed.as_slice()) {
        ([], []) => Ok(()),
        ([], missed) => Err(Failure::Missed(format!("{} of {checks}: {}", missed.len(), missed.join("; ")))),
        (failed, _) => Err(Failure::Void(failed.join("; "))),
    }
}

/// The figures whose ids begin with one of `wanted`; all where nothing is wanted.
fn chosen(wanted: &[String]) -> Result<Vec<&'static Figure>, Failure> {
    let all = || FIGURES.iter().copied().flatten();
    // A policy's name means all of its figures, a figure's name itself alone: fvm-1 is not fvm-10.
    let means =
        |text: &str, id: &str| id.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    if let Some(text) = wanted.iter().find(|text| !all().any(|figure| means(text, figure.id))) {
        let known: Vec<_> = all().map(|figure| figure.id).collect();
        return Err(Failure::usage(anyhow!("there is no figure {text:?}: use some of {}", known.join(", "))));
    }
    let is_wanted = |figure: &&Figure| wanted.is_empty() || wanted.iter().any(|text| means(text, figure.id));
    Ok(all().filter(is_wanted).collect())
}

fn list(figures: &[&Figure]) -> Sheet {
    let mut sheet = Sheet::new(vec![Column::left("figure"), Column::left("title"), Column::left("the paper")]);
    for figure in figures {
        sheet.push([figure.id, figure.title, figure.paper].map(str::to_owned).into());
    }
    sheet
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
    std::fs::write(&text, Told(figure, measured).to_string()).with_context(|| format!("writing {}", text.display()))?;
    for (panel, number) in measured.panels.iter().zip(1..) {
        let plot = file(&format!("{number}.svg"));
        std::fs::write(&plot, panel.plot().svg()?).with_context(|| format!("writing {}", plot.display()))?;
    }
    let setup = Setup { figure: figure.id, title: figure.title, paper: figure.paper, quick, measured };
    Document { provenance, setup, rows: measured.rows.clone() }.write(&file("json"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_figure_is_chosen_by_its_id_or_by_its_policy() {
        let ids = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|&text| text.to_owned()).collect();
            chosen(&wanted).map(|figures| figures.iter().map(|figure| figure.id).collect::<Vec<_>>())
        };
        assert_eq!(ids(&["fvm-3"]).unwrap(), ["fvm-3"]);
        assert!(ids(&["fvm"]).unwrap().len() >= ids(&["fvm-3"]).unwrap().len());
        let all = ids(&[]).unwrap();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "each has an id of its own");
        let Err(Failure::Usage(error)) = ids(&["fvm-33"]) else { panic!("there is no fvm-33") };
        assert!(error.to_string().contains("fvm-3"), "{error}");
        assert!(ids(&["fv"]).is_err(), "half a name is none");
    }
}

//! What simulations look like.

use super::{Row, sweep::Sweep};
use std::{collections::BTreeSet, fs, path::Path};
use vibra_model::Resource;
use vibra_report::{Axis, Bars, Plot, Series};
use vibra_sim::cluster::Outcome;

/// Response times as nobody measures them in less: what took no time still has a place on a logarithmic axis.
const LEAST_MS: f64 = 1e-3;

/// Writes the plots: `mean.svg` over the swept parameter or by way; without a sweep also `time.svg`, and
/// `bandwidth-N.svg` for each way N of the table under which bandwidth moved.
pub(super) fn write(
    folder: &Path,
    sweep: Option<&Sweep>,
    names: &[String],
    rows: &[Row],
    outcomes: &[Outcome],
) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let save = |name: &str, svg: String| fs::write(folder.join(name), svg);
    if let Some(sweep) = sweep {
        save("mean.svg", over_sweep(sweep, names, rows).svg()?)?;
        return Ok(());
    }
    save("mean.svg", by_way(names, rows).svg()?)?;
    save("time.svg", over_time(names, outcomes).svg()?)?;
    for (number, (name, outcome)) in (1..).zip(names.iter().zip(outcomes)) {
        if let Some(plot) = bandwidth(name, outcome) {
            save(&format!("bandwidth-{number}.svg"), plot.svg()?)?;
        }
    }
    Ok(())
}

fn mean(row: &Row) -> Option<f64> {
    row.row.mean_ms.map(|mean| mean.max(LEAST_MS))
}

fn over_sweep(sweep: &Sweep, names: &[String], rows: &[Row]) -> Plot {
    let mut seen = BTreeSet::new();
    let distinct = names.iter().filter(|name| seen.insert(*name));
    let points = |of: &String| -> Vec<_> {
        let own = names.iter().zip(rows).filter(|(name, _)| *name == of);
        own.filter_map(|(_, row)| Some((row.at?, mean(row)?))).collect()
    };
    Plot {
        title: "Mean response time".into(),
        x: Axis::linear(sweep.parameter.label()),
        y: Axis::logarithmic("mean response time, ms"),
        series: distinct.map(|name| Series::new(name.clone(), points(name))).collect(),
    }
}

fn by_way(names: &[String], rows: &[Row]) -> Bars {
    Bars {
        title: "Mean response time".into(),
        y: Axis::logarithmic("ms"),
        groups: vec![String::new()],
        series: names.iter().cloned().zip(rows.iter().map(|row| vec![mean(row)])).collect(),
    }
}

fn over_time(names: &[String], outcomes: &[Outcome]) -> Plot {
    let points = |outcome: &Outcome| -> Vec<_> {
        let part = outcome.part.as_secs_f64();
        let means = outcome.timeline.iter().enumerate();
        means.filter_map(|(place, of)| Some((place as f64 * part, of.mean_ms()?.max(LEAST_MS)))).collect()
    };
    let series = names.iter().zip(outcomes).map(|(name, outcome)| Series::new(name.clone(), points(outcome)));
    Plot {
        title: "Mean response time of the requests of each moment".into(),
        x: Axis::linear("time since the warm-up, s"),
        y: Axis::logarithmic("ms"),
        series: series.collect(),
    }
}

/// The bandwidth of each VM over time, as steps; `None` where it did not change.
fn bandwidth(name: &str, outcome: &Outcome) -> Option<Plot> {
    let given: Vec<_> = outcome.allocations.iter().filter(|given| given.resource == Resource::Bandwidth).collect();
    let vms = given.first()?.amounts.len();
    let of = |vm: usize| {
        let at = |index: usize| given[index].at.0 as f64 / 1e6;
        let value = |index: usize| given[index].amounts[vm] as f64 / 1e6;
        let steps = (0..given.len()).flat_map(|index| {
            let before = index.checked_sub(1).map(|before| (at(index), value(before)));
            before.into_iter().chain([(at(index), value(index))])
        });
        Series::new(format!("VM {}", vm + 1), steps.collect::<Vec<_>>())
    };
    Some(Plot {
        title: format!("Bandwidth: {name}"),
        x: Axis::linear("time, s"),
        y: Axis::linear("MB/s"),
        series: (0..vms).map(of).collect(),
    })
}

//! The smoothing factor and the interval of bandwidth allocation: Figure 3.6.

use super::bed::{Bed, Cell, Load, Timing, each, vibra};
use crate::{
    figure::{Cell as Shown, Check, EstimatedLine, Figure, Heading, Measured, Panel, Run, Wanted},
    live::Way,
};
use serde_json::json;
use std::time::Duration;
use vibra_model::Bytes;
use vibra_report::Axis;
use vibra_trace::generate::worldcup::WorldCup;

pub(super) const FIGURES: &[Figure] = &[Figure {
    id: "3.6",
    title: "The smoothing factor and the interval of bandwidth allocation",
    paper: "Figure 3.6: with R = 2, 48 MB and 2.7 MB/s a VM the mean response times of all settings are within 10 %; with frequent \
            allocations a larger alpha is better; with alpha = 0.9 an interval of 3 s is best.",
    make,
}];

/// Of each VM (section 3.5.3).
const MEMORY: Bytes = Bytes(48 << 20);
const BANDWIDTH: f64 = 2.7e6;

fn make(run: &Run) -> anyhow::Result<Measured> {
    let (alphas, intervals): (&[f64], &[u64]) =
        if run.quick { (&[0.1, 0.9], &[1, 3]) } else { (&[0.1, 0.5, 0.9], &[1, 3, 10]) };
    let timing = Timing { warm_up: run.seconds(3), measured: run.seconds(8) };
    let cell = |interval: u64, alpha: f64| Cell {
        name: format!("3.6: alpha {alpha}, every {interval} s"),
        way: Way {
            parameters: json!({ "alpha": alpha }),
            interval: Duration::from_secs(interval),
            ..vibra(2, each(BANDWIDTH, MEMORY))
        },
        load: Load::AsRecorded,
    };
    let settings: Vec<(u64, f64)> =
        intervals.iter().flat_map(|&interval| alphas.iter().map(move |&alpha| (interval, alpha))).collect();
    let cells: Vec<Cell> = settings.iter().map(|&(interval, alpha)| cell(interval, alpha)).collect();
    let (conditions, all) = run.live(async {
        let trace = WorldCup { seed: run.seed }.generate();
        let bed = Bed::start(run, trace, each(BANDWIDTH, MEMORY), timing, None).await?;
        let all = bed.measure(&cells, |sample| sample.mean_ms).await?;
        let conditions = bed.conditions(&all);
        bed.stop().await?;
        Ok((conditions, all))
    })?;
    let mean = |index: usize| all[index].mean(|sample| sample.mean_ms);
    let row = |(index, &(interval, alpha)): (usize, &(u64, f64))| -> Vec<Shown> {
        let samples = &all[index];
        vec![
            (interval as f64).into(),
            alpha.into(),
            mean(index).into(),
            samples.uncertainty(|sample| sample.mean_ms).into(),
            samples.failed().into(),
            (samples.good.len() as f64).into(),
            (samples.voids as f64).into(),
        ]
    };
    let line = |interval: u64| EstimatedLine {
        name: format!("every {interval} s"),
        points: (settings.iter().zip(&all))
            .filter(|((every, _), _)| *every == interval)
            .filter_map(|((_, alpha), samples)| Some((*alpha, samples.estimate(|sample| sample.mean_ms)?)))
            .collect(),
    };
    let means: Option<Vec<f64>> = (0..settings.len()).map(mean).collect();
    let at = |wanted: (u64, f64)| mean(settings.iter().position(|&setting| setting == wanted)?);
    let extremes = means.as_ref().and_then(|means| {
        let (least, most) = means.iter().fold((f64::MAX, f64::MIN), |(a, b), &mean| (a.min(mean), b.max(mean)));
        (!means.is_empty()).then_some((least, most))
    });
    Ok(Measured {
        conditions: format!("R = 2, Charsum, 48 MB and 2.7 MB/s a VM, at the times of the trace. {conditions}"),
        columns: vec![
            Heading::numbers("interval (s)", 0),
            Heading::numbers("alpha", 1),
            Heading::numbers("mean (ms)", 2),
            Heading::numbers("± (%)", 1),
            Heading::numbers("failed (%)", 2),
            Heading::numbers("runs", 0),
            Heading::numbers("void runs", 0),
        ],
        rows: settings.iter().enumerate().map(row).collect(),
        panels: vec![Panel::Estimates {
            title: "Mean response time by smoothing factor and interval".into(),
            x: Axis::linear("alpha"),
            y: Axis::linear("mean response time, ms"),
            lines: intervals.iter().map(|&interval| line(interval)).collect(),
        }],
        checks: vec![
            Check::new(
                "slowest setting over the fastest, %",
                "10 %",
                extremes.map(|(least, most)| 100.0 * (most / least - 1.0)),
                Wanted::AtMost(10.0),
            )
            .with_decimals(1)
            .because(
                "runs are seconds long, and their servers are not slowed down by a processor of that time: what is left of a \
                 response time is waiting, which varies most",
            ),
            Check::new(
                "alpha = 0.9 every 3 s, to the fastest setting",
                "the best",
                at((3, 0.9)).zip(extremes).map(|(own, (least, _))| own / least),
                Wanted::AtMost(1.1),
            ),
            Check::new(
                "every second: alpha = 0.9 to alpha = 0.1",
                "less than 1",
                at((1, 0.9)).zip(at((1, 0.1))).map(|(large, small)| large / small),
                Wanted::AtMost(1.0),
            ),
        ],
    })
}

//! Holds what was measured against what is promised.
//!
//! Each row of the result compares this dispatcher with the best of the others in that row. The ratio is above 1 where
//! it is worse: of costs it is ours to theirs, of rates theirs to ours. It is the median of the ratios within each round,
//! which a disturbance of one round does not move, with a bootstrap interval. A promise is missed where the ratio is above
//! its limit; where the interval holds the limit, more rounds are needed to be sure.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vibra_report::{Column, Estimate, Resampling, Table, bootstrap, median, number};

/// Of the bootstrap's resampling.
pub(super) const SEED: u64 = 1;

/// Fewer rounds with a value of both say nothing.
const LEAST_PAIRS: usize = 2;

/// What is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Lower,
    Higher,
}

/// Something that a cell measures in each run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    /// Its name in the table; in the raw results, too.
    pub(super) name: &'static str,
    pub(super) better: Better,
    /// The promise: the ratio is at most this. `None`: shown, not judged.
    pub(super) limit: Option<f64>,
    /// How many decimals the table shows.
    pub(super) decimals: usize,
    /// What must hold for it to say something of the proxy; else there is no verdict.
    pub(super) only_if: Option<Condition>,
}

/// That another value of our own side is large enough, in the median over the rounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition {
    /// The value's name.
    pub(super) value: &'static str,
    pub(super) least: f64,
    /// What the table says instead of a verdict.
    pub(super) otherwise: &'static str,
}

/// One run of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) cell: String,
    /// What runs of other sides it is compared with: those of the same number.
    pub(super) round: u64,
    pub(super) side: String,
    #[serde(flatten)]
    pub(super) values: BTreeMap<String, f64>,
}

/// A row of the result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) cell: String,
    pub(super) measure: String,
    /// The median of each side that has one, ours first.
    pub(super) medians: Vec<(String, f64)>,
    /// The best of the others, which ours is compared with.
    pub(super) best: Option<String>,
    /// Above 1 where ours is worse.
    pub(super) ratio: Option<Estimate>,
    pub(super) limit: Option<f64>,
    /// Why it says nothing of the proxy, where it does not.
    pub(super) not_judged: Option<String>,
    decimals: usize,
}

/// How a row fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// At most the limit; surely, if the whole interval is.
    Met { surely: bool },
    /// Above the limit; surely, if the whole interval is.
    Missed { surely: bool },
    /// Something else than the proxy decides.
    NotJudged,
    /// There is no limit, or nothing to compare.
    None,
}

impl Row {
    /// Compares `sides`, of which the first is ours, in all runs of a cell.
    ///
    /// # Errors
    /// If a value is no number that can be compared.
    pub(super) fn new(cell: &str, measure: &Measure, sides: &[&'static str], runs: &[Run]) -> anyhow::Result<Row> {
        let series = |side: &str, value: &str| -> BTreeMap<u64, f64> {
            let own = runs.iter().filter(|run| run.cell == cell && run.side == side);
            own.filter_map(|run| Some((run.round, *run.values.get(value)?))).collect()
        };
        let all: Vec<_> = sides.iter().map(|&side| (side, series(side, measure.name))).collect();
        let middle = |of: &BTreeMap<u64, f64>| median(&of.values().copied().collect::<Vec<_>>());
        let medians: Vec<_> = all.iter().filter_map(|(side, of)| Some((*side, middle(of)?))).collect();
        let (ours, others) = all.split_first().context("a cell has sides")?;
        let cost = |(_, value): &&(&str, f64)| match measure.better {
            Better::Lower => *value,
            Better::Higher => -*value,
        };
        let best = medians.iter().filter(|(side, _)| *side != ours.0).min_by(|a, b| cost(a).total_cmp(&cost(b)));
        let best = best.map(|(side, _)| *side);
        let theirs = others.iter().find(|(side, _)| Some(*side) == best);
        let ratios: Vec<f64> = theirs.map_or(Vec::new(), |(_, theirs)| {
            let pair = |(round, ours): (&u64, &f64)| theirs.get(round).map(|theirs| (*ours, *theirs));
            let pairs = ours.1.iter().filter_map(pair);
            let ratio = |(ours, theirs): (f64, f64)| match measure.better {
                Better::Lower => ours / theirs,
                Better::Higher => theirs / ours,
            };
            pairs.map(ratio).collect()
        });
        let ratio = if ratios.len() < LEAST_PAIRS {
            None
        } else {
            let statistic = |ratios: &[f64]| median(ratios).unwrap_or(f64::NAN);
            let estimate = bootstrap(&ratios, statistic, Resampling::with_seed(SEED));
            Some(estimate.with_context(|| format!("{cell}, {}", measure.name))?)
        };
        let fails = |condition: &Condition| {
            let value = middle(&series(ours.0, condition.value));
            value.is_some_and(|value| value < condition.least)
        };
        let not_judged = measure
            .only_if
            .filter(|_| measure.limit.is_some())
            .filter(fails)
            .map(|condition| condition.otherwise.to_owned());
        Ok(Row {
            cell: cell.to_owned(),
            measure: measure.name.to_owned(),
            medians: medians.into_iter().map(|(side, value)| (side.to_owned(), value)).collect(),
            best: best.map(str::to_owned),
            ratio,
            limit: measure.limit,
            not_judged,
            decimals: measure.decimals,
        })
    }

    pub(super) fn verdict(&self) -> Verdict {
        let (Some(limit), Some(Estimate { value, low, high, .. })) = (self.limit, self.ratio) else {
            return Verdict::None;
        };
        if self.not_judged.is_some() {
            return Verdict::NotJudged;
        }
        if value > limit { Verdict::Missed { surely: low > limit } } else { Verdict::Met { surely: high <= limit } }
    }
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Verdict::Met { surely: true } => "met",
            Verdict::Met { surely: false } => "met?",
            Verdict::Missed { surely: true } => "MISSED",
            Verdict::Missed { surely: false } => "MISSED?",
            Verdict::NotJudged | Verdict::None => "",
        }
    }
}

/// The table of all rows.
pub(super) fn table(rows: &[Row]) -> Table<8> {
    let mut table = Table::new([
        Column::left("cell"),
        Column::left("measure"),
        Column::right("vibra"),
        Column::left("others"),
        Column::right("ratio"),
        Column::left("95 % interval"),
        Column::right("at most"),
        Column::left("verdict"),
    ]);
    for row in rows {
        let show = |value: f64| number(Some(value), row.decimals);
        let others = row.medians.iter().filter(|(side, _)| side != OURS);
        let others: Vec<_> = others.map(|(side, value)| format!("{side} {}", show(*value))).collect();
        let ours = row.medians.iter().find(|(side, _)| side == OURS);
        let ratio = row.ratio;
        table.push([
            row.cell.clone(),
            row.measure.clone(),
            ours.map_or("-".into(), |(_, value)| show(*value)),
            others.join(", "),
            number(ratio.map(|ratio| ratio.value), 3),
            ratio.map_or("-".into(), |ratio| format!("{:.3} to {:.3}", ratio.low, ratio.high)),
            number(row.limit, 2),
            row.not_judged.as_deref().unwrap_or_else(|| row.verdict().text()).to_owned(),
        ]);
    }
    table
}

/// The name of the side that is judged.
pub(super) const OURS: &str = "vibra";

#[cfg(test)]
mod tests {
    use super::*;

    const SIDES: [&str; 3] = [OURS, "a", "b"];

    fn runs(series: &[(&'static str, &[f64])]) -> Vec<Run> {
        let of = |&(side, values): &(&'static str, &[f64])| {
            let run = move |(round, value): (u64, &f64)| Run {
                cell: "cell".into(),
                round,
                side: side.to_owned(),
                values: BTreeMap::from([("cost".to_owned(), *value)]),
            };
            (0..).zip(values).map(run).collect::<Vec<_>>()
        };
        series.iter().flat_map(of).collect()
    }

    fn row(better: Better, limit: f64, series: &[(&'static str, &[f64])]) -> Row {
        Row::new("cell", &measure(better, limit), &SIDES, &runs(series)).unwrap()
    }

    fn measure(better: Better, limit: f64) -> Measure {
        Measure { name: "cost", better, limit: Some(limit), decimals: 1, only_if: None }
    }

    #[test]
    fn ours_is_held_against_the_best_of_the_others() {
        let series: [(_, &[f64]); 3] = [(OURS, &[11.0; 4]), ("a", &[10.0; 4]), ("b", &[20.0; 4])];
        let costs = row(Better::Lower, 1.0, &series);
        assert_eq!((costs.best.as_deref(), costs.ratio.unwrap().value), (Some("a"), 1.1));
        assert_eq!(costs.verdict(), Verdict::Missed { surely: true });
        // The same numbers, as rates: now b is the best, and it is worse to have less.
        let rates = row(Better::Higher, 2.0, &series);
        assert_eq!((rates.best.as_deref(), rates.ratio.unwrap().value), (Some("b"), 20.0 / 11.0));
        assert_eq!(rates.verdict(), Verdict::Met { surely: true });
    }

    #[test]
    fn exactly_the_limit_is_met() {
        let series: [(_, &[f64]); 2] = [(OURS, &[5.0; 3]), ("a", &[5.0; 3])];
        assert_eq!(row(Better::Lower, 1.0, &series).verdict(), Verdict::Met { surely: true });
    }

    #[test]
    fn pairs_are_within_a_round_so_that_drift_cancels_out() {
        let theirs = [10.0, 20.0, 40.0, 80.0];
        let ours = theirs.map(|value| value * 0.9);
        let ratio = row(Better::Lower, 1.0, &[(OURS, &ours), ("a", &theirs)]).ratio.unwrap();
        for end in [ratio.value, ratio.low, ratio.high] {
            assert!((end - 0.9).abs() < 1e-12, "{ratio:?}");
        }
    }

    #[test]
    fn one_disturbed_round_does_not_decide_but_leaves_doubt() {
        let mut ours = [9.0; 3];
        ours[1] = 900.0;
        let row = row(Better::Lower, 1.0, &[(OURS, &ours), ("a", &[10.0; 3])]);
        assert_eq!((row.ratio.unwrap().value, row.verdict()), (0.9, Verdict::Met { surely: false }));
    }

    #[test]
    fn a_run_without_its_pair_does_not_count_and_one_pair_is_not_enough() {
        let ratio = |theirs: &[f64]| row(Better::Lower, 1.0, &[(OURS, &[9.0; 4]), ("a", theirs)]).ratio;
        assert_eq!(ratio(&[10.0, 10.0]).unwrap().value, 0.9);
        assert_eq!(ratio(&[10.0]), None);
        assert_eq!(ratio(&[]), None);
    }

    #[test]
    fn where_something_else_is_the_limit_there_is_a_ratio_and_no_verdict() {
        let condition = Condition { value: "busy", least: 0.8, otherwise: "idle" };
        let row = |busy: [f64; 3]| {
            let mut runs = runs(&[(OURS, &[10.0; 3]), ("a", &[30.0; 3])]);
            for (run, busy) in runs.iter_mut().zip(busy) {
                run.values.insert("busy".to_owned(), busy);
            }
            let measure = Measure { only_if: Some(condition), ..measure(Better::Higher, 1.1) };
            Row::new("cell", &measure, &SIDES, &runs).unwrap()
        };
        let idle = row([0.1, 0.7, 0.9]);
        assert_eq!((idle.ratio.unwrap().value, idle.verdict()), (3.0, Verdict::NotJudged));
        assert!(table(&[idle]).to_string().contains("3.000 to 3.000     1.10  idle"));
        assert_eq!(row([0.1, 0.8, 0.9]).verdict(), Verdict::Missed { surely: true });
    }

    #[test]
    fn the_table_shows_who_is_not_measured_by_a_dash() {
        let rows = [
            row(Better::Lower, 1.0, &[(OURS, &[9.0; 2]), ("a", &[10.0; 2]), ("b", &[12.0; 2])]),
            row(Better::Lower, 1.0, &[("a", &[10.0; 2])]),
        ];
        assert_eq!(rows[1].verdict(), Verdict::None);
        let expected = "\
cell  measure  vibra  others          ratio  95 % interval   at most  verdict
----  -------  -----  --------------  -----  --------------  -------  -------
cell  cost       9.0  a 10.0, b 12.0  0.900  0.900 to 0.900     1.00  met
cell  cost         -  a 10.0              -  -                  1.00
";
        assert_eq!(table(&rows).to_string(), expected);
    }
}

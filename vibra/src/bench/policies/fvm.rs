//! The figures of "Friendly Virtual Machines".

use crate::figure::{Check, Figure, Heading, Line, Measured, Panel, Run, Wanted};
use vibra_policy::fvm::{Admission, Fluid, Point};
use vibra_report::Axis;

pub(super) const FIGURES: &[Figure] = &[Figure {
    id: "fvm-3",
    title: "Convergence to fairness in the analytic model",
    paper: "Figure 3: five VMs that adapt meet at the same number of threads; with an admission controller they come to rest at \
            unequal ones. Both stay efficient.",
    make: analytic,
}];

/// Threads of the five VMs at first.
const START: [f64; 5] = [4.0, 7.0, 10.0, 13.0, 16.0];
/// Steps that are drawn, and for a quick look.
const STEPS: (usize, usize) = (100, 80);

fn analytic(run: &Run) -> anyhow::Result<Measured> {
    let (model, controller) = (Fluid::default(), Admission::default());
    let steps = if run.quick { STEPS.1 } else { STEPS.0 };
    let adapted = model.adapt(&START, steps);
    let admitted = model.admit(&controller, &START, steps);
    let row = |vm: usize| {
        let threads = |path: &[Point], step: usize| path[step].threads[vm];
        let cells = [START[vm], threads(&adapted, 5), threads(&adapted, steps), threads(&admitted, steps)];
        [format!("VM {}", vm + 1).into()].into_iter().chain(cells.map(Into::into)).collect()
    };
    let columns = ["at first", "adapted, step 5", "adapted, last step", "admitted, last step"];
    let [pole, _] = model.poles(START.len());
    Ok(Measured {
        conditions: format!(
            "Equations 3 to 8, K1 {}, gamma {}, sigma {:e}, K2 {:e}, P_T {}; {steps} steps. About its equilibrium the model \
             swings once in {:.0} steps and dies out by e in {:.0}.",
            model.k1,
            model.gamma,
            model.sigma,
            controller.k2,
            controller.target,
            2.0 * std::f64::consts::PI / pole.imaginary,
            -1.0 / pole.real
        ),
        columns: [Heading::words("VM")].into_iter().chain(columns.map(|name| Heading::numbers(name, 2))).collect(),
        rows: (0..START.len()).map(row).collect(),
        panels: vec![
            panel("(a) With application adaptation", &adapted),
            panel("(b) With admission control", &admitted),
        ],
        checks: analytic_checks(&model, &adapted, &admitted[steps], controller.target),
    })
}

fn analytic_checks(model: &Fluid, adapted: &[Point], admitted: &Point, target: f64) -> Vec<Check> {
    let meet = model.equilibrium(START.len()).threads;
    let ratio = |point: &Point| {
        let (fewest, most) =
            (point.threads.iter().copied().reduce(f64::min), point.threads.iter().copied().reduce(f64::max));
        Some(most? / fewest?)
    };
    let end = &adapted[adapted.len() - 1];
    let off = end.threads.iter().map(|threads| (threads - meet).abs()).reduce(f64::max);
    let meeting = format!("{meet:.3} threads (equations 9 and 10)");
    let turns = |vm: usize| adapted.windows(2).position(|pair| pair[1].threads[vm] < pair[0].threads[vm]);
    let last_turn = (0..START.len()).filter_map(turns).max();
    vec![
        Check::new(
            "adapted: steps until all VMs have turned",
            "5",
            last_turn.map(|n| n as f64),
            Wanted::Within(4.0, 7.0),
        )
        .with_decimals(0)
        .because(
            "the paper has every VM grow for 5 steps, and does not say what g is at first. Here it is 0, and the \
                 VM with most threads turns first, once c is over 2/(n + 2)",
        ),
        Check::new("adapted: most over fewest threads", "equal", ratio(end), Wanted::AtMost(1.01)).with_decimals(3),
        Check::new("adapted: away from n^3 + 2n^2 = 320", meeting, off, Wanted::AtMost(0.01)).with_decimals(4),
        Check::new("admitted: most over fewest threads", "not fair", ratio(admitted), Wanted::AtLeast(1.5)),
        Check::new("admitted: price over P_T", "1", Some(admitted.price / target), Wanted::Within(0.99, 1.01)),
    ]
}

fn panel(title: &str, path: &[Point]) -> Panel {
    let line = |vm: usize| Line {
        name: format!("VM {}", vm + 1),
        points: path.iter().map(|point| (point.at, point.threads[vm])).collect(),
    };
    Panel::Lines {
        title: title.to_owned(),
        x: Axis::linear("step"),
        y: Axis::linear("threads"),
        lines: (0..START.len()).map(line).collect(),
    }
}

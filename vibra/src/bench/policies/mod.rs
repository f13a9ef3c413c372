//! `vibra bench policies`: the figures of the papers that the policies come from.
//!
//! A file here holds the figures of a policy; [`FIGURES`] has all of them. A figure's worlds stand in `vibra-sim`, its
//! policies in `vibra-policy`; what is here turns what they measured into a table, a plot and checks.

mod dps;
mod fvm;
mod real;
mod sandpiper;
mod testbed;

use crate::{
    cli::BenchPolicies,
    exit::Outcome,
    figure::{Book, Figure, Run},
};

/// All figures, in the order in which they are made.
const FIGURES: &[&[Figure]] = &[dps::FIGURES, fvm::FIGURES, testbed::FIGURES, sandpiper::FIGURES, real::FIGURES];

const BOOK: Book = Book {
    title: "The policies' papers, repeated",
    preface: "Each figure is computed or simulated, and seeded: the same seed gives the same figure. Where policies decide, they \
              are those that run live.",
    figures: FIGURES,
};

/// Makes figures, prints them, writes raw results, and fails where something stated is missed.
pub(crate) fn run(args: &BenchPolicies) -> Outcome {
    let figures = BOOK.chosen(&args.only)?;
    if args.list {
        print!("{}", BOOK.list(&figures));
        return Ok(());
    }
    let mut run = Run::new(args.quick, args.seed, figures.len());
    run.traces.clone_from(&args.traces);
    BOOK.make(&figures, &run, args.out.as_deref())
}

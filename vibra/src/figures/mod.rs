//! `vibra figures`: the evaluation of the dissertation, repeated on this machine.
//!
//! A file here holds figures that are made alike; [`BOOK`] has all of them. A figure's `make` measures and holds what came
//! out against what the dissertation states; [`figure`](crate::figure) shows it.

mod bed;
mod dispatching;
mod response;
mod takeover;
mod throughput;
mod trace;
mod tuning;
mod working_set;

use crate::{
    cli,
    exit::Outcome,
    figure::{Book, Run},
};

const BOOK: Book = Book {
    title: "Vibra: the dissertation's evaluation, repeated",
    preface: "Each figure has the statement of the dissertation (chapters 3 and 4), what was measured here, a check for each \
              number that is stated, and the reason where one is missed. The testbed of 2006, four Pentium 4 servers behind a \
              fifth, is four VMs on this one machine, with the bandwidth and the memory of the text and disks throttled to those \
              of the time; what was scaled stands with each figure. The trace of the text is not to be had: its place is taken by a \
              reconstruction that agrees with everything that is known of it. Differences between ways to dispatch can be \
              compared with the dissertation's; times in milliseconds cannot.",
    figures: &[
        trace::FIGURES,
        dispatching::FIGURES,
        tuning::FIGURES,
        response::FIGURES,
        throughput::FIGURES,
        working_set::FIGURES,
        takeover::FIGURES,
    ],
};

/// Makes the figures that are asked for, and fails where something stated is missed.
pub(crate) fn run(args: &cli::Figures) -> Outcome {
    if let Some(way) = args.footprint {
        return Ok(dispatching::print_footprint(way)?);
    }
    let figures = BOOK.chosen(&args.only)?;
    if args.list {
        print!("{}", BOOK.list(&figures));
        return Ok(());
    }
    let mut run = Run::new(args.quick, args.seed, figures.len());
    run.in_process = args.in_process;
    run.rounds = if args.quick { 1 } else { args.rounds };
    BOOK.make(&figures, &run, args.out.as_deref())
}

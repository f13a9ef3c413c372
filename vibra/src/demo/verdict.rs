//! What the reader should see in the table.

use vibra_report::DemoRow;

/// The dissertation's statement (Figure 3.7): so much lower is the mean response time of url-hash R=2 with
/// `proportional`, compared with a peer that has fixed allocations.
const PAPER: [(&str, f64); 2] = [("lard", 0.51), ("least-connection", 0.35)];

/// Sentences that compare the last of `rows`, and `less` (the same with a fifth less bandwidth), with their peers.
pub(super) fn sentences(rows: &[DemoRow], less: &DemoRow) -> Vec<String> {
    let mean = |name: &str| rows.iter().find(|row| row.algorithm == name)?.mean_ms;
    let Some(own) = rows.last().and_then(|row| row.mean_ms) else {
        return vec!["url-hash R=2 with proportional answered nothing: see the errors.".to_owned()];
    };
    let mut sentences = vec![
        "What to see: every way has the same bandwidth in all. url-hash keeps each URL on few servers, so fewer disk \
         blocks are read; where that makes a server hot, proportional moves bandwidth to it. Every way starts with cold \
         caches, so a short run weighs disk reads more than a long one does (--seconds 600: the whole window)."
            .to_owned(),
    ];
    for (peer, paper) in PAPER {
        let Some(theirs) = mean(peer).filter(|theirs| *theirs > 0.0) else { continue };
        let (word, part) = if own <= theirs { ("below", 1.0 - own / theirs) } else { ("above", own / theirs - 1.0) };
        sentences.push(format!(
            "url-hash R=2 with proportional: mean {own:.1} ms, {:.0} % {word} {peer} ({theirs:.1} ms); the dissertation \
             has {:.0} % below.",
            100.0 * part,
            100.0 * paper
        ));
    }
    if let (Some(less), Some(theirs)) = (less.mean_ms, mean("least-connection")) {
        let word = if less <= theirs { "no worse than" } else { "worse than" };
        sentences.push(format!(
            "With 20 % less bandwidth it has {less:.1} ms, {word} least-connection with all of it ({theirs:.1} ms)."
        ));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(algorithm: &str, mean_ms: Option<f64>) -> DemoRow {
        DemoRow {
            algorithm: algorithm.into(),
            replicas: None,
            policy: "static".into(),
            requests: 1,
            errors: 0,
            mean_ms,
            p50_ms: None,
            p99_ms: None,
            bytes_per_s: None,
            disk_blocks: None,
            bandwidth_moved_bytes_per_s: None,
            void: None,
        }
    }

    #[test]
    fn the_comparison_says_what_was_measured_whichever_way_it_went() {
        let rows = [row("lard", Some(40.0)), row("least-connection", Some(20.0)), row("url-hash", Some(30.0))];
        let text = sentences(&rows, &row("url-hash", Some(25.0))).join("\n");
        assert!(text.contains("25 % below lard (40.0 ms); the dissertation has 51 % below"), "{text}");
        assert!(text.contains("50 % above least-connection (20.0 ms)"), "{text}");
        assert!(text.contains("25.0 ms, worse than least-connection"), "{text}");
    }

    #[test]
    fn a_cluster_that_answered_nothing_is_no_success() {
        let rows = [row("lard", Some(40.0)), row("url-hash", None)];
        assert!(sentences(&rows, &row("url-hash", None))[0].contains("answered nothing"));
    }
}

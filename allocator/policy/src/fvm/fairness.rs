//! How fairly and efficiently VMs fare (section 5).

/// The fairness index FI = 1 − √Σ(x_i − o_i)² / √Σ o_i² (equation 16) of what VMs achieve, `measured` (x), against what
/// each would achieve under a perfectly fair and efficient allocation, `optimal` (o), in any unit that is the same for
/// both. 1 is the best; it falls where *either* fairness or efficiency does.
///
/// `None` if there are not as many of the one as of the other, or the optimum is nothing at all.
///
/// ```
/// use vibra_policy::fvm::fairness_index;
///
/// assert_eq!(fairness_index(&[2.0, 2.0], &[2.0, 2.0]), Some(1.0));
/// assert_eq!(fairness_index(&[1.0, 1.0], &[2.0, 2.0]), Some(0.5), "fair, but half of it is wasted");
/// assert_eq!(fairness_index(&[4.0, 0.0], &[2.0, 2.0]), Some(0.0), "nothing is wasted, but one has it all");
/// ```
pub fn fairness_index(measured: &[f64], optimal: &[f64]) -> Option<f64> {
    let norm = optimal.iter().map(|o| o * o).sum::<f64>().sqrt();
    if measured.len() != optimal.len() || norm == 0.0 {
        return None;
    }
    let off = measured.iter().zip(optimal).map(|(x, o)| (x - o).powi(2)).sum::<f64>().sqrt();
    Some(1.0 - off / norm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_optimum_there_is_no_index() {
        assert_eq!(fairness_index(&[], &[]), None);
        assert_eq!(fairness_index(&[1.0], &[0.0]), None);
        assert_eq!(fairness_index(&[1.0], &[1.0, 1.0]), None);
    }
}

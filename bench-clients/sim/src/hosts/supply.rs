//! How a host divides what it has.

/// Divides `capacity` among VMs that want `wants`, none of which may have more than its own limit: work-conserving and
/// max-min fair, as a fair-share scheduler does. Without a capacity each gets what it wants, within its limit.
pub(super) fn divided(capacity: Option<f64>, wants: &[(f64, Option<f64>)]) -> Vec<f64> {
    let mut got: Vec<f64> = wants.iter().map(|&(want, limit)| limit.map_or(want, |limit| want.min(limit))).collect();
    let Some(mut left) = capacity else { return got };
    let mut order: Vec<usize> = (0..got.len()).collect();
    order.sort_by(|&a, &b| got[a].total_cmp(&got[b]));
    for (served, &vm) in order.iter().enumerate() {
        got[vm] = got[vm].min(left / (order.len() - served) as f64);
        left -= got[vm];
    }
    got
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_wants_little_gets_it_and_the_others_share_the_rest() {
        assert_eq!(divided(Some(100.0), &[(70.0, None), (20.0, None)]), [70.0, 20.0]);
        assert_eq!(divided(Some(100.0), &[(70.0, None), (70.0, None), (20.0, None)]), [40.0, 40.0, 20.0]);
        assert_eq!(divided(Some(100.0), &[(70.0, Some(10.0)), (200.0, None)]), [10.0, 90.0]);
        assert_eq!(divided(None, &[(70.0, Some(10.0)), (200.0, None)]), [10.0, 200.0]);
    }
}

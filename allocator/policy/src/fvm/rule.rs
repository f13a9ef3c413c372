//! How a limit rises and falls.

use serde::{Deserialize, Serialize};

/// A rule of the binomial family (Bansal and Balakrishnan, INFOCOM 2001, which the paper cites for it): a limit n rises
/// to n + α/n^k where there is no congestion, and falls to n − β·n^l where there is.
///
/// VMs that share a resource come to equal shares also under different rules if these are *compatible* (section 2, note
/// 5). With a congestion signal of probability p, n settles near (α / (β p))^(1/(k + l + 1)): whatever p is, that is
/// equal for all rules with the same k + l and the same α/β. So l = 1 − k here, and the named rules have α/β = 3, as the
/// paper's AIMD has.
///
/// | name | k | l | α | β | |
/// | --- | --- | --- | --- | --- | --- |
/// | `aimd` | 0 | 1 | 1 | 1/3 | + 1, / 1.5: the paper's (Table 1) |
/// | `sqrt` | 1/2 | 1/2 | 1 | 1/3 | falls less at once, rises less |
/// | `iiad` | 1 | 0 | 3 | 1 | falls by one at a time, whatever it is |
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Rule {
    /// k, from 0 to 1; l is 1 − k.
    pub k: f64,
    /// α, above 0.
    pub alpha: f64,
    /// β, above 0; at most 1.
    pub beta: f64,
}

/// A rule as it is configured.
#[derive(Deserialize)]
#[serde(untagged, expecting = "\"aimd\", \"sqrt\", \"iiad\" or { k = …, alpha = …, beta = … }")]
enum Written {
    Name(String),
    Numbers(Numbers),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Numbers {
    k: f64,
    alpha: f64,
    beta: f64,
}

impl Rule {
    /// Additive increase, multiplicative decrease.
    pub const AIMD: Rule = Rule { k: 0.0, alpha: 1.0, beta: 1.0 / 3.0 };
    /// Halfway between the two others.
    pub const SQRT: Rule = Rule { k: 0.5, alpha: 1.0, beta: 1.0 / 3.0 };
    /// Inverse increase, additive decrease.
    pub const IIAD: Rule = Rule { k: 1.0, alpha: 3.0, beta: 1.0 };

    /// The limit after a period without congestion.
    pub fn increased(&self, limit: f64) -> f64 {
        limit + self.alpha / limit.powf(self.k)
    }

    /// The limit after a period with congestion; never below 0.
    pub fn decreased(&self, limit: f64) -> f64 {
        (limit - self.beta * limit.powf(1.0 - self.k)).max(0.0)
    }
}

impl TryFrom<Written> for Rule {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Numbers { k, alpha, beta } = match written {
            Written::Numbers(numbers) => numbers,
            Written::Name(name) => {
                return match name.as_str() {
                    "aimd" => Ok(Rule::AIMD),
                    "sqrt" => Ok(Rule::SQRT),
                    "iiad" => Ok(Rule::IIAD),
                    _ => Err(format!(
                        "there is no rule {name:?}: use aimd, sqrt, iiad or {{ k = …, alpha = …, beta = … }}"
                    )),
                };
            }
        };
        if !(0.0..=1.0).contains(&k) {
            return Err(format!("k = {k} is out of range: use 0 to 1"));
        }
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(format!("alpha = {alpha} is out of range: use more than 0"));
        }
        if !(beta > 0.0 && beta <= 1.0) {
            return Err(format!("beta = {beta} is out of range: use more than 0 and at most 1"));
        }
        Ok(Rule { k, alpha, beta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn the_papers_rule_adds_one_and_divides_by_one_and_a_half() {
        assert_eq!(Rule::AIMD.increased(10.0), 11.0);
        assert!((Rule::AIMD.decreased(15.0) - 10.0).abs() < 1e-12);
        assert_eq!((Rule::IIAD.increased(6.0), Rule::IIAD.decreased(6.0)), (6.5, 5.0));
    }

    #[test]
    fn rules_have_names_or_numbers() {
        let rule = |value| serde_json::from_value::<Rule>(value);
        assert_eq!(rule(json!("sqrt")).unwrap(), Rule::SQRT);
        assert_eq!(rule(json!({ "k": 0.0, "alpha": 1.0, "beta": 0.5 })).unwrap().decreased(10.0), 5.0);
        for (wrong, word) in [
            (json!("mimd"), "iiad"),
            (json!({ "k": 1.5, "alpha": 1.0, "beta": 0.5 }), "k = 1.5"),
            (json!({ "k": 0.5, "alpha": 0.0, "beta": 0.5 }), "alpha = 0"),
            (json!({ "k": 0.5, "alpha": 1.0, "beta": 2.0 }), "beta = 2"),
            (json!({ "k": 0.5, "alpha": 1.0 }), "aimd"),
        ] {
            let error = rule(wrong).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    /// Numbers from 0 to 1 that look random.
    fn draws(mut state: u64) -> impl FnMut() -> f64 {
        move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        }
    }

    /// VMs under different rules, each of which sees congestion with a probability of its own demand's share, as one that
    /// samples the shared resource would: the mean limit of each.
    #[test]
    fn compatible_rules_get_equal_shares_of_one_resource() {
        let rules = [Rule::AIMD, Rule::SQRT, Rule::IIAD];
        let (mut limits, mut sums, mut draw) = ([40.0, 2.0, 10.0], [0.0; 3], draws(1998));
        const STEPS: usize = 200_000;
        for _ in 0..STEPS {
            let p = (limits.iter().sum::<f64>() / 300.0).powi(3);
            for (limit, rule) in limits.iter_mut().zip(rules) {
                *limit = if draw() < p { rule.decreased(*limit) } else { rule.increased(*limit) }.max(1.0);
            }
            sums.iter_mut().zip(limits).for_each(|(sum, limit)| *sum += limit);
        }
        let means = sums.map(|sum| sum / STEPS as f64);
        let (most, least) = (means.iter().copied().fold(0.0, f64::max), means.iter().copied().fold(f64::MAX, f64::min));
        // "Near": the mean of a limit that swings more is a little less.
        assert!(most / least < 1.15, "{means:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// All see the same signal at once (Chiu and Jain): whatever they began with, they come closer.
        #[test]
        fn under_one_signal_every_rule_comes_to_equal_shares(k in 0.0..=1.0, a in 1.0..60.0, b in 1.0..60.0, room in 20.0..200.0) {
            let rule = Rule { k, alpha: 1.0, beta: 1.0 / 3.0 };
            let (mut one, mut other): (f64, f64) = (a, b);
            for _ in 0..100_000 {
                let next = |limit: f64| if one + other > room { rule.decreased(limit) } else { rule.increased(limit) }.max(1.0);
                (one, other) = (next(one), next(other));
            }
            prop_assert!((one - other).abs() < 0.5, "{one} and {other}");
        }
    }
}

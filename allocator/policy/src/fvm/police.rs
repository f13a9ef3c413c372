//! Finding VMs that do not back off (section 4, "policing").

use super::Rule;
use std::collections::BTreeMap;
use std::fmt;
use vibra_model::VmId;

/// Looks at a few VMs at a time, chosen at random, and says which of them do not adapt as they should.
///
/// The paper wants the system "to identify misbehaving applications, i.e., those which do not adapt in a manner compatible
/// with prescribed rules", by "random sampling of resource usage", and leaves open how. Here a sample of a VM is
/// three periods in a row: it must not use more than the limit that it claims, and where there was congestion in the second it
/// must have lowered that limit, then or in the third, at least as far as the rule says. Who uses less than its limit anyway is so not taken for one who does not obey.
/// Several lapses in a row, of as many samples, are a finding; who is found is not found again before it has obeyed once.
#[derive(Debug, Clone)]
pub struct Police {
    parameters: PoliceParameters,
    suspects: BTreeMap<VmId, Suspect>,
}

/// How VMs are policed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PoliceParameters {
    /// The probability that a VM is looked at in a period, above 0 and at most 1. Default: 0.5.
    pub sample: f64,
    /// The rule that limits have to follow. Default: AIMD.
    pub rule: Rule,
    /// The slowdown beyond which there is congestion: the VMs' own H. Default: 2.5.
    pub threshold: f64,
    /// How much more than right is let pass, as a share. Default: 0.1.
    pub tolerance: f64,
    /// So many lapses in a row are a finding: the host does not see just what the VM saw, and near the threshold they may
    /// differ. Default: 5.
    pub lapses: u32,
}

/// What is seen of a VM at the end of a period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// How many things it says that it does at most at once; for one that says nothing, what it uses.
    pub limit: f64,
    /// How many it did.
    pub usage: f64,
    /// R as the host sees it; `None` if it was not measured.
    pub slowdown: Option<f64>,
}

/// A VM that does not back off.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Which.
    pub vm: VmId,
    /// How many times in a row it was caught.
    pub lapses: u32,
    /// What it used when it was caught last,
    pub usage: f64,
    /// and the most that it should have used.
    pub allowed: f64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { vm, lapses, usage, allowed } = self;
        write!(
            f,
            "VM {vm} does not back off: {usage:.1} at once where {allowed:.1} would be friendly, {lapses} times in a row"
        )
    }
}

#[derive(Debug, Clone, Default)]
struct Suspect {
    /// What was seen in the periods before this one, if they belong to a sample that is not complete.
    seen: Vec<Observation>,
    lapses: u32,
}

impl Default for PoliceParameters {
    fn default() -> Self {
        PoliceParameters { sample: 0.5, rule: Rule::AIMD, threshold: 2.5, tolerance: 0.1, lapses: 5 }
    }
}

impl Police {
    /// That has seen nothing yet.
    pub fn new(parameters: PoliceParameters) -> Police {
        Police { parameters, suspects: BTreeMap::new() }
    }

    /// Ends a period with what was seen of each VM, and says who was found. `draw` gives random numbers from 0 up to but
    /// not including 1; it is asked once for each VM, in the VMs' order.
    pub fn observe<'a>(
        &mut self,
        seen: impl IntoIterator<Item = (&'a VmId, Observation)>,
        mut draw: impl FnMut() -> f64,
    ) -> Vec<Finding> {
        let PoliceParameters { sample, lapses, .. } = self.parameters;
        let mut findings = Vec::new();
        for (vm, now) in seen {
            let sampled = draw() < sample;
            if !sampled && !self.suspects.contains_key(vm) {
                continue;
            }
            let suspect = self.suspects.entry(vm.clone()).or_default();
            if let [first, second] = suspect.seen[..] {
                suspect.seen.clear();
                match self.parameters.excess([first, second, now]) {
                    Some(allowed) => {
                        suspect.lapses += 1;
                        if suspect.lapses == lapses {
                            findings.push(Finding { vm: vm.clone(), lapses, usage: now.usage, allowed });
                        }
                    }
                    // Nobody shows in quiet times whether it obeys.
                    None if self.parameters.is_congested(second) => suspect.lapses = 0,
                    None => {}
                }
            }
            if sampled || !suspect.seen.is_empty() {
                suspect.seen.push(now);
            }
        }
        findings
    }
}

impl PoliceParameters {
    fn is_congested(&self, seen: Observation) -> bool {
        seen.slowdown.is_some_and(|slowdown| slowdown > self.threshold)
    }

    /// What a VM might have used at most, where it uses more.
    fn excess(&self, [first, second, third]: [Observation; 3]) -> Option<f64> {
        let over = |what: f64, most: f64| what > most * (1.0 + self.tolerance);
        // It may have decided before the host looked, or after.
        let friendly = self.rule.decreased(first.limit.max(second.limit)).max(1.0);
        if self.is_congested(second) && over(second.limit.min(third.limit), friendly) {
            return Some(friendly);
        }
        over(third.usage, third.limit).then_some(third.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> [VmId; 3] {
        ["friend", "idler", "hog"].map(|name| name.parse().unwrap())
    }

    /// Congestion in every other period: a friend that backs off and comes back, an idler far below its limit, and one
    /// that has 50 threads whatever happens.
    fn found(periods: u32, sample: f64, hog: f64) -> Vec<Finding> {
        let mut police = Police::new(PoliceParameters { sample, ..PoliceParameters::default() });
        let mut state = 1998u64;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64
        };
        let (names, mut limit, mut found) = (names(), 30.0, Vec::new());
        for period in 0..periods {
            let congested = period % 2 == 0;
            let slowdown = Some(if congested { 4.0 } else { 1.0 });
            let seen = [(limit, limit), (limit, 2.0), (hog, 50.0)];
            let seen = seen.map(|(limit, usage)| Observation { limit, usage, slowdown });
            found.extend(police.observe(names.iter().zip(seen), &mut draw));
            limit = if congested { Rule::AIMD.decreased(limit) } else { Rule::AIMD.increased(limit) };
        }
        found
    }

    #[test]
    fn one_that_does_not_back_off_is_found_by_few_samples_and_nobody_else() {
        // As it claims no limit, and as it claims one that it does not keep.
        for hog in [50.0, 5.0] {
            let found = found(200, 0.5, hog);
            assert_eq!(found.iter().map(|finding| finding.vm.as_str()).collect::<Vec<_>>(), ["hog"], "said once");
            let text = found[0].to_string();
            assert!(text.contains("VM hog does not back off: 50.0 at once") && text.contains("5 times"), "{text}");
        }
        assert_eq!(found(200, 0.0, 50.0), [], "who does not look finds nothing");
    }

    #[test]
    fn without_congestion_nobody_is_found_and_who_obeys_starts_afresh() {
        let vm: VmId = "vm".parse().unwrap();
        let mut police = Police::new(PoliceParameters { sample: 1.0, lapses: 2, ..PoliceParameters::default() });
        let mut see = |limit: f64, slowdown: Option<f64>| {
            let seen = Observation { limit, usage: limit, slowdown };
            police.observe([(&vm, seen)], || 0.0).len()
        };
        assert_eq!((0..50).map(|_| see(50.0, Some(1.0))).sum::<usize>(), 0);
        assert_eq!((0..50).map(|_| see(50.0, None)).sum::<usize>(), 0, "what was not measured proves nothing");
        // The last of three is the first of the next three. A lapse, an obedience, a lapse: never two in a row.
        let limits = [50.0, 50.0, 50.0, 50.0, 33.0, 33.0, 33.0];
        assert_eq!(limits.map(|limit| see(limit, Some(9.0))).iter().sum::<usize>(), 0);
        assert_eq!([33.0, 33.0].map(|limit| see(limit, Some(9.0))), [0, 1]);
    }
}

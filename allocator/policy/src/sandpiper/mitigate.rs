//! Mitigation: which VMs leave hosts that are too full, and where they go (section 5.6.2).

use super::{
    order::{Measures, Order},
    survey::{Each, Site, Survey, Unit, each},
};
use std::cmp::Ordering;
use vibra_model::{Move, Plan, Reason, Refusal, Resource, VmState};

/// ε: a utilisation is at most 1 − ε, so that no volume is infinite (footnote 2).
const EPSILON: f64 = 0.01;
/// The utilisation of memory that a black box without memory pressure is taken to have (footnote 2).
const UNSEEN: f64 = 0.5;

/// Equation 5.3, of the utilisations of CPU, network and memory.
fn volume(utilisations: Each<f64>) -> f64 {
    utilisations.into_iter().map(|u| 1.0 / (1.0 - u.clamp(0.0, 1.0 - EPSILON))).product()
}

/// One VM goes from one site to another.
#[derive(Debug, Clone, Copy)]
struct Step {
    unit: usize,
    from: usize,
    to: usize,
    rule: &'static str,
    /// What it loaded the site with that it left.
    left: Each<f64>,
}

/// What a site can still take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slack {
    /// Of load, below the threshold; negative where it is overloaded.
    pub(super) load: Each<f64>,
    /// Of shares.
    pub(super) share: Each<i128>,
}

impl Slack {
    fn of(site: &Site<'_>, threshold: f64) -> Slack {
        let room = |r: usize| site.room[r].map(|room| room as f64 * threshold);
        Slack {
            load: each(|r| room(r as usize).map_or(f64::INFINITY, |most| most - site.load[r as usize])),
            share: each(|r| {
                let room = site.room[r as usize];
                room.map_or(i128::MAX / 4, |room| i128::from(room) - i128::from(site.most[r as usize]))
            }),
        }
    }

    /// What it is once a VM has left that is a load of `load` and may have `most`.
    fn without(mut self, load: &Each<f64>, most: &Each<u64>) -> Slack {
        for r in 0..3 {
            self.load[r] += load[r];
            self.share[r] += i128::from(most[r]);
        }
        self
    }

    /// Of each the more that one of the two has.
    pub(super) fn or(self, other: Slack) -> Slack {
        let more = |r: usize| self.share[r].max(other.share[r]);
        Slack { load: each(|r| self.load[r as usize].max(other.load[r as usize])), share: each(|r| more(r as usize)) }
    }

    /// Whether there is no overload.
    fn is_cool(&self) -> bool {
        self.load.iter().all(|slack| *slack >= 0.0)
    }

    fn takes(&self, load: &Each<f64>, most: &Each<u64>) -> bool {
        (0..3).all(|r| load[r] <= self.load[r] && i128::from(most[r]) <= self.share[r])
    }
}

/// What is found out once it is asked for, and does not change while a plan is made.
struct Estimates {
    /// By how much the load of each site is foreseen to rise.
    rises: Vec<Option<Each<f64>>>,
    /// What each VM needs at its peak.
    peaks: Vec<Option<Each<f64>>>,
}

impl Estimates {
    fn rise(&mut self, survey: &Survey<'_>, site: usize) -> Each<f64> {
        *self.rises[site].get_or_insert_with(|| each(|resource| survey.rise(&survey.sites[site], resource)))
    }

    fn peak(&mut self, survey: &Survey<'_>, unit: usize) -> Each<f64> {
        *self.peaks[unit].get_or_insert_with(|| {
            let vm = &survey.units[unit];
            each(|resource| match resource {
                Resource::Memory => vm.load[Resource::Memory as usize],
                flow => survey.peak(vm, flow).unwrap_or(0.0),
            })
        })
    }
}

/// The VMs of a site that may move, the lowest volume-to-size ratio first.
fn lowest<'s>(survey: &'s Survey<'_>, site: usize) -> impl Iterator<Item = usize> + 's {
    let units = survey.sites[site].units.iter().rev().copied();
    units.filter(|&unit| survey.units[unit].vm.state == VmState::Up)
}

/// How many VMs of `other`, those of the lowest ratio, make room for `unit`, which needs `need` there.
fn partners(survey: &Survey<'_>, unit: usize, (other, slack): (usize, &Slack), need: &Each<f64>) -> Option<usize> {
    let (most, mut slack) = (&survey.units[unit].most, *slack);
    let enough = |partner: usize| {
        slack = slack.without(&survey.units[partner].load, &survey.units[partner].most);
        slack.takes(need, most)
    };
    lowest(survey, other).position(enough).map(|place| place + 1)
}

/// Whether `site` carries less of whatever it has too much of once `unit` was exchanged for `partners`, and no more than it
/// may of the rest.
fn relieves(
    survey: &Survey<'_>,
    estimates: &mut Estimates,
    unit: usize,
    (site, partners): (usize, impl Iterator<Item = usize>),
) -> bool {
    let (mut more, mut wants) = ([0.0; 3], [0; 3]);
    for partner in partners {
        more = add(more, estimates.peak(survey, partner));
        wants.iter_mut().zip(survey.units[partner].wants).for_each(|(sum, wants): (&mut u64, u64)| *sum += wants);
    }
    let (gone, host) = (&survey.units[unit], &survey.sites[site]);
    (0..3).all(|r| {
        let Some(room) = host.room[r] else { return true };
        let limit = survey.parameters.threshold * room as f64;
        let load = host.load[r] - gone.load[r] + more[r];
        let shares = host.wants[r].saturating_sub(gone.wants[r]).saturating_add(wants[r]);
        (load <= limit || more[r] < gone.load[r]) && (shares <= room || wants[r] < gone.wants[r])
    })
}

/// A plan of moves in the making.
pub(super) struct Mitigation<'s, 'a> {
    survey: &'s mut Survey<'a>,
    /// The volume of each VM, and that over its size.
    volumes: Vec<f64>,
    ratios: Vec<f64>,
    /// The volume of each site, and what it can still take.
    site_volumes: Vec<f64>,
    slacks: Vec<Slack>,
    /// Sites that VMs may be brought to, by volume, the least first.
    order: Order,
    estimates: Estimates,
    steps: Vec<Step>,
}

impl<'s, 'a> Mitigation<'s, 'a> {
    pub(super) fn new(survey: &'s mut Survey<'a>) -> Self {
        let volumes: Vec<_> = survey.units.iter().map(|unit| volume(utilisations(survey, unit))).collect();
        let ratio = |(unit, volume): (&Unit<'_>, &f64)| volume / size(unit);
        let ratios: Vec<_> = survey.units.iter().zip(&volumes).map(ratio).collect();
        for site in &mut survey.sites {
            site.units.sort_by(|&a, &b| by_ratio(&ratios, a, b));
        }
        let estimates = Estimates { rises: vec![None; survey.sites.len()], peaks: vec![None; survey.units.len()] };
        let (site_volumes, slacks, order, steps) = (Vec::new(), Vec::new(), Order::default(), Vec::new());
        let mut new = Mitigation { survey, volumes, ratios, site_volumes, slacks, order, estimates, steps };
        let sites = 0..new.survey.sites.len();
        new.site_volumes = sites.clone().map(|site| new.site_volume(site)).collect();
        new.slacks = sites.clone().map(|site| new.slack(site)).collect();
        let receives = sites.filter(|&site| new.survey.receives(&new.survey.sites[site]));
        new.order = Order::new(receives, new.measures());
        new
    }

    fn measures(&self) -> Measures<'_> {
        Measures { volumes: &self.site_volumes, slacks: &self.slacks }
    }

    fn slack(&self, site: usize) -> Slack {
        Slack::of(&self.survey.sites[site], self.survey.parameters.threshold)
    }

    /// Plans the moves that dissipate the hot spots, first without swaps, then with them. A site whose hot spot cannot
    /// be dissipated keeps its VMs: wasteful moves are not made.
    pub(super) fn plan(mut self, plan: &mut Plan) {
        let mut hot: Vec<_> = (0..self.survey.sites.len()).filter(|&site| self.heat(site)).collect();
        hot.sort_by(|&a, &b| self.site_volumes[b].total_cmp(&self.site_volumes[a]).then(a.cmp(&b)));
        hot.retain(|&site| !self.attempt(site, |this| this.migrate(site)));
        hot.retain(|&site| {
            !self.attempt(site, |this| {
                this.migrate(site);
                this.swap(site);
            })
        });
        plan.refusals.extend(hot.into_iter().filter_map(|site| self.refusal(site)));
        plan.moves = self.steps.iter().map(|step| self.described(step)).collect();
    }

    /// Whether there is a hot spot; what is foreseen there counts as its load.
    fn heat(&mut self, site: usize) -> bool {
        let wanted = !self.suffices(site);
        let survey = &mut *self.survey;
        let broken = survey.sites[site].units.iter().any(|&unit| survey.units[unit].broken);
        let mut hot = wanted;
        for resource in [Resource::Cpu, Resource::Bandwidth] {
            let r = resource as usize;
            let next = survey.overload(&survey.sites[site], resource);
            let load = &mut survey.sites[site].load[r];
            *load = next.map_or(*load, |next| next.max(*load));
            hot |= next.is_some();
        }
        self.reckon(site);
        hot || (broken && !self.is_cool(site))
    }

    /// Tries to dissipate the hot spot of `site`; what was planned in vain is taken back.
    fn attempt(&mut self, site: usize, how: impl FnOnce(&mut Self)) -> bool {
        let before = self.steps.len();
        how(self);
        let solved = self.is_cool(site);
        while !solved && self.steps.len() > before {
            self.take_back();
        }
        solved
    }

    /// The VMs of `site` that may move, the highest volume-to-size ratio first.
    fn movable(&self, site: usize) -> Vec<usize> {
        let units = self.survey.sites[site].units.iter().copied();
        units.filter(|&unit| self.survey.units[unit].vm.state == VmState::Up).collect()
    }

    fn migrate(&mut self, site: usize) {
        for unit in self.movable(site) {
            if self.is_cool(site) {
                return;
            }
            if let Some(to) = self.first_fit(&[unit], &[site]) {
                self.step(unit, to, "leaves an overloaded host");
            }
        }
    }

    /// The least loaded site but for those of `except` that has room for `units`.
    fn first_fit(&mut self, units: &[usize], except: &[usize]) -> Option<usize> {
        let (mut load, mut most) = ([0.0; 3], [0; 3]);
        for &unit in units {
            let (peak, may) = (self.peak(unit), self.survey.units[unit].most);
            for r in 0..3 {
                load[r] += peak[r];
                most[r] += may[r];
            }
        }
        let Mitigation { survey, order, slacks, estimates, .. } = self;
        let takes = |slack: &Slack| slack.takes(&load, &most);
        order.find(takes, |site| {
            // What is foreseen costs most to find out, and is mostly nothing: so it comes last.
            takes(&slacks[site]) && !except.contains(&site) && {
                let foreseen = add(load, estimates.rise(survey, site));
                slacks[site].takes(&foreseen, &most)
            }
        })
    }

    /// Exchanges VMs of a high ratio with ones of a low ratio elsewhere.
    fn swap(&mut self, site: usize) {
        for unit in self.movable(site) {
            if self.is_cool(site) {
                return;
            }
            let mut tried = vec![site];
            while let Some(other) = self.swap_site(unit, site, &tried) {
                if self.exchange(unit, site, other) {
                    break;
                }
                tried.push(other);
            }
        }
    }

    /// The least loaded site but for those of `except` that is not overloaded itself, since such a one helps nobody, and
    /// where an exchange for `unit` would relieve `site`.
    fn swap_site(&mut self, unit: usize, site: usize, except: &[usize]) -> Option<usize> {
        let Mitigation { survey, order, slacks, estimates, .. } = self;
        let (survey, peak) = (&**survey, estimates.peak(survey, unit));
        order.find(Slack::is_cool, |other| {
            let slack = &slacks[other];
            slack.is_cool() && !except.contains(&other) && {
                let need = add(peak, estimates.rise(survey, other));
                let count = partners(survey, unit, (other, slack), &need);
                count.is_some_and(|count| relieves(survey, estimates, unit, (site, lowest(survey, other).take(count))))
            }
        })
    }

    /// Exchanges `unit` of `site` with as few VMs of `other` as make room for it; whether that was possible.
    fn exchange(&mut self, unit: usize, site: usize, other: usize) -> bool {
        let need = add(self.peak(unit), self.estimates.rise(self.survey, other));
        let Some(count) = partners(self.survey, unit, (other, &self.slacks[other]), &need) else { return false };
        let partners: Vec<_> = lowest(self.survey, other).take(count).collect();
        let bytes = |units: &[usize]| units.iter().map(|&unit| size(&self.survey.units[unit])).sum::<f64>();
        // The smaller side goes by way of the scratch host.
        let small = bytes(&partners) <= bytes(&[unit]);
        let (aside, rest) = if small { (&partners[..], vec![(unit, other)]) } else { (&[unit][..], Vec::new()) };
        let before = self.steps.len();
        let done = match self.scratch(aside, site, other) {
            Some(scratch) => {
                aside.iter().for_each(|&unit| self.step(unit, scratch, "makes room for a swap"));
                rest.iter().for_each(|&(unit, to)| self.step(unit, to, "is swapped"));
                for &partner in &partners {
                    self.step(partner, site, "is swapped");
                }
                if !small {
                    self.step(unit, other, "is swapped");
                }
                true
            }
            None => self.exchange_directly(unit, (site, other), &partners),
        };
        while !done && self.steps.len() > before {
            self.take_back();
        }
        done
    }

    /// Without a scratch host: both hosts hold the VMs for the time of a move. Only what they are allocated must fit
    /// meanwhile.
    fn exchange_directly(&mut self, unit: usize, (site, other): (usize, usize), partners: &[usize]) -> bool {
        let first = |this: &mut Self, unit, to| {
            this.step(unit, to, "is swapped");
            this.has_shares(to, &[])
        };
        if self.has_shares(other, &[unit]) {
            return first(self, unit, other) && partners.iter().all(|&partner| first(self, partner, site));
        }
        self.has_shares(site, partners)
            && partners.iter().all(|&partner| first(self, partner, site))
            && first(self, unit, other)
    }

    /// A host where `units` can stay for the time of a swap: one that is kept for that or, failing that, the least
    /// loaded one that has room.
    fn scratch(&mut self, units: &[usize], site: usize, other: usize) -> Option<usize> {
        let kept = |&scratch: &usize| {
            let host = &self.survey.sites[scratch];
            self.survey.is_scratch(host) && host.host.state == vibra_model::HostState::Up
        };
        let kept = (0..self.survey.sites.len()).filter(kept).find(|&scratch| self.has_shares(scratch, units));
        kept.or_else(|| self.first_fit(units, &[site, other]))
    }

    /// Whether a site has room for the shares that `units` may come to have.
    fn has_shares(&self, site: usize, units: &[usize]) -> bool {
        let most = |r: usize| units.iter().map(|&unit| i128::from(self.survey.units[unit].most[r])).sum::<i128>();
        (0..3).all(|r| most(r) <= self.slacks[site].share[r])
    }

    /// Whether a site can give its VMs all that they want.
    fn suffices(&self, site: usize) -> bool {
        let host = &self.survey.sites[site];
        (0..3).all(|r| host.room[r].is_none_or(|room| host.wants[r] <= room))
    }

    /// Whether a site is within the threshold in all it has, and can give its VMs all that they want.
    fn is_cool(&self, site: usize) -> bool {
        let host = &self.survey.sites[site];
        let within = |r: usize| {
            let limit = host.room[r].map(|room| self.survey.parameters.threshold * room as f64);
            limit.is_none_or(|limit| host.load[r] <= limit)
        };
        (0..3).all(within) && self.suffices(site)
    }

    /// What a VM needs at its peak.
    fn peak(&mut self, unit: usize) -> Each<f64> {
        self.estimates.peak(self.survey, unit)
    }

    fn step(&mut self, unit: usize, to: usize, rule: &'static str) {
        let Some(from) = self.survey.units[unit].site else { return };
        let left = self.survey.units[unit].load;
        let peaks = self.peak(unit);
        self.steps.push(Step { unit, from, to, rule, left });
        self.put(unit, (from, to), peaks);
    }

    fn take_back(&mut self) {
        if let Some(Step { unit, from, to, left, .. }) = self.steps.pop() {
            self.put(unit, (to, from), left);
        }
    }

    /// Puts a VM elsewhere, where it is a load of `load`.
    fn put(&mut self, unit: usize, (from, to): (usize, usize), load: Each<f64>) {
        let Survey { units, sites, .. } = &mut *self.survey;
        let vm = &mut units[unit];
        sites[from].units.retain(|&other| other != unit);
        let place = sites[to].units.partition_point(|&other| by_ratio(&self.ratios, other, unit).is_lt());
        sites[to].units.insert(place, unit);
        for r in Resource::ALL.map(|resource| resource as usize) {
            sites[from].load[r] -= vm.load[r];
            sites[to].load[r] += load[r];
            sites[from].wants[r] = sites[from].wants[r].saturating_sub(vm.wants[r]);
            sites[to].wants[r] = sites[to].wants[r].saturating_add(vm.wants[r]);
            sites[from].most[r] = sites[from].most[r].saturating_sub(vm.most[r]);
            sites[to].most[r] = sites[to].most[r].saturating_add(vm.most[r]);
        }
        vm.load = load;
        vm.site = Some(to);
        self.reckon(from);
        self.reckon(to);
    }

    /// Reckons a site anew, and brings it to its place in the order.
    fn reckon(&mut self, site: usize) {
        let (slack, volume) = (self.slack(site), self.site_volume(site));
        let measures = Measures { volumes: &self.site_volumes, slacks: &self.slacks };
        let ordered = self.order.remove(site, measures);
        (self.slacks[site], self.site_volumes[site]) = (slack, volume);
        if ordered {
            self.order.insert(site, Measures { volumes: &self.site_volumes, slacks: &self.slacks });
        }
    }

    /// The volume of a site. Of memory a black box shows only pressure.
    fn site_volume(&self, site: usize) -> f64 {
        let host = &self.survey.sites[site];
        volume(each(|resource| {
            let r = resource as usize;
            let Some(room) = host.room[r].filter(|room| *room > 0) else { return 0.0 };
            if resource != Resource::Memory {
                return host.load[r] / room as f64;
            }
            let used = host.units.iter().map(|&unit| self.survey.memory(&self.survey.units[unit]));
            let pressed = host.units.iter().any(|&unit| self.survey.swaps(&self.survey.units[unit]));
            used.sum::<Option<f64>>().map_or(unseen(pressed), |used| used / room as f64)
        }))
    }

    fn described(&self, step: &Step) -> Move {
        let (vm, sites) = (&self.survey.units[step.unit].vm.id, &self.survey.sites);
        let reason = Reason::new(step.rule)
            .with("volume", self.volumes[step.unit])
            .with("volume_per_byte", self.ratios[step.unit]);
        let (from, to) = (sites[step.from].host.id.clone(), sites[step.to].host.id.clone());
        Move { vm: vm.clone(), from, to, reason }
    }

    /// That the hot spot of a site stays, told of the VM that should leave it first.
    fn refusal(&self, site: usize) -> Option<Refusal> {
        let host = &self.survey.sites[site];
        let fullest = Resource::ALL.into_iter().max_by_key(|&resource| {
            let r = resource as usize;
            let share = |room: u64| host.load[r].max(host.wants[r] as f64) / room.max(1) as f64;
            (host.room[r].map_or(0.0, share) * 1e6) as u64
        });
        let vm = self.survey.units[*self.movable(site).first()?].vm.id.clone();
        let reason =
            Reason::new("its host is overloaded, and no moves can help").with("volume", self.site_volumes[site]);
        Some(Refusal { vm, resource: fullest?, reason })
    }
}

/// The highest ratio first.
fn by_ratio(ratios: &[f64], a: usize, b: usize) -> Ordering {
    ratios[b].total_cmp(&ratios[a]).then(a.cmp(&b))
}

fn add(mut a: Each<f64>, b: Each<f64>) -> Each<f64> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// The utilisations of what a VM has been allocated (equation 5.3).
fn utilisations(survey: &Survey<'_>, unit: &Unit<'_>) -> Each<f64> {
    each(|resource| {
        let most = survey.limits(unit, resource).most().filter(|most| *most > 0.0);
        let used = match resource {
            Resource::Memory => survey.memory(unit),
            flow => Some(unit.load[flow as usize]),
        };
        match (used, most) {
            (Some(used), Some(most)) => used / most,
            (None, _) => unseen(survey.swaps(unit)),
            (_, None) => 0.0,
        }
    })
}

fn unseen(pressed: bool) -> f64 {
    if pressed { 1.0 - EPSILON } else { UNSEEN }
}

/// The memory footprint in bytes: what a move copies. Where neither a share nor a use of memory is known all VMs count
/// alike.
fn size(unit: &Unit<'_>) -> f64 {
    let used = || unit.profile.newest().and_then(|m| m.used(Resource::Memory));
    let share = unit.share[Resource::Memory as usize].map(|share| share as f64);
    share.or_else(used).unwrap_or(1.0).max(1.0)
}

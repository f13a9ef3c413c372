//! The sites that VMs may be brought to, in order.

use super::mitigate::Slack;
use std::cmp::Ordering;

/// How many sites a block has when it is made; with twice as many it becomes two.
const BLOCK: usize = 32;

/// Sites by volume, the least first. They stand in blocks that know the most that any of their sites can take, so that a
/// search passes over most of what is full without looking at it: it finds what a search through all would find.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    /// Never empty.
    sites: Vec<usize>,
    /// Of each resource the most that any of them can take.
    most: Slack,
}

impl Block {
    fn new(sites: Vec<usize>, slacks: &[Slack]) -> Block {
        let most = sites.iter().map(|&site| slacks[site]).reduce(Slack::or).expect("a block is never empty");
        Block { sites, most }
    }
}

/// What sites are ordered and searched by: the volume of each, and what it can take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measures<'a> {
    pub(super) volumes: &'a [f64],
    pub(super) slacks: &'a [Slack],
}

impl Measures<'_> {
    fn compare(&self, a: usize, b: usize) -> Ordering {
        self.volumes[a].total_cmp(&self.volumes[b]).then(a.cmp(&b))
    }
}

impl Order {
    pub(super) fn new(sites: impl Iterator<Item = usize>, by: Measures<'_>) -> Order {
        let mut sites: Vec<_> = sites.collect();
        sites.sort_by(|&a, &b| by.compare(a, b));
        Order { blocks: sites.chunks(BLOCK).map(|sites| Block::new(sites.to_vec(), by.slacks)).collect() }
    }

    /// The block where a site is, or would come to stand, and the place in it.
    fn place(&self, site: usize, by: Measures<'_>) -> Option<(usize, Result<usize, usize>)> {
        let after = self.blocks.partition_point(|block| by.compare(block.sites[0], site).is_le());
        let block = after.saturating_sub(1);
        let place = self.blocks.get(block)?.sites.binary_search_by(|&other| by.compare(other, site));
        Some((block, place))
    }

    /// Takes a site out, by the measures that it was put in by; says whether it was there.
    pub(super) fn remove(&mut self, site: usize, by: Measures<'_>) -> bool {
        let Some((block, Ok(place))) = self.place(site, by) else { return false };
        self.blocks[block].sites.remove(place);
        match self.blocks[block].sites.is_empty() {
            true => drop(self.blocks.remove(block)),
            false => self.refresh(block, by),
        }
        true
    }

    /// Puts a site in that is not there.
    pub(super) fn insert(&mut self, site: usize, by: Measures<'_>) {
        let Some((block, place)) = self.place(site, by) else {
            self.blocks.push(Block::new(vec![site], by.slacks));
            return;
        };
        let sites = &mut self.blocks[block].sites;
        sites.insert(place.unwrap_or_else(|place| place), site);
        if sites.len() >= 2 * BLOCK {
            let rest = sites.split_off(BLOCK);
            self.blocks.insert(block + 1, Block::new(rest, by.slacks));
        }
        self.refresh(block, by);
    }

    fn refresh(&mut self, block: usize, by: Measures<'_>) {
        let sites = std::mem::take(&mut self.blocks[block].sites);
        self.blocks[block] = Block::new(sites, by.slacks);
    }

    /// The first site that is `wanted`. Blocks are passed over where not even a site with the most of everything in
    /// the block would be `possible`.
    pub(super) fn find(
        &self,
        possible: impl Fn(&Slack) -> bool,
        mut wanted: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        let blocks = self.blocks.iter().filter(|block| possible(&block.most));
        blocks.flat_map(|block| &block.sites).copied().find(|&site| wanted(site))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slack(load: f64) -> Slack {
        Slack { load: [load, 1.0, 1.0], share: [1; 3] }
    }

    proptest! {
        #[test]
        fn it_finds_what_a_search_through_all_finds(
            start in proptest::collection::vec((0u8..50, 0u8..20), 1..300),
            changes in proptest::collection::vec((0usize..300, 0u8..50, 0u8..20), 0..200),
            need in 0u8..22,
        ) {
            let mut volumes: Vec<f64> = start.iter().map(|(volume, _)| f64::from(*volume)).collect();
            let mut slacks: Vec<Slack> = start.iter().map(|(_, load)| slack(f64::from(*load))).collect();
            let mut order = Order::new(0..start.len(), Measures { volumes: &volumes, slacks: &slacks });
            for (site, volume, load) in changes {
                let site = site % start.len();
                let removed = order.remove(site, Measures { volumes: &volumes, slacks: &slacks });
                prop_assert!(removed);
                (volumes[site], slacks[site]) = (f64::from(volume), slack(f64::from(load)));
                order.insert(site, Measures { volumes: &volumes, slacks: &slacks });
            }
            let by = Measures { volumes: &volumes, slacks: &slacks };
            let takes = |slack: &Slack| slack.load[0] >= f64::from(need);
            let mut all: Vec<usize> = (0..start.len()).collect();
            all.sort_by(|&a, &b| by.compare(a, b));
            prop_assert_eq!(order.find(|_| true, |_| true), all.first().copied());
            let wanted = all.iter().copied().find(|&site| takes(&slacks[site]));
            prop_assert_eq!(order.find(takes, |site| takes(&slacks[site])), wanted);
        }
    }
}

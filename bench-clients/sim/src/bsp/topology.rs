//! Who sends messages to whom.

/// The topologies of `patterns` (section 5.5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// A grid with so many nodes in each dimension. With one dimension it is a line.
    Mesh(Vec<usize>),
    /// A grid whose ends meet in each dimension. With one dimension it is a ring.
    Torus(Vec<usize>),
    /// A binary reduction tree of so many nodes.
    Tree(usize),
    /// A hypercube of so many dimensions.
    Hypercube(u32),
    /// Each of so many nodes with each other: a barrier.
    AllToAll(usize),
    /// So many nodes in a row, each of which sends to the next one alone: nobody waits for whoever comes after.
    Pipeline(usize),
}

impl Topology {
    /// So many nodes in a row.
    pub fn line(nodes: usize) -> Self {
        Topology::Mesh(vec![nodes])
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        match self {
            Topology::Mesh(sides) | Topology::Torus(sides) => sides.iter().product(),
            Topology::Tree(nodes) | Topology::AllToAll(nodes) | Topology::Pipeline(nodes) => *nodes,
            Topology::Hypercube(dimensions) => 1 << dimensions,
        }
    }

    /// Whose messages each node waits for, in ascending order. But for a [pipeline](Topology::Pipeline), messages go both
    /// ways.
    pub fn senders(&self) -> Vec<Vec<usize>> {
        let of = |node: usize| -> Vec<usize> {
            let mut found: Vec<usize> = match self {
                Topology::Mesh(sides) => {
                    grid(node, sides, |at, side| [at.checked_sub(1), (at + 1 < side).then_some(at + 1)])
                }
                Topology::Torus(sides) => {
                    grid(node, sides, |at, side| [Some((at + side - 1) % side), Some((at + 1) % side)])
                }
                Topology::Tree(nodes) => {
                    let parent = node.checked_sub(1).map(|above| above / 2);
                    let children = [2 * node + 1, 2 * node + 2].into_iter().filter(|child| child < nodes);
                    parent.into_iter().chain(children).collect()
                }
                Topology::Hypercube(dimensions) => (0..*dimensions).map(|dimension| node ^ (1 << dimension)).collect(),
                Topology::AllToAll(nodes) => (0..*nodes).collect(),
                Topology::Pipeline(_) => node.checked_sub(1).into_iter().collect(),
            };
            found.retain(|&other| other != node);
            found.sort_unstable();
            found.dedup();
            found
        };
        (0..self.nodes()).map(of).collect()
    }

    /// Who waits for the messages of each node, in ascending order.
    pub fn receivers(&self) -> Vec<Vec<usize>> {
        let senders = self.senders();
        let of = |node: usize| (0..senders.len()).filter(|&other| senders[other].contains(&node)).collect();
        (0..senders.len()).map(of).collect()
    }
}

/// The nodes beside `node` in a grid, where `beside` tells them in one dimension.
fn grid(node: usize, sides: &[usize], beside: impl Fn(usize, usize) -> [Option<usize>; 2]) -> Vec<usize> {
    let (mut found, mut stride) = (Vec::new(), 1);
    for &side in sides {
        let at = node / stride % side;
        found.extend(beside(at, side).into_iter().flatten().map(|other| node - at * stride + other * stride));
        stride *= side;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_those_of_the_topology() {
        assert_eq!(Topology::line(4).senders(), [vec![1], vec![0, 2], vec![1, 3], vec![2]]);
        assert_eq!(Topology::Torus(vec![4]).senders()[0], [1, 3]);
        assert_eq!(Topology::Mesh(vec![3, 2]).senders()[1], [0, 2, 4]);
        assert_eq!(Topology::Torus(vec![3, 3]).senders()[0], [1, 2, 3, 6]);
        assert_eq!(Topology::Tree(6).senders(), [vec![1, 2], vec![0, 3, 4], vec![0, 5], vec![1], vec![1], vec![2]]);
        assert_eq!(Topology::Hypercube(3).senders()[5], [1, 4, 7]);
        assert_eq!(Topology::AllToAll(3).senders()[1], [0, 2]);
    }

    #[test]
    fn messages_go_both_ways_but_in_a_pipeline() {
        let all = [
            Topology::line(5),
            Topology::Mesh(vec![2, 3, 4]),
            Topology::Torus(vec![2, 5]),
            Topology::Tree(7),
            Topology::Hypercube(4),
            Topology::AllToAll(5),
        ];
        for topology in all {
            let senders = topology.senders();
            assert_eq!(senders.len(), topology.nodes());
            assert_eq!(senders, topology.receivers(), "{topology:?}");
            assert!(senders.iter().all(|list| !list.is_empty()), "{topology:?}");
        }
        let pipeline = Topology::Pipeline(3);
        assert_eq!(pipeline.senders(), [vec![], vec![0], vec![1]]);
        assert_eq!(pipeline.receivers(), [vec![1], vec![2], vec![]]);
    }
}

//! Names for servers that stay valid while their caches do.

use crate::cluster::Server;
use vibra_model::VmState;

/// Stands for a server until its cache is lost. Cheap to keep in millions: what refers to a failed server need not be
/// searched for, it is found out when it is looked at (the second way of section 4.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    seat: u32,
    life: u32,
}

#[derive(Debug, Clone, Default)]
struct Seat {
    /// Counts the caches that servers had in this seat.
    life: u32,
    /// Where the server stands in the current table, if it serves.
    index: Option<u32>,
}

/// Gives out tickets, and tells where the server of a ticket is now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Roster {
    seats: Vec<Seat>,
    /// Seats of servers that have left the cluster, to be taken again.
    vacant: Vec<u32>,
    /// The seat and the state of each server of the current table.
    servers: Vec<(u32, VmState)>,
}

impl Roster {
    /// The ticket of the server at `index`.
    pub(crate) fn ticket(&self, index: usize) -> Ticket {
        let seat = self.servers[index].0;
        Ticket { seat, life: self.seats[seat as usize].life }
    }

    /// Where the server of a ticket stands; `None` if it takes no requests or has lost its cache since.
    pub(crate) fn index(&self, ticket: Ticket) -> Option<usize> {
        let seat = &self.seats[ticket.seat as usize];
        seat.index.filter(|_| seat.life == ticket.life).map(|index| index as usize)
    }

    /// Goes over to new servers; `moved` has for each of the old ones its new index.
    pub(crate) fn carry(&mut self, moved: &[Option<usize>], servers: &[Server]) {
        let mut known = vec![None; servers.len()];
        for ((seat, state), place) in std::mem::take(&mut self.servers).into_iter().zip(moved) {
            match *place {
                Some(index) => known[index] = Some((seat, state)),
                None => self.vacate(seat),
            }
        }
        for ((index, server), known) in (0..).zip(servers).zip(known) {
            let seat = match known {
                Some((seat, before)) => {
                    self.seats[seat as usize].life += u32::from(loses_cache(before, server.state));
                    seat
                }
                None => self.take_seat(),
            };
            self.seats[seat as usize].index = server.state.serves().then_some(index);
            self.servers.push((seat, server.state));
        }
    }

    fn vacate(&mut self, seat: u32) {
        let left = &mut self.seats[seat as usize];
        left.life += 1;
        left.index = None;
        self.vacant.push(seat);
    }

    fn take_seat(&mut self) -> u32 {
        self.vacant.pop().unwrap_or_else(|| {
            self.seats.push(Seat::default());
            self.seats.len() as u32 - 1
        })
    }
}

/// Whether a server's cache is gone when its state goes from the one to the other. Draining keeps it.
fn loses_cache(before: VmState, now: VmState) -> bool {
    use VmState::{Down, Starting, Warming};
    before != now && matches!(now, Down | Starting | Warming)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::servers;

    fn roster(servers: &[Server]) -> Roster {
        let mut roster = Roster::default();
        roster.carry(&[], servers);
        roster
    }

    #[test]
    fn tickets_follow_their_servers() {
        let mut roster = roster(&servers(&[true, true, true]));
        let tickets = [0, 1, 2].map(|index| roster.ticket(index));
        // s1 leaves, s3 now stands first; who takes the free place is not s1.
        let mut new = servers(&[true, true, true]);
        new[2].name = "s4".parse().unwrap();
        new.swap(0, 1);
        roster.carry(&[None, Some(0), Some(1)], &new);
        assert_eq!(tickets.map(|ticket| roster.index(ticket)), [None, Some(0), Some(1)]);
        assert_ne!(roster.ticket(2), tickets[0]);
        assert_eq!(roster.seats.len(), 3);
    }

    #[test]
    fn a_failure_ends_tickets_and_draining_does_not() {
        let stay = [Some(0)];
        for (states, kept) in [
            (&[VmState::Draining, VmState::Up][..], true),
            (&[VmState::Down, VmState::Warming], false),
            (&[VmState::Warming], false),
            (&[VmState::Starting, VmState::Up], false),
        ] {
            let mut servers = servers(&[true]);
            let mut roster = roster(&servers);
            let ticket = roster.ticket(0);
            for &state in states {
                servers[0].state = state;
                roster.carry(&stay, &servers);
                assert_eq!(roster.index(ticket).is_some(), kept && state.serves(), "{states:?}");
            }
            assert_eq!(roster.index(roster.ticket(0)), Some(0));
        }
    }
}

//! At which servers a request is tried, in their order.

use crate::account::Account;
use crate::admission::gate::Entry;
use crate::client::Client;
use crate::journal::Journal;
use crate::metrics::Refusal;
use crate::pool::Pool;
use crate::worker::View;
use smallvec::SmallVec;
use std::rc::Rc;
use std::time::Instant;
use tokio::time::timeout;
use vibra_routing::Candidates;

/// The servers that a request may be tried at: those of its candidates that have a place for it.
pub(crate) struct Turns<'a> {
    client: &'a Rc<Client>,
    view: &'a View,
    candidates: <Candidates as IntoIterator>::IntoIter,
    /// So many more may be tried.
    left: usize,
}

impl<'a> Turns<'a> {
    /// The turns of a request for `object`.
    pub(crate) fn new(client: &'a Rc<Client>, view: &'a View, object: &str) -> Self {
        let candidates = client.worker().pick(view, object).into_iter();
        Turns { client, view, candidates, left: client.worker().config().limits.attempts }
    }

    /// The first server to try. Where all are full, waits for a place at the first of them.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn first(&mut self, journal: &mut Journal<'_>) -> Result<Account, Refusal> {
        let mut full = SmallVec::<[_; 4]>::new();
        let found = self.find(|pool| full.push(pool));
        // Of those that are all full the first is waited for.
        let passed_over = if found.is_some() { 0 } else { 1 };
        full.iter().skip(passed_over).for_each(|pool| journal.finds_full(pool));
        match found {
            Some(account) => Ok(account),
            None => Box::pin(self.wait(full.first().ok_or(Refusal::NoServer)?, journal)).await,
        }
    }

    /// The server to go on to after a failure, if there is one, and there are not too many such requests.
    pub(crate) fn next(&mut self, journal: &mut Journal<'_>) -> Option<Account> {
        if self.left == 0 || self.candidates.len() == 0 || !self.client.worker().may_retry() {
            return None;
        }
        self.find(|pool| journal.finds_full(pool))
    }

    /// The next server that has a place; `full` is told of those that have none.
    fn find(&mut self, mut full: impl FnMut(&'a Rc<Pool>)) -> Option<Account> {
        for server in self.candidates.by_ref() {
            let pool = &self.view.pools[server];
            if pool.server.gate.try_enter() {
                return Some(self.open(pool));
            }
            pool.tally.full.add(1);
            full(pool);
        }
        None
    }

    async fn wait(&mut self, pool: &Rc<Pool>, journal: &mut Journal<'_>) -> Result<Account, Refusal> {
        let (most, began) = (self.client.worker().config().timeouts.queue, Instant::now());
        let entered = match pool.server.gate.enter() {
            Entry::Entered => true,
            Entry::Waits(turn) => timeout(most, turn).await.is_ok(),
            Entry::Full => false,
        };
        let waited = began.elapsed();
        pool.tally.queue.record(waited);
        journal.waited(waited);
        if entered {
            return Ok(self.open(pool));
        }
        journal.finds_full(pool);
        Err(Refusal::Full)
    }

    fn open(&mut self, pool: &Rc<Pool>) -> Account {
        self.left -= 1;
        Account::open(pool.clone(), self.client.clone())
    }
}

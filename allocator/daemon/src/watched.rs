//! Policies that may not take for ever.

use crate::core::message;
use serde_json::Value;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};
use vibra_model::{Plan, Resource, Timestamp};
use vibra_policy::{Failure, Policy, RestoreError, View};

type Job = Box<dyn FnOnce(&mut dyn Policy) + Send>;

/// A policy on a thread of its own, which is not waited for longer than its limit.
///
/// Code that runs cannot be stopped from outside: a thread that overruns is left to itself, and its policy with it.
pub struct Watched {
    name: &'static str,
    resource: Resource,
    moves: bool,
    limit: Duration,
    jobs: Sender<Job>,
}

impl Watched {
    /// `policy`, with so much time for each decision.
    pub fn new(policy: Box<dyn Policy>, limit: Duration) -> Self {
        let (name, resource, moves) = (policy.name(), policy.resource(), policy.moves());
        let (jobs, queue) = channel();
        let thread = thread::Builder::new().name(format!("policy-{name}"));
        // Without a thread nobody takes jobs, and every decision fails with that.
        if let Err(error) = thread.spawn(move || work(policy, &queue)) {
            tracing::error!("policy {name} for {resource} gets no thread: {error}");
        }
        Watched { name, resource, moves, limit, jobs }
    }

    /// What `job` finds on the policy's thread.
    fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut dyn Policy) -> T + Send + 'static) -> Result<T, Failure> {
        let (answer, answered) = channel();
        let job: Job = Box::new(move |policy| {
            let done = catch_unwind(AssertUnwindSafe(|| job(policy)));
            // Who does not wait any more gets no answer.
            let _ = answer.send(done.map_err(|panic| format!("it panicked: {}", message(&*panic))));
        });
        let gone = || Failure::Lasting("its thread is gone".to_owned());
        self.jobs.send(job).map_err(|_| gone())?;
        match answered.recv_timeout(self.limit) {
            Ok(answer) => answer.map_err(Failure::Lasting),
            Err(RecvTimeoutError::Disconnected) => Err(gone()),
            Err(RecvTimeoutError::Timeout) => {
                Err(Failure::Lasting(format!("it overran its time of {} ms", self.limit.as_millis())))
            }
        }
    }
}

fn work(mut policy: Box<dyn Policy>, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        job(&mut *policy);
    }
}

impl Policy for Watched {
    fn name(&self) -> &'static str {
        self.name
    }

    fn resource(&self) -> Resource {
        self.resource
    }

    fn moves(&self) -> bool {
        self.moves
    }

    fn decide(&mut self, view: &View<'_>, now: Timestamp) -> Plan {
        let nothing = || Plan { base: view.snapshot().revision(), ..Plan::default() };
        self.attempt(view, now).unwrap_or_else(|_| nothing())
    }

    fn attempt(&mut self, view: &View<'_>, now: Timestamp) -> Result<Plan, Failure> {
        // The thread may outlive what the view borrows.
        let ((snapshot, usage), customer) = (view.kept(), view.customer().clone());
        let planned = view.planned().to_vec();
        self.ask(move |policy| policy.attempt(&View::shared(&snapshot, &customer, &usage).after(&planned), now))?
    }

    fn save(&self) -> Value {
        self.ask(|policy| policy.save()).unwrap_or_default()
    }

    fn restore(&mut self, state: &Value) -> Result<(), RestoreError> {
        let state = state.clone();
        let restored = self.ask(move |policy| policy.restore(&state));
        restored.map_err(|failure| RestoreError { policy: self.name, why: failure.to_string() })?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use vibra_model::UsageWindow;

    #[test]
    fn a_policy_that_overruns_its_time_has_no_plan_and_holds_nobody_up() {
        let (release, released) = channel::<()>();
        let waits = Scripted(move |_: &View<'_>| {
            let _ = released.recv();
            Plan::default()
        });
        let mut watched = Watched::new(Box::new(waits), Duration::from_millis(20));
        let (snapshot, shop, usage) = (directory().now(), id("shop"), UsageWindow::default());
        let failure = watched.attempt(&View::new(&snapshot, &shop, &usage), Timestamp(1)).unwrap_err();
        assert_eq!(failure, Failure::Lasting("it overran its time of 20 ms".to_owned()));
        drop(release);
    }

    #[test]
    fn what_others_have_planned_is_known_on_its_thread_too() {
        let (snapshot, shop, usage) = (directory().now(), id("shop"), UsageWindow::default());
        let planned = single(snapshot.revision(), "hot", 123).actions;
        let tells = Scripted(|view: &View<'_>| Plan { actions: view.planned().to_vec(), ..Plan::default() });
        let mut watched = Watched::new(Box::new(tells), Duration::from_secs(60));
        let plan = watched.attempt(&View::new(&snapshot, &shop, &usage).after(&planned), Timestamp(1)).unwrap();
        assert_eq!(plan.actions, planned);
    }

    #[test]
    fn on_its_thread_a_policy_decides_saves_and_panics_as_it_would_without() {
        let (snapshot, shop) = (directory().now(), id("shop"));
        let usage = usage(7, &[("hot", 900), ("cold", 100)]);
        let view = View::new(&snapshot, &shop, &usage);
        let (mut plain, watched) = (proportional_policy(), proportional_policy());
        let mut watched = Watched::new(watched, Duration::from_secs(60));
        assert_eq!(watched.attempt(&view, Timestamp(9)).unwrap(), plain.decide(&view, Timestamp(9)));
        assert_eq!(watched.save(), plain.save());
        assert!(watched.restore(&Value::Bool(true)).is_err());
        let panics = Scripted(|_: &View<'_>| -> Plan { panic!("division by zero") });
        let mut watched = Watched::new(Box::new(panics), Duration::from_secs(60));
        let failure = watched.attempt(&view, Timestamp(9)).unwrap_err();
        assert_eq!(failure, Failure::Lasting("it panicked: division by zero".to_owned()));
    }
}

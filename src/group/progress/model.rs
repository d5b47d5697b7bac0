//! Random histories, compared with sets of single offsets.
#![expect(
    clippy::maybe_infinite_iter,
    clippy::option_option,
    reason = "a model is written to be compared, not to be fast"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Deliver { len: u64, deadline: Option<u64> },
    Pass { len: u64 },
    Settle(prop::sample::Index),
    Drop(prop::sample::Index),
    CommitBegins(prop::sample::Index),
    Expire(u64),
    Seek(u64, Overtaken),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let batch = any::<prop::sample::Index>;
    let step = prop_oneof![
        6 => (1..8u64, prop::option::of(0..30u64)).prop_map(|(len, deadline)| Step::Deliver { len, deadline }),
        1 => (1..8u64).prop_map(|len| Step::Pass { len }),
        4 => batch().prop_map(Step::Settle),
        3 => batch().prop_map(Step::Drop),
        1 => batch().prop_map(Step::CommitBegins),
        1 => (0..30u64).prop_map(Step::Expire),
        1 => (0..60u64, prop_oneof![Just(Overtaken::Counts), Just(Overtaken::Fenced)])
            .prop_map(|(to, overtaken)| Step::Seek(to, overtaken)),
    ];
    prop::collection::vec(step, 0..80)
}

#[derive(Debug, Clone)]
struct Batch {
    offsets: BTreeSet<u64>,
    deadline: Option<u64>,
    overtaken: bool,
    committing: bool,
}

/// Every offset by itself.
#[derive(Debug, Default)]
struct Model {
    floor: u64,
    frontier: u64,
    settled: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    in_flight: BTreeMap<BatchId, Batch>,
    /// Whether a seek has happened: then what is overtaken may stand in two places.
    sought: bool,
}

impl Model {
    fn next_fetch(&self) -> Wanted {
        match self.dropped.first() {
            Some(&from) => Wanted { from, until: (from..).find(|at| !self.dropped.contains(at)) },
            None => Wanted { from: self.frontier, until: None },
        }
    }

    fn read(&mut self, len: u64) -> Range<u64> {
        let Wanted { from, until } = self.next_fetch();
        let end = until.unwrap_or(u64::MAX).min(from + len);
        self.dropped.retain(|offset| !(from..end).contains(offset));
        self.frontier = self.frontier.max(end);
        from..end
    }

    fn count(&mut self, offsets: impl IntoIterator<Item = u64>) -> Option<u64> {
        let before = self.floor;
        self.settled.extend(offsets.into_iter().filter(|offset| *offset >= before));
        while self.settled.remove(&self.floor) {
            self.floor += 1;
        }
        (self.floor > before).then_some(self.floor)
    }

    fn settle(&mut self, id: BatchId) -> Option<Option<u64>> {
        let batch = self.in_flight.remove(&id)?;
        Some(if batch.overtaken && batch.committing { None } else { self.count(batch.offsets) })
    }

    fn drop_batch(&mut self, id: BatchId) {
        if let Some(batch) = self.in_flight.remove(&id)
            && !batch.overtaken
        {
            self.dropped.extend(batch.offsets);
        }
    }

    fn expire(&mut self, now: u64) -> bool {
        let late = |batch: &Batch| !batch.committing && batch.deadline.is_some_and(|deadline| deadline <= now);
        let ids: Vec<_> = self.in_flight.iter().filter(|(_, batch)| late(batch)).map(|(id, _)| *id).collect();
        for id in &ids {
            self.drop_batch(*id);
        }
        !ids.is_empty()
    }

    fn seek(&mut self, to: u64, overtaken: Overtaken) {
        (self.floor, self.frontier, self.sought) = (to, to, true);
        self.settled.clear();
        self.dropped.clear();
        self.in_flight.retain(|_, batch| batch.committing || overtaken == Overtaken::Counts);
        self.in_flight.values_mut().for_each(|batch| batch.overtaken = true);
    }

    /// Each offset below the frontier is settled, dropped or in one batch in flight: nothing lost, nothing twice.
    fn is_whole(&self) -> bool {
        let mut all: Vec<u64> = (0..self.floor).chain(self.settled.iter().copied()).collect();
        all.extend(&self.dropped);
        all.extend(self.in_flight.values().flat_map(|batch| &batch.offsets));
        all.sort_unstable();
        self.sought || all == (0..self.frontier).collect::<Vec<_>>()
    }
}

fn apply(step: &Step, progress: &mut Progress, model: &mut Model, ids: &mut Vec<BatchId>) -> Result<(), TestCaseError> {
    let pick = |index: &prop::sample::Index| (!ids.is_empty()).then(|| ids[index.index(ids.len())]);
    match step {
        Step::Deliver { len, deadline } => {
            let range = model.read(*len);
            let id = progress.delivered(range.clone(), deadline.map(Duration::from_secs));
            let batch = Batch { offsets: range.collect(), deadline: *deadline, overtaken: false, committing: false };
            prop_assert!(model.in_flight.insert(id, batch).is_none() && !ids.contains(&id), "a number given twice");
            ids.push(id);
        }
        Step::Pass { len } => {
            let range = model.read(*len);
            prop_assert_eq!(progress.pass(range.clone()), model.count(range));
        }
        Step::Settle(index) => {
            if let Some(id) = pick(index) {
                let foretold = progress.settles_to(id).ok();
                let settled = progress.settle(id).ok();
                prop_assert_eq!(settled, model.settle(id));
                prop_assert_eq!(foretold, settled);
            }
        }
        Step::Drop(index) => {
            if let Some(id) = pick(index) {
                progress.drop_batch(id);
                model.drop_batch(id);
            }
        }
        Step::CommitBegins(index) => {
            if let Some(id) = pick(index) {
                let known = model.in_flight.get_mut(&id).map(|batch| batch.committing = true);
                prop_assert_eq!(progress.commit_begins(id).ok(), known);
            }
        }
        Step::Expire(now) => prop_assert_eq!(progress.expire(Duration::from_secs(*now)), model.expire(*now)),
        Step::Seek(to, overtaken) => {
            progress.seek(*to, *overtaken);
            model.seek(*to, *overtaken);
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn equals_sets_of_offsets(steps in steps()) {
        let (mut progress, mut model, mut ids) = (Progress::new(0), Model::default(), Vec::new());
        for step in steps {
            apply(&step, &mut progress, &mut model, &mut ids)?;
            prop_assert_eq!(progress.floor(), model.floor);
            prop_assert_eq!(progress.next_fetch(), model.next_fetch());
            prop_assert_eq!(progress.position(), model.next_fetch().from);
            prop_assert_eq!(progress.has_dropped(), !model.dropped.is_empty());
            prop_assert_eq!(progress.is_idle(), model.in_flight.is_empty());
            prop_assert_eq!(progress.in_flight(), model.in_flight.len());
            let waiting = model.in_flight.values().filter(|batch| !batch.committing);
            let deadline = waiting.filter_map(|batch| batch.deadline).min();
            prop_assert_eq!(progress.next_deadline(), deadline.map(Duration::from_secs));
            prop_assert!(model.is_whole(), "{:?}", model);
        }
    }
}

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
    Deliver {
        len: u64,
        deadline: Option<u64>,
    },
    /// Of what is to be delivered, so much is looked at, and some of it taken.
    Pick {
        len: u64,
        taken: u64,
        gaps: u64,
    },
    Pass {
        len: u64,
    },
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
        3 => (1..20u64, any::<u64>(), any::<u64>()).prop_map(|(len, taken, gaps)| Step::Pick { len, taken, gaps }),
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
    held: BTreeSet<u64>,
    in_flight: BTreeMap<BatchId, Batch>,
    /// Whether a seek has happened: then what is overtaken may stand in two places.
    sought: bool,
}

impl Model {
    fn next_fetch(&self) -> Wanted {
        let first = |offsets: &BTreeSet<u64>| {
            let from = *offsets.first()?;
            Some(Wanted { from, until: (from..).find(|at| !offsets.contains(at)) })
        };
        let ranges = [first(&self.dropped), first(&self.held)];
        let lowest = ranges.into_iter().flatten().min_by_key(|wanted| wanted.from);
        lowest.unwrap_or(Wanted { from: self.frontier, until: None })
    }

    fn read(&mut self, len: u64) -> Range<u64> {
        let Wanted { from, until } = self.next_fetch();
        let end = until.unwrap_or(u64::MAX).min(from + len);
        self.dropped.retain(|offset| !(from..end).contains(offset));
        self.held.retain(|offset| !(from..end).contains(offset));
        self.frontier = self.frontier.max(end);
        from..end
    }

    /// Looks at so many offsets that are to be delivered, takes some as a batch, and settles others as gaps.
    fn pick(&mut self, len: u64, taken: u64, gaps: u64) -> (Picked, BTreeSet<u64>) {
        let waiting: BTreeSet<u64> = self.dropped.iter().chain(&self.held).copied().collect();
        let looked_at: Vec<u64> =
            waiting.into_iter().chain(self.frontier..).take(usize::try_from(len).unwrap()).collect();
        let marked = |bits: u64, index: usize| bits >> (index % 64) & 1 == 1;
        let chosen = |wanted: bool| {
            let of = |(index, offset): (usize, &u64)| (marked(taken, index) == wanted).then_some((index, *offset));
            looked_at.iter().enumerate().filter_map(of).collect::<Vec<_>>()
        };
        let batch: BTreeSet<u64> = chosen(true).into_iter().map(|(_, offset)| offset).collect();
        let gone: BTreeSet<u64> =
            chosen(false).into_iter().filter(|(index, _)| marked(gaps, *index)).map(|(_, offset)| offset).collect();
        let reached = looked_at.last().map_or(0, |last| last + 1);
        self.held.extend(self.frontier..reached);
        self.frontier = self.frontier.max(reached);
        for offset in batch.iter().chain(&gone) {
            self.dropped.remove(offset);
            self.held.remove(offset);
        }
        self.count(gone.iter().copied());
        let picked = Picked { pieces: runs(&batch), gaps: runs(&gone), reached, keys: vec![], open: true };
        (picked, batch)
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
        self.held.clear();
        self.in_flight.retain(|_, batch| batch.committing || overtaken == Overtaken::Counts);
        self.in_flight.values_mut().for_each(|batch| batch.overtaken = true);
    }

    /// Each offset below the frontier is settled, dropped or in one batch in flight: nothing lost, nothing twice.
    fn is_whole(&self) -> bool {
        let mut all: Vec<u64> = (0..self.floor).chain(self.settled.iter().copied()).collect();
        all.extend(&self.dropped);
        all.extend(&self.held);
        all.extend(self.in_flight.values().flat_map(|batch| &batch.offsets));
        all.sort_unstable();
        self.sought || all == (0..self.frontier).collect::<Vec<_>>()
    }
}

fn runs(offsets: &BTreeSet<u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &offset in offsets {
        match runs.last_mut() {
            Some(last) if last.end == offset => last.end += 1,
            _ => runs.push(offset..offset + 1),
        }
    }
    runs
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
        Step::Pick { len, taken, gaps } => {
            let (picked, offsets) = model.pick(*len, *taken, *gaps);
            let id = progress.delivered_keyed(picked, None);
            prop_assert_eq!(id.is_none(), offsets.is_empty());
            if let Some(id) = id {
                let batch = Batch { offsets, deadline: None, overtaken: false, committing: false };
                prop_assert!(model.in_flight.insert(id, batch).is_none() && !ids.contains(&id), "a number given twice");
                ids.push(id);
            }
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
            let undelivered = progress.sight().undelivered;
            let waiting = (0..model.frontier + 9).filter(|at| undelivered.iter().any(|range| range.contains(at)));
            let expected = model.dropped.iter().chain(&model.held).copied().chain(model.frontier..model.frontier + 9);
            prop_assert_eq!(waiting.collect::<BTreeSet<_>>(), expected.collect::<BTreeSet<_>>());
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

//! Random histories of members that come, go, read, settle and drop, held against what a group promises.
#![expect(
    clippy::trivially_copy_pass_by_ref,
    clippy::single_match_else,
    clippy::needless_pass_by_value,
    reason = "a model is written to be compared, not to be fast"
)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::keyed::Picker;
use super::*;

/// Records in each partition.
const END: u64 = 60;

/// Keys in each partition, of records in turn.
const KEYS: u64 = 5;

#[derive(Debug, Clone)]
enum Step {
    Join { mode: Mode, max_in_flight: usize, by_key: bool },
    Leave(Index),
    Grow,
    Begin(Index),
    End { fetch: Index, len: u64, deadline: Option<u64> },
    Settle(Index),
    Drop(Index),
    CommitBegins(Index),
    Expire(u64),
    Pause(Index),
    Resume(Index),
}

fn steps(mode: impl Strategy<Value = Mode> + 'static) -> impl Strategy<Value = Vec<Step>> {
    let index = any::<Index>;
    let step = prop_oneof![
        2 => (mode, prop_oneof![Just(usize::MAX), 1..4usize], any::<bool>())
            .prop_map(|(mode, max_in_flight, by_key)| Step::Join { mode, max_in_flight, by_key }),
        1 => index().prop_map(Step::Leave),
        1 => Just(Step::Grow),
        8 => index().prop_map(Step::Begin),
        8 => (index(), 1..20u64, prop::option::of(0..30u64))
            .prop_map(|(fetch, len, deadline)| Step::End { fetch, len, deadline }),
        6 => index().prop_map(Step::Settle),
        3 => index().prop_map(Step::Drop),
        1 => index().prop_map(Step::CommitBegins),
        1 => (0..30u64).prop_map(Step::Expire),
        1 => index().prop_map(Step::Pause),
        1 => index().prop_map(Step::Resume),
    ];
    prop::collection::vec(step, 0..120)
}

/// What the application and the disk would know.
struct World {
    group: Group,
    members: BTreeMap<MemberId, Terms>,
    fetches: Vec<Fetch>,
    /// Every batch ever handed out, with the offsets of its records.
    batches: Vec<(u32, BatchId, Vec<u64>)>,
    /// How often each record was settled.
    settled: BTreeMap<(u32, u64), u32>,
    floors: Vec<u64>,
}

impl World {
    fn new() -> Self {
        Self {
            group: Group::new([0; 3]),
            members: BTreeMap::new(),
            fetches: Vec::new(),
            batches: Vec::new(),
            settled: BTreeMap::new(),
            floors: vec![0; 3],
        }
    }

    fn member(&self, index: &Index) -> Option<MemberId> {
        let members: Vec<_> = self.members.keys().copied().collect();
        (!members.is_empty()).then(|| members[index.index(members.len())])
    }

    fn batch(&self, index: &Index) -> Option<(u32, BatchId, Vec<u64>)> {
        (!self.batches.is_empty()).then(|| self.batches[index.index(self.batches.len())].clone())
    }

    fn owners(&self) -> Vec<Option<MemberId>> {
        self.group.shares.iter().map(|share| share.owner).collect()
    }

    fn count(&mut self, partition: u32, offsets: impl IntoIterator<Item = u64>) {
        offsets.into_iter().for_each(|offset| *self.settled.entry((partition, offset)).or_default() += 1);
    }

    fn moved(&mut self, partition: u32, floor: Option<u64>) -> Result<(), TestCaseError> {
        let known = &mut self.floors[partition as usize];
        if let Some(floor) = floor {
            prop_assert!(floor > *known, "floors only rise");
            *known = floor;
        }
        prop_assert_eq!(self.group.floor(partition), Some(*known));
        Ok(())
    }

    fn end(&mut self, fetch: Fetch, len: u64, deadline: Option<u64>) -> Result<(), TestCaseError> {
        let (partition, from, member) = (fetch.partition, fetch.from, fetch.member);
        let deadline = deadline.map(Duration::from_secs);
        let end = fetch.until.unwrap_or(END).min(from + len);
        let (mut fetch, mut offsets) = (fetch, (from..end).collect::<Vec<u64>>());
        let mut fetched = Fetched::Records { end, deadline };
        if let Some(sight) = fetch.sight.take() {
            let mut picker = Picker::new(*sight, usize::try_from(len).unwrap());
            offsets = (0..END).filter(|offset| picker.offer(*offset, Some(offset % KEYS))).collect();
            fetched = Fetched::Picked { picked: Box::new(picker.finish(END)), deadline };
        } else if end <= from {
            return Ok(());
        }
        let share = &self.group.shares[partition as usize];
        let allowed = share.owner == Some(member) && share.heir == Some(member);
        let busy = share.progress.sight().busy;
        let picked = matches!(fetched, Fetched::Picked { .. });
        let Some(delivered) = self.group.end_fetch(fetch, fetched) else { return Ok(()) };
        prop_assert!(allowed, "handed out what is not the member's, or not for long");
        prop_assert!(!picked || offsets.iter().all(|offset| !busy.contains(&(offset % KEYS))), "a key twice in flight");
        match delivered.batch {
            Some(batch) => self.batches.push((partition, batch, offsets)),
            None => {
                self.count(partition, offsets);
                self.moved(partition, delivered.floor)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Join { mode, max_in_flight, by_key } => {
                let by_key = by_key && mode == Mode::AtLeastOnce;
                let terms = Terms { mode, name: None, max_in_flight, by_key, one_at_a_time: false };
                self.members.insert(self.group.join(terms.clone()), terms);
            }
            Step::Leave(index) => {
                if let Some(member) = self.member(&index) {
                    self.members.remove(&member);
                    self.group.leave(member);
                }
            }
            Step::Grow if self.floors.len() < 8 => {
                self.floors.push(0);
                self.group.grow(u32::try_from(self.floors.len()).unwrap());
            }
            Step::Begin(index) => {
                let member = self.member(&index);
                let ready = |_: u32, from: u64| from < END;
                self.fetches.extend(member.and_then(|member| self.group.begin_fetch(member, ready)));
            }
            Step::End { fetch, len, deadline } if !self.fetches.is_empty() => {
                let fetch = self.fetches.swap_remove(fetch.index(self.fetches.len()));
                self.end(fetch, len, deadline)?;
            }
            Step::Settle(index) => {
                if let Some((partition, batch, offsets)) = self.batch(&index)
                    && let Ok(floor) = self.group.settle(partition, batch)
                {
                    self.count(partition, offsets);
                    self.moved(partition, floor)?;
                }
            }
            Step::Drop(index) => {
                if let Some((partition, batch, _)) = self.batch(&index) {
                    self.group.drop_batch(partition, batch);
                }
            }
            Step::CommitBegins(index) => {
                if let Some((partition, batch, _)) = self.batch(&index) {
                    let _ = self.group.commit_begins(partition, batch);
                }
            }
            Step::Expire(now) => {
                self.group.expire(Duration::from_secs(now));
            }
            Step::Pause(index) | Step::Resume(index) => {
                let Some(member) = self.member(&index) else { return Ok(()) };
                for partition in self.group.owned(member) {
                    let pause = matches!(step, Step::Pause(_));
                    let done = if pause { Group::pause } else { Group::resume }(&mut self.group, member, partition);
                    prop_assert!(done.is_ok());
                }
            }
            Step::Grow | Step::End { .. } => {}
        }
        Ok(())
    }

    /// What holds after every step, given who owned what before it and what was in flight then.
    fn check(&self, before: &[Option<MemberId>]) -> Result<(), TestCaseError> {
        let mut owned: Vec<(u32, MemberId)> = Vec::new();
        for member in self.members.keys() {
            owned.extend(self.group.owned(*member).into_iter().map(|partition| (partition, *member)));
        }
        let partitions: BTreeSet<u32> = owned.iter().map(|(partition, _)| *partition).collect();
        prop_assert_eq!(partitions.len(), owned.len(), "one owner at most");
        for (partition, share) in (0..).zip(&self.group.shares) {
            let holder = owned.iter().find(|(known, _)| *known == partition).map(|(_, member)| *member);
            prop_assert_eq!(share.owner, holder);
            let idle = share.progress.is_idle();
            let moved = holder.is_some() && before.get(partition as usize).is_some_and(|before| *before != holder);
            prop_assert!(idle || !moved, "moved with a batch in flight");
            prop_assert!(!idle || share.owner == share.heir, "nothing is in flight, and the heir still waits");
            let mode = holder.and_then(|owner| self.members.get(&owner));
            prop_assert!(mode.is_none_or(|terms| !terms.mode.one_at_a_time()) || share.progress.in_flight() <= 1);
        }
        for share in self.group.shares.iter().filter(|share| share.blocked.is_some()) {
            let mut picker = Picker::new(share.progress.sight(), 1);
            let free = (0..END).find(|offset| picker.offer(*offset, Some(offset % KEYS)));
            prop_assert_eq!(free, None, "a record that could be delivered is not looked for");
        }
        for (member, terms) in &self.members {
            let in_flight = self.group.in_flight_of(&self.group.members[member]);
            prop_assert!(in_flight <= terms.max_in_flight, "{in_flight} in flight");
        }
        let heirs = |member: &MemberId| self.group.shares.iter().filter(|share| share.heir == Some(*member)).count();
        let counts: Vec<usize> = self.members.keys().map(heirs).collect();
        prop_assert!(counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0) <= 1);
        let in_flight: usize = self.group.shares.iter().map(|share| share.progress.in_flight()).sum();
        prop_assert_eq!(self.group.active(), self.members.len() + in_flight);
        prop_assert_eq!(self.group.is_empty(), self.group.active() == 0);
        Ok(())
    }

    /// Everybody goes, what is in flight is dropped, and one new member reads to the end.
    fn drain(&mut self, mode: Mode, by_key: bool) -> Result<(), TestCaseError> {
        for member in std::mem::take(&mut self.members).into_keys() {
            self.group.leave(member);
        }
        for (partition, batch, _) in self.batches.clone() {
            self.group.drop_batch(partition, batch);
        }
        prop_assert!(self.group.is_empty());
        let last = self.group.join(Terms { by_key, ..mode.into() });
        // Each fetch settles a record at least.
        for _ in 0..=END * self.floors.len() as u64 {
            let Some(fetch) = self.group.begin_fetch(last, |_, from| from < END) else { break };
            let (partition, known) = (fetch.partition, self.batches.len());
            self.end(fetch, 7, None)?;
            for (_, batch, offsets) in self.batches.split_off(known) {
                let floor = self.group.settle(partition, batch).expect("it is in flight");
                self.count(partition, offsets);
                self.moved(partition, floor)?;
            }
        }
        Ok(())
    }

    fn run(&mut self, steps: Vec<Step>, last: Mode, last_by_key: bool) -> Result<(), TestCaseError> {
        for step in steps {
            let before = self.owners();
            self.apply(step)?;
            self.check(&before)?;
        }
        self.drain(last, last_by_key)?;
        prop_assert!(self.floors.iter().all(|floor| *floor == END), "{:?}", self.floors);
        // A batch that was taken back or dropped is fenced, so that a settlement that was accepted is the only one.
        let all =
            (0..).zip(&self.floors).flat_map(|(partition, _)| (0..END).map(move |offset| ((partition, offset), 1)));
        prop_assert_eq!(&self.settled, &all.collect::<BTreeMap<(u32, u64), u32>>());
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_record_is_settled_once_whoever_comes_and_goes(
        steps in steps(prop_oneof![Just(Mode::AtMostOnce), Just(Mode::AtLeastOnce), Just(Mode::ExactlyOnce)]),
        last in prop_oneof![Just(Mode::AtMostOnce), Just(Mode::AtLeastOnce), Just(Mode::ExactlyOnce)],
        last_by_key in any::<bool>(),
    ) {
        World::new().run(steps, last, last_by_key && last == Mode::AtLeastOnce)?;
    }
}

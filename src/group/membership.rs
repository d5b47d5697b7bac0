//! One group on one log, in memory: its members, who owns which partition, and how far each partition is.
//!
//! A partition changes hands only when nothing of it is in flight, and nothing is read for its owner. Its progress stays
//! with the group, so that the new owner goes on with exactly what is not settled. Since all members live in this
//! process, joining and leaving are calls: there are no heartbeats, and nothing to time out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;

use crate::group::assignment::{MemberId, assign};
use crate::group::progress::{BatchId, Fetch, Progress};
use crate::{Error, Result};

/// The state of a group.
#[derive(Debug, Default)]
pub(crate) struct Membership {
    members: BTreeMap<MemberId, Member>,
    next_member: MemberId,
    generation: u64,
    partitions: Vec<Owned>,
}

#[derive(Debug, Default)]
struct Member {
    /// The partition after the one that was delivered last, so that none starves.
    turn: u32,
}

#[derive(Debug)]
struct Owned {
    owner: Option<MemberId>,
    /// Who is to have it, once nothing is in flight.
    heir: Option<MemberId>,
    /// Whether its owner reads it now, outside the group's lock.
    fetching: bool,
    paused: bool,
    /// Counts what makes a read in progress void: seeks, pauses and hand-overs.
    changes: u64,
    progress: Progress,
}

/// A read that a member has begun.
#[derive(Debug)]
pub(crate) struct Reading {
    pub(crate) partition: u32,
    pub(crate) fetch: Fetch,
    changes: u64,
}

impl Membership {
    /// Adds partitions, each with the offset at which the group begins.
    pub(crate) fn grow(&mut self, floors: impl IntoIterator<Item = u64>) {
        let before = self.partitions.len();
        self.partitions.extend(floors.into_iter().map(|floor| Owned {
            owner: None,
            heir: None,
            fetching: false,
            paused: false,
            changes: 0,
            progress: Progress::new(floor),
        }));
        if self.partitions.len() > before {
            self.rebalance();
        }
    }

    pub(crate) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    pub(crate) fn join(&mut self) -> MemberId {
        let id = self.next_member;
        self.next_member += 1;
        self.members.insert(id, Member::default());
        self.rebalance();
        id
    }

    /// A member leaves. Its batches in flight stay known: their partitions wait for them.
    pub(crate) fn leave(&mut self, member: MemberId) {
        if self.members.remove(&member).is_some() {
            self.rebalance();
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Members, and partitions with batches in flight of members that have left.
    pub(crate) fn active(&self) -> usize {
        let orphaned = |owned: &&Owned| {
            owned.progress.in_flight() > 0 && owned.owner.is_none_or(|owner| !self.members.contains_key(&owner))
        };
        self.members.len() + self.partitions.iter().filter(orphaned).count()
    }

    /// The partitions a member may read now.
    pub(crate) fn owned(&self, member: MemberId) -> Vec<u32> {
        let mine = |owned: &Owned| owned.owner == Some(member) && owned.heir == Some(member);
        (0..).zip(&self.partitions).filter(|(_, owned)| mine(owned)).map(|(partition, _)| partition).collect()
    }

    fn rebalance(&mut self) {
        self.generation += 1;
        let mut held: BTreeMap<MemberId, BTreeSet<u32>> =
            self.members.keys().map(|member| (*member, BTreeSet::new())).collect();
        for (partition, owned) in (0..).zip(&self.partitions) {
            if let Some(holds) = owned.heir.and_then(|heir| held.get_mut(&heir)) {
                holds.insert(partition);
            }
        }
        let heirs = assign(&held, self.partition_count());
        for (at, owned) in self.partitions.iter_mut().enumerate() {
            owned.heir = heirs.get(at).copied();
            owned.hand_over();
        }
    }

    /// Begins a read for `member`: the next of its partitions that is not paused, of which `ready` says that it has
    /// something at the position; one with a dropped batch first. With `alone`, none that has a batch in flight.
    pub(crate) fn begin_read(
        &mut self,
        member: MemberId,
        alone: bool,
        mut ready: impl FnMut(u32, &Fetch) -> bool,
    ) -> Option<Reading> {
        let count = self.partition_count();
        let turn = self.members.get(&member)?.turn;
        let mut readable = |partition: u32, dropped: bool| {
            self.get(partition).is_some_and(|owned| {
                let mine = owned.owner == Some(member) && owned.heir == Some(member);
                let busy = owned.paused || owned.fetching || (alone && owned.progress.in_flight() > 0);
                let fetch = owned.progress.next_fetch();
                mine && !busy && (!dropped || fetch.until.is_some()) && ready(partition, &fetch)
            })
        };
        let in_turn = |step: u32| (turn + step) % count;
        let dropped = (0..count).map(in_turn).find(|partition| readable(*partition, true));
        let partition = dropped.or_else(|| (0..count).map(in_turn).find(|partition| readable(*partition, false)))?;
        if let Some(member) = self.members.get_mut(&member) {
            member.turn = partition + 1;
        }
        let owned = self.get_mut(partition).ok()?;
        owned.fetching = true;
        Some(Reading { partition, fetch: owned.progress.next_fetch(), changes: owned.changes })
    }

    /// Ends a read. The partition's progress, if what was read may be delivered; `None` if it was sought, paused or is
    /// to be handed over: then what was read is forgotten.
    pub(crate) fn end_read(&mut self, reading: &Reading) -> Option<&mut Progress> {
        let owned = self.get_mut(reading.partition).ok()?;
        owned.fetching = false;
        let valid = owned.changes == reading.changes && owned.owner == owned.heir && owned.owner.is_some();
        if !valid {
            owned.hand_over();
            return None;
        }
        Some(&mut owned.progress)
    }

    /// Settles a batch. Returns the floor, when that moved it.
    pub(crate) fn settle(&mut self, partition: u32, batch: BatchId) -> Result<Option<u64>> {
        let owned = self.get_mut(partition)?;
        let floor = owned.progress.settle(batch)?;
        owned.hand_over();
        Ok(floor)
    }

    pub(crate) fn begin_commit(&mut self, partition: u32, batch: BatchId) -> Result<Range<u64>> {
        self.get_mut(partition)?.progress.begin_commit(batch)
    }

    pub(crate) fn drop_batch(&mut self, partition: u32, batch: BatchId) {
        if let Ok(owned) = self.get_mut(partition) {
            owned.progress.drop_batch(batch);
            owned.hand_over();
        }
    }

    /// Takes back batches that were held too long; true when there were any.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        let mut any = false;
        for owned in &mut self.partitions {
            if owned.progress.expire(now) {
                any = true;
                owned.hand_over();
            }
        }
        any
    }

    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.partitions.iter().filter_map(|owned| owned.progress.next_deadline()).min()
    }

    /// The progress of a partition that `member` owns.
    pub(crate) fn progress(&self, member: MemberId, partition: u32) -> Option<&Progress> {
        self.get(partition).filter(|owned| owned.owner == Some(member)).map(|owned| &owned.progress)
    }

    /// Moves the position of a partition that `member` owns.
    pub(crate) fn seek(&mut self, member: MemberId, partition: u32, to: u64, fence: bool) -> Result<()> {
        let owned = self.mine(member, partition)?;
        owned.changes += 1;
        owned.progress.seek(to, fence);
        Ok(())
    }

    pub(crate) fn set_paused(&mut self, member: MemberId, partition: u32, paused: bool) -> Result<()> {
        let owned = self.mine(member, partition)?;
        owned.changes += 1;
        owned.paused = paused;
        Ok(())
    }

    fn mine(&mut self, member: MemberId, partition: u32) -> Result<&mut Owned> {
        let owned = self.get_mut(partition)?;
        if owned.owner == Some(member) && owned.heir == Some(member) { Ok(owned) } else { Err(Error::Fenced) }
    }

    fn get(&self, partition: u32) -> Option<&Owned> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }

    fn get_mut(&mut self, partition: u32) -> Result<&mut Owned> {
        let at = usize::try_from(partition).unwrap_or(usize::MAX);
        self.partitions.get_mut(at).ok_or(Error::Fenced)
    }
}

impl Owned {
    /// Gives the partition to its heir, when nothing of it is in flight.
    fn hand_over(&mut self) {
        if self.owner != self.heir && self.progress.in_flight() == 0 && !self.fetching {
            self.owner = self.heir;
            // A pause is its owner's, and ends with it.
            self.paused = false;
            self.changes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(partitions: usize) -> Membership {
        let mut group = Membership::default();
        group.grow(std::iter::repeat_n(0, partitions));
        group
    }

    fn take(group: &mut Membership, member: MemberId) -> (u32, BatchId) {
        let reading = group.begin_read(member, false, |_, _| true).unwrap();
        let range = reading.fetch.from..reading.fetch.from + 10;
        let id = group.end_read(&reading).unwrap().deliver(range, None);
        (reading.partition, id)
    }

    #[test]
    fn a_partition_moves_only_after_its_batches_in_flight_are_settled_or_dropped() {
        let mut group = group(2);
        let a = group.join();
        let (first, one) = take(&mut group, a);
        let (second, two) = take(&mut group, a);
        let b = group.join();
        assert_eq!(group.owned(b), vec![]);
        assert_eq!(group.owned(a).len(), 1, "the one that is to move is read no more");
        let moved = if group.owned(a).contains(&first) { (second, two) } else { (first, one) };
        group.settle(moved.0, moved.1).unwrap();
        assert_eq!(group.owned(b), vec![moved.0]);
        assert!(matches!(group.settle(moved.0, moved.1), Err(Error::Fenced)));
    }

    #[test]
    fn a_batch_that_outlives_its_member_keeps_the_partition_and_the_group_active() {
        let mut group = group(1);
        let a = group.join();
        let (partition, batch) = take(&mut group, a);
        group.leave(a);
        let b = group.join();
        assert!(group.begin_read(b, false, |_, _| true).is_none());
        group.leave(b);
        assert_eq!(group.active(), 1);
        assert_eq!(group.settle(partition, batch).unwrap(), Some(10));
        assert_eq!(group.active(), 0);
    }

    #[test]
    fn what_was_read_before_a_seek_a_pause_or_a_hand_over_is_not_delivered() {
        let mut group = group(2);
        let a = group.join();
        let reading = group.begin_read(a, false, |_, _| true).unwrap();
        group.seek(a, reading.partition, 7, false).unwrap();
        assert!(group.end_read(&reading).is_none());
        let reading = group.begin_read(a, false, |_, _| true).unwrap();
        group.set_paused(a, reading.partition, true).unwrap();
        assert!(group.end_read(&reading).is_none());
        let other = group.begin_read(a, false, |_, _| true).unwrap();
        assert_ne!(other.partition, reading.partition, "a paused partition is not read");
        assert!(group.end_read(&other).is_some());
        let other = group.begin_read(a, false, |_, _| true).unwrap();
        let b = group.join();
        let lost = group.end_read(&other).is_none();
        assert_eq!(lost, group.owned(b).contains(&other.partition));
    }

    #[test]
    fn a_batch_held_too_long_goes_to_the_next_owner() {
        let mut group = group(1);
        let a = group.join();
        let reading = group.begin_read(a, true, |_, _| true).unwrap();
        let id = group.end_read(&reading).unwrap().deliver(0..10, Some(Duration::from_secs(1)));
        assert!(group.begin_read(a, true, |_, _| true).is_none(), "one batch at a time");
        assert_eq!(group.next_deadline(), Some(Duration::from_secs(1)));
        group.leave(a);
        let b = group.join();
        assert!(group.expire(Duration::from_secs(1)));
        assert!(matches!(group.settle(0, id), Err(Error::Fenced)));
        let reading = group.begin_read(b, true, |_, _| true).unwrap();
        assert_eq!(reading.fetch, Fetch { from: 0, until: Some(10) });
    }
}

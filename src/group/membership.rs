//! One group on one log: its members, and which of them owns which partition.
//!
//! A partition has an owner, and an heir who is to own it according to the [assignment](super::assignment). While the
//! two differ the owner is given nothing new, and once nothing of the partition is in flight it goes to the heir. What
//! has been settled and dropped stays with the group, so that the heir goes on with exactly what is left.
//!
//! A read from the disk happens between [`Group::begin_fetch`] and [`Group::end_fetch`], so that it needs no lock; it
//! holds nothing up. Whatever makes its outcome stale (a hand-over, a seek, a pause, another fetch) makes `end_fetch`
//! refuse it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::assignment::assign;
use super::keyed::{Picked, Sight};
use super::metadata::Ahead;
use super::partitions::Partitions;
use super::progress::{BatchId, Overtaken, Progress, Wanted};
use crate::{Error, Result};

/// A member, by a number that its group never gives again. Numbers grow in the order of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MemberId(pub(super) u64);

/// What a member promises about what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// What is handed out counts as settled at once.
    AtMostOnce,
    /// Any number of batches in flight, settled in any order.
    AtLeastOnce,
    /// One batch in flight for each partition, settled by a transaction.
    ExactlyOnce,
    /// The same, and the application knows the position.
    ExactlyOnceFrom,
}

impl Mode {
    fn one_at_a_time(self) -> bool {
        matches!(self, Self::ExactlyOnce | Self::ExactlyOnceFrom)
    }

    fn overtaken(self) -> Overtaken {
        if self.one_at_a_time() { Overtaken::Fenced } else { Overtaken::Counts }
    }
}

/// Leave to read a partition from a position, until something makes it stale.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) partition: u32,
    /// Where to begin reading.
    pub(crate) from: u64,
    /// Where to stop at the latest, if anywhere.
    pub(crate) until: Option<u64>,
    /// The application is to be asked for the position first: see [`Group::loaded`].
    pub(crate) load: bool,
    /// What there is to choose from, where records of one key go one after the other.
    pub(crate) sight: Option<Box<Sight>>,
    member: MemberId,
    number: u64,
}

/// What a fetch has found. If nothing, it is simply forgotten.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// Records, the last of them right before `end`; whoever gets them has until `deadline`.
    Records { end: u64, deadline: Option<Duration> },
    /// Records that were chosen from what was in sight, or none, when all of them have to wait.
    Picked { picked: Box<Picked>, deadline: Option<Duration> },
    /// That there are no records before `end` any more.
    Gap { end: u64 },
}

/// What a member asked for when it joined.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) mode: Mode,
    /// What the application calls it.
    pub(crate) name: Option<String>,
    /// Most batches that it has in flight.
    pub(crate) max_in_flight: usize,
    /// Whether records of one key go one after the other.
    pub(crate) by_key: bool,
    /// Whether it has one batch of a partition in flight at a time, whatever its mode.
    pub(crate) one_at_a_time: bool,
}

impl Terms {
    fn one_at_a_time(&self) -> bool {
        self.one_at_a_time || self.mode.one_at_a_time()
    }
}

impl From<Mode> for Terms {
    fn from(mode: Mode) -> Self {
        Self { mode, name: None, max_in_flight: usize::MAX, by_key: false, one_at_a_time: false }
    }
}

/// What follows from a fetch that was not stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivered {
    /// The batch that is now in flight: none at most once, and none over a gap.
    pub(crate) batch: Option<BatchId>,
    /// The new floor, if it moved.
    pub(crate) floor: Option<u64>,
}

#[derive(Debug)]
struct Member {
    terms: Terms,
    owned: Partitions,
    /// The partition that was tried last: the next one has its turn.
    last: Option<u32>,
}

/// A member as it is seen from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) name: Option<String>,
    /// The partitions it owns, lowest first.
    pub(crate) owned: Vec<u32>,
    /// Those it will own, once nothing of them is in flight.
    pub(crate) awaited: Vec<u32>,
    /// Batches in flight of the partitions that it owns.
    pub(crate) in_flight: usize,
}

#[derive(Debug)]
struct Share {
    owner: Option<MemberId>,
    heir: Option<MemberId>,
    progress: Progress,
    paused: bool,
    /// It is left alone for a while, after a failure.
    resting: bool,
    /// The position is to be asked for: the owner is new, or a batch came back.
    load: bool,
    /// The fetch that may still end well.
    fetch: Option<u64>,
    /// All that is there was looked at, and its keys are in flight.
    blocked: Option<Blocked>,
    /// The fetch since whose beginning nothing was settled, dropped or sought: what it saw is still so.
    unchanged: Option<u64>,
}

/// Until when there is nothing to choose from, if nothing that is in flight is settled or dropped.
#[derive(Debug, Clone, Copy)]
enum Blocked {
    /// Until there are records behind this offset.
    Until(u64),
    /// As much as may be looked at has been.
    Full,
}

impl Share {
    fn new(at: u64) -> Self {
        Self {
            owner: None,
            heir: None,
            progress: Progress::new(at),
            paused: false,
            resting: false,
            load: true,
            fetch: None,
            blocked: None,
            unchanged: None,
        }
    }

    /// Whether this member may be given something now.
    #[inline]
    fn serves(&self, member: MemberId, terms: &Terms) -> bool {
        self.owner == Some(member)
            && self.heir == self.owner
            && !self.paused
            && !self.resting
            && (self.progress.is_idle() || !terms.one_at_a_time())
    }

    fn disown(&mut self) {
        self.owner = None;
        self.paused = false;
        self.resting = false;
        self.fetch = None;
        self.blocked = None;
    }
}

/// A group on one log.
///
/// After every call that takes `&mut self` a member that waits for records may have something to fetch, and
/// [`next_deadline`](Self::next_deadline) may have changed.
#[derive(Debug)]
pub(crate) struct Group {
    generation: u64,
    members: BTreeMap<MemberId, Member>,
    shares: Vec<Share>,
    /// The partitions where something waits to be delivered again.
    dropped: Partitions,
    /// The partitions where something in flight has a deadline.
    timed: Partitions,
    /// What was committed with batches that were settled above the floor.
    ahead: Ahead,
    next_member: u64,
    next_fetch: u64,
}

impl Group {
    /// A group without members, whose partitions go on at these positions.
    pub(crate) fn new(positions: impl IntoIterator<Item = u64>) -> Self {
        Self {
            generation: 0,
            members: BTreeMap::new(),
            shares: positions.into_iter().map(Share::new).collect(),
            dropped: Partitions::default(),
            timed: Partitions::default(),
            ahead: Ahead::default(),
            next_member: 0,
            next_fetch: 0,
        }
    }

    /// Counts the changes of membership and of the number of partitions.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// A member comes in, and gets its share as far as nothing of it is in flight.
    pub(crate) fn join(&mut self, terms: impl Into<Terms>) -> MemberId {
        let id = MemberId(self.next_member);
        self.next_member += 1;
        self.members.insert(id, Member { terms: terms.into(), owned: Partitions::default(), last: None });
        self.rebalance();
        id
    }

    /// A member goes. Its batches in flight stay known, and their partitions wait for them.
    pub(crate) fn leave(&mut self, member: MemberId) {
        let Some(gone) = self.members.remove(&member) else { return };
        for partition in gone.owned.as_slice() {
            if let Some(share) = self.share_mut(*partition) {
                share.disown();
            }
        }
        self.rebalance();
    }

    /// The log has more partitions now; the new ones begin at 0.
    pub(crate) fn grow(&mut self, partitions: u32) {
        if partitions as usize > self.shares.len() {
            self.shares.resize_with(partitions as usize, || Share::new(0));
            self.rebalance();
        }
    }

    /// How many partitions are known.
    #[inline]
    pub(crate) fn partitions(&self) -> usize {
        self.shares.len()
    }

    /// The partitions a member owns now, lowest first.
    pub(crate) fn owned(&self, member: MemberId) -> Vec<u32> {
        self.members.get(&member).map(|member| member.owned.as_slice().to_vec()).unwrap_or_default()
    }

    /// The members, in the order of joining.
    pub(crate) fn look(&self) -> Vec<Seen> {
        let seen = |(id, member): (&MemberId, &Member)| {
            let shares = || (0_u32..).zip(&self.shares);
            let owns = |share: &Share| share.owner == Some(*id);
            let waits = |share: &Share| share.heir == Some(*id) && !owns(share);
            Seen {
                name: member.terms.name.clone(),
                owned: member.owned.as_slice().to_vec(),
                awaited: shares().filter(|(_, share)| waits(share)).map(|(partition, _)| partition).collect(),
                in_flight: self.in_flight_of(member),
            }
        };
        self.members.iter().map(seen).collect()
    }

    /// Whether a member owns a partition now.
    pub(crate) fn owns(&self, member: MemberId, partition: u32) -> bool {
        self.share(partition).is_some_and(|share| share.owner == Some(member))
    }

    /// Members and batches in flight: what keeps a group from being reset.
    pub(crate) fn active(&self) -> usize {
        self.members.len() + self.shares.iter().map(|share| share.progress.in_flight()).sum::<usize>()
    }

    /// Whether nobody is left and nothing is in flight, so that the state can be forgotten.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.shares.iter().all(|share| share.progress.is_idle())
    }

    /// The next offset to be delivered.
    pub(crate) fn position(&self, partition: u32) -> Option<u64> {
        self.share(partition).map(|share| share.progress.position())
    }

    /// All offsets that are to be delivered, whether there are records yet or not.
    pub(crate) fn undelivered(&self, partition: u32) -> Vec<Range<u64>> {
        self.share(partition).map(|share| share.progress.undelivered().collect()).unwrap_or_default()
    }

    /// The next offset to be committed.
    #[cfg(test)]
    pub(crate) fn floor(&self, partition: u32) -> Option<u64> {
        self.share(partition).map(|share| share.progress.floor())
    }

    /// Chooses what a member reads next and gives leave to read it; `None` when there is nothing for it.
    ///
    /// Partitions with dropped batches come first, then each partition has its turn. `ready` says whether a partition
    /// has anything at or behind a position; it is not asked where the application has to be asked for the position.
    pub(crate) fn begin_fetch(&mut self, member: MemberId, ready: impl FnMut(u32, u64) -> bool) -> Option<Fetch> {
        let partition = self.choose(member, ready)?;
        let joined = self.members.get_mut(&member)?;
        joined.last = Some(partition);
        let (load, by_key) = (joined.terms.mode == Mode::ExactlyOnceFrom, joined.terms.by_key);
        let number = self.next_fetch;
        self.next_fetch += 1;
        let share = self.share_mut(partition)?;
        share.fetch = Some(number);
        share.unchanged = Some(number);
        let sight = by_key.then(|| Box::new(share.progress.sight()));
        let Wanted { from, until } = share.progress.next_fetch();
        Some(Fetch { partition, from, until, load: load && share.load, sight, member, number })
    }

    /// The application has said where the partition goes on: the fetch does, unless it is stale.
    pub(crate) fn loaded(&mut self, fetch: Fetch, position: u64) -> Option<Fetch> {
        let share = self.current(&fetch)?;
        share.progress.seek(position, Overtaken::Fenced);
        share.load = false;
        self.touched(fetch.partition);
        Some(Fetch { from: position, until: None, load: false, ..fetch })
    }

    /// Hands out what was read. `None` when the fetch is stale: then nothing of it may be handed out.
    #[expect(clippy::needless_pass_by_value, reason = "a fetch is used up")]
    pub(crate) fn end_fetch(&mut self, fetch: Fetch, fetched: Fetched) -> Option<Delivered> {
        let settled = self.members.get(&fetch.member)?.terms.mode == Mode::AtMostOnce;
        let share = self.current(&fetch)?;
        share.fetch = None;
        let within = |end: u64| fetch.until.is_none_or(|until| end <= until);
        let mut blocked = None;
        let (batch, floor) = match fetched {
            Fetched::Records { end, deadline } if !settled => {
                debug_assert!(within(end), "what follows a dropped range has its own owner");
                (Some(share.progress.delivered(fetch.from..end, deadline)), None)
            }
            Fetched::Records { end, .. } | Fetched::Gap { end } => {
                debug_assert!(within(end), "what follows a dropped range has its own owner");
                (None, share.progress.pass(fetch.from..end))
            }
            Fetched::Picked { picked, deadline } => {
                let now = if picked.open { Blocked::Until(picked.reached) } else { Blocked::Full };
                let batch = share.progress.delivered_keyed(*picked, deadline);
                blocked = (batch.is_none() && share.unchanged == Some(fetch.number)).then_some(now);
                (batch, None)
            }
        };
        self.touched(fetch.partition);
        if let Some(share) = self.share_mut(fetch.partition) {
            share.blocked = blocked;
        }
        Some(Delivered { batch, floor })
    }

    /// Whether what a fetch reads could still be handed out.
    #[inline]
    pub(crate) fn is_current(&self, fetch: &Fetch) -> bool {
        self.members.get(&fetch.member).filter(|member| self.has_room(member)).is_some_and(|member| {
            self.share(fetch.partition)
                .is_some_and(|share| share.fetch == Some(fetch.number) && share.serves(fetch.member, &member.terms))
        })
    }

    /// What [`settle`](Self::settle) would answer; changes nothing.
    #[inline]
    pub(crate) fn settles_to(&self, partition: u32, batch: BatchId) -> Result<Option<u64>> {
        self.share(partition).ok_or_else(|| Error::Fenced)?.progress.settles_to(batch)
    }

    /// A transaction is about to decide on a batch: until it is settled or dropped, hand-over waits for it whatever its
    /// deadline, and no seek fences it.
    pub(crate) fn commit_begins(&mut self, partition: u32, batch: BatchId) -> Result<()> {
        self.share_mut(partition).ok_or_else(|| Error::Fenced)?.progress.commit_begins(batch)?;
        self.touched(partition);
        Ok(())
    }

    /// A batch has been processed. Answers the new floor if it moved; `Fenced`, with nothing changed, when the batch is
    /// no longer in flight: it was taken back, or fenced by a seek.
    pub(crate) fn settle(&mut self, partition: u32, batch: BatchId) -> Result<Option<u64>> {
        let floor = self.share_mut(partition).ok_or_else(|| Error::Fenced)?.progress.settle(batch)?;
        self.touched(partition);
        Ok(floor)
    }

    /// What was committed with batches that were settled above the floor.
    #[inline]
    pub(crate) fn ahead(&mut self) -> &mut Ahead {
        &mut self.ahead
    }

    /// A batch was dropped unsettled: it is delivered again, if it was still in flight.
    pub(crate) fn drop_batch(&mut self, partition: u32, batch: BatchId) {
        if let Some(share) = self.share_mut(partition)
            && share.progress.drop_batch(batch)
        {
            share.load = true;
            self.touched(partition);
        }
    }

    /// A batch is given back from this offset on, to be delivered again. Answers whether it has anything left; if not, it
    /// is no longer in flight. `Fenced`, with nothing changed, when it was not.
    pub(crate) fn give_back(&mut self, partition: u32, batch: BatchId, from: u64) -> Result<bool> {
        let share = self.share_mut(partition).ok_or_else(|| Error::Fenced)?;
        let left = share.progress.give_back(batch, from)?;
        share.load = true;
        self.touched(partition);
        Ok(left)
    }

    /// Takes back the batches whose deadline has come. Answers whether there were any.
    pub(crate) fn expire(&mut self, now: Duration) -> bool {
        let late = |share: &Share| share.progress.next_deadline().is_some_and(|deadline| deadline <= now);
        let due: Vec<u32> = self
            .timed
            .as_slice()
            .iter()
            .copied()
            .filter(|partition| self.share(*partition).is_some_and(late))
            .collect();
        for partition in &due {
            if let Some(share) = self.share_mut(*partition) {
                share.progress.expire(now);
                share.load = true;
            }
            self.touched(*partition);
        }
        !due.is_empty()
    }

    /// When the next batch is to be taken back.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.timed.as_slice().iter().filter_map(|partition| self.share(*partition)?.progress.next_deadline()).min()
    }

    /// Lets a partition go on at another position. `Fenced` when it is not this member's.
    ///
    /// Batches in flight from before can still be settled in the modes that may repeat, and are fenced in the others.
    pub(crate) fn seek(&mut self, member: MemberId, partition: u32, to: u64) -> Result<()> {
        let overtaken = self.members.get(&member).ok_or_else(|| Error::Fenced)?.terms.mode.overtaken();
        let share = self.owned_mut(member, partition)?;
        share.progress.seek(to, overtaken);
        share.fetch = None;
        share.load = false;
        self.touched(partition);
        Ok(())
    }

    /// Gives a member nothing of a partition until it [resumes](Self::resume) or the partition has another owner.
    /// `Fenced` when it is not this member's.
    pub(crate) fn pause(&mut self, member: MemberId, partition: u32) -> Result<()> {
        let share = self.owned_mut(member, partition)?;
        share.paused = true;
        share.fetch = None;
        Ok(())
    }

    /// Ends a pause. `Fenced` when the partition is not this member's.
    pub(crate) fn resume(&mut self, member: MemberId, partition: u32) -> Result<()> {
        self.owned_mut(member, partition)?.paused = false;
        Ok(())
    }

    /// Leaves a partition alone, or ends that. One that is not this member's is none of its business.
    pub(crate) fn set_resting(&mut self, member: MemberId, partition: u32, resting: bool) {
        if let Ok(share) = self.owned_mut(member, partition) {
            share.resting = resting;
        }
    }

    #[inline]
    fn share(&self, partition: u32) -> Option<&Share> {
        self.shares.get(partition as usize)
    }

    #[inline]
    fn share_mut(&mut self, partition: u32) -> Option<&mut Share> {
        self.shares.get_mut(partition as usize)
    }

    fn owned_mut(&mut self, member: MemberId, partition: u32) -> Result<&mut Share> {
        self.share_mut(partition).filter(|share| share.owner == Some(member)).ok_or_else(|| Error::Fenced)
    }

    #[inline]
    fn current(&mut self, fetch: &Fetch) -> Option<&mut Share> {
        if self.is_current(fetch) { self.share_mut(fetch.partition) } else { None }
    }

    fn choose(&self, id: MemberId, mut ready: impl FnMut(u32, u64) -> bool) -> Option<u32> {
        let member = self.members.get(&id)?;
        let mode = member.terms.mode;
        if !self.has_room(member) {
            return None;
        }
        let serves = |partition: u32| self.share(partition).filter(|share| share.serves(id, &member.terms));
        let free = |share: &Share| !member.terms.by_key || share.blocked.is_none();
        let dropped = if self.dropped.as_slice().is_empty() {
            None
        } else {
            self.dropped.in_turn(member.last).find(|partition| serves(*partition).is_some_and(free))
        };
        dropped.or_else(|| {
            member.owned.in_turn(member.last).find(|partition| {
                serves(*partition).is_some_and(|share| match share.blocked.filter(|_| member.terms.by_key) {
                    Some(Blocked::Full) => false,
                    Some(Blocked::Until(end)) => ready(*partition, end),
                    None => {
                        (mode == Mode::ExactlyOnceFrom && share.load) || ready(*partition, share.progress.position())
                    }
                })
            })
        })
    }

    /// Whether a member may have one more batch in flight.
    #[inline]
    fn has_room(&self, member: &Member) -> bool {
        member.terms.max_in_flight == usize::MAX || self.in_flight_of(member) < member.terms.max_in_flight
    }

    /// Batches in flight of the partitions that a member owns: all of them are its own.
    fn in_flight_of(&self, member: &Member) -> usize {
        let in_flight = |partition: &u32| self.share(*partition).map_or(0, |share| share.progress.in_flight());
        member.owned.as_slice().iter().map(in_flight).sum()
    }

    fn rebalance(&mut self) {
        self.generation += 1;
        let members: Vec<MemberId> = self.members.keys().copied().collect();
        let held: Vec<Option<MemberId>> = self.shares.iter().map(|share| share.owner).collect();
        for ((partition, share), heir) in (0..).zip(&mut self.shares).zip(assign(&members, &held)) {
            share.heir = heir;
            hand_over(partition, share, &mut self.members);
        }
    }

    /// Draws the consequences of what has changed in a partition.
    #[inline]
    fn touched(&mut self, partition: u32) {
        let Some(share) = self.shares.get_mut(partition as usize) else { return };
        share.blocked = None;
        share.unchanged = None;
        self.dropped.keep(partition, share.progress.has_dropped());
        self.timed.keep(partition, share.progress.next_deadline().is_some());
        hand_over(partition, share, &mut self.members);
    }
}

/// Gives a partition to its heir, if that is another than its owner and nothing is in flight.
#[inline]
fn hand_over(partition: u32, share: &mut Share, members: &mut BTreeMap<MemberId, Member>) {
    if share.owner == share.heir || !share.progress.is_idle() {
        return;
    }
    if let Some(owner) = share.owner.and_then(|owner| members.get_mut(&owner)) {
        owner.owned.remove(partition);
    }
    share.disown();
    if let Some(heir) = share.heir.and_then(|heir| members.get_mut(&heir)) {
        heir.owned.insert(partition);
        share.owner = share.heir;
        share.load = true;
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

//! A group on a log, as its consumers and batches share it: settlement, and the placemarks that follow from it.

use std::sync::Arc;

use crate::consumer::Choices;
use crate::consumer::batch::Culprit;
use crate::format::Metadata;
use crate::group::{BatchId, Group as Members, GroupState, MemberId, Terms};
use crate::journal::Move;
use crate::partition::lock;
use crate::placemarks::{Commit, Noted, PlacemarkKey};
use crate::store::{LogCore, StoreCore};
use crate::sync::MutexGuard;
use crate::types::Millis;
use crate::{Error, Result, StartAt};

/// A group on a log.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) store: Arc<StoreCore>,
    pub(crate) log: Arc<LogCore>,
    pub(crate) group: Arc<GroupState>,
}

impl Subscription {
    /// Joins a group, which is made known to the store, with its starting points, when it is not.
    pub(crate) fn join(
        store: &Arc<StoreCore>,
        log: &Arc<LogCore>,
        name: &str,
        member: Option<String>,
        choices: &Choices,
    ) -> Result<(Self, MemberId)> {
        // Held over the join, so that two consumers of a new group fix its start once, and no reset comes between.
        let mut registry = lock(log.groups());
        log.check_exists()?;
        let group = match registry.get(name) {
            Some(group) => group,
            // Of a log that is deleted at this moment.
            None => Arc::new(load(store, log, name, choices).map_err(|error| match error {
                Error::Fenced => log.gone(),
                other => log.explain(other),
            })?),
        };
        registry.insert(&group);
        let subscription = Self { store: Arc::clone(store), log: Arc::clone(log), group };
        subscription.follow_growth();
        let member = subscription.group.members().join(Terms {
            mode: choices.mode,
            name: member,
            max_in_flight: choices.max_in_flight.unwrap_or(usize::MAX),
            by_key: choices.by_key,
            one_at_a_time: choices.counted,
        });
        drop(registry);
        log.signal().notify();
        Ok((subscription, member))
    }

    #[inline]
    pub(crate) fn key(&self, partition: u32) -> PlacemarkKey {
        PlacemarkKey { group: self.group.id, log: self.log.id(), partition }
    }

    /// The group, with what was held past its processing timeout taken back.
    pub(super) fn members(&self) -> MutexGuard<'_, Members> {
        let mut members = self.group.members();
        if members.next_deadline().is_some() && members.expire(self.group.now()) {
            self.log.signal().notify();
        }
        members
    }

    /// Takes in partitions that were added to the log: the group reads them from their first record.
    pub(crate) fn follow_growth(&self) {
        let mut members = self.group.members();
        let grown = self.take_in_growth(&mut members);
        drop(members);
        if grown {
            self.log.signal().notify();
        }
    }

    /// The same; whether there were any, which the others are to be told of.
    #[inline]
    pub(super) fn take_in_growth(&self, members: &mut Members) -> bool {
        let count = self.log.partition_count();
        let grown = members.partitions() < count as usize;
        if grown {
            members.grow(count);
        }
        grown
    }

    /// Settles a batch that ends here, and moves the placemark when the gapless prefix has grown. On return it is as
    /// durable as the store's durability says. Of a failed commit nothing is seen.
    pub(crate) fn settle(&self, partition: u32, batch: BatchId, end: u64, metadata: Option<Metadata>) -> Result<()> {
        let mut members = self.members();
        let commit = self.settle_in(&mut members, partition, batch, end, metadata)?;
        drop(members);
        self.log.signal().notify();
        if let Some(commit) = commit {
            commit.wait()?;
        }
        self.store.env().background.lend_a_hand();
        Ok(())
    }

    /// Appended under the group's lock, so that placemarks are written in the order in which they move; to be waited for
    /// without it, so that many threads share one sync.
    fn settle_in(
        &self,
        members: &mut Members,
        partition: u32,
        batch: BatchId,
        end: u64,
        metadata: Option<Metadata>,
    ) -> Result<Option<Commit<'_>>> {
        let floor = members.settles_to(partition, batch)?;
        let metadata = members.ahead().settle(partition, end, metadata, floor);
        let side = self.store.side();
        let commit = match floor {
            Some(floor) => Some(side.commit(self.key(partition), floor, metadata)?),
            // Nothing is written, and yet nothing is to be acknowledged after a failure.
            None => side.check_usable().map(|()| None)?,
        };
        members.settle(partition, batch)?;
        Ok(commit)
    }

    /// Settles what a batch has before the record that failed, gives the rest back, and counts the attempt: in one, so
    /// that no one gets that record before.
    pub(super) fn fail(&self, partition: u32, batch: BatchId, culprit: &Culprit) -> Result<()> {
        let mut members = self.members();
        let left = members.give_back(partition, batch, culprit.offset)?;
        let commit = if left { self.settle_in(&mut members, partition, batch, culprit.offset, None)? } else { None };
        let side = self.store.side();
        if !left {
            // Nothing is written, and yet nothing is to be acknowledged after a failure.
            side.check_usable()?;
        }
        let noted = culprit.counts.then(|| side.note_trial(self.key(partition), |version| culprit.trial(version)));
        drop(members);
        self.log.signal().notify();
        commit.map_or(Ok(()), Commit::wait)?;
        noted.map_or(Ok(()), |noted| noted.and_then(Noted::wait))
    }

    /// Gives a batch back from this offset on; whether anything is left of it.
    pub(crate) fn give_back(&self, partition: u32, batch: BatchId, from: u64) -> Result<bool> {
        let left = self.members().give_back(partition, batch, from);
        self.log.signal().notify();
        left
    }

    /// What the application committed with the placemark in a partition.
    pub(crate) fn metadata(&self, partition: u32) -> Option<Metadata> {
        self.store.side().placemark(self.key(partition))?.metadata
    }

    /// Where the group began in a partition.
    pub(crate) fn began_at(&self, partition: u32) -> u64 {
        self.store.side().start(self.key(partition)).unwrap_or(0)
    }

    /// Keeps a batch that ends here from being taken back while a transaction commits it, and says how the placemark
    /// moves with it: over what other members have settled behind it too. `Fenced` where it would not move, since what is
    /// before the batch is not settled: a placemark never passes that.
    pub(crate) fn begin_commit(
        &self,
        partition: u32,
        batch: BatchId,
        end: u64,
        metadata: Option<Metadata>,
    ) -> Result<Move> {
        let mut members = self.members();
        let floor = members.settles_to(partition, batch)?.ok_or(Error::Fenced)?;
        members.commit_begins(partition, batch)?;
        let metadata = members.ahead().would_settle(partition, end, metadata, floor);
        Ok(Move { key: self.key(partition), offset: floor, metadata })
    }

    /// A transaction has moved the placemark with its results.
    pub(crate) fn committed(&self, partition: u32, batch: BatchId) -> Result<()> {
        let mut members = self.group.members();
        let settled = members.settle(partition, batch);
        if let Ok(Some(floor)) = settled {
            members.ahead().forget_below(partition, floor);
        }
        drop(members);
        self.log.signal().notify();
        settled.map(|_| ())
    }

    /// A batch was dropped unsettled: it is delivered again.
    pub(crate) fn drop_batch(&self, partition: u32, batch: BatchId) {
        self.group.members().drop_batch(partition, batch);
        self.log.signal().notify();
    }
}

/// Where a group is in a partition: at its placemark, else where it started, else, in a partition that came later, at
/// the first record.
fn floor(store: &StoreCore, key: PlacemarkKey) -> u64 {
    let placemark = store.side().placemark(key).map(|placemark| placemark.offset);
    placemark.or_else(|| store.side().start(key)).unwrap_or(0)
}

fn load(store: &Arc<StoreCore>, log: &Arc<LogCore>, name: &str, choices: &Choices) -> Result<GroupState> {
    let side = store.side();
    let known = side.known_group(log.id(), name);
    let begun = known.is_some_and(|id| !side.placemarks_of(id).is_empty() || !side.starts_of(id).is_empty());
    let id = if begun {
        side.group_id(log.id(), name)?
    } else if choices.existing {
        return Err(Error::NoSuchGroup { group: name.to_owned(), log: Some(log.name().to_owned()) });
    } else {
        // What cannot be is refused before the group is made known.
        let starts: Vec<u64> =
            log.partitions().iter().map(|partition| resolve(partition, choices.start_at)).collect::<Result<_>>()?;
        let id = side.group_id(log.id(), name)?;
        let key = |partition| PlacemarkKey { group: id, log: log.id(), partition };
        let starts: Vec<(PlacemarkKey, u64)> =
            (0..).zip(starts).map(|(partition, start)| (key(partition), start)).collect();
        side.set_starts(&starts)?;
        id
    };
    let floors =
        (0..log.partition_count()).map(|partition| floor(store, PlacemarkKey { group: id, log: log.id(), partition }));
    Ok(GroupState::new(id, name, floors))
}

/// The offset that a starting point means in a partition now.
pub(crate) fn resolve(partition: &Arc<crate::partition::PartitionCore>, at: StartAt) -> Result<u64> {
    match at {
        StartAt::Earliest => Ok(partition.start()),
        StartAt::Latest => Ok(partition.end()),
        StartAt::Offset(offset) => partition.check_offset(offset).map(|()| offset),
        StartAt::Time(time) => partition.offset_at_time(Millis::searched(time)),
    }
}

/// Why an assignment was asked of that has ended, or never was.
pub(crate) fn not_assigned(partition: u32) -> Error {
    Error::option("partition", format!("{partition} is not assigned to this consumer now"))
}

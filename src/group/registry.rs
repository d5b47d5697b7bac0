//! The groups of a log that have members, or batches in flight, now.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::format::Metadata;
use crate::group::Group;
use crate::partition::lock;
use crate::storage::Stopwatch;
use crate::sync::{Mutex, MutexGuard};
use crate::types::GroupId;

/// One group on one log.
#[derive(Debug)]
pub(crate) struct GroupState {
    pub(crate) id: GroupId,
    pub(crate) name: String,
    /// Who reads what, and how far. Locks of the side log are taken under it, none of a partition's.
    members: Mutex<Group>,
    clock: Stopwatch,
    /// Batches that were settled above the floor, and what was committed with each, by partition and end. Changed under the
    /// lock of the members, as `reasons` are not.
    ahead: Mutex<BTreeMap<(u32, u64), Option<Metadata>>>,
    /// Why a record failed last, by partition, where attempts are counted. Held for moments.
    reasons: Mutex<BTreeMap<u32, (u64, String)>>,
}

impl GroupState {
    pub(crate) fn new(id: GroupId, name: &str, floors: impl IntoIterator<Item = u64>) -> Self {
        Self {
            id,
            name: name.to_owned(),
            members: Mutex::new(Group::new(floors)),
            clock: Stopwatch::start(),
            ahead: Mutex::default(),
            reasons: Mutex::default(),
        }
    }

    pub(crate) fn members(&self) -> MutexGuard<'_, Group> {
        lock(&self.members)
    }

    /// The metadata for the placemark once a batch is settled that ends here, if the floor moves: those of the last batch
    /// below it. Behind that batch are no records then, only offsets that have none. What a batch above the floor has is
    /// kept until the floor comes there.
    pub(crate) fn metadata_at(
        &self,
        partition: u32,
        end: u64,
        metadata: Option<Metadata>,
        floor: Option<u64>,
    ) -> Option<Metadata> {
        let mut ahead = lock(&self.ahead);
        let below = (partition, 0)..=(partition, floor.unwrap_or(0));
        if floor.is_some_and(|floor| end <= floor) && ahead.range(below.clone()).all(|((_, other), _)| *other < end) {
            ahead.retain(|at, _| !below.contains(at));
            return metadata;
        }
        ahead.insert((partition, end), metadata);
        floor?;
        let mut last = None;
        while let Some(at) = ahead.range(below.clone()).next().map(|(at, _)| *at) {
            last = ahead.remove(&at);
        }
        last.flatten()
    }

    /// Forgets what was settled above the floor: it is read again.
    pub(crate) fn forget_ahead(&self, partition: u32) {
        lock(&self.ahead).retain(|(of, _), _| *of != partition);
    }

    /// Notes why a record has failed.
    pub(crate) fn set_reason(&self, partition: u32, offset: u64, reason: String) {
        lock(&self.reasons).insert(partition, (offset, reason));
    }

    /// Why a record has failed last, as far as that was seen.
    pub(crate) fn reason(&self, partition: u32, offset: u64) -> String {
        let reasons = lock(&self.reasons);
        let known = reasons.get(&partition).filter(|(at, _)| *at == offset).map(|(_, reason)| reason.clone());
        known.unwrap_or_else(|| "its process ended before it was settled".to_owned())
    }

    /// Time as deadlines of batches count it.
    pub(crate) fn now(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// Groups by their names. A group is here as long as a consumer or a batch of it lives; what it must remember beyond
/// that is in the side log.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    groups: BTreeMap<String, Weak<GroupState>>,
}

impl Registry {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<GroupState>> {
        self.groups.get(name).and_then(Weak::upgrade)
    }

    pub(crate) fn insert(&mut self, group: &Arc<GroupState>) {
        self.groups.retain(|_, known| known.strong_count() > 0);
        self.groups.insert(group.name.clone(), Arc::downgrade(group));
    }

    /// Members and orphaned batches of a group.
    pub(crate) fn active(&self, name: &str) -> usize {
        self.get(name).map_or(0, |group| group.members().active())
    }

    /// Forgets what is known of an inactive group: it has been changed in the side log.
    pub(crate) fn remove(&mut self, name: &str) {
        self.groups.remove(name);
    }
}

//! The groups of a log that have members, or batches in flight, now.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

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
            reasons: Mutex::default(),
        }
    }

    #[inline]
    pub(crate) fn members(&self) -> MutexGuard<'_, Group> {
        lock(&self.members)
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

    /// Members and orphaned batches of a group, those past their processing timeout left out.
    pub(crate) fn active(&self, name: &str) -> usize {
        let Some(group) = self.get(name) else { return 0 };
        let mut members = group.members();
        members.expire(group.now());
        members.active()
    }

    /// Forgets what is known of an inactive group: it has been changed in the side log.
    pub(crate) fn remove(&mut self, name: &str) {
        self.groups.remove(name);
    }
}

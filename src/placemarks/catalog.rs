//! The names that a store knows: of its logs, and of the groups of each log, with the numbers that stand for them.

mod producers;

use std::collections::BTreeMap;

use crate::placemarks::catalog::producers::Producers;
use crate::types::{GroupId, LogId, ProducerId};

/// What a name stands for, and where that was written last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<T> {
    pub(super) id: T,
    /// Offset of its newest record. A counter that was never written has that of some other record, which stays.
    pub(super) record: u64,
}

/// Names and counters. Numbers are never used again, so that what is left of something deleted means nothing.
#[derive(Debug)]
pub(super) struct Catalog {
    logs: BTreeMap<String, Named<LogId>>,
    groups: BTreeMap<LogId, BTreeMap<String, Named<GroupId>>>,
    /// The log of every group that there is.
    owners: BTreeMap<GroupId, LogId>,
    producers: BTreeMap<LogId, Producers>,
    pub(super) next_log: Named<LogId>,
    pub(super) next_group: Named<GroupId>,
    /// The next number for a producer.
    pub(super) next_producer: Named<u32>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            logs: BTreeMap::new(),
            groups: BTreeMap::new(),
            owners: BTreeMap::new(),
            producers: BTreeMap::new(),
            next_log: Named { id: LogId::FIRST_USER, record: 0 },
            next_group: Named { id: GroupId(1), record: 0 },
            next_producer: Named { id: 1, record: 0 },
        }
    }
}

impl Catalog {
    /// The offsets of the newest records of all that is known, in no order.
    pub(super) fn records(&self) -> impl Iterator<Item = u64> {
        let logs = self.logs.values().map(|named| named.record);
        let groups = self.groups.values().flat_map(BTreeMap::values).map(|named| named.record);
        let producers = self.producers.values().flat_map(Producers::records);
        let counters = [self.next_log.record, self.next_group.record, self.next_producer.record];
        logs.chain(groups).chain(producers).chain(counters)
    }

    pub(super) fn log(&self, name: &str) -> Option<Named<LogId>> {
        self.logs.get(name).copied()
    }

    pub(super) fn logs(&self) -> impl Iterator<Item = (&str, LogId)> {
        self.logs.iter().map(|(name, named)| (name.as_str(), named.id))
    }

    pub(super) fn name_of(&self, log: LogId) -> Option<&str> {
        self.logs().find(|(_, id)| *id == log).map(|(name, _)| name)
    }

    pub(super) fn set_log(&mut self, name: &str, id: LogId, record: u64) {
        self.logs.insert(name.to_owned(), Named { id, record });
        // A counter that was lost, to salvage or to a crash, must not give a number out twice.
        self.next_log.id = self.next_log.id.max(LogId(id.0.saturating_add(1)));
    }

    pub(super) fn remove_log(&mut self, name: &str) {
        self.logs.remove(name);
    }

    pub(super) fn group(&self, log: LogId, name: &str) -> Option<Named<GroupId>> {
        self.groups.get(&log)?.get(name).copied()
    }

    /// All groups, by log and name.
    pub(super) fn groups(&self) -> impl Iterator<Item = (LogId, &str, GroupId)> {
        self.groups.iter().flat_map(|(log, groups)| groups.iter().map(|(name, named)| (*log, name.as_str(), named.id)))
    }

    /// The groups of one log, by name.
    pub(super) fn groups_of(&self, log: LogId) -> impl Iterator<Item = (&str, GroupId)> {
        self.groups.get(&log).into_iter().flatten().map(|(name, named)| (name.as_str(), named.id))
    }

    /// The log of a group; `None` when it was deleted.
    pub(super) fn owner(&self, group: GroupId) -> Option<LogId> {
        self.owners.get(&group).copied()
    }

    pub(super) fn set_group(&mut self, log: LogId, name: &str, id: GroupId, record: u64) {
        let replaced = self.groups.entry(log).or_default().insert(name.to_owned(), Named { id, record });
        if let Some(replaced) = replaced {
            self.owners.remove(&replaced.id);
        }
        self.owners.insert(id, log);
        self.next_group.id = self.next_group.id.max(GroupId(id.0.saturating_add(1)));
    }

    pub(super) fn producer(&self, log: LogId, name: &str) -> Option<Named<ProducerId>> {
        self.producers.get(&log)?.get(name)
    }

    /// The names of the producers of one log.
    pub(super) fn producers_of(&self, log: LogId) -> impl Iterator<Item = &str> {
        self.producers.get(&log).into_iter().flat_map(Producers::names)
    }

    pub(super) fn set_producer(&mut self, log: LogId, name: &str, id: ProducerId, record: u64) {
        self.producers.entry(log).or_default().set(name, Named { id, record });
        self.next_producer.id = self.next_producer.id.max(id.number.saturating_add(1));
    }

    pub(super) fn remove_producer(&mut self, log: LogId, name: &str) {
        let Some(producers) = self.producers.get_mut(&log) else { return };
        producers.remove(name);
        if producers.is_empty() {
            self.producers.remove(&log);
        }
    }

    pub(super) fn remove_group(&mut self, log: LogId, name: &str) {
        let Some(groups) = self.groups.get_mut(&log) else { return };
        if let Some(removed) = groups.remove(name) {
            self.owners.remove(&removed.id);
        }
        if groups.is_empty() {
            self.groups.remove(&log);
        }
    }
}

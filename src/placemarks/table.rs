//! What the side log says, in memory: for every key what holds now, and which record says so.

use std::collections::BTreeMap;

use crate::broken::broken;
use crate::format::{Metadata, SideKey, SideValue, Trial};
use crate::placemarks::catalog::Catalog;
use crate::types::{GroupId, LogId, Millis};

/// Whose placemark: a group's, in one partition of one log.
///
/// In this order, so that the placemarks of a group stand together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlacemarkKey {
    pub(crate) group: GroupId,
    pub(crate) log: LogId,
    pub(crate) partition: u32,
}

/// The next offset that a group will read in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placemark {
    pub(crate) offset: u64,
    /// Grows with each commit of the key, from 1: of two records that are replayed in any order the newer one holds.
    pub(crate) version: u64,
    pub(crate) committed_at: Millis,
    /// Bytes of the application's own.
    pub(crate) metadata: Option<Metadata>,
}

impl Placemark {
    /// What the side log says of it.
    pub(super) fn value(&self, version: u64) -> SideValue {
        SideValue::Placemark { offset: self.offset, version, metadata: self.metadata.clone() }
    }
}

/// What is known of one placemark.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// What was committed last; its version is 0 as long as nothing was.
    shown: Placemark,
    /// The highest version that was given out.
    assigned: u64,
    /// The highest version that has a record.
    written: u64,
    /// Offset of that record.
    record: u64,
}

impl Slot {
    const EMPTY: Self = Self {
        shown: Placemark { offset: 0, version: 0, committed_at: Millis(0), metadata: None },
        assigned: 0,
        written: 0,
        record: 0,
    };

    /// The version that the next commit has.
    pub(super) fn assign(&mut self) -> u64 {
        self.assigned += 1;
        self.assigned
    }

    /// Whether a version is newer than all that have a record.
    pub(super) fn is_older_than(&self, version: u64) -> bool {
        version > self.written || broken("versions ignored")
    }

    /// A placemark has been written, which does not show it yet.
    pub(super) fn wrote(&mut self, version: u64, record: u64) {
        self.assigned = self.assigned.max(version);
        if version > self.written {
            self.written = version;
            self.record = record;
        }
    }

    /// A placemark is as durable as it is to be.
    pub(super) fn show(&mut self, placemark: Placemark) {
        if placemark.version > self.shown.version || broken("versions ignored") {
            self.shown = placemark;
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Start {
    offset: u64,
    /// Offset of its newest record.
    record: u64,
}

/// What was tried last in a partition.
#[derive(Debug, Clone, Copy)]
struct Tried {
    trial: Trial,
    /// Offset of its record.
    record: u64,
}

/// A record as it is appended, in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
}

/// The state.
#[derive(Debug, Default)]
pub(super) struct Table {
    placemarks: BTreeMap<PlacemarkKey, Slot>,
    starts: BTreeMap<PlacemarkKey, Start>,
    trials: BTreeMap<PlacemarkKey, Tried>,
    /// Offsets of the records of kinds that this version does not know, which are kept.
    unknown: Vec<u64>,
    pub(super) catalog: Catalog,
    pub(super) buffers: Buffers,
}

impl Table {
    /// Takes in a record of a kind that this version does not know.
    pub(super) fn take_unknown(&mut self, record: u64) {
        self.unknown.push(record);
    }

    /// Takes in one record, as it is loaded or has been written; `value` is `None` for a tombstone. Values that this
    /// version does not know are skipped.
    pub(super) fn take(&mut self, key: &SideKey, value: Option<&[u8]>, record: u64, time: Millis) {
        match value {
            Some(value) => self.put(key, value, record, time),
            None => self.remove(key),
        }
    }

    fn put(&mut self, key: &SideKey, value: &[u8], record: u64, time: Millis) {
        match (key, SideValue::decode(key, value)) {
            (
                SideKey::Placemark { group, log, partition },
                Some(SideValue::Placemark { offset, version, metadata }),
            ) => {
                let key = PlacemarkKey { group: *group, log: *log, partition: *partition };
                let placemark = Placemark { offset, version, committed_at: time, metadata };
                let slot = self.slot(key);
                slot.wrote(version, record);
                slot.show(placemark);
            }
            (SideKey::Start { group, log, partition }, Some(SideValue::Number(offset))) => {
                let key = PlacemarkKey { group: *group, log: *log, partition: *partition };
                self.starts.insert(key, Start { offset, record });
            }
            (SideKey::Trial { group, log, partition }, Some(SideValue::Trial(trial))) => {
                self.tries(PlacemarkKey { group: *group, log: *log, partition: *partition }, trial, record);
            }
            (SideKey::Log { name }, Some(SideValue::Number(id))) => {
                self.catalog.set_log(name, LogId(small(id)), record);
            }
            (SideKey::Group { log, name }, Some(SideValue::Number(id))) => {
                self.catalog.set_group(*log, name, GroupId(small(id)), record);
            }
            (SideKey::Producer { log, name }, Some(SideValue::Producer(id))) => {
                self.catalog.set_producer(*log, name, id, record);
            }
            (SideKey::NextProducer, Some(SideValue::Number(id))) => {
                let next = &mut self.catalog.next_producer;
                next.id = next.id.max(small(id));
                next.record = record;
            }
            (SideKey::NextLog, Some(SideValue::Number(id))) => {
                let next = &mut self.catalog.next_log;
                next.id = next.id.max(LogId(small(id)));
                next.record = record;
            }
            (SideKey::NextGroup, Some(SideValue::Number(id))) => {
                let next = &mut self.catalog.next_group;
                next.id = next.id.max(GroupId(small(id)));
                next.record = record;
            }
            _ => {}
        }
    }

    fn remove(&mut self, key: &SideKey) {
        match key {
            SideKey::Placemark { group, log, partition } => {
                self.placemarks.remove(&PlacemarkKey { group: *group, log: *log, partition: *partition });
            }
            SideKey::Start { group, log, partition } => {
                self.starts.remove(&PlacemarkKey { group: *group, log: *log, partition: *partition });
            }
            SideKey::Trial { group, log, partition } => {
                self.trials.remove(&PlacemarkKey { group: *group, log: *log, partition: *partition });
            }
            SideKey::Log { name } => self.catalog.remove_log(name),
            SideKey::Group { log, name } => self.catalog.remove_group(*log, name),
            SideKey::Producer { log, name } => self.catalog.remove_producer(*log, name),
            // Counters are never removed.
            SideKey::NextLog | SideKey::NextGroup | SideKey::NextProducer => {}
        }
    }

    /// The offsets of the records that count, in no order, for compaction: of all keys the newest.
    pub(super) fn newest(&self) -> Vec<u64> {
        let placemarks = self.placemarks.values().filter(|slot| slot.written > 0).map(|slot| slot.record);
        let starts = self.starts.values().map(|start| start.record);
        let trials = self.trials.values().map(|tried| tried.record);
        let unknown = self.unknown.iter().copied();
        placemarks.chain(starts).chain(trials).chain(unknown).chain(self.catalog.records()).collect()
    }

    /// The version that the next commit of a key has.
    pub(super) fn assign(&mut self, key: PlacemarkKey) -> u64 {
        self.slot(key).assign()
    }

    /// What is known of the placemark of a group, and memory to write it; `None` when there is no such group on the log
    /// any more.
    pub(super) fn slot_of_group(&mut self, key: PlacemarkKey) -> Option<(&mut Slot, &mut Buffers)> {
        self.has_group(key).then(|| (self.placemarks.entry(key).or_insert(Slot::EMPTY), &mut self.buffers))
    }

    /// Whether the group is there, on that log.
    pub(super) fn has_group(&self, key: PlacemarkKey) -> bool {
        self.catalog.owner(key.group) == Some(key.log)
    }

    fn slot(&mut self, key: PlacemarkKey) -> &mut Slot {
        self.placemarks.entry(key).or_insert(Slot::EMPTY)
    }

    /// A placemark is as durable as it is to be. One whose key was removed meanwhile stays removed.
    pub(super) fn show(&mut self, key: PlacemarkKey, placemark: Placemark) {
        if let Some(slot) = self.placemarks.get_mut(&key) {
            slot.show(placemark);
        }
    }

    pub(super) fn placemark(&self, key: PlacemarkKey) -> Option<Placemark> {
        self.placemarks.get(&key).map(|slot| &slot.shown).filter(|shown| shown.version > 0).cloned()
    }

    /// The version of a key's newest record, 0 where it has none.
    pub(super) fn version(&self, key: PlacemarkKey) -> u64 {
        self.placemarks.get(&key).map_or(0, |slot| slot.written)
    }

    /// A trial has been written.
    pub(super) fn tries(&mut self, key: PlacemarkKey, trial: Trial, record: u64) {
        self.trials.insert(key, Tried { trial, record });
    }

    pub(super) fn trial(&self, key: PlacemarkKey) -> Option<Trial> {
        self.trials.get(&key).map(|tried| tried.trial)
    }

    pub(super) fn start(&self, key: PlacemarkKey) -> Option<u64> {
        self.starts.get(&key).map(|start| start.offset)
    }

    /// The placemarks of a group, by partition.
    pub(super) fn placemarks_of(&self, group: GroupId) -> impl Iterator<Item = (PlacemarkKey, Placemark)> {
        self.placemarks
            .range(keys_of(group))
            .map(|(key, slot)| (*key, slot.shown.clone()))
            .filter(|(_, shown)| shown.version > 0)
    }

    /// The starting points of a group, by partition.
    pub(super) fn starts_of(&self, group: GroupId) -> impl Iterator<Item = (PlacemarkKey, u64)> {
        self.starts.range(keys_of(group)).map(|(key, start)| (*key, start.offset))
    }

    /// All keys that belong to a group, also those whose first commit is still on its way to the disk.
    pub(super) fn keys_of(&self, group: GroupId) -> Vec<SideKey> {
        let placemark =
            |key: &PlacemarkKey| SideKey::Placemark { group: key.group, log: key.log, partition: key.partition };
        let start = |key: &PlacemarkKey| SideKey::Start { group: key.group, log: key.log, partition: key.partition };
        let trial = |key: &PlacemarkKey| SideKey::Trial { group: key.group, log: key.log, partition: key.partition };
        let placemarks = self.placemarks.range(keys_of(group)).map(|(key, _)| placemark(key));
        let starts = self.starts.range(keys_of(group)).map(|(key, _)| start(key));
        placemarks.chain(starts).chain(self.trials.range(keys_of(group)).map(|(key, _)| trial(key))).collect()
    }

    /// Forgets what belongs to groups that are not there any more: what is left of a deletion that a crash cut short.
    pub(super) fn drop_orphans(&mut self) {
        let catalog = &self.catalog;
        self.placemarks.retain(|key, _| catalog.owner(key.group) == Some(key.log));
        self.starts.retain(|key, _| catalog.owner(key.group) == Some(key.log));
        self.trials.retain(|key, _| catalog.owner(key.group) == Some(key.log));
    }
}

fn keys_of(group: GroupId) -> std::ops::RangeInclusive<PlacemarkKey> {
    PlacemarkKey { group, log: LogId(0), partition: 0 }..=PlacemarkKey {
        group,
        log: LogId(u32::MAX),
        partition: u32::MAX,
    }
}

/// Numbers of logs and groups are counted from 1 in 32 bits; what could not have been written counts as none left.
fn small(id: u64) -> u32 {
    u32::try_from(id).unwrap_or(u32::MAX)
}

//! The side log: placemarks, and what else of a store must survive beside its records.
//!
//! It is an ordinary partition whose records have keys; the last record of a key holds. Opening loads it into a map,
//! where everything is looked up. A change is appended first and shown when that has succeeded, so that a change that
//! failed changes nothing.
//!
//! Three locks, taken in this order: `running` (over a compaction), `rare` (over a change of what is rare, and a sync that it
//! waits for, so that no compaction begins between its append and its showing), `table` (for moments, and over the append of
//! a placemark, so that the order of its records is that of its versions).

mod catalog;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;

use std::path::Path;
use std::sync::{Arc, Weak};

use crate::broken::broken;
use crate::format::{DecidedPlacemark, Ident, Metadata, SideKey, SideValue, Trial};
use crate::partition::{Appended, Env, Floor, PartitionCore, Settings, lock};
use crate::record::Record;
use crate::storage::Signal;
use crate::sync::{Mutex, MutexGuard};
use crate::types::{GroupId, LogId, Millis, ProducerId};
use crate::{Durability, Error, Result};

pub(crate) use table::{Placemark, PlacemarkKey};

use table::{Buffers, Table};
use upkeep::Upkeep;

/// Size of its segments. Small, so that compaction, which leaves the active one alone, leaves little.
const SEGMENT_BYTES: u64 = 1 << 19;

/// So many full segments wait for the next compaction, unsynced where no one waits for the disk. That is more than there
/// are between two, unless what the side log says takes more itself: what power loss can take stays bounded.
const UNSEALED: usize = 16;

/// So many records go into one frame when a log is forgotten.
const PER_FRAME: usize = 1000;

/// The side log of a store.
#[derive(Debug)]
pub(crate) struct SideLog {
    me: Weak<Self>,
    partition: Arc<PartitionCore>,
    /// Held over an append and the changes of the table that belong to it, but for placemarks and trials.
    rare: Mutex<()>,
    table: Mutex<Table>,
    upkeep: Upkeep,
}

/// A group that the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownGroup {
    pub(crate) id: GroupId,
    pub(crate) log: LogId,
    pub(crate) name: String,
}

/// A placemark that has been written, on its way to the disk. It counts once [`wait`](Self::wait) has returned `Ok`.
#[derive(Debug)]
#[must_use = "a commit that is not waited for is not shown"]
pub(crate) struct Commit<'a> {
    side: &'a SideLog,
    key: PlacemarkKey,
    /// `None` when it is shown already, since nothing is to be waited for.
    placemark: Option<Placemark>,
    appended: Appended,
}

impl Commit<'_> {
    /// Waits as the store's durability says, then shows the placemark.
    pub(crate) fn wait(self) -> Result<()> {
        if let Some(placemark) = self.placemark {
            self.side.partition.settle(&self.appended)?;
            lock(&self.side.table).show(self.key, placemark);
        }
        self.side.keep_small();
        Ok(())
    }
}

/// A trial that has been written, on its way to the disk.
#[derive(Debug)]
#[must_use = "what is tried must be known before"]
pub(crate) struct Noted<'a> {
    side: &'a SideLog,
    appended: Appended,
}

impl Noted<'_> {
    /// Waits as the store's durability says.
    pub(crate) fn wait(self) -> Result<()> {
        self.side.partition.settle(&self.appended)?;
        self.side.keep_small();
        Ok(())
    }
}

/// A change of one key.
struct Change {
    key: SideKey,
    /// `None` removes it.
    value: Option<Vec<u8>>,
}

impl Change {
    fn set(key: SideKey, number: u64) -> Self {
        Self { key, value: Some(SideValue::Number(number).encode()) }
    }

    fn remove(key: SideKey) -> Self {
        Self { key, value: None }
    }
}

impl SideLog {
    /// Makes the directory of an empty side log; its name in the parent directory is the caller's to make durable.
    pub(crate) fn create(env: &Env, dir: &Path) -> Result<()> {
        PartitionCore::create(env, ident(env), dir)
    }

    /// Opens it, with recovery where it was not closed, and loads what it says. Damage is an error unless salvaged.
    pub(crate) fn open(env: &Arc<Env>, dir: &Path, durability: Durability) -> Result<Arc<Self>> {
        let settings = Settings {
            durability,
            segment_bytes: SEGMENT_BYTES,
            segment_age: None,
            record_limit: SEGMENT_BYTES,
            unsealed: UNSEALED,
        };
        let signal = Arc::new(Signal::default());
        let partition = PartitionCore::open(env, ident(env), dir, settings, signal, &Floor::default())?;
        let (table, upkeep) = load(&partition)?;
        Ok(Arc::new_cyclic(|me| Self {
            me: me.clone(),
            partition,
            rare: Mutex::default(),
            table: Mutex::new(table),
            upkeep,
        }))
    }

    /// Whether it can still be written to: `Failed` after a failure, until it is opened again.
    pub(crate) fn check_usable(&self) -> Result<()> {
        self.partition.check_usable()
    }

    /// The placemark of a group in a partition.
    pub(crate) fn placemark(&self, key: PlacemarkKey) -> Option<Placemark> {
        lock(&self.table).placemark(key)
    }

    /// Writes a placemark, to be waited for. `Fenced` when its group, or its log, has been deleted.
    pub(crate) fn commit(&self, key: PlacemarkKey, offset: u64, metadata: Option<Metadata>) -> Result<Commit<'_>> {
        let mut table = lock(&self.table);
        let Some((slot, buffers)) = table.slot_of_group(key) else { return Err(self.fenced(table)) };
        let version = slot.assign();
        let placemark = Placemark { offset, version, committed_at: self.now(), metadata };
        let appended = self.write(buffers, key, &placemark)?;
        slot.wrote(version, appended.base);
        if appended.is_settled() {
            slot.show(placemark);
            return Ok(Commit { side: self, key, placemark: None, appended });
        }
        Ok(Commit { side: self, key, placemark: Some(placemark), appended })
    }

    /// Whether a group is there, on its log.
    pub(crate) fn has_group(&self, key: PlacemarkKey) -> bool {
        lock(&self.table).has_group(key)
    }

    /// Writes what is tried next in a partition, to be waited for; `trial` makes it, knowing the version of the placemark.
    /// `Fenced` when its group, or its log, has been deleted.
    pub(crate) fn note_trial(&self, key: PlacemarkKey, trial: impl FnOnce(u64) -> Trial) -> Result<Noted<'_>> {
        let mut table = lock(&self.table);
        if !table.has_group(key) {
            return Err(self.fenced(table));
        }
        let trial = trial(table.version(key));
        let side_key = SideKey::Trial { group: key.group, log: key.log, partition: key.partition };
        let appended = self.write_value(&mut table.buffers, &side_key, &SideValue::Trial(trial), self.now())?;
        table.tries(key, trial, appended.base);
        Ok(Noted { side: self, appended })
    }

    /// What was tried last in a partition, and the version of the placemark there now.
    pub(crate) fn trial(&self, key: PlacemarkKey) -> (Option<Trial>, u64) {
        let table = lock(&self.table);
        (table.trial(key), table.version(key))
    }

    /// Why nothing is changed for a group that is not there any more.
    #[cold]
    fn fenced(&self, table: MutexGuard<'_, Table>) -> Error {
        drop(table);
        self.partition.check_usable().err().unwrap_or(Error::Fenced)
    }

    /// Takes in a placemark that a transaction has decided, now or before this opening. It counts if it is newer than
    /// what is known, and for a group that still exists. The journal has it, so that nothing is waited for.
    pub(crate) fn decided(&self, decided: &DecidedPlacemark) -> Result<()> {
        let key = PlacemarkKey { group: decided.group, log: decided.log, partition: decided.partition };
        let DecidedPlacemark { offset, version, ref metadata, .. } = *decided;
        {
            let mut table = lock(&self.table);
            let Some((slot, buffers)) = table.slot_of_group(key) else { return Ok(()) };
            let placemark = Placemark { offset, version, committed_at: self.now(), metadata: metadata.clone() };
            if slot.is_older_than(version) {
                let appended = self.write(buffers, key, &placemark)?;
                slot.wrote(version, appended.base);
            }
            slot.show(placemark);
        }
        self.keep_small();
        Ok(())
    }

    /// The version for a placemark that a transaction is about to decide.
    pub(crate) fn next_version(&self, key: PlacemarkKey) -> u64 {
        lock(&self.table).assign(key)
    }

    /// Appends a placemark's record, under the lock of the table.
    fn write(&self, buffers: &mut Buffers, key: PlacemarkKey, placemark: &Placemark) -> Result<Appended> {
        let key = SideKey::Placemark { group: key.group, log: key.log, partition: key.partition };
        self.write_value(buffers, &key, &placemark.value(placemark.version), placemark.committed_at)
    }

    /// Appends a record, under the lock of the table.
    fn write_value(&self, buffers: &mut Buffers, key: &SideKey, value: &SideValue, now: Millis) -> Result<Appended> {
        let Buffers { key: key_bytes, value: value_bytes } = buffers;
        key_bytes.clear();
        value_bytes.clear();
        key.encode_to(key_bytes);
        value.encode_to(value_bytes);
        self.upkeep.added(key_bytes.len(), value_bytes.len());
        self.partition.append_keyed(key_bytes, value_bytes, now)
    }

    /// Where a group starts in a partition in which it has no placemark.
    pub(crate) fn start(&self, key: PlacemarkKey) -> Option<u64> {
        lock(&self.table).start(key)
    }

    /// Fixes where a group starts, in all these partitions or in none, as durably as the store's durability says.
    pub(crate) fn set_starts(&self, starts: &[(PlacemarkKey, u64)]) -> Result<()> {
        let change = |(key, offset): &(PlacemarkKey, u64)| {
            let key = SideKey::Start { group: key.group, log: key.log, partition: key.partition };
            Change::set(key, *offset)
        };
        self.change(|_| Ok(starts.iter().map(change).collect())).map(|_| ())
    }

    /// The number of a group of a log, if it is known.
    pub(crate) fn known_group(&self, log: LogId, name: &str) -> Option<GroupId> {
        lock(&self.table).catalog.group(log, name).map(|named| named.id)
    }

    /// The number of a group of a log; the group is made known when it is not. `Fenced` when the log was deleted.
    ///
    /// That is durable on return, whatever the durability: a transaction may decide a placemark of the group, for good,
    /// and were the number lost to a power loss, that placemark would be too, or be taken for that of a later group.
    pub(crate) fn group_id(&self, log: LogId, name: &str) -> Result<GroupId> {
        if let Some(id) = self.known_group(log, name) {
            return Ok(id);
        }
        let end = self.change(|table| {
            if table.catalog.group(log, name).is_some() {
                return Ok(Vec::new());
            }
            if table.catalog.name_of(log).is_none() {
                return Err(Error::Fenced);
            }
            let id = table.catalog.next_group.id.0;
            Ok(vec![
                Change::set(SideKey::NextGroup, u64::from(id) + 1),
                Change::set(SideKey::Group { log, name: name.to_owned() }, u64::from(id)),
            ])
        })?;
        if !broken("group number unsynced") {
            self.partition.wait_durable(end)?;
        }
        self.known_group(log, name).ok_or(Error::Fenced)
    }

    /// Gives every log that knows the group `from` a group `to` at the same places.
    ///
    /// The new names are written last: a crash before leaves placemarks of groups that are not there, which mean nothing.
    pub(crate) fn fork_group(&self, from: &str, to: &str) -> Result<()> {
        self.change(|table| {
            let all: Vec<(LogId, GroupId)> =
                table.catalog.groups().filter(|(_, name, _)| *name == from).map(|(log, _, id)| (log, id)).collect();
            if all.is_empty() {
                return Err(Error::NoSuchGroup { group: from.to_owned(), log: None });
            }
            if table.catalog.groups().any(|(_, name, _)| name == to) {
                return Err(Error::option("group", format!("{to:?} exists: delete it first, or choose another name")));
            }
            let mut next = table.catalog.next_group.id.0;
            let (mut places, mut names) = (Vec::new(), Vec::new());
            for (log, old) in all {
                let group = GroupId(next);
                next += 1;
                for (key, placemark) in table.placemarks_of(old) {
                    let value = placemark.value(1).encode();
                    let key = SideKey::Placemark { group, log, partition: key.partition };
                    places.push(Change { key, value: Some(value) });
                }
                for (key, offset) in table.starts_of(old) {
                    places.push(Change::set(SideKey::Start { group, log, partition: key.partition }, offset));
                }
                names.push(Change::set(SideKey::Group { log, name: to.to_owned() }, u64::from(group.0)));
            }
            places.insert(0, Change::set(SideKey::NextGroup, u64::from(next)));
            places.extend(names);
            Ok(places)
        })
        .map(|_| ())
    }

    /// Forgets a group of a log, with its placemarks and starting points.
    pub(crate) fn remove_group(&self, log: LogId, name: &str) -> Result<()> {
        self.change(|table| {
            let Some(group) = table.catalog.group(log, name) else { return Ok(Vec::new()) };
            let mut changes: Vec<Change> = table.keys_of(group.id).into_iter().map(Change::remove).collect();
            changes.push(Change::remove(SideKey::Group { log, name: name.to_owned() }));
            Ok(changes)
        })
        .map(|_| ())
    }

    /// Gives a producer of a log its next epoch, and a number when it is new. That is durable on return, whatever the
    /// durability: two producers that were given one number would take each other's records for their own. `Fenced` when
    /// the log was deleted.
    pub(crate) fn take_producer(&self, log: LogId, name: &str) -> Result<ProducerId> {
        let mut taken = ProducerId { number: 0, epoch: 0 };
        let end = self.change(|table| {
            if table.catalog.name_of(log).is_none() {
                return Err(Error::Fenced);
            }
            let known = table.catalog.producer(log, name).map(|named| named.id);
            taken = match known {
                Some(known) => ProducerId { epoch: known.epoch.saturating_add(1), ..known },
                None => ProducerId { number: table.catalog.next_producer.id, epoch: 1 },
            };
            let value = SideValue::Producer(taken).encode();
            let mut changes =
                vec![Change { key: SideKey::Producer { log, name: name.to_owned() }, value: Some(value) }];
            if known.is_none() {
                changes.push(Change::set(SideKey::NextProducer, u64::from(taken.number) + 1));
            }
            Ok(changes)
        })?;
        self.partition.wait_durable(end)?;
        Ok(taken)
    }

    /// A number for a new log. That it is taken is durable on return, whatever the durability.
    pub(crate) fn take_log_id(&self) -> Result<LogId> {
        let mut id = LogId::FIRST_USER;
        let end = self.change(|table| {
            id = table.catalog.next_log.id;
            Ok(vec![Change::set(SideKey::NextLog, u64::from(id.0) + 1)])
        })?;
        self.partition.wait_durable(end)?;
        Ok(id)
    }

    /// Makes a log known by its name, durably, whatever the durability.
    pub(crate) fn register_log(&self, name: &str, id: LogId) -> Result<()> {
        let end = self.change(|table| {
            let next = table.catalog.next_log.id.0.max(id.0.saturating_add(1));
            Ok(vec![
                Change::set(SideKey::NextLog, u64::from(next)),
                Change::set(SideKey::Log { name: name.to_owned() }, u64::from(id.0)),
            ])
        })?;
        self.partition.wait_durable(end)
    }

    /// Forgets a log with all that belongs to it, durably, whatever the durability. A log that is not known may still
    /// have groups, when a crash cut this short; they go too.
    pub(crate) fn forget_log(&self, id: LogId) -> Result<()> {
        let end = self.change(|table| {
            let mut changes = Vec::new();
            for (name, group) in table.catalog.groups_of(id) {
                changes.extend(table.keys_of(group).into_iter().map(Change::remove));
                changes.push(Change::remove(SideKey::Group { log: id, name: name.to_owned() }));
            }
            for name in table.catalog.producers_of(id) {
                changes.push(Change::remove(SideKey::Producer { log: id, name: name.to_owned() }));
            }
            if let Some(name) = table.catalog.name_of(id) {
                changes.push(Change::remove(SideKey::Log { name: name.to_owned() }));
            }
            Ok(changes)
        })?;
        self.partition.wait_durable(end)
    }

    /// The number of the log that has this name.
    pub(crate) fn log_id(&self, name: &str) -> Option<LogId> {
        lock(&self.table).catalog.log(name).map(|named| named.id)
    }

    /// The name of a log.
    pub(crate) fn log_name(&self, id: LogId) -> Option<String> {
        lock(&self.table).catalog.name_of(id).map(str::to_owned)
    }

    /// All logs, by name.
    pub(crate) fn logs(&self) -> Vec<(String, LogId)> {
        lock(&self.table).catalog.logs().map(|(name, id)| (name.to_owned(), id)).collect()
    }

    /// All groups, by log and name.
    pub(crate) fn groups(&self) -> Vec<KnownGroup> {
        let table = lock(&self.table);
        table.catalog.groups().map(|(log, name, id)| KnownGroup { id, log, name: name.to_owned() }).collect()
    }

    /// The placemarks of a group, by partition.
    pub(crate) fn placemarks_of(&self, group: GroupId) -> Vec<(PlacemarkKey, Placemark)> {
        lock(&self.table).placemarks_of(group).collect()
    }

    /// The starting points of a group, by partition.
    pub(crate) fn starts_of(&self, group: GroupId) -> Vec<(PlacemarkKey, u64)> {
        lock(&self.table).starts_of(group).collect()
    }

    /// No offset below this may be given out in a partition: a group has a placemark, or starts, here.
    pub(crate) fn least_end(&self, log: LogId, partition: u32) -> u64 {
        self.places(log, partition).flatten().max().unwrap_or(0)
    }

    /// Where each group of a log is in a partition.
    fn places(&self, log: LogId, partition: u32) -> impl Iterator<Item = Option<u64>> {
        let table = lock(&self.table);
        let place = |group| {
            let key = PlacemarkKey { group, log, partition };
            table.placemark(key).map(|placemark| placemark.offset).or_else(|| table.start(key))
        };
        let places: Vec<_> = table.catalog.groups_of(log).map(|(_, group)| place(group)).collect();
        places.into_iter()
    }

    /// Everything written so far is on disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.partition.sync()
    }

    /// Refuses every further change, because of a failure that it cannot go on from.
    pub(crate) fn close_latch(&self, error: &Error) {
        self.partition.close_latch(error);
    }

    fn now(&self) -> Millis {
        Millis(self.partition.env().storage.now())
    }

    /// Makes changes that are rare, one frame for all if they fit in one, and waits as the durability says. Returns the
    /// offset behind them.
    fn change(&self, plan: impl FnOnce(&Table) -> Result<Vec<Change>>) -> Result<u64> {
        let end = {
            let _rare = lock(&self.rare);
            self.partition.check_usable()?;
            let changes = plan(&lock(&self.table))?;
            let mut end = self.partition.written_end();
            for changes in changes.chunks(PER_FRAME) {
                end = self.change_together(changes)?;
            }
            end
        };
        self.keep_small();
        Ok(end)
    }

    fn change_together(&self, changes: &[Change]) -> Result<u64> {
        let keys: Vec<_> = changes.iter().map(|change| change.key.encode()).collect();
        let records: Vec<Record<'_>> = keys
            .iter()
            .zip(changes)
            .map(|(key, change)| match &change.value {
                Some(value) => Record::new(value).key(key),
                None => Record::tombstone(key),
            })
            .collect();
        let range = self.partition.append_batch(&records)?;
        let now = self.now();
        let mut table = lock(&self.table);
        for ((offset, change), key) in range.clone().zip(changes).zip(&keys) {
            self.upkeep.added(key.len(), change.value.as_ref().map_or(0, Vec::len));
            table.take(&change.key, change.value.as_deref(), offset, now);
        }
        Ok(range.end)
    }
}

/// Reads all of it, in order.
fn load(partition: &Arc<PartitionCore>) -> Result<(Table, Upkeep)> {
    let (mut table, upkeep) = (Table::default(), Upkeep::default());
    let mut cursor = partition.cursor(partition.start())?;
    while let Some(entry) = cursor.next()? {
        let bytes = entry.key().unwrap_or_default();
        upkeep.added(bytes.len(), entry.value().len());
        match SideKey::decode(bytes) {
            Some(key) => {
                let value = (!entry.is_tombstone()).then(|| entry.value());
                table.take(&key, value, entry.offset(), entry.millis());
            }
            None => table.take_unknown(entry.offset()),
        }
    }
    table.drop_orphans();
    Ok((table, upkeep))
}

fn ident(env: &Env) -> Ident {
    Ident { store: env.store, log: LogId::SIDE_LOG, partition: 0 }
}

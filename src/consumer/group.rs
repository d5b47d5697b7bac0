//! Groups looked at, and moved, from outside.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use crate::partition::{PartitionCore, lock};
use crate::placemarks::PlacemarkKey;
use crate::store::{Handle, StoreCore};
use crate::types::Millis;
use crate::{Error, Log, ResetTo, Result, Store};

/// A group by its name, on all logs that know it. See [`Store::group`](crate::Store::group).
#[derive(Debug, Clone)]
pub struct Group {
    store: Handle,
    name: String,
}

/// Where a group is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlacemark {
    /// Name of the log.
    pub log: String,
    /// Number of the partition.
    pub partition: u32,
    /// The next offset that the group will read.
    pub offset: u64,
    /// The partition's end.
    pub end: u64,
    /// Records between the two.
    pub lag: u64,
    /// When the placemark was moved there.
    pub committed_at: SystemTime,
}

/// What a reset did in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Number of the partition.
    pub partition: u32,
    /// Where the group was.
    pub from: u64,
    /// Where it is now.
    pub to: u64,
}

impl Group {
    pub(crate) fn new(store: Handle, name: &str) -> Self {
        Self { store, name: name.to_owned() }
    }

    /// The names of all groups of a store, sorted.
    pub(crate) fn names(store: &StoreCore) -> Vec<String> {
        let names: BTreeSet<String> = store.side().groups().into_iter().map(|group| group.name).collect();
        names.into_iter().collect()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the group is, for each partition in which it has a placemark, by log and partition. None for a group that
    /// is not known, which is no error.
    ///
    /// # Errors
    ///
    /// Those of opening a log that it reads.
    pub fn placemarks(&self) -> Result<Vec<GroupPlacemark>> {
        let store = self.store.core()?;
        let mut all = Vec::new();
        for known in store.side().groups().into_iter().filter(|known| known.name == self.name) {
            let Some(name) = store.side().log_name(known.log) else { continue };
            let log = store.existing_log(&name)?;
            for (key, placemark) in store.side().placemarks_of(known.id) {
                let partition = log.partition(key.partition)?;
                all.push(GroupPlacemark {
                    log: name.clone(),
                    partition: key.partition,
                    offset: placemark.offset,
                    end: partition.end(),
                    lag: partition.backlog(placemark.offset..u64::MAX)?.records,
                    committed_at: placemark.committed_at.to_time(),
                });
            }
        }
        all.sort_by(|a, b| (&a.log, a.partition).cmp(&(&b.log, b.partition)));
        Ok(all)
    }

    /// Moves the group's placemarks on a log, in every partition, to what `to` means there, clamped to what exists. A
    /// group that is not known becomes known. Says from where to where, by partition.
    ///
    /// # Errors
    ///
    /// [`Error::GroupActive`] while the group has members on the log, or batches in flight; [`Error::InvalidName`].
    pub fn reset(&self, log: &Log, to: ResetTo) -> Result<Vec<Reset>> {
        let store = self.store.core()?;
        crate::types::check_name(&self.name)?;
        if !self.store.is_same_store(log.handle()) {
            return Err(Error::option("log", "belongs to another store"));
        }
        let log = log.core();
        // Held over the reset, so that no one joins meanwhile.
        let mut registry = lock(log.groups());
        let members = registry.active(&self.name);
        if members > 0 {
            return Err(Error::GroupActive { group: self.name.clone(), members });
        }
        let group = store.side().group_id(log.id(), &self.name)?;
        let mut all = Vec::new();
        for (number, partition) in (0..).zip(log.partitions()) {
            let key = PlacemarkKey { group, log: log.id(), partition: number };
            let known = store.side().placemark(key).map(|placemark| placemark.offset);
            let from = known.or_else(|| store.side().start(key)).unwrap_or_else(|| partition.start());
            let to = target(partition, from, to)?;
            all.push((key, Reset { partition: number, from, to }));
        }
        let commits: Vec<_> = all.iter().map(|(key, reset)| store.side().commit(*key, reset.to)).collect();
        for commit in commits {
            commit?.wait()?;
        }
        registry.remove(&self.name);
        Ok(all.into_iter().map(|(_, reset)| reset).collect())
    }

    /// Forgets the group, on all logs. One that is not known is no error.
    ///
    /// # Errors
    ///
    /// [`Error::GroupActive`] while it has members, or batches in flight, on any log.
    pub fn delete(&self) -> Result<()> {
        let store = self.store.core()?;
        for log in store.open_logs() {
            let members = lock(log.groups()).active(&self.name);
            if members > 0 {
                return Err(Error::GroupActive { group: self.name.clone(), members });
            }
        }
        for known in store.side().groups().into_iter().filter(|known| known.name == self.name) {
            let open = store.open_logs().into_iter().find(|log| log.id() == known.log);
            let mut registry = open.as_ref().map(|log| lock(log.groups()));
            let members = registry.as_ref().map_or(0, |registry| registry.active(&self.name));
            if members > 0 {
                return Err(Error::GroupActive { group: self.name.clone(), members });
            }
            store.side().remove_group(known.log, &self.name)?;
            if let Some(registry) = &mut registry {
                registry.remove(&self.name);
            }
        }
        Ok(())
    }
}

/// The offset that a reset means in a partition, clamped to what exists.
fn target(partition: &Arc<PartitionCore>, from: u64, to: ResetTo) -> Result<u64> {
    let (start, end) = (partition.start(), partition.end());
    let wanted = match to {
        ResetTo::Earliest => start,
        ResetTo::Latest => end,
        ResetTo::Offset(offset) => offset,
        ResetTo::Time(time) => partition.offset_at_time(Millis::searched(time))?,
        ResetTo::ShiftBy(by) => from.saturating_add_signed(by),
    };
    Ok(wanted.clamp(start, end))
}

impl Store {
    /// The names of all groups that any log knows, sorted.
    pub fn groups(&self) -> Result<Vec<String>> {
        Ok(Group::names(self.handle().core()?))
    }

    /// A group by its name, whether it is known or not.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = placemark::Store::open(dir.path())?;
    /// for at in store.group("billing").placemarks()? {
    ///     println!("{} {} at {}, {} behind", at.log, at.partition, at.offset, at.lag);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn group(&self, name: &str) -> Group {
        Group::new(self.handle().clone(), name)
    }
}

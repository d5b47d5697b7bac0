//! Groups looked at, and moved, from outside.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crate::group::Seen;
use crate::partition::lock;
use crate::placemarks::PlacemarkKey;
use crate::store::{Handle, StoreCore};
use crate::types::check_name;
use crate::{Error, Log, Result, Store};

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

/// A consumer that is a member of a group now. See [`Group::members`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupMember {
    /// Name of the log.
    pub log: String,
    /// What the application called it, if it did: see [`ConsumerBuilder::member_name`](crate::ConsumerBuilder::member_name).
    pub name: Option<String>,
    /// The partitions it reads, sorted.
    pub assignment: Vec<u32>,
    /// Those it will read, once the batches that others have of them are settled or dropped.
    pub awaited: Vec<u32>,
    /// Batches in flight of the partitions that it reads.
    pub in_flight: usize,
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

    /// What was [committed with](crate::Batch::<crate::AtLeastOnce>::commit_with_metadata) the placemark in a partition of a
    /// log; `None` when nothing was, or there is none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a log of another store.
    pub fn metadata(&self, log: &Log, partition: u32) -> Result<Option<Vec<u8>>> {
        let store = self.check(log)?;
        let Some(group) = store.side().known_group(log.core().id(), &self.name) else { return Ok(None) };
        let key = PlacemarkKey { group, log: log.core().id(), partition };
        Ok(store.side().placemark(key).and_then(|placemark| placemark.metadata).map(|metadata| metadata.to_vec()))
    }

    /// Who is a member now, on which log, by the order of joining.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use placemark::{LogOptions, Store};
    ///
    /// let store = Store::open(dir.path())?;
    /// let clicks = store.log_with("clicks", LogOptions::new().partitions(3))?;
    /// let first = clicks.consumer("counting").member_name("first").at_least_once()?;
    /// let second = clicks.consumer("counting").member_name("second").at_least_once()?;
    /// for member in store.group("counting").members()? {
    ///     println!("{:?} has {:?} of {}", member.name, member.assignment, member.log);
    /// }
    /// # drop((first, second));
    /// # Ok(())
    /// # }
    /// ```
    pub fn members(&self) -> Result<Vec<GroupMember>> {
        let store = self.store.core()?;
        let mut all = Vec::new();
        for log in store.open_logs() {
            let Some(state) = lock(log.groups()).get(&self.name) else { continue };
            let mut members = state.members();
            members.expire(state.now());
            let seen = members.look();
            drop(members);
            all.extend(seen.into_iter().map(|Seen { name, owned, awaited, in_flight }| GroupMember {
                log: log.name().to_owned(),
                name,
                assignment: owned,
                awaited,
                in_flight,
            }));
        }
        Ok(all)
    }

    /// Makes a group of another name that is where this one is: on every log, in every partition. From then on the two
    /// do not influence one another, so that a new version of an application can try the same records from the same
    /// place. The members of this one are not disturbed; what they have in flight counts as unprocessed.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = placemark::Store::open(dir.path())?;
    /// # let orders = store.log("orders")?;
    /// # orders.append_batch(["order 1", "order 2"])?;
    /// # let mut billing = orders.consumer("billing").max_poll_records(1).at_least_once()?;
    /// # billing.poll(std::time::Duration::ZERO)?.unwrap().commit()?;
    /// store.group("billing").fork("billing-next")?;
    /// let mut next = orders.consumer("billing-next").existing().at_least_once()?;
    /// assert_eq!(next.poll(std::time::Duration::ZERO)?.unwrap().offsets(), 1..2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchGroup`], [`Error::InvalidName`], and [`Error::InvalidOption`] when there is a group of that name.
    pub fn fork(&self, new_group: &str) -> Result<Self> {
        let store = self.store.core()?;
        check_name(new_group)?;
        store.side().fork_group(&self.name, new_group)?;
        Ok(Self::new(self.store.clone(), new_group))
    }

    pub(super) fn store(&self) -> &Handle {
        &self.store
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

//! Moving a group: looked at first, if that is wanted, then done.

use std::sync::Arc;

use crate::group::Registry;
use crate::partition::{PartitionCore, lock};
use crate::placemarks::PlacemarkKey;
use crate::store::{LogCore, StoreCore};
use crate::types::{GroupId, Millis, check_name};
use crate::{Error, Group, Log, ResetTo, Result};

/// What a reset does, or would do, in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reset {
    /// Number of the partition.
    pub partition: u32,
    /// Where the group was.
    pub from: u64,
    /// Where it is now.
    pub to: u64,
}

/// A reset that has not been done. See [`Group::plan_reset`].
#[derive(Debug, Clone)]
#[must_use = "nothing moves until the plan is applied"]
pub struct ResetPlan {
    group: Group,
    log: Log,
    resets: Vec<Reset>,
}

impl ResetPlan {
    /// What it would do in each partition.
    pub fn resets(&self) -> &[Reset] {
        &self.resets
    }

    /// Does exactly that.
    ///
    /// # Errors
    ///
    /// [`Error::GroupActive`] while the group has members on the log, or batches in flight; [`Error::Fenced`] when it has
    /// moved since the plan was made; [`Error::OffsetOutOfRange`] when retention has taken where it was to go;
    /// [`Error::NoSuchLog`] when the log was deleted. Nothing has moved then.
    pub fn apply(self) -> Result<Vec<Reset>> {
        let Self { group, log, resets } = self;
        group.move_to(&log, |places| {
            for (reset, place) in resets.iter().zip(places) {
                if place.at != reset.from {
                    return Err(Error::Fenced);
                }
                place.partition.check_offset(reset.to)?;
            }
            Ok(resets)
        })
    }
}

/// Where a group is in a partition.
struct Place<'a> {
    number: u32,
    partition: &'a Arc<PartitionCore>,
    at: u64,
}

impl Group {
    /// Moves the group's placemarks on a log, in every partition, to what `to` means there, clamped to what exists. A
    /// group that is not known becomes known. Says from where to where, by partition.
    ///
    /// # Errors
    ///
    /// [`Error::GroupActive`] while the group has members on the log, or batches in flight; [`Error::InvalidName`], and
    /// [`Error::NoSuchLog`] when the log was deleted.
    pub fn reset(&self, log: &Log, to: ResetTo) -> Result<Vec<Reset>> {
        self.move_to(log, |places| places.iter().map(|place| place.towards(to)).collect())
    }

    /// Says what [`reset`](Self::reset) would do, and does nothing yet: also while the group is active.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use placemark::{ResetTo, Store};
    ///
    /// let store = Store::open(dir.path())?;
    /// let orders = store.log("orders")?;
    /// orders.append_batch(["order 1", "order 2"])?;
    /// let plan = store.group("billing").plan_reset(&orders, ResetTo::Latest)?;
    /// for reset in plan.resets() {
    ///     println!("partition {}: from {} to {}", reset.partition, reset.from, reset.to);
    /// }
    /// let done = plan.apply()?;
    /// assert_eq!((done[0].from, done[0].to), (0, 2));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], [`Error::NoSuchLog`], and what reading the log may meet where `to` is a time.
    pub fn plan_reset(&self, log: &Log, to: ResetTo) -> Result<ResetPlan> {
        let store = self.check(log)?;
        let known = store.side().known_group(log.core().id(), self.name());
        let places = places(store, log.core(), known);
        let resets = places.iter().map(|place| place.towards(to)).collect::<Result<_>>()?;
        Ok(ResetPlan { group: self.clone(), log: log.clone(), resets })
    }

    pub(super) fn check(&self, log: &Log) -> Result<&Arc<StoreCore>> {
        check_name(self.name())?;
        if !self.store().is_same_store(log.handle()) {
            return Err(Error::option("log", "belongs to another store"));
        }
        let store = self.store().core()?;
        log.core().check_exists().map(|()| store)
    }

    /// Moves an inactive group where `plan` says, knowing where it is.
    fn move_to(&self, log: &Log, plan: impl FnOnce(&[Place<'_>]) -> Result<Vec<Reset>>) -> Result<Vec<Reset>> {
        let store = self.check(log)?;
        let log = log.core();
        // Held over the reset, so that no one joins meanwhile.
        let mut registry = lock(log.groups());
        self.check_inactive(&registry)?;
        let known = store.side().known_group(log.id(), self.name());
        let resets = plan(&places(store, log, known))?;
        let group = store.side().group_id(log.id(), self.name())?;
        let key = |partition| PlacemarkKey { group, log: log.id(), partition };
        let commits: Vec<_> =
            resets.iter().map(|reset| store.side().commit(key(reset.partition), reset.to, None)).collect();
        for commit in commits {
            commit?.wait()?;
        }
        registry.remove(self.name());
        Ok(resets)
    }

    fn check_inactive(&self, registry: &Registry) -> Result<()> {
        match registry.active(self.name()) {
            0 => Ok(()),
            members => Err(Error::GroupActive { group: self.name().to_owned(), members }),
        }
    }
}

/// Where a group is: at its placemark, else where it began, else, where it is not known, at the first record.
fn places<'a>(store: &StoreCore, log: &'a LogCore, group: Option<GroupId>) -> Vec<Place<'a>> {
    let place = |(number, partition): (u32, &'a Arc<PartitionCore>)| {
        let key = group.map(|group| PlacemarkKey { group, log: log.id(), partition: number });
        let placemark = key.and_then(|key| store.side().placemark(key)).map(|placemark| placemark.offset);
        let at = placemark.or_else(|| key.and_then(|key| store.side().start(key)));
        Place { number, partition, at: at.unwrap_or_else(|| partition.start()) }
    };
    (0..).zip(log.partitions()).map(place).collect()
}

impl Place<'_> {
    /// What a reset means here, clamped to what exists.
    fn towards(&self, to: ResetTo) -> Result<Reset> {
        let (start, end) = (self.partition.start(), self.partition.end());
        let wanted = match to {
            ResetTo::Earliest => start,
            ResetTo::Latest => end,
            ResetTo::Offset(offset) => offset,
            ResetTo::Time(time) => self.partition.offset_at_time(Millis::searched(time))?,
            ResetTo::ShiftBy(by) => self.at.saturating_add_signed(by),
        };
        Ok(Reset { partition: self.number, from: self.at, to: wanted.clamp(start, end) })
    }
}

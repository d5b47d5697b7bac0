//! The disk as it was before each operation, so that one run is enough to try a crash at every one of them.

use super::random::Random;
use super::tree::Tree;
use super::{Operation, SimDisk, World};

/// A disk as it was before an operation. See [`SimDisk::keep_moments`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Moment {
    /// What was about to be done.
    pub operation: Operation,
    /// To what.
    pub path: String,
    /// How many operations had been done by then.
    pub done: u64,
    /// The disk of that moment, which is nobody else's: to be crashed or killed.
    pub disk: SimDisk,
}

/// What is noted of the operations.
#[derive(Debug, Default)]
pub(super) struct Watch {
    traced: Option<Vec<(Operation, String)>>,
    moments: Option<Vec<(Operation, String, u64, World)>>,
}

impl Watch {
    pub(super) fn see(&mut self, operation: Operation, path: &str, done: u64, tree: &Tree, random: &Random) {
        if let Some(traced) = &mut self.traced {
            traced.push((operation, path.to_owned()));
        }
        if let Some(moments) = &mut self.moments
            && operation.changes()
        {
            // The operation is counted already.
            let done = done.saturating_sub(1);
            moments.push((operation, path.to_owned(), done, World::new(tree.copy(), random.clone(), None)));
        }
    }
}

impl SimDisk {
    /// Keeps, from now on, the disk as it is before each operation that counts, for [`take_moments`](Self::take_moments).
    pub fn keep_moments(&self) {
        self.world().watch.moments.get_or_insert_default();
    }

    /// The moments kept so far; no more are kept.
    pub fn take_moments(&self) -> Vec<Moment> {
        let moments = self.world().watch.moments.take().unwrap_or_default();
        let moment = |(operation, path, done, world)| {
            let disk = self.next(world, self.shared.boot, self.shared.mount);
            Moment { operation, path, done, disk }
        };
        moments.into_iter().map(moment).collect()
    }

    /// Notes, from now on, every operation with its path, for [`take_trace`](Self::take_trace).
    pub fn trace(&self) {
        self.world().watch.traced.get_or_insert_default();
    }

    /// The operations noted so far, also those that count for nothing at a crash; no more are noted.
    pub fn take_trace(&self) -> Vec<(Operation, String)> {
        self.world().watch.traced.take().unwrap_or_default()
    }
}

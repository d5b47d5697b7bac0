//! Waiting: until a time, or until someone says that something changed.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A point in time by the monotonic clock, or never.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now; never, if that is further than the clock reaches.
    pub(crate) fn after(wait: Duration) -> Self {
        Self(Instant::now().checked_add(wait))
    }

    pub(crate) fn remaining(&self) -> Duration {
        self.0.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// The earlier of two.
    pub(crate) fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }
}

/// Time since it was started, by the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Wakes those who wait for a change, at the cost of one load when no one does.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    waiters: AtomicU32,
    /// Counts the changes that were announced while someone waited.
    epoch: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// Says that something changed. What changed was published before, by a sequentially consistent store.
    #[inline]
    pub(crate) fn notify(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    #[cold]
    fn wake(&self) {
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    /// Begins to listen. A change that is published after this is not missed: look for it, then [`wait`](Listener::wait).
    pub(crate) fn listen(&self) -> Listener<'_> {
        // Sequentially consistent, as are the publications: either we see the change, or its author sees us.
        self.waiters.fetch_add(1, Ordering::SeqCst);
        let seen = *self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        Listener { signal: self, seen }
    }
}

/// Someone who waits for a change.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    signal: &'a Signal,
    seen: u64,
}

impl Listener<'_> {
    /// Waits for a change since listening began, or since the last wait; false when the deadline came first.
    pub(crate) fn wait(&mut self, until: &Deadline) -> bool {
        let mut epoch = self.signal.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        while *epoch == self.seen {
            let left = until.remaining();
            if left.is_zero() {
                return false;
            }
            let waited = self.signal.changed.wait_timeout(epoch, left);
            epoch = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.seen = *epoch;
        true
    }
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.signal.waiters.fetch_sub(1, Ordering::SeqCst);
    }
}

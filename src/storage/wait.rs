//! Waiting: until when, and for what.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use crate::sync::atomic::{AtomicU32, Ordering, fence};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The moment at which a wait ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// So long from now. What is too far away for the clock to express never comes.
    pub(crate) fn after(wait: Duration) -> Self {
        Self(Instant::now().checked_add(wait))
    }

    /// How long it is still, zero once it has passed.
    pub(crate) fn remaining(&self) -> Duration {
        self.0.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
    }

    /// Whether it has passed.
    pub(crate) fn passed(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Whichever comes first.
    pub(crate) fn or_earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(ours), Some(theirs)) => Self(Some(ours.min(theirs))),
            (ours, theirs) => Self(ours.or(theirs)),
        }
    }
}

/// Whether this thread is on its way out of a panic.
pub(crate) fn panicking() -> bool {
    std::thread::panicking()
}

/// Time since it was started.
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

/// Wakes who waits for something, and costs one load while nobody does.
///
/// The two sides go as in Dekker's algorithm: who makes news stores it, then looks for waiters; who waits registers,
/// then looks for news. With both pairs in one total order, at least one sees the other, so that no wake-up is lost.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    waiters: AtomicU32,
    /// How often a waiter was notified; what was counted before a listener registered is no news to it.
    epoch: Mutex<u64>,
    changed: Condvar,
}

impl Signal {
    /// Wakes everyone who listens. The news must have been published before by a `SeqCst` store or swap.
    #[inline]
    pub(crate) fn notify(&self) {
        if self.waiters.load(Ordering::SeqCst) > 0 {
            self.wake();
        }
    }

    /// Registers a waiter, which is then to look for news before it waits, by any load that is at least `Acquire`.
    pub(crate) fn listen(&self) -> Listener<'_> {
        self.waiters.fetch_add(1, Ordering::SeqCst);
        // Orders the caller's own load of the news behind the registration, whatever ordering it uses.
        fence(Ordering::SeqCst);
        Listener { signal: self, seen: *self.locked() }
    }

    #[cold]
    fn wake(&self) {
        *self.locked() += 1;
        self.changed.notify_all();
    }

    fn locked(&self) -> MutexGuard<'_, u64> {
        self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A registered waiter; dropping it ends the registration.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    signal: &'a Signal,
    seen: u64,
}

impl Listener<'_> {
    /// The longest single wait handed to the system, whose own arithmetic may not take more.
    const LONGEST: Duration = Duration::from_secs(3600);

    /// Waits for a notification since `listen` or since the last wait: true when there was one, false at the deadline.
    pub(crate) fn wait(&mut self, until: &Deadline) -> bool {
        let mut epoch = self.signal.locked();
        while *epoch == self.seen {
            let remaining = until.remaining();
            if remaining.is_zero() {
                return false;
            }
            let waited = self.signal.changed.wait_timeout(epoch, remaining.min(Self::LONGEST));
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn no_wake_up_is_lost_between_threads() {
        const ROUNDS: u64 = 100_000;
        let sides = Arc::new([(AtomicU64::new(0), Signal::default()), (AtomicU64::new(0), Signal::default())]);
        let play = |me: usize| {
            let sides = Arc::clone(&sides);
            thread::spawn(move || {
                let (mine, signal) = &sides[me];
                let (theirs, wanted) = &sides[1 - me];
                for round in 1..=ROUNDS {
                    mine.store(round, Ordering::SeqCst);
                    signal.notify();
                    let until = Deadline::after(LONG);
                    while theirs.load(Ordering::Acquire) < round {
                        let mut listener = wanted.listen();
                        if theirs.load(Ordering::Acquire) < round {
                            assert!(listener.wait(&until), "lost the wake-up of round {round}");
                        }
                    }
                }
            })
        };
        for player in [play(0), play(1)] {
            player.join().unwrap();
        }
    }

    #[test]
    fn one_notification_wakes_every_listener() {
        let signal = Arc::new(Signal::default());
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let signal = Arc::clone(&signal);
                thread::spawn(move || signal.listen().wait(&Deadline::after(LONG)))
            })
            .collect();
        while signal.waiters.load(Ordering::SeqCst) < 4 {
            thread::yield_now();
        }
        // A thread may be registered but not have read the epoch yet: to it this one is old, so go on until all left.
        while signal.waiters.load(Ordering::SeqCst) > 0 {
            signal.notify();
            thread::yield_now();
        }
        assert!(waiting.into_iter().all(|thread| thread.join().unwrap()));
    }

    #[test]
    fn a_notification_before_the_wait_counts_once() {
        let signal = Signal::default();
        signal.notify();
        let mut listener = signal.listen();
        assert!(!listener.wait(&Deadline::after(Duration::ZERO)), "an earlier notification is no news");
        signal.notify();
        signal.notify();
        assert!(listener.wait(&Deadline::after(Duration::ZERO)));
        assert!(!listener.wait(&Deadline::after(Duration::ZERO)));
    }

    #[test]
    fn a_wait_ends_at_its_deadline_and_not_before() {
        let signal = Signal::default();
        let start = Instant::now();
        let wait = Duration::from_millis(20);
        assert!(!signal.listen().wait(&Deadline::after(wait)));
        assert!(start.elapsed() >= wait);
        assert_eq!(signal.waiters.load(Ordering::SeqCst), 0, "a dropped listener stays registered");
    }

    #[test]
    fn a_deadline_too_far_away_never_comes() {
        let never = Deadline::after(Duration::MAX);
        assert!(!never.passed());
        assert!(Deadline::after(Duration::ZERO).passed());
        let soon = Deadline::after(LONG);
        assert_eq!(soon.or_earlier(never), soon);
        assert_eq!(never.or_earlier(soon), soon);
        assert_eq!(never.or_earlier(never), never);
        assert!(soon.remaining() <= LONG);
    }
}

//! Who leads the sync: taking turns at group commit.
//!
//! While a sync runs there are two groups of waiters: those whose records it covers, and those who came too late and
//! need the next one. Each waits on a condition of its own, so that the end of a sync wakes the first group, and of the
//! second only the one thread that is to lead next. (Woken together, the second group would go back to sleep, and
//! cost as many switches of threads as the first.)

use std::sync::PoisonError;

use crate::Result;
use crate::partition::lock;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// Turns at leading. Its lock is held for moments, and nothing is locked under it.
#[derive(Debug, Default)]
pub(super) struct Leader {
    state: Mutex<State>,
    /// Waited on for the end of every other sync.
    even: Condvar,
    odd: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a thread is syncing for all.
    leading: bool,
    /// Number of the running sync, or of the next one when none runs.
    round: u64,
    /// What the running sync covers. Until its leader knows, it is taken to cover everything: whoever it leaves out
    /// comes back.
    covers: u64,
    /// Threads that wait.
    waiting: u32,
}

impl Leader {
    /// Waits for the sync that covers offsets below `end`: true when this thread is to lead it, false when it is done.
    /// With no `end` this thread wants to lead, whatever others have synced.
    ///
    /// Whoever leaves without leading while nobody leads has another waiter look, so that never all wait for a leader.
    pub(super) fn take_turn(
        &self,
        end: Option<u64>,
        durable: impl Fn() -> u64,
        check: impl Fn() -> Result<()>,
    ) -> Result<bool> {
        let mut state = lock(&self.state);
        loop {
            if end.is_some_and(|end| durable() >= end) {
                if !state.leading && state.waiting > 0 {
                    self.turn(state.round).notify_one();
                }
                return Ok(false);
            }
            if let Err(error) = check() {
                self.wake(state);
                return Err(error);
            }
            if !state.leading {
                state.leading = true;
                state.covers = u64::MAX;
                return Ok(true);
            }
            let covered = end.is_some_and(|end| end <= state.covers);
            let turn = self.turn(state.round + u64::from(!covered));
            state.waiting += 1;
            state = turn.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
    }

    /// Says what the sync of the thread that leads will cover.
    pub(super) fn covers(&self, end: u64) {
        lock(&self.state).covers = end;
    }

    /// Ends the turn: wakes those who waited for this sync, and one who waits for the next.
    pub(super) fn finish(&self) {
        let mut state = lock(&self.state);
        let ended = state.round;
        state.leading = false;
        state.round += 1;
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.turn(ended).notify_all();
            self.turn(ended + 1).notify_one();
        }
    }

    /// Has everyone look again, because something happened that ends waiting.
    pub(super) fn wake_all(&self) {
        self.wake(lock(&self.state));
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        let waiting = state.waiting > 0;
        drop(state);
        if waiting {
            self.even.notify_all();
            self.odd.notify_all();
        }
    }

    fn turn(&self, round: u64) -> &Condvar {
        if round.is_multiple_of(2) { &self.even } else { &self.odd }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::Error;

    const LONG: Duration = Duration::from_secs(60);

    fn all_done<T>(done: &mpsc::Receiver<T>, count: usize) {
        for number in 0..count {
            assert!(done.recv_timeout(LONG).is_ok(), "only {number} of {count} came back");
        }
    }

    #[test]
    fn every_thread_gets_its_sync_and_no_sync_runs_beside_another() {
        const THREADS: u32 = 8;
        const ROUNDS: u32 = 2000;
        let leader = Arc::new(Leader::default());
        let [written, durable, running] = [(); 3].map(|()| Arc::new(AtomicU64::new(0)));
        let (done, finished) = mpsc::channel();
        for number in 0..THREADS {
            let (leader, done) = (Arc::clone(&leader), done.clone());
            let (written, durable, running) = (Arc::clone(&written), Arc::clone(&durable), Arc::clone(&running));
            thread::spawn(move || {
                for round in 0..ROUNDS {
                    // Now and then someone wants a sync of his own, as `Log::sync` does.
                    let end = (round % 64 != number).then(|| written.fetch_add(1, Ordering::SeqCst) + 1);
                    if leader.take_turn(end, || durable.load(Ordering::SeqCst), || Ok(())).unwrap() {
                        assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two lead");
                        let covered = written.load(Ordering::SeqCst);
                        leader.covers(covered);
                        thread::yield_now();
                        durable.fetch_max(covered, Ordering::SeqCst);
                        running.fetch_sub(1, Ordering::SeqCst);
                        leader.finish();
                    }
                    assert!(end.is_none_or(|end| durable.load(Ordering::SeqCst) >= end), "not synced");
                }
                done.send(()).unwrap();
            });
        }
        all_done(&finished, THREADS as usize);
    }

    #[test]
    fn a_failure_reaches_everyone_who_waits() {
        let leader = Arc::new(Leader::default());
        let failed = Arc::new(AtomicU64::new(0));
        assert!(leader.take_turn(Some(1), || 0, || Ok(())).unwrap());
        leader.covers(1);
        let (done, finished) = mpsc::channel();
        for end in [1, 1, 2, 2, 2] {
            let (leader, failed, done) = (Arc::clone(&leader), Arc::clone(&failed), done.clone());
            thread::spawn(move || {
                let check = || if failed.load(Ordering::SeqCst) == 0 { Ok(()) } else { Err(Error::Closed) };
                assert!(leader.take_turn(Some(end), || 0, check).is_err());
                done.send(()).unwrap();
            });
        }
        while lock(&leader.state).waiting < 5 {
            thread::yield_now();
        }
        failed.store(1, Ordering::SeqCst);
        leader.finish();
        all_done(&finished, 5);
    }

    #[test]
    fn one_who_needs_no_sync_any_more_hands_the_turn_on() {
        let leader = Arc::new(Leader::default());
        let durable = Arc::new(AtomicU64::new(0));
        assert!(leader.take_turn(Some(1), || 0, || Ok(())).unwrap());
        leader.covers(1);
        let (done, finished) = mpsc::channel();
        // Both wait for the next sync; whichever is woken for it, the other must still lead.
        for end in [2, 3] {
            let (leader, durable, done) = (Arc::clone(&leader), Arc::clone(&durable), done.clone());
            thread::spawn(move || {
                if leader.take_turn(Some(end), || durable.load(Ordering::SeqCst), || Ok(())).unwrap() {
                    durable.store(3, Ordering::SeqCst);
                    leader.finish();
                }
                done.send(()).unwrap();
            });
        }
        while lock(&leader.state).waiting < 2 {
            thread::yield_now();
        }
        durable.store(2, Ordering::SeqCst); // by a transaction, which takes no turn
        leader.finish();
        all_done(&finished, 2);
    }
}

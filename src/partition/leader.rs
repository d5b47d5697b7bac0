//! Who leads the sync: taking turns at group commit.
//!
//! While a sync runs there are two groups of waiters: those whose records it covers, and those who came too late and
//! need the next one. Each waits on a condition of its own, so that the end of a sync wakes the first group, and of the
//! second only the one thread that is to lead next. (Woken together, the second group would go back to sleep, and
//! cost as many switches of threads as the first.)
//!
//! The next sync may be held back until those whom the last one covered are here again, as [`Gathering`] says. Whoever
//! completes them leads; one thread watches that it does not take too long.

use std::mem;
use std::sync::PoisonError;
use std::time::Duration;

use crate::Result;
use crate::partition::gathering::Gathering;
use crate::partition::lock;
use crate::storage::Stopwatch;
use crate::sync::{Condvar, Mutex, MutexGuard, wait_at_most};

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
    /// Since when a thread has been syncing for all.
    leading: Option<Stopwatch>,
    /// Number of the running sync, or of the next one when none runs.
    round: u64,
    /// What the running sync covers. Until its leader knows, it is taken to cover everything: whoever it leaves out
    /// comes back.
    covers: u64,
    /// Threads that wait for an even round, and for an odd one, and have not been told that it is over.
    waiting: [u32; 2],
    gathering: Gathering,
    /// Since when the last sync has been over.
    ended: Option<Stopwatch>,
    /// Whether one of those who wait for the next sync sees to it that it is not held back too long.
    watched: bool,
}

impl State {
    /// Threads that wait for this round: the running or next one, or the one after it.
    fn waiting(&mut self, round: u64) -> &mut u32 {
        let [even, odd] = &mut self.waiting;
        if round.is_multiple_of(2) { even } else { odd }
    }

    fn is_anyone_waiting(&self) -> bool {
        self.waiting != [0, 0]
    }

    /// Whether those who wait may all sleep: one of them leads or watches, or is woken.
    fn is_seen_to(&self) -> bool {
        self.leading.is_some() || self.watched
    }
}

impl Leader {
    /// Waits for the sync that covers offsets below `end`: true when this thread is to lead it, false when it is done.
    /// With no `end` this thread wants to lead, whatever others have synced, and as soon as it can.
    ///
    /// Whoever leaves without leading while nobody leads has another waiter look, so that never all wait for a leader.
    pub(super) fn take_turn(
        &self,
        end: Option<u64>,
        durable: impl Fn() -> u64,
        check: impl Fn() -> Result<()>,
    ) -> Result<bool> {
        let mut state = lock(&self.state);
        if state.leading.is_none() {
            state.gathering.came();
        }
        let mut waited_long = false;
        loop {
            if end.is_some_and(|end| durable() >= end) {
                let round = state.round;
                if !state.is_seen_to() && *state.waiting(round) > 0 {
                    self.turn(round).notify_one();
                }
                return Ok(false);
            }
            if let Err(error) = check() {
                self.wake(state);
                return Err(error);
            }
            let mut patience = None;
            if state.leading.is_none() {
                if end.is_some() && !waited_long {
                    patience = state.gathering.patience(|| state.ended.map_or(Duration::ZERO, |ended| ended.elapsed()));
                }
                if patience.is_none() {
                    state.gathering.begins();
                    state.watched = false;
                    state.covers = u64::MAX;
                    state.leading = Some(Stopwatch::start());
                    return Ok(true);
                }
                patience = patience.filter(|_| !mem::replace(&mut state.watched, true));
            }
            let covered = state.leading.is_none() || end.is_some_and(|end| end <= state.covers);
            let round = state.round + u64::from(!covered);
            (state, waited_long) = self.wait(state, round, patience);
        }
    }

    /// Waits to be woken for this round, as the one who watches where it is with `patience`: whether it has watched
    /// long enough, and nobody leads yet.
    fn wait<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        round: u64,
        patience: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        *state.waiting(round) += 1;
        let turn = self.turn(round);
        let (mut state, long) = match patience {
            None => (turn.wait(state).unwrap_or_else(PoisonError::into_inner), false),
            Some(patience) => wait_at_most(turn, &self.state, state, patience),
        };
        if state.round <= round {
            // Nobody has counted it out.
            *state.waiting(round) -= 1;
        }
        let watching = patience.is_some() && state.round == round && state.leading.is_none();
        if watching {
            state.watched = false;
        }
        (state, watching && long)
    }

    /// Says what the sync of the thread that leads will cover.
    pub(super) fn covers(&self, end: u64) {
        lock(&self.state).covers = end;
    }

    /// Ends the turn: wakes those who waited for this sync, and one who waits for the next.
    pub(super) fn finish(&self) {
        let mut state = lock(&self.state);
        let took = state.leading.take().map_or(Duration::ZERO, |since| since.elapsed());
        let ended = state.round;
        state.round += 1;
        let covered = mem::take(state.waiting(ended));
        let late = *state.waiting(ended + 1);
        state.gathering.ended(covered + 1, late, took);
        state.ended = Some(Stopwatch::start());
        drop(state);
        if late > 0 {
            self.turn(ended + 1).notify_one();
        }
        if covered > 0 {
            self.turn(ended).notify_all();
        }
    }

    /// Has everyone look again, because something happened that ends waiting.
    pub(super) fn wake_all(&self) {
        self.wake(lock(&self.state));
    }

    fn wake(&self, state: MutexGuard<'_, State>) {
        let waiting = state.is_anyone_waiting();
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

    const LONG: Duration = Duration::from_secs(30);

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
        assert!(!lock(&leader.state).is_anyone_waiting(), "someone is still counted");
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
        while lock(&leader.state).waiting.iter().sum::<u32>() < 5 {
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
        while lock(&leader.state).waiting.iter().sum::<u32>() < 2 {
            thread::yield_now();
        }
        durable.store(2, Ordering::SeqCst); // by a transaction, which takes no turn
        leader.finish();
        all_done(&finished, 2);
    }

    /// A sync that is held back, and threads that want a turn at it.
    struct HeldBack {
        leader: Arc<Leader>,
        durable: Arc<AtomicU64>,
    }

    impl HeldBack {
        fn until(awaited: u32, patience: Duration) -> Self {
            let leader = Arc::new(Leader::default());
            lock(&leader.state).gathering = Gathering::of(awaited, patience);
            Self { leader, durable: Arc::default() }
        }

        /// What a thread of its own is told that wants a turn.
        fn wanted(&self, end: Option<u64>) -> mpsc::Receiver<bool> {
            let (told, tells) = mpsc::channel();
            let (leader, durable) = (Arc::clone(&self.leader), Arc::clone(&self.durable));
            thread::spawn(move || {
                told.send(leader.take_turn(end, || durable.load(Ordering::SeqCst), || Ok(())).unwrap()).unwrap();
            });
            tells
        }

        /// The same, once it waits.
        fn waited_for(&self, end: u64) -> mpsc::Receiver<bool> {
            let tells = self.wanted(Some(end));
            while !lock(&self.leader.state).is_anyone_waiting() {
                thread::yield_now();
            }
            tells
        }

        fn synced(&self, end: u64) {
            self.durable.store(end, Ordering::SeqCst);
            self.leader.finish();
        }
    }

    #[test]
    fn a_sync_is_held_back_until_the_awaited_are_here_and_the_last_of_them_leads() {
        let sync = HeldBack::until(2, LONG);
        let first = sync.waited_for(1);
        assert!(sync.wanted(Some(2)).recv_timeout(LONG).unwrap(), "the last one leads");
        sync.synced(2);
        assert!(!first.recv_timeout(LONG).unwrap(), "one sync was for both");
    }

    #[test]
    fn who_waited_long_enough_leads() {
        let sync = HeldBack::until(9, Duration::from_millis(1));
        assert!(sync.wanted(Some(1)).recv_timeout(LONG).unwrap());
    }

    #[test]
    fn who_comes_long_after_a_sync_is_not_held_back() {
        let sync = HeldBack::until(9, Duration::from_millis(1));
        let ended = Stopwatch::start();
        lock(&sync.leader.state).ended = Some(ended);
        while ended.elapsed() < Duration::from_millis(1) {
            thread::yield_now();
        }
        let looks = AtomicU64::new(0);
        let durable = || {
            looks.fetch_add(1, Ordering::SeqCst);
            0
        };
        assert!(sync.leader.take_turn(Some(1), durable, || Ok(())).unwrap());
        assert_eq!(looks.into_inner(), 1, "it waited, and looked again");
    }

    #[test]
    fn what_ends_waiting_ends_it_also_while_a_sync_is_held_back() {
        let sync = HeldBack::until(9, LONG);
        let first = sync.waited_for(1);
        sync.durable.store(1, Ordering::SeqCst); // by a transaction, which takes no turn
        sync.leader.wake_all();
        assert!(!first.recv_timeout(LONG).unwrap());
        let state = lock(&sync.leader.state);
        assert!(!state.watched && !state.is_anyone_waiting());
    }

    #[test]
    fn who_wants_a_sync_of_his_own_is_not_held_back() {
        let sync = HeldBack::until(9, LONG);
        let first = sync.waited_for(1);
        assert!(sync.wanted(None).recv_timeout(LONG).unwrap());
        sync.synced(1);
        assert!(!first.recv_timeout(LONG).unwrap());
        assert!(lock(&sync.leader.state).ended.is_some(), "who comes next could not know how long ago it was");
    }
}

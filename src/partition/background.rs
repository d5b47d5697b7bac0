//! One thread a store for what no caller should wait for: sealing, syncing within an interval, compaction, clean-up.
//!
//! Where there is no thread, because the storage wants a run that can be repeated exactly, or the system has none to
//! give, the work is done by whoever calls in, between two calls of the public interface: never where it was asked for,
//! since locks are held there.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use crate::partition::latch::lock;
use crate::storage::{Deadline, Storage};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// What can be asked for without an allocation, since appends ask for it: work that its owner knows already.
pub(crate) trait Chore: Send + Sync {
    /// Does it.
    fn run(&self);
}

enum Job {
    Once(Box<dyn FnOnce() + Send>),
    Chore(Weak<dyn Chore>),
}

impl Job {
    fn run(self) {
        match self {
            Self::Once(job) => job(),
            Self::Chore(owner) => {
                if let Some(owner) = owner.upgrade() {
                    owner.run();
                }
            }
        }
    }
}

/// So many jobs may wait before the list has to grow.
const WAITING: usize = 64;

/// Runs jobs one after the other, on a thread of its own that starts with the first job.
#[derive(Debug)]
pub(crate) struct Background {
    storage: Arc<dyn Storage>,
    queue: Arc<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// Protects the lists below. A job runs without it.
    state: Mutex<State>,
    changed: Condvar,
    /// Whether the callers have to do the work.
    left_to_callers: AtomicBool,
}

struct State {
    ready: VecDeque<Job>,
    later: Vec<(Due, Job)>,
    worker: Worker,
    busy: bool,
    stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    NotStarted,
    Thread,
    /// Jobs run on the threads that call in.
    Caller,
}

/// When a delayed job is due: by the thread's clock, or by the clock of a storage that keeps its own time.
#[derive(Debug, Clone, Copy)]
struct Due {
    deadline: Deadline,
    millis: u64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("ready", &self.ready.len())
            .field("later", &self.later.len())
            .field("worker", &self.worker)
            .field("stopped", &self.stopped)
            .finish_non_exhaustive()
    }
}

impl Background {
    pub(crate) fn new(storage: Arc<dyn Storage>) -> Self {
        let state = State {
            ready: VecDeque::with_capacity(WAITING),
            later: Vec::new(),
            worker: Worker::NotStarted,
            busy: false,
            stopped: false,
        };
        let queue =
            Queue { state: Mutex::new(state), changed: Condvar::new(), left_to_callers: AtomicBool::new(false) };
        Self { storage, queue: Arc::new(queue) }
    }

    /// Starts the thread, so that asking for work later costs no more than a wake-up.
    pub(crate) fn ready(&self) {
        drop(self.started());
    }

    /// Runs a chore as soon as the jobs before it are done. Allocates nothing, once the thread was started.
    pub(crate) fn ask(&self, owner: Weak<dyn Chore>) {
        let mut state = self.started();
        if !state.stopped {
            state.ready.push_back(Job::Chore(owner));
            drop(state);
            self.queue.changed.notify_all();
        }
    }

    /// Runs `job` as soon as the jobs before it are done.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        self.submit_after(Duration::ZERO, job);
    }

    /// Runs `job` when `delay` has passed.
    pub(crate) fn submit_after(&self, delay: Duration, job: impl FnOnce() + Send + 'static) {
        let mut state = self.started();
        if state.stopped {
            return;
        }
        let job = Job::Once(Box::new(job));
        if delay.is_zero() {
            state.ready.push_back(job);
        } else {
            let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            let due = Due { deadline: Deadline::after(delay), millis: self.storage.now().saturating_add(millis) };
            state.later.push((due, job));
        }
        drop(state);
        self.queue.changed.notify_all();
    }

    /// Does the work that is due, where it is left to the callers. To be called without a lock held; costs a load
    /// elsewhere.
    #[inline]
    pub(crate) fn lend_a_hand(&self) {
        if self.queue.left_to_callers.load(Ordering::Relaxed) {
            self.run_due();
        }
    }

    #[cold]
    fn run_due(&self) {
        loop {
            let mut state = lock(&self.queue.state);
            if state.worker != Worker::Caller || state.busy || state.stopped {
                return;
            }
            let now = self.storage.now();
            state.promote(|due| due.millis <= now);
            let Some(job) = state.ready.pop_front() else { return };
            state.busy = true;
            drop(state);
            job.run();
            lock(&self.queue.state).busy = false;
        }
    }

    /// Drops what has not begun, and waits for the job that has.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.queue.state);
        state.stopped = true;
        let dropped: Vec<Job> = state.ready.drain(..).collect();
        let delayed: Vec<(Due, Job)> = state.later.drain(..).collect();
        self.queue.changed.notify_all();
        while state.busy && state.worker == Worker::Thread && !on_worker() {
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        // What a job holds may take locks when it is dropped.
        drop((dropped, delayed));
    }

    fn started(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.queue.state);
        if state.worker == Worker::NotStarted && !state.stopped {
            state.worker = self.start();
        }
        state
    }

    fn start(&self) -> Worker {
        let queue = Arc::clone(&self.queue);
        if matches!(self.storage.spawn("placemark", Box::new(move || queue.work())), Ok(true)) {
            return Worker::Thread;
        }
        self.queue.left_to_callers.store(true, Ordering::Relaxed);
        Worker::Caller
    }
}

impl State {
    fn promote(&mut self, is_due: impl Fn(&Due) -> bool) {
        let mut at = 0;
        while let Some((due, _)) = self.later.get(at) {
            if is_due(due) {
                self.ready.push_back(self.later.remove(at).1);
            } else {
                at += 1;
            }
        }
    }
}

crate::sync::thread_local! {
    static ON_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a background thread: the last handle of a store may be dropped by a job, which then must not wait
/// for itself.
fn on_worker() -> bool {
    ON_WORKER.with(Cell::get)
}

impl Queue {
    fn work(&self) {
        ON_WORKER.with(|on_worker| on_worker.set(true));
        let mut state = lock(&self.state);
        while !state.stopped {
            state.promote(|due| due.deadline.passed());
            if let Some(job) = state.ready.pop_front() {
                state.busy = true;
                drop(state);
                job.run();
                state = lock(&self.state);
                state.busy = false;
                self.changed.notify_all();
                continue;
            }
            let soonest = state.later.iter().map(|(due, _)| due.deadline.remaining()).min();
            state = match soonest {
                Some(wait) => self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

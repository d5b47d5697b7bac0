//! Locks and atomics, from one place, so that a test can put its own scheduler under the code as it is.
//!
//! With `--cfg placemark_shuttle` they are those of the [shuttle](https://docs.rs/shuttle) crate, which runs one thread at a
//! time and chooses at each of them who goes on: tests/interleavings.rs. Otherwise they are std's. What only counts or
//! owns (`Arc`, `Weak`, `OnceLock`) is std's in any case, and so is what the simulated disk uses, which calls nothing of
//! ours while it holds a lock.

use std::time::Duration;

#[cfg(placemark_shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic},
    thread_local,
};
#[cfg(not(placemark_shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic},
    thread_local,
};

/// Waits to be woken, but at most so long, where nobody need ever come: whether it was so long.
#[cfg(not(placemark_shuttle))]
pub(crate) fn wait_at_most<'a, T>(
    condvar: &Condvar,
    _: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    longest: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let (guard, wait) = condvar.wait_timeout(guard, longest).unwrap_or_else(std::sync::PoisonError::into_inner);
    (guard, wait.timed_out())
}

/// The same: waits of shuttle never time out, so that here the time is over as soon as others have had a turn.
#[cfg(placemark_shuttle)]
pub(crate) fn wait_at_most<'a, T>(
    _: &Condvar,
    mutex: &'a Mutex<T>,
    guard: MutexGuard<'a, T>,
    _: Duration,
) -> (MutexGuard<'a, T>, bool) {
    drop(guard);
    shuttle::thread::yield_now();
    (mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner), true)
}

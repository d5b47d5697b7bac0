//! Locks and atomics, from one place, so that a test can put its own scheduler under the code as it is.
//!
//! With `--cfg placemark_shuttle` they are those of the [shuttle](https://docs.rs/shuttle) crate, which runs one thread at a
//! time and chooses at each of them who goes on: tests/interleavings.rs. Otherwise they are std's. What only counts or
//! owns (`Arc`, `Weak`, `OnceLock`) is std's in any case, and so is what the simulated disk uses, which calls nothing of
//! ours while it holds a lock.

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

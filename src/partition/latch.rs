//! The one way in which a failure stops what follows it.

use std::path::{Path, PathBuf};
use std::sync::{OnceLock, PoisonError};

use crate::broken::broken;
use crate::sync::{Mutex, MutexGuard};
use crate::{Error, Result};

/// Remembers the first failed write or sync. Every mutation asks it first, and nothing opens it again: after a failed
/// sync the kernel counts pages as clean that never reached the disk, so that only a new opening, which reads and
/// writes again what is there, can tell what is durable.
#[derive(Debug, Default)]
pub(crate) struct Latch {
    failure: OnceLock<(PathBuf, String)>,
}

impl Latch {
    /// `Failed` when something failed before.
    #[inline]
    pub(crate) fn check(&self) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(_) if broken("latch ignored") => Ok(()),
            Some((path, reason)) => Err(Error::Failed { path: path.clone(), reason: reason.clone() }),
        }
    }

    /// Whether something failed before.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.failure.get().is_some() && !broken("latch ignored")
    }

    /// Closes the latch on an error, which is handed on.
    pub(crate) fn fail(&self, path: &Path, error: Error) -> Error {
        if !matches!(error, Error::Failed { .. } | Error::Closed) {
            // Only the first failure is kept: it is the cause of the others.
            let _ = self.failure.set((path.to_path_buf(), error.to_string()));
        }
        error
    }

    /// Closes the latch because of what failed elsewhere.
    pub(crate) fn close(&self, error: &Error) {
        if let Error::Failed { path, reason } = error {
            let _ = self.failure.set((path.clone(), reason.clone()));
        }
    }

    /// Runs a mutation: refused when something failed before, and the last one when it fails itself.
    pub(crate) fn guard<T>(&self, path: &Path, mutation: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check()?;
        mutation().map_err(|error| self.fail(path, error))
    }
}

/// Locks. No code of an application runs under a lock of this crate, and our own does not panic there, so that a
/// poisoned lock can only come from a failed assertion of a test; its data is as good as ever.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

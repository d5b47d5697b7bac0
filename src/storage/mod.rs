//! Everything outside the process: files, mappings, directories, the lock, the clock, random numbers and threads.
//!
//! The rest of the crate reaches them only through [`Storage`] and [`File`], so that it runs the same over the real
//! [`Disk`] and over the simulated [`SimDisk`], which loses what was not synced and fails where it is told to.
//!
//! This module is a seam for tests, of this crate and of programs that use it; its details may change with any version.
//!
//! # What is assumed of a disk
//!
//! 1. After [`File::sync`] returned `Ok`, the bytes and the length that the file had before the call survive power loss.
//! 2. After [`Storage::sync_dir`] returned `Ok`, the names in that directory survive power loss. A rename is atomic: after
//!    a crash the new name holds the old file or the new one.
//! 3. What was not synced may survive or not, sector by sector, in any order; a sector that does not survive reads as it
//!    was when last synced, or as zeros when it never was.
//! 4. Rewriting a sector with the bytes it has does not destroy them at power loss.
//! 5. Bytes allocated and never written read as zeros.
//! 6. What a process wrote survives its own death, as long as the kernel lives.

mod disk;
mod map;
mod replace;
mod sim;
#[cfg(test)]
mod tests;
mod wait;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use crate::types::CacheIdentity;
pub use disk::Disk;
pub use map::Map;
pub(crate) use map::{MapWriter, Share, Shares};
pub(crate) use replace::replace;
pub use sim::{Crash, Fault, Keep, Lie, Moment, Operation, SimDisk, Times};
pub(crate) use wait::{Deadline, Signal, Stopwatch, panicking};

/// How to open a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file, to read and write; one of that name must not exist.
    Create,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listed {
    /// The name, as far as it is UTF-8; other names are foreign, and given with replacement characters.
    pub name: String,
    /// What it names; symbolic links are not followed.
    pub kind: Kind,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, a device, a socket.
    Other,
}

/// An exclusive lock on a store, given back when dropped, or by the kernel when the process dies.
pub trait Lock: Debug + Send + Sync {}

/// The world outside.
pub trait Storage: Debug + Send + Sync + 'static {
    /// Opens a file. A symbolic link in its last part is refused.
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>>;

    /// The same path from the root, so that it stays the same whatever the process makes its working directory later.
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        std::path::absolute(path)
    }

    /// What stands at `path`, without following a symbolic link; `None` when nothing does.
    fn kind(&self, path: &Path) -> io::Result<Option<Kind>>;

    /// The names in a directory, sorted.
    fn list(&self, path: &Path) -> io::Result<Vec<Listed>>;

    /// Makes a directory; its parent must exist, and it must not.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory, replacing a file that has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file; whoever has it open or mapped keeps it.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Locks the file at `path`, making it when it is missing; `None` when someone else holds the lock.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Whether the file system at `path` overwrites allocated blocks in place, so that a store into a mapping of them
    /// cannot run out of space.
    fn overwrites_in_place(&self, path: &Path) -> io::Result<bool>;

    /// Whose page cache the file system at `path` has.
    fn cache_identity(&self, path: &Path) -> CacheIdentity;

    /// Milliseconds since 1970, at most 10 ms old, in a few nanoseconds.
    fn now(&self) -> u64;

    /// A number that no one else has.
    fn random(&self) -> u128;

    /// Starts a thread for `job`, or returns `Ok(false)` where background work is to be done by whoever asks for it,
    /// so that a run can be repeated exactly.
    fn spawn(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<bool>;

    /// Waits, for at most `longest`; the simulated disk lets its own clock run instead.
    fn sleep(&self, longest: Duration);
}

/// An open file.
pub trait File: Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Reads up to `buffer.len()` bytes from `at`; fewer only at the end of the file. Goes through `read(2)`, so that a
    /// bad sector is an error.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `at`, making the file longer where needed.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Makes the file `len` bytes long where it is shorter, and allocates blocks for all of it, so that neither a
    /// write below `len` nor a store into a mapping of it can run out of space where blocks are overwritten in place.
    /// New bytes are zero. With `from` the caller says that what lies below has been allocated before.
    ///
    /// Where the file system cannot, the error is of kind [`Unsupported`](io::ErrorKind::Unsupported), and the caller
    /// has to do with [`set_len`](Self::set_len) and [`write_at`](Self::write_at).
    fn allocate(&self, from: u64, len: u64) -> io::Result<()>;

    /// Sets the length; what is cut is gone, what is added is zero and not allocated.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// `fdatasync`: makes the bytes and the length durable.
    fn sync(&self) -> io::Result<()>;

    /// Tells the kernel that reads will be in no order, so that it reads nothing ahead, and drops clean pages from
    /// `from` on. Only advice.
    fn forget(&self, from: u64);

    /// Maps the first `len` bytes, shared, writable if the file is and `writable` says so. The mapping may be longer
    /// than the file; bytes past the end of the file must not be touched, which [`Map`] sees to.
    fn map(&self, len: usize, writable: bool) -> io::Result<Map>;

    /// The same file without a descriptor of its own, kept by a mapping of it instead, so that as many files can be
    /// written to as can be mapped. [`sync`](Self::sync) goes through the mapping, and covers the bytes from `from` on: the
    /// caller says that those below are durable already. The rest opens the file at `path` again. `None` where that is no
    /// use.
    fn kept_by(&self, map: &Arc<Map>, path: &Path, from: usize) -> Option<Arc<dyn File>> {
        let _ = (map, path, from);
        None
    }
}

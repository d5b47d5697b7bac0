//! What the test files share: scratch directories, the write mode under test, time-outs, and how to read a log whole.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

pub(crate) mod child;
pub(crate) mod files;
pub(crate) mod producing;

use std::env::{self, VarError};
use std::panic;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use placemark::{Durability, Entry, Reader, Store, StoreOptions, WriteMode};
use tempfile::TempDir;

/// Long enough for what must happen; a test that waits so long has failed.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// Long enough to see that nothing comes.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

/// A directory of the test's own, removed when dropped.
pub(crate) fn scratch() -> TempDir {
    tempfile::Builder::new().prefix("placemark-").tempdir().unwrap()
}

/// Options with the write mode that `PLACEMARK_TEST_WRITE_MODE` asks for, so that the suite runs in each.
pub(crate) fn options() -> StoreOptions {
    match env::var("PLACEMARK_TEST_WRITE_MODE").as_deref() {
        Ok("mapped") => Store::options().write_mode(WriteMode::Mapped),
        Ok("pwrite") => Store::options().write_mode(WriteMode::Pwrite),
        Ok("auto") | Err(VarError::NotPresent) => Store::options(),
        other => panic!("PLACEMARK_TEST_WRITE_MODE is mapped, pwrite or auto, not {other:?}"),
    }
}

/// The same, acknowledging from the page cache, where the disk is not what is tested.
pub(crate) fn in_cache() -> StoreOptions {
    options().durability(Durability::Os)
}

/// Runs `work` in a thread of its own and fails when it takes longer than `limit`: a hang becomes a failure.
pub(crate) fn within<T: Send + 'static>(limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, finished) = mpsc::channel();
    let worker = thread::spawn(move || {
        let result = work();
        // Nobody listens any more when the time was up.
        let _ = done.send(());
        result
    });
    match finished.recv_timeout(limit) {
        Err(RecvTimeoutError::Timeout) => panic!("not done after {limit:?}"),
        Ok(()) | Err(RecvTimeoutError::Disconnected) => {
            worker.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
        }
    }
}

/// All that a reader has now.
pub(crate) fn entries(reader: Reader) -> Vec<Entry> {
    reader.map(Result::unwrap).collect()
}

/// The values that a reader has now.
pub(crate) fn values(reader: Reader) -> Vec<Vec<u8>> {
    reader.map(|entry| entry.unwrap().value().to_vec()).collect()
}

/// The offsets that a reader has now.
pub(crate) fn offsets(reader: Reader) -> Vec<u64> {
    reader.map(|entry| entry.unwrap().offset()).collect()
}

/// Numbers that look random and are the same in every run (xorshift64*).
#[derive(Debug)]
pub(crate) struct Numbers(u64);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }

    /// So many bytes.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| u8::try_from(self.below(256)).unwrap()).collect()
    }
}

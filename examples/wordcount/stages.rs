//! What the stages tell one another: how far each is, and when to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Outcome;

/// Counters and flags that all stages share.
#[derive(Debug)]
pub(crate) struct Stages {
    size: u64,
    began_at: u64,
    position: AtomicU64,
    lines: AtomicU64,
    words: AtomicU64,
    fed: AtomicBool,
    split: AtomicBool,
    failed: AtomicBool,
}

impl Stages {
    pub(crate) fn new(size: u64, began_at: u64) -> Self {
        Self {
            size,
            began_at,
            position: AtomicU64::new(began_at),
            lines: AtomicU64::new(0),
            words: AtomicU64::new(0),
            fed: AtomicBool::new(false),
            split: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        }
    }

    /// Runs a stage. When it fails, or panics, the others stop too, instead of waiting for it.
    pub(crate) fn run<T>(&self, stage: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let alarm = Alarm { stages: self };
        let done = stage()?;
        std::mem::forget(alarm);
        Ok(done)
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// The feeder has committed so many lines, up to this position in the file.
    pub(crate) fn fed_to(&self, position: u64, lines: u64) {
        self.position.store(position, Ordering::Relaxed);
        self.lines.fetch_add(lines, Ordering::Relaxed);
    }

    /// The whole file is in the log.
    pub(crate) fn all_is_fed(&self) {
        self.fed.store(true, Ordering::Release);
    }

    pub(crate) fn is_all_fed(&self) -> bool {
        self.fed.load(Ordering::Acquire)
    }

    /// A splitter has committed so many words.
    pub(crate) fn split_words(&self, words: u64) {
        self.words.fetch_add(words, Ordering::Relaxed);
    }

    /// Every word is in the log.
    pub(crate) fn all_is_split(&self) {
        self.split.store(true, Ordering::Release);
    }

    pub(crate) fn is_all_split(&self) -> bool {
        self.split.load(Ordering::Acquire)
    }

    /// Size of the file in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// How far the feeder is in the file.
    pub(crate) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Bytes and lines fed, and words split, since this process began.
    pub(crate) fn this_run(&self) -> (u64, u64, u64) {
        let bytes = self.position().saturating_sub(self.began_at);
        (bytes, self.lines.load(Ordering::Relaxed), self.words.load(Ordering::Relaxed))
    }
}

/// Tells the other stages when one ends too early, also by a panic.
struct Alarm<'a> {
    stages: &'a Stages,
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.stages.failed.store(true, Ordering::Release);
    }
}

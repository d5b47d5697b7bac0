//! The last stage: counts what stands in the logs.
//!
//! It belongs to no group and remembers nothing: each run reads both logs from their beginning. Every line and every word
//! stands in its log exactly once, so that whatever happened before, the totals are right.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Duration;

use placemark::{Log, StartAt};

use crate::Outcome;
use crate::progress::Progress;
use crate::stages::Stages;

/// How long to wait for a word before looking whether there will be any.
const WAIT: Duration = Duration::from_millis(50);

/// Words between two looks at the clock.
const WORDS_AT_ONCE: usize = 4096;

/// What was counted.
#[derive(Debug, Default)]
pub(crate) struct Count {
    times: HashMap<Vec<u8>, u64>,
    words: u64,
    lines: u64,
}

impl Count {
    /// Words, as `wc -w` counts them.
    pub(crate) fn words(&self) -> u64 {
        self.words
    }

    /// Newlines, as `wc -l` counts them.
    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }

    pub(crate) fn different(&self) -> usize {
        self.times.len()
    }

    /// The words seen most, and how often; among equals in the order of their bytes.
    pub(crate) fn most_seen(&self, most: usize) -> Vec<(&[u8], u64)> {
        let mut all: Vec<(&[u8], u64)> = self.times.iter().map(|(word, times)| (word.as_slice(), *times)).collect();
        all.sort_unstable_by_key(|(word, times)| (Reverse(*times), *word));
        all.truncate(most);
        all
    }

    fn add_word(&mut self, word: &[u8]) {
        self.words += 1;
        match self.times.get_mut(word) {
            Some(times) => *times += 1,
            None => {
                self.times.insert(word.to_vec(), 1);
            }
        }
    }

    /// A long line stands in several records, and the last line of a file may have no newline: only newlines count.
    fn add_line(&mut self, line: &[u8]) {
        self.lines += u64::from(line.ends_with(b"\n"));
    }
}

/// Counts until everything is split and counted.
pub(crate) fn count(lines: &Log, words: &Log, stages: &Stages, progress: &mut Progress<'_>) -> Outcome<Count> {
    let mut count = Count::default();
    let mut split = words.read(StartAt::Earliest)?;
    let mut fed = lines.read(StartAt::Earliest)?;
    while !stages.has_failed() {
        // Asked before looking for words: what was split until then is found.
        let last = stages.is_all_split();
        for entry in fed.by_ref() {
            count.add_line(entry?.value());
        }
        let first = split.recv_timeout(WAIT)?;
        let ended = first.is_none();
        for entry in first.into_iter().map(Ok).chain(split.by_ref().take(WORDS_AT_ONCE)) {
            count.add_word(entry?.value());
        }
        progress.show(count.words);
        if last && ended {
            break;
        }
    }
    progress.end();
    Ok(count)
}

//! The second stage: from the log `lines` to the log `words`, exactly once.

use std::time::Duration;

use placemark::{Batch, Error, ExactlyOnce, Log, StartAt, Store};

use crate::Outcome;
use crate::stages::Stages;

const GROUP: &str = "splitters";

/// Lines in a transaction, to begin with.
const LINES_AT_ONCE: usize = 1000;

/// Bytes in a transaction, with what a record takes beside its word: half of what a transaction takes for sure, so that
/// the words of the longest line fit in any case.
const BYTES_AT_ONCE: usize = 12 << 20;
const BESIDE_A_WORD: usize = 16;

/// How long a splitter waits for lines before it looks whether there will be any.
const WAIT: Duration = Duration::from_millis(50);

/// One splitter: it ends when all lines have been split, by whichever member of the group.
pub(crate) fn split(store: &Store, lines: &Log, words: &Log, stages: &Stages) -> Outcome {
    let mut at_once = LINES_AT_ONCE;
    // A batch is delivered again, as it was, until it is settled; a consumer with smaller ones gets past a place where
    // the lines are so long that the words of so many do not fit in a transaction.
    while !work(store, lines, words, stages, at_once)? {
        at_once = (at_once / 2).max(1);
    }
    Ok(())
}

/// Whether all is done; otherwise the batches are too large.
fn work(store: &Store, lines: &Log, words: &Log, stages: &Stages, at_once: usize) -> Outcome<bool> {
    let mut consumer = lines.consumer(GROUP).max_poll_records(at_once).exactly_once()?;
    while !stages.has_failed() {
        match consumer.poll(WAIT)? {
            Some(batch) => match split_batch(store, words, batch) {
                Ok(Some(count)) => stages.split_words(count),
                Ok(None) => return Ok(false),
                // The lines have a new owner, who splits them: nothing of ours was written.
                Err(Error::Fenced) => {}
                Err(error) => return Err(error.into()),
            },
            None if stages.is_all_fed() && is_all_split(store, lines)? => break,
            None => {}
        }
    }
    consumer.close()?;
    Ok(true)
}

/// Writes the words of a batch, in one transaction with the group's placemark: both or neither. How many there were;
/// `None` when they are too many and a smaller batch is possible.
fn split_batch(store: &Store, words: &Log, batch: Batch<ExactlyOnce>) -> placemark::Result<Option<u64>> {
    let mut txn = store.transaction();
    let (mut count, mut bytes) = (0, 0);
    for line in &batch {
        for word in line.value().split(|byte| is_space(*byte)).filter(|word| !word.is_empty()) {
            txn.append(words, word)?;
            count += 1;
            bytes += word.len() + BESIDE_A_WORD;
        }
        if bytes > BYTES_AT_ONCE && batch.len() > 1 {
            return Ok(None);
        }
    }
    txn.commit_with(batch)?;
    Ok(Some(count))
}

/// Whether the group has passed every line.
fn is_all_split(store: &Store, lines: &Log) -> Outcome<bool> {
    let placemarks = store.group(GROUP).placemarks()?;
    for partition in 0..crate::PARTITIONS {
        let passed = match placemarks.iter().find(|at| at.log == "lines" && at.partition == partition) {
            Some(at) => at.lag == 0,
            // The group has settled nothing there: there must be nothing.
            None => lines.partition(partition)?.read(StartAt::Earliest)?.next().transpose()?.is_none(),
        };
        if !passed {
            return Ok(false);
        }
    }
    Ok(true)
}

/// White space as C has it, and so `wc`: with the vertical tab, which [`u8::is_ascii_whitespace`] leaves out.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

//! Records that fail again and again: their attempts are counted, the one that fails is found, and passed.
//!
//! What is handed out is written to the side log first, as a [`Trial`]. If the placemark has not moved by the next time,
//! it has failed, whether it was dropped or its process died. A batch that failed comes again in halves, down to single
//! records; what goes well comes in doubles again. So only a record that was alone is ever counted, and passed.

use std::fmt::Display;

use crate::broken::broken;
use crate::consumer::{Consumer, Filled};
use crate::format::Trial;
use crate::group::{BatchId, Fetch, Fetched};
use crate::{Entry, Log, Payload, Record, Result, Transaction};

/// The longest reason that is kept, in bytes.
const REASON_BYTES: usize = 1024;

const LOG: &str = "placemark-log";
const PARTITION: &str = "placemark-partition";
const OFFSET: &str = "placemark-offset";
const REASON: &str = "placemark-reason";
const ATTEMPTS: &str = "placemark-attempts";

/// How often a record may fail, and what becomes of it then.
#[derive(Debug, Clone)]
pub(super) struct Attempts {
    pub(super) most: u32,
    /// `None` to skip it.
    pub(super) dead_letter: Option<Log>,
}

/// How a batch was handed out, where attempts are counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    /// For a record on its own: its attempts, this one included. Otherwise 0.
    pub(super) attempts: u64,
    pub(super) most: u32,
}

/// How much may be handed out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) records: usize,
    pub(super) until: u64,
}

impl Limits {
    pub(super) fn new(records: usize, until: Option<u64>) -> Self {
        Self { records, until: until.unwrap_or(u64::MAX) }
    }

    /// The same from this offset on, as far as what was tried last allows it; `version` is that of the placemark now.
    fn after(self, last: Option<Trial>, version: u64, from: u64) -> Self {
        let Some(last) = last.filter(|last| concerns(last, version, from)) else { return self };
        let records = if from > last.offset { last.records.saturating_mul(2) } else { (last.records / 2).max(1) };
        let records = usize::try_from(records).unwrap_or(usize::MAX).min(self.records);
        Self { records, until: self.until.min(last.until) }
    }
}

/// Whether a record at this offset is under suspicion. Where the group has gone back since, nothing is.
fn concerns(last: &Trial, version: u64, offset: u64) -> bool {
    offset < last.until && (offset > last.offset || last.version == version)
}

/// What is tried with a batch of so many records that begins and ends here.
fn next(last: Option<Trial>, version: u64, head: u64, records: usize, end: u64) -> Trial {
    let last = last.filter(|last| concerns(last, version, head));
    let attempts = match records {
        1 => 1 + last.filter(|last| last.offset == head).map_or(0, |last| last.attempts),
        _ => 0,
    };
    let until = last.map_or(end, |last| last.until.max(end));
    Trial { offset: head, records: records as u64, attempts, until, version }
}

impl<M> Consumer<M> {
    /// How much of a partition may be handed out together.
    pub(super) fn limits(&self, fetch: &Fetch) -> Limits {
        let limits = Limits::new(self.choices.max_poll_records, fetch.until);
        if self.attempts.is_none() {
            return limits;
        }
        let (last, version) = self.subscription.store.side().trial(self.subscription.key(fetch.partition));
        limits.after(last, version, fetch.from)
    }

    /// How often the record that comes next has failed, if it may not be tried again.
    pub(super) fn spent(&self, partition: u32, entries: &[Entry]) -> Option<u64> {
        let (attempts, [entry]) = (self.attempts.as_ref()?, entries) else { return None };
        let (last, version) = self.subscription.store.side().trial(self.subscription.key(partition));
        last.filter(|last| last.offset == entry.offset() && last.version == version)
            .map(|last| last.attempts)
            .filter(|failed| *failed >= u64::from(attempts.most))
    }

    /// Notes what is about to be handed out, with the group's lock held, to be waited for without it.
    pub(super) fn note(&self, partition: u32, entries: &[Entry], end: u64) -> Option<Result<Noted<'_>>> {
        let (attempts, head) = (self.attempts.as_ref()?, entries.first()?);
        let (side, key) = (self.subscription.store.side(), self.subscription.key(partition));
        let (last, _) = side.trial(key);
        let mut tried = Tried { attempts: 0, most: attempts.most };
        let noted = side.note_trial(key, |version| {
            let trial = next(last, version, head.offset(), entries.len(), end);
            tried.attempts = trial.attempts;
            trial
        });
        Some(noted.map(|noted| (noted, tried)))
    }

    /// Passes a record that has failed too often. With a dead-letter log that is one transaction: the record is there, and
    /// the placemark behind it, or neither is, whatever crashes.
    pub(super) fn pass(&mut self, fetch: Fetch, filled: &Filled, failed: u64) -> Result<()> {
        let partition = fetch.partition;
        let mut members = self.subscription.group.members();
        let records = Fetched::Records { end: filled.range.end, deadline: None };
        let batch = members.end_fetch(fetch, records).and_then(|delivered| delivered.batch);
        drop(members);
        let (Some(batch), [entry]) = (batch, &filled.entries[..]) else { return Ok(()) };
        *self.skipped.entry(partition).or_default() += filled.skipped;
        let passed = self.try_pass(partition, batch, entry, filled.range.end, failed);
        if passed.is_err() {
            // It comes next again, and nothing of it has been seen.
            self.subscription.drop_batch(partition, batch);
        }
        passed
    }

    fn try_pass(&self, partition: u32, batch: BatchId, entry: &Entry, end: u64, failed: u64) -> Result<()> {
        let subscription = &self.subscription;
        // The application has not moved, and what it said where it is stays true.
        let metadata = subscription.metadata(partition);
        let Some(log) = self.attempts.as_ref().and_then(|attempts| attempts.dead_letter.as_ref()) else {
            return subscription.settle(partition, batch, end, metadata);
        };
        let reason = subscription.group.reason(partition, entry.offset());
        if broken("letter apart") {
            log.append(letter(subscription.log.name(), entry, &reason, failed))?;
            return subscription.settle(partition, batch, end, metadata);
        }
        let mut txn = Transaction::new(self.handle.clone());
        txn.append(log, letter(subscription.log.name(), entry, &reason, failed))?;
        txn.finish(vec![subscription.begin_commit(partition, batch, end, metadata)?])?;
        subscription.committed(partition, batch)
    }
}

/// A trial on its way to the disk, and what it says of the batch.
pub(super) type Noted<'a> = (crate::placemarks::Noted<'a>, Tried);

/// A dead letter: the record with its key, value and headers, and where it comes from. What an earlier dead letter said
/// of itself is replaced.
fn letter<'a>(log: &'a str, entry: &'a Entry, reason: &'a str, attempts: u64) -> Record<'a> {
    let mut record = Record {
        key: entry.key().map(Payload::Borrowed),
        value: (!entry.is_tombstone()).then(|| Payload::Borrowed(entry.value())),
        headers: Vec::new(),
        timestamp: None,
    };
    let ours = [LOG, PARTITION, OFFSET, REASON, ATTEMPTS];
    for (name, value) in entry.headers().filter(|(name, _)| !ours.contains(name)) {
        record = record.header(name, value);
    }
    record
        .header(LOG, log)
        .header(PARTITION, entry.partition().to_string())
        .header(OFFSET, entry.offset().to_string())
        .header(REASON, reason)
        .header(ATTEMPTS, attempts.to_string())
}

/// A reason, cut where it is too long to be kept.
pub(super) fn reason(reason: impl Display) -> String {
    let mut text = reason.to_string();
    let mut end = text.len().min(REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Limits = Limits { records: 500, until: u64::MAX };

    /// Hands a range out until it is through, where these records always fail; how often each was handed out alone, and
    /// how many batches it took.
    fn hand_out(range: std::ops::Range<u64>, bad: &[u64], most: u64) -> (Vec<(u64, u64)>, u64) {
        let (mut at, mut version, mut last, mut batches) = (range.start, 0, None::<Trial>, 0);
        let mut passed = Vec::new();
        while at < range.end {
            let limits = MOST.after(last, version, at);
            let end = range.end.min(limits.until).min(at + limits.records as u64);
            let failed = last.filter(|last| last.offset == at && last.version == version && end == at + 1);
            if let Some(failed) = failed.filter(|last| last.attempts >= most) {
                passed.push((at, failed.attempts));
                (at, version) = (at + 1, version + 1);
                continue;
            }
            last = Some(next(last, version, at, usize::try_from(end - at).unwrap(), end));
            batches += 1;
            if !bad.iter().any(|bad| (at..end).contains(bad)) {
                (at, version) = (end, version + 1);
            }
        }
        (passed, batches)
    }

    #[test]
    fn exactly_the_records_that_fail_are_found_in_few_steps() {
        for most in [1, 3] {
            assert_eq!(hand_out(0..500, &[], most), (vec![], 1));
            for bad in [0, 1, 250, 498, 499] {
                let (passed, batches) = hand_out(0..500, &[bad], most);
                assert_eq!(passed, [(bad, most)]);
                assert!(batches < 50, "{batches} batches for one bad record at {bad}");
            }
            let all: Vec<u64> = (0..20).collect();
            let expected: Vec<_> = all.iter().map(|bad| (*bad, most)).collect();
            assert_eq!(hand_out(0..20, &all, most).0, expected);
            assert_eq!(hand_out(0..2000, &[3, 4, 700, 1999], most).0, [3, 4, 700, 1999].map(|bad| (bad, most)));
        }
    }

    #[test]
    fn what_was_settled_and_is_read_again_has_not_failed() {
        let last = next(None, 4, 10, 1, 11);
        assert_eq!(next(Some(last), 4, 10, 1, 11).attempts, 2);
        assert_eq!(next(Some(last), 5, 10, 1, 11).attempts, 1, "the placemark has moved since");
        assert_eq!(MOST.after(Some(last), 5, 10), MOST);
        assert_eq!(MOST.after(Some(last), 4, 11), MOST, "what is behind the suspicion comes as ever");
        let many = next(None, 4, 10, 8, 18);
        assert_eq!(many.attempts, 0);
        assert_eq!(MOST.after(Some(many), 4, 10), Limits { records: 4, until: 18 });
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let text = "\u{fc}".repeat(600);
        assert_eq!(reason(&text).len(), 1024);
        assert_eq!(reason(format!("a{text}")).len(), 1023);
        assert_eq!(reason("short"), "short");
    }
}

//! A batch: records of one partition on their way through the application.

use std::fmt::{self, Display};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use crate::consumer::attempts::{Tried, reason};
use crate::consumer::entries::Entries;
use crate::consumer::mode::{AtLeastOnce, ExactlyOnce, ExactlyOnceFrom};
use crate::consumer::subscription::Subscription;
use crate::format::{Metadata, Trial};
use crate::group::BatchId;
use crate::storage::panicking;
use crate::transaction::Transaction;
use crate::{Entry, Error, Result};

/// Records of one partition, in order, handed to a member of a group.
///
/// It may go to another thread, and batches may be settled in any order: the placemark moves over what is settled
/// without a gap. A batch that is dropped unsettled, by leaving early or by a panic, is delivered again, first at the
/// next poll. At most once, it was settled before it was handed out.
pub struct Batch<M> {
    subscription: Arc<Subscription>,
    partition: u32,
    /// `None` once it is settled.
    id: Option<BatchId>,
    entries: Entries,
    offsets: Range<u64>,
    skipped: u64,
    /// Where attempts are counted.
    tried: Option<Tried>,
    mode: PhantomData<fn() -> M>,
}

/// The most metadata that a placemark can have, in bytes.
const MOST_METADATA: usize = 4096;

/// Where a group is in a partition of a log: what is to be kept with results that live elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Placemark {
    /// Name of the group.
    pub group: String,
    /// Name of the log.
    pub log: String,
    /// Number of the partition.
    pub partition: u32,
    /// The next offset to be read.
    pub offset: u64,
}

impl<M> Batch<M> {
    #[inline]
    pub(super) fn new(
        subscription: &Arc<Subscription>,
        partition: u32,
        id: Option<BatchId>,
        entries: Entries,
        offsets: Range<u64>,
        skipped: u64,
        tried: Option<Tried>,
    ) -> Self {
        let subscription = Arc::clone(subscription);
        Self { subscription, partition, id, entries, offsets, skipped, tried, mode: PhantomData }
    }

    /// Number of the partition that all its records are of.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// From its first record's offset to the one that follows its last. Offsets in between may have no record, or one that
    /// is not in the batch, where records go [by key](crate::ConsumerBuilder::by_key).
    pub fn offsets(&self) -> Range<u64> {
        self.entries.first().map_or(self.offsets.start, Entry::offset)..self.offsets.end
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has no records, which is never so.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Its records, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    /// Where the group will be in this partition once the batch, and all before it, is settled.
    pub fn placemark(&self) -> Placemark {
        Placemark {
            group: self.subscription.group.name.clone(),
            log: self.subscription.log.name().to_owned(),
            partition: self.partition,
            offset: self.offsets.end,
        }
    }

    fn settle(mut self, metadata: Option<Metadata>) -> Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        self.subscription.settle(self.partition, id, self.offsets.end, metadata)?;
        // A failure leaves it unsettled, and drops it.
        self.id = None;
        Ok(())
    }

    /// Gives its records from this offset on back, to be delivered again; what is left of it, if anything.
    pub(super) fn cut(mut self, offset: u64) -> Result<Option<Self>> {
        let Some(id) = self.id else { return Err(Error::Fenced) };
        let left = self.subscription.give_back(self.partition, id, offset)?;
        self.entries.cut(offset);
        self.offsets.end = offset;
        if !left {
            self.id = None;
        }
        Ok(left.then_some(self))
    }

    /// Its record at this place.
    pub(super) fn entry(&self, place: usize) -> Option<&Entry> {
        self.entries.get(place)
    }

    /// Whether a record of it that fails now has failed as often as it may.
    pub(super) fn is_spent_by_failing(&self) -> bool {
        self.tried.is_some_and(|tried| tried.attempts.max(1) >= u64::from(tried.most))
    }

    /// The record at this offset as that which has failed, to be noted where attempts are counted.
    pub(super) fn culprit(&self, offset: u64, why: impl Display) -> Culprit {
        self.subscription.group.set_reason(self.partition, offset, reason(why));
        Culprit {
            subscription: Arc::clone(&self.subscription),
            partition: self.partition,
            offset,
            // What was alone has been counted before it was handed out.
            counts: self.tried.is_some_and(|tried| tried.attempts == 0),
        }
    }

    /// Records before this batch that retention took before they were read.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

impl Batch<AtLeastOnce> {
    /// Says that it has been processed. The placemark moves when no batch before it is unsettled, and is as durable on
    /// return as the store's durability says.
    ///
    /// # Errors
    ///
    /// [`Error::Fenced`] when it was held past its processing timeout: it is delivered again. Of a failed commit
    /// nothing is seen, and after it the store is [`Error::Failed`].
    pub fn commit(self) -> Result<()> {
        self.settle(None)
    }

    /// The same, with up to 4096 bytes of the application's own, which stand with the placemark until it moves over a
    /// record behind this batch: [`Consumer::metadata`](crate::Consumer::metadata) and [`Group::metadata`](crate::Group::metadata)
    /// give them back. They are there if the placemark is, whatever crashes.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// # orders.append_batch(["1", "2"])?;
    /// let mut totals = orders.consumer("totals").at_least_once()?;
    /// let mut total: u32 = totals.metadata(0).map_or(0, |bytes| String::from_utf8_lossy(&bytes).parse().unwrap());
    /// while let Some(batch) = totals.poll(std::time::Duration::ZERO)? {
    ///     total += batch.iter().map(|entry| u32::from(entry.value()[0] - b'0')).sum::<u32>();
    ///     batch.commit_with_metadata(total.to_string())?;
    /// }
    /// assert_eq!(totals.metadata(0).as_deref(), Some(&b"3"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when they are too many, upon which the batch counts as dropped, and those of
    /// [`commit`](Self::commit).
    pub fn commit_with_metadata(self, metadata: impl AsRef<[u8]>) -> Result<()> {
        let metadata = checked(metadata.as_ref())?;
        self.settle(Some(metadata))
    }

    /// Says that the record at this offset has failed, and why, while those before it were processed. They are settled,
    /// and it is delivered again, with those behind it. Where [attempts](crate::ConsumerBuilder::max_attempts) are
    /// counted, this is one of that record, and none of any other.
    ///
    /// ```
    /// # fn main() -> placemark::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let orders = placemark::Log::open(dir.path())?;
    /// # orders.append_batch(["good", "bad", "good"])?;
    /// use std::time::Duration;
    ///
    /// let mut billing = orders.consumer("billing").max_attempts(1).skip().at_least_once()?;
    /// let batch = billing.poll(Duration::ZERO)?.unwrap();
    /// batch.fail(1, "no such customer")?;
    /// assert_eq!(billing.poll(Duration::ZERO)?.unwrap().offsets(), 2..3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when the batch has no such record, and those of [`commit`](Self::commit).
    pub fn fail(mut self, offset: u64, reason: impl Display) -> Result<()> {
        if !self.entries.iter().any(|entry| entry.offset() == offset) {
            let reason = format!("{offset} is not that of a record in the batch, which has {:?}", self.offsets());
            return Err(Error::option("offset", reason));
        }
        let Some(id) = self.id else { return Err(Error::Fenced) };
        let culprit = self.culprit(offset, reason);
        self.subscription.fail(self.partition, id, &culprit)?;
        self.id = None;
        Ok(())
    }
}

/// A record that has failed, and is known to be the one.
pub(super) struct Culprit {
    subscription: Arc<Subscription>,
    partition: u32,
    pub(super) offset: u64,
    /// Whether it is to be counted.
    pub(super) counts: bool,
}

impl Culprit {
    pub(super) fn trial(&self, version: u64) -> Trial {
        Trial { offset: self.offset, records: 1, attempts: 1, until: self.offset + 1, version }
    }

    /// Counts it, if that is due.
    pub(super) fn note(self) -> Result<()> {
        if !self.counts {
            return Ok(());
        }
        let key = self.subscription.key(self.partition);
        self.subscription.store.side().note_trial(key, |version| self.trial(version))?.wait()
    }
}

/// Metadata that is not too large.
pub(crate) fn checked(metadata: &[u8]) -> Result<Metadata> {
    if metadata.len() > MOST_METADATA {
        let reason = format!("has {} bytes: a placemark takes at most {MOST_METADATA}", metadata.len());
        return Err(Error::option("metadata", reason));
    }
    Ok(metadata.into())
}

impl Batch<ExactlyOnceFrom> {
    /// Tells the store that the application's database has the results and the placemark, for lag and retention.
    ///
    /// # Errors
    ///
    /// As for a batch that is delivered at least once; the database's answer counts all the same.
    pub fn commit(self) -> Result<()> {
        self.settle(None)
    }

    /// The same, with metadata, as [at least once](Batch::<AtLeastOnce>::commit_with_metadata).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when they are too many, and those of [`commit`](Self::commit).
    pub fn commit_with_metadata(self, metadata: impl AsRef<[u8]>) -> Result<()> {
        let metadata = checked(metadata.as_ref())?;
        self.settle(Some(metadata))
    }
}

impl Batch<ExactlyOnce> {
    pub(crate) fn is_of(&self, store: &crate::store::Handle) -> bool {
        Arc::ptr_eq(&self.subscription.store, store.store())
    }

    /// Commits it with a transaction.
    pub(crate) fn commit_in(mut self, txn: Transaction, metadata: Option<Metadata>) -> Result<()> {
        let Some(id) = self.id else { return Err(Error::Fenced) };
        let placemark = self.subscription.begin_commit(self.partition, id, self.offsets.end, metadata)?;
        // A failure drops the batch, which delivers it again; unless the disk failed, which stops everything.
        txn.finish(vec![placemark])?;
        self.id = None;
        self.subscription.committed(self.partition, id)
    }
}

impl<M> Drop for Batch<M> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if self.tried.is_some_and(|tried| tried.attempts > 0) {
            let why = if panicking() { "the application panicked" } else { "the batch was dropped" };
            self.subscription.group.set_reason(self.partition, self.offsets().start, why.to_owned());
        }
        self.subscription.drop_batch(self.partition, id);
    }
}

impl<'a, M> IntoIterator for &'a Batch<M> {
    type Item = &'a Entry;
    type IntoIter = std::slice::Iter<'a, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<M> fmt::Debug for Batch<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("group", &self.subscription.group.name)
            .field("log", &self.subscription.log.name())
            .field("partition", &self.partition)
            .field("offsets", &self.offsets())
            .field("len", &self.len())
            .field("skipped", &self.skipped)
            .finish_non_exhaustive()
    }
}

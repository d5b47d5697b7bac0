//! A batch: records of one partition on their way through the application.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use crate::consumer::mode::{AtLeastOnce, ExactlyOnce, ExactlyOnceFrom};
use crate::consumer::subscription::Subscription;
use crate::group::BatchId;
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
    entries: Vec<Entry>,
    offsets: Range<u64>,
    skipped: u64,
    mode: PhantomData<fn() -> M>,
}

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
    pub(super) fn new(
        subscription: &Arc<Subscription>,
        partition: u32,
        id: Option<BatchId>,
        entries: Vec<Entry>,
        offsets: Range<u64>,
        skipped: u64,
    ) -> Self {
        let subscription = Arc::clone(subscription);
        Self { subscription, partition, id, entries, offsets, skipped, mode: PhantomData }
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

    fn settle(mut self) -> Result<()> {
        let Some(id) = self.id else { return Ok(()) };
        self.subscription.settle(self.partition, id)?;
        // A failure leaves it unsettled, and drops it.
        self.id = None;
        Ok(())
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
        self.settle()
    }
}

impl Batch<ExactlyOnceFrom> {
    /// Tells the store that the application's database has the results and the placemark, for lag and retention.
    ///
    /// # Errors
    ///
    /// As for a batch that is delivered at least once; the database's answer counts all the same.
    pub fn commit(self) -> Result<()> {
        self.settle()
    }
}

impl Batch<ExactlyOnce> {
    pub(crate) fn is_of(&self, store: &crate::store::Handle) -> bool {
        Arc::ptr_eq(&self.subscription.store, store.store())
    }

    /// Commits it with a transaction.
    pub(crate) fn commit_in(mut self, txn: Transaction) -> Result<()> {
        let Some(id) = self.id else { return Err(Error::Fenced) };
        self.subscription.begin_commit(self.partition, id)?;
        let placemark = (self.subscription.key(self.partition), self.offsets.end);
        // A failure drops the batch, which delivers it again; unless the disk failed, which stops everything.
        txn.finish(vec![placemark])?;
        self.id = None;
        self.subscription.committed(self.partition, id)
    }
}

impl<M> Drop for Batch<M> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.subscription.drop_batch(self.partition, id);
        }
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

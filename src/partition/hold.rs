//! A partition held for a transaction: its offsets known, its space allocated, nothing written until it is decided.

use std::sync::Arc;

use crate::format::{ProducerStamp, frame_len};
use crate::partition::append::Need;
use crate::partition::{Appender, PartitionCore};
use crate::segment::Placed;
use crate::sync::MutexGuard;
use crate::types::Millis;
use crate::{Durability, Error, Result};

/// Records already encoded as they will stand in a frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) count: u32,
    /// Newest timestamp of them; records with another carry their own.
    pub(crate) timestamp: Millis,
    /// Size of the largest.
    pub(crate) largest: usize,
    /// Who wrote them, if it was an idempotent producer.
    pub(crate) producer: Option<ProducerStamp>,
}

/// The append lock of a partition, with room for what a transaction will put there.
#[derive(Debug)]
pub(crate) struct Held<'a> {
    partition: &'a Arc<PartitionCore>,
    appender: MutexGuard<'a, Appender>,
}

impl PartitionCore {
    /// Takes the append lock with room for frames of these records, one each, and offsets below the ceiling.
    ///
    /// This and what follows under it is the one place where an append lock is held over a sync: that of the journal.
    pub(crate) fn hold<'a>(self: &'a Arc<Self>, frames: &[&Encoded]) -> Result<Held<'a>> {
        let mut need = Need { bytes: 0, span: 0 };
        for frame in frames {
            need.bytes += frame_len(frame.bytes.len(), frame.producer.is_some()).next_multiple_of(8);
            need.span = need.span.saturating_add(frame.count);
        }
        let largest = frames.iter().map(|frame| frame.largest).max().unwrap_or(0);
        let appender = self.room(&need, largest)?;
        Ok(Held { partition: self, appender })
    }

    /// The most that one transaction can put into this partition at once.
    pub(crate) fn frame_limit(&self) -> u64 {
        u64::from(self.lock_appender().settings.capacity() - crate::segment::FIRST_FRAME.0)
    }
}

impl Held<'_> {
    pub(crate) fn partition(&self) -> &Arc<PartitionCore> {
        self.partition
    }

    /// The offset of the first record that will be put here.
    pub(crate) fn next(&self) -> u64 {
        self.appender.next
    }

    pub(crate) fn durability(&self) -> Durability {
        self.appender.settings.durability
    }

    /// Under `Sync`, makes durable what stands before: readers will see the transaction at once, and nothing that power
    /// loss could take may stand before it.
    pub(crate) fn sync_ahead(&mut self) -> Result<()> {
        if self.durability() != Durability::Sync {
            return Ok(());
        }
        self.partition.sync_holding(&mut self.appender)
    }

    /// Puts a frame here. It is decided: the journal has it, and a failure means that the next opening finishes it.
    pub(crate) fn apply(&mut self, records: &Encoded) -> Result<u64> {
        let base = self.appender.next;
        let Encoded { count, timestamp, producer, .. } = *records;
        let placed = Placed { count, span: count, timestamp, producer };
        let len = frame_len(records.bytes.len(), producer.is_some());
        let Some(writer) = &mut self.appender.writer else { return Err(Error::Closed) };
        writer.put(len, base, &placed, |frame| {
            if let Some(space) = frame.get_mut(len - records.bytes.len()..) {
                space.copy_from_slice(&records.bytes);
            }
        })?;
        self.appender.next = base + u64::from(count);
        if let Some(stamp) = &producer {
            self.appender.producers.append(&mut None, stamp, base, count);
        }
        Ok(base)
    }

    /// Shows readers all that was applied, together, and gives the lock back.
    pub(crate) fn publish(self) -> Result<()> {
        self.partition.mark_decided(self.appender.next);
        self.partition.publish(&self.appender);
        let (partition, waiting) = (self.partition, self.appender.to_seal());
        let interval = self.appender.settings.durability;
        drop(self);
        if let Durability::Interval(interval) = interval {
            partition.arm_interval(interval);
        }
        if waiting > 0 { partition.seal_soon(waiting) } else { Ok(()) }
    }
}

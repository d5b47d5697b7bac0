//! What a partition knows of the producers that append to it: the newest sequences of each, and where they are.
//!
//! It changes with the frame, under the append lock, and always says what the frames say: those that are there, and
//! those that retention or compaction has removed. *(The idea: Kafka's idempotent producer, KIP-98.)*

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::format::{Known, ProducerStamp};
use crate::partition::PartitionCore;
use crate::sync::atomic::{AtomicU32, Ordering};
use crate::{Durability, Error, Result};

/// The state of all producers of one partition.
#[derive(Debug, Default)]
pub(super) struct Producers {
    known: Vec<Known>,
    /// Where each is in the list.
    by_id: HashMap<u32, u32, BuildHasherDefault<IdHasher>>,
    /// Whether a frame was noted since the last snapshot was begun.
    pub(super) dirty: bool,
}

impl Producers {
    /// None yet, with room for so many.
    pub(super) fn with_capacity(count: usize) -> Self {
        let by_id = HashMap::with_capacity_and_hasher(count, BuildHasherDefault::default());
        Self { known: Vec::with_capacity(count), by_id, dirty: false }
    }

    /// Takes in what a snapshot says of one.
    pub(super) fn add(&mut self, known: Known) {
        self.by_id.insert(known.id, place(self.known.len()));
        self.known.push(known);
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// So many of them, from that place on.
    pub(super) fn some(&self, from: usize, most: usize) -> &[Known] {
        let rest = self.known.get(from..).unwrap_or_default();
        rest.get(..most).unwrap_or(rest)
    }

    pub(super) fn get(&self, id: u32) -> Option<&Known> {
        self.known.get(*self.by_id.get(&id)? as usize)
    }

    /// Takes in a frame that has just been appended. `slot` is where its producer is in the list, once that is known.
    #[inline]
    pub(super) fn append(&mut self, slot: &mut Option<u32>, stamp: &ProducerStamp, offset: u64, count: u32) {
        self.dirty = true;
        match slot.and_then(|slot| self.known.get_mut(slot as usize)) {
            Some(known) if known.id == stamp.id => known.push(stamp, offset, count),
            _ => *slot = Some(self.find_or_add(stamp, offset, count)),
        }
    }

    /// Takes in a frame that was found in a segment, unless a snapshot knew it.
    pub(super) fn found(&mut self, stamp: &ProducerStamp, offset: u64, count: u32) {
        // The sequences of a producer only ever increase within a partition.
        if self.get(stamp.id).is_none_or(|known| stamp.sequence > known.newest()) {
            self.append(&mut None, stamp, offset, count);
        }
    }

    #[cold]
    fn find_or_add(&mut self, stamp: &ProducerStamp, offset: u64, count: u32) -> u32 {
        if let Some(slot) = self.by_id.get(&stamp.id).copied() {
            if let Some(known) = self.known.get_mut(slot as usize) {
                known.push(stamp, offset, count);
            }
            return slot;
        }
        let slot = place(self.known.len());
        self.add(Known::first(stamp, offset, count));
        slot
    }
}

/// Producers are numbered in 32 bits, and so are their places.
fn place(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// For numbers of producers, which the store counts up: no one chooses them, so that none of them need be hidden.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u32(&mut self, id: u32) {
        // Knuth's multiplicative hashing: by an odd number, so that consecutive ones stay apart in the low bits, and
        // close to 2^64 over the golden ratio, so that they do in the high ones.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Who appends, for a frame that is to bear a stamp.
#[derive(Debug)]
pub(crate) struct Author<'a> {
    pub(crate) stamp: ProducerStamp,
    pub(crate) fence: &'a Fence,
    /// Where this partition keeps it, once it has appended here.
    pub(crate) slot: &'a mut Option<u32>,
}

/// The epoch of the handle that holds a producer's name now, shared by all handles of the name. It only grows.
#[derive(Debug, Default)]
pub(crate) struct Fence(AtomicU32);

impl Fence {
    /// Shuts out every earlier epoch: at once where it is asked, and for appends once
    /// [`PartitionCore::take_over`] has been at the partition.
    pub(crate) fn raise(&self, epoch: u32) {
        self.0.fetch_max(epoch, Ordering::AcqRel);
    }

    /// `Fenced` for another epoch than the newest.
    #[inline]
    pub(crate) fn check(&self, epoch: u32) -> Result<()> {
        // Under the append lock this need not order anything: whoever raised it has had that lock since.
        if self.0.load(Ordering::Relaxed) == epoch { Ok(()) } else { Err(Error::Fenced) }
    }
}

impl PartitionCore {
    /// The newest sequence of a producer here. After this, no append of an epoch that was fenced before gets in; what
    /// did is counted, and as durable as the log's durability promises.
    pub(crate) fn take_over(&self, id: u32) -> Result<Option<u64>> {
        self.check_usable()?;
        let known = self.lock_appender().producers.get(id).cloned();
        let Some(known) = known else { return Ok(None) };
        self.await_known(&known)?;
        Ok(Some(known.newest()))
    }

    /// Where a record of a producer is, of those whose position is known. It, and all that the producer has appended
    /// here, is as durable as the log's durability promises by then: no one is told of a record that could be lost.
    pub(crate) fn position_of(&self, id: u32, sequence: u64) -> Result<Option<u64>> {
        self.check_usable()?;
        let known = self.lock_appender().producers.get(id).cloned();
        let Some(known) = known else { return Ok(None) };
        self.await_known(&known)?;
        Ok(known.find(sequence))
    }

    fn await_known(&self, known: &Known) -> Result<()> {
        // Read apart from what is known: where the log has just become `Sync`, more is waited for, never less.
        let durability = self.lock_appender().settings.durability;
        match durability {
            Durability::Sync => self.wait_durable(known.end()),
            Durability::Interval(_) | Durability::Os => Ok(()),
        }
    }
}

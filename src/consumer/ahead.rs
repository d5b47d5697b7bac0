//! Reading ahead of records that wait for others of their key.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use crate::consumer::entries::Entries;
use crate::group::{Picked, Picker, Sight};
use crate::partition::{Cursor, PartitionCore};
use crate::{Entry, Result};

/// Records of a partition, from one that is still to be delivered on, each with its key's hash. Those that wait are looked
/// at again and again, and read once.
#[derive(Debug)]
pub(super) struct Ahead {
    /// Where the records begin. They end where the cursor is.
    from: u64,
    records: VecDeque<(Entry, Option<u64>)>,
    cursor: Cursor,
}

impl Ahead {
    /// What there is from an offset on, which must be in the partition: of what is known already, if it is.
    pub(super) fn from(offset: u64, known: Option<Self>, partition: &Arc<PartitionCore>) -> Result<Self> {
        match known.filter(|known| (known.from..=known.cursor.position()).contains(&offset)) {
            Some(mut known) => {
                let passed = known.records.partition_point(|(entry, _)| entry.offset() < offset);
                known.records.drain(..passed);
                known.from = offset;
                Ok(known)
            }
            None => Ok(Self { from: offset, records: VecDeque::new(), cursor: partition.cursor(offset)? }),
        }
    }

    /// How many records were gone before they could be read.
    pub(super) fn skipped(&self) -> u64 {
        self.cursor.skipped()
    }

    /// Chooses the records of a batch, at most so many. All records below `end` can be read; there may be more by now.
    pub(super) fn choose(&mut self, sight: Sight, most: usize, end: u64) -> Result<(Entries, Picked)> {
        let mut picker = Picker::new(sight, most);
        let mut chosen = Entries::default();
        let mut looked_at = end;
        for (entry, key) in &self.records {
            if picker.is_done() {
                break;
            }
            if picker.offer(entry.offset(), *key) {
                chosen.push(entry.clone());
            }
            looked_at = looked_at.max(entry.offset() + 1);
        }
        while !picker.is_done() {
            let entry = match self.cursor.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break,
                Err(error) if chosen.is_empty() => return Err(error),
                Err(_) => {
                    // What was read before the damage is delivered first; the next poll meets it again.
                    looked_at = self.cursor.position();
                    break;
                }
            };
            let key = entry.key().map(hash);
            looked_at = looked_at.max(entry.offset() + 1);
            if picker.offer(entry.offset(), key) {
                chosen.push(entry.clone());
            }
            self.records.push_back((entry, key));
        }
        Ok((chosen, picker.finish(looked_at)))
    }
}

/// Two keys of one hash wait for each other, which costs time and nothing else.
fn hash(key: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(key);
    hasher.finish()
}

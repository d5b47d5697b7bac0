//! The records of a batch.

use std::ops::Deref;

use crate::Entry;

/// Records in the order of their offsets. One on its own takes no memory beside it.
#[derive(Debug, Default)]
pub(super) enum Entries {
    #[default]
    None,
    One(Entry),
    Many(Vec<Entry>),
}

impl Entries {
    #[inline]
    pub(super) fn push(&mut self, entry: Entry) {
        match self {
            Self::Many(entries) => entries.push(entry),
            Self::None => *self = Self::One(entry),
            Self::One(_) => {
                if let Self::One(first) = std::mem::take(self) {
                    *self = Self::Many(vec![first, entry]);
                }
            }
        }
    }

    /// Leaves those below an offset.
    pub(super) fn cut(&mut self, offset: u64) {
        match self {
            Self::Many(entries) => entries.truncate(entries.partition_point(|entry| entry.offset() < offset)),
            Self::One(entry) if entry.offset() >= offset => *self = Self::None,
            Self::One(_) | Self::None => {}
        }
    }
}

impl Deref for Entries {
    type Target = [Entry];

    #[inline]
    fn deref(&self) -> &[Entry] {
        match self {
            Self::None => &[],
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Many(entries) => entries,
        }
    }
}

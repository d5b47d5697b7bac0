//! The LOG file of a log: its number and its options.

use std::time::Duration;

use crate::format::DecodeError;
use crate::format::fields::{AROUND, Fields, unwrap, wrap};
use crate::types::LogId;
use crate::{Compaction, Durability, LogOptions, Retention};

const MAGIC: [u8; 8] = *b"PLMKLOG1";

/// What a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LogFile {
    pub(crate) store: u128,
    pub(crate) id: LogId,
    pub(crate) options: LogOptions,
}

/// An option: whether it is set, and its value.
const OPTION: usize = 1 + 8;
const OPTIONS: usize = 11;

impl LogFile {
    /// Bytes of the file.
    pub(crate) const LEN: usize = AROUND + 16 + 4 + OPTIONS * OPTION;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let options = &self.options;
        let mut body = self.store.to_le_bytes().to_vec();
        body.extend_from_slice(&self.id.0.to_le_bytes());
        put(&mut body, options.partitions.map(u64::from));
        put(&mut body, options.segment_bytes);
        put(&mut body, options.segment_age.map(millis));
        put(&mut body, options.max_record_bytes);
        let durability = options.durability.map(|durability| match durability {
            Durability::Sync => (0, 0),
            Durability::Os => (1, 0),
            Durability::Interval(interval) => (2, millis(interval)),
        });
        put(&mut body, durability.map(|durability| durability.0));
        put(&mut body, durability.map(|durability| durability.1));
        let retention = options.retention;
        put(&mut body, retention.map(|retention| u64::from(retention.consumed)));
        put(&mut body, retention.and_then(|retention| retention.max_bytes));
        put(&mut body, retention.and_then(|retention| retention.max_age).map(millis));
        let compaction = options.compaction.map(|compaction| match compaction {
            Compaction::None => 0,
            Compaction::KeepLatest => 1,
        });
        put(&mut body, compaction);
        put(&mut body, options.tombstone_delay.map(millis));
        wrap(MAGIC, &body)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::fields(Fields::new(unwrap(MAGIC, bytes)?))
            .filter(|file| file.options.check().is_ok())
            .ok_or(DecodeError::Damaged { position: 12, reason: "an option has a value that cannot be" })
    }

    fn fields(mut fields: Fields<'_>) -> Option<Self> {
        let store = fields.u128()?;
        let id = LogId(fields.u32()?);
        let partitions = match take(&mut fields)? {
            None => None,
            Some(partitions) => Some(u32::try_from(partitions).ok()?),
        };
        let segment_bytes = take(&mut fields)?;
        let segment_age = take(&mut fields)?.map(Duration::from_millis);
        let max_record_bytes = take(&mut fields)?;
        let durability = match (take(&mut fields)?, take(&mut fields)?) {
            (None, _) => None,
            (Some(0), _) => Some(Durability::Sync),
            (Some(1), _) => Some(Durability::Os),
            (Some(2), Some(interval)) => Some(Durability::Interval(Duration::from_millis(interval))),
            _ => return None,
        };
        let consumed = take(&mut fields)?;
        let max_bytes = take(&mut fields)?;
        let max_age = take(&mut fields)?.map(Duration::from_millis);
        let retention = consumed.map(|consumed| Retention { max_bytes, max_age, consumed: consumed != 0 });
        let compaction = match take(&mut fields)? {
            None => None,
            Some(0) => Some(Compaction::None),
            Some(1) => Some(Compaction::KeepLatest),
            Some(_) => return None,
        };
        let tombstone_delay = take(&mut fields)?.map(Duration::from_millis);
        let options = LogOptions {
            partitions,
            segment_bytes,
            segment_age,
            max_record_bytes,
            durability,
            retention,
            compaction,
            tombstone_delay,
        };
        fields.is_empty().then_some(Self { store, id, options })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn put(body: &mut Vec<u8>, value: Option<u64>) {
    body.push(u8::from(value.is_some()));
    body.extend_from_slice(&value.unwrap_or(0).to_le_bytes());
}

#[expect(clippy::option_option, reason = "the outer one says whether there were bytes to read")]
fn take(fields: &mut Fields<'_>) -> Option<Option<u64>> {
    let set = fields.u8()?;
    let value = fields.u64()?;
    match set {
        0 => Some(None),
        1 => Some(Some(value)),
        _ => None,
    }
}

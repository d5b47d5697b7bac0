//! Records gathered for one frame before it is known where it will stand.

use crate::Error;
use crate::Result;
use crate::format::{MAX_FRAME_RECORDS, decode_record, encode_record, record_len};
use crate::partition::Encoded;
use crate::record::Record;
use crate::types::Millis;

/// Records of one partition, encoded as they will stand in a frame.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    bytes: Vec<u8>,
    count: u32,
    largest: usize,
    /// The newest of the times that records brought with them.
    newest: Option<Millis>,
}

/// How much had been gathered at some time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GatheredMark {
    bytes: usize,
    count: u32,
    largest: usize,
    newest: Option<Millis>,
}

impl Gathered {
    pub(crate) fn mark(&self) -> GatheredMark {
        let Self { bytes, count, largest, newest } = self;
        GatheredMark { bytes: bytes.len(), count: *count, largest: *largest, newest: *newest }
    }

    /// Takes out what was added since; whether anything is left.
    pub(crate) fn roll_back(&mut self, to: GatheredMark) -> bool {
        let GatheredMark { bytes, count, largest, newest } = to;
        self.bytes.truncate(bytes);
        (self.count, self.largest, self.newest) = (count, largest, newest);
        count > 0
    }

    /// Adds a record. One that brings no time of its own gets that of the commit.
    pub(crate) fn push(&mut self, record: &Record<'_>) -> Result<()> {
        let own = record.timestamp.map(Millis::from_time).transpose()?;
        if self.count >= MAX_FRAME_RECORDS {
            return Err(Error::option("records", format!("are more than the {MAX_FRAME_RECORDS} of one frame")));
        }
        let len = record_len(record)? + if own.is_some() { 8 } else { 0 };
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        if let Some(space) = self.bytes.get_mut(start..) {
            encode_record(record, self.count, own, space);
        }
        self.count += 1;
        self.largest = self.largest.max(len);
        self.newest = self.newest.max(own);
        Ok(())
    }

    /// The frame's records, for a commit at `now`.
    pub(crate) fn finish(self, now: Millis) -> Encoded {
        let Self { bytes, count, largest, newest } = self;
        match newest {
            // A frame has the newest time of its records: where that is in the future, the others need their own.
            Some(newest) if newest > now => {
                let bytes = with_own_time(&bytes, count, now);
                Encoded { bytes, count, timestamp: newest, largest: largest + 8, producer: None }
            }
            _ => Encoded { bytes, count, timestamp: now, largest, producer: None },
        }
    }
}

/// The same records, where those without a time carry `now`.
fn with_own_time(records: &[u8], count: u32, now: Millis) -> Vec<u8> {
    let mut out = Vec::with_capacity(records.len() + count as usize * 8);
    let mut at = 0;
    for _ in 0..count {
        // They were encoded here, so that they decode.
        let Some(raw) = decode_record(records, at) else { break };
        let record = records.get(at..raw.next as usize).unwrap_or_default();
        if raw.timestamp.is_some() {
            out.extend_from_slice(record);
        } else {
            crate::format::with_time(record, now, &mut out);
        }
        at = raw.next as usize;
    }
    out
}

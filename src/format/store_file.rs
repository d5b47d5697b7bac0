//! The STORE file: which store this is.

use crate::format::DecodeError;
use crate::format::fields::{AROUND, Fields, unwrap, wrap};
use crate::types::Millis;

const MAGIC: [u8; 8] = *b"PLMKSTO1";

/// What is fixed when a store is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreFile {
    /// A number that no other store has.
    pub(crate) store: u128,
    pub(crate) created: Millis,
}

impl StoreFile {
    /// Bytes of the file.
    pub(crate) const LEN: usize = AROUND + 16 + 8;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut body = self.store.to_le_bytes().to_vec();
        body.extend_from_slice(&self.created.0.to_le_bytes());
        wrap(MAGIC, &body)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::new(unwrap(MAGIC, bytes)?);
        let decoded = fields.u128().zip(fields.u64()).filter(|_| fields.is_empty());
        let (store, created) =
            decoded.ok_or(DecodeError::Damaged { position: 12, reason: "the file has another length" })?;
        Ok(Self { store, created: Millis(created) })
    }
}

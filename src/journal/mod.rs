//! Where what belongs together is decided together: the journal of transactions.

mod commit;
mod gathered;

pub(crate) use commit::{Journal, Move, SEGMENT_BYTES, Work};
pub(crate) use gathered::{Gathered, GatheredMark};

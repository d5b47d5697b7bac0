//! When a consumer's placemark moves.

use std::fmt::Debug;

/// The placemark moves, durably, before a batch is handed out: no record is handed out twice, whatever crashes, and one
/// that was in hand at a crash is not seen again.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AtMostOnce;

/// The placemark moves when a batch is committed: no record is skipped, whatever crashes, and one that was in hand at a
/// crash is seen again.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AtLeastOnce;

/// The placemark moves in the transaction that holds the results: whatever crashes, the results of each record are there
/// once.
///
/// That holds for results in logs of the same store. For effects elsewhere, keep results and placemark in one
/// transaction of the database that has the results, or key the effect by the record's log, partition and offset, which
/// never change.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ExactlyOnce;

/// One of the modes.
pub trait Mode: sealed::Sealed + Debug + Send + Sync + 'static {}

impl Mode for AtMostOnce {}
impl Mode for AtLeastOnce {}
impl Mode for ExactlyOnce {}

pub(crate) mod sealed {
    /// How a mode differs for the machinery; kept from the outside.
    pub trait Sealed {
        /// Whether a batch counts as settled before it is handed out.
        const SETTLED_FIRST: bool = false;
        /// Whether a partition has one batch in flight at a time.
        const ALONE: bool = false;
    }

    impl Sealed for super::AtMostOnce {
        const SETTLED_FIRST: bool = true;
    }
    impl Sealed for super::AtLeastOnce {}
    impl Sealed for super::ExactlyOnce {
        const ALONE: bool = true;
    }
}

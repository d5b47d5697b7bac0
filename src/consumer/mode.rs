//! When a consumer's placemark moves.

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

/// What a mode means for the machinery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settlement {
    /// Before a batch is handed out.
    First,
    /// When the batch is committed.
    Later,
    /// With a transaction, so that a partition has one batch in flight at a time.
    Alone,
}

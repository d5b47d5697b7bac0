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
/// transaction of the database that has the results, or key the effect by [`Entry::id`](crate::Entry::id), which never
/// changes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ExactlyOnce;

/// The application keeps the placemark with its results, in one transaction of its own database, and says where it is
/// whenever a partition is assigned, and after a batch was dropped: whatever crashes, the results of each record are
/// there once.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ExactlyOnceFrom;

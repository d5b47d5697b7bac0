//! An embedded, durable message log with consumer groups: what Kafka gives a fleet, without the fleet.
//!
//! A program links it in and has, in a directory of its own: **logs** of one or more **partitions**, whose records get
//! increasing **offsets**; **groups** of consumers, whose place in each partition, their **placemark**, survives; and
//! **transactions** over any number of logs and placemarks.
//!
//! ```
//! # fn main() -> placemark::Result<()> {
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("data");
//! use std::time::Duration;
//! use placemark::Store;
//!
//! let store = Store::open(&path)?;
//! let orders = store.log("orders")?;
//! orders.append("order 1")?; // on disk when it returns
//!
//! let mut billing = orders.consumer("billing").at_least_once()?;
//! while let Some(batch) = billing.poll(Duration::ZERO)? {
//!     for entry in &batch {
//!         println!("{}: {}", entry.offset(), String::from_utf8_lossy(entry.value()));
//!     }
//!     batch.commit()?; // the placemark moves
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What is promised
//!
//! What `Ok` of an append means is chosen by [`Durability`], for a store and for each log:
//!
//! | durability | readable | the process is killed | the power fails |
//! |---|---|---|---|
//! | [`Sync`](Durability::Sync), the default | when it is on disk | nothing is lost | nothing is lost |
//! | [`Interval(d)`](Durability::Interval) | at once | nothing is lost | at most about the last `d` |
//! | [`Os`](Durability::Os) | at once | nothing is lost | what the kernel, or [`Store::sync`], had not written |
//!
//! A batch and a transaction are there whole or not at all. An offset is never given to a second record, whatever was
//! lost. What a crash tore off is cut and reported by [`Store::recovery`]; damage in what was durable is
//! [`Error::Corrupt`], is never cut, and is stepped over only when [`RecoveryMode::Salvage`] asks for it.
//!
//! When a group's placemark moves is chosen with the consumer:
//!
//! | mode | the placemark moves | what was in hand at a crash |
//! |---|---|---|
//! | [`at_most_once`](ConsumerBuilder::at_most_once) | before a batch is handed out | is lost, nothing comes twice |
//! | [`at_least_once`](ConsumerBuilder::at_least_once) | with [`Batch::commit`] | comes again, nothing is skipped |
//! | [`exactly_once`](ConsumerBuilder::exactly_once) | with [`Transaction::commit_with`] | comes again, its results are there once |
//!
//! Placemarks follow the store's durability: under `Interval` and `Os` the modes keep their promise when the process is
//! killed; for power loss choose `Sync` for the store. Transactions wait for the disk always. Exactly once is said of
//! results in logs of the same store; an effect elsewhere is made harmless to repeat by keying it with
//! [`Entry::id`], which never changes, or goes with the placemark into one transaction of the application's own database
//! ([`exactly_once_from`](ConsumerBuilder::exactly_once_from)).
//!
//! # What it asks for
//!
//! Linux, on a local file system; there the promises and figures hold. macOS is expected to work. One process has a
//! store open at a time. While it does, no other program may truncate or edit the store's files, nor copy them by
//! reflink: segments are mapped, and a mapped page without a block behind it ends the process. Where a file system does
//! not overwrite allocated blocks in place (btrfs, zfs, NFS, FUSE), frames are written with `pwrite` instead
//! ([`WriteMode`]).
//!
//! # Where to read on
//!
//! [`Store`] and [`Log`] to write and read, [`Consumer`] and [`Batch`] for groups, [`Transaction`] for all or nothing,
//! [`Store::group`] for where the consumers are, [`Error`] for what can go wrong and what to do,
//! [`chapters::format`] for every byte on the disk, [`chapters::tested`] for how it is tested, and [`storage`] for the
//! seam under which tests put a simulated disk.

#[cfg(not(target_pointer_width = "64"))]
compile_error!("placemark maps whole segments and needs a 64-bit target");
#[cfg(not(unix))]
compile_error!("placemark needs the durability of a Unix file system");

/// What is too long to stand with a type. Nothing to call.
pub mod chapters {
    #[doc = include_str!("format/format.md")]
    pub mod format {}

    #[doc = include_str!("tested.md")]
    pub mod tested {}
}

mod broken;
mod consumer;
mod error;
mod format;
mod group;
mod journal;
mod options;
mod partition;
mod placemarks;
mod producer;
mod record;
mod segment;
pub mod storage;
mod store;
mod sync;
mod transaction;
mod types;

pub use consumer::{
    AtLeastOnce, AtMostOnce, Batch, Consumer, ConsumerBuilder, ExactlyOnce, ExactlyOnceFrom, Group, GroupMember,
    GroupPlacemark, Lag, Placemark, Reset, ResetPlan, Stopper,
};
pub use error::{Error, Result};
pub use options::{Compaction, Durability, LogOptions, RecoveryMode, Retention, WriteMode};
pub use partition::{Cut, Damage, RecoveryReport};
pub use producer::{Appended, Producer};
pub use record::{Payload, Record};
pub use segment::{Entry, Headers};
pub use store::{Log, Partition, Reader, Store, StoreOptions};
pub use transaction::Transaction;
pub use types::{EntryId, Position, ResetTo, StartAt};

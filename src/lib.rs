//! placemark

mod consumer;
mod error;
mod format;
mod group;
mod journal;
mod options;
mod partition;
mod placemarks;
mod record;
mod segment;
pub mod storage;
mod store;
mod transaction;
mod types;

pub use consumer::{
    AtLeastOnce, AtMostOnce, Batch, Consumer, ConsumerBuilder, ExactlyOnce, Group, GroupPlacemark, Lag, Mode, Placemark,
    Reset, Stopper,
};
pub use error::{Error, Result};
pub use options::{Compaction, Durability, LogOptions, RecoveryMode, Retention, WriteMode};
pub use partition::{Cut, Damage, RecoveryReport};
pub use record::{Payload, Record};
pub use segment::{Entry, Headers};
pub use store::{Log, Partition, Reader, Store, StoreOptions};
pub use transaction::Transaction;
pub use types::{Position, ResetTo, StartAt};

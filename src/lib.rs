//! An embedded, durable message log with consumer groups.

mod error;
mod options;
mod record;
mod types;

pub mod storage;

pub use error::{Error, Result};
pub use options::{Compaction, Durability, LogOptions, RecoveryMode, Retention, WriteMode};
pub use record::{Payload, Record};
pub use types::{Position, ResetTo, StartAt};

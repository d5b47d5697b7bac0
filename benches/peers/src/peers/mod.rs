//! The crates, one file each.

pub(crate) mod commitlog;
pub(crate) mod fjall;
pub(crate) mod okaywal;
pub(crate) mod placemark;
pub(crate) mod raft_engine;
pub(crate) mod redb;
pub(crate) mod seglog;
pub(crate) mod sqlite;
pub(crate) mod walrus;
pub(crate) mod yaque;

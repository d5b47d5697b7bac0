//! The engine over the real disk.

use std::path::Path;
use std::sync::Arc;

use super::{Env, Floor, PartitionCore, Settings};
use crate::format::Ident;
use crate::storage::{Disk, Signal};
use crate::types::LogId;
use crate::{Durability, Record, RecoveryMode, WriteMode};

const IDENT: Ident = Ident { store: 7, log: LogId(16), partition: 0 };

fn settings(durability: Durability) -> Settings {
    Settings { durability, segment_bytes: 64 << 10, segment_age: None, record_limit: 16 << 20 }
}

fn open(dir: &Path, settings: Settings, mode: WriteMode) -> Arc<PartitionCore> {
    let env = Env::new(Arc::new(Disk::new()), 7, dir, RecoveryMode::Strict, mode);
    let at = dir.join("p");
    if !at.exists() {
        PartitionCore::create(&env, IDENT, &at).unwrap();
    }
    PartitionCore::open(&env, IDENT, &at, settings, Arc::new(Signal::default()), &Floor::default()).unwrap()
}

fn values(partition: &Arc<PartitionCore>, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut cursor = partition.cursor(from).unwrap();
    let mut all = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        all.push((entry.offset(), entry.value().to_vec()));
    }
    all
}

#[test]
fn records_come_back_over_rolls_and_reopening() {
    for mode in [WriteMode::Mapped, WriteMode::Pwrite] {
        for durability in [Durability::Os, Durability::Sync] {
            let dir = tempfile::tempdir().unwrap();
            let partition = open(dir.path(), settings(durability), mode);
            for n in 0..3000_u64 {
                assert_eq!(partition.append(&Record::new(format!("record {n}"))).unwrap(), n);
            }
            assert_eq!(values(&partition, 0).len(), 3000);
            assert_eq!(values(&partition, 1234)[0], (1234, b"record 1234".to_vec()));
            partition.close().unwrap();
            let partition = open(dir.path(), settings(durability), mode);
            assert_eq!(partition.end(), 3000);
            assert_eq!(values(&partition, 2999), vec![(2999, b"record 2999".to_vec())]);
            assert_eq!(values(&partition, 0).len(), 3000);
            assert_eq!(partition.append(&Record::new("more")).unwrap(), 3000);
            // Not closed: the next opening recovers.
            drop(partition);
            let partition = open(dir.path(), settings(durability), mode);
            assert_eq!(values(&partition, 2999).len(), 2);
            assert_eq!(partition.end(), 3001);
        }
    }
}

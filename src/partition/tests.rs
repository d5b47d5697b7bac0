//! The engine over the real disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

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
                assert_eq!(partition.append(&Record::new(&format!("record {n}"))).unwrap(), n);
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

#[test]
fn speed() {
    let value = [7; 100];
    for round in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(Durability::Os);
        settings.segment_bytes = 512 << 20;
        let partition = open(dir.path(), settings, WriteMode::Mapped);
        let n = 1_000_000;
        let before = Instant::now();
        for _ in 0..n {
            partition.append(&Record::new(&value)).unwrap();
        }
        println!("{round} append: {:?} ns", before.elapsed().as_nanos() / n);

        let mut sum = 0;
        for again in 0..2 {
            let before = Instant::now();
            let mut cursor = partition.cursor(0).unwrap();
            while let Some(entry) = cursor.next().unwrap() {
                sum += u64::from(entry.value()[0]);
            }
            println!("{again} scan: {:?} ns {sum}", before.elapsed().as_nanos() / n);
        }
        let batch: Vec<Record<'_>> = (0..1000).map(|_| Record::new(&value)).collect();
        let before = Instant::now();
        for _ in 0..1000 {
            partition.append_batch(&batch).unwrap();
        }
        println!("batch: {:?} ns", before.elapsed().as_nanos() / n);
        partition.close().unwrap();
        let path = dir.path().join("raw");
        let file = std::fs::File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let disk = Disk::new();
        use crate::storage::Storage as _;
        let f = disk.open(&path, crate::storage::Mode::Write).unwrap();
        let total = 136 * n as usize;
        let stepped = std::env::var_os("STEP").is_some();
        f.allocate(0, if stepped { 16384 } else { total as u64 }).unwrap();
        if std::env::var_os("RANDOM").is_some() {
            f.forget(0);
        }
        let map = Arc::new(f.map(if stepped { 512 << 20 } else { total }, true).unwrap());
        map.prefer_large_pages();
        let mut w = map.writer(0, if stepped { 16384 } else { total }).unwrap();
        let mut have = if stepped { 16384 } else { total };
        let before = Instant::now();
        for i in 0..n as usize {
            if i * 136 + 136 > have {
                let to = have + have.min(std::env::var("STEP").unwrap().parse::<usize>().unwrap() << 20);
                f.allocate(have as u64, to as u64).unwrap();
                w.grow(to);
                have = to;
            }
            let slot = w.slot(i * 136, 136).unwrap();
            slot[36..].copy_from_slice(&value);
            let c = crc32fast::hash(&slot[8..]);
            slot[4..8].copy_from_slice(&c.to_le_bytes());
            w.store_length(i * 136, 136);
        }
        println!("raw: {:?} ns", before.elapsed().as_nanos() / n);
        drop(file);
    }
}

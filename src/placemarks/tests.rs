//! The side log over the real disk: what it shows, keeps, and forgets.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::*;
use crate::partition::Kept;
use crate::storage::{Crash, Disk, Fault, Keep, Operation, SimDisk};
use crate::{RecoveryMode, WriteMode};

const LOG: LogId = LogId(16);

struct Side {
    dir: tempfile::TempDir,
    durability: Durability,
    log: Arc<SideLog>,
}

impl Side {
    fn new(durability: Durability) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = env(dir.path());
        SideLog::create(&env, &dir.path().join("placemarks")).unwrap();
        let log = SideLog::open(&env, &dir.path().join("placemarks"), durability).unwrap();
        Self { dir, durability, log }
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("placemarks")
    }

    /// Closes it, or leaves it as a killed process would, and opens it again.
    fn reopen(&mut self, close: bool) {
        if close {
            self.log.close().unwrap();
        }
        self.log.partition.env().background.stop();
        self.log = SideLog::open(&env(self.dir.path()), &self.path(), self.durability).unwrap();
    }

    /// A log with one group on it.
    fn with_group(durability: Durability) -> (Self, PlacemarkKey) {
        let side = Self::new(durability);
        let log = side.log.take_log_id().unwrap();
        side.log.register_log("orders", log).unwrap();
        let group = side.log.group_id(log, "billing").unwrap();
        (side, PlacemarkKey { group, log, partition: 0 })
    }

    fn commit(&self, key: PlacemarkKey, offset: u64) {
        self.log.commit(key, offset, None).unwrap().wait().unwrap();
    }

    fn offset(&self, key: PlacemarkKey) -> Option<u64> {
        self.log.placemark(key).map(|placemark| placemark.offset)
    }

    fn bytes(&self) -> u64 {
        fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
    }

    /// What the disk takes, which preallocated files take as well.
    fn disk_bytes(&self) -> u64 {
        use std::os::unix::fs::MetadataExt;
        let blocks = |entry: fs::DirEntry| entry.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        fs::read_dir(self.path()).unwrap().filter_map(Result::ok).map(blocks).sum()
    }
}

fn env(dir: &Path) -> Arc<Env> {
    Env::new(Arc::new(Disk::new()), 7, dir, RecoveryMode::Strict, WriteMode::Auto)
}

#[test]
fn a_commit_is_shown_when_it_was_waited_for_and_survives() {
    for close in [true, false] {
        let (mut side, key) = Side::with_group(Durability::Sync);
        assert_eq!(side.offset(key), None);
        let commit = side.log.commit(key, 10, None).unwrap();
        assert_eq!(side.offset(key), None, "not before it is durable");
        commit.wait().unwrap();
        assert_eq!(side.offset(key), Some(10));
        side.commit(key, 20);
        side.commit(key, 15);
        side.reopen(close);
        let placemark = side.log.placemark(key).unwrap();
        assert_eq!((placemark.offset, placemark.version), (15, 3));
        assert_eq!(side.log.placemark(PlacemarkKey { partition: 1, ..key }), None);
    }
}

#[test]
fn commits_that_are_waited_for_in_any_order_leave_the_newest() {
    let (side, key) = Side::with_group(Durability::Sync);
    let (first, second) = (side.log.commit(key, 1, None).unwrap(), side.log.commit(key, 2, None).unwrap());
    second.wait().unwrap();
    first.wait().unwrap();
    assert_eq!(side.offset(key), Some(2));
}

#[test]
fn what_a_transaction_decided_counts_only_if_it_is_newer() {
    let (mut side, key) = Side::with_group(Durability::Os);
    let decided = |offset, version| DecidedPlacemark {
        group: key.group,
        log: key.log,
        partition: key.partition,
        offset,
        version,
        metadata: None,
    };
    let version = side.log.next_version(key);
    side.commit(key, 50);
    side.log.decided(&decided(40, version)).unwrap();
    assert_eq!(side.offset(key), Some(50), "a later commit is not undone");
    let version = side.log.next_version(key);
    side.log.decided(&decided(60, version)).unwrap();
    assert_eq!(side.offset(key), Some(60));
    side.reopen(true);
    side.log.decided(&decided(40, 1)).unwrap();
    side.log.decided(&decided(60, version)).unwrap();
    assert_eq!(side.offset(key), Some(60));
    side.log.remove_group(key.log, "billing").unwrap();
    side.log.decided(&decided(70, version + 1)).unwrap();
    assert_eq!(side.offset(key), None, "a group that was deleted stays so");
}

#[test]
fn numbers_are_never_given_twice() {
    let mut side = Side::new(Durability::Os);
    let mut seen = BTreeMap::new();
    for round in 0..6 {
        let log = side.log.take_log_id().unwrap();
        assert!(log >= LogId::FIRST_USER);
        assert_eq!(seen.insert(log, round), None);
        side.log.register_log("orders", log).unwrap();
        let group = side.log.group_id(log, "billing").unwrap();
        assert_eq!(seen.insert(LogId(group.0 + 1_000_000), round), None);
        assert_eq!(side.log.group_id(log, "billing").unwrap(), group);
        side.log.forget_log(log).unwrap();
        assert_eq!(side.log.log_id("orders"), None);
        side.reopen(round % 2 == 0);
    }
}

#[test]
fn a_forgotten_log_takes_all_that_belongs_to_it_and_nothing_else() {
    for close in [true, false] {
        let (mut side, key) = Side::with_group(Durability::Os);
        let other = side.log.take_log_id().unwrap();
        side.log.register_log("payments", other).unwrap();
        let group = side.log.group_id(other, "billing").unwrap();
        let kept = PlacemarkKey { group, log: other, partition: 3 };
        for (key, offset) in [(key, 5), (kept, 6)] {
            side.log.set_starts(&[(key, 1), (PlacemarkKey { partition: 9, ..key }, 2)]).unwrap();
            side.commit(key, offset);
        }
        let on_its_way = side.log.commit(key, 7, None).unwrap();
        side.log.forget_log(key.log).unwrap();
        on_its_way.wait().unwrap();
        assert!(matches!(side.log.commit(key, 8, None), Err(Error::Fenced)));
        assert!(matches!(side.log.group_id(key.log, "late"), Err(Error::Fenced)));
        for _ in 0..2 {
            assert_eq!((side.offset(key), side.log.start(key)), (None, None));
            assert_eq!(side.log.logs(), [("payments".to_owned(), other)]);
            assert_eq!(side.log.groups().len(), 1);
            assert_eq!((side.offset(kept), side.log.start(kept)), (Some(6), Some(1)));
            assert_eq!(side.log.starts_of(group).len(), 2);
            side.reopen(close);
        }
    }
}

#[test]
fn its_size_follows_the_keys_and_not_the_commits() {
    let (mut side, first) = Side::with_group(Durability::Os);
    let groups: Vec<GroupId> =
        (0..10).map(|number| side.log.group_id(first.log, &format!("group-{number}")).unwrap()).collect();
    let mut largest = 0;
    for round in 0..30_000_u64 {
        for group in &groups {
            side.commit(PlacemarkKey { group: *group, ..first }, round);
        }
        if round % 500 == 0 {
            largest = largest.max(side.disk_bytes());
        }
    }
    assert!(largest <= 8 << 20, "it grew to {largest} bytes");
    for close in [false, true] {
        side.reopen(close);
        for group in &groups {
            assert_eq!(side.offset(PlacemarkKey { group: *group, ..first }), Some(29_999));
        }
    }
    side.log.close().unwrap();
    assert!(side.bytes() < 1 << 20, "closed it takes {} bytes", side.bytes());
}

#[test]
fn compaction_drops_nothing_for_the_sake_of_what_is_not_durable() {
    let (side, key) = Side::with_group(Durability::Os);
    for offset in 1..=3 {
        side.commit(key, offset);
    }
    let newest = lock(&side.log.table).newest();
    let bound = side.log.partition.written_end();
    let kept = Kept::new(newest, bound);
    side.commit(key, 4);
    assert!(kept.has(bound - 1), "what is newer may yet be lost");
    assert!(!kept.has(bound - 2) && !kept.has(bound - 3));
    assert!(kept.has(bound), "what came later is for the next one to judge");
}

/// A side log on a simulated disk with three commits of a key that are durable, and so many that are not behind them that a
/// segment is full.
fn half_durable(disk: &SimDisk) -> (Arc<SideLog>, PlacemarkKey) {
    let env = simulated(disk);
    SideLog::create(&env, Path::new("/side")).unwrap();
    let side = SideLog::open(&env, Path::new("/side"), Durability::Os).unwrap();
    let log = side.take_log_id().unwrap();
    side.register_log("orders", log).unwrap();
    let key = PlacemarkKey { group: side.group_id(log, "billing").unwrap(), log, partition: 0 };
    for offset in 1..=12_000 {
        side.commit(key, offset, None).unwrap().wait().unwrap();
        if offset == 3 {
            side.sync().unwrap();
        }
    }
    assert!(side.partition.has_rolled());
    (side, key)
}

fn simulated(disk: &SimDisk) -> Arc<Env> {
    Env::new(Arc::new(disk.clone()), 7, Path::new("/"), RecoveryMode::Strict, WriteMode::Auto)
}

#[test]
fn power_lost_at_any_operation_of_a_compaction_takes_nothing_that_was_durable() {
    let mut operations = 0..;
    let mut cut_short = 0;
    loop {
        let disk = SimDisk::new(1);
        let (side, key) = half_durable(&disk);
        let so_many = operations.next().unwrap();
        disk.crash_after(disk.operations() + so_many);
        let compacted = side.compact_all().is_ok();
        cut_short += u64::from(!compacted);
        for keep in [Keep::Nothing, Keep::Everything, Keep::Random, Keep::Random] {
            let left = disk.crash(Crash::new(so_many).keep(keep));
            let side = SideLog::open(&simulated(&left), Path::new("/side"), Durability::Os)
                .unwrap_or_else(|error| panic!("{so_many} operations, {keep:?}: {error}"));
            let offset = side.placemark(key).map(|placemark| placemark.offset);
            let least = if compacted { 12_000 } else { 3 };
            assert!(offset >= Some(least), "{so_many} operations, {keep:?}: {offset:?}");
        }
        if !disk.power_lost() {
            break;
        }
    }
    assert!(cut_short > 10, "{cut_short} operations");
}

#[test]
fn what_a_compaction_drops_is_never_synced() {
    let disk = SimDisk::new(1);
    let (side, key) = half_durable(&disk);
    disk.inject(Fault::new(Operation::Sync, std::io::ErrorKind::Other).at("/side/00000000000000000000.log").forever());
    side.partition.env().background.lend_a_hand();
    side.compact_all().unwrap();
    side.commit(key, 1, None).unwrap().wait().unwrap();
}

#[test]
fn commits_from_many_threads_and_compactions_lose_nothing() {
    let (mut side, first) = Side::with_group(Durability::Os);
    let keys: Vec<PlacemarkKey> = (0..4).map(|partition| PlacemarkKey { partition, ..first }).collect();
    std::thread::scope(|scope| {
        for key in &keys {
            let log = &side.log;
            scope.spawn(move || {
                for offset in 1..=40_000 {
                    log.commit(*key, offset, None).unwrap().wait().unwrap();
                }
            });
        }
    });
    for _ in 0..2 {
        for key in &keys {
            let placemark = side.log.placemark(*key).unwrap();
            assert_eq!((placemark.offset, placemark.version), (40_000, 40_000));
        }
        side.reopen(false);
    }
}

#[test]
fn records_of_unknown_kinds_are_kept_and_skipped() {
    let (mut side, key) = Side::with_group(Durability::Os);
    side.log.partition.append(&Record::new(b"from later").key(&[250, 1, 2])).unwrap();
    side.reopen(true);
    for offset in 0..60_000 {
        side.commit(key, offset);
    }
    side.reopen(true);
    assert_eq!(side.offset(key), Some(59_999));
    let mut cursor = side.log.partition.cursor(side.log.partition.start()).unwrap();
    let mut kept = 0;
    while let Some(entry) = cursor.next().unwrap() {
        kept += u64::from(entry.value() == b"from later");
    }
    assert_eq!(kept, 1);
    assert_eq!(LOG, key.log);
}

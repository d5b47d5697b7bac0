//! The crate as it is, under a scheduler that runs one thread at a time and chooses at every lock, atomic and sync who goes
//! on. A wake-up that is lost is a deadlock here, since no wait ever times out.
//!
//! ```text
//! RUSTFLAGS="--cfg placemark_shuttle" cargo test --test interleavings --target-dir target/interleavings
//! ```
//!
//! `PLACEMARK_SCHEDULES` says how many schedules each test tries. A failure prints the schedule that repeats it.
#![cfg(placemark_shuttle)]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

use std::collections::BTreeSet;
use std::env;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use placemark::storage::{CacheIdentity, Crash, File, Keep, Kind, Listed, Lock, Map, Mode, SimDisk, Storage};
use placemark::{Durability, Error, Log, LogOptions, StartAt, Store};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc;
use shuttle::{Config, Runner, thread};

const PATH: &str = "/data";

/// Longer than any test: what is waited for must come.
const EVER: Duration = Duration::from_secs(1 << 30);

/// Tries schedules: at random, and by priorities that change a few times (probabilistic concurrency testing).
fn explore(run: impl Fn() + Send + Sync + 'static) {
    let schedules = env::var("PLACEMARK_SCHEDULES").map_or(300, |schedules| schedules.parse().unwrap());
    let run = Arc::new(run);
    let again = Arc::clone(&run);
    let mut config = Config::new();
    config.stack_size = 1 << 20; // the default is small, and debug builds are not
    Runner::new(RandomScheduler::new(schedules), config.clone()).run(move || run());
    Runner::new(PctScheduler::new(3, schedules), config).run(move || again());
}

/// A simulated disk whose background work has a thread, and whose writes and syncs give others a turn.
#[derive(Debug, Clone)]
struct Scheduled(SimDisk);

impl Storage for Scheduled {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(ScheduledFile(self.0.open(path, mode)?)))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<Kind>> {
        self.0.kind(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Listed>> {
        self.0.list(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        thread::yield_now();
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        thread::yield_now();
        self.0.remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.0.remove_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        thread::yield_now();
        self.0.sync_dir(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.0.lock(path)
    }

    fn overwrites_in_place(&self, path: &Path) -> io::Result<bool> {
        self.0.overwrites_in_place(path)
    }

    fn cache_identity(&self, path: &Path) -> CacheIdentity {
        self.0.cache_identity(path)
    }

    fn now(&self) -> u64 {
        self.0.now()
    }

    fn random(&self) -> u128 {
        self.0.random()
    }

    fn spawn(&self, name: &str, job: Box<dyn FnOnce() + Send>) -> io::Result<bool> {
        thread::Builder::new().name(name.to_owned()).spawn(job)?;
        Ok(true)
    }

    fn sleep(&self, longest: Duration) {
        self.0.sleep(longest);
    }
}

#[derive(Debug)]
struct ScheduledFile(Arc<dyn File>);

impl File for ScheduledFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        self.0.read_at(buffer, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        thread::yield_now();
        self.0.write_at(bytes, at)
    }

    fn allocate(&self, from: u64, len: u64) -> io::Result<()> {
        thread::yield_now();
        self.0.allocate(from, len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        thread::yield_now();
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        // A sync takes its time, and others go on meanwhile.
        thread::yield_now();
        let synced = self.0.sync();
        thread::yield_now();
        synced
    }

    fn forget(&self, from: u64) {
        self.0.forget(from);
    }

    fn map(&self, len: usize, writable: bool) -> io::Result<Map> {
        self.0.map(len, writable)
    }
}

fn open(disk: &SimDisk, durability: Durability) -> Store {
    Store::options().durability(durability).storage(Arc::new(Scheduled(disk.clone()))).open(PATH).unwrap()
}

fn small() -> LogOptions {
    LogOptions::new().segment_bytes(64 << 10)
}

/// The offsets that a power loss now would leave in a log, if nothing that was not synced survived.
fn durable(disk: &SimDisk, log: &str) -> Vec<u64> {
    let store = open(&disk.crash(Crash::new(1).keep(Keep::Nothing)), Durability::Sync);
    let found = offsets(&store.log(log).unwrap());
    store.close().unwrap();
    found
}

fn offsets(log: &Log) -> Vec<u64> {
    log.read(StartAt::Earliest).unwrap().map(|entry| entry.unwrap().offset()).collect()
}

#[test]
fn what_was_acknowledged_or_read_under_sync_is_durable_and_no_committer_is_left_behind() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Sync);
        let log = store.log("orders").unwrap();
        let appenders: Vec<_> = (0..3)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || [log.append("a").unwrap().offset, log.append("b").unwrap().offset])
            })
            .collect();
        let mut reader = log.read(StartAt::Earliest).unwrap();
        let partition = log.partition(0).unwrap();
        let reading = thread::spawn(move || {
            // Looking, not waiting: whoever waits is woken when all is in place.
            let first = loop {
                match reader.next() {
                    Some(entry) => break entry.unwrap().offset(),
                    None => thread::yield_now(),
                }
            };
            assert!(partition.end_offset() > first, "{first} was read above the readable end");
            first
        });
        let (seen, first) = (disk.clone(), reading.join().unwrap());
        assert!(durable(&seen, "orders").contains(&first), "a record was readable before it was durable");
        let given: BTreeSet<u64> = appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect();
        assert_eq!(given, (0..6).collect());
        assert_eq!(log.partition(0).unwrap().end_offset(), 6);
        assert_eq!(durable(&disk, "orders"), [0, 1, 2, 3, 4, 5]);
        store.close().unwrap();
    });
}

#[test]
fn a_waiting_reader_gets_every_record_over_segments_that_roll_and_are_sealed_under_it() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Os);
        let log = store.log_with("orders", small()).unwrap();
        let appenders: Vec<_> = (0..2)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || {
                    for _ in 0..3 {
                        log.append(vec![7; 25_000]).unwrap();
                    }
                })
            })
            .collect();
        let mut reader = log.read(StartAt::Earliest).unwrap();
        for expected in 0..6 {
            let entry = reader.recv_timeout(EVER).unwrap().unwrap();
            assert_eq!((entry.offset(), entry.value()), (expected, &[7; 25_000][..]));
        }
        for appender in appenders {
            appender.join().unwrap();
        }
        store.close().unwrap();
        let store = open(&disk.kill(), Durability::Os);
        assert_eq!(offsets(&store.log("orders").unwrap()), [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn members_that_come_and_go_hand_over_and_commit_every_record_once() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Os);
        let log = store.log_with("orders", small().partitions(2)).unwrap();
        for partition in 0..2 {
            log.partition(partition).unwrap().append_batch(["a", "b"]).unwrap();
        }
        let (settle, settled) = mpsc::channel();
        let members: Vec<_> = (0..2)
            .map(|member| {
                let (log, settle) = (log.clone(), settle.clone());
                thread::spawn(move || {
                    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
                    // The first leaves with a batch in flight; the other stays for all that is left.
                    for _ in 0..if member == 0 { 1 } else { 4 } {
                        match consumer.poll(Duration::ZERO).unwrap() {
                            Some(batch) => settle.send(batch).unwrap(),
                            None => thread::yield_now(),
                        }
                    }
                })
            })
            .collect();
        drop(settle);
        let mut committed = BTreeSet::new();
        for batch in settled {
            let at = (batch.partition(), batch.offsets().start);
            // Fenced by nobody: there is no timeout, and a hand-over waits.
            batch.commit().unwrap();
            assert!(committed.insert(at), "{at:?} was committed twice");
        }
        for member in members {
            member.join().unwrap();
        }
        let mut rest = log.consumer("group").at_least_once().unwrap();
        while let Some(batch) = rest.poll(Duration::ZERO).unwrap() {
            for entry in &batch {
                assert!(committed.insert((batch.partition(), entry.offset())), "delivered after it was committed");
            }
            batch.commit().unwrap();
        }
        assert_eq!(committed.len(), 4);
        assert!(store.group("group").placemarks().unwrap().iter().all(|at| at.offset == 2));
    });
}

#[test]
fn a_blocked_poll_is_woken_by_a_settlement_a_departure_or_a_record() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Os);
        let log = store.log("orders").unwrap();
        log.append("a").unwrap();
        let member = |log: &Log| log.consumer("group").max_poll_records(1).at_least_once().unwrap();
        let mut first = member(&log);
        let batch = first.poll(EVER).unwrap().unwrap();
        let waiting = {
            let log = log.clone();
            thread::spawn(move || {
                let mut second = member(&log);
                let batch = second.poll(EVER).unwrap().unwrap();
                assert_eq!(batch.offsets(), 0..1, "the dropped batch comes first, to whoever has the partition now");
                batch.commit().unwrap();
                second.poll(EVER).unwrap().unwrap().commit().unwrap();
            })
        };
        drop(batch);
        drop(first);
        log.append("b").unwrap();
        waiting.join().unwrap();
    });
}

#[test]
fn transactions_of_many_threads_are_whole_durable_and_seen_together() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Os);
        let (a, b) = (store.log("a").unwrap(), store.log("b").unwrap());
        let committers: Vec<_> = (0..2)
            .map(|_| {
                let (store, a, b) = (store.clone(), a.clone(), b.clone());
                thread::spawn(move || {
                    let mut transaction = store.transaction();
                    transaction.append(&a, "1").unwrap();
                    transaction.append(&a, "2").unwrap();
                    transaction.append(&b, "3").unwrap();
                    transaction.commit().unwrap();
                })
            })
            .collect();
        let plain = {
            thread::spawn({
                let a = a.clone();
                move || a.append("0").unwrap()
            })
        };
        let seen = a.read(StartAt::Earliest).unwrap().map(|entry| entry.unwrap().value().to_vec()).collect::<Vec<_>>();
        let halves = |value: &[u8]| seen.iter().filter(|seen| *seen == value).count();
        assert_eq!(halves(b"1"), halves(b"2"), "half of a transaction was readable: {seen:?}");
        for committer in committers {
            committer.join().unwrap();
        }
        plain.join().unwrap();
        let crashed = open(&disk.crash(Crash::new(2).keep(Keep::Nothing)), Durability::Os);
        assert_eq!(offsets(&crashed.log("b").unwrap()).len(), 2);
        let values = crashed.log("a").unwrap().read(StartAt::Earliest).unwrap();
        let decided = values.map(|entry| entry.unwrap().value().to_vec()).filter(|value| value != b"0").count();
        assert_eq!(decided, 4, "a decided transaction was lost");
        store.close().unwrap();
    });
}

#[test]
fn a_store_closed_under_its_appenders_has_all_that_they_were_told() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Os);
        let log = store.log_with("orders", small()).unwrap();
        let appenders: Vec<_> = (0..2)
            .map(|_| {
                let log = log.clone();
                thread::spawn(move || {
                    let mut told = Vec::new();
                    for _ in 0..3 {
                        match log.append(vec![1; 30_000]) {
                            Ok(at) => told.push(at.offset),
                            Err(Error::Closed) => break,
                            Err(other) => panic!("{other}"),
                        }
                    }
                    told
                })
            })
            .collect();
        store.close().unwrap();
        let told: BTreeSet<u64> = appenders.into_iter().flat_map(|appender| appender.join().unwrap()).collect();
        let store = open(&disk, Durability::Os);
        let found: BTreeSet<u64> = offsets(&store.log("orders").unwrap()).into_iter().collect();
        assert_eq!(found, told);
        assert_eq!(store.recovery().recovered_partitions, 0, "it was closed cleanly");
    });
}

#[test]
fn readers_and_searches_step_over_segments_that_are_given_up_under_them() {
    explore(|| {
        let disk = SimDisk::new(1);
        let store = open(&disk, Durability::Os);
        let log = store.log_with("orders", small()).unwrap();
        let partition = log.partition(0).unwrap();
        for _ in 0..6 {
            partition.append(vec![1; 25_000]).unwrap();
        }
        // Reopened, so that no mapping is left of the appends.
        store.close().unwrap();
        let store = open(&disk, Durability::Os);
        let log = store.log("orders").unwrap();
        let partition = log.partition(0).unwrap();
        let mut reader = partition.read(StartAt::Earliest).unwrap();
        let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
        let trimming = thread::spawn(move || {
            partition.trim_before(2).unwrap();
            partition.trim_before(4).unwrap();
        });
        let searching = thread::spawn(move || {
            assert!(consumer.lag().unwrap()[0].records <= 6);
            consumer.seek(0, StartAt::Time(SystemTime::UNIX_EPOCH)).unwrap();
            let batch = consumer.poll(Duration::ZERO).unwrap().unwrap();
            assert!([0, 2, 4].contains(&batch.offsets().start), "{batch:?}");
        });
        let read: Vec<u64> = reader.by_ref().map(|entry| entry.unwrap().offset()).collect();
        assert!(read.is_sorted() && read.ends_with(&[4, 5]), "{read:?}");
        assert_eq!(read.len() as u64 + reader.skipped(), 6, "{read:?}");
        trimming.join().unwrap();
        searching.join().unwrap();
    });
}

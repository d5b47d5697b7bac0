//! Calls of the API in any order, the process killed and the power lost between them, held against a model.

use std::collections::BTreeMap;
use std::time::Duration;

use placemark::storage::{Crash, SimDisk};
use placemark::{Durability, Entry, Error, Log, LogOptions, Record, RecoveryMode, StartAt, Store};

use super::image::open;

/// The first log is under `Sync`, the second under `Os`.
const LOGS: [&str; 2] = ["x", "y"];

/// Log, partition, offset.
type Place = (usize, u32, u64);

/// A record that was acknowledged.
#[derive(Debug, Clone)]
struct Known {
    value: Vec<u8>,
    /// Whether power loss must not take it.
    durable: bool,
}

struct World {
    disk: SimDisk,
    store: Option<Store>,
    known: BTreeMap<Place, Known>,
    /// By log and partition: the first offset that no record has had.
    fresh: BTreeMap<(usize, u32), u64>,
    /// Placemarks of the group `g` on the first log.
    placemarks: BTreeMap<u32, u64>,
    count: u64,
}

/// Three bytes a call.
pub(crate) fn calls(data: &[u8]) {
    let Some((seed, calls)) = data.split_first() else { return };
    let mut world = World {
        disk: SimDisk::new(u64::from(*seed)),
        store: None,
        known: BTreeMap::new(),
        fresh: BTreeMap::new(),
        placemarks: BTreeMap::new(),
        count: 0,
    };
    world.reopen();
    for call in calls.chunks_exact(3).take(100) {
        if let &[kind, a, b] = call {
            world.call(kind % 10, a, b);
        }
    }
    world.check();
    world.close();
    world.reopen();
    world.check();
}

/// Nothing is wrong with this disk, so that nothing may fail.
fn must<T>(outcome: Result<T, Error>) -> T {
    outcome.unwrap_or_else(|error| panic!("{error}"))
}

impl World {
    fn store(&self) -> &Store {
        self.store.as_ref().unwrap_or_else(|| panic!("there is a store between calls"))
    }

    fn log(&self, number: usize) -> Log {
        let options = LogOptions::new().segment_bytes(64 << 10);
        must(if number == 0 {
            self.store().log_with(LOGS[0], options.partitions(2))
        } else {
            self.store().log_with(LOGS[1], options.durability(Durability::Os))
        })
    }

    fn call(&mut self, kind: u8, a: u8, b: u8) {
        let len = usize::from(a) * usize::from(b) / 8;
        match kind {
            0 | 1 => self.append(usize::from(kind), 1, len),
            2 => self.append(usize::from(a) % 2, usize::from(b) % 20, 5),
            3 => {
                must(self.store().sync());
                self.known.values_mut().for_each(|known| known.durable = true);
            }
            4 => {
                self.close();
                self.reopen();
            }
            5 => {
                self.disk = self.disk.kill();
                self.reopen();
                self.check();
            }
            6 => {
                self.disk = self.disk.crash(Crash::new(u64::from(a) << 8 | u64::from(b)));
                self.reopen();
                self.lose();
                self.check();
            }
            7 => self.check(),
            8 => self.consume(usize::from(a) % 9 + 1),
            _ => self.transact(len / 4, b),
        }
    }

    fn value(&mut self, len: usize) -> Vec<u8> {
        self.count += 1;
        let mut value = self.count.to_le_bytes().to_vec();
        value.resize(8 + len, 7);
        value
    }

    fn append(&mut self, log: usize, count: usize, len: usize) {
        let values: Vec<_> = (0..count).map(|_| self.value(len)).collect();
        let positions = must(self.log(log).append_batch(&values));
        assert_eq!(positions.len(), values.len());
        for (at, value) in positions.into_iter().zip(values) {
            self.learn((log, at.partition, at.offset), value, log == 0);
        }
    }

    /// One in four is given up.
    fn transact(&mut self, len: usize, control: u8) {
        let mut transaction = self.store().transaction();
        let mut values = Vec::new();
        for number in 0..control % 5 {
            let (log, value) = (usize::from(number % 2), self.value(len));
            must(transaction.append(&self.log(log), Record::new(&value)));
            values.push((log, value));
        }
        if control >= 192 {
            drop(transaction);
            return;
        }
        must(transaction.commit());
        for (place, value) in [self.read(0), self.read(1)].concat() {
            if values.contains(&(place.0, value.clone())) {
                self.learn(place, value, true);
            }
        }
        for (log, value) in values {
            assert!(
                self.known.iter().any(|(place, known)| place.0 == log && known.value == value),
                "not all or nothing"
            );
        }
    }

    /// No place is given twice.
    fn learn(&mut self, place: Place, value: Vec<u8>, durable: bool) {
        let fresh = self.fresh.entry((place.0, place.1)).or_default();
        assert!(place.2 >= *fresh, "{place:?} was given to a second record");
        *fresh = place.2 + 1;
        self.known.insert(place, Known { value, durable });
    }

    fn read(&self, log: usize) -> Vec<(Place, Vec<u8>)> {
        let item = |entry: Result<Entry, Error>| {
            let entry = must(entry);
            ((log, entry.partition(), entry.offset()), entry.value().to_vec())
        };
        must(self.log(log).read(StartAt::Earliest)).map(item).collect()
    }

    /// Everything acknowledged is there, and nothing else.
    fn check(&self) {
        let mut found: Vec<_> = (0..LOGS.len()).flat_map(|log| self.read(log)).collect();
        found.sort();
        let known: Vec<_> = self.known.iter().map(|(place, known)| (*place, known.value.clone())).collect();
        assert_eq!(found, known);
        let placemarks = must(self.store().group("g").placemarks());
        let placemarks: BTreeMap<_, _> = placemarks.iter().map(|it| (it.partition, it.offset)).collect();
        assert_eq!(placemarks, self.placemarks);
    }

    /// After power loss: forgets what need not be there and is not.
    fn lose(&mut self) {
        let found: BTreeMap<_, _> = (0..LOGS.len()).flat_map(|log| self.read(log)).collect();
        self.known.retain(|place, known| known.durable || found.contains_key(place));
        // What was found has been made durable by the opening.
        self.known.values_mut().for_each(|known| known.durable = true);
    }

    fn consume(&mut self, most: usize) {
        let mut consumer = must(self.log(0).consumer("g").max_poll_records(most).at_least_once());
        if let Some(batch) = must(consumer.poll(Duration::ZERO)) {
            let (partition, from) = (batch.partition(), self.placemarks.get(&batch.partition()).copied().unwrap_or(0));
            let next = batch.offsets().end;
            let expected = self.known.range((0, partition, from)..(0, partition, next));
            assert!(batch.iter().map(Entry::value).eq(expected.map(|(_, known)| &known.value[..])));
            must(batch.commit());
            self.placemarks.insert(partition, next);
        }
    }

    fn close(&mut self) {
        must(self.store().close());
        self.store = None;
        self.known.values_mut().for_each(|known| known.durable = true);
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(must(open(&self.disk, RecoveryMode::Strict)));
    }
}

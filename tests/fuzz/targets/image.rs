//! Stores as real code leaves them, and what is in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use placemark::storage::SimDisk;
use placemark::{
    Durability, Entry, Log, LogOptions, Partition, Record, RecoveryMode, RecoveryReport, Result, StartAt, Store,
};

pub(crate) const PATH: &str = "/data";

/// A record: its offset, key, and value.
pub(crate) type Item = (u64, Option<Vec<u8>>, Option<Vec<u8>>);

/// All that a program can see of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct State {
    /// By log and partition.
    pub(crate) logs: BTreeMap<String, Vec<Vec<Item>>>,
    /// By group, log and partition.
    pub(crate) placemarks: BTreeMap<(String, String, u32), u64>,
}

/// The files of a store.
#[derive(Debug)]
pub(crate) struct Image {
    files: Vec<(PathBuf, Vec<u8>)>,
    pub(crate) state: State,
    pub(crate) was_killed: bool,
}

/// A store that was closed.
pub(crate) fn closed() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| make(false).unwrap_or_else(|error| panic!("the image cannot be made: {error}")))
}

/// A store whose process died.
pub(crate) fn killed() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| make(true).unwrap_or_else(|error| panic!("the image cannot be made: {error}")))
}

pub(crate) fn open(disk: &SimDisk, mode: RecoveryMode) -> Result<Store> {
    Store::options().storage(Arc::new(disk.clone())).recovery_mode(mode).open(PATH)
}

fn make(kill: bool) -> Result<Image> {
    let disk = SimDisk::new(7);
    let store = open(&disk, RecoveryMode::Strict)?;
    let options = LogOptions::new().segment_bytes(64 << 10);
    let a = store.log_with("a", options.segment_age(Duration::from_secs(60)))?;
    for number in 0..40_u64 {
        if number % 15 == 14 {
            disk.advance(Duration::from_secs(61));
        }
        let value = vec![b'a'; usize::try_from(number).unwrap_or(0) * 5];
        match number % 4 {
            0 => a.append(&value)?,
            1 => a.append(Record::new(&value).key("key").header("name", "value"))?,
            2 => a.append(Record::tombstone("key"))?,
            _ => a.append(Record::new(&number.to_le_bytes()).key(""))?,
        };
    }
    a.append_batch((0..10).map(|number| format!("{number} of a batch")))?;
    let b = store.log_with("b", options.partitions(2).durability(Durability::Os))?;
    let mut through = a.consumer("through").max_poll_records(20).exactly_once()?;
    while let Some(batch) = through.poll(Duration::ZERO)? {
        let mut transaction = store.transaction();
        for entry in batch.iter().step_by(3) {
            transaction.append(&b, Record::new(entry.value()).key(&entry.offset().to_le_bytes()))?;
        }
        transaction.commit_with(batch)?;
    }
    let mut group = a.consumer("group").max_poll_records(7).at_least_once()?;
    if let Some(batch) = group.poll(Duration::ZERO)? {
        batch.commit()?;
    }
    drop((through, group));
    let left = if kill {
        disk.kill()
    } else {
        store.close()?;
        disk.clone()
    };
    let files: Vec<_> =
        left.files().into_iter().map(|path| (path.clone(), left.read_file(&path).unwrap_or_default())).collect();
    let mut image = Image { files, state: State::default(), was_killed: kill };
    image.state = observe(&image.disk_with(Path::new(""), None), RecoveryMode::Strict)?.0;
    assert_eq!(image.state.logs.get("a").and_then(|log| log.first()).map(Vec::len), Some(50));
    Ok(image)
}

impl Image {
    /// A disk with its files, of which the one at `path` has these bytes, or is missing.
    pub(crate) fn disk_with(&self, path: &Path, bytes: Option<&[u8]>) -> SimDisk {
        let disk = SimDisk::new(1);
        for (name, content) in &self.files {
            match bytes {
                _ if name != path => disk.write_file(name, content),
                Some(bytes) => disk.write_file(name, bytes),
                None => {}
            }
        }
        disk
    }

    pub(crate) fn path(&self, number: usize) -> &Path {
        self.files.get(number % self.files.len()).map_or(Path::new(""), |(path, _)| path)
    }

    pub(crate) fn file(&self, path: &Path) -> &[u8] {
        self.files.iter().find(|(name, _)| name == path).map_or(&[], |(_, bytes)| bytes)
    }

    /// The segment of a partition that was appended to.
    pub(crate) fn active(&self, partition: &str) -> PathBuf {
        self.segments(partition).pop().unwrap_or_default()
    }

    /// The oldest segment of a partition.
    pub(crate) fn sealed(&self, partition: &str) -> PathBuf {
        self.segments(partition).into_iter().next().unwrap_or_default()
    }

    fn segments(&self, partition: &str) -> Vec<PathBuf> {
        let dir = Path::new(PATH).join(partition);
        let all = self.files.iter().map(|(path, _)| path.clone());
        all.filter(|path| path.parent() == Some(&dir) && path.extension().is_some_and(|it| it == "log")).collect()
    }
}

/// Opens a store, reads all that is in it, and closes it. What is read agrees with itself.
pub(crate) fn observe(disk: &SimDisk, mode: RecoveryMode) -> Result<(State, RecoveryReport)> {
    look(disk, mode, agrees)
}

/// The same of a store with forged records, which may contradict one another.
pub(crate) fn observe_forged(disk: &SimDisk, mode: RecoveryMode) -> Result<(State, RecoveryReport)> {
    look(disk, mode, |_, _| Ok(()))
}

type Check = fn(&Partition, &[Item]) -> Result<()>;

fn look(disk: &SimDisk, mode: RecoveryMode, check: Check) -> Result<(State, RecoveryReport)> {
    let store = open(disk, mode)?;
    let mut state = State::default();
    for name in store.logs()? {
        let log = store.open_log(&name)?;
        let items = (0..log.partitions()).map(|number| read_partition(&log, number, check)).collect::<Result<_>>()?;
        state.logs.insert(name, items);
    }
    for group in store.groups()? {
        for placemark in store.group(&group).placemarks()? {
            state.placemarks.insert((group.clone(), placemark.log, placemark.partition), placemark.offset);
        }
    }
    let report = store.recovery();
    store.close()?;
    Ok((state, report))
}

fn read_partition(log: &Log, number: u32, check: Check) -> Result<Vec<Item>> {
    let partition = log.partition(number)?;
    let items = partition.read(StartAt::Earliest)?.map(|entry| entry.map(|entry| item(&entry))).collect::<Result<_>>();
    let items: Vec<Item> = items?;
    assert!(items.is_sorted_by(|one, next| one.0 < next.0), "offsets go back");
    check(&partition, &items)?;
    Ok(items)
}

fn item(entry: &Entry) -> Item {
    assert!(entry.headers().all(|(name, _)| entry.header(name).is_some()));
    let value = (!entry.is_tombstone()).then(|| entry.value().to_vec());
    (entry.offset(), entry.key().map(<[u8]>::to_vec), value)
}

/// Records are where the partition says that it has some, and are found by their offsets.
fn agrees(partition: &Partition, items: &[Item]) -> Result<()> {
    let (start, end) = (partition.start_offset(), partition.end_offset());
    assert!(items.iter().all(|item| (start..end).contains(&item.0)), "a record outside of {start}..{end}");
    for wanted in (start..end).take(60) {
        let found = partition.read(StartAt::Offset(wanted))?.next().transpose()?.as_ref().map(item);
        assert_eq!(found.as_ref(), items.iter().find(|item| item.0 >= wanted), "offset {wanted} of {start}..{end}");
    }
    Ok(())
}

/// Uses a store, whatever is wrong with it: an error or not, but what is acknowledged is there afterwards.
pub(crate) fn go_on(disk: &SimDisk, mode: RecoveryMode) {
    let Ok(store) = open(disk, mode) else { return };
    let mut acknowledged = Vec::new();
    for name in store.logs().unwrap_or_default().into_iter().take(8) {
        let Ok(log) = store.open_log(&name) else { continue };
        if let Ok(at) = log.append(Record::new("after").key("after")) {
            acknowledged.push((name, at));
        }
        if let Ok(mut consumer) = log.consumer("group").at_least_once() {
            while let Ok(Some(batch)) = consumer.poll(Duration::ZERO) {
                if batch.commit().is_err() {
                    break;
                }
            }
        }
    }
    if store.close().is_err() {
        return;
    }
    let store = open(disk, mode).unwrap_or_else(|error| panic!("a store that was closed does not open: {error}"));
    for (name, at) in acknowledged {
        let partition = store.open_log(&name).and_then(|log| log.partition(at.partition));
        let read = partition.and_then(|partition| partition.read(StartAt::Offset(at.offset))?.next().transpose());
        let entry = read.unwrap_or_else(|error| panic!("{name} after it was closed: {error}"));
        let entry = entry.unwrap_or_else(|| panic!("{at:?} of {name} was acknowledged, and is gone"));
        assert_eq!((entry.offset(), entry.value()), (at.offset, &b"after"[..]));
    }
}

//! A store and its logs are made, changed and deleted on the simulated disk, which loses its power at every operation:
//! what is found afterwards is the state before the step that was cut short, or the one behind it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as the tests do")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use placemark::storage::{Crash, Fault, Keep, Operation, SimDisk};
use placemark::{Durability, Error, LogOptions, RecoveryMode, Result, StartAt, Store};

const PATH: &str = "/var/lib/data";

/// The logs of a store: how many partitions each has, and the values in all of them.
type State = BTreeMap<String, (u32, Vec<Vec<u8>>)>;

/// Steps, each with what it makes of the state.
type Step = (fn(&Store) -> Result<()>, fn(&mut State));

const STEPS: [Step; 8] = [
    (
        |store| store.log_with("a", LogOptions::new().segment_bytes(64 << 10)).map(drop),
        |state| drop(state.insert("a".into(), (1, vec![]))),
    ),
    (|store| store.log("a")?.append("1").map(drop), |state| state.get_mut("a").unwrap().1.push(b"1".to_vec())),
    (
        |store| store.log_with("b", LogOptions::new().partitions(2)).map(drop),
        |state| drop(state.insert("b".into(), (2, vec![]))),
    ),
    (
        |store| store.log("b")?.partition(1)?.append("2").map(drop),
        |state| state.get_mut("b").unwrap().1.push(b"2".to_vec()),
    ),
    (|store| store.log_with("a", LogOptions::new().partitions(3)).map(drop), |state| state.get_mut("a").unwrap().0 = 3),
    (|store| store.delete_log("b"), |state| drop(state.remove("b"))),
    (|store| store.log("b").map(drop), |state| drop(state.insert("b".into(), (1, vec![])))),
    (
        |store| store.log("a")?.partition(2)?.append("3").map(drop),
        |state| state.get_mut("a").unwrap().1.push(b"3".to_vec()),
    ),
];

fn open(disk: &SimDisk) -> Result<Store> {
    Store::options().storage(Arc::new(disk.clone())).open(PATH)
}

/// Goes through the steps until one fails; the states before and behind that one.
fn run(disk: &SimDisk) -> (State, State) {
    let mut done = State::new();
    let Ok(store) = open(disk) else { return (done.clone(), done) };
    for (step, change) in STEPS {
        let mut next = done.clone();
        change(&mut next);
        if step(&store).is_err() {
            return (done, next);
        }
        done = next;
    }
    // That fails too where the power was lost at the end.
    let _ = store.close();
    (done.clone(), done)
}

fn state(store: &Store) -> Result<State> {
    let mut state = State::new();
    for name in store.logs()? {
        let log = store.open_log(&name)?;
        let values = log.read(StartAt::Earliest)?.map(|entry| entry.map(|entry| entry.value().to_vec()));
        state.insert(name, (log.partitions(), values.collect::<Result<_>>()?));
    }
    Ok(state)
}

/// Opens what a crash left, and checks that it is one of two states, twice, and that the store works.
fn check(disk: &SimDisk, (before, behind): &(State, State), what: &str) {
    let store = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = state(&store).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(found == *before || found == *behind, "{what}: {found:?} is neither {before:?} nor {behind:?}");
    store.log("new").unwrap().append("new").unwrap();
    store.close().unwrap();
    let files = disk.files();
    let left = files.iter().find(|path| path.to_string_lossy().contains('~') || path.ends_with("STORE.new"));
    assert_eq!(left, None, "{what}: a leftover stayed");
    let store = open(disk).unwrap();
    let mut expected = found;
    expected.insert("new".into(), (1, vec![b"new".to_vec()]));
    assert_eq!(state(&store).unwrap(), expected, "{what}: opened again");
}

#[test]
fn a_power_loss_at_any_operation_leaves_the_state_before_or_behind_the_step() {
    let whole = SimDisk::new(1);
    let (done, _) = run(&whole);
    assert_eq!(done.len(), 2);
    let all = whole.operations();
    assert!(all > 100, "{all} operations");
    for after in 0..=all {
        for (seed, keep) in
            [(1, Keep::Nothing), (2, Keep::Everything), (3, Keep::Random), (4, Keep::Random), (5, Keep::Random)]
        {
            let disk = SimDisk::new(1);
            disk.crash_after(after);
            let states = run(&disk);
            let left = disk.crash(Crash::new(seed * 1000 + after).keep(keep));
            check(&left, &states, &format!("power lost after operation {after} of {all}, seed {seed}, {keep:?}"));
        }
    }
}

#[test]
fn a_power_loss_while_a_store_is_made_leaves_one_that_can_be_made_or_opened() {
    let whole = SimDisk::new(1);
    open(&whole).unwrap();
    let nothing = (State::new(), State::new());
    for after in 0..=whole.operations() {
        for seed in 0..40 {
            let disk = SimDisk::new(1);
            disk.crash_after(after);
            let _ = open(&disk);
            let left = disk.crash(Crash::new(seed).keep(Keep::Random));
            check(&left, &nothing, &format!("power lost after operation {after}, seed {seed}"));
        }
    }
}

#[test]
fn a_kill_at_any_operation_leaves_the_state_before_or_behind_the_step() {
    let whole = SimDisk::new(1);
    run(&whole);
    for after in 0..=whole.operations() {
        let disk = SimDisk::new(1);
        disk.crash_after(after);
        let states = run(&disk);
        check(&disk.kill(), &states, &format!("killed after operation {after}"));
    }
}

#[test]
fn a_second_power_loss_while_the_first_is_mended_does_no_more_harm() {
    let whole = SimDisk::new(1);
    run(&whole);
    for first in (0..=whole.operations()).step_by(3) {
        let disk = SimDisk::new(1);
        disk.crash_after(first);
        let states = run(&disk);
        for second in 0..30 {
            let left = disk.crash(Crash::new(first).keep(Keep::Random));
            left.crash_after(second);
            if let Ok(store) = open(&left) {
                // What it finds is checked below, on what this leaves.
                let _ = state(&store);
            }
            let left = left.crash(Crash::new(second).keep(Keep::Random));
            check(&left, &states, &format!("power lost after operation {first}, then after {second}"));
        }
    }
}

#[test]
fn an_operation_that_fails_is_reported_and_leaves_a_store_that_opens() {
    let whole = SimDisk::new(1);
    run(&whole);
    for operation in [Operation::Create, Operation::Write, Operation::Sync, Operation::Rename, Operation::SyncDir] {
        for nth in 1..60 {
            let disk = SimDisk::new(1);
            disk.inject(Fault::new(operation, io::ErrorKind::StorageFull).nth(nth));
            let states = run(&disk);
            disk.clear_faults();
            check(&disk.kill(), &states, &format!("{operation:?} number {nth} failed"));
        }
    }
}

#[test]
fn a_store_on_a_full_disk_is_refused_with_the_reason_and_made_once_there_is_room() {
    for pages in 0..40 {
        let disk = SimDisk::new(1);
        disk.capacity(pages * 4096);
        let refused = open(&disk).and_then(|store| store.log("a").map(drop));
        match refused {
            Ok(()) => continue,
            Err(Error::Io { source, .. }) => assert_eq!(source.kind(), io::ErrorKind::StorageFull),
            Err(other) => panic!("with {pages} pages: {other}"),
        }
        disk.capacity(1 << 30);
        open(&disk).unwrap().log("a").unwrap().append("1").unwrap();
    }
}

#[test]
fn what_is_promised_after_a_kill_does_not_hang_on_a_name_that_the_killed_process_left_unsynced() {
    let whole = SimDisk::new(1);
    run(&whole);
    for after in 0..=whole.operations() {
        let disk = SimDisk::new(1);
        disk.crash_after(after);
        run(&disk);
        let left = disk.kill();
        let promised = open(&left).and_then(|store| {
            for name in store.logs()? {
                let log = store.open_log(&name)?;
                log.partition(log.partitions() - 1)?.append("promised")?;
            }
            store.log("new")?.append("promised")?;
            state(&store)
        });
        let promised = promised.unwrap_or_else(|error| panic!("killed after operation {after}: {error}"));
        // The process dies again, and the power is lost before the names of before would have reached the disk.
        let left = left.crash(Crash::new(after).keep(Keep::Nothing));
        let found = open(&left).and_then(|store| state(&store));
        let found = found.unwrap_or_else(|error| panic!("killed after operation {after}, then no power: {error}"));
        assert_eq!(found, promised, "killed after operation {after}, then no power");
    }
}

#[test]
fn a_segment_is_removed_only_once_no_manifest_that_power_loss_could_bring_back_lists_it() {
    // Closing rewrites the side log and gives up the journal's segments.
    let fill = |disk: &SimDisk| -> Result<()> {
        let store = open(disk)?;
        let log = store.log("a")?;
        let mut txn = store.transaction();
        txn.append(&log, "1")?;
        txn.commit()?;
        store.close()
    };
    let whole = SimDisk::new(1);
    fill(&whole).unwrap();
    // The last that is done is to close the journal.
    for after in whole.operations() - 40..=whole.operations() {
        let disk = SimDisk::new(1);
        disk.crash_after(after);
        let _ = fill(&disk);
        let left = disk.kill();
        assert_opens_however_opening_is_cut_short(&left, &format!("killed after {after}"));
    }
}

#[test]
fn a_segment_that_recovery_gives_up_is_gone_for_good_before_its_partition_counts_as_closed() {
    let disk = SimDisk::new(1);
    let store = Store::options().storage(Arc::new(disk.clone())).durability(Durability::Os).open(PATH).unwrap();
    let log = store.log_with("a", LogOptions::new().segment_bytes(64 << 10)).unwrap();
    log.append_batch([vec![7; 24_000], vec![8; 24_000]]).unwrap();
    // The next one begins a segment, while nothing of the one before it is promised: power loss may take that, and leave
    // what there is of the new one.
    disk.keep_moments();
    log.append(vec![9; 24_000]).unwrap();
    for moment in disk.take_moments() {
        for seed in 0..16 {
            let left = moment.disk.crash(Crash::new(seed));
            assert_opens_however_opening_is_cut_short(&left, &format!("no power at {} with seed {seed}", moment.done));
        }
    }
}

fn assert_opens_however_opening_is_cut_short(left: &SimDisk, before: &str) {
    left.keep_moments();
    let opened = open(left).and_then(|store| state(&store));
    assert!(opened.is_ok(), "{before}: {opened:?}");
    for moment in left.take_moments() {
        // Names are at stake where they are about to be synced.
        let seeds = if moment.operation == Operation::SyncDir { 32 } else { 2 };
        for seed in 0..seeds {
            let left = moment.disk.crash(Crash::new(seed));
            let opened = open(&left).and_then(|store| state(&store));
            assert!(opened.is_ok(), "{before}, then no power at {}: {opened:?}", moment.done);
        }
    }
}

#[test]
fn a_transaction_keeps_its_placemark_though_the_store_waits_for_no_disk() {
    let disk = SimDisk::new(1);
    let options = || Store::options().storage(Arc::new(disk.clone())).durability(Durability::Os);
    let store = options().open(PATH).unwrap();
    let (from, to) = (store.log("from").unwrap(), store.log("to").unwrap());
    from.append("1").unwrap();
    let mut consumer = from.consumer("group").exactly_once().unwrap();
    let batch = consumer.poll(Duration::ZERO).unwrap().unwrap();
    let mut txn = store.transaction();
    txn.append(&to, "result").unwrap();
    txn.commit_with(batch).unwrap();

    let left = disk.crash(Crash::new(1).keep(Keep::Nothing));
    let store = open(&left).unwrap();
    assert_eq!(state(&store).unwrap()["to"].1, [b"result"]);
    let placemarks = store.group("group").placemarks().unwrap();
    assert_eq!(
        placemarks.iter().map(|at| at.offset).collect::<Vec<_>>(),
        [1],
        "its result is there, its placemark not"
    );
}

#[test]
fn a_manifest_that_was_put_back_from_an_earlier_close_is_corrupt_and_salvage_loses_nothing() {
    let disk = SimDisk::new(1);
    let path = format!("{PATH}/logs/a/0/MANIFEST");
    let append = |value: &str| {
        let store = open(&disk).unwrap();
        store.log("a").unwrap().append(value).unwrap();
        store.close().unwrap();
    };
    append("1");
    let earlier = disk.read_file(&path).unwrap();
    append("2");
    disk.write_file(&path, &earlier);

    let store = open(&disk).unwrap();
    assert!(matches!(store.open_log("a"), Err(Error::Corrupt { position, .. }) if position > 64));
    drop(store);
    let salvage = Store::options().recovery_mode(RecoveryMode::Salvage);
    let store = salvage.storage(Arc::new(disk.clone())).open(PATH).unwrap();
    assert_eq!(state(&store).unwrap()["a"].1, [b"1", b"2"]);
}

#[test]
fn a_log_whose_file_is_damaged_and_whose_name_was_lost_does_not_seem_never_to_have_been() {
    let disk = SimDisk::new(1);
    let store = open(&disk).unwrap();
    // What says the name is the last that was written, and nothing vouches for it yet.
    store.log("a").unwrap();
    let (left, log) = (disk.kill(), format!("{PATH}/logs/a/LOG"));
    let side = left.files().into_iter().find(|path| path.ends_with("placemarks/00000000000000000000.log")).unwrap();
    let cut = left.read_file(&side).unwrap().iter().position(|byte| *byte == b'a').map(|at| at.saturating_sub(1));
    left.write_file(&side, &left.read_file(&side).unwrap()[..cut.unwrap_or(64).max(64)]);
    let mut bytes = left.read_file(&log).unwrap();
    bytes[13] ^= 1;
    left.write_file(&log, &bytes);
    let found = open(&left).and_then(|store| store.open_log("a").map(drop));
    assert!(matches!(&found, Err(Error::Corrupt { path, .. }) if path.ends_with("LOG")), "{found:?}");
}

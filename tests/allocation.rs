//! An append allocates nothing, and what is known of many producers takes little memory.
#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

#[expect(dead_code, reason = "every test file uses its own part of it")]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use placemark::{Durability, LogOptions, Record};

use common::{WAIT, in_cache, scratch};

/// The system's allocator, counting what each thread asks of it.
struct Counting;

thread_local! {
    /// Allocations of this thread. Neither its making nor its end allocates.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// Bytes that this thread was given, less those that it gave back.
    static HELD: Cell<i64> = const { Cell::new(0) };
    /// The most that it was.
    static MOST: Cell<i64> = const { Cell::new(0) };
}

fn count(given: usize, back: usize) {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
    hold(given, back);
}

fn hold(given: usize, back: usize) {
    HELD.set(HELD.get().wrapping_add_unsigned(given as u64).wrapping_sub_unsigned(back as u64));
    MOST.set(MOST.get().max(HELD.get()));
}

// SAFETY: every call goes on to the system's allocator as it came, and is answered with its answer; counting touches
// only a cell of the calling thread, and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`, which is the same there.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc_zeroed`, which is the same there.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller keeps the contract of `realloc`; the pointer came from the system's allocator above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        hold(0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`; the pointer came from the system's allocator above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// What this thread allocates while it works.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    work();
    ALLOCATIONS.get() - before
}

/// What this thread holds of what it was given while it worked, and the most that it held meanwhile.
fn held<T>(work: impl FnOnce() -> T) -> (i64, i64, T) {
    let before = HELD.get();
    MOST.set(before);
    let made = work();
    (HELD.get() - before, MOST.get() - before, made)
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
    let (bytes, most, list) = held(|| {
        drop(std::hint::black_box(vec![0_u64; 2000]));
        std::hint::black_box(vec![0_u64; 1000])
    });
    assert_eq!((bytes, most, held(|| drop(list)).0), (8000, 16000, -8000));
}

#[test]
fn a_hundred_thousand_appends_allocate_nothing() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("plain").unwrap();
    let partition = store.log("partition").unwrap().partition(0).unwrap();
    let value = [7; 100];
    let work = |times: usize| {
        for _ in 0..times {
            log.append(&value).unwrap();
            partition.append(&value).unwrap();
        }
    };
    work(1000);
    assert_eq!(allocations(|| work(100_000)), 0);
    assert_eq!(partition.end_offset(), 101_000);
}

#[test]
fn keyed_appends_to_several_partitions_allocate_nothing() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("keyed", LogOptions::new().partitions(8)).unwrap();
    let work = |times: u32| {
        for number in 0..times {
            log.append(Record::new(&[7; 100]).key(&number.to_be_bytes())).unwrap();
        }
    };
    work(1000);
    assert_eq!(allocations(|| work(100_000)), 0);
}

#[test]
fn appends_through_a_producer_allocate_nothing() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log_with("produced", LogOptions::new().partitions(3)).unwrap();
    let mut producer = log.producer("importer").unwrap();
    let mut next = 0;
    let mut work = |times: u64| {
        for sequence in next..next + times {
            producer.append(sequence, &[7; 100]).unwrap();
            producer.append(sequence, Record::new(&[7; 100]).key(b"customer-7")).unwrap();
        }
        next += times;
    };
    work(1000);
    assert_eq!(allocations(|| work(100_000)), 0);
}

#[test]
fn a_record_read_and_committed_allocates_nothing_of_its_own() {
    const TIMES: u64 = 50_000;
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let log = store.log("read").unwrap();
    for _ in 0..TIMES / 500 {
        log.append_batch([&[7; 100]; 1000]).unwrap();
    }
    let mut consumer = log.consumer("group").max_poll_records(1).at_least_once().unwrap();
    let mut work = |times: u64| {
        for _ in 0..times {
            consumer.poll(WAIT).unwrap().unwrap().commit().unwrap();
        }
    };
    work(1000);
    let taken = allocations(|| work(TIMES));
    // A new segment of the placemarks' log, every ten thousand, takes some.
    assert!(taken < TIMES / 100, "{taken} allocations for {TIMES} commits");
}

#[test]
fn a_batch_allocates_no_more_for_many_records_than_for_few() {
    let dir = scratch();
    let store = in_cache().open(dir.path()).unwrap();
    let options = LogOptions::new().durability(Durability::Os);
    let partition = store.log_with("batches", options).unwrap().partition(0).unwrap();
    let append = |records: usize| {
        partition.append_batch((0..records).map(|_| Record::new(&[7; 100]))).unwrap();
    };
    (0..100).for_each(|_| append(1000));
    let few = allocations(|| (0..100).for_each(|_| append(10)));
    let many = allocations(|| (0..100).for_each(|_| append(1000)));
    // Growing a list of records is a matter of their logarithm.
    assert!(many <= few + 100 * 10, "{many} allocations, {few} for few");
}

/// Each with a name of its own, and known by its last five records. Of an eighth of a million, since making them takes a
/// while: what grows by doubling is as full there as with all of them. Nor do they take more while they are loaded.
#[test]
fn a_million_producers_take_less_than_200_mib() {
    let producers = 125_000;
    // A name is durable at once: where there is a file system in memory, no disk is waited for.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { scratch() };
    let log = in_cache().open(dir.path()).unwrap().log("log").unwrap();
    for number in 0..producers {
        let mut producer = log.producer(&format!("device-{number}")).unwrap();
        for sequence in 0..5 {
            producer.append(sequence, "x").unwrap();
        }
    }
    drop(log);
    let (bytes, most, (_store, log)) = held(|| {
        let store = in_cache().open(dir.path()).unwrap();
        let log = store.open_log("log").unwrap();
        (store, log)
    });
    let (million, most) = (bytes * 8, most * 8);
    let sizes = format!("{} MiB for a million, and {} MiB while they are loaded", million >> 20, most >> 20);
    assert!(million > 1 << 20 && most < 200 << 20, "{sizes}");
    assert_eq!(log.producer("device-7").unwrap().last_sequence(), Some(4));
}

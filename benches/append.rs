//! What an append costs, beside what it could cost at best and what the plain way costs: storing the same bytes with
//! their CRC into a preallocated mapping, and a bare `pwrite` of them.
//!
//! All are measured in turn in one process, after a scratch file has been filled and dropped: on a virtual machine the
//! first touch of a page of memory costs microseconds. The last lines are ratios of medians, which is what can be
//! compared between machines.
#![expect(unsafe_code, reason = "the limit is a store into a mapping, which memmap2 cannot know to be safe")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a benchmark fails by panicking")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use memmap2::MmapMut;
use placemark::{Durability, Log, LogOptions, Record, Store};
use tempfile::TempDir;

/// Bytes around a record's value on disk.
const AROUND: usize = 36;

/// Records that go into one file before it is thrown away, so that a long run needs no more disk than a short one.
const PIECE: u64 = 400_000;

/// The log under test, in a store of its own.
struct Subject {
    log: Log,
    _store: Store,
    _dir: TempDir,
}

fn subject(durability: Durability) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(durability).open(dir.path()).unwrap();
    let log = store.log_with("bench", LogOptions::new().segment_bytes(1 << 30)).unwrap();
    log.append("the first append opens the segment").unwrap();
    Subject { log, _store: store, _dir: dir }
}

/// Runs `iterations` in pieces, each over something fresh, and counts only the work.
fn in_pieces<S>(iterations: u64, make: impl Fn(u64) -> S, mut work: impl FnMut(&mut S, u64)) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let count = left.min(PIECE);
        let mut fresh = make(count);
        let begun = Instant::now();
        work(&mut fresh, count);
        took += begun.elapsed();
        left -= count;
    }
    took
}

fn ours(iterations: u64, value: &[u8]) -> Duration {
    in_pieces(
        iterations,
        |_| subject(Durability::Os),
        |subject, count| {
            for _ in 0..count {
                subject.log.append(value).unwrap();
            }
        },
    )
}

fn ours_in_batches(iterations: u64, value: &[u8]) -> Duration {
    let batch: Vec<Record<'_>> = (0..1000).map(|_| Record::new(value)).collect();
    in_pieces(
        iterations,
        |_| subject(Durability::Os),
        |subject, count| {
            for _ in 0..count / 1000 {
                subject.log.append_batch(&batch).unwrap();
            }
        },
    )
}

fn allocated(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len).unwrap();
    file
}

/// The limit: the bytes and their CRC, stored into a mapping of allocated blocks.
fn mapped(iterations: u64, value: &[u8]) -> Duration {
    let frame = AROUND + value.len();
    in_pieces(
        iterations,
        |count| {
            let file = allocated(count * frame as u64);
            // SAFETY: the file has no name, so that no one else can cut it.
            unsafe { MmapMut::map_mut(&file) }.unwrap()
        },
        |map, count| {
            for at in (0..usize::try_from(count).unwrap()).map(|number| number * frame) {
                let slot = &mut map[at..at + frame];
                slot[AROUND..].copy_from_slice(value);
                let crc = crc32fast::hash(&slot[8..]);
                slot[4..8].copy_from_slice(&crc.to_le_bytes());
                slot[..4].copy_from_slice(&u32::try_from(frame).unwrap().to_le_bytes());
            }
        },
    )
}

/// The plain way: one `pwrite` a record.
fn pwrite(iterations: u64, value: &[u8]) -> Duration {
    let frame = AROUND + value.len();
    let mut bytes = vec![0; frame];
    in_pieces(
        iterations,
        |count| allocated(count * frame as u64),
        |file, count| {
            for number in 0..count {
                bytes[AROUND..].copy_from_slice(value);
                file.write_all_at(&bytes, number * frame as u64).unwrap();
            }
        },
    )
}

fn ours_synced(iterations: u64, value: &[u8]) -> Duration {
    let subject = subject(Durability::Sync);
    let begun = Instant::now();
    for _ in 0..iterations {
        subject.log.append(value).unwrap();
    }
    begun.elapsed()
}

/// A bare `pwrite` and `fdatasync` into an allocated file.
fn pwrite_synced(iterations: u64, value: &[u8]) -> Duration {
    let frame = AROUND + value.len();
    let file = allocated((iterations + 1) * frame as u64);
    let bytes = vec![1; frame];
    file.write_all_at(&bytes, iterations * frame as u64).unwrap();
    file.sync_data().unwrap();
    let begun = Instant::now();
    for number in 0..iterations {
        file.write_all_at(&bytes, number * frame as u64).unwrap();
        file.sync_data().unwrap();
    }
    begun.elapsed()
}

type Measured = fn(u64, &[u8]) -> Duration;

fn warm_up() {
    let file = tempfile::tempfile().unwrap();
    let piece = vec![1; 1 << 20];
    for at in 0..1024 {
        file.write_all_at(&piece, at << 20).unwrap();
    }
}

/// Medians of rounds in which each has its turn, so that all meet the same moods of the machine.
fn medians(rounds: usize, iterations: u64, value: &[u8], all: &[Measured]) -> Vec<f64> {
    let mut times = vec![Vec::new(); all.len()];
    for _ in 0..rounds {
        for (times, measure) in times.iter_mut().zip(all) {
            times.push(measure(iterations, value));
        }
    }
    let nanos = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e9 / f64::from(u32::try_from(iterations).unwrap())
    };
    times.into_iter().map(nanos).collect()
}

fn ratios() {
    println!("\nmedians of one run, in ns a record; a ratio is of speeds, more is better");
    for len in [100, 1024] {
        let value = vec![7; len];
        let all: [Measured; 4] = [ours, mapped, pwrite, ours_in_batches];
        let [ours, mapped, pwrite, batched] = medians(9, PIECE, &value, &all)[..] else { return };
        println!(
            "append {len:>4} B, Os: {ours:6.1}   into a mapping: {mapped:6.1} (x{:.2})   pwrite: {pwrite:6.1} (x{:.1})",
            mapped / ours,
            pwrite / ours
        );
        println!("batch  {len:>4} B, Os: {batched:6.1}   into a mapping: {mapped:6.1} (x{:.2})", mapped / batched);
    }
    let value = [7; 100];
    let all: [Measured; 2] = [ours_synced, pwrite_synced];
    let [ours, bare] = medians(9, 300, &value, &all)[..] else { return };
    println!("append  100 B, Sync: {ours:.0}   pwrite + fdatasync: {bare:.0} (x{:.2})", bare / ours);
}

fn append(criterion: &mut Criterion) {
    warm_up();
    for len in [100, 1024] {
        let value = vec![7; len];
        let mut group = criterion.benchmark_group(format!("append {len} B"));
        group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(2));
        let all: [(&str, Measured); 4] = [
            ("placemark, Os", ours),
            ("placemark, Os, batches of 1000", ours_in_batches),
            ("into a mapping, with CRC", mapped),
            ("pwrite", pwrite),
        ];
        for (name, measure) in all {
            // Batches are whole ones.
            let whole = move |iterations: u64| iterations.next_multiple_of(1000);
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let counted = whole(iterations);
                    let took = measure(counted, &value).as_secs_f64();
                    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 iterations")]
                    Duration::from_secs_f64(took * iterations as f64 / counted as f64)
                });
            });
        }
        group.finish();
    }
    let mut group = criterion.benchmark_group("append 100 B, durable");
    group.throughput(Throughput::Elements(1)).sample_size(10).measurement_time(Duration::from_secs(2));
    group.bench_function("placemark, Sync", |bencher| bencher.iter_custom(|n| ours_synced(n, &[7; 100])));
    group.bench_function("pwrite + fdatasync", |bencher| bencher.iter_custom(|n| pwrite_synced(n, &[7; 100])));
    group.finish();
    ratios();
}

criterion_group!(benches, append);
criterion_main!(benches);

//! What an append costs that acknowledges from the page cache, beside storing the same bytes with their CRC into a
//! preallocated mapping, and beside a bare `pwrite` of them.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

#[expect(dead_code, reason = "every benchmark uses its own part of it")]
mod common;

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use placemark::{Durability, LogOptions, Record};

use common::limits::{self, PIECE};
use common::{Contest, in_pieces, one_segment, subject, together};

fn ours(iterations: u64, value: &[u8]) -> Duration {
    in_pieces(
        iterations,
        PIECE,
        |_| subject(Durability::Os, one_segment()),
        |subject, count| {
            for _ in 0..count {
                subject.log.append(black_box(value)).unwrap();
            }
        },
    )
}

fn in_batches(iterations: u64, value: &[u8]) -> Duration {
    let batch: Vec<Record<'_>> = (0..1000).map(|_| Record::new(value)).collect();
    in_pieces(
        iterations.next_multiple_of(1000),
        PIECE,
        |_| subject(Durability::Os, one_segment()),
        |subject, count| {
            for _ in 0..count / 1000 {
                subject.log.append_batch(black_box(&batch)).unwrap();
            }
        },
    )
}

/// Four threads on a log of so many partitions.
fn by_four(iterations: u64, value: &[u8], partitions: u32) -> Duration {
    let subject = subject(Durability::Os, LogOptions::new().segment_bytes(1 << 30).partitions(partitions));
    together(4, iterations, |thread, count| {
        let partition = subject.log.partition(u32::try_from(thread).unwrap() % partitions).unwrap();
        for _ in 0..count {
            partition.append(black_box(value)).unwrap();
        }
    })
}

fn append(criterion: &mut Criterion) {
    common::warm_up();
    for len in [100, 1024] {
        let value = &vec![7; len];
        let contest = Contest::new(format!("append {len} B, Os, one thread"), 11, PIECE)
            .way("placemark", |n| ours(n, value))
            .limit("a store with CRC into a mapping", 0.6, |n| limits::into_mapping(n, value));
        let contest = match len {
            100 => contest.limit("pwrite", 8.0, |n| limits::pwrite(n, value)),
            _ => contest.way("pwrite", |n| limits::pwrite(n, value)),
        };
        contest.hold(criterion);
    }
    let value = &[7; 100];
    Contest::new("batches of 1000 x 100 B, Os", 11, PIECE)
        .way("placemark", |n| in_batches(n, value))
        .limit("a store with CRC into a mapping", 0.75, |n| limits::into_mapping(n, value))
        .hold(criterion);
    for partitions in [1, 4] {
        Contest::new(format!("append 100 B, Os, four threads, partitions: {partitions}"), 7, PIECE)
            .way("placemark", |n| by_four(n, value, partitions))
            .way("one thread", |n| ours(n, value))
            .hold(criterion);
    }
}

criterion_group!(benches, append);
criterion_main!(benches);

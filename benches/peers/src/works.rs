//! The works, as a process does them that was started for one crate and one work.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::child::Report;
use crate::peer::Peer;
use crate::values::{Seen, Values};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Work {
    /// Append records of 100 B, one by one, waiting for nothing.
    Append100,
    /// The same with records of 1 KiB.
    Append1k,
    /// Append batches of 1000 records of 100 B, waiting for nothing.
    Batch,
    /// Append records of 100 B, each on the disk before the next.
    DurableOne,
    /// The same from 16 threads.
    DurableMany,
    /// Read everything, and compare it with what was written.
    Scan,
    /// Append, and be killed.
    Kill,
    /// Count what a kill left.
    Kept,
    /// Write records of 100 B to be consumed.
    FillSmall,
    /// Read records and write the position down behind each, waiting for nothing.
    Consume,
    /// The same, each position on the disk before the next record.
    ConsumeDurable,
    /// Write a large log of records of 1 KiB.
    Fill,
    /// Open it and read its first record.
    Open,
}

impl Work {
    pub(crate) fn waits_for_disk(self) -> bool {
        matches!(self, Self::DurableOne | Self::DurableMany | Self::ConsumeDurable)
    }

    pub(crate) fn consumes(self) -> bool {
        matches!(self, Self::Consume | Self::ConsumeDurable)
    }

    pub(crate) fn reads(self) -> bool {
        self.consumes() || matches!(self, Self::Scan | Self::Kept | Self::Open)
    }

    /// Bytes of a record.
    pub(crate) fn len(self) -> usize {
        if matches!(self, Self::Append1k | Self::Fill | Self::Open) { 1024 } else { 100 }
    }
}

/// What the process is to do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Task {
    #[arg(long)]
    pub(crate) work: Work,
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Records at most; when reading, as many as were written.
    #[arg(long)]
    pub(crate) count: u64,
    /// Seconds at most.
    #[arg(long, default_value_t = 60.0)]
    pub(crate) seconds: f64,
    /// Records that have been consumed before.
    #[arg(long, default_value_t = 0)]
    pub(crate) skip: u64,
    /// Bytes of a record that was written.
    #[arg(long, default_value_t = 100)]
    pub(crate) len: usize,
    /// All records are the same.
    #[arg(long)]
    pub(crate) same: bool,
}

/// Threads that append at once.
const THREADS: u64 = 16;

pub(crate) fn run<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    match task.work {
        Work::Append100 | Work::Append1k => append::<P>(task, report, 1000),
        Work::DurableOne => append::<P>(task, report, 10),
        Work::Batch => batch::<P>(task, report),
        Work::DurableMany => together::<P>(task, report),
        Work::Scan => scan::<P>(task, report),
        Work::Kill => kill::<P>(task, report),
        Work::Kept => kept::<P>(task, report),
        Work::FillSmall | Work::Fill => fill::<P>(task, report),
        Work::Consume | Work::ConsumeDurable => consume::<P>(task, report),
        Work::Open => open::<P>(task, report),
    }
}

/// Appends in pieces of so many, after one that is not counted: the first append makes files.
fn append<P: Peer>(task: &Task, report: &mut Report, piece: u64) -> Result<()> {
    let mut values = Values::new(task.work.len());
    let mut peer = P::open(&task.dir, task.work)?;
    let mut written = |peer: &mut P| (0..piece).try_for_each(|_| peer.append(values.next()));
    written(&mut peer)?;
    let (mut count, begun) = (0, Instant::now());
    while count < task.count && begun.elapsed().as_secs_f64() < task.seconds {
        written(&mut peer)?;
        count += piece;
    }
    report.rate(count, begun.elapsed());
    report.figure("count", count + piece);
    peer.close()
}

/// Appends in batches of 1000, after one that is not counted.
fn batch<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let values = Values::new(task.work.len());
    let batches = values.batches(1000);
    let mut batches = batches.iter().cycle();
    let mut peer = P::open(&task.dir, task.work)?;
    let mut written = |peer: &mut P| batches.next().map_or(Ok(()), |batch| peer.append_batch(batch));
    written(&mut peer)?;
    let (mut count, begun) = (0, Instant::now());
    while count < task.count && begun.elapsed().as_secs_f64() < task.seconds {
        written(&mut peer)?;
        count += 1000;
    }
    report.rate(count, begun.elapsed());
    report.figure("count", count + 1000);
    peer.close()
}

fn together<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let mut values = Values::new(task.work.len());
    let value = values.next();
    let mut peer = P::open(&task.dir, task.work)?;
    let warm = peer.append_together(THREADS, Instant::now() + Duration::from_millis(20), value)?;
    let begun = Instant::now();
    let count = peer.append_together(THREADS, begun + Duration::from_secs_f64(task.seconds), value)?;
    report.rate(count, begun.elapsed());
    report.figure("count", count + warm);
    peer.close()
}

/// Reads everything as one would after opening; once more to compare every byte, where reading can be repeated.
fn scan<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let values = || if task.same { Values::same(task.len) } else { Values::new(task.len) };
    let mut peer = P::open(&task.dir, task.work)?;
    let mut seen = Seen::up_to(u64::MAX);
    let begun = Instant::now();
    peer.scan(&mut seen)?;
    report.rate(seen.count(), begun.elapsed());
    ensure!(seen.count() == task.count, "read back {} records of {}", seen.count(), task.count);
    ensure!(seen.agrees_with(values()), "the sum over what was read back is not that of what was written");
    if !P::ABOUT.reads_once {
        let mut seen = Seen::exactly(values(), u64::MAX);
        peer.scan(&mut seen)?;
        ensure!(seen.count() == task.count, "read back {} records of {}", seen.count(), task.count);
        ensure!(seen.wrong().is_none(), "record {:?} is not what was written", seen.wrong());
    }
    peer.close()
}

/// Ends as no process should, with records appended and none waited for.
fn kill<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let mut values = Values::new(task.work.len());
    let mut peer = P::open(&task.dir, task.work)?;
    for _ in 0..task.count {
        peer.append(values.next())?;
    }
    report.figure("count", task.count);
    report.print(&Ok(()));
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    std::process::abort()
}

/// What is left must be the first records, as they were written.
fn kept<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let mut peer = P::open(&task.dir, task.work)?;
    let mut seen = Seen::exactly(Values::new(task.len), u64::MAX);
    peer.scan(&mut seen)?;
    ensure!(seen.count() <= task.count, "read back {} records of {}", seen.count(), task.count);
    ensure!(seen.wrong().is_none(), "record {:?} is not what was written", seen.wrong());
    report.figure("count", seen.count());
    peer.close()
}

fn fill<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let values = Values::new(task.work.len());
    let size = if task.work.len() == 100 { 1000 } else { 256 };
    let mut peer = P::open(&task.dir, task.work)?;
    let batches = values.batches(size);
    let mut batches = batches.iter().cycle();
    let mut count = 0;
    while count < task.count {
        batches.next().map_or(Ok(()), |batch| peer.append_batch(batch))?;
        count += size as u64;
    }
    report.figure("count", count);
    peer.close()
}

/// Reads and commits, and is held against what was written behind what had been consumed before.
fn consume<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let mut peer = P::open(&task.dir, task.work)?;
    let begun = Instant::now();
    let mut seen = Seen::until(begun + Duration::from_secs_f64(task.seconds), task.count);
    peer.consume(&mut seen)?;
    report.rate(seen.count(), begun.elapsed());
    report.figure("count", seen.count());
    ensure!(seen.count() > 0, "nothing was consumed");
    let mut values = Values::new(task.len);
    values.skip(task.skip);
    ensure!(seen.agrees_with(values), "what was consumed is not what comes behind the first {} records", task.skip);
    peer.close()
}

fn open<P: Peer>(task: &Task, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    let mut peer = P::open(&task.dir, task.work)?;
    let mut seen = Seen::exactly(Values::new(task.work.len()), 1);
    peer.scan(&mut seen)?;
    report.figure("milliseconds", begun.elapsed().as_secs_f64() * 1e3);
    ensure!(seen.count() > 0 && seen.wrong().is_none(), "the first record is not what was written");
    peer.close()
}

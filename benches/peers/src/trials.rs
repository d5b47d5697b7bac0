//! What is measured, and the processes that it takes.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::child::{self, Figures};
use crate::contestants::Contestant;
use crate::peer::Unable;
use crate::works::{Task, Work};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Seconds of a work at most; durable ones take a quarter of it.
    pub(crate) seconds: f64,
    /// Records of 100 B at most.
    pub(crate) records: u64,
    /// MiB of the log that is opened.
    pub(crate) mib: u64,
}

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Measure {
    Append100,
    Append1k,
    Batch,
    DurableOne,
    DurableMany,
    ScanBatches,
    ScanSingles,
    Consume,
    ConsumeDurable,
    Open,
    DiskSingles,
    DiskBatches,
    Kept,
}

/// Something to be done as a whole, in processes of its own. In the order of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Trial {
    Append100,
    Append1k,
    Batch,
    DurableOne,
    DurableMany,
    Consume,
    ConsumeDurable,
    Open,
    Kill,
}

impl Trial {
    /// The one that says whether the trial could be done at all.
    pub(crate) fn measure(self) -> Measure {
        match self {
            Self::Append100 => Measure::Append100,
            Self::Append1k => Measure::Append1k,
            Self::Batch => Measure::Batch,
            Self::DurableOne => Measure::DurableOne,
            Self::DurableMany => Measure::DurableMany,
            Self::Consume => Measure::Consume,
            Self::ConsumeDurable => Measure::ConsumeDurable,
            Self::Open => Measure::Open,
            Self::Kill => Measure::Kept,
        }
    }

    /// How often it is held in a round.
    pub(crate) fn times(self, round: usize) -> usize {
        match self {
            // Disks have their moods, and these works are short.
            Self::DurableOne | Self::DurableMany | Self::ConsumeDurable => 3,
            // Once is enough for what does not vary.
            Self::Kill if round > 0 => 0,
            _ => 1,
        }
    }
}

/// What became of it.
#[derive(Debug, Clone)]
pub(crate) enum Outcome<T> {
    Done(T),
    /// The crate has no way to do it.
    Unable(String),
    /// It went wrong.
    Failed(String),
}

pub(crate) type Results = Vec<(Measure, Outcome<f64>)>;

/// Several times what a process writes that it is done for: less was seen to leave it pages that had gone back.
const WARM_MIB: u64 = 1536;

/// The figures of one trial.
type Measured = Vec<(Measure, f64)>;

/// Where a contestant's trials leave their files.
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) contestant: Contestant,
    pub(crate) scratch: PathBuf,
    pub(crate) scale: Scale,
}

impl Field {
    /// Never fails as a whole: what went wrong is the trial's outcome.
    pub(crate) fn hold(&self, trial: Trial) -> Results {
        match self.try_hold(trial) {
            Ok(figures) => figures.into_iter().map(|(measure, figure)| (measure, Outcome::Done(figure))).collect(),
            Err(error) if error.is::<Unable>() => vec![(trial.measure(), Outcome::Unable(error.to_string()))],
            Err(error) => vec![(trial.measure(), Outcome::Failed(format!("{error:#}")))],
        }
    }

    fn try_hold(&self, trial: Trial) -> Result<Measured> {
        let dir = self.dir(trial);
        if trial != Trial::Open {
            remove(&dir)?;
        }
        let held = match trial {
            Trial::Append100 => self.append(Work::Append100, trial, &dir),
            Trial::Append1k => self.append(Work::Append1k, trial, &dir),
            Trial::Batch => self.append(Work::Batch, trial, &dir),
            Trial::DurableOne => self.append(Work::DurableOne, trial, &dir),
            Trial::DurableMany => self.append(Work::DurableMany, trial, &dir),
            Trial::Consume => self.consume(Work::Consume, trial, &dir),
            Trial::ConsumeDurable => self.consume(Work::ConsumeDurable, trial, &dir),
            Trial::Open => return self.open(&dir),
            Trial::Kill => self.kill(&dir),
        };
        remove(&dir)?;
        held
    }

    /// Writes, and reads back what was written in another process.
    fn append(&self, work: Work, trial: Trial, dir: &Path) -> Result<Measured> {
        let (seconds, records) = (self.scale.seconds, self.scale.records);
        let (count, seconds) = match work {
            Work::DurableOne | Work::DurableMany => (u64::MAX, seconds / 4.0),
            Work::Append1k => (records / 4, seconds),
            Work::Batch => (records * 2, seconds),
            _ => (records, seconds),
        };
        if !work.waits_for_disk() {
            self.warm_up()?;
        }
        let written = self.start(&Task { count, seconds, ..task(work, dir) })?;
        let (count, disk) = (whole(&written, "count")?, disk(dir)?);
        let same = work == Work::DurableMany;
        let read = self.start(&Task { count, same, len: work.len(), ..task(Work::Scan, dir) })?;
        let mut measured = vec![(trial.measure(), figure(&written, "rate")?)];
        let more = match work {
            Work::Append100 => Some((Measure::ScanSingles, Measure::DiskSingles)),
            Work::Batch => Some((Measure::ScanBatches, Measure::DiskBatches)),
            _ => None,
        };
        if let Some((scan_measure, disk_measure)) = more {
            measured.push((scan_measure, figure(&read, "rate")?));
            if !self.contestant.is_limit() {
                measured.push((disk_measure, ratio(disk, count * work.len() as u64)));
            }
        }
        Ok(measured)
    }

    /// On a virtual machine the first touch of a page of memory costs microseconds, and a page that was free for some
    /// seconds may have gone back to the host: so pages are touched that the next process will get.
    fn warm_up(&self) -> Result<()> {
        let path = self.scratch.join("warm");
        let file = File::create(&path)?;
        let piece = vec![1; 1 << 20];
        for at in 0..WARM_MIB {
            file.write_all_at(&piece, at << 20)?;
        }
        Ok(fs::remove_file(path)?)
    }

    /// Fills a log, consumes from it, and once more in another process, which must find the position.
    fn consume(&self, work: Work, trial: Trial, dir: &Path) -> Result<Measured> {
        let (count, seconds) = match work {
            Work::ConsumeDurable => (self.scale.records / 50, self.scale.seconds / 4.0),
            _ => (self.scale.records / 2, self.scale.seconds),
        };
        self.start(&Task { count: count + 1000, ..task(Work::FillSmall, dir) })?;
        let consumed = self.start(&Task { count, seconds, ..task(work, dir) })?;
        self.start(&Task { count: 1, skip: whole(&consumed, "count")?, ..task(work, dir) })?;
        Ok(vec![(trial.measure(), figure(&consumed, "rate")?)])
    }

    /// Makes the log that is to be opened. What goes wrong shows when it is.
    pub(crate) fn fill(&self) {
        let dir = self.dir(Trial::Open);
        let filled = self.start(&Task { count: self.scale.mib << 10, ..task(Work::Fill, &dir) });
        eprintln!(
            "    {:16} {}",
            self.contestant.argument(),
            filled.map_or_else(|error| error.to_string(), |_| "filled".to_owned())
        );
        // What is still to be written to the disk would disturb whatever comes next.
        rustix::fs::sync();
    }

    pub(crate) fn clear(&self) -> Result<()> {
        remove(&self.dir(Trial::Open))
    }

    fn open(&self, dir: &Path) -> Result<Measured> {
        let opened = self.start(&Task { count: 1, ..task(Work::Open, dir) })?;
        Ok(vec![(Measure::Open, figure(&opened, "milliseconds")?)])
    }

    /// What share of the records a kill leaves.
    fn kill(&self, dir: &Path) -> Result<Measured> {
        let written = whole(&self.start(&Task { count: 2000, ..task(Work::Kill, dir) })?, "count")?;
        let kept = whole(&self.start(&Task { count: written, ..task(Work::Kept, dir) })?, "count")?;
        Ok(vec![(Measure::Kept, ratio(kept, written))])
    }

    fn dir(&self, trial: Trial) -> PathBuf {
        self.scratch.join(format!("{}-{trial:?}", self.contestant.argument()))
    }

    fn start(&self, task: &Task) -> Result<Figures> {
        child::start(self.contestant, task)
    }
}

fn task(work: Work, dir: &Path) -> Task {
    Task { work, dir: dir.to_owned(), count: 0, seconds: 60.0, skip: 0, len: work.len(), same: false }
}

fn figure(figures: &Figures, name: &str) -> Result<f64> {
    figures.get(name).copied().with_context(|| format!("no {name} was told"))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was a count")]
fn whole(figures: &Figures, name: &str) -> Result<u64> {
    Ok(figure(figures, name)? as u64)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// Bytes that the disk gives for what is in a directory.
fn disk(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { disk(&entry.path())? } else { entry.metadata()?.blocks() * 512 };
    }
    Ok(bytes)
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

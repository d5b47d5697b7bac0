//! What the benchmarks share: contests between ways of doing the same work, and the raw limits that ours is held against.
//!
//! A contest's ways take turns, so that all meet the same moods of the machine, and its ratios are medians of those
//! within a round. They are what can be compared between machines.
#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

pub(crate) mod limits;
pub(crate) mod rows;

use std::path::Path;
use std::time::Duration;

use criterion::Criterion;
use placemark::{Durability, Log, LogOptions, Store};
use tempfile::TempDir;

/// The time that so many operations take.
pub(crate) type Way<'a> = Box<dyn Fn(u64) -> Duration + 'a>;

/// Ways of doing the same work; the first is ours.
pub(crate) struct Contest<'a> {
    title: String,
    rounds: usize,
    iterations: u64,
    ways: Vec<(&'static str, Option<f64>, Way<'a>)>,
    longest: Option<f64>,
}

impl<'a> Contest<'a> {
    /// In each of `rounds`, every way does `iterations` operations.
    pub(crate) fn new(title: impl Into<String>, rounds: usize, iterations: u64) -> Self {
        Self { title: title.into(), rounds, iterations, ways: Vec::new(), longest: None }
    }

    pub(crate) fn way(mut self, name: &'static str, way: impl Fn(u64) -> Duration + 'a) -> Self {
        self.ways.push((name, None, Box::new(way)));
        self
    }

    /// A way of which ours must reach so many times the speed.
    pub(crate) fn limit(mut self, name: &'static str, least: f64, way: impl Fn(u64) -> Duration + 'a) -> Self {
        self.ways.push((name, Some(least), Box::new(way)));
        self
    }

    /// Ours may take so many seconds an operation.
    pub(crate) fn at_most(mut self, seconds: f64) -> Self {
        self.longest = Some(seconds);
        self
    }

    /// Holds it: once for criterion, which keeps what it measures for comparison with later runs, and once for ratios.
    pub(crate) fn hold(self, criterion: &mut Criterion) {
        if rows::wanted().is_none() {
            let mut group = criterion.benchmark_group(&self.title);
            group.sample_size(10).warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_secs(1));
            for (name, _, way) in &self.ways {
                group.bench_function(*name, |bencher| bencher.iter_custom(way));
            }
            group.finish();
        }
        let times: Vec<Vec<f64>> = (0..self.rounds).map(|_| self.round()).collect();
        let of = |at: usize| median(times.iter().filter_map(|round| round.get(at).copied()).collect());
        let mut measured = vec![shown(of(0))];
        let mut must = Vec::new();
        let mut met = None;
        if let Some(longest) = self.longest {
            must.push(format!("at most {}", shown(longest)));
            met = Some(of(0) <= longest);
        }
        for (at, (name, least, _)) in self.ways.iter().enumerate().skip(1) {
            let ratios = times.iter().filter_map(|round| Some(round.get(at)? / round.first()?)).collect();
            let ratio = median(ratios);
            measured.push(format!("{ratio:.2} x {name} ({})", shown(of(at))));
            if let Some(least) = *least {
                must.push(format!("{least} x {name}"));
                met = Some(met.unwrap_or(true) && ratio >= least);
            }
        }
        rows::row(&self.title, &measured.join("; "), &must.join(", "), met);
    }

    /// Seconds an operation, for each way.
    fn round(&self) -> Vec<f64> {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let iterations = self.iterations as f64;
        self.ways.iter().map(|(_, _, way)| way(self.iterations).as_secs_f64() / iterations).collect()
    }
}

pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_unstable_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A time as a person would say it.
pub(crate) fn shown(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.1} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} us", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}

/// The time that `work` takes: by the wall clock, or, where `PLACEMARK_BENCH_CLOCK=cpu` says so because the machine is
/// busy with other things, the time for which this thread had a processor.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let begun = now();
    work();
    now().saturating_sub(begun)
}

fn now() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    let busy = std::env::var_os("PLACEMARK_BENCH_CLOCK").is_some_and(|clock| clock == "cpu");
    let now = clock_gettime(if busy { ClockId::ThreadCPUTime } else { ClockId::Monotonic });
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap())
}

/// Runs `iterations` in pieces of at most `piece`, each over something fresh, and counts only the work. So a long run
/// needs no more disk than a short one.
pub(crate) fn in_pieces<S>(
    iterations: u64,
    piece: u64,
    make: impl Fn(u64) -> S,
    mut work: impl FnMut(&mut S, u64),
) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = iterations;
    while left > 0 {
        let count = left.min(piece);
        let mut fresh = make(count);
        took += timed(|| work(&mut fresh, count));
        left -= count;
    }
    took
}

/// A log in a store of its own.
pub(crate) struct Subject {
    pub(crate) log: Log,
    pub(crate) store: Store,
    pub(crate) dir: TempDir,
}

/// An empty log that has been opened by a first append.
pub(crate) fn subject(durability: Durability, options: LogOptions) -> Subject {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::options().durability(durability).open(dir.path()).unwrap();
    let log = store.log_with("bench", options).unwrap();
    for partition in 0..log.partitions() {
        log.partition(partition).unwrap().append("the first append opens the segment").unwrap();
    }
    Subject { log, store, dir }
}

/// A log whose segments are larger than any run.
pub(crate) fn one_segment() -> LogOptions {
    LogOptions::new().segment_bytes(1 << 30)
}

/// Each of `threads` does its share of `count` operations at the same time.
pub(crate) fn together(threads: u64, count: u64, work: impl Fn(u64, u64) + Sync) -> Duration {
    timed(|| {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let work = &work;
                scope.spawn(move || work(thread, count / threads));
            }
        });
    })
}

/// Copies a store as a crash would leave it: what the page cache has, without what closing does.
pub(crate) fn copied(from: &Path) -> TempDir {
    let to = tempfile::tempdir().unwrap();
    copy(from, to.path());
    to
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// On a virtual machine the first touch of a page of memory costs microseconds: whatever is measured first would pay.
pub(crate) fn warm_up() {
    use std::os::unix::fs::FileExt;
    let file = tempfile::tempfile().unwrap();
    let piece = vec![1; 1 << 20];
    for at in 0..1024 {
        file.write_all_at(&piece, at << 20).unwrap();
    }
}

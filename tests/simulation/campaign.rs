//! Many runs, on all cores: counted, watched, and repeatable one by one.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lexopt::prelude::*;

use crate::run::Counts;

/// One kind of trouble.
pub(crate) struct Campaign {
    pub(crate) name: &'static str,
    pub(crate) goal: Goal,
    pub(crate) counted: &'static str,
    pub(crate) count: fn(&Counts) -> &AtomicU64,
    pub(crate) run: fn(u64, &Counts) -> Result<(), String>,
}

/// When a campaign is over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// There was so much trouble, and nothing wrong was found.
    Enough(u64),
    /// Something wrong was found, as it must be within so many runs: the disk lies.
    FoundOut(u64),
}

/// What was asked for on the command line.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    from: u64,
    seeds: Option<u64>,
    long: bool,
    threads: Option<usize>,
    only: Vec<String>,
    list: bool,
}

/// A seed that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(600);

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static TRAIL: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Notes what this thread does, for the report of a panic.
pub(crate) fn note(what: &str) {
    TRAIL.with_borrow_mut(|trail| trail.push(what.to_owned()));
}

impl Plan {
    pub(crate) fn read() -> Result<Self, String> {
        Self::parse(lexopt::Parser::from_env()).map_err(|wrong| format!("simulation: {wrong}"))
    }

    fn parse(mut args: lexopt::Parser) -> Result<Self, lexopt::Error> {
        let mut plan = Self { from: 1, ..Self::default() };
        while let Some(arg) = args.next()? {
            match arg {
                Long("from") => plan.from = args.value()?.parse()?,
                Long("seeds") => plan.seeds = Some(args.value()?.parse()?),
                Long("threads" | "test-threads") => plan.threads = Some(args.value()?.parse()?),
                Long("long") => plan.long = true,
                Long("list") => plan.list = true,
                // What cargo hands to every test.
                Long("nocapture" | "no-capture" | "quiet" | "exact" | "show-output" | "include-ignored")
                | Short('q') => {}
                Long("format" | "color" | "skip" | "Z") | Short('Z') => drop(args.value()?),
                Value(name) => plan.only.push(name.string()?),
                other => return Err(other.unexpected()),
            }
        }
        Ok(plan)
    }

    /// Runs one seed after the other until there was enough. Whether all went well.
    pub(crate) fn carry_out(&self, campaign: &Campaign) -> bool {
        if !self.only.is_empty() && !self.only.iter().any(|only| campaign.name.contains(only.as_str())) {
            return true;
        }
        if self.list {
            println!("{}: test", campaign.name);
            return true;
        }
        let (counts, next, failed) = (Counts::default(), AtomicU64::new(self.from), AtomicBool::new(false));
        let (goal, seeds, cores) = match campaign.goal {
            Goal::Enough(goal) => (goal * if self.long { 10 } else { 1 }, self.seeds, self.cores()),
            // One after the other, so that the count is the same every time.
            Goal::FoundOut(seeds) => (u64::MAX, Some(seeds), 1),
        };
        let must_fail = matches!(campaign.goal, Goal::FoundOut(_));
        let busy: Vec<Mutex<Option<(u64, Instant)>>> = (0..cores).map(|_| Mutex::default()).collect();
        let started = Instant::now();
        note_panics();
        thread::scope(|scope| {
            let (counts, next, failed) = (&counts, &next, &failed);
            let work = |busy: &Mutex<Option<(u64, Instant)>>| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = match seeds {
                        Some(seeds) => seed >= self.from + seeds,
                        None => (campaign.count)(counts).load(Ordering::Relaxed) >= goal,
                    };
                    if enough || failed.load(Ordering::Relaxed) {
                        return;
                    }
                    *busy.lock().unwrap() = Some((seed, Instant::now()));
                    if let Err(wrong) = run_caught(campaign, seed, counts) {
                        failed.store(true, Ordering::Relaxed);
                        if !must_fail {
                            report(campaign, seed, &wrong);
                        }
                    }
                    *busy.lock().unwrap() = None;
                }
            };
            let workers: Vec<_> = busy.iter().map(|busy| scope.spawn(move || work(busy))).collect();
            while workers.iter().any(|worker| !worker.is_finished()) {
                thread::sleep(Duration::from_millis(20));
                for busy in &busy {
                    watch(campaign, *busy.lock().unwrap());
                }
            }
        });
        let (done, runs) = ((campaign.count)(&counts).load(Ordering::Relaxed), next.into_inner() - self.from);
        let (name, counted, from) = (campaign.name, campaign.counted, self.from);
        let (runs, seconds) = (runs.saturating_sub(cores as u64).max(1), started.elapsed().as_secs());
        let outcome = match (must_fail, failed.load(Ordering::Relaxed)) {
            (false, _) => "",
            (true, true) => ", found out",
            (true, false) => ", NOT FOUND OUT",
        };
        println!("simulation: {name}: {done} {counted} in {runs} runs from seed {from}, {seconds} s{outcome}");
        failed.into_inner() == must_fail
    }

    fn cores(&self) -> usize {
        self.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    }
}

fn run_caught(campaign: &Campaign, seed: u64, counts: &Counts) -> Result<(), String> {
    TRAIL.with_borrow_mut(Vec::clear);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (campaign.run)(seed, counts)));
    outcome.unwrap_or_else(|_| Err(PANIC.with_borrow(Clone::clone)))
}

fn report(campaign: &Campaign, seed: u64, wrong: &str) {
    println!("simulation: {} failed with seed {seed}:\n  {wrong}", campaign.name);
    println!("repeat with: cargo test --test simulation -- {} --from {seed} --seeds 1", campaign.name);
}

fn watch(campaign: &Campaign, busy: Option<(u64, Instant)>) {
    if let Some((seed, _)) = busy.filter(|(_, since)| since.elapsed() > PATIENCE) {
        report(campaign, seed, "hangs");
        std::process::exit(1);
    }
}

/// Keeps what a panic says for the report of its seed.
fn note_panics() {
    panic::set_hook(Box::new(|info| {
        let trail = TRAIL.with_borrow(|trail| trail.join("\n  "));
        PANIC.set(format!("{trail}\n  {info}\n{}", std::backtrace::Backtrace::capture()));
    }));
}

//! Counts the words of a file through two logs and a consumer group, exactly once, however often it is killed:
//!
//! ```text
//! cargo run --release --example wordcount -- [--data DIR] [--resume] [FILE]
//! ```
//!
//! Four stages run at the same time. The feeder puts the lines of the file into the log `lines`, and how far it is into
//! the log `progress`, in one transaction. Splitters, a group of consumers in threads, write the words of each batch of
//! lines to the log `words`, in one transaction with their placemark. The counter reads `words`, and prints the totals
//! that `wc` would print. Killed at any moment and started again with `--resume`, it goes on where the logs are.
//!
//! Every write is a transaction, and a transaction waits for the disk whatever the store's durability is. So the store
//! has the default one, `Durability::Sync`, and a power cut loses as little as a kill: nothing.

mod count;
mod feed;
mod progress;
mod source;
mod split;
mod stages;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use placemark::{LogOptions, Store};

use crate::count::Count;
use crate::feed::Feeder;
use crate::progress::Progress;
use crate::source::Source;
use crate::stages::Stages;

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: wordcount [--data DIR] [--resume] [FILE]

Counts the words of FILE, or of this crate's own sources, through a store.

  --data DIR   keep the store in DIR instead of a fresh temporary directory
  --resume     go on with the count that DIR holds, which was killed or is done";

/// As many splitters as the log of lines has partitions: each has one.
const PARTITIONS: u32 = 4;
const MOST_SEEN: usize = 10;

fn main() -> ExitCode {
    let arguments = match Arguments::parse() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("wordcount: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wordcount: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    data: Option<PathBuf>,
    resume: bool,
    file: Option<OsString>,
}

impl Arguments {
    /// `None` when only help is wanted.
    fn parse() -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::{Long, Short, Value};

        let mut arguments = Self { data: None, resume: false, file: None };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("data") => arguments.data = Some(parser.value()?.into()),
                Long("resume") => arguments.resume = true,
                Short('h') | Long("help") => return Ok(None),
                Value(file) if arguments.file.is_none() => arguments.file = Some(file),
                other => return Err(other.unexpected()),
            }
        }
        if arguments.resume && arguments.data.is_none() {
            return Err("--resume needs --data DIR: the directory that the first run named".into());
        }
        Ok(Some(arguments))
    }
}

fn run(arguments: Arguments) -> Outcome {
    let source = Source::open(arguments.file)?;
    let dir = match arguments.data {
        Some(dir) => dir,
        // Kept: it is the user's to look at, to go on with, and to remove.
        None => tempfile::Builder::new().prefix("wordcount-").tempdir()?.keep(),
    };
    let mut out = io::stdout();
    writeln!(out, "counting {} ({} bytes), the store is in {}", source.name(), source.size(), dir.display())?;

    let store = Store::open(&dir)?;
    let lines = store.log_with("lines", LogOptions::new().partitions(PARTITIONS))?;
    let words = store.log("words")?;
    let feeder = Feeder::open(&store, &lines, source, arguments.resume)?;
    let started = Instant::now();
    let stages = Stages::new(feeder.size(), feeder.position());

    let count = thread::scope(|scope| {
        let feeding = scope.spawn(|| stages.run(|| feeder.feed(&stages)));
        let splitting: Vec<_> = (0..PARTITIONS)
            .map(|_| scope.spawn(|| stages.run(|| split::split(&store, &lines, &words, &stages))))
            .collect();
        let counting =
            scope.spawn(|| stages.run(|| count::count(&lines, &words, &stages, &mut Progress::new(&stages))));

        let mut outcome = join(feeding);
        for splitter in splitting {
            outcome = outcome.and(join(splitter));
        }
        stages.all_is_split();
        // Whatever failed first is the reason; the counter only stopped because of it.
        let count = join(counting);
        outcome.and(count)
    })?;
    store.close()?;
    report(&mut out, &count, &stages, started)
}

/// What a stage returned; a panic goes on here.
fn join<T>(stage: thread::ScopedJoinHandle<'_, Outcome<T>>) -> Outcome<T> {
    stage.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

fn report(out: &mut impl Write, count: &Count, stages: &Stages, started: Instant) -> Outcome {
    writeln!(out, "\nof {} different words these came most often:", count.different())?;
    for (word, times) in count.most_seen(MOST_SEEN) {
        // Any bytes may stand in a file, also such as would change the terminal's colours.
        let shown: String = String::from_utf8_lossy(word).escape_debug().take(60).collect();
        writeln!(out, "{times:>10}  {shown}")?;
    }
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    let (bytes, lines, words) = stages.this_run();
    writeln!(
        out,
        "\nthis run: {lines} lines and {words} words in {seconds:.2} s ({:.0} lines/s, {:.0} words/s, {:.2} MB/s)",
        per(lines, seconds),
        per(words, seconds),
        per(bytes, seconds) / 1e6
    )?;
    writeln!(out, "total: {} words, {} lines", count.words(), count.lines())?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a rate that people read")]
fn per(amount: u64, seconds: f64) -> f64 {
    amount as f64 / seconds
}

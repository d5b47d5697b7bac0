//! Exactly once into a database of one's own: transfers between accounts, from a log into `SQLite`.
//!
//! ```text
//! cargo run --release --example ledger_sqlite -- [--data DIR] [--transfers N]
//! ```
//!
//! A feeder appends N transfers to the log `transfers`, through an idempotent producer, so that it can begin again
//! wherever it was killed. A group of consumers applies them to the table `account`; each batch is one transaction of the
//! database, which moves the group's placemark in the table `placemark` with the balances. When a partition is assigned
//! the database is asked where it is, and its answer counts, whatever the store has heard of. So each transfer is applied
//! once, however often this is killed and started again with the same DIR.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use placemark::{Batch, Entry, ExactlyOnceFrom, Log, LogOptions, Placemark, Record, Store};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

const USAGE: &str = "usage: ledger_sqlite [--data DIR] [--transfers N]";
const GROUP: &str = "ledger";
const ACCOUNTS: u64 = 20;
const PARTITIONS: u32 = 3;
const CONSUMERS: usize = 2;
const TRANSFERS_AT_ONCE: u64 = 20;

fn main() -> ExitCode {
    let ran = arguments().and_then(|(dir, transfers)| run(&dir, transfers));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ledger_sqlite: {error}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Outcome<(PathBuf, u64)> {
    use lexopt::prelude::Long;

    let (mut dir, mut transfers) = (None, 10_000);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("data") => dir = Some(PathBuf::from(parser.value()?)),
            Long("transfers") => transfers = parser.value()?.to_string_lossy().parse()?,
            other => return Err(format!("{}\n{USAGE}", other.unexpected()).into()),
        }
    }
    let dir = match dir {
        Some(dir) => dir,
        None => tempfile::Builder::new().prefix("ledger-").tempdir()?.keep(),
    };
    Ok((dir, transfers))
}

/// Feeds and applies so many transfers, or what is left of them, and compares the balances with what they must be.
pub(crate) fn run(dir: &Path, transfers: u64) -> Outcome {
    println!("{transfers} transfers between {ACCOUNTS} accounts, in {}", dir.display());
    std::fs::create_dir_all(dir)?;
    let ledger = dir.join("ledger.db");
    prepare(&connect(&ledger)?)?;
    let store = Store::open(dir.join("store"))?;
    let log = store.log_with("transfers", LogOptions::new().partitions(PARTITIONS))?;
    thread::scope(|scope| {
        let feeding = scope.spawn(|| feed(&log, transfers));
        let applying: Vec<_> = (0..CONSUMERS).map(|_| scope.spawn(|| apply_all(&log, &ledger, transfers))).collect();
        let mut outcome = join(feeding);
        for applied in applying {
            outcome = outcome.and(join(applied));
        }
        outcome
    })?;
    store.close()?;
    check(&connect(&ledger)?, transfers)
}

fn join(worker: thread::ScopedJoinHandle<'_, Outcome>) -> Outcome {
    worker.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

/// The transfer of this number: from, to, and how much. The same in every run.
fn transfer(number: u64) -> (u64, u64, i64) {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (from, to) = ((mixed >> 40) % ACCOUNTS, (mixed >> 20) % ACCOUNTS);
    (from, to, i64::try_from(mixed % 1000).unwrap_or(0))
}

/// Appends what an earlier run had not: the number of a transfer is its sequence.
fn feed(log: &Log, transfers: u64) -> Outcome {
    let mut producer = log.producer("bank")?;
    let mut next = producer.last_sequence().map_or(0, |last| last + 1);
    while next < transfers {
        let end = transfers.min(next + TRANSFERS_AT_ONCE);
        let batch = (next..end).map(|number| {
            let (from, to, amount) = transfer(number);
            Record::new(format!("{number} {from} {to} {amount}")).key(from.to_string())
        });
        producer.append_batch(next, batch)?;
        next = end;
    }
    Ok(())
}

pub(crate) fn connect(ledger: &Path) -> Outcome<Connection> {
    let connection = Connection::open(ledger)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    Ok(connection)
}

pub(crate) fn prepare(connection: &Connection) -> Outcome {
    // The database remembers it. SQLite does not wait for other connections here, so there should be none yet.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.execute_batch(
        "create table if not exists account (id integer primary key, balance integer not null, transfers integer not null);
         create table if not exists placemark (
             consumers text, log text, part integer, position integer not null, primary key (consumers, log, part)
         );",
    )?;
    Ok(())
}

/// Applies transfers until the ledger has them all.
fn apply_all(log: &Log, ledger: &Path, transfers: u64) -> Outcome {
    let mut connection = connect(ledger)?;
    // A connection of its own: it is asked while a batch of another partition is being applied.
    let reader = connect(ledger)?;
    let load = move |partition| load_placemark(&reader, partition);
    let mut consumer = log.consumer(GROUP).max_poll_records(50).exactly_once_from(load)?;
    while applied(&connection)? < transfers {
        if let Some(batch) = consumer.poll(Duration::from_millis(20))? {
            apply(&mut connection, batch)?;
        }
    }
    Ok(())
}

/// Applies a batch: the balances and the placemark, in one transaction of the database.
fn apply(connection: &mut Connection, batch: Batch<ExactlyOnceFrom>) -> Outcome {
    let ledger = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for entry in &batch {
        book(&ledger, entry)?;
    }
    save_placemark(&ledger, &batch.placemark())?;
    ledger.commit()?;
    // Tells the store, for lag and retention. A kill before it does no harm: the database is asked first.
    match batch.commit() {
        // The partition has a new owner, who has asked the database as well.
        Ok(()) | Err(placemark::Error::Fenced) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn book(ledger: &Transaction<'_>, entry: &Entry) -> Outcome {
    let text = str::from_utf8(entry.value())?;
    let numbers: Vec<i64> = text.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    let [_, from, to, amount] = numbers[..] else { return Err(format!("{text:?} is no transfer").into()) };
    let mut change = ledger.prepare_cached(
        "insert into account values (?1, ?2, ?3)
         on conflict (id) do update set balance = balance + ?2, transfers = transfers + ?3",
    )?;
    change.execute(params![from, -amount, 1])?;
    change.execute(params![to, amount, 0])?;
    Ok(())
}

fn load_placemark(reader: &Connection, partition: u32) -> rusqlite::Result<Option<u64>> {
    let mut known = reader
        .prepare_cached("select position from placemark where consumers = ?1 and log = 'transfers' and part = ?2")?;
    let position: Option<i64> = known.query_row(params![GROUP, partition], |row| row.get(0)).optional()?;
    Ok(position.map(i64::cast_unsigned))
}

fn save_placemark(ledger: &Transaction<'_>, placemark: &Placemark) -> rusqlite::Result<()> {
    let Placemark { group, log, partition, offset } = placemark;
    let mut save = ledger.prepare_cached("insert or replace into placemark values (?1, ?2, ?3, ?4)")?;
    save.execute(params![group, log, partition, offset.cast_signed()])?;
    Ok(())
}

/// How many transfers the ledger has.
pub(crate) fn applied(connection: &Connection) -> Outcome<u64> {
    let applied: i64 = connection.query_row("select coalesce(sum(transfers), 0) from account", [], |row| row.get(0))?;
    Ok(applied.cast_unsigned())
}

/// Compares every balance with that of transfers that were all applied once.
fn check(connection: &Connection, transfers: u64) -> Outcome {
    let mut expected = vec![(0_i64, 0_i64); usize::try_from(ACCOUNTS)?];
    for (from, to, amount) in (0..transfers).map(transfer) {
        if let Some((balance, transfers)) = expected.get_mut(usize::try_from(from)?) {
            (*balance, *transfers) = (*balance - amount, *transfers + 1);
        }
        if let Some((balance, _)) = expected.get_mut(usize::try_from(to)?) {
            *balance += amount;
        }
    }
    for (id, (balance, count)) in (0_i64..).zip(expected) {
        let mut account = connection.prepare_cached("select balance, transfers from account where id = ?1")?;
        let found: Option<(i64, i64)> = account.query_row([id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        if found.unwrap_or_default() != (balance, count) {
            return Err(format!("account {id} has {found:?}, and not {balance} after {count} transfers").into());
        }
    }
    println!("total: {transfers} transfers, every balance is right");
    Ok(())
}

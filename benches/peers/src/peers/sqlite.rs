//! The database that one has at hand.

use std::path::Path;

use anyhow::Result;
use rusqlite::{Connection, OptionalExtension};

use crate::peer::{About, Peer};
use crate::values::Seen;
use crate::works::Work;

pub(crate) struct Sqlite {
    connection: Connection,
}

const TABLES: &str = "CREATE TABLE IF NOT EXISTS records (number INTEGER PRIMARY KEY, value BLOB NOT NULL);
                      CREATE TABLE IF NOT EXISTS positions (name TEXT PRIMARY KEY, next INTEGER NOT NULL);";
const APPEND: &str = "INSERT INTO records (value) VALUES (?1)";
const READ: &str = "SELECT value FROM records WHERE number = ?1";
const SCAN: &str = "SELECT value FROM records ORDER BY number";
const POSITION: &str = "SELECT next FROM positions WHERE name = 'group'";
const COMMIT: &str = "INSERT INTO positions VALUES ('group', ?1) ON CONFLICT (name) DO UPDATE SET next = excluded.next";

impl Peer for Sqlite {
    const ABOUT: About = About {
        name: "SQLite",
        package: "rusqlite",
        power: "all up to the last checkpoint, then what the kernel had written",
        durable: "a commit with `synchronous = FULL`; one writer, threads take turns",
        checks: "nothing (frames of its WAL have checksums, for recovery)",
        settings: "by rusqlite, bundled; WAL; prepared statements; `synchronous = NORMAL` where nothing is waited for",
        remarks: &[],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let connection = Connection::open(dir.join("records.sqlite"))?;
        let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        anyhow::ensure!(mode == "wal", "the journal's mode is {mode}");
        connection.pragma_update(None, "synchronous", if work.waits_for_disk() { "FULL" } else { "NORMAL" })?;
        connection.execute_batch(TABLES)?;
        Ok(Self { connection })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.connection.prepare_cached(APPEND)?.execute([value])?;
        Ok(())
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut append = transaction.prepare_cached(APPEND)?;
            for value in values {
                append.execute([value])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        let mut scan = self.connection.prepare_cached(SCAN)?;
        let mut rows = scan.query([])?;
        while let Some(row) = rows.next()? {
            if !seen.see(row.get_ref(0)?.as_blob()?) {
                break;
            }
        }
        Ok(())
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        let mut next: i64 = self.connection.query_row(POSITION, [], |row| row.get(0)).optional()?.unwrap_or(1);
        let mut read = self.connection.prepare_cached(READ)?;
        let mut commit = self.connection.prepare_cached(COMMIT)?;
        loop {
            let shown = read.query_row([next], |row| Ok(seen.see(row.get_ref(0)?.as_blob()?))).optional()?;
            let Some(more) = shown else { return Ok(()) };
            next += 1;
            commit.execute([next])?;
            if !more {
                return Ok(());
            }
        }
    }

    fn close(self) -> Result<()> {
        self.connection.close().map_err(|(_, error)| error.into())
    }
}

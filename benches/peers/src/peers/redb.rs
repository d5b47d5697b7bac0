//! A key-value store of one B-tree file, keyed by offset.

use std::path::Path;

use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};

use crate::peer::{About, Peer};
use crate::values::Seen;
use crate::works::Work;

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const POSITIONS: TableDefinition<'_, &str, u64> = TableDefinition::new("positions");

pub(crate) struct Redb {
    database: Database,
    next: u64,
    durable: bool,
}

impl Redb {
    fn begin(&self) -> Result<WriteTransaction> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(if self.durable { Durability::Immediate } else { Durability::None })?;
        Ok(transaction)
    }

    fn position(&self) -> Result<u64> {
        match self.database.begin_read()?.open_table(POSITIONS) {
            Ok(table) => Ok(table.get("group")?.map_or(0, |position| position.value())),
            Err(TableError::TableDoesNotExist(_)) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

impl Peer for Redb {
    const ABOUT: About = About {
        name: "redb",
        package: "redb",
        power: "none since the last durable commit",
        durable: "a commit with `Durability::Immediate`; one writer, threads take turns",
        checks: "nothing (pages have checksums, for repair)",
        settings: "tables of records, by offset, and of positions; `Durability::None` where nothing is waited for",
        remarks: &[],
        reads_once: false,
    };

    fn open(dir: &Path, work: Work) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let database = Database::create(dir.join("records.redb"))?;
        let next = match database.begin_read()?.open_table(RECORDS) {
            Ok(table) => table.last()?.map_or(0, |(offset, _)| offset.value() + 1),
            Err(TableError::TableDoesNotExist(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { database, next, durable: work.waits_for_disk() })
    }

    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_batch(&[value])
    }

    fn append_batch(&mut self, values: &[&[u8]]) -> Result<()> {
        let transaction = self.begin()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for value in values {
                table.insert(self.next, *value)?;
                self.next += 1;
            }
        }
        Ok(transaction.commit()?)
    }

    fn scan(&mut self, seen: &mut Seen) -> Result<()> {
        let table = match self.database.begin_read()?.open_table(RECORDS) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            other => other?,
        };
        for item in table.iter()? {
            if !seen.see(item?.1.value()) {
                break;
            }
        }
        Ok(())
    }

    fn consume(&mut self, seen: &mut Seen) -> Result<()> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        for item in table.range(self.position()?..)? {
            let (offset, value) = item?;
            let more = seen.see(value.value());
            let transaction = self.begin()?;
            transaction.open_table(POSITIONS)?.insert("group", offset.value() + 1)?;
            transaction.commit()?;
            if !more {
                break;
            }
        }
        Ok(())
    }

    /// What was committed without durability gets it from a commit that has it.
    fn close(self) -> Result<()> {
        Ok(self.database.begin_write()?.commit()?)
    }
}

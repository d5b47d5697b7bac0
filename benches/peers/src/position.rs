//! Where a consumer stands, for crates that do not keep it: a small file, as one would write it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;

/// A position and its checksum, written in place.
#[derive(Debug)]
pub(crate) struct PositionFile {
    file: File,
    durable: bool,
}

impl PositionFile {
    pub(crate) fn open(dir: &Path, durable: bool) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(dir.join("position"))?;
        Ok(Self { file, durable })
    }

    /// The position last written, 0 at first.
    pub(crate) fn get(&self) -> Result<u64> {
        let mut bytes = [0; 12];
        if self.file.read_at(&mut bytes, 0)? < bytes.len() {
            return Ok(0);
        }
        let (position, crc) = bytes.split_at(8);
        anyhow::ensure!(crc == crc32fast::hash(position).to_le_bytes(), "the position is damaged");
        Ok(u64::from_le_bytes(position.try_into()?))
    }

    pub(crate) fn set(&self, position: u64) -> Result<()> {
        let mut bytes = [0; 12];
        let (place, crc) = bytes.split_at_mut(8);
        place.copy_from_slice(&position.to_le_bytes());
        crc.copy_from_slice(&crc32fast::hash(place).to_le_bytes());
        self.file.write_all_at(&bytes, 0)?;
        if self.durable {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

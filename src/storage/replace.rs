//! Small files are replaced whole: after a crash it is the old one or the new one.

use std::path::{Path, PathBuf};

use crate::Result;
use crate::broken::broken;
use crate::error::At;
use crate::storage::{Mode, Storage};

/// Writes a file beside the one at `path`, makes its bytes durable, and gives it the name. The name is durable once
/// the directory is synced.
pub(crate) fn replace(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let unfinished = PathBuf::from(name);
    if storage.kind(&unfinished).at(&unfinished)?.is_some() {
        storage.remove_file(&unfinished).at(&unfinished)?;
    }
    let file = storage.open(&unfinished, Mode::Create).at(&unfinished)?;
    file.write_at(bytes, 0).at(&unfinished)?;
    if !broken("replaced unsynced") {
        file.sync().at(&unfinished)?;
    }
    storage.rename(&unfinished, path).at(path)
}

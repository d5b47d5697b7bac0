//! Where the text comes from: a file, or this crate's own sources.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Outcome;

/// A text of a known size, with a name by which it is known again.
#[derive(Debug)]
pub(crate) struct Source {
    name: String,
    size: u64,
    text: Box<dyn Text>,
}

/// What can be read from any position.
trait Text: BufRead + Seek + Send + Debug {}

impl<T: BufRead + Seek + Send + Debug> Text for T {}

impl Source {
    /// Opens this file, or the sources.
    pub(crate) fn open(file: Option<OsString>) -> Outcome<Self> {
        match file {
            Some(path) => Self::file(Path::new(&path)),
            None => Self::own_sources(Path::new(env!("CARGO_MANIFEST_DIR"))),
        }
    }

    fn file(path: &Path) -> Outcome<Self> {
        let named = |error: io::Error| format!("{}: {error}", path.display());
        let file = File::open(path).map_err(named)?;
        let about = file.metadata().map_err(named)?;
        if !about.is_file() {
            return Err(format!("{} is not a regular file: a resumed run could not go on in it", path.display()).into());
        }
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { name, size: about.len(), text: Box::new(BufReader::with_capacity(1 << 20, file)) })
    }

    /// All of src in the order of the files' names, then the README.
    fn own_sources(root: &Path) -> Outcome<Self> {
        let mut files = Vec::new();
        collect(&root.join("src"), &mut files).map_err(|error| format!("{}: {error}", root.display()))?;
        files.sort();
        files.push(root.join("README.md"));
        let mut text = Vec::new();
        for file in files {
            text.extend(fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?);
        }
        let name = "this crate's own sources".to_owned();
        Ok(Self { name, size: u64::try_from(text.len())?, text: Box::new(Cursor::new(text)) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads on from this position, up to the size that the source had when it was opened: what is written to a file
    /// meanwhile does not count.
    pub(crate) fn read_from(mut self, position: u64) -> Outcome<impl BufRead> {
        self.text.seek(SeekFrom::Start(position))?;
        Ok(io::Read::take(self.text, self.size.saturating_sub(position)))
    }
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

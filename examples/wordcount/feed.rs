//! The first stage: from the file into the log `lines`.

use std::io::BufRead;

use placemark::{Log, Record, StartAt, Store};

use crate::Outcome;
use crate::source::Source;
use crate::split::is_space;
use crate::stages::Stages;

/// A transaction is committed when it holds so many lines or bytes.
const LINES_AT_ONCE: u64 = 1000;
const BYTES_AT_ONCE: usize = 1 << 20;

/// A line longer than this goes into several records, cut behind white space, so that no word is cut.
const LONG_LINE: usize = 64 << 10;

/// The longest record, and so the longest word: half of what a transaction takes for sure.
const LONGEST: usize = 8 << 20;

/// Feeds what is not yet in the log.
#[derive(Debug)]
pub(crate) struct Feeder<'a> {
    store: &'a Store,
    lines: &'a Log,
    progress: Log,
    source: Source,
    at: At,
}

/// How far the feeder is, as the last record of the log `progress` says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct At {
    position: u64,
    line: u64,
}

impl<'a> Feeder<'a> {
    /// Finds out how far an earlier run came.
    pub(crate) fn open(store: &'a Store, lines: &'a Log, source: Source, resume: bool) -> Outcome<Self> {
        let progress = store.log("progress")?;
        let at = match progress.partition(0)?.read(StartAt::Earliest)?.last().transpose()? {
            // Nothing was committed: a count that was killed before it began is begun again.
            None => At::default(),
            Some(_) if !resume => {
                return Err("the store holds a count already: go on with --resume, or choose another --data".into());
            }
            Some(last) => At::decode(last.key().unwrap_or_default(), last.value(), &source)?,
        };
        Ok(Self { store, lines, progress, source, at })
    }

    pub(crate) fn size(&self) -> u64 {
        self.source.size()
    }

    pub(crate) fn position(&self) -> u64 {
        self.at.position
    }

    /// Feeds the rest of the source. Each transaction holds lines, and where the file stands behind them: after a kill
    /// both are there or neither is.
    pub(crate) fn feed(self, stages: &Stages) -> Outcome {
        let Self { store, lines, progress, source, mut at } = self;
        let (name, size) = (source.name().to_owned(), source.size());
        let mut text = source.read_from(at.position)?;
        let mut piece = Vec::new();
        while at.position < size && !stages.has_failed() {
            let begun = at;
            let (mut records, mut bytes) = (0, 0);
            let mut txn = store.transaction();
            while records < LINES_AT_ONCE && bytes < BYTES_AT_ONCE {
                read_piece(&mut text, &mut piece).map_err(|error| format!("line {}: {error}", at.line + 1))?;
                if piece.is_empty() {
                    break;
                }
                txn.append(lines, &piece)?;
                records += 1;
                bytes += piece.len();
                at.position += u64::try_from(piece.len())?;
                at.line += u64::from(piece.ends_with(b"\n"));
            }
            if records == 0 {
                return Err(format!("{name} has become shorter: it ends at byte {}, not {size}", at.position).into());
            }
            txn.append(&progress, Record::new(at.encode(size)).key(&name))?;
            txn.commit()?;
            stages.fed_to(at.position, at.line - begun.line);
        }
        stages.all_is_fed();
        Ok(())
    }
}

impl At {
    /// The name is the record's key; this is its value.
    fn encode(self, size: u64) -> String {
        format!("byte {} line {} of {size}", self.position, self.line)
    }

    /// Refuses the progress of another file.
    fn decode(name: &[u8], value: &[u8], source: &Source) -> Outcome<Self> {
        let text = String::from_utf8_lossy(value);
        let words: Vec<&str> = text.split(' ').collect();
        let ["byte", position, "line", line, "of", size] = words.as_slice() else {
            return Err(format!("the log \"progress\" is not of this program: it says {text:?}").into());
        };
        if name != source.name().as_bytes() || size.parse() != Ok(source.size()) {
            let name = String::from_utf8_lossy(name);
            let (other, bytes) = (source.name(), source.size());
            return Err(format!("the store counts {name} of {size} bytes, not {other} of {bytes} bytes").into());
        }
        Ok(Self { position: position.parse()?, line: line.parse()? })
    }
}

/// Reads the next record's bytes: a line with its newline, where it has one, or a part of a long line that ends in white
/// space. Nothing at the end.
fn read_piece(text: &mut impl BufRead, piece: &mut Vec<u8>) -> Outcome {
    piece.clear();
    loop {
        let ready = match text.fill_buf() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            ready => ready?,
        };
        // Up to here only a newline ends the piece, from here on any white space.
        let plain = LONG_LINE.saturating_sub(piece.len()).min(ready.len());
        let (head, tail) = ready.split_at(plain);
        let ends = head.iter().position(|byte| *byte == b'\n');
        let ends = ends.or_else(|| tail.iter().position(|byte| is_space(*byte)).map(|at| plain + at));
        let taken = ends.map_or(ready.len(), |at| at + 1);
        piece.extend(ready.iter().take(taken));
        text.consume(taken);
        if piece.len() > LONGEST {
            return Err(format!("it has a word of more than {} MiB", (LONGEST - LONG_LINE) >> 20).into());
        }
        if taken == 0 || ends.is_some() {
            return Ok(());
        }
    }
}

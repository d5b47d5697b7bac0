//! Bytes that rot: flipped, zeroed, cut, doubled and swapped, in a store that was closed and in one that was killed.
//!
//! Every outcome is one of: the records as they were, an error that says where, or, under salvage, a gap that is listed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use placemark::storage::SimDisk;
use placemark::{Error, RecoveryMode, StartAt, Store};

use crate::allocated;
use crate::model::{Id, Loss, Model, Rec, Status, Vouched};
use crate::rng::Rng;
use crate::run::{Counts, Run, open_as};
use crate::seen::check_entry;

const DAMAGES: usize = 60;

/// No file of these runs is as large as that.
const LARGEST: usize = 8 << 20;

pub(crate) fn damage(seed: u64, counts: &Counts) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let mut run = Run::new(counts, rng.next());
    run.crashes = false;
    let steps = 10 + rng.below(30);
    let worked = run.work(steps / 2);
    let earlier = run.disk.kill();
    let worked = worked.and_then(|()| run.work(steps / 2));
    worked.map_err(|wrong| format!("{}\n  {wrong}", run.trail.join("\n  ")))?;
    let closed = rng.one_in(2);
    if closed {
        if let Some(live) = &run.live {
            live.store.close().map_err(|error| format!("close: {error}"))?;
        }
        run.model.harden();
    }
    let whole = run.disk.kill();
    run.live = None;
    for _ in 0..DAMAGES {
        let disk = whole.kill();
        let mut what = Vec::new();
        let mut model = Cow::Borrowed(&run.model);
        // What comes from an earlier time is believed as far as nothing else contradicts it: it comes alone.
        if rng.one_in(10) {
            what.extend(put_back(&disk, &earlier, &mut rng));
        } else if rng.one_in(4) {
            if let Some((id, how)) = spoil_durable(&disk, &run.model, closed, &mut rng) {
                // It must not be cut like what nobody vouched for.
                model.to_mut().records[id].vouched = Vouched::Store;
                what.push(how);
            }
        } else {
            for _ in 0..=rng.below(2) {
                what.extend(spoil(&disk, &mut rng));
            }
        }
        counts.damages.fetch_add(1, Ordering::Relaxed);
        let mode = if rng.one_in(2) { RecoveryMode::Salvage } else { RecoveryMode::Strict };
        allocated::largest();
        let looked = look(&disk, &model, mode, closed, &mut rng).and_then(|()| match allocated::largest() {
            size if size > LARGEST => Err(format!("{size} bytes were asked for at once")),
            _ => Ok(()),
        });
        looked.map_err(|wrong| {
            format!("{}\n  closed: {closed}, {mode:?}, {}\n  {wrong}", run.trail.join("\n  "), what.join(", "))
        })?;
    }
    Ok(())
}

/// Flips one bit of a record that was durable, in a store that says so: which record it was, and how.
fn spoil_durable(disk: &SimDisk, model: &Model, closed: bool, rng: &mut Rng) -> Option<(Id, String)> {
    let present = model.present();
    let durable = |rec: &&Rec| {
        present.contains(&rec.inc) && (closed || rec.vouched >= Vouched::Frame) && rec.status == Status::Durable
    };
    let all: Vec<(Id, &Rec)> = model.records.iter().enumerate().filter(|(_, rec)| durable(rec)).collect();
    let (id, rec) = *rng.pick(&all)?;
    let value = rec.value.as_ref().filter(|value| value.len() >= 24)?;
    let inside = format!("/logs/{}/{}/", model.logs[rec.inc].name, rec.partition?);
    let holds = |path: &PathBuf| {
        let bytes = disk.read_file(path).filter(|_| path.to_string_lossy().contains(inside.as_str()))?;
        let at: Vec<usize> = places_of(&bytes, value).collect();
        Some((path.clone(), bytes, at)).filter(|(.., at)| !at.is_empty())
    };
    let found: Vec<_> = disk.files().iter().filter_map(holds).collect();
    // A record may hold the bytes of another.
    let [(path, bytes, at)] = &found[..] else { return None };
    let &[at] = &at[..] else { return None };
    let mut bytes = bytes.clone();
    let (byte, bit) = (at + rng.below(value.len()), rng.below(8));
    bytes[byte] ^= 1 << bit;
    disk.write_file(path, &bytes);
    Some((id, format!("{} bit {bit} of {byte} flipped, in record {id}, which was durable", path.display())))
}

/// Where these bytes stand among others.
fn places_of<'a>(bytes: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes.windows(wanted.len()).enumerate().filter(move |(_, here)| *here == wanted).map(|(at, _)| at)
}

/// Damages one file in one way, and says how.
fn spoil(disk: &SimDisk, rng: &mut Rng) -> Option<String> {
    let files = disk.files();
    let path = rng.pick(&files)?;
    let mut bytes = disk.read_file(path)?;
    let len = bytes.len();
    if len == 0 {
        return None;
    }
    // Where something is written, mostly.
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(len, |last| last + 1);
    let at = if rng.one_in(4) { rng.below(len) } else { rng.below(written) };
    let page = at / 4096 * 4096;
    let how = match rng.below(12) {
        0..3 => {
            let bit = rng.below(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of {at} flipped")
        }
        3 => {
            let end = (at + 1 + rng.below(600)).min(len);
            bytes[at..end].fill(0);
            format!("{at}..{end} zeroed")
        }
        4 => {
            let end = (page + 4096).min(len);
            bytes[page..end].fill(0);
            format!("page at {page} zeroed")
        }
        5 => {
            bytes.truncate(at);
            format!("cut to {at}")
        }
        6 => {
            let from = rng.below(len) / 512 * 512;
            let to = at / 512 * 512;
            let sector: Vec<u8> = bytes[from..(from + 512).min(len)].to_vec();
            let room = (len - to).min(sector.len());
            bytes[to..to + room].copy_from_slice(&sector[..room]);
            format!("sector at {from} doubled at {to}")
        }
        7 => {
            // Two pieces of one length change places: bytes, sectors, pages.
            let len = [8, 512, 4096][rng.below(3)];
            let (from, to) = (rng.below(len_of(&bytes, len)) * len, at / len * len);
            if from == to || from.max(to) + len > bytes.len() {
                return None;
            }
            let (low, high) = (from.min(to), from.max(to));
            let (before, behind) = bytes.split_at_mut(high);
            before[low..low + len].swap_with_slice(&mut behind[..len]);
            format!("{len} bytes at {from} and {to} swapped")
        }
        _ => replaced(disk, &files, path, &mut bytes, at, rng)?,
    };
    disk.write_file(path, &bytes);
    Some(format!("{} {how}", path.display()))
}

/// Damage that moves what is behind it, or comes from another file.
fn replaced(
    disk: &SimDisk,
    files: &[PathBuf],
    path: &Path,
    bytes: &mut Vec<u8>,
    at: usize,
    rng: &mut Rng,
) -> Option<String> {
    let other = rng.pick(files)?;
    Some(match rng.below(4) {
        0 => {
            let piece: Vec<u8> = bytes[at..(at + 1 + rng.below(5000)).min(bytes.len())].to_vec();
            let count = piece.len();
            bytes.splice(at..at, piece);
            format!("{count} bytes at {at} doubled, and all behind moved")
        }
        1 => {
            let theirs = disk.read_file(other)?;
            disk.write_file(other, bytes);
            *bytes = theirs;
            format!("swapped with {}", other.display())
        }
        2 => {
            let alike: Vec<_> = files.iter().filter(|other| other.extension() == path.extension()).collect();
            let other = rng.pick(&alike)?;
            *bytes = disk.read_file(other)?;
            format!("overwritten with one of its kind, {}", other.display())
        }
        _ => {
            *bytes = disk.read_file(other)?;
            format!("overwritten with {}", other.display())
        }
    })
}

fn len_of(bytes: &[u8], piece: usize) -> usize {
    (bytes.len() / piece).max(1)
}

/// Puts one file back as it was earlier.
fn put_back(disk: &SimDisk, earlier: &SimDisk, rng: &mut Rng) -> Option<String> {
    let files = disk.files();
    let path = rng.pick(&files)?;
    let bytes = earlier.read_file(path).filter(|earlier| Some(earlier) != disk.read_file(path).as_ref())?;
    disk.write_file(path, &bytes);
    Some(format!("{} as it was earlier", path.display()))
}

/// What may be told of damage.
fn told(error: &Error) -> bool {
    matches!(
        error,
        Error::Corrupt { .. } | Error::IncompatibleFormat { .. } | Error::Io { .. } | Error::NoSuchLog { .. }
    )
}

fn look(disk: &SimDisk, model: &Model, mode: RecoveryMode, closed: bool, rng: &mut Rng) -> Result<(), String> {
    let store = match open_as(disk, model.durability, rng, mode) {
        Ok(store) => store,
        Err(error) if told(&error) => return Ok(()),
        Err(error) => return Err(format!("opening: {error:?}")),
    };
    for inc in model.present() {
        let name = &model.logs[inc].name;
        let log = match store.open_log(name) {
            Ok(log) => log,
            Err(error) if told(&error) => {
                // What the side log has lost to salvage is listed there.
                let lost = matches!(error, Error::NoSuchLog { .. });
                if lost && !listed(&store) {
                    return Err(format!("log {name} is gone, and nothing says so"));
                }
                continue;
            }
            Err(error) => return Err(format!("open_log {name}: {error:?}")),
        };
        for number in 0..log.partitions() {
            let partition = log.partition(number).map_err(|error| format!("{error:?}"))?;
            let mut found = BTreeSet::new();
            let mut before = None;
            let mut ended = true;
            for entry in partition.read(StartAt::Earliest).map_err(|error| format!("{error:?}"))? {
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(error) if told(&error) => {
                        ended = false;
                        break;
                    }
                    Err(error) => return Err(format!("reading {name}:{number}: {error:?}")),
                };
                let id = check_entry(model, &entry).map_err(|wrong| format!("{name}:{number}: {wrong}"))?;
                let rec = &model.records[id];
                if rec.inc != inc || rec.partition != Some(number) || rec.offset != Some(entry.offset()) {
                    return Err(format!("{name}:{number} has record {id} at {}", entry.offset()));
                }
                if before.is_some_and(|before| before >= entry.offset()) {
                    return Err(format!("{name}:{number} goes back to {}", entry.offset()));
                }
                before = Some(entry.offset());
                found.insert(id);
            }
            if ended {
                missing(&store, model, inc, number, &found, closed)?;
            }
        }
    }
    Ok(())
}

fn listed(store: &Store) -> bool {
    let report = store.recovery();
    !report.damage().is_empty() || report.cut_bytes() > 0
}

/// What was read to the end, and lacks something, must say so.
fn missing(
    store: &Store,
    model: &Model,
    inc: usize,
    number: u32,
    found: &BTreeSet<usize>,
    closed: bool,
) -> Result<(), String> {
    let report = store.recovery();
    let inside = format!("/logs/{}/{number}/", model.logs[inc].name);
    for (id, rec) in model.of_partition(inc, number) {
        let lost = rec.status == Status::Durable || rec.status.holds(Loss::Process);
        if !lost || found.contains(&id) {
            continue;
        }
        let offset = rec.offset.unwrap_or(0);
        let skipped = report
            .damage()
            .iter()
            .any(|damage| damage.offsets.contains(&offset) && damage.path.to_string_lossy().contains(inside.as_str()));
        // A tail that nobody vouched for is cut, and that is told.
        let cut = !closed
            && rec.vouched < Vouched::Store
            && report.cuts.iter().any(|cut| cut.path.to_string_lossy().contains(inside.as_str()));
        // Of what no sync and no later frame vouches for, zeros cannot be told from nothing.
        let later = |other: &usize| *other > id && !model.records[*other].journaled;
        let unknown = !closed && rec.vouched < Vouched::Store && !found.iter().any(later);
        if !skipped && !cut && !unknown {
            return Err(format!("record {id} at {inside}{offset} is missing, and the report is {report:?}"));
        }
    }
    Ok(())
}

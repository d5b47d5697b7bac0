//! What is fuzzed: each target takes any bytes, makes of them a store that is not what it should be, or calls of the
//! API, and panics where the crate breaks a promise.
//!
//! The same functions are driven by cargo-fuzz (`tests/fuzz/run`) and by `cargo test --test fuzzed`. They use the public
//! API over the simulated disk, and where a damaged file has to pass its checksums, `forge`, which makes them as the
//! format chapter says, and not with the crate's own code.

mod calls;
mod forge;
mod image;

use std::path::{Path, PathBuf};

use placemark::{Error, RecoveryMode};

pub(crate) use calls::calls;
use image::{Image, State, closed, go_on, killed, observe, observe_forged};

/// A target, and its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

pub(crate) const ALL: [Target; 6] = [
    ("frames", frames),
    ("segment", segment),
    ("index", index),
    ("side_log", side_log),
    ("damage", damage),
    ("calls", calls),
];

/// Bytes behind the last frame of a segment that was in use. As they are, they are a torn tail, whatever they look like:
/// every record ahead of them is there, and no other. As frames whose checksums hold they may say anything.
pub(crate) fn frames(data: &[u8]) {
    let Some((control, rest)) = data.split_first() else { return };
    let image = killed();
    let path = image.active("logs/a/0");
    let mut bytes = image.file(&path).to_vec();
    let end = forge::frames_end(&bytes);
    bytes.truncate(end);
    let forged = control & 1 != 0;
    if forged {
        forge::append_frames(&mut bytes, rest, control & 2 != 0);
    } else {
        bytes.extend_from_slice(rest);
    }
    let mode = mode(control & 4 != 0);
    let disk = image.disk_with(&path, Some(&bytes));
    let observed = if forged { observe_forged(&disk, mode) } else { observe(&disk, mode) };
    match observed {
        Ok((state, _)) if forged => {
            assert!(state.begins_with(&image.state), "a record ahead of the forged ones is gone");
        }
        Ok((state, _)) => assert_eq!(state, image.state),
        Err(error) => {
            assert!(forged, "what was never promised is no damage: {error}");
            typed(&error);
        }
    }
    go_on(&disk, mode);
}

/// A segment of any bytes: sealed, or in use, behind its own header or not.
pub(crate) fn segment(data: &[u8]) {
    let Some((control, rest)) = data.split_first() else { return };
    let image = if control & 1 == 0 { closed() } else { killed() };
    let path = if control & 2 == 0 { image.active("logs/a/0") } else { image.sealed("logs/a/0") };
    let whole = image.file(&path);
    let bytes = if control & 4 == 0 { rest.to_vec() } else { [whole.get(..64).unwrap_or_default(), rest].concat() };
    check(image, &path, Some(&bytes), mode(control & 8 != 0));
}

/// An index of any bytes, also such as have the right beginning and checksum: it is a hint, and changes nothing.
pub(crate) fn index(data: &[u8]) {
    let Some((control, rest)) = data.split_first() else { return };
    let image = closed();
    let path = image.sealed("logs/a/0").with_extension("index");
    let whole = image.file(&path);
    let mut bytes = rest.to_vec();
    if control & 1 != 0 {
        // Magic, version, whose it is, and what it covers stay.
        bytes.splice(..0, whole.get(..48).unwrap_or_default().iter().copied());
        if control & 2 != 0 {
            forge::close_small_file(&mut bytes);
        }
    }
    let disk = image.disk_with(&path, Some(&bytes));
    match observe(&disk, RecoveryMode::Strict) {
        Ok((state, _)) => assert_eq!(state, image.state),
        Err(error) => panic!("an index is never damage: {error}"),
    }
    go_on(&disk, RecoveryMode::Strict);
}

/// Records of any keys and values behind those of the side log, which decide what logs, groups and placemarks there are.
pub(crate) fn side_log(data: &[u8]) {
    let image = killed();
    let path = image.active("placemarks");
    let mut bytes = image.file(&path).to_vec();
    bytes.truncate(forge::frames_end(&bytes));
    forge::append_keyed(&mut bytes, data);
    let disk = image.disk_with(&path, Some(&bytes));
    match observe_forged(&disk, RecoveryMode::Strict) {
        Ok((state, _)) => {
            // What it says is what it says, however often it is opened.
            let again = observe_forged(&disk, RecoveryMode::Strict);
            assert_eq!(again.map(|(again, _)| again.placemarks).ok(), Some(state.placemarks));
        }
        // A log that was registered under what is no name, a placemark in a partition that there is not.
        Err(Error::InvalidName { .. } | Error::NoSuchPartition { .. }) => {}
        Err(error) => typed(&error),
    }
    go_on(&disk, RecoveryMode::Strict);
}

/// One file of a store is damaged, in any of the ways that disks and people have.
pub(crate) fn damage(data: &[u8]) {
    let [control, number, action, a, b, c, d, rest @ ..] = data else { return };
    let image = if control & 1 == 0 { closed() } else { killed() };
    let path = image.path(usize::from(*number)).to_path_buf();
    let mut bytes = image.file(&path).to_vec();
    let (from, to) = (place(*a, *b, bytes.len()), place(*c, *d, bytes.len()));
    let range = from.min(to)..from.max(to);
    let removed = match action % 9 {
        0 => {
            bytes = rest.to_vec();
            false
        }
        1 => {
            let over = rest.iter().copied().take(bytes.len() - from).collect::<Vec<_>>();
            bytes.splice(from..from + over.len(), over);
            false
        }
        2 => {
            bytes.truncate(from);
            false
        }
        3 => {
            if let Some(byte) = bytes.get_mut(from) {
                *byte ^= 1 << (d % 8);
            }
            false
        }
        4 => {
            bytes.splice(range.clone(), vec![0; range.len()]);
            false
        }
        5 => {
            bytes.drain(range);
            false
        }
        6 => {
            bytes.splice(from..from, rest.iter().copied());
            false
        }
        7 => {
            bytes = image.file(image.path(usize::from(*c))).to_vec();
            false
        }
        _ => true,
    };
    check(image, &path, if removed { None } else { Some(&bytes) }, mode(control & 2 != 0));
}

fn place(low: u8, high: u8, len: usize) -> usize {
    usize::from(u16::from_le_bytes([low, high])) % (len + 1)
}

fn mode(salvage: bool) -> RecoveryMode {
    if salvage { RecoveryMode::Salvage } else { RecoveryMode::Strict }
}

/// Opens the image with one file replaced, or missing: an error that says what is wrong, or what was there.
fn check(image: &Image, path: &Path, bytes: Option<&[u8]>, mode: RecoveryMode) {
    let disk = image.disk_with(path, bytes);
    match observe(&disk, mode) {
        Ok((state, report)) => {
            assert!(state.is_within(&image.state), "a record or placemark that was never written");
            let salvaged = mode == RecoveryMode::Salvage && !report.damage().is_empty();
            assert!(
                state == image.state || image.was_killed || salvaged,
                "something was lost without a word: {} bytes for {}",
                bytes.map_or(0, <[u8]>::len),
                path.display(),
            );
        }
        Err(error) => typed(&error),
    }
    go_on(&disk, mode);
}

/// Whether it is an error that says which file is wrong.
fn typed(error: &Error) {
    let named: Option<&PathBuf> = match error {
        Error::Corrupt { path, .. }
        | Error::IncompatibleFormat { path, .. }
        | Error::Io { path, .. }
        // Salvage could read on, and not write.
        | Error::Failed { path, .. } => Some(path),
        Error::NoSuchLog { .. } => None,
        other => panic!("not an error that damage may lead to: {other:?}"),
    };
    assert!(named.is_none_or(|path| path.starts_with(image::PATH)), "{error}");
}

impl State {
    /// Whether everything in it was written, as it is, to where it is.
    fn is_within(&self, whole: &Self) -> bool {
        self.logs.iter().all(|(name, partitions)| {
            let all = whole.logs.get(name).map(Vec::as_slice).unwrap_or_default();
            partitions.iter().zip(all).all(|(some, all)| some.iter().all(|item| all.contains(item)))
                && partitions.len() <= all.len()
        }) && self.placemarks.iter().all(|(key, offset)| whole.placemarks.get(key).is_some_and(|whole| offset <= whole))
    }

    /// Whether it has everything of `first`, ahead of what else it has.
    fn begins_with(&self, first: &Self) -> bool {
        first.logs.iter().all(|(name, partitions)| {
            let ours = self.logs.get(name).map(Vec::as_slice).unwrap_or_default();
            partitions.len() == ours.len() && partitions.iter().zip(ours).all(|(first, all)| all.starts_with(first))
        })
    }
}

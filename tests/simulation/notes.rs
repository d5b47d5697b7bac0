//! What an application commits with a placemark: bytes that a number stands for.

use crate::model::Note;
use crate::rng::Rng;

/// Something for one placemark in three.
pub(crate) fn some(rng: &mut Rng) -> Note {
    rng.one_in(3).then(|| rng.next())
}

pub(crate) fn bytes(note: u64) -> Vec<u8> {
    let len = [8, 20, 300, 4096][usize::try_from(note % 4).unwrap()];
    Rng::new(note)
        .bytes(len)
        .into_iter()
        .zip(note.to_le_bytes().into_iter().map(Some).chain(std::iter::repeat(None)))
        .map(|(byte, of_note)| of_note.unwrap_or(byte))
        .collect()
}

pub(crate) fn read(found: &[u8]) -> Result<u64, String> {
    let note = found.first_chunk().map(|first| u64::from_le_bytes(*first)).filter(|note| bytes(*note) == found);
    note.ok_or_else(|| format!("metadata of {} bytes that were never committed: {:?}", found.len(), found.get(..16)))
}

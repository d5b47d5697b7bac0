//! Bytes that pass the checksums, made as the format chapter says.

const HEADER: usize = 28;
const CHECK: usize = 22;
const FIRST_FRAME: usize = 64;

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Where the frames of a segment end, by their lengths.
pub(crate) fn frames_end(segment: &[u8]) -> usize {
    let mut at = FIRST_FRAME;
    while word(segment, at) != 0 {
        at = (at + word(segment, at) as usize).next_multiple_of(8);
    }
    at
}

/// The offset that follows the last frame of a segment without gaps, less its base.
fn next_delta(segment: &[u8]) -> u32 {
    let (mut at, mut next) = (FIRST_FRAME, 0);
    while word(segment, at) != 0 {
        next = word(segment, at + 8) + (word(segment, at + 24) & 0x00ff_ffff);
        at = (at + word(segment, at) as usize).next_multiple_of(8);
    }
    next
}

/// Appends frames whose headers and records are taken from `data`, with lengths that fit and checksums that hold; with
/// offsets that follow one another, if `follow` says so.
pub(crate) fn append_frames(segment: &mut Vec<u8>, mut data: &[u8], follow: bool) {
    let mut next = next_delta(segment);
    while let [low, high, rest @ ..] = data {
        let wanted = usize::from(u16::from_le_bytes([*low, *high])) % 600 + HEADER + 8;
        let mut frame: Vec<u8> = rest.iter().copied().take(wanted).collect();
        data = rest.get(frame.len()..).unwrap_or_default();
        frame.resize(frame.len().max(HEADER + 8), 0);
        // A header that cannot be is no frame; that is the raw bytes' part.
        let most = u32::try_from((frame.len() - HEADER) / 8).unwrap_or(1);
        let flags = word(&frame, 24) >> 24 & 3;
        let count = if follow { 1 } else { (word(&frame, 24) & 0x00ff_ffff) % most + 1 };
        put(&mut frame, 24, &(count | flags << 24).to_le_bytes());
        if follow {
            put(&mut frame, 8, &next.to_le_bytes());
        }
        next = next.wrapping_add(if flags & 2 == 0 { count } else { word(&frame, HEADER) });
        append(segment, frame);
    }
}

/// Appends frames of one record each, with keys and values from `data`: a byte for the key's length, one for the
/// value's, of which 255 is a tombstone, then both.
pub(crate) fn append_keyed(segment: &mut Vec<u8>, mut data: &[u8]) {
    let mut next = next_delta(segment);
    while let [key, value, rest @ ..] = data {
        let (key, rest) = rest.split_at(usize::from(*key).min(rest.len()));
        let len = if *value == 255 { 0 } else { usize::from(*value).min(rest.len()) };
        let (content, rest) = rest.split_at(len);
        let flags: u8 = if *value == 255 { 3 } else { 1 };
        let mut frame = vec![0; HEADER];
        put(&mut frame, 8, &next.to_le_bytes());
        put(&mut frame, 24, &1_u32.to_le_bytes());
        frame.extend(u32::try_from(len).unwrap_or(0).to_le_bytes());
        frame.extend([0, 0, 0, flags]);
        frame.extend(u32::try_from(key.len()).unwrap_or(0).to_le_bytes());
        frame.extend_from_slice(key);
        frame.extend_from_slice(content);
        append(segment, frame);
        next += 1;
        data = rest;
    }
}

/// Gives a frame its length, check and checksum for the segment's end, and puts it there.
fn append(segment: &mut Vec<u8>, mut frame: Vec<u8>) {
    let ident: Vec<u8> = [16..32, 12..16, 32..36, 40..48]
        .into_iter()
        .flat_map(|range| segment.get(range).unwrap_or_default().to_vec())
        .collect();
    let place = u32::try_from(segment.len()).unwrap_or(0);
    let start = crc32fast::hash(&ident) ^ place;
    let length = u32::try_from(frame.len()).unwrap_or(0);
    put(&mut frame, 0, &length.to_le_bytes());
    let last = word(&frame, 24);
    let gaps = if last >> 24 & 2 == 0 { 0 } else { word(&frame, HEADER).wrapping_sub(last & 0x00ff_ffff) };
    let newest = u64::from(word(&frame, 16)) | u64::from(word(&frame, 20) & 0xffff) << 32;
    let a = u64::from(start ^ gaps) << 32 | u64::from(length);
    let b = u64::from(word(&frame, 8)) << 32 | u64::from(word(&frame, 12));
    let c = newest ^ u64::from(last) << 32;
    let m = (a ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9)
        ^ (b ^ 0x94d0_49bb_1331_11eb).wrapping_mul(0xd6e8_feb8_6659_fd93)
        ^ c.wrapping_mul(0xa076_1d64_78bd_642f);
    let check = (m ^ m >> 29).wrapping_mul(0xe703_7ed1_a0b4_28db) >> 48;
    put(&mut frame, CHECK, &u16::try_from(check).unwrap_or(0).to_le_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(start);
    crc.update(frame.get(8..).unwrap_or_default());
    put(&mut frame, 4, &crc.finalize().to_le_bytes());
    segment.extend_from_slice(&frame);
    segment.resize(segment.len().next_multiple_of(8), 0);
}

/// Puts the checksum behind a small file.
pub(crate) fn close_small_file(bytes: &mut Vec<u8>) {
    let crc = crc32fast::hash(bytes);
    bytes.extend(crc.to_le_bytes());
}

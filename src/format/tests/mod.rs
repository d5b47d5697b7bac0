//! The codecs, one file a kind, and the chapter's example, which is what they make.
//!
//! The same is asked of each: what was encoded comes back; no single bit can change and no byte be missing without being
//! noticed; bytes that are not ours are refused without a panic, and without taking their word for how much memory they
//! need. What exactly the bytes are is pinned by the chapter.

mod chapter;
mod frames;
mod journal;
mod records;
mod samples;
mod side;
mod small_files;

/// Every copy of `bytes` in which one bit is another, with the number of the bit.
fn flipped(bytes: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    (0..bytes.len() * 8).map(|bit| {
        let mut copy = bytes.to_vec();
        copy[bit / 8] ^= 1 << (bit % 8);
        (bit, copy)
    })
}

//! The chapter's worked example is what the codecs make, byte by byte: neither can change without the other.

use super::samples;

const CHAPTER: &str = include_str!("../format.md");

/// The bytes of the block in the chapter that begins with a line of this name, each row where it says it is.
fn block(name: &str) -> Vec<u8> {
    let begin = format!("```text\n{name}\n");
    let (_, rest) = CHAPTER.split_once(&begin).unwrap_or_else(|| panic!("no block {name:?} in format.md"));
    let (block, _) = rest.split_once("```").unwrap();
    let mut bytes = Vec::new();
    for line in block.lines() {
        let (place, rest) = line.split_once("  ").unwrap();
        assert_eq!(usize::from_str_radix(place, 16).unwrap(), bytes.len(), "{name}: the place of {line:?}");
        let row = rest.split("  ").next().unwrap();
        bytes.extend(row.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
    }
    bytes
}

#[track_caller]
fn check(name: &str, bytes: &[u8]) {
    let chapter = block(name);
    let same = bytes.iter().zip(&chapter).take_while(|(ours, its)| ours == its).count();
    assert!(
        bytes == chapter,
        "{name} differs from format.md from byte {same:#06x} on: {:02x?} is made, and the chapter has {:02x?}",
        &bytes[same..bytes.len().min(same + 16)],
        &chapter[same..chapter.len().min(same + 16)],
    );
}

#[test]
fn the_example_in_the_chapter_is_what_the_codecs_make() {
    check("STORE", &samples::store_file().encode());
    check("LOG", &samples::log_file().encode());
    check("MANIFEST", &samples::manifest().encode());
    check("segment", &samples::segment());
    check("index", &samples::index());
    check("producers", &samples::snapshot());
    check("decision", &samples::decision().encode());
    let side: Vec<u8> =
        samples::side().iter().flat_map(|(key, value)| [key.encode(), value.encode()].concat()).collect();
    check("side log, keys and values one behind the other", &side);
}

#[test]
fn the_check_in_a_header_is_the_one_that_the_chapter_says() {
    let segment = samples::segment();
    let word = |at: usize| u64::from(u32::from_le_bytes(segment[at..at + 4].try_into().unwrap()));
    let ident = [&segment[16..32], &segment[12..16], &segment[32..36], &segment[40..48]].concat();
    let seed = u64::from(crc32fast::hash(&ident));
    // The second frame, and the third, which has gaps.
    for (place, gaps) in [(112, 0), (232, 3)] {
        let newest = word(place + 16) | (word(place + 20) & 0xffff) << 32;
        let a = (seed ^ place as u64 ^ gaps) << 32 | word(place);
        let b = word(place + 8) << 32 | word(place + 12);
        let c = newest ^ word(place + 24) << 32;
        let m = (a ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9)
            ^ (b ^ 0x94d0_49bb_1331_11eb).wrapping_mul(0xd6e8_feb8_6659_fd93)
            ^ c.wrapping_mul(0xa076_1d64_78bd_642f);
        assert_eq!((m ^ m >> 29).wrapping_mul(0xe703_7ed1_a0b4_28db) >> 48, word(place + 20) >> 16);
    }
}

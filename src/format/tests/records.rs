//! Records of every shape.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::samples::record;
use crate::Record;
use crate::format::{decode_record, headers, with_time};
use crate::types::Millis;

#[derive(Debug, Clone)]
struct Shape {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    own_time: Option<u64>,
    delta: u32,
}

impl Shape {
    fn record(&self) -> Record<'_> {
        let key = self.key.as_deref();
        let mut record = match &self.value {
            Some(value) => key.into_iter().fold(Record::new(value), Record::key),
            None => Record::tombstone(key.unwrap_or_default()),
        };
        for (name, value) in &self.headers {
            record = record.header(name.as_str(), value);
        }
        record
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..=most)
}

fn shapes() -> impl Strategy<Value = Shape> {
    let value = prop_oneof![9 => bytes(60).prop_map(Some), 1 => Just(None)];
    let headers = prop::collection::vec((".{0,12}", bytes(12)), 0..4);
    (prop::option::of(bytes(20)), value, headers, prop::option::of(0..=Millis::MAX.0), 0..1_u32 << 24).prop_map(
        |(key, value, headers, own_time, delta)| {
            // A tombstone is a tombstone of a key.
            let key = if value.is_none() { key.or(Some(Vec::new())) } else { key };
            Shape { key, value, headers, own_time, delta }
        },
    )
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was_written(shapes in prop::collection::vec(shapes(), 1..5), before in 0..40_usize) {
        let mut frame = vec![9; before];
        for shape in &shapes {
            frame.extend(record(&shape.record(), shape.delta, shape.own_time.map(Millis)));
        }
        let mut at = before;
        for shape in &shapes {
            let raw = decode_record(&frame, at).unwrap();
            let slice = |range: &std::ops::Range<u32>| frame[range.start as usize..range.end as usize].to_vec();
            prop_assert_eq!(raw.delta, shape.delta);
            prop_assert_eq!(raw.tombstone, shape.value.is_none());
            prop_assert_eq!(raw.timestamp, shape.own_time.map(Millis));
            prop_assert_eq!(raw.key.as_ref().map(slice), shape.key.clone());
            prop_assert_eq!(slice(&raw.value), shape.value.clone().unwrap_or_default());
            let stood = raw.headers.as_ref().map(slice).unwrap_or_default();
            let read: Vec<_> = headers(&stood).map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
            prop_assert_eq!(&read, &shape.headers);
            at = raw.next as usize;
        }
        prop_assert_eq!(at, frame.len());
    }

    #[test]
    fn a_record_that_ends_at_any_byte_is_none(shape in shapes()) {
        let whole = record(&shape.record(), shape.delta, shape.own_time.map(Millis));
        for len in 0..whole.len() {
            prop_assert_eq!(decode_record(&whole[..len], 0), None);
        }
    }

    #[test]
    fn what_junk_decodes_to_lies_within_it(junk in bytes(80), at in 0..90_usize, flags in 0..16_u8, len in 0..40_u32) {
        let mut likely = junk.clone();
        if let Some(head) = likely.get_mut(..8) {
            head[..4].copy_from_slice(&len.to_le_bytes());
            head[7] = flags;
        }
        for (frame, at) in [(&junk, at), (&likely, 0)] {
            let Some(raw) = decode_record(frame, at) else { continue };
            let ranges = [Some(raw.value), raw.key, raw.headers];
            for range in ranges.into_iter().flatten() {
                prop_assert!(range.start <= range.end && range.end <= raw.next);
                let _ = headers(&frame[range.start as usize..range.end as usize]).count();
            }
            prop_assert!(raw.next as usize <= frame.len() && raw.next as usize >= at + 8);
        }
    }

    #[test]
    fn a_record_is_given_a_time_as_if_it_had_been_written_with_it(shape in shapes(), time in 0..=Millis::MAX.0) {
        let mut timed = Vec::new();
        with_time(&record(&shape.record(), shape.delta, None), Millis(time), &mut timed);
        prop_assert_eq!(timed, record(&shape.record(), shape.delta, Some(Millis(time))));
    }
}

#[test]
fn lengths_past_the_end_of_everything_are_refused() {
    for len in [1_u32, 1 << 16, 1 << 31, u32::MAX - 8, u32::MAX] {
        for flags in 0..16_u8 {
            // Every length in it is this one.
            let mut frame = len.to_le_bytes().repeat(8);
            frame[4..8].copy_from_slice(&[0, 0, 0, flags]);
            let decoded = decode_record(&frame, 0);
            assert!(decoded.is_none_or(|raw| raw.next as usize <= frame.len()), "length {len}, flags {flags}");
        }
    }
    assert_eq!(decode_record(&[0; 8], usize::MAX), None);
}

#[test]
fn flags_and_names_that_are_not_known_are_refused() {
    let whole = record(&Record::new("value").header("name", "x"), 0, None);
    assert!(decode_record(&whole, 0).is_some());
    for bit in 4..8 {
        let mut unknown = whole.clone();
        unknown[7] |= 1 << bit;
        assert_eq!(decode_record(&unknown, 0), None);
    }
    let mut not_text = whole;
    not_text[8 + 4 + 2] = 0xff;
    assert_eq!(decode_record(&not_text, 0), None, "a header's name is UTF-8");
}

#[test]
fn times_stay_within_what_a_frame_holds() {
    assert!(Millis::from_time(UNIX_EPOCH + Duration::from_millis(Millis::MAX.0)).is_ok());
    assert!(Millis::from_time(UNIX_EPOCH + Duration::from_millis(Millis::MAX.0 + 1)).is_err());
    assert!(Millis::from_time(UNIX_EPOCH - Duration::from_millis(1)).is_err());
    // What stands in a file need not: it is clamped, and nothing panics.
    assert_eq!(Millis(u64::MAX).to_time(), Millis::MAX.to_time());
}

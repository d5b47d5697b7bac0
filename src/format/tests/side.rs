//! Keys and values of the side log.

use proptest::prelude::*;

use super::samples;
use crate::format::fields::{Fields, put_varint};
use crate::format::{SideKey, SideValue, Trial};
use crate::types::{GroupId, LogId, ProducerId};

fn keys() -> impl Strategy<Value = SideKey> {
    let place = || {
        (any::<u32>(), any::<u32>(), any::<u32>())
            .prop_map(|(group, log, partition)| (GroupId(group), LogId(log), partition))
    };
    prop_oneof![
        place().prop_map(|(group, log, partition)| SideKey::Placemark { group, log, partition }),
        place().prop_map(|(group, log, partition)| SideKey::Start { group, log, partition }),
        (any::<u32>(), "[A-Za-z0-9._-]{1,249}").prop_map(|(log, name)| SideKey::Group { log: LogId(log), name }),
        "[A-Za-z0-9._-]{1,249}".prop_map(|name| SideKey::Log { name }),
        Just(SideKey::NextLog),
        Just(SideKey::NextGroup),
        (any::<u32>(), "[A-Za-z0-9._-]{1,249}").prop_map(|(log, name)| SideKey::Producer { log: LogId(log), name }),
        Just(SideKey::NextProducer),
        place().prop_map(|(group, log, partition)| SideKey::Trial { group, log, partition }),
    ]
}

proptest! {
    #[test]
    fn keys_and_values_come_back(key in keys(), offset in 0..1_u64 << 63, version in 0..1_u64 << 63,
        number in any::<u32>(), epoch in any::<u32>(), metadata in prop::collection::vec(any::<u8>(), 0..200)) {
        let bytes = key.encode();
        prop_assert_eq!(SideKey::decode(&bytes), Some(key.clone()));
        let value = match key {
            SideKey::Placemark { .. } => SideValue::Placemark { offset, version, metadata: Some(metadata.into()) },
            SideKey::Trial { .. } => {
                SideValue::Trial(Trial { offset, records: version, attempts: offset, until: version, version })
            }
            SideKey::Producer { .. } => SideValue::Producer(ProducerId { number, epoch }),
            _ => SideValue::Number(offset),
        };
        let mut bytes = value.encode();
        prop_assert_eq!(SideValue::decode(&key, &bytes), Some(value.clone()));
        for len in 0..bytes.len() {
            match SideValue::decode(&key, &bytes[..len]) {
                None => {}
                Some(SideValue::Placemark { metadata: None, .. }) => {
                    prop_assert!(matches!(key, SideKey::Placemark { .. }), "metadata may be missing, or is whole");
                }
                Some(cut) => prop_assert!(false, "{cut:?}"),
            }
        }
        bytes.extend([1, 2, 3]);
        prop_assert_eq!(SideValue::decode(&key, &bytes), Some(value), "what later versions add is left alone");
    }

    #[test]
    fn two_keys_have_different_bytes(one in keys(), other in keys()) {
        prop_assert_eq!(one == other, one.encode() == other.encode());
    }

    #[test]
    fn junk_is_refused_or_a_key_that_can_be_written(junk in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(key) = SideKey::decode(&junk) {
            prop_assert_eq!(SideKey::decode(&key.encode()), Some(key.clone()));
            let _ = SideValue::decode(&key, &junk);
        }
    }

    #[test]
    fn a_varint_comes_back(number in any::<u64>(), shift in 0..64_u32) {
        let number = number >> shift;
        let mut bytes = Vec::new();
        put_varint(&mut bytes, number);
        prop_assert_eq!(bytes.len(), (64 - number.leading_zeros()).div_ceil(7).max(1) as usize);
        for len in 0..bytes.len() {
            prop_assert_eq!(Fields::new(&bytes[..len]).varint(), None);
        }
        let mut fields = Fields::new(&bytes);
        prop_assert_eq!(fields.varint(), Some(number));
        prop_assert!(fields.is_empty());
    }
}

#[test]
fn kinds_and_tails_that_are_not_known_are_left_to_who_knows_them() {
    for kind in (0..=255).filter(|kind| !(1..=9).contains(kind)) {
        assert_eq!(SideKey::decode(&[kind]), None);
        assert_eq!(SideKey::decode(&[kind, 1, 2, 3]), None);
    }
    assert_eq!(SideKey::decode(&[]), None);
    for (key, _) in samples::side() {
        let mut bytes = key.encode();
        let named = matches!(key, SideKey::Group { .. } | SideKey::Log { .. } | SideKey::Producer { .. });
        bytes.push(if named { 0xff } else { 0 });
        assert_eq!(SideKey::decode(&bytes), None, "{key:?} with a byte more");
    }
}

#[test]
fn offsets_and_versions_that_no_one_can_count_to_are_refused() {
    for (key, _) in samples::side() {
        let most = if matches!(key, SideKey::Producer { .. }) { u64::from(u32::MAX) } else { (1 << 63) - 1 };
        for (number, fits) in [(most, true), (most + 1, false), (u64::MAX, false)] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            match key {
                SideKey::Trial { .. } => bytes = bytes.repeat(5),
                SideKey::Placemark { .. } | SideKey::Producer { .. } => bytes = bytes.repeat(2),
                _ => {}
            }
            assert_eq!(SideValue::decode(&key, &bytes).is_some(), fits, "{key:?}: {number}");
        }
    }
}

#[test]
fn a_varint_that_is_too_large_is_refused() {
    let most = [[0xff; 9].as_slice(), &[1]].concat();
    assert_eq!(Fields::new(&most).varint(), Some(u64::MAX));
    assert_eq!(Fields::new(&[[0xff; 9].as_slice(), &[2]].concat()).varint(), None);
    assert_eq!(Fields::new(&[0x80; 20]).varint(), None);
    assert_eq!(Fields::new(&[0x80, 0x80, 0x80, 0x80, 0x10]).varint32(), None);
}

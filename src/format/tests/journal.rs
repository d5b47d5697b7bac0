//! Decisions of transactions.

use proptest::prelude::*;

use super::{flipped, samples};
use crate::format::fields::put_varint;
use crate::format::{DecidedPlacemark, Decision, Part, ProducerStamp};
use crate::types::{GroupId, LogId, Millis};

fn decisions() -> impl Strategy<Value = Decision> {
    let stamp = any::<(u32, u32, u64)>().prop_map(|(id, epoch, sequence)| ProducerStamp { id, epoch, sequence });
    let producer = prop::option::of(stamp);
    let part = (any::<(u32, u32, u64, u64, u32)>(), producer, prop::collection::vec(any::<u8>(), 0..50)).prop_map(
        |((log, partition, base, timestamp, count), producer, records)| Part {
            log: LogId(log.max(1)),
            partition,
            base: base >> 1,
            timestamp: Millis(timestamp),
            count,
            producer,
            records,
        },
    );
    let metadata = prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
    let placemark = (any::<(u32, u32, u32, u64, u64)>(), metadata).prop_map(
        |((group, log, partition, offset, version), metadata)| DecidedPlacemark {
            group: GroupId(group.max(1)),
            log: LogId(log),
            partition,
            offset: offset >> 1,
            version: version >> 1,
            metadata: metadata.map(Into::into),
        },
    );
    (prop::collection::vec(part, 0..5), prop::collection::vec(placemark, 0..5))
        .prop_map(|(parts, placemarks)| Decision { parts, placemarks })
}

proptest! {
    #[test]
    fn a_decision_comes_back_whole_or_not_at_all(decision in decisions()) {
        let bytes = decision.encode();
        prop_assert_eq!(Decision::decode(&bytes), Some(decision));
        for len in 0..bytes.len() {
            prop_assert_eq!(Decision::decode(&bytes[..len]), None);
        }
        prop_assert_eq!(Decision::decode(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn junk_is_refused_or_a_decision_no_larger_than_it(junk in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(decision) = Decision::decode(&junk) {
            let records: usize = decision.parts.iter().map(|part| part.records.len()).sum();
            prop_assert!(records + 6 * decision.parts.len() + 5 * decision.placemarks.len() <= junk.len());
        }
    }
}

/// It is the checksum of the journal's frame that notices; here nothing may go wrong before it is asked.
#[test]
fn no_flipped_bit_does_harm() {
    for (_, damaged) in flipped(&samples::decision().encode()) {
        let _ = Decision::decode(&damaged);
    }
}

#[test]
fn counts_and_lengths_past_the_end_of_everything_are_refused_at_once() {
    for huge in [1 << 31, 1 << 32, 1 << 62, u64::MAX] {
        let mut parts = Vec::new();
        put_varint(&mut parts, huge);
        assert_eq!(Decision::decode(&parts), None);
        let mut placemarks = vec![0];
        put_varint(&mut placemarks, huge);
        assert_eq!(Decision::decode(&placemarks), None);
        let mut records = vec![1, 16, 0, 0, 0, 1];
        put_varint(&mut records, huge);
        records.extend([0; 100]);
        assert_eq!(Decision::decode(&records), None);
    }
}

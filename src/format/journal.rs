//! A record of the journal: a transaction that is decided.

use crate::format::fields::{Fields, put_bytes, put_varint, take_bytes};
use crate::format::{Metadata, ProducerStamp};
use crate::types::{GroupId, LogId, Millis};

/// Says, where a log's number is expected, that a producer's stamp stands before it. It is that of the side log, to
/// which no transaction appends.
const STAMPED: u64 = 0;

/// Says, where a group's number is expected, that a placemark's metadata stands before it. Groups count from 1.
const WITH_METADATA: u64 = 0;

/// What a transaction does, all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decision {
    pub(crate) parts: Vec<Part>,
    pub(crate) placemarks: Vec<DecidedPlacemark>,
}

/// One frame of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) log: LogId,
    pub(crate) partition: u32,
    /// Offset of its first record.
    pub(crate) base: u64,
    pub(crate) timestamp: Millis,
    pub(crate) count: u32,
    pub(crate) producer: Option<ProducerStamp>,
    /// Records as they stand in the frame.
    pub(crate) records: Vec<u8>,
}

/// One placemark that moves with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecidedPlacemark {
    pub(crate) group: GroupId,
    pub(crate) log: LogId,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// Larger than that of every earlier placemark of the same key.
    pub(crate) version: u64,
    /// The application's own bytes.
    pub(crate) metadata: Option<Metadata>,
}

impl Decision {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let bytes: usize = self.parts.iter().map(|part| part.records.len() + 40).sum();
        let mut out = Vec::with_capacity(bytes + self.placemarks.len() * 40 + 20);
        put_varint(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            if let Some(producer) = &part.producer {
                put_varint(&mut out, STAMPED);
                put_varint(&mut out, u64::from(producer.id));
                put_varint(&mut out, u64::from(producer.epoch));
                put_varint(&mut out, producer.sequence);
            }
            put_varint(&mut out, u64::from(part.log.0));
            put_varint(&mut out, u64::from(part.partition));
            put_varint(&mut out, part.base);
            put_varint(&mut out, part.timestamp.0);
            put_varint(&mut out, u64::from(part.count));
            put_varint(&mut out, part.records.len() as u64);
            out.extend_from_slice(&part.records);
        }
        put_varint(&mut out, self.placemarks.len() as u64);
        for placemark in &self.placemarks {
            if let Some(metadata) = &placemark.metadata {
                put_varint(&mut out, WITH_METADATA);
                put_bytes(&mut out, metadata);
            }
            put_varint(&mut out, u64::from(placemark.group.0));
            put_varint(&mut out, u64::from(placemark.log.0));
            put_varint(&mut out, u64::from(placemark.partition));
            put_varint(&mut out, placemark.offset);
            put_varint(&mut out, placemark.version);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let mut decision = Self::default();
        for _ in 0..fields.varint()? {
            let (mut log, mut producer) = (fields.varint32()?, None);
            if u64::from(log) == STAMPED {
                let (id, epoch) = (fields.varint32()?, fields.varint32()?);
                producer = Some(ProducerStamp { id, epoch, sequence: fields.varint()? });
                log = fields.varint32()?;
            }
            let (log, partition) = (LogId(log), fields.varint32()?);
            let base = fields.counter()?;
            let timestamp = Millis(fields.varint()?);
            let count = fields.varint32()?;
            let len = usize::try_from(fields.varint()?).ok()?;
            let records = fields.take(len)?.to_vec();
            decision.parts.push(Part { log, partition, base, timestamp, count, producer, records });
        }
        for _ in 0..fields.varint()? {
            let (mut group, mut metadata) = (fields.varint32()?, None);
            if u64::from(group) == WITH_METADATA {
                metadata = Some(take_bytes(&mut fields)?.into());
                group = fields.varint32()?;
            }
            decision.placemarks.push(DecidedPlacemark {
                group: GroupId(group),
                log: LogId(fields.varint32()?),
                partition: fields.varint32()?,
                offset: fields.counter()?,
                version: fields.counter()?,
                metadata,
            });
        }
        fields.is_empty().then_some(decision)
    }
}

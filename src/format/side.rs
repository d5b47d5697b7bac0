//! Keys and values of the side log.

use std::sync::Arc;

use crate::format::fields::{Fields, put_bytes, put_varint, take_bytes};
use crate::types::{GroupId, LogId, ProducerId};

/// Bytes of the application's own that stand with a placemark.
pub(crate) type Metadata = Arc<[u8]>;

/// What a record of the side log is about. Kinds that this version does not know are kept, and skipped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum SideKey {
    /// The next offset that a group will read.
    Placemark { group: GroupId, log: LogId, partition: u32 },
    /// Where a group began, fixed when it joined.
    Start { group: GroupId, log: LogId, partition: u32 },
    /// A group by its name, on one log.
    Group { log: LogId, name: String },
    /// A log by its name.
    Log { name: String },
    /// A producer by its name, on one log.
    Producer { log: LogId, name: String },
    /// The next number for a log.
    NextLog,
    /// The next number for a group.
    NextGroup,
    /// The next number for a producer.
    NextProducer,
    /// What a group tries to process in a partition, where attempts are counted.
    Trial { group: GroupId, log: LogId, partition: u32 },
}

/// What the side log says about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SideValue {
    Placemark {
        offset: u64,
        version: u64,
        /// The application's own bytes.
        metadata: Option<Metadata>,
    },
    Producer(ProducerId),
    Trial(Trial),
    /// An offset, a number of a log or group, or a counter.
    Number(u64),
}

/// What was handed out last in a partition, where attempts are counted. If the placemark has not moved since, it has
/// failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trial {
    /// Offset of the first record that was handed out.
    pub(crate) offset: u64,
    /// How many records were handed out together.
    pub(crate) records: u64,
    /// For a record on its own: how often it has been handed out so, this time included. Otherwise 0.
    pub(crate) attempts: u64,
    /// Up to here the records are under suspicion: they were handed out together with one that failed.
    pub(crate) until: u64,
    /// The version of the placemark at the time, 0 where there was none.
    pub(crate) version: u64,
}

const PLACEMARK: u8 = 1;
const START: u8 = 2;
const GROUP: u8 = 3;
const LOG: u8 = 4;
const NEXT_LOG: u8 = 5;
const NEXT_GROUP: u8 = 6;
const PRODUCER: u8 = 7;
const NEXT_PRODUCER: u8 = 8;
const TRIAL: u8 = 9;

impl SideKey {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24);
        self.encode_to(&mut out);
        out
    }

    /// Adds it to `out`.
    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        let mut place = |kind: u8, group: GroupId, log: LogId, partition: u32| {
            out.push(kind);
            put_varint(out, u64::from(group.0));
            put_varint(out, u64::from(log.0));
            put_varint(out, u64::from(partition));
        };
        match self {
            Self::Placemark { group, log, partition } => place(PLACEMARK, *group, *log, *partition),
            Self::Start { group, log, partition } => place(START, *group, *log, *partition),
            Self::Trial { group, log, partition } => place(TRIAL, *group, *log, *partition),
            Self::Group { log, name } => {
                out.push(GROUP);
                put_varint(out, u64::from(log.0));
                out.extend_from_slice(name.as_bytes());
            }
            Self::Producer { log, name } => {
                out.push(PRODUCER);
                put_varint(out, u64::from(log.0));
                out.extend_from_slice(name.as_bytes());
            }
            Self::Log { name } => {
                out.push(LOG);
                out.extend_from_slice(name.as_bytes());
            }
            Self::NextLog => out.push(NEXT_LOG),
            Self::NextGroup => out.push(NEXT_GROUP),
            Self::NextProducer => out.push(NEXT_PRODUCER),
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        let kind = fields.u8()?;
        let key = match kind {
            PLACEMARK | START | TRIAL => {
                let group = GroupId(fields.varint32()?);
                let log = LogId(fields.varint32()?);
                let partition = fields.varint32()?;
                match kind {
                    PLACEMARK => Self::Placemark { group, log, partition },
                    TRIAL => Self::Trial { group, log, partition },
                    _ => Self::Start { group, log, partition },
                }
            }
            GROUP => Self::Group { log: LogId(fields.varint32()?), name: name(&mut fields)? },
            PRODUCER => Self::Producer { log: LogId(fields.varint32()?), name: name(&mut fields)? },
            LOG => Self::Log { name: name(&mut fields)? },
            NEXT_LOG => Self::NextLog,
            NEXT_GROUP => Self::NextGroup,
            NEXT_PRODUCER => Self::NextProducer,
            _ => return None,
        };
        fields.is_empty().then_some(key)
    }
}

fn name(fields: &mut Fields<'_>) -> Option<String> {
    let bytes = fields.take(fields.remaining())?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

impl SideValue {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(16);
        self.encode_to(&mut out);
        out
    }

    /// Adds it to `out`.
    pub(crate) fn encode_to(&self, out: &mut Vec<u8>) {
        match self {
            Self::Placemark { offset, version, metadata } => {
                put_varint(out, *offset);
                put_varint(out, *version);
                if let Some(metadata) = metadata {
                    put_bytes(out, metadata);
                }
            }
            Self::Producer(producer) => {
                put_varint(out, u64::from(producer.number));
                put_varint(out, u64::from(producer.epoch));
            }
            Self::Trial(Trial { offset, records, attempts, until, version }) => {
                for number in [*offset, *records, *attempts, *until, *version] {
                    put_varint(out, number);
                }
            }
            Self::Number(number) => put_varint(out, *number),
        }
    }

    /// The value of a record with this key. Bytes behind what this version knows are left for later ones.
    pub(crate) fn decode(key: &SideKey, bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        match key {
            SideKey::Placemark { .. } => {
                let (offset, version) = (fields.counter()?, fields.counter()?);
                let metadata = if fields.is_empty() { None } else { Some(take_bytes(&mut fields)?.into()) };
                Some(Self::Placemark { offset, version, metadata })
            }
            SideKey::Producer { .. } => {
                Some(Self::Producer(ProducerId { number: fields.varint32()?, epoch: fields.varint32()? }))
            }
            SideKey::Trial { .. } => Some(Self::Trial(Trial {
                offset: fields.counter()?,
                records: fields.counter()?,
                attempts: fields.counter()?,
                until: fields.counter()?,
                version: fields.counter()?,
            })),
            _ => fields.counter().map(Self::Number),
        }
    }
}

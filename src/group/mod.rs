//! Consumer groups as they live in memory: who is a member, who owns which partition, what is in flight.
//!
//! Nothing here does I/O, takes a lock or looks at a clock: times come in as durations since some start. What is
//! committed stands in the side log; a group's state begins with it and can be forgotten once [`Group::is_empty`].

mod assignment;
mod keyed;
mod membership;
mod metadata;
mod partitions;
mod progress;
mod ranges;
mod registry;

pub(crate) use keyed::{Picked, Picker, Sight};
pub(crate) use membership::{Fetch, Fetched, Group, MemberId, Mode, Seen, Terms};
pub(crate) use progress::BatchId;
pub(crate) use registry::{GroupState, Registry};

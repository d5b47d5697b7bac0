//! Groups: who reads what, and how far they are. Pure state; what is read and written goes through the consumer.

mod assignment;
mod membership;
mod progress;
mod registry;

pub(crate) use assignment::MemberId;
pub(crate) use membership::{Membership, Reading};
pub(crate) use progress::{BatchId, Progress};
pub(crate) use registry::{GroupState, Registry};

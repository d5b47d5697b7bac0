//! Groups: who reads what, and how far they are.

pub(crate) mod assignment;
pub(crate) mod membership;
pub(crate) mod progress;

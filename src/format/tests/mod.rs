//! The codecs, one file a kind, and the chapter's example, which is what they make.

mod chapter;
mod samples;

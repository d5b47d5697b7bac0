#![no_main]

#[allow(dead_code, reason = "of the targets this binary runs one")]
#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::index(data));

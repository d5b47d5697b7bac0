//! Mistakes made on purpose, to show that the simulation finds them: tests/simulation/broken builds the crate with
//! `--cfg placemark_broken` and has it make one of them at a time. In every other build there are none.

/// Whether this mistake is to be made. False, and known to the compiler to be so, but in that one build.
#[cfg(not(placemark_broken))]
pub(crate) const fn broken(_mistake: &str) -> bool {
    false
}

#[cfg(placemark_broken)]
pub(crate) fn broken(mistake: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var("PLACEMARK_BROKEN").unwrap_or_default()) == mistake
}

//! The rows of the table in benches/README.md: what was measured, and what must be reached.
//!
//! `benches/budget.sh` names a file in `PLACEMARK_BENCH_ROWS`, to which every benchmark adds its rows.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// The file that rows are wanted in. Then there is no time for criterion's own measuring.
pub(crate) fn wanted() -> Option<PathBuf> {
    std::env::var_os("PLACEMARK_BENCH_ROWS").map(PathBuf::from)
}

/// Says what was measured. `met` says whether it is what it must be; `None` where nothing is asked of it.
pub(crate) fn row(what: &str, measured: &str, must: &str, met: Option<bool>) {
    let met = match met {
        None => "",
        Some(true) => "yes",
        Some(false) => "**no**",
    };
    println!("{what}: {measured}");
    if !must.is_empty() {
        println!("    must be {must}: {met}");
    }
    if let Some(path) = wanted() {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        writeln!(file, "| {what} | {measured} | {must} | {met} |").unwrap();
    }
}

//! What the figures were taken on, as far as it matters; no names of hosts or paths.

use std::fs;
use std::path::Path;

/// In one line.
pub(crate) fn described(scratch: &Path) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let cpu = field(&read("/proc/cpuinfo"), "model name");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kib: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.trim().split('-').next().unwrap_or_default().to_owned();
    let guest = if read("/proc/cpuinfo").contains(" hypervisor") { ", a virtual machine" } else { "" };
    let file_system = file_system(&read("/proc/self/mountinfo"), scratch);
    format!("{cpu}, {cores} cores{guest}, {} GiB of memory, Linux {kernel}, {file_system}", (kib + (1 << 19)) >> 20)
}

/// The type of what is mounted where `path` lies.
fn file_system(mounts: &str, path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounts = mounts.lines().filter_map(|line| {
        let (place, what) = line.split_once(" - ")?;
        Some((place.split(' ').nth(4)?, what.split(' ').next()?))
    });
    let mounted = mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len());
    mounted.map_or("an unknown file system", |(_, kind)| kind).to_owned()
}

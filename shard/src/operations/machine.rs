//! Measures the machine and this process: disk, memory, descriptors, processor time. Decides nothing.

use crate::monitor::Usage;
use rustix::process::{Resource as Limit, getrlimit};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a process has of its machine, measured at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    pub(super) disk: Option<Usage>,
    pub(super) memory: Option<Usage>,
    pub(super) descriptors: Option<Usage>,
}

/// Where to measure.
#[derive(Debug)]
pub(super) struct Machine {
    data_dir: PathBuf,
    /// The connections that all shards together may have.
    pub(super) connections_limit: u64,
    latest: Measured,
}

impl Machine {
    pub(super) fn new(data_dir: PathBuf, connections_limit: u64) -> Self {
        Self { data_dir, connections_limit, latest: Measured::default() }
    }

    /// The folder whose disk is measured.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    pub(super) fn keep(&mut self, measured: Measured) {
        self.latest = measured;
    }

    /// What was measured last.
    pub(super) fn latest(&self) -> Measured {
        self.latest
    }
}

/// Measures, and says what cannot be measured. May wait for the disk.
pub(super) fn measure(data_dir: &Path) -> (Measured, Vec<(&'static str, io::Error)>) {
    let mut failures = Vec::new();
    let mut kept =
        |what, measured: io::Result<Usage>| measured.map_err(|error| failures.push((what, error))).ok();
    let measured = Measured {
        disk: kept("disk", disk(data_dir)),
        memory: kept("memory", memory()),
        descriptors: kept("descriptors", descriptors()),
    };
    (measured, failures)
}

/// As df has it: what is reserved for root counts neither as used nor as room.
fn disk(path: &Path) -> io::Result<Usage> {
    let found = rustix::fs::statvfs(path)?;
    let used = found.f_blocks.saturating_sub(found.f_bfree);
    let limit = used + found.f_bavail;
    Ok(Usage { used: used * found.f_frsize, limit: limit * found.f_frsize })
}

/// The resident memory of this process, of what its control group or else the machine has.
fn memory() -> io::Result<Usage> {
    let statm = fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| unreadable("/proc/self/statm"))?;
    let machine =
        total_memory(&fs::read_to_string("/proc/meminfo")?).ok_or_else(|| unreadable("/proc/meminfo"))?;
    let limit = control_group_limit().map_or(machine, |limit| limit.min(machine));
    Ok(Usage { used: pages * rustix::param::page_size() as u64, limit })
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not as it should be"))
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// The lowest `memory.max` from this process's control group (version 2) upwards; `None` if there is none.
fn control_group_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let limit =
        |path: &Path| fs::read_to_string(Path::new("/sys/fs/cgroup").join(path).join("memory.max")).ok();
    let limits = Path::new(&own).ancestors().filter_map(limit);
    limits.filter_map(|limit| limit.trim().parse().ok()).min()
}

/// Open descriptors, of those that the process may have.
fn descriptors() -> io::Result<Usage> {
    let limit = getrlimit(Limit::Nofile).current.unwrap_or(u64::MAX);
    // Since Linux 6.2 the size of this folder is their number; counting a million of them would take long.
    let size = fs::metadata("/proc/self/fd")?.len();
    let used = if size > 0 { size } else { fs::read_dir("/proc/self/fd")?.count() as u64 };
    Ok(Usage { used, limit })
}

/// Processor time of this process, in seconds.
pub(super) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_be_measured() {
        let (measured, failures) = measure(Path::new("."));
        assert!(failures.is_empty(), "{failures:?}");
        for usage in [measured.disk, measured.memory, measured.descriptors] {
            let usage = usage.unwrap();
            assert!(0 < usage.used && usage.used <= usage.limit, "{usage:?}");
        }
        assert!(cpu_seconds() > 0.0);
    }

    #[test]
    fn a_folder_that_is_gone_is_told_and_the_rest_is_measured() {
        let (measured, failures) = measure(Path::new("/nonexistent"));
        assert_eq!(failures.iter().map(|(what, _)| *what).collect::<Vec<_>>(), ["disk"]);
        assert!(measured.disk.is_none() && measured.memory.is_some());
    }

    #[test]
    fn the_memory_of_the_machine_is_in_kibibytes() {
        assert_eq!(total_memory("MemTotal:       16318 kB\nMemFree: 1 kB\n"), Some(16_318 << 10));
        assert_eq!(total_memory("MemFree: 1 kB\n"), None);
    }
}

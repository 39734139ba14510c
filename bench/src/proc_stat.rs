//! What /proc says of a process and of the machine.

use std::fs;

/// Kernel clock ticks a second in /proc; the same on every Linux that has /proc.
const TICKS: f64 = 100.0;

/// What a process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// CPU seconds in user mode.
    pub(crate) user: f64,
    /// CPU seconds in the kernel.
    pub(crate) system: f64,
    /// Resident bytes.
    pub(crate) resident: u64,
}

impl Usage {
    /// Of the process `id`; zeros if it is gone.
    pub(crate) fn of(id: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
        let (user, system) = cpu_seconds(&stat).unwrap_or_default();
        Self { user, system, resident: kibibytes(&status, "VmRSS:") * 1024 }
    }

    /// CPU seconds.
    pub(crate) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// utime and stime of /proc/PID/stat. The name in it may hold anything, brackets included.
fn cpu_seconds(stat: &str) -> Option<(f64, f64)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok().map(|ticks| ticks / TICKS);
    Some((next()?, next()?))
}

fn kibibytes(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Bytes that the kernel holds for its own objects, sockets included.
pub(crate) fn kernel_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    (kibibytes(&text, "Slab:") + kibibytes(&text, "KernelStack:") + kibibytes(&text, "PageTables:")) * 1024
}

/// Bytes of memory that can still be had.
pub(crate) fn available_bytes() -> u64 {
    kibibytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable:") * 1024
}

/// The soft limit on descriptors of a process.
pub(crate) fn descriptor_limit(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/limits")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The machine in one line: processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let memory = kibibytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, {cores} cores, {:.1} GiB, Linux {}", memory as f64 / (1 << 20) as f64, kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_seconds_are_found_behind_any_name() {
        let stat = "12 (a) b (c) S 1 1 1 0 -1 4194304 100 0 0 0 250 125 0 0 20 0 1 0 5 0 0";
        assert_eq!(cpu_seconds(stat), Some((2.5, 1.25)));
        assert_eq!(cpu_seconds("12 (a"), None);
    }

    #[test]
    fn this_process_uses_memory_and_may_open_files() {
        let id = std::process::id();
        assert!(Usage::of(id).resident > 0);
        assert!(descriptor_limit(id).is_some());
        assert_eq!(Usage::of(u32::MAX), Usage::default());
    }
}

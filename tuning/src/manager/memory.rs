//! How much memory a process takes, as the kernel counts it.

/// Resident bytes of a process, and the most there were; `None` if there is no such process.
pub(super) fn of(process: &str) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    Some(Memory { resident_bytes: kib("VmRSS:")? << 10, peak_bytes: kib("VmHWM:")? << 10 })
}

/// See [`of`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) resident_bytes: u64,
    pub(super) peak_bytes: u64,
}

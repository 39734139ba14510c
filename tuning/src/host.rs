//! What the machine offers, as far as a configuration can ask for more than there is.

use std::collections::BTreeSet;

/// What this process may use of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// The processors it may run on; `None` if the system does not say.
    pub(crate) cpus: Option<BTreeSet<usize>>,
}

impl Host {
    /// The machine this process runs on.
    pub(crate) fn this() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self { cpus: allowed_cpus(&status) }
    }
}

/// The `Cpus_allowed_list` of a proc(5) status file.
fn allowed_cpus(status: &str) -> Option<BTreeSet<usize>> {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let mut cpus = BTreeSet::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_cpus_are_numbers_and_ranges() {
        let read = |list| allowed_cpus(&format!("Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t{list}\n"));
        assert_eq!(read("0-2,5"), Some(BTreeSet::from([0, 1, 2, 5])));
        assert_eq!(read("7"), Some(BTreeSet::from([7])));
        assert_eq!(read("x"), None);
        assert_eq!(allowed_cpus("Name:\tx\n"), None);
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!Host::this().cpus.expect("Linux has /proc").is_empty());
    }
}

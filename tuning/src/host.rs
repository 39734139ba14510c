//! What the machine offers, as far as a configuration can ask for more than there is, and what of it is not as a relay
//! wants it. Looks and says; it changes nothing.

mod disk;
mod finding;
mod kernel;
mod needs;
mod network;
mod processors;
mod report;
mod root;

pub use finding::{Change, Finding, Verdict};
pub use needs::Needs;
pub use report::{json, plan, text};
pub use root::Root;

use crate::Config;
use std::collections::BTreeSet;

/// Looks at the machine below `root` with the eyes of a relay that has this configuration.
pub fn examine(root: &Root, config: &Config) -> Vec<Finding> {
    let needs = Needs::of(config, processors::count(root));
    let mut findings = vec![kernel::version(root), kernel::io_uring(root)];
    findings.extend(kernel::descriptors(root, &needs));
    findings.extend(kernel::locked_memory(root, &needs));
    findings.push(kernel::memory(root, &needs));
    findings.extend(network::queues(root, &needs));
    findings.extend(network::ports(root, &needs));
    findings.push(network::tcp_memory(root, &needs));
    findings.push(network::connection_tracking(root, &needs));
    findings.extend(network::cards(root, &needs));
    findings.extend([processors::enough(root, &needs), processors::governor(root)]);
    findings.extend(processors::numa(root));
    findings.extend(processors::nodes_of_cards(root));
    findings.extend(disk::disk(root, &needs));
    findings.extend([kernel::huge_pages(root), kernel::time(root)]);
    findings
}

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

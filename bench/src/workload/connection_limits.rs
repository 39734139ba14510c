//! How many connections a machine can hold with both ends on it, what limits it, and what to change. Reads /proc; opens none.

use super::connections::PAIRS;
use crate::holder::{PER_ADDRESS, SOURCES};
use crate::proc_stat;
use crate::relay_process::RelayOptions;
use crate::report::thousands;
use std::fs;

/// Descriptors that a process needs beside its connections, and those that every shard opens in each table.
const SPARE_DESCRIPTORS: u64 = 200;
const DESCRIPTORS_A_SHARD: u64 = 4;
/// Files of the system that are left to others.
const SPARE_FILES: u64 = 50_000;
/// Homes are drawn by hash: the fullest of many shards has so much more than its share.
const UNEVENNESS: f64 = 1.07;
/// The most shards that a relay can have.
const MOST_SHARDS: u64 = 1024;
/// What one connection costs on both sides in both processes and the kernel, as measured, and rounded up.
const BYTES_A_CONNECTION: u64 = 17 * 1024;
/// Share of the available memory that connections may take.
const MEMORY_SHARE: f64 = 0.85;

/// One thing that limits the number of connections.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limit {
    /// The most connections with it.
    pub(crate) most: u64,
    /// What it is, and what to change.
    advice: String,
}

/// What the machine says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    /// RLIMIT_NOFILE.
    pub(crate) descriptors: u64,
    /// Bytes of memory to be had.
    pub(crate) memory: u64,
    /// Files that the system can still open.
    pub(crate) files: u64,
    /// Connections that the firewall can still track; `None` if it tracks none.
    pub(crate) tracked: Option<u64>,
}

impl Machine {
    /// This one.
    pub(crate) fn this() -> Self {
        let number = |path: &str| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
        let in_use = fs::read_to_string("/proc/sys/fs/file-nr").unwrap_or_default();
        let in_use =
            in_use.split_whitespace().next().and_then(|files| files.parse::<u64>().ok()).unwrap_or(0);
        let tracking = "/proc/sys/net/netfilter/nf_conntrack_count";
        // It is counted with every connection, or with none: those of this machine that exist now tell which.
        let tracked = number(tracking).filter(|count| *count > 0);
        let most_tracked = number("/proc/sys/net/netfilter/nf_conntrack_max");
        Self {
            descriptors: proc_stat::descriptor_limit(std::process::id()).unwrap_or(1024),
            memory: proc_stat::available_bytes(),
            files: number("/proc/sys/fs/file-max").unwrap_or(u64::MAX).saturating_sub(in_use),
            tracked: tracked.zip(most_tracked).map(|(count, most)| most.saturating_sub(count)),
        }
    }

    /// Connections of one table among those of so many shards.
    fn connections_a_table(&self, shards: u64) -> u64 {
        self.descriptors.saturating_sub(SPARE_DESCRIPTORS + DESCRIPTORS_A_SHARD * shards)
    }

    /// Connections of one generator process.
    pub(crate) fn connections_a_holder(&self) -> u64 {
        self.descriptors.saturating_sub(SPARE_DESCRIPTORS).max(1)
    }

    /// Shards with tables of their own that hold `count` connections between them.
    fn shards_for(&self, count: u64) -> u64 {
        let wanted = (count as f64 * UNEVENNESS) as u64;
        (1..MOST_SHARDS)
            .find(|shards| shards * self.connections_a_table(*shards) >= wanted)
            .unwrap_or(MOST_SHARDS)
    }

    /// The limits of a relay with that many shards, tables of their own or not.
    fn limits(&self, shards: u64, own_tables: bool) -> Vec<Limit> {
        let table = self.connections_a_table(shards);
        let descriptors = if own_tables { (table as f64 * shards as f64 / UNEVENNESS) as u64 } else { table };
        let advice = if own_tables {
            format!(
                "{shards} shards have no more descriptors. To change that: more --shards, or a higher LimitNOFILE"
            )
        } else {
            "the relay has no more descriptors. To change that: --set shards.own_descriptors=true with more --shards, or a \
             higher LimitNOFILE (ulimit -n), up to fs.nr_open"
                .to_owned()
        };
        let mut limits = vec![
            Limit { most: descriptors, advice },
            Limit {
                most: (self.memory as f64 * MEMORY_SHARE) as u64 / BYTES_A_CONNECTION,
                advice: format!(
                    "there is memory for no more, at {} KiB for both ends of each. To change that: more memory, or the \
                     generator on another machine",
                    BYTES_A_CONNECTION / 1024
                ),
            },
            Limit {
                most: self.files.saturating_sub(SPARE_FILES) / 2,
                advice: "the system opens no more files. To change that: sysctl fs.file-max".into(),
            },
            Limit {
                most: u64::from(SOURCES) * u64::from(PER_ADDRESS),
                advice: "there are no more source addresses and ports".into(),
            },
        ];
        limits.extend(self.tracked.map(|most| Limit {
            most,
            advice: "the firewall tracks no more. To change that: sysctl net.netfilter.nf_conntrack_max, or do not track \
                     loopback"
                .into(),
        }));
        limits
    }
}

/// What is going to be held, decided before anything is started.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Connections to hold.
    pub(crate) count: u64,
    /// What would limit more of them.
    pub(crate) limit: Limit,
    /// How the relay is to be set up.
    pub(crate) relay: RelayOptions,
}

impl Plan {
    /// For `wanted` connections, or as many as there can be. Unless the options say otherwise, a relay whose one table is too
    /// small gets shards with tables of their own, as many as it takes.
    pub(crate) fn new(machine: &Machine, wanted: Option<u64>, options: &RelayOptions) -> Self {
        let mut relay = options.clone();
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
        let set = |key: &str| {
            options.settings.iter().find_map(|setting| setting.strip_prefix(key)?.strip_prefix('='))
        };
        let own_tables = set("shards.own_descriptors");
        let shards = if options.shards == 0 { processors } else { options.shards as u64 };
        let others = machine.limits(shards, true).into_iter().skip(1).map(|limit| limit.most).min();
        let goal = wanted.unwrap_or(u64::MAX).min(others.unwrap_or(u64::MAX));
        let one_table_does = goal <= machine.connections_a_table(shards);
        let automatic = options.shards == 0 && own_tables.is_none() && !one_table_does;
        let shards = if automatic { machine.shards_for(goal).max(processors) } else { shards };
        if automatic {
            relay.shards = shards as usize;
            // More shards than processors: none is bound to one, and their logs are small.
            let settings =
                ["shards.own_descriptors=true", "shards.pin=false", "storage.segment_bytes='4 MiB'"];
            relay.settings.splice(0..0, settings.map(str::to_owned));
        }
        let limits = machine.limits(shards, automatic || own_tables == Some("true"));
        let limit = limits.into_iter().min_by_key(|limit| limit.most).expect("there are some limits");
        let count = wanted.unwrap_or(u64::MAX).min(limit.most.saturating_sub(2 * u64::from(PAIRS)));
        Self { count, limit, relay }
    }

    /// What will be reached, and what limits more.
    pub(crate) fn advice(&self) -> String {
        format!("{} connections can be reached: {}", thousands(self.limit.most as f64), self.limit.advice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Machine = Machine { descriptors: 20_000, memory: 24 << 30, files: 2_000_000, tracked: None };

    fn options(shards: usize, settings: &[&str]) -> RelayOptions {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        RelayOptions { shards, dir: "/tmp".into(), settings }
    }

    #[test]
    fn a_table_that_is_large_enough_is_shared() {
        let plan = Plan::new(&SMALL, Some(10_000), &options(0, &[]));
        assert_eq!((plan.count, plan.relay.shards), (10_000, 0));
        assert!(plan.relay.settings.is_empty());
    }

    #[test]
    fn a_million_gets_as_many_shards_with_tables_as_it_takes() {
        let plan = Plan::new(&SMALL, Some(1_000_000), &options(0, &[]));
        assert!(plan.relay.settings.contains(&"shards.own_descriptors=true".to_owned()));
        let fullest = plan.count as f64 / plan.relay.shards as f64 * UNEVENNESS;
        assert!(fullest < 20_000.0 - 200.0, "{} shards", plan.relay.shards);
        assert_eq!(plan.count, SMALL.files.saturating_sub(SPARE_FILES) / 2 - 8);
        assert!(plan.advice().contains("fs.file-max"), "{}", plan.advice());
    }

    #[test]
    fn who_chooses_the_shards_gets_them_and_is_told_what_they_can_hold() {
        let plan = Plan::new(&SMALL, None, &options(2, &[]));
        assert!(plan.count < 20_000 && plan.advice().contains("own_descriptors"), "{}", plan.advice());
        let plan = Plan::new(&SMALL, None, &options(4, &["shards.own_descriptors=true"]));
        assert!((70_000..80_000).contains(&plan.count), "{}", plan.count);
        assert!(plan.advice().contains("4 shards"), "{}", plan.advice());
    }

    #[test]
    fn memory_and_the_firewall_limit_too() {
        let plan = Plan::new(&Machine { memory: 1 << 30, ..SMALL }, None, &options(0, &[]));
        assert!(plan.count < 60_000 && plan.advice().contains("memory"), "{}", plan.advice());
        let plan = Plan::new(&Machine { tracked: Some(5_000), ..SMALL }, None, &options(0, &[]));
        assert!(plan.count < 5_000 && plan.advice().contains("nf_conntrack_max"), "{}", plan.advice());
    }

    #[test]
    fn this_machine_allows_some() {
        assert!(Plan::new(&Machine::this(), None, &options(0, &[])).count > 0);
    }
}

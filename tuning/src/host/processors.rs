//! Processors: how many, their governor, NUMA.

use super::finding::{Change, Finding, Verdict};
use super::{Needs, Root};

/// The folders of the processors that are there.
fn folders(root: &Root) -> Vec<String> {
    let is_one = |name: &String| {
        name.strip_prefix("cpu")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let names = root.names("/sys/devices/system/cpu").into_iter().filter(is_one);
    names.map(|name| format!("/sys/devices/system/cpu/{name}")).collect()
}

/// How many there are; 1 if the machine does not say.
pub(super) fn count(root: &Root) -> u64 {
    folders(root).len().max(1) as u64
}

pub(super) fn enough(root: &Root, needs: &Needs) -> Finding {
    let why = "a shard that shares its processor with another waits for it";
    let found = count(root);
    let words = ("processors", found.to_string(), format!("{} or more", needs.shards));
    Finding::unless(found >= needs.shards, Verdict::Advice, words, why, || {
        vec![Change::ByHand(format!("set shards.count to {found} before there is mail"))]
    })
}

pub(super) fn governor(root: &Root) -> Finding {
    let why = "a processor that slows down when idle answers the first messages of a burst late";
    let paths = folders(root).into_iter().map(|folder| format!("{folder}/cpufreq/scaling_governor"));
    let slow: Vec<(String, String)> = paths.filter_map(|path| Some((root.text(&path)?, path))).collect();
    if slow.is_empty() {
        return Finding::unknown("processor governor", "performance", why);
    }
    let others: Vec<_> = slow.iter().filter(|(governor, _)| governor != "performance").collect();
    let found = others.first().map_or("performance", |(governor, _)| governor);
    let words = ("processor governor", found, "performance");
    Finding::unless(others.is_empty(), Verdict::Advice, words, why, || {
        others.iter().map(|(_, path)| Change::Write(path.clone(), "performance".into())).collect()
    })
}

pub(super) fn numa(root: &Root) -> Option<Finding> {
    let why =
        "shards stay on their processors and their memory with them; the kernel's moving of pages only costs";
    let nodes = root.names("/sys/devices/system/node");
    let nodes =
        nodes.iter().filter(|name| name.strip_prefix("node").is_some_and(|n| n.parse::<u32>().is_ok()));
    let nodes = nodes.count();
    let balancing = root.number("/proc/sys/kernel/numa_balancing").unwrap_or(0);
    let found = format!("{nodes} nodes, automatic balancing {}", if balancing == 0 { "off" } else { "on" });
    (nodes > 1).then(|| {
        let words = ("NUMA", found, "automatic balancing off");
        Finding::unless(balancing == 0, Verdict::Advice, words, why, || {
            vec![Change::Sysctl("kernel.numa_balancing", "0".into())]
        })
    })
}

/// On which node each card is, where there are several.
pub(super) fn nodes_of_cards(root: &Root) -> Vec<Finding> {
    let why = "packets that cross between nodes cost twice; put the shards where the card is (CPUAffinity=, shards.cores)";
    let cards = root.names("/sys/class/net").into_iter();
    let placed = cards.filter_map(|card| {
        let node = root.text(format!("/sys/class/net/{card}/device/numa_node"))?;
        let node: u64 = node.parse().ok()?;
        let cpus = root.text(format!("/sys/devices/system/node/node{node}/cpulist"))?;
        Some((card, node, cpus))
    });
    let several = root.has("/sys/devices/system/node/node1");
    let finding = |(card, node, cpus): (String, u64, String)| {
        let words = (format!("{card}: NUMA node"), format!("node {node}"), format!("shards on {cpus}"));
        Finding::unless(false, Verdict::Advice, words, why, || {
            vec![Change::ByHand(format!(
                "set CPUAffinity={cpus} in the unit, unless the shards are there already"
            ))]
        })
    };
    if several { placed.map(finding).collect() } else { Vec::new() }
}

//! The network: queues of connections, ports, memory of TCP, connection tracking, queues and interrupts of cards.

use super::finding::{Change, Finding, Verdict};
use super::{Needs, Root};
use std::collections::BTreeSet;

/// A page of memory, on every machine that the relay is built for.
const PAGE: u64 = 4096;

/// A setting that has to be at least so much.
fn at_least(root: &Root, key: &'static str, wanted: u64, verdict: Verdict, why: &'static str) -> Finding {
    let path = format!("/proc/sys/{}", key.replace('.', "/"));
    let Some(found) = root.number(path) else {
        return Finding::unknown(key, format!("{wanted} or more"), why);
    };
    let words = (key, found.to_string(), format!("{wanted} or more"));
    Finding::unless(found >= wanted, verdict, words, why, || vec![Change::Sysctl(key, wanted.to_string())])
}

pub(super) fn queues(root: &Root, needs: &Needs) -> Vec<Finding> {
    let crowd = needs.backlog.max(4096);
    vec![
        at_least(
            root,
            "net.core.somaxconn",
            needs.backlog,
            Verdict::Wrong,
            "the kernel cuts listen.backlog and the socket unit's Backlog= to it; who finds the queue full waits for seconds",
        ),
        at_least(
            root,
            "net.ipv4.tcp_max_syn_backlog",
            crowd,
            Verdict::Advice,
            "after a restart all clients knock within seconds; beyond it SYN cookies take over",
        ),
        at_least(
            root,
            "net.core.netdev_max_backlog",
            4096,
            Verdict::Advice,
            "packets that wait for a processor; the default of 1000 drops in a burst",
        ),
    ]
}

pub(super) fn ports(root: &Root, needs: &Needs) -> Vec<Finding> {
    let ports: BTreeSet<u64> = needs.listen.iter().map(|address| u64::from(address.port())).collect();
    ports.iter().flat_map(|port| [privileged(root, *port), reserved(root, *port)]).collect()
}

fn privileged(root: &Root, port: u64) -> Finding {
    let why = "the unit gives the relay no capability; systemd binds such a port, and the relay inherits it";
    let first = root.number("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or(1024);
    let words = (
        format!("port {port}"),
        format!("free for everybody from {first}"),
        "a port that needs no privilege",
    );
    Finding::unless(port >= first, Verdict::Advice, words, why, || {
        vec![Change::Command("systemctl enable --now furrow-relayd.socket".into())]
    })
}

fn reserved(root: &Root, port: u64) -> Finding {
    let why =
        "the kernel gives such a port to any outgoing connection, and then the relay cannot listen there";
    let range = root.numbers("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let set_aside = root.text("/proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let inside = matches!(range.as_slice(), [first, last] if (first..=last).contains(&&port));
    let found = match range.as_slice() {
        [first, last] => format!("outgoing connections take {first} to {last}"),
        _ => "no range".into(),
    };
    let words = (format!("port {port} for outgoing connections"), found, "outside, or set aside");
    Finding::unless(!inside || holds(&set_aside, port), Verdict::Wrong, words, why, || {
        let all = if set_aside.is_empty() { port.to_string() } else { format!("{set_aside},{port}") };
        vec![Change::Sysctl("net.ipv4.ip_local_reserved_ports", all)]
    })
}

/// Whether a list such as `80,2000-2100` holds `number`.
fn holds(list: &str, number: u64) -> bool {
    list.split(',').filter(|part| !part.is_empty()).any(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bound = |text: &str| text.trim().parse::<u64>().ok();
        matches!((bound(first), bound(last)), (Some(first), Some(last)) if (first..=last).contains(&number))
    })
}

pub(super) fn tcp_memory(root: &Root, needs: &Needs) -> Finding {
    let why = "beyond the second number TCP shrinks all windows, beyond the third it drops; a tenth of the connections \
               with 16 KiB on the way should fit";
    let pages = needs.connections / 10 * (16 << 10) / PAGE;
    let wanted = format!("a third number of {pages} pages or more");
    let Some(found) = root.numbers("/proc/sys/net/ipv4/tcp_mem").filter(|numbers| numbers.len() == 3) else {
        return Finding::unknown("net.ipv4.tcp_mem", wanted, why);
    };
    let words = ("net.ipv4.tcp_mem", format!("{} {} {}", found[0], found[1], found[2]), wanted);
    Finding::unless(found[2] >= pages, Verdict::Advice, words, why, || {
        let value = format!("{} {} {}", pages / 2, pages * 3 / 4, pages);
        vec![Change::Sysctl("net.ipv4.tcp_mem", value)]
    })
}

pub(super) fn connection_tracking(root: &Root, needs: &Needs) -> Finding {
    let why = "a firewall that tracks connections takes an entry for each; with the table full, new ones vanish in silence";
    let key = "net.netfilter.nf_conntrack_max";
    let wanted = needs.connections + needs.connections / 4;
    if !root.has("/proc/sys/net/netfilter/nf_conntrack_max") {
        let words = (key, "connections are not tracked", "not tracked, or room for all");
        return Finding::unless(true, Verdict::Right, words, why, Vec::new);
    }
    at_least(root, key, wanted, Verdict::Wrong, why)
}

pub(super) fn cards(root: &Root, needs: &Needs) -> Vec<Finding> {
    // What has no device behind it (lo, bridges, tunnels) has no queues of its own.
    let cards = root.names("/sys/class/net").into_iter();
    let cards = cards.filter(|card| root.has(format!("/sys/class/net/{card}/device")));
    cards.flat_map(|card| [receive_queues(root, &card, needs), interrupts(root, &card)]).flatten().collect()
}

fn receive_queues(root: &Root, card: &str, needs: &Needs) -> Option<Finding> {
    let why = "one queue is one processor's work: with fewer queues than shards some processors handle packets for all";
    let folder = format!("/sys/class/net/{card}/queues");
    let queues = root.names(&folder).into_iter().filter(|name| name.starts_with("rx-")).count() as u64;
    let wanted = needs.shards.min(8);
    let words = (format!("{card}: receive queues"), queues.to_string(), format!("{wanted} or more"));
    let spread = || {
        let mask = root.text(format!("{folder}/rx-0/rps_cpus")).unwrap_or_default();
        mask.chars().any(|digit| !matches!(digit, '0' | ','))
    };
    (queues > 0).then(|| {
        Finding::unless(queues >= wanted || spread(), Verdict::Advice, words, why, || {
            let mask = (1u64 << needs.shards.min(63)) - 1;
            let spread = format!("{folder}/rx-0/rps_cpus");
            vec![
                Change::Command(format!("ethtool -L {card} combined {wanted} || true")),
                Change::Write(spread, format!("{mask:x}")),
            ]
        })
    })
}

fn interrupts(root: &Root, card: &str) -> Option<Finding> {
    let why = "all interrupts of a card on one processor make that one the bottleneck, and its shard slow";
    let own = |line: &&str| {
        let name = line.split_whitespace().last().unwrap_or_default();
        name == card || name.starts_with(&format!("{card}-"))
    };
    let table = root.text("/proc/interrupts")?;
    let numbers =
        table.lines().filter(own).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    let numbers: Vec<String> = numbers.collect();
    let targets: BTreeSet<String> = numbers
        .iter()
        .filter_map(|number| root.text(format!("/proc/irq/{number}/smp_affinity_list")))
        .collect();
    let only = targets.first()?;
    let piled = numbers.len() > 1 && targets.len() == 1 && only.parse::<u64>().is_ok();
    let found =
        format!("{} interrupts on processors {}", numbers.len(), Vec::from_iter(targets.clone()).join(" "));
    let words = (format!("{card}: interrupts"), found, "spread over processors");
    Some(Finding::unless(!piled, Verdict::Advice, words, why, || {
        vec![Change::Command("apt-get install -y irqbalance && systemctl enable --now irqbalance".into())]
    }))
}

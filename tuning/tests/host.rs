//! `relayctl host check` on made-up machines.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::process::Command;
use tempfile::TempDir;
use tuning::Config;
use tuning::host::{Finding, Root, Verdict, examine, json, plan, text};

/// A machine of files.
struct Machine(TempDir);

impl Machine {
    /// One that is as a relay with [`config`] wants it.
    fn good() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.1.0-18-amd64"),
            ("proc/sys/kernel/io_uring_disabled", "0"),
            ("proc/sys/kernel/numa_balancing", "0"),
            ("proc/sys/fs/nr_open", "2097152"),
            ("proc/sys/fs/file-max", "9223372036854775807"),
            ("proc/sys/net/core/somaxconn", "65535"),
            ("proc/sys/net/core/netdev_max_backlog", "16384"),
            ("proc/sys/net/ipv4/tcp_max_syn_backlog", "65535"),
            ("proc/sys/net/ipv4/tcp_mem", "380000\t500000\t760000"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999"),
            ("proc/sys/net/ipv4/ip_local_reserved_ports", ""),
            ("proc/meminfo", "MemTotal:       65000000 kB\nMemFree: 1 kB"),
            (
                "proc/interrupts",
                "   CPU0 CPU1\n 30:  1 2  PCI-MSI 1-edge  eth0-rx-0\n 31:  1 2  PCI-MSI 2-edge  eth0-rx-1",
            ),
            ("proc/irq/30/smp_affinity_list", "0"),
            ("proc/irq/31/smp_affinity_list", "1"),
            (
                "proc/self/mountinfo",
                "1 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n2 1 8:2 / /var/lib rw - xfs /dev/sda2 rw",
            ),
            ("proc/700/comm", "relayd"),
            (
                "proc/700/limits",
                "Limit  Soft Limit  Hard Limit  Units\nMax open files            2097152  2097152  files\nMax locked memory         unlimited   unlimited   bytes",
            ),
            ("sys/class/net/lo/queues/rx-0/rps_cpus", "0"),
            ("sys/class/net/eth0/device/numa_node", "0"),
            ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0"),
            ("sys/class/net/eth0/queues/rx-1/rps_cpus", "0"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance"),
            ("sys/devices/system/node/node0/cpulist", "0-1"),
            ("sys/dev/block/8:2/queue/write_cache", "write through"),
            ("sys/dev/block/8:2/queue/scheduler", "[none] mq-deadline"),
            ("sys/dev/block/8:2/queue/rotational", "0"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
            ("run/systemd/timesync/synchronized", ""),
        ] {
            machine.has(path, text);
        }
        machine
    }

    fn has(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("{text}\n")).unwrap();
        self
    }

    fn lacks(&self, path: &str) -> &Self {
        std::fs::remove_file(self.0.path().join(path)).unwrap();
        self
    }

    fn findings(&self) -> Vec<Finding> {
        examine(&Root::new(self.0.path()), &config())
    }

    /// What is not right.
    fn complaints(&self) -> Vec<Finding> {
        self.findings().into_iter().filter(|finding| finding.verdict != Verdict::Right).collect()
    }
}

fn config() -> Config {
    let mut config = Config::new("grooveDNS://h");
    config.relay.data_dir = "/var/lib/furrow/data".into();
    config
}

#[test]
fn a_machine_that_is_as_it_should_be_is_right_in_everything() {
    let findings = Machine::good().findings();
    let complaints: Vec<_> = findings.iter().filter(|finding| finding.verdict != Verdict::Right).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert!(findings.len() >= 22, "{}", findings.len());
    assert!(plan(&findings).lines().all(|line| line.starts_with('#') || line == "set -eu"));
}

#[test]
fn each_fault_is_found_alone_with_its_change() {
    let always = "[always] madvise never";
    let one_irq = "30: 1 PCI-MSI 1-edge eth0-rx-0\n31: 1 PCI-MSI 2-edge eth0-rx-1";
    for (path, content, topic, verdict, change) in [
        (
            "proc/sys/kernel/osrelease",
            "5.10.0-28-amd64",
            "kernel version",
            Verdict::Wrong,
            "linux-image-amd64",
        ),
        (
            "proc/sys/kernel/io_uring_disabled",
            "2",
            "io_uring",
            Verdict::Wrong,
            "sysctl -w kernel.io_uring_disabled='0'",
        ),
        ("proc/sys/kernel/io_uring_disabled", "1", "io_uring", Verdict::Advice, "kernel.io_uring_disabled"),
        ("proc/sys/fs/nr_open", "1048576", "fs.nr_open", Verdict::Wrong, "sysctl -w fs.nr_open='1201152'"),
        ("proc/sys/fs/file-max", "1000", "fs.file-max", Verdict::Wrong, "sysctl -w fs.file-max="),
        (
            "proc/700/limits",
            "Max open files  1024 4096 files\nMax locked memory unlimited unlimited bytes",
            "LimitNOFILE of the running relay",
            Verdict::Wrong,
            "LimitNOFILE=1201152",
        ),
        (
            "proc/700/limits",
            "Max open files  2097152 2097152 files\nMax locked memory 8192 8192 bytes",
            "LimitMEMLOCK of the running relay",
            Verdict::Wrong,
            "LimitMEMLOCK=33554432",
        ),
        ("proc/meminfo", "MemTotal: 1000000 kB", "memory", Verdict::Advice, "preset = \"small\""),
        (
            "proc/sys/net/core/somaxconn",
            "128",
            "net.core.somaxconn",
            Verdict::Wrong,
            "sysctl -w net.core.somaxconn='4096'",
        ),
        (
            "proc/sys/net/ipv4/tcp_max_syn_backlog",
            "128",
            "net.ipv4.tcp_max_syn_backlog",
            Verdict::Advice,
            "tcp_max_syn_backlog='4096'",
        ),
        (
            "proc/sys/net/core/netdev_max_backlog",
            "1000",
            "net.core.netdev_max_backlog",
            Verdict::Advice,
            "netdev_max_backlog='4096'",
        ),
        (
            "proc/sys/net/ipv4/ip_local_port_range",
            "1024 65535",
            "port 2492 for outgoing connections",
            Verdict::Wrong,
            "ip_local_reserved_ports='2492'",
        ),
        (
            "proc/sys/net/ipv4/ip_unprivileged_port_start",
            "3000",
            "port 2492",
            Verdict::Advice,
            "furrow-relayd.socket",
        ),
        (
            "proc/sys/net/ipv4/tcp_mem",
            "100 200 300",
            "net.ipv4.tcp_mem",
            Verdict::Advice,
            "net.ipv4.tcp_mem='240000 360000 480000'",
        ),
        (
            "proc/sys/net/netfilter/nf_conntrack_max",
            "65536",
            "net.netfilter.nf_conntrack_max",
            Verdict::Wrong,
            "nf_conntrack_max='1500000'",
        ),
        ("proc/interrupts", one_irq, "eth0: interrupts", Verdict::Right, ""),
        ("proc/irq/31/smp_affinity_list", "0", "eth0: interrupts", Verdict::Advice, "irqbalance"),
        (
            "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
            "powersave",
            "processor governor",
            Verdict::Advice,
            "echo performance > /sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        ),
        (
            "proc/self/mountinfo",
            "1 1 0:9 / / rw - tmpfs tmpfs rw",
            "file system of the mail",
            Verdict::Wrong,
            "mkfs.xfs",
        ),
        (
            "proc/self/mountinfo",
            "1 1 8:2 / / rw - ext4 /dev/sda2 rw,nobarrier",
            "write barriers",
            Verdict::Wrong,
            "mount -o remount,barrier /",
        ),
        (
            "sys/dev/block/8:2/queue/write_cache",
            "write back",
            "write cache of the disk",
            Verdict::Advice,
            "power-loss",
        ),
        (
            "sys/dev/block/8:2/queue/scheduler",
            "none mq-deadline [bfq]",
            "disk scheduler",
            Verdict::Advice,
            "echo none > /sys/dev/block/8:2/queue/scheduler",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            always,
            "transparent huge pages",
            Verdict::Advice,
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
    ] {
        let machine = Machine::good();
        machine.has(path, content);
        let complaints = machine.complaints();
        if verdict == Verdict::Right {
            assert!(complaints.is_empty(), "{path}: {complaints:#?}");
            continue;
        }
        assert_eq!(complaints.len(), 1, "{path} = {content}: {complaints:#?}");
        let found = &complaints[0];
        assert_eq!((found.topic.as_str(), found.verdict), (topic, verdict), "{found:#?}");
        assert!(text(&complaints).contains(change), "{change}: {}", text(&complaints));
        assert!(!found.why.is_empty() && !found.wanted.is_empty());
    }
}

#[test]
fn a_port_that_is_set_aside_may_lie_in_the_range() {
    let machine = Machine::good();
    machine.has("proc/sys/net/ipv4/ip_local_port_range", "1024 65535");
    machine.has("proc/sys/net/ipv4/ip_local_reserved_ports", "80,2000-3000");
    assert!(machine.complaints().is_empty());
    machine.has("proc/sys/net/ipv4/ip_local_reserved_ports", "80");
    assert!(plan(&machine.findings()).contains("net.ipv4.ip_local_reserved_ports = 80,2492\n"));
}

#[test]
fn a_clock_that_nobody_sets_is_noticed_and_any_daemon_will_do() {
    let machine = Machine::good();
    machine.lacks("run/systemd/timesync/synchronized");
    assert_eq!(machine.complaints()[0].topic, "time synchronisation");
    machine.has("run/chrony/chronyd.pid", "1");
    assert!(machine.complaints().is_empty());
}

#[test]
fn several_numa_nodes_want_no_balancing_and_shards_near_the_card() {
    let machine = Machine::good();
    machine.has("sys/devices/system/node/node1/cpulist", "2-3").has("proc/sys/kernel/numa_balancing", "1");
    let complaints = machine.complaints();
    let topics: Vec<_> = complaints.iter().map(|finding| finding.topic.as_str()).collect();
    assert_eq!(topics, ["NUMA", "eth0: NUMA node"]);
    assert!(text(&complaints).contains("CPUAffinity=0-1"));
}

#[test]
fn an_empty_machine_is_unknown_and_nothing_panics() {
    let folder = tempfile::tempdir().unwrap();
    let findings = examine(&Root::new(folder.path()), &config());
    let unknown = findings.iter().filter(|finding| finding.verdict == Verdict::Unknown).count();
    assert!(unknown >= 8, "{findings:#?}");
    assert!(
        findings
            .iter()
            .filter(|finding| finding.verdict == Verdict::Unknown)
            .all(|one| one.changes.is_empty())
    );
}

#[test]
fn the_plan_is_a_shell_script_that_keeps_its_changes() {
    let machine = Machine::good();
    machine
        .has("proc/sys/fs/nr_open", "1024")
        .has("sys/kernel/mm/transparent_hugepage/enabled", "[always] never");
    let script = plan(&machine.findings());
    assert!(script.contains("cat > /etc/sysctl.d/91-furrow-host.conf <<'END'\n"), "{script}");
    assert!(script.contains("\nfs.nr_open = 1201152\n"));
    assert!(script.contains("\nw /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise\n"));
    let file = machine.0.path().join("plan.sh");
    std::fs::write(&file, script).unwrap();
    assert!(Command::new("sh").arg("-n").arg(file).status().unwrap().success());
}

fn relayctl(arguments: &[&str], root: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_relayctl"));
    let output = command.args(["host", "check", "--root"]).arg(root).args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_exit_code_says_whether_something_is_wrong() {
    let machine = Machine::good();
    machine.has("proc/self/mountinfo", "1 1 8:2 / / rw - xfs /dev/sda2 rw");
    assert_eq!(relayctl(&[], machine.0.path()).0, Some(0));
    machine.has("sys/kernel/mm/transparent_hugepage/enabled", "[always] never");
    assert_eq!(relayctl(&[], machine.0.path()).0, Some(0), "advice is no failure");
    machine.has("proc/sys/kernel/io_uring_disabled", "2");
    let (code, said) = relayctl(&[], machine.0.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("wrong    io_uring: forbidden\n"), "{said}");
    let (code, said) = relayctl(&["--json"], machine.0.path());
    assert_eq!(code, Some(1));
    assert!(said.trim_start().starts_with('[') && said.contains("\"verdict\": \"wrong\""), "{said}");
    assert_eq!(said, json(&examine(&Root::new(machine.0.path()), &Config::new("grooveDNS://localhost"))));
    assert_eq!(relayctl(&["--config", "/nowhere"], machine.0.path()).0, Some(2));
}

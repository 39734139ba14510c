//! The kernel: its version, io_uring, descriptors, locked memory, memory, huge pages, time.

use super::finding::{Change, Finding, Verdict};
use super::{Needs, Root};
use crate::units::ByteSize;

/// Long-term kernel whose io_uring the relay is tested with or above.
const LEAST_KERNEL: (u64, u64) = (5, 15);

pub(super) fn version(root: &Root) -> Finding {
    let why =
        "io_uring in older kernels lacks calls that the relay uses, and fixes for accept and direct I/O";
    let wanted = format!("{}.{} or later", LEAST_KERNEL.0, LEAST_KERNEL.1);
    let Some(found) = root.text("/proc/sys/kernel/osrelease") else {
        return Finding::unknown("kernel version", wanted, why);
    };
    let mut parts = found.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or(0));
    let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    Finding::unless(version >= LEAST_KERNEL, Verdict::Wrong, ("kernel version", found, wanted), why, || {
        vec![Change::ByHand(
            "install a newer kernel (Debian: apt install linux-image-amd64, then reboot)".into(),
        )]
    })
}

pub(super) fn io_uring(root: &Root) -> Finding {
    let why = "the relay does all its I/O through io_uring";
    // Kernels before 6.6 have no such switch, and allow it.
    let disabled = root.number("/proc/sys/kernel/io_uring_disabled").unwrap_or(0);
    let found = match disabled {
        0 => "allowed",
        1 => "allowed for kernel.io_uring_group",
        _ => "forbidden",
    };
    let verdict = if disabled == 1 { Verdict::Advice } else { Verdict::Wrong };
    let what = ("io_uring", found, "allowed, or 1 with the group furrow");
    Finding::unless(disabled == 0, verdict, what, why, || {
        vec![Change::Sysctl("kernel.io_uring_disabled", "0".into())]
    })
}

pub(super) fn descriptors(root: &Root, needs: &Needs) -> Vec<Finding> {
    let why = "every connection is a descriptor; a limit that is too low refuses clients";
    let wanted = needs.descriptors();
    let check = |topic: &'static str, path: &str, verdict: Verdict| {
        let Some(found) = root.number(path) else {
            return Finding::unknown(topic, format!("{wanted} or more"), why);
        };
        let words = (topic, found.to_string(), format!("{wanted} or more"));
        Finding::unless(found >= wanted, verdict, words, why, || {
            vec![Change::Sysctl(topic, wanted.to_string())]
        })
    };
    let mut findings = vec![
        check("fs.nr_open", "/proc/sys/fs/nr_open", Verdict::Wrong),
        check("fs.file-max", "/proc/sys/fs/file-max", Verdict::Wrong),
    ];
    findings.extend(limit(root, "Max open files", wanted, 1, "LimitNOFILE", why));
    findings
}

pub(super) fn locked_memory(root: &Root, needs: &Needs) -> Option<Finding> {
    let why = "rings and registered buffers of io_uring count as locked memory";
    limit(root, "Max locked memory", needs.locked(), 1, "LimitMEMLOCK", why)
}

/// A limit of the running relay; nothing if none runs, since the unit decides then.
fn limit(
    root: &Root,
    name: &str,
    wanted: u64,
    unit: u64,
    directive: &str,
    why: &'static str,
) -> Option<Finding> {
    let relay = root.names("/proc").into_iter().find(|pid| {
        pid.bytes().all(|byte| byte.is_ascii_digit())
            && root.text(format!("/proc/{pid}/comm")).as_deref() == Some("relayd")
    })?;
    let limits = root.text(format!("/proc/{relay}/limits"))?;
    let soft = limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next())?;
    let found = soft.parse::<u64>().map_or(u64::MAX, |limit| limit.saturating_mul(unit));
    let words = (format!("{directive} of the running relay"), soft.to_owned(), format!("{wanted} or more"));
    Some(Finding::unless(found >= wanted, Verdict::Wrong, words, why, || {
        let directory = "/etc/systemd/system/furrow-relayd.service.d";
        vec![Change::Command(format!(
            "mkdir -p {directory} && printf '[Service]\\n{directive}={wanted}\\n' > {directory}/{directive}.conf \
             && systemctl daemon-reload"
        ))]
    }))
}

pub(super) fn memory(root: &Root, needs: &Needs) -> Finding {
    let why = "the limits bound the relay's memory; if all are reached at once and there is less, the kernel ends it";
    let wanted = needs.memory();
    let kibibytes = root
        .field("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
    let words = |bytes: u64| format!("{} MiB", bytes >> 20);
    let Some(found) = kibibytes.map(|kibibytes| kibibytes << 10) else {
        return Finding::unknown("memory", words(wanted), why);
    };
    let text = ("memory", words(found), format!("{} or more", words(wanted)));
    Finding::unless(found >= wanted, Verdict::Advice, text, why, || {
        let shard = ByteSize::new(64 << 20);
        vec![Change::ByHand(format!(
            "lower limits.connections_per_shard, limits.shard_in_flight_bytes and limits.shard_output_bytes (for \
             example to {shard}), or choose preset = \"small\""
        ))]
    })
}

pub(super) fn huge_pages(root: &Root) -> Finding {
    let why = "with always, memory of many small connections is rounded up to 2 MiB pages and stays so";
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let wanted = "madvise or never";
    let Some(choices) = root.text(path) else {
        return Finding::unknown("transparent huge pages", wanted, why);
    };
    let found = chosen(&choices);
    let words = ("transparent huge pages", found.clone(), wanted);
    Finding::unless(found != "always", Verdict::Advice, words, why, || {
        vec![Change::Write(path.into(), "madvise".into())]
    })
}

/// The word in brackets: `always [madvise] never`.
pub(super) fn chosen(choices: &str) -> String {
    let chosen = choices.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    chosen.map_or(choices, |(word, _)| word).to_owned()
}

pub(super) fn time(root: &Root) -> Finding {
    let why = "lifetimes of mail, certificates and the times in the log need a clock that is right";
    let signs = [
        ("/run/systemd/timesync/synchronized", "systemd-timesyncd has synchronised"),
        ("/run/chrony/chronyd.pid", "chronyd runs"),
        ("/run/chronyd.pid", "chronyd runs"),
        ("/run/ntpd.pid", "ntpd runs"),
    ];
    let sign = signs.iter().find(|(path, _)| root.has(path));
    let found = sign.map_or("no sign of it", |(_, words)| words);
    Finding::unless(sign.is_some(), Verdict::Advice, ("time synchronisation", found, "running"), why, || {
        vec![Change::Command("apt-get install -y systemd-timesyncd && timedatectl set-ntp true".into())]
    })
}

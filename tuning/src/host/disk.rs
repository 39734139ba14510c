//! The disk under the mail: file system, write cache, scheduler.

use super::finding::{Change, Finding, Verdict};
use super::{Needs, Root};
use std::path::Path;

/// What a line of mountinfo (proc(5)) says.
struct Mount {
    point: String,
    device: String,
    options: String,
    kind: String,
}

fn mounts(root: &Root) -> Vec<Mount> {
    let text = root.text("/proc/self/mountinfo").unwrap_or_default();
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let mut right = right.split(' ');
        let kind = right.next()?.to_owned();
        let super_options = right.nth(1).unwrap_or_default();
        Some(Mount {
            point: left.get(4)?.replace("\\040", " "),
            device: left.get(2)?.to_string(),
            options: format!("{},{super_options}", left.get(5)?),
            kind,
        })
    };
    text.lines().filter_map(line).collect()
}

pub(super) fn disk(root: &Root, needs: &Needs) -> Vec<Finding> {
    let under = mounts(root).into_iter().filter(|mount| needs.data.starts_with(&mount.point));
    // The longest one, and of those the last, which lies above the others.
    let Some(mount) = under.max_by_key(|mount| Path::new(&mount.point).components().count()) else {
        return vec![Finding::unknown("file system of the mail", "ext4 or XFS", FILE_SYSTEM)];
    };
    let mut findings = vec![file_system(&mount), barriers(&mount)];
    if let Some(queue) = queue(root, &mount.device) {
        findings.extend([write_cache(root, &queue), scheduler(root, &queue)].into_iter().flatten());
    }
    findings
}

const FILE_SYSTEM: &str =
    "the log is written with direct I/O into files of fixed size, and each batch waits until it is durable";

fn file_system(mount: &Mount) -> Finding {
    let works = ["ext4", "xfs"].contains(&mount.kind.as_str());
    let none = ["tmpfs", "ramfs", "nfs", "nfs4", "overlay", "9p"].contains(&mount.kind.as_str());
    let verdict = if none { Verdict::Wrong } else { Verdict::Advice };
    let found = format!("{} at {}", mount.kind, mount.point);
    Finding::unless(works, verdict, ("file system of the mail", found, "ext4 or XFS"), FILE_SYSTEM, || {
        vec![Change::ByHand(
            "give relay.data_dir a file system of its own: mkfs.xfs, and a line in /etc/fstab".into(),
        )]
    })
}

fn barriers(mount: &Mount) -> Finding {
    let why = "without barriers a flush does not reach the disk: what the relay acknowledged may be lost with the power";
    let off = mount.options.split(',').find(|option| ["nobarrier", "barrier=0"].contains(option));
    let words = ("write barriers", off.unwrap_or("on"), "on");
    Finding::unless(off.is_none(), Verdict::Wrong, words, why, || {
        vec![Change::Command(format!("mount -o remount,barrier {}", mount.point))]
    })
}

/// The queue of the whole disk that a device or a partition is on.
fn queue(root: &Root, device: &str) -> Option<String> {
    let own = format!("/sys/dev/block/{device}");
    let places = [format!("{own}/queue"), format!("{own}/../queue")];
    places.into_iter().find(|place| root.has(place))
}

fn write_cache(root: &Root, queue: &str) -> Option<Finding> {
    let why = "with a volatile cache each batch waits for the disk to empty it: half a millisecond on good drives, 10 on \
               others. The relay always flushes, so nothing is lost either way";
    let found = root.text(format!("{queue}/write_cache"))?;
    let words = ("write cache of the disk", found.clone(), "write through");
    Some(Finding::unless(found == "write through", Verdict::Advice, words, why, || {
        vec![Change::ByHand(
            "a drive with power-loss protection reports \"write through\" and answers a flush at once".into(),
        )]
    }))
}

fn scheduler(root: &Root, queue: &str) -> Option<Finding> {
    let why = "the log writes one large batch at a time; a scheduler in between only adds to it, but for spinning disks";
    let path = format!("{queue}/scheduler");
    let found = super::kernel::chosen(&root.text(&path)?);
    let spins = root.number(format!("{queue}/rotational")) == Some(1);
    let right = if spins { "mq-deadline" } else { "none" };
    let fine = found == right || (!spins && found == "mq-deadline");
    Some(Finding::unless(fine, Verdict::Advice, ("disk scheduler", found, right), why, || {
        vec![Change::Write(path, right.into())]
    }))
}

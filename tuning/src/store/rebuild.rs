//! Rebuilding logs: everything that can be read is written anew beside the old log, and then both change places at once.

use super::report::{LogReport, json};
use super::{Answer, StoreFailure, bar, logs};
use relay_core::store::Family;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::File;
use std::path::{Path, PathBuf};
use storage::{LogOptions, OfflineLog, transfer};

/// `store rebuild`.
pub(super) fn rebuild(data: &Path, as_json: bool) -> Result<Answer, StoreFailure> {
    let mut reports = Vec::new();
    let mut text = String::new();
    for folder in logs(data)? {
        let (report, kept) = rebuild_log(&folder, as_json)?;
        text.push_str(&report.text());
        text.push_str(&format!("  rebuilt; what it was is in {}\n", kept.display()));
        reports.push(report);
    }
    Ok(Answer { text: if as_json { json(&reports) } else { text }, well: true })
}

fn rebuild_log(folder: &Path, as_json: bool) -> Result<(LogReport, PathBuf), StoreFailure> {
    let beside = |ending: &str| folder.with_extension(ending);
    let new = beside("rebuilt");
    if new.exists() {
        // What an interrupted run has left.
        std::fs::remove_dir_all(&new).map_err(StoreFailure::file(&new))?;
    }
    let old = OfflineLog::open(folder)?;
    let (shard, shards) = old.shard();
    let options = LogOptions { directory: new.clone(), segment_bytes: old.segment_bytes(), shard, shards };
    let bar = bar("rebuild", old.bytes(), as_json);
    let done = transfer(&old, options, &[Family::Identity, Family::Device], |bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    // At no moment is there no log: a relay would begin an empty one.
    renameat_with(CWD, new.as_path(), CWD, folder, RenameFlags::EXCHANGE)
        .map_err(|error| StoreFailure::file(folder)(error.into()))?;
    let kept = (0u32..).map(|count| beside(&format!("before-rebuild-{count}"))).find(|path| !path.exists());
    let kept = kept.expect("some number is free");
    std::fs::rename(&new, &kept).map_err(StoreFailure::file(&new))?;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(StoreFailure::file(parent))?;
    let mut report = LogReport::new(folder, done.messages, done.payload_bytes, &done.report);
    report.manifest = old.manifest_fault().map(ToString::to_string);
    Ok((report, kept))
}

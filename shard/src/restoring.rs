//! What the log of operation says of a start: how much mail came back, how long that took, and exactly what did not.

use crate::events;
use relay_core::relay::ShardId;
use std::time::Duration;
use storage::Replay;

/// Lost messages and damaged stretches that are told one by one; the rest is counted.
const TOLD: usize = 200;

/// Tells what replay found, in `elapsed`.
pub(crate) fn report(shard: ShardId, replay: &Replay, elapsed: Duration) {
    let (shard, report) = (shard.0, &replay.report);
    let gib = report.read_bytes as f64 / (1u64 << 30) as f64;
    let seconds_per_gib = if gib > 0.0 { elapsed.as_secs_f64() / gib } else { 0.0 };
    tracing::info!(
        event = events::MAIL_RESTORED,
        shard,
        messages = replay.messages.len(),
        segments = report.segments,
        unfinished = report.unfinished,
        torn_tail_bytes = report.torn_tail_bytes,
        seconds = elapsed.as_secs_f64(),
        gib,
        seconds_per_gib,
        "mail restored"
    );
    if report.is_whole() {
        return;
    }
    for segment in &report.missing {
        tracing::error!(
            event = events::SEGMENT_MISSING,
            shard,
            segment,
            "a segment file is gone, and all mail in it: restore it from a backup"
        );
    }
    for damage in report.damaged.iter().take(TOLD) {
        tracing::error!(
            event = events::STRETCH_DAMAGED,
            shard,
            family = ?damage.family,
            segment = damage.segment,
            offset = damage.offset,
            bytes = damage.bytes,
            records = damage.records,
            "a stretch of the log cannot be read"
        );
    }
    for lost in report.lost.iter().take(TOLD) {
        let mailboxes: Vec<String> = lost.recipients.iter().map(|address| format!("{address:?}")).collect();
        tracing::error!(event = events::MESSAGE_LOST, shard, message = lost.id.0, family = ?lost.family, ?mailboxes, "a stored message is lost");
    }
    tracing::error!(
        event = events::LOG_DAMAGED,
        shard,
        missing_segments = report.missing.len(),
        damaged_stretches = report.damaged.len(),
        damaged_records = report.damaged_records(),
        known_lost_messages = report.lost.len(),
        "the log is damaged"
    );
}

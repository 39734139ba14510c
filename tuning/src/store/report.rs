//! What was found in a log, as text and as JSON.

use serde::Serialize;
use std::fmt::Write as _;
use std::path::Path;
use storage::ReplayReport;

/// Lost messages that are told one by one in text; JSON has all.
const TOLD: usize = 50;

/// One log.
#[derive(Debug, Serialize)]
pub(super) struct LogReport {
    pub(super) log: String,
    pub(super) whole: bool,
    pub(super) messages: u64,
    pub(super) payload_bytes: u64,
    pub(super) segments: u64,
    pub(super) records: u64,
    pub(super) read_bytes: u64,
    pub(super) torn_tail_bytes: u64,
    pub(super) unfinished: u64,
    pub(super) damaged_records: u64,
    pub(super) damaged: Vec<DamageReport>,
    pub(super) missing_segments: Vec<u32>,
    pub(super) lost: Vec<LostReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<String>,
}

/// A stretch that cannot be read.
#[derive(Debug, Serialize)]
pub(super) struct DamageReport {
    segment: u32,
    family: String,
    offset: u64,
    bytes: u64,
    records: u32,
}

/// A message that is known to be lost.
#[derive(Debug, Serialize)]
pub(super) struct LostReport {
    id: u64,
    family: String,
    recipients: Vec<String>,
}

impl LogReport {
    pub(super) fn new(log: &Path, messages: u64, payload_bytes: u64, report: &ReplayReport) -> Self {
        let damage = |damage: &storage::Damage| DamageReport {
            segment: damage.segment,
            family: format!("{:?}", damage.family).to_lowercase(),
            offset: damage.offset,
            bytes: damage.bytes,
            records: damage.records,
        };
        let lost = |lost: &storage::LostMessage| LostReport {
            id: lost.id.0,
            family: format!("{:?}", lost.family).to_lowercase(),
            recipients: lost.recipients.iter().map(address).collect(),
        };
        Self {
            log: log.display().to_string(),
            whole: report.is_whole(),
            messages,
            payload_bytes,
            segments: report.segments,
            records: report.records,
            read_bytes: report.read_bytes,
            torn_tail_bytes: report.torn_tail_bytes,
            unfinished: report.unfinished,
            damaged_records: report.damaged_records(),
            damaged: report.damaged.iter().map(damage).collect(),
            missing_segments: report.missing.clone(),
            lost: report.lost.iter().map(lost).collect(),
            manifest: None,
        }
    }

    /// Messages that are known to be lost.
    pub(super) fn lost_messages(&self) -> u64 {
        self.lost.len() as u64
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = writeln!(
            text,
            "{}: {} messages with {} bytes, {} records in {} segments",
            self.log, self.messages, self.payload_bytes, self.records, self.segments
        );
        if let Some(fault) = &self.manifest {
            let _ = writeln!(text, "  manifest: {fault}");
        }
        if self.torn_tail_bytes > 0 {
            let bytes = self.torn_tail_bytes;
            let _ = writeln!(
                text,
                "  {bytes} bytes of an append that was never confirmed: nothing is lost by them"
            );
        }
        for number in &self.missing_segments {
            let _ = writeln!(text, "  segment {number} is gone, and all that was in it");
        }
        for DamageReport { segment, family, offset, bytes, records } in &self.damaged {
            let _ = writeln!(
                text,
                "  {family} segment {segment}: {bytes} bytes at {offset} cannot be read, {records} records"
            );
        }
        for lost in self.lost.iter().take(TOLD) {
            let recipients =
                if lost.recipients.is_empty() { "unknown".into() } else { lost.recipients.join(", ") };
            let _ = writeln!(text, "  lost: {} message {} for {recipients}", lost.family, lost.id);
        }
        let others = self.lost.len().saturating_sub(TOLD);
        if others > 0 {
            let _ = writeln!(text, "  and {others} more messages; --json lists all");
        }
        let verdict =
            if self.whole { "whole" } else { "DAMAGED: `relayctl store rebuild` keeps what can be read" };
        let _ = writeln!(text, "  {verdict}");
        text
    }
}

/// A mailbox in one line.
pub(super) fn address(address: &relay_core::address::MailboxAddress) -> String {
    let device = address.device.as_ref().map_or_else(String::new, |device| format!(" device {device}"));
    format!("{} of {}{device} ({})", address.identity, address.account, address.resource)
}

/// One JSON object in a line.
pub(super) fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("reports are numbers and text");
    text.push('\n');
    text
}

//! Verifying and listing logs. Changes nothing.

use super::report::{LogReport, address, json};
use super::{Answer, StoreFailure, bar, logs};
use serde::Serialize;
use std::io::Write;
use std::path::Path;
use storage::{OfflineLog, RecordKind, RecordView};

/// All logs.
#[derive(Debug, Serialize)]
struct Verified {
    whole: bool,
    messages: u64,
    seconds: f64,
    seconds_per_gib: f64,
    logs: Vec<LogReport>,
}

/// `store verify`.
pub(super) fn verify(data: &Path, as_json: bool) -> Result<Answer, StoreFailure> {
    let logs = open_all(data)?;
    let bytes: u64 = logs.iter().map(OfflineLog::bytes).sum();
    let bar = bar("verify", bytes, as_json);
    let begun = std::time::Instant::now();
    let mut reports = Vec::new();
    for log in &logs {
        let replay = log.replay(|bytes| bar.inc(bytes))?;
        let payload_bytes = replay.messages.iter().map(|message| message.payload_bytes).sum();
        let messages = replay.messages.len() as u64;
        let mut report = LogReport::new(log.directory(), messages, payload_bytes, &replay.report);
        report.manifest = log.manifest_fault().map(ToString::to_string);
        report.whole &= report.manifest.is_none();
        reports.push(report);
    }
    bar.finish_and_clear();
    let seconds = begun.elapsed().as_secs_f64();
    let gib = bytes as f64 / (1u64 << 30) as f64;
    let verified = Verified {
        whole: reports.iter().all(|report| report.whole),
        messages: reports.iter().map(|report| report.messages).sum(),
        seconds,
        seconds_per_gib: if gib > 0.0 { seconds / gib } else { 0.0 },
        logs: reports,
    };
    let text = if as_json {
        json(&verified)
    } else {
        let logs: String = verified.logs.iter().map(LogReport::text).collect();
        format!("{logs}{:.1} s, {:.2} s per GiB\n", verified.seconds, verified.seconds_per_gib)
    };
    Ok(Answer { text, well: verified.whole })
}

/// A record, for programs.
#[derive(Debug, Serialize)]
struct Line<'a> {
    log: &'a str,
    segment: u32,
    family: String,
    offset: u32,
    bytes: u32,
    payload_bytes: u32,
    message: u64,
    record: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient: Option<u32>,
}

impl<'a> Line<'a> {
    fn new(log: &'a str, record: RecordView) -> Self {
        let mut line = Self {
            log,
            segment: record.segment,
            family: format!("{:?}", record.family).to_lowercase(),
            offset: record.offset,
            bytes: record.length,
            payload_bytes: record.payload_bytes,
            message: record.id.0,
            record: "part",
            part: None,
            last: None,
            expires_at: None,
            recipients: Vec::new(),
            recipient: None,
        };
        match record.what {
            RecordKind::FirstPart { last, expires_at, recipients } => {
                (line.part, line.last, line.expires_at) = (Some(0), Some(last), Some(expires_at));
                line.recipients = recipients.iter().map(address).collect();
            }
            RecordKind::LaterPart { index, last } => (line.part, line.last) = (Some(index), Some(last)),
            RecordKind::DeleteRecipient(recipient) => {
                (line.record, line.recipient) = ("recipient done", Some(recipient));
            }
            RecordKind::Delete => line.record = "deleted",
        }
        line
    }

    fn text(&self) -> String {
        let place = format!("{} {} {:>10} {:>8}", self.family, self.segment, self.offset, self.bytes);
        let what = match (self.part, self.recipient) {
            (Some(part), _) => {
                let last = if self.last == Some(true) { ", the last" } else { "" };
                let whom = if self.recipients.is_empty() {
                    String::new()
                } else {
                    format!(" for {}", self.recipients.join(", "))
                };
                format!("part {part}{last}, {} bytes{whom}", self.payload_bytes)
            }
            (None, Some(recipient)) => format!("recipient {recipient} is done"),
            (None, None) => self.record.to_owned(),
        };
        format!("{place}  message {}: {what}\n", self.message)
    }
}

/// `store dump`.
pub(super) fn dump(data: &Path, as_json: bool, out: &mut impl Write) -> Result<Answer, StoreFailure> {
    let mut written = Ok(());
    for log in open_all(data)? {
        let name = log.directory().display().to_string();
        if !as_json {
            written = written.and_then(|()| writeln!(out, "{name}: family, segment, offset, bytes"));
        }
        let show = |record| {
            let line = Line::new(&name, record);
            let text = if as_json { json(&line) } else { line.text() };
            if written.is_ok() {
                written = out.write_all(text.as_bytes());
            }
        };
        log.records(show, |_| {})?;
    }
    match written {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(StoreFailure::file(Path::new("standard output"))(error))
        }
        _ => Ok(Answer { text: String::new(), well: true }),
    }
}

fn open_all(data: &Path) -> Result<Vec<OfflineLog>, StoreFailure> {
    Ok(logs(data)?.iter().map(|folder| OfflineLog::open(folder)).collect::<Result<_, _>>()?)
}

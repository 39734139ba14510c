//! Makes messages again of the records of all segments, and the accounts of what every segment is needed for.
//! Reads everything once, in the order of segment numbers; never writes.

use crate::disk::ReadBlocks;
use crate::error::StorageError;
use crate::ledger::Ledger;
use crate::record::{Header, Seed, SegmentSet};
use crate::scan::{Found, Gap, SegmentScan, scan_segment};
use crate::segment::{BLOCK, SegmentFile, SegmentHeader};
use hashbrown::{HashMap, HashSet};
use relay_core::store::{Family, MessageHead, Position, RecordId, Restored};
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// What the log held when it was opened.
#[derive(Debug)]
pub struct Replay {
    /// The messages that somebody still waits for, by ascending id.
    pub messages: Vec<Restored>,
    /// The highest id that the log ever saw, of deleted messages too; ids go on above it. 0 for a new log.
    pub highest_id: RecordId,
    /// What replay read, and what it could not.
    pub report: ReplayReport,
}

/// What replay read, and what it could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Segments in use.
    pub segments: u64,
    /// Whole records.
    pub records: u64,
    /// Bytes of whole records.
    pub bytes: u64,
    /// Bytes of records that an unfinished append left; they were never confirmed, so nothing is lost.
    pub torn_tail_bytes: u64,
    /// Stretches that were written and confirmed but cannot be read: messages in them are lost.
    pub damaged: Vec<Damage>,
}

/// A stretch of a segment that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub segment: u32,
    /// Its family.
    pub family: Family,
    /// The first byte of the stretch; 0 if it is the header block (whose loss costs no message).
    pub offset: u64,
    /// Bytes up to the next readable record.
    pub bytes: u64,
}

/// A segment to read.
#[derive(Debug)]
pub(crate) struct Source<F> {
    /// Its number.
    pub(crate) number: u32,
    /// Its family.
    pub(crate) family: Family,
    /// The file.
    pub(crate) file: SegmentFile<F>,
    /// Its header, unless it is damaged.
    pub(crate) header: Option<SegmentHeader>,
}

/// What replay hands to the log.
#[derive(Debug)]
pub(crate) struct Replayed {
    /// For the log's user.
    pub(crate) replay: Replay,
    /// The accounts.
    pub(crate) ledger: Ledger,
    /// How each segment ends.
    pub(crate) tails: HashMap<u32, Tail>,
    /// The highest number of any batch.
    pub(crate) last_batch: u64,
}

/// How a segment ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// The first byte behind its last whole record, or the first torn one.
    pub(crate) end: u32,
    /// Whether nothing is broken there, so that appending can go on.
    pub(crate) clean: bool,
}

/// Reads all segments, which come in ascending order of their numbers.
pub(crate) async fn replay<F: ReadBlocks>(
    sources: &[Source<F>],
    salt: u64,
) -> Result<Replayed, StorageError> {
    let mut collector = Collector::default();
    let mut ledger = Ledger::default();
    let mut report = ReplayReport::default();
    let mut scans = Vec::new();
    for source in sources {
        let number = source.number;
        let highest = source.header.map_or(RecordId(0), |header| header.highest_id);
        collector.highest_id = collector.highest_id.max(highest);
        ledger.begin(number, source.family, highest, BLOCK as u32);
        let seed = Seed::new(salt, number);
        let take = |found| collector.take(found, number, source.family, &mut ledger);
        let scan = scan_segment(&source.file, seed, take).await?;
        ledger.set_end(number, scan.end.next_multiple_of(BLOCK) as u32);
        report.segments += 1;
        report.records += scan.records;
        report.bytes += scan.bytes;
        scans.push(scan);
    }
    judge_gaps(sources, &scans, &mut report);
    let tail = |(source, scan): (&Source<F>, &SegmentScan)| {
        let torn = scan.gaps.iter().find(|gap| gap.batch >= scan.last_batch);
        let clean = source.header.is_some() && torn.is_none();
        // Whole records behind the first torn stretch are of the same batch: nobody was told that they are stored.
        let end = torn.map_or(scan.end, |gap| gap.start);
        (source.number, Tail { end: end as u32, clean })
    };
    Ok(Replayed {
        tails: sources.iter().zip(&scans).map(tail).collect(),
        last_batch: scans.iter().map(|scan| scan.last_batch).max().unwrap_or(0),
        replay: Replay { highest_id: collector.highest_id, messages: collector.finish(&mut ledger), report },
        ledger,
    })
}

/// Tells what an unfinished append left from what was confirmed and is damaged.
fn judge_gaps<F>(sources: &[Source<F>], scans: &[SegmentScan], report: &mut ReplayReport) {
    let mut certified: HashMap<u32, u64> = HashMap::new();
    for header in sources.iter().filter_map(|source| source.header) {
        certified.insert(header.predecessor, u64::from(header.predecessor_end));
    }
    for (source, scan) in sources.iter().zip(scans) {
        let (segment, family) = (source.number, source.family);
        if source.header.is_none() {
            report.damaged.push(Damage { segment, family, offset: 0, bytes: BLOCK });
        }
        for gap in &scan.gaps {
            if is_torn(gap, scan.last_batch, certified.get(&segment).copied()) {
                report.torn_tail_bytes += gap.end - gap.start;
            } else {
                let (offset, bytes) = (gap.start, gap.end - gap.start);
                report.damaged.push(Damage { segment, family, offset, bytes });
            }
        }
    }
}

/// Whether a gap lies in the last batch of its segment and behind everything that the next segment of the family says
/// was confirmed.
fn is_torn(gap: &Gap, last_batch: u64, confirmed_end: Option<u64>) -> bool {
    gap.batch == last_batch && confirmed_end.is_none_or(|end| gap.start >= end)
}

/// One part of a message.
#[derive(Clone, Copy, Debug)]
struct PartFound {
    position: Position,
    last: bool,
    payload_bytes: u32,
}

/// What is known of one message.
#[derive(Debug)]
struct Assembly {
    family: Family,
    head: Option<MessageHead>,
    parts: BTreeMap<u32, PartFound>,
}

/// A deletion that is still to be put on the account of the segment that holds it.
#[derive(Debug)]
struct Deletion {
    holder: u32,
    targets: SegmentSet,
}

/// Gathers the records of all segments.
#[derive(Debug)]
struct Collector {
    messages: HashMap<RecordId, Assembly>,
    deleted: HashSet<RecordId>,
    gone_recipients: HashMap<RecordId, HashSet<u32>>,
    deletions: Vec<Deletion>,
    highest_id: RecordId,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            messages: HashMap::new(),
            deleted: HashSet::new(),
            gone_recipients: HashMap::new(),
            deletions: Vec::new(),
            highest_id: RecordId(0),
        }
    }
}

impl Collector {
    fn take(&mut self, found: Found, segment: u32, family: Family, ledger: &mut Ledger) {
        let id = found.header.id();
        self.highest_id = self.highest_id.max(id);
        ledger.saw_id(segment, id);
        let position = Position { segment, offset: found.offset, length: found.length };
        let part = |last| PartFound { position, last, payload_bytes: found.payload_bytes };
        match found.header {
            Header::FirstPart { last, head, .. } => {
                self.add_part(id, family, 0, part(last), ledger).head = Some(head);
            }
            Header::LaterPart { index, last, .. } => {
                self.add_part(id, family, index, part(last), ledger);
            }
            Header::DeleteRecipient { segments, recipient, .. } => {
                self.gone_recipients.entry(id).or_default().insert(recipient);
                self.deletions.push(Deletion { holder: segment, targets: segments });
            }
            Header::Delete { segments, .. } => {
                self.deleted.insert(id);
                self.deletions.push(Deletion { holder: segment, targets: segments });
            }
        }
    }

    /// A part that is found twice was appended again after an error: the later copy is the confirmed one.
    fn add_part(
        &mut self,
        id: RecordId,
        family: Family,
        index: u32,
        part: PartFound,
        ledger: &mut Ledger,
    ) -> &mut Assembly {
        let fresh = || Assembly { family, head: None, parts: BTreeMap::new() };
        let assembly = self.messages.entry(id).or_insert_with(fresh);
        if let Some(former) = assembly.parts.insert(index, part) {
            ledger.add_ghost(id, former.position.segment);
        }
        assembly
    }

    /// Puts the live parts and the deletions on the accounts and answers the messages, ascending.
    fn finish(mut self, ledger: &mut Ledger) -> Vec<Restored> {
        for id in &self.deleted {
            self.messages.remove(id);
            ledger.forget_message(*id);
        }
        for deletion in &self.deletions {
            ledger.add_deletion(deletion.holder, &deletion.targets);
        }
        let mut restored = Vec::with_capacity(self.messages.len());
        for (id, assembly) in self.messages {
            let gone = self.gone_recipients.remove(&id).unwrap_or_default();
            if let Some(message) = assembly.restore(id, &gone) {
                gone.iter().for_each(|recipient| ledger.add_done_recipient(id, *recipient));
                restored.push(message);
            }
        }
        restored.sort_unstable_by_key(|message: &Restored| message.id);
        for message in &restored {
            message.parts.iter().for_each(|(part, _)| ledger.add_part(*part));
        }
        restored
    }
}

impl Assembly {
    /// The message, if all its parts are there and somebody waits for it.
    fn restore(self, id: RecordId, gone: &HashSet<u32>) -> Option<Restored> {
        let head = self.head?;
        let mut parts = SmallVec::new();
        let mut payload_bytes = 0;
        let mut complete = false;
        for (expected, (index, part)) in self.parts.into_iter().enumerate() {
            if index as usize != expected || complete {
                return None;
            }
            parts.push((part.position, part.payload_bytes));
            payload_bytes += u64::from(part.payload_bytes);
            complete = part.last;
        }
        let recipients = 0..head.recipients.len() as u32;
        let pending: Vec<u32> = recipients.filter(|recipient| !gone.contains(recipient)).collect();
        (complete && !pending.is_empty()).then_some(Restored {
            id,
            family: self.family,
            head,
            pending,
            parts,
            payload_bytes,
        })
    }
}

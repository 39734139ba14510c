//! Makes messages again of the records of all segments, and the accounts of what every segment is needed for.
//! Reads everything once, in the order of segment numbers; never writes.

use crate::disk::ReadBlocks;
use crate::error::StorageError;
use crate::ledger::{Extent, Ledger};
use crate::record::{Header, Seed};
use crate::scan::{Found, Gap, SegmentScan, scan_segment};
use crate::segment::{BLOCK, SegmentFile, SegmentHeader};
use hashbrown::{HashMap, HashSet};
use relay_core::address::MailboxAddress;
use relay_core::store::{Family, MessageHead, Position, RecordId, Restored};
use smallvec::SmallVec;
use std::sync::Arc;

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
    /// Bytes of the files that were read.
    pub read_bytes: u64,
    /// Whole records.
    pub records: u64,
    /// Bytes of whole records.
    pub bytes: u64,
    /// Bytes of records that an unfinished append left; they were never confirmed, so nothing is lost.
    pub torn_tail_bytes: u64,
    /// Stretches that were written and confirmed but cannot be read.
    pub damaged: Vec<Damage>,
    /// Segments, by number, that were in use when the newest one was begun and whose files are gone; all that was in them is lost.
    pub missing: Vec<u32>,
    /// Messages that are lost and known by what can still be read of them, by ascending id.
    pub lost: Vec<LostMessage>,
    /// Messages of which the end never came, as it happens when a sender or the relay stops in the middle: nobody was told that
    /// they are stored.
    pub unfinished: u64,
}

impl ReplayReport {
    /// Whether all that was ever confirmed could be read.
    pub fn is_whole(&self) -> bool {
        self.damaged.is_empty() && self.missing.is_empty() && self.lost.is_empty()
    }

    /// Records in damaged stretches: no more messages than that are lost there.
    pub fn damaged_records(&self) -> u64 {
        self.damaged.iter().map(|damage| u64::from(damage.records)).sum()
    }
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
    /// How many records were there.
    pub records: u32,
}

/// A message that was stored and cannot be delivered, since a part of it cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostMessage {
    /// The message.
    pub id: RecordId,
    /// Its family.
    pub family: Family,
    /// Who still waited for it; empty if its part 0 is what cannot be read.
    pub recipients: Vec<MailboxAddress>,
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
    /// How far it is filled with confirmed records.
    pub(crate) extent: Extent,
    /// Whether nothing is broken there, so that appending can go on.
    pub(crate) clean: bool,
}

/// Reads all segments, which come in ascending order of their numbers. `missing` are those that should be there too.
/// `progress` gets the bytes of each one that is done.
pub(crate) async fn replay<F: ReadBlocks>(
    sources: &[Source<F>],
    salt: u64,
    missing: &[u32],
    mut progress: impl FnMut(u64),
) -> Result<Replayed, StorageError> {
    let mut collector = Collector::default();
    let mut ledger = Ledger::default();
    let mut report = ReplayReport { missing: missing.to_vec(), ..ReplayReport::default() };
    let mut confirmed: HashMap<u32, Extent> = HashMap::new();
    for source in sources {
        let header = source.header;
        let highest = header.map_or(RecordId(0), |header| header.highest_id);
        collector.highest_id = collector.highest_id.max(highest);
        ledger.begin(source.number, source.family, highest, BLOCK as u32);
        confirmed.extend(header.map(|header| (header.predecessor, header.predecessor_extent)));
    }
    let mut tails = HashMap::new();
    let mut last_batch = 0;
    for source in sources {
        let number = source.number;
        let certified = confirmed.get(&number).copied();
        let take = |found| collector.take(found, number, source.family, &mut ledger);
        let seed = Seed::new(salt, number);
        let mut scan = scan_segment(&source.file, seed, certified.unwrap_or_default(), take).await?;
        ledger.fill(number, scan.end.next_multiple_of(BLOCK) as u32, scan.next_ordinal);
        let clean = source.header.is_some() && scan.first_torn().is_none();
        tails.insert(number, Tail { extent: scan.extent(), clean });
        last_batch = last_batch.max(scan.last_batch);
        report.segments += 1;
        report.read_bytes += source.file.size();
        report.records += scan.records;
        report.bytes += scan.bytes;
        let headers = judge_gaps(source, &mut scan, certified, &mut report);
        headers.into_iter().for_each(|header| collector.spoilt(header, source.family));
        progress(source.file.size());
    }
    let messages = collector.finish(&mut ledger, &mut report);
    Ok(Replayed {
        tails,
        last_batch,
        replay: Replay { highest_id: collector.highest_id, messages, report },
        ledger,
    })
}

/// Tells what an unfinished append left from what was confirmed and is damaged. Answers the headers that can still be
/// read of damaged records.
fn judge_gaps<F>(
    source: &Source<F>,
    scan: &mut SegmentScan,
    confirmed: Option<Extent>,
    report: &mut ReplayReport,
) -> Vec<Header> {
    let (segment, family) = (source.number, source.family);
    if source.header.is_none() {
        report.damaged.push(Damage { segment, family, offset: 0, bytes: BLOCK, records: 0 });
    }
    let mut headers = Vec::new();
    for gap in &mut scan.gaps {
        if is_torn(gap, scan.last_batch, confirmed) {
            report.torn_tail_bytes += gap.end - gap.start;
        } else {
            let (offset, bytes, records) = (gap.start, gap.end - gap.start, gap.records());
            report.damaged.push(Damage { segment, family, offset, bytes, records });
            headers.append(&mut gap.headers);
        }
    }
    headers
}

/// Whether a gap lies in the last batch of its segment and behind everything that the next segment of the family says
/// was confirmed.
fn is_torn(gap: &Gap, last_batch: u64, confirmed: Option<Extent>) -> bool {
    gap.batch == last_batch && confirmed.is_none_or(|extent| gap.start >= u64::from(extent.end))
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
    /// By ascending index; most messages have one.
    parts: SmallVec<[(u32, PartFound); 1]>,
    /// A part of it is there but cannot be read.
    spoilt: bool,
}

/// Gathers the records of all segments. Holds the messages that live, and a number for each that was deleted.
#[derive(Debug)]
struct Collector {
    messages: HashMap<RecordId, Assembly>,
    deleted: HashSet<RecordId>,
    gone_recipients: HashMap<RecordId, HashSet<u32>>,
    /// Lists of recipients, each once: all messages of a session have the same.
    recipients: HashSet<Arc<[MailboxAddress]>>,
    highest_id: RecordId,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            messages: HashMap::new(),
            deleted: HashSet::new(),
            gone_recipients: HashMap::new(),
            recipients: HashSet::new(),
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
                self.add_part(id, family, (0, part(last)), Some(head), ledger)
            }
            Header::LaterPart { index, last, .. } => {
                self.add_part(id, family, (index, part(last)), None, ledger);
            }
            Header::DeleteRecipient { segments, recipient, .. } => {
                ledger.add_deletion(segment, &segments);
                if !self.deleted.contains(&id) {
                    self.gone_recipients.entry(id).or_default().insert(recipient);
                }
            }
            Header::Delete { segments, .. } => {
                ledger.add_deletion(segment, &segments);
                self.deleted.insert(id);
                self.messages.remove(&id);
                self.gone_recipients.remove(&id);
                ledger.forget_message(id);
            }
        }
    }

    /// A part that is found twice was appended again after an error: the later copy is the confirmed one.
    fn add_part(
        &mut self,
        id: RecordId,
        family: Family,
        (index, part): (u32, PartFound),
        head: Option<MessageHead>,
        ledger: &mut Ledger,
    ) {
        let Some(assembly) = self.assembly(id, family) else { return };
        match assembly.parts.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) => {
                let former = std::mem::replace(&mut assembly.parts[at].1, part);
                ledger.add_ghost(id, former.position.segment);
            }
            Err(at) => assembly.parts.insert(at, (index, part)),
        }
        if let Some(head) = head {
            self.set_head(id, head);
        }
    }

    /// A record whose payload cannot be read.
    fn spoilt(&mut self, header: Header, family: Family) {
        let id = header.id();
        self.highest_id = self.highest_id.max(id);
        let Some(assembly) = self.assembly(id, family) else { return };
        assembly.spoilt = true;
        if let Header::FirstPart { head, .. } = header {
            self.set_head(id, head);
        }
    }

    /// What is known of a message that was not deleted.
    fn assembly(&mut self, id: RecordId, family: Family) -> Option<&mut Assembly> {
        if self.deleted.contains(&id) {
            return None;
        }
        let fresh = || Assembly { family, head: None, parts: SmallVec::new(), spoilt: false };
        Some(self.messages.entry(id).or_insert_with(fresh))
    }

    fn set_head(&mut self, id: RecordId, head: MessageHead) {
        let recipients = self.recipients.get_or_insert_with(&head.recipients, Arc::clone).clone();
        if let Some(assembly) = self.messages.get_mut(&id) {
            assembly.head = Some(MessageHead { recipients, ..head });
        }
    }

    /// Puts the live parts on the accounts, reports what is lost, and answers the messages, ascending.
    fn finish(&mut self, ledger: &mut Ledger, report: &mut ReplayReport) -> Vec<Restored> {
        let mut restored = Vec::with_capacity(self.messages.len());
        for (id, assembly) in std::mem::take(&mut self.messages) {
            let gone = self.gone_recipients.remove(&id).unwrap_or_default();
            if !assembly.is_whole() {
                assembly.explain(id, &gone, report);
            } else if let Some(message) = assembly.restore(id, &gone) {
                gone.iter().for_each(|recipient| ledger.add_done_recipient(id, *recipient));
                restored.push(message);
            }
        }
        restored.sort_unstable_by_key(|message: &Restored| message.id);
        report.lost.sort_unstable_by_key(|lost| lost.id);
        for message in &restored {
            message.parts.iter().for_each(|(part, _)| ledger.add_part(*part));
        }
        restored
    }
}

impl Assembly {
    /// Whether part 0 and all up to the last one are there.
    fn is_whole(&self) -> bool {
        self.head.is_some() && self.has_no_hole() && self.parts.last().is_some_and(|(_, part)| part.last)
    }

    fn has_no_hole(&self) -> bool {
        let before_last = self.parts.iter().rev().skip(1);
        self.parts.iter().zip(0..).all(|((index, _), expected)| *index == expected)
            && before_last.into_iter().all(|(_, part)| !part.last)
    }

    /// Tells why a message is not whole: a part cannot be read, or its end never came.
    fn explain(self, id: RecordId, gone: &HashSet<u32>, report: &mut ReplayReport) {
        let something_is_lost = !report.damaged.is_empty() || !report.missing.is_empty();
        let hole = self.head.is_none() || !self.has_no_hole();
        let lost = self.spoilt || hole && something_is_lost;
        if !lost {
            report.unfinished += 1;
            return;
        }
        let waiting = self.head.map(|head| {
            let all = head.recipients.iter().zip(0..);
            all.filter(|(_, place)| !gone.contains(place))
                .map(|(address, _)| address.clone())
                .collect::<Vec<_>>()
        });
        if waiting.as_ref().is_none_or(|waiting| !waiting.is_empty()) {
            report.lost.push(LostMessage {
                id,
                family: self.family,
                recipients: waiting.unwrap_or_default(),
            });
        }
    }

    /// The message, if somebody waits for it.
    fn restore(self, id: RecordId, gone: &HashSet<u32>) -> Option<Restored> {
        let head = self.head?;
        let recipients = 0..head.recipients.len() as u32;
        let pending: Vec<u32> = recipients.filter(|recipient| !gone.contains(recipient)).collect();
        let payload_bytes = self.parts.iter().map(|(_, part)| u64::from(part.payload_bytes)).sum();
        let parts = self.parts.iter().map(|(_, part)| (part.position, part.payload_bytes)).collect();
        let family = self.family;
        (!pending.is_empty()).then_some(Restored { id, family, head, pending, parts, payload_bytes })
    }
}

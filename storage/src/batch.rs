//! Lays a batch out on segments: which records go into which piece, where each piece lies, and the bytes of a
//! piece. Pure: chooses places and fills buffers, but never opens, writes or syncs a file.

use crate::error::StorageError;
use crate::ledger::Ledger;
use crate::record::{self, EncodedHeader, ORDINALS, PREFIX_BYTES, RECORD_ALIGNMENT, Seed, SegmentSet, Stamp};
use crate::segment::BLOCK;
use bytes::Bytes;
use relay_core::store::{Family, LogEntry, PART_BYTES};
use rkyv::util::AlignedVec;

/// The most bytes that one write carries, but for a single larger record. Tests have batches of several writes without being large.
const PIECE_BYTES: u64 = if cfg!(test) { 2 * BLOCK } else { 1024 * 1024 };

/// The family that an entry goes to.
pub(crate) fn family_of(entry: &LogEntry) -> Family {
    match entry {
        LogEntry::Part { family, .. }
        | LogEntry::DeleteRecipient { family, .. }
        | LogEntry::Delete { family, .. } => *family,
    }
}

/// An entry on its way to disk.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// Its place in the batch.
    pub(crate) entry: usize,
    /// Its header in the headers of the batch.
    pub(crate) header: EncodedHeader,
    /// For a deletion, the segments whose records it makes void.
    pub(crate) targets: SegmentSet,
    /// Bytes of the record without padding.
    pub(crate) length: u32,
}

impl Encoded {
    fn padded(&self) -> u64 {
        u64::from(self.length).next_multiple_of(RECORD_ALIGNMENT as u64)
    }
}

/// Checks every entry and encodes its header into `headers`. Answers one list per family, in order.
pub(crate) fn encode(
    batch: &[LogEntry],
    ledger: &Ledger,
    room: u64,
    headers: &mut AlignedVec,
) -> Result<[Vec<Encoded>; 2], StorageError> {
    headers.clear();
    let mut families = [Vec::new(), Vec::new()];
    for (index, entry) in batch.iter().enumerate() {
        check(entry).map_err(|reason| StorageError::InvalidEntry { index, reason })?;
        let targets = match entry {
            LogEntry::Part { .. } => SegmentSet::new(),
            LogEntry::DeleteRecipient { id, first, .. } => ledger.targets(*id, &[*first]),
            LogEntry::Delete { id, parts, .. } => ledger.targets(*id, parts),
        };
        let header = record::encode_header(entry, &targets, headers);
        let payload: usize = payload_of(entry).iter().map(Bytes::len).sum();
        let bytes = (PREFIX_BYTES + header.range.len() + payload) as u64;
        if bytes.next_multiple_of(RECORD_ALIGNMENT as u64) > room {
            return Err(StorageError::EntryTooLarge { index, bytes, limit: room });
        }
        let encoded = Encoded { entry: index, header, targets, length: bytes as u32 };
        families[family_of(entry) as usize].push(encoded);
    }
    Ok(families)
}

fn check(entry: &LogEntry) -> Result<(), &'static str> {
    match entry {
        LogEntry::Part { index, head, payload, .. } => {
            if (*index == 0) != head.is_some() {
                return Err("the head belongs to part 0, and to no other");
            }
            if head.as_ref().is_some_and(|head| head.recipients.is_empty()) {
                return Err("a message has at least one recipient");
            }
            if payload.iter().map(Bytes::len).sum::<usize>() > PART_BYTES {
                return Err("the payload of a part is at most PART_BYTES");
            }
            Ok(())
        }
        LogEntry::Delete { parts, .. } if parts.is_empty() => {
            Err("a deletion names the parts of its message")
        }
        LogEntry::Delete { .. } | LogEntry::DeleteRecipient { .. } => Ok(()),
    }
}

fn payload_of(entry: &LogEntry) -> &[Bytes] {
    match entry {
        LogEntry::Part { payload, .. } => payload,
        LogEntry::DeleteRecipient { .. } | LogEntry::Delete { .. } => &[],
    }
}

/// Consecutive records that one write carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Where it begins, at a block.
    pub(crate) offset: u64,
    /// Its bytes, whole blocks.
    pub(crate) bytes: u64,
    /// Its records in the family's list.
    pub(crate) records: std::ops::Range<usize>,
}

/// Lays out the records of `list` from number `from` on, as many as fit between `offset`, a block's start, and `limit`.
pub(crate) fn lay_out(list: &[Encoded], from: usize, mut offset: u64, limit: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut next = from;
    while next < list.len() && offset + list[next].padded() <= limit {
        let first = next;
        let mut bytes = 0;
        while next < list.len() {
            let with_next = bytes + list[next].padded();
            if offset + with_next > limit || (bytes > 0 && with_next > PIECE_BYTES) {
                break;
            }
            bytes = with_next;
            next += 1;
        }
        let bytes = bytes.next_multiple_of(BLOCK);
        pieces.push(Piece { offset, bytes, records: first..next });
        offset += bytes;
    }
    pieces
}

/// Fills `buffer` with a piece, whose first record gets the stamp and the others the ordinals behind it. Answers the offset
/// of each of its records in the segment.
pub(crate) fn fill(
    buffer: &mut [u8],
    piece: &Piece,
    list: &[Encoded],
    (batch, headers): (&[LogEntry], &[u8]),
    (seed, mut stamp): (Seed, Stamp),
) -> Vec<u32> {
    let mut at = 0;
    let mut offsets = Vec::with_capacity(piece.records.len());
    for encoded in &list[piece.records.clone()] {
        let offset = (piece.offset + at as u64) as u32;
        let header = &headers[encoded.header.range.clone()];
        let payload = payload_of(&batch[encoded.entry]);
        record::write(&mut buffer[at..], (seed, offset), stamp, encoded.header.kind, header, payload);
        let end = at + encoded.length as usize;
        at = end.next_multiple_of(RECORD_ALIGNMENT);
        buffer[end..at].fill(0);
        offsets.push(offset);
        stamp.ordinal = (stamp.ordinal + 1) % ORDINALS;
    }
    buffer[at..].fill(0);
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Kind;

    fn list(lengths: &[u32]) -> Vec<Encoded> {
        let encoded = |(entry, length): (usize, &u32)| Encoded {
            entry,
            header: EncodedHeader { kind: Kind::Delete, range: 0..0 },
            targets: SegmentSet::new(),
            length: *length,
        };
        lengths.iter().enumerate().map(encoded).collect()
    }

    #[test]
    fn small_records_share_a_piece_of_whole_blocks() {
        let pieces = lay_out(&list(&[100, 3000, 2000]), 0, 4096, 65536);
        assert_eq!(pieces, [Piece { offset: 4096, bytes: 8192, records: 0..3 }]);
    }

    #[test]
    fn a_record_never_reaches_beyond_the_segment() {
        let pieces = lay_out(&list(&[4000, 4096, 104]), 0, 4096, 3 * 4096);
        assert_eq!(pieces, [Piece { offset: 4096, bytes: 8192, records: 0..2 }]);
        assert!(lay_out(&list(&[4097]), 0, 4096, 2 * 4096).is_empty());
    }

    #[test]
    fn a_piece_is_bounded_unless_one_record_is_larger() {
        let big = PIECE_BYTES as u32 + 8;
        let pieces = lay_out(&list(&[8, big, 8]), 0, 4096, 1 << 30);
        let counts: Vec<_> = pieces.iter().map(|piece| piece.records.clone()).collect();
        assert_eq!(counts, [0..1, 1..2, 2..3]);
        assert!(pieces.windows(2).all(|pair| pair[0].offset + pair[0].bytes == pair[1].offset));
    }
}

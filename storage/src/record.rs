//! One record as it stands in a segment: the fixed prefix, the rkyv header, the payload, and the checksums over
//! them. Never touches a file and knows nothing of batches or of where a record lies but for its checksum.

use bytes::Bytes;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::store::{LogEntry, MessageHead, MessageHeader, RecordId};
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::with::{InlineAsBox, Map};
use rkyv::{Archive, Serialize};
use smallvec::SmallVec;

/// Bytes of the fixed prefix.
pub(crate) const PREFIX_BYTES: usize = 32;

/// Records begin at multiples of this: the alignment that the rkyv headers need.
pub(crate) const RECORD_ALIGNMENT: usize = 8;

/// Ordinals of records are counted up to here, and then from 0 again.
pub(crate) const ORDINALS: u32 = 1 << 24;

/// Numbers of segments, each once.
pub(crate) type SegmentSet = SmallVec<[u32; 2]>;

/// What the checksums of a segment start from. It differs between segments and between logs, so that what a
/// recycled file still holds, or what a sender put into a payload, never passes as a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seed(u32);

impl Seed {
    /// The seed of segment `number` of the log with this salt.
    pub(crate) fn new(salt: u64, number: u32) -> Self {
        Self(crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &number.to_le_bytes()))
    }

    fn at(self, offset: u32) -> u32 {
        crc32c::crc32c_append(self.0, &offset.to_le_bytes())
    }
}

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Part 0 of a message, with its head.
    FirstPart = 1,
    /// Any other part.
    LaterPart = 2,
    /// A recipient no longer needs a message.
    DeleteRecipient = 3,
    /// Nobody needs a message.
    Delete = 4,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::FirstPart, Self::LaterPart, Self::DeleteRecipient, Self::Delete]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    /// Whether the record carries payload of a message.
    pub(crate) fn is_part(self) -> bool {
        matches!(self, Self::FirstPart | Self::LaterPart)
    }
}

/// The fixed prefix of a record whose own checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Prefix {
    /// CRC-32C of the payload.
    pub(crate) payload_crc: u32,
    /// CRC-32C of the header.
    pub(crate) header_crc: u32,
    /// Bytes of prefix, header and payload.
    pub(crate) length: u32,
    /// Bytes of the header.
    pub(crate) header_length: u32,
    /// The append that wrote it; ascending in a segment.
    pub(crate) batch: u64,
    /// How many records of the segment come before it, modulo [`ORDINALS`].
    pub(crate) ordinal: u32,
    /// What it says.
    pub(crate) kind: Kind,
}

impl Prefix {
    /// Reads the prefix of a record at `offset` of a segment. `None` if it is not one, or reaches beyond
    /// `room` bytes.
    pub(crate) fn parse(bytes: &[u8], seed: Seed, offset: u32, room: u64) -> Option<Self> {
        let bytes: &[u8; PREFIX_BYTES] = bytes.first_chunk()?;
        let word = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("within the prefix"));
        if word(0) != crc32c::crc32c_append(seed.at(offset), &bytes[4..]) {
            return None;
        }
        let prefix = Self {
            payload_crc: word(4),
            header_crc: word(28),
            length: word(8),
            header_length: word(12),
            batch: u64::from(word(16)) | u64::from(word(20)) << 32,
            ordinal: word(24) >> 8,
            kind: Kind::from_byte(bytes[24])?,
        };
        let fits = u64::from(prefix.length) <= room
            && u64::from(prefix.length) >= PREFIX_BYTES as u64 + u64::from(prefix.header_length);
        fits.then_some(prefix)
    }

    /// Bytes up to the next record.
    pub(crate) fn padded(&self) -> u64 {
        u64::from(self.length).next_multiple_of(RECORD_ALIGNMENT as u64)
    }

    /// The header of `record`, the whole record, if it is the one that was written.
    pub(crate) fn header(&self, record: &[u8], seed: Seed, offset: u32) -> Option<Header> {
        let header = record.get(PREFIX_BYTES..self.payload_start())?;
        let whole = crc32c::crc32c_append(seed.at(offset), header) == self.header_crc;
        if whole { Header::parse(self.kind, header) } else { None }
    }

    /// Whether `record`, the whole record, has the payload that was written.
    pub(crate) fn payload_is_whole(&self, record: &[u8], seed: Seed, offset: u32) -> bool {
        record.len() == self.length as usize
            && crc32c::crc32c_append(seed.at(offset), &record[self.payload_start()..]) == self.payload_crc
    }

    /// Where the payload starts in the record.
    pub(crate) fn payload_start(&self) -> usize {
        PREFIX_BYTES + self.header_length as usize
    }
}

/// When a record was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stamp {
    /// The append that writes it.
    pub(crate) batch: u64,
    /// Its place in the segment, modulo [`ORDINALS`].
    pub(crate) ordinal: u32,
}

/// Writes a record at the start of `buffer`, which lies at `offset` of its segment. The one copy of the payload.
/// Bytes behind the record are left alone.
pub(crate) fn write(
    buffer: &mut [u8],
    (seed, offset): (Seed, u32),
    stamp: Stamp,
    kind: Kind,
    header: &[u8],
    payload: &[Bytes],
) {
    let payload_start = PREFIX_BYTES + header.len();
    buffer[PREFIX_BYTES..payload_start].copy_from_slice(header);
    let mut end = payload_start;
    for slice in payload {
        buffer[end..end + slice.len()].copy_from_slice(slice);
        end += slice.len();
    }
    let payload_crc = crc32c::crc32c_append(seed.at(offset), &buffer[payload_start..end]);
    let header_crc = crc32c::crc32c_append(seed.at(offset), header);
    let prefix = &mut buffer[..PREFIX_BYTES];
    prefix[4..8].copy_from_slice(&payload_crc.to_le_bytes());
    prefix[8..12].copy_from_slice(&(end as u32).to_le_bytes());
    prefix[12..16].copy_from_slice(&(header.len() as u32).to_le_bytes());
    prefix[16..24].copy_from_slice(&stamp.batch.to_le_bytes());
    prefix[24..28].copy_from_slice(&(stamp.ordinal << 8 | kind as u32).to_le_bytes());
    prefix[28..].copy_from_slice(&header_crc.to_le_bytes());
    let prefix_crc = crc32c::crc32c_append(seed.at(offset), &prefix[4..]);
    prefix[..4].copy_from_slice(&prefix_crc.to_le_bytes());
}

#[derive(Archive, Serialize)]
struct Address<'a> {
    #[rkyv(with = InlineAsBox)]
    account: &'a str,
    #[rkyv(with = InlineAsBox)]
    identity: &'a str,
    #[rkyv(with = Map<InlineAsBox>)]
    device: Option<&'a str>,
    #[rkyv(with = InlineAsBox)]
    resource: &'a str,
}

#[derive(Archive, Serialize)]
struct FirstPart<'a> {
    id: u64,
    expires_at: u64,
    #[rkyv(with = InlineAsBox)]
    tail: &'a [u8],
    recipients: Vec<Address<'a>>,
    flags: u8,
    last: bool,
}

#[derive(Archive, Serialize)]
struct LaterPart {
    id: u64,
    index: u32,
    last: bool,
}

#[derive(Archive, Serialize)]
struct DeleteRecipient {
    id: u64,
    segments: Vec<u32>,
    recipient: u32,
}

#[derive(Archive, Serialize)]
struct Delete {
    id: u64,
    segments: Vec<u32>,
}

fn archive(
    value: &impl for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
    out: &mut AlignedVec,
) {
    *out = rkyv::api::high::to_bytes_in(value, std::mem::take(out))
        .expect("a growing vector and an arena take every value");
}

/// Appends the header of `entry` to `out` at the next aligned place. For a deletion, `segments` are those whose
/// records of the message it makes void.
pub(crate) fn encode_header(entry: &LogEntry, segments: &[u32], out: &mut AlignedVec) -> EncodedHeader {
    out.resize(out.len().next_multiple_of(AlignedVec::<16>::ALIGNMENT), 0);
    let start = out.len();
    let kind = match entry {
        LogEntry::Part { id, last, head: Some(head), .. } => {
            archive(&first_part(*id, *last, head), out);
            Kind::FirstPart
        }
        LogEntry::Part { id, index, last, head: None, .. } => {
            archive(&LaterPart { id: id.0, index: *index, last: *last }, out);
            Kind::LaterPart
        }
        LogEntry::DeleteRecipient { id, recipient, .. } => {
            archive(&DeleteRecipient { id: id.0, segments: segments.to_vec(), recipient: *recipient }, out);
            Kind::DeleteRecipient
        }
        LogEntry::Delete { id, .. } => {
            archive(&Delete { id: id.0, segments: segments.to_vec() }, out);
            Kind::Delete
        }
    };
    EncodedHeader { kind, range: start..out.len() }
}

/// A header as [`encode_header`] wrote it.
#[derive(Debug)]
pub(crate) struct EncodedHeader {
    /// The kind of its record.
    pub(crate) kind: Kind,
    /// Where it lies in the output.
    pub(crate) range: std::ops::Range<usize>,
}

fn first_part(id: RecordId, last: bool, head: &MessageHead) -> FirstPart<'_> {
    let recipients = head.recipients.iter().map(|address| Address {
        account: address.account.as_str(),
        identity: address.identity.as_str(),
        device: address.device.as_ref().map(DeviceUrl::as_str),
        resource: address.resource.as_str(),
    });
    FirstPart {
        id: id.0,
        expires_at: head.header.expires_at,
        tail: &head.header.tail,
        recipients: recipients.collect(),
        flags: head.header.flags,
        last,
    }
}

/// The header of a record, read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Header {
    /// Part 0.
    FirstPart { id: RecordId, last: bool, head: MessageHead },
    /// A later part.
    LaterPart { id: RecordId, index: u32, last: bool },
    /// A recipient is done; `segments` hold part 0.
    DeleteRecipient { id: RecordId, segments: SegmentSet, recipient: u32 },
    /// Everybody is done; `segments` hold the parts.
    Delete { id: RecordId, segments: SegmentSet },
}

impl Header {
    /// Reads the header of a record of this kind in place. `None` if it is not one that [`encode_header`] writes.
    pub(crate) fn parse(kind: Kind, bytes: &[u8]) -> Option<Self> {
        match kind {
            Kind::FirstPart => Self::first_part(access::<ArchivedFirstPart<'_>>(bytes)?),
            Kind::LaterPart => {
                let part = access::<ArchivedLaterPart>(bytes)?;
                let index = part.index.to_native();
                (index > 0).then_some(Self::LaterPart { id: id(part.id), index, last: part.last })
            }
            Kind::DeleteRecipient => {
                let deletion = access::<ArchivedDeleteRecipient>(bytes)?;
                Some(Self::DeleteRecipient {
                    id: id(deletion.id),
                    segments: deletion.segments.iter().map(|number| number.to_native()).collect(),
                    recipient: deletion.recipient.to_native(),
                })
            }
            Kind::Delete => {
                let deletion = access::<ArchivedDelete>(bytes)?;
                Some(Self::Delete {
                    id: id(deletion.id),
                    segments: deletion.segments.iter().map(|number| number.to_native()).collect(),
                })
            }
        }
    }

    fn first_part(part: &ArchivedFirstPart<'_>) -> Option<Self> {
        let recipients: Option<Vec<_>> = part.recipients.iter().map(address).collect();
        let recipients = recipients.filter(|recipients| !recipients.is_empty())?;
        let header = MessageHeader {
            flags: part.flags,
            tail: Bytes::copy_from_slice(&part.tail),
            expires_at: part.expires_at.to_native(),
        };
        Some(Self::FirstPart {
            id: id(part.id),
            last: part.last,
            head: MessageHead { header, recipients: recipients.into() },
        })
    }

    /// The message that the record belongs to.
    pub(crate) fn id(&self) -> RecordId {
        match self {
            Self::FirstPart { id, .. }
            | Self::LaterPart { id, .. }
            | Self::DeleteRecipient { id, .. }
            | Self::Delete { id, .. } => *id,
        }
    }
}

fn access<T>(bytes: &[u8]) -> Option<&T>
where
    T: rkyv::Portable + for<'a> rkyv::bytecheck::CheckBytes<HighValidator<'a, rancor::Failure>>,
{
    rkyv::access::<T, rancor::Failure>(bytes).ok()
}

fn id(archived: rkyv::rend::u64_le) -> RecordId {
    RecordId(archived.to_native())
}

fn address(archived: &ArchivedAddress<'_>) -> Option<MailboxAddress> {
    Some(MailboxAddress {
        account: AccountUrl::new(archived.account.as_bytes()).ok()?,
        identity: IdentityUrl::new(archived.identity.as_bytes()).ok()?,
        device: match archived.device.as_ref() {
            Some(device) => Some(DeviceUrl::new(device.as_bytes()).ok()?),
            None => None,
        },
        resource: ResourceUrl::new(archived.resource.as_bytes()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use relay_core::store::{Family, Position};

    const BATCH: u64 = 0x1122_3344_5566_7788;

    fn seed() -> Seed {
        Seed::new(0x0123_4567_89ab_cdef, 7)
    }

    fn record(entry: &LogEntry, segments: &[u32], offset: u32) -> Vec<u8> {
        let mut headers = AlignedVec::new();
        headers.extend_from_slice(b"something before");
        let encoded = encode_header(entry, segments, &mut headers);
        let payload: &[Bytes] = match entry {
            LogEntry::Part { payload, .. } => payload,
            _ => &[],
        };
        let length = PREFIX_BYTES + encoded.range.len() + payload.iter().map(Bytes::len).sum::<usize>();
        let mut buffer = vec![0; length];
        let stamp = Stamp { batch: BATCH, ordinal: 0xabcdef };
        write(&mut buffer, (seed(), offset), stamp, encoded.kind, &headers[encoded.range], payload);
        buffer
    }

    fn parse(record: &[u8], offset: u32) -> Option<(Header, Vec<u8>)> {
        let prefix = Prefix::parse(record, seed(), offset, record.len() as u64)?;
        assert_eq!((prefix.batch, prefix.ordinal), (BATCH, 0xabcdef));
        let mut aligned = AlignedVec::<16>::new();
        aligned.extend_from_slice(record);
        prefix.payload_is_whole(&aligned, seed(), offset).then_some(())?;
        let header = prefix.header(&aligned, seed(), offset)?;
        Some((header, record[prefix.payload_start()..].to_vec()))
    }

    fn part(id: u64, head: Option<MessageHead>, index: u32, last: bool, payload: &[u8]) -> LogEntry {
        LogEntry::Part {
            id: RecordId(id),
            family: Family::Device,
            index,
            last,
            head,
            payload: payload.chunks(7).map(Bytes::copy_from_slice).collect(),
        }
    }

    fn any_address() -> impl Strategy<Value = MailboxAddress> {
        ("[!-~]{1,30}", "[!-~]{1,30}", prop::option::of("[!-~]{1,30}"), "[!-~]{1,30}").prop_map(
            |(account, identity, device, resource)| MailboxAddress {
                account: AccountUrl::new(account).unwrap(),
                identity: IdentityUrl::new(identity).unwrap(),
                device: device.map(|device| DeviceUrl::new(device).unwrap()),
                resource: ResourceUrl::new(resource).unwrap(),
            },
        )
    }

    fn any_head() -> impl Strategy<Value = MessageHead> {
        let tail = prop::collection::vec(any::<u8>(), 0..60);
        let recipients = prop::collection::vec(any_address(), 1..5);
        (any::<u8>(), tail, any::<u64>(), recipients).prop_map(|(flags, tail, expires_at, recipients)| {
            let header = MessageHeader { flags, tail: tail.into(), expires_at };
            MessageHead { header, recipients: recipients.into() }
        })
    }

    proptest! {
        #[test]
        fn a_first_part_round_trips(
            id: u64, head in any_head(), last: bool, offset: u32,
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let record = record(&part(id, Some(head.clone()), 0, last, &payload), &[], offset);
            let header = Header::FirstPart { id: RecordId(id), last, head };
            prop_assert_eq!(parse(&record, offset), Some((header, payload)));
        }

        #[test]
        fn a_later_part_round_trips(
            id: u64, index in 1..u32::MAX, last: bool, payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let record = record(&part(id, None, index, last, &payload), &[], 4096);
            let header = Header::LaterPart { id: RecordId(id), index, last };
            prop_assert_eq!(parse(&record, 4096), Some((header, payload)));
        }

        #[test]
        fn a_deletion_round_trips(
            id: u64, recipient: u32, segments in prop::collection::vec(any::<u32>(), 1..5),
        ) {
            let id = RecordId(id);
            let first = Position { segment: 1, offset: 4096, length: 100 };
            let family = Family::Identity;
            let entry = LogEntry::DeleteRecipient { id, family, first, recipient };
            let header = Header::DeleteRecipient { id, segments: segments.clone().into(), recipient };
            prop_assert_eq!(parse(&record(&entry, &segments, 8), 8), Some((header, vec![])));
            let entry = LogEntry::Delete { id, family, parts: [first].into_iter().collect() };
            let header = Header::Delete { id, segments: segments.clone().into() };
            prop_assert_eq!(parse(&record(&entry, &segments, 8), 8), Some((header, vec![])));
        }

        #[test]
        fn no_header_makes_parsing_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let mut aligned = AlignedVec::<16>::new();
            aligned.extend_from_slice(&bytes);
            for kind in [Kind::FirstPart, Kind::LaterPart, Kind::DeleteRecipient, Kind::Delete] {
                let _ = Header::parse(kind, &aligned);
            }
        }
    }

    #[test]
    fn every_flipped_bit_of_a_record_is_noticed() {
        let mut record = record(&part(9, None, 1, true, b"some payload"), &[], 4096);
        assert!(parse(&record, 4096).is_some());
        for bit in 0..record.len() * 8 {
            record[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(parse(&record, 4096), None, "bit {bit}");
            record[bit / 8] ^= 1 << (bit % 8);
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn records_are_laid_out_as_format_md_says() {
        let address = MailboxAddress {
            account: AccountUrl::new("a://1").unwrap(),
            identity: IdentityUrl::new("i").unwrap(),
            device: Some(DeviceUrl::new("d").unwrap()),
            resource: ResourceUrl::new("r").unwrap(),
        };
        let header = MessageHeader { flags: 0x42, tail: Bytes::from_static(b"tail"), expires_at: 9 };
        let head = MessageHead { header, recipients: vec![address].into() };
        let first = Position { segment: 3, offset: 4096, length: 100 };
        let (id, family) = (RecordId(1), Family::Device);
        let vectors = [
            (
                part(1, Some(head), 0, true, b"payload"),
                concat!(
                    "7fd14100a7dc65527f00000058000000887766554433221101efcdab30ac0134",
                    "7461696c613a2f2f31696472f8ffffff05000000f5ffffff0100000001000000",
                    "eaffffff01000000e3ffffff0100000001000000000000000900000000000000",
                    "c0ffffff04000000c4ffffff0100000042010000000000007061796c6f6164",
                ),
            ),
            (
                part(1, None, 2, false, b"payload"),
                concat!(
                    "a575a13ea7dc65523700000010000000887766554433221102efcdaba0ad9e42",
                    "010000000000000002000000000000007061796c6f6164",
                ),
            ),
            (
                LogEntry::DeleteRecipient { id, family, first, recipient: 5 },
                concat!(
                    "cb776f930fb965204000000020000000887766554433221103efcdab87ccfc09",
                    "03000000000000000100000000000000f0ffffff010000000500000000000000",
                ),
            ),
            (
                LogEntry::Delete { id, family, parts: [first].into_iter().collect() },
                concat!(
                    "a94beb490fb965203800000018000000887766554433221104efcdabcc10a118",
                    "03000000000000000100000000000000f0ffffff01000000",
                ),
            ),
        ];
        for (entry, expected) in vectors {
            assert_eq!(hex(&record(&entry, &[3], 4096)), expected, "{entry:?}");
        }
    }

    #[test]
    fn a_record_counts_only_in_its_segment_at_its_offset_and_within_the_room() {
        let record = record(&part(9, None, 1, true, b"some payload"), &[], 4096);
        let length = record.len() as u64;
        assert!(Prefix::parse(&record, seed(), 4096, length).is_some());
        assert!(Prefix::parse(&record, seed(), 4104, length).is_none());
        assert!(Prefix::parse(&record, seed(), 4096, length - 1).is_none());
        assert!(Prefix::parse(&record[..PREFIX_BYTES - 1], seed(), 4096, length).is_none());
        let other_segment = Seed::new(0x0123_4567_89ab_cdef, 8);
        assert!(Prefix::parse(&record, other_segment, 4096, length).is_none());
        let other_log = Seed::new(0x0123_4567_89ab_cdee, 7);
        assert!(Prefix::parse(&record, other_log, 4096, length).is_none());
    }
}

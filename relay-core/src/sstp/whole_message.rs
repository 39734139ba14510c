//! The commonest input by far, recognised at a glance: Message with an empty UserRef and no optional fields, one Data and its
//! EndMessage, behind one another. Whatever differs is read command by command; nothing is judged here.

use super::command::{CommandId, SessionId};
use super::profile::{MAX_COMMAND_BYTES, PREFIX_BYTES, flags};
use super::session::Part;
use crate::store::Chain;
use bytes::Bytes;

/// A Message command that ends in an empty UserRef.
const MESSAGE_BYTES: usize = 13;
/// Prefix and SessionId: the head of Data, and all of EndMessage.
const HEAD_BYTES: usize = PREFIX_BYTES + 4;
/// Message and the head of Data.
const BEFORE_PAYLOAD: usize = MESSAGE_BYTES + HEAD_BYTES;
/// Flags that bring fields of their own, or must not be set.
const UNUSUAL: u8 = flags::RESERVED | flags::F | flags::S | flags::E;

/// See the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WholeMessage {
    pub(super) session: SessionId,
    pub(super) message_count: u32,
    flags: u8,
    data_bytes: usize,
}

impl WholeMessage {
    /// The message that `input` begins with.
    #[inline]
    pub(super) fn read(input: &[u8]) -> Option<Self> {
        let head: &[u8; BEFORE_PAYLOAD] = input.first_chunk()?;
        let is_message = head[0] == CommandId::Message as u8
            && u16::from_le_bytes([head[1], head[2]]) as usize == MESSAGE_BYTES
            && head[11] & UNUSUAL == 0
            && head[12] == 0;
        let session = &head[3..7];
        let is_data = head[13] == CommandId::Data as u8 && head[16..20] == *session;
        let command_bytes = usize::from(u16::from_le_bytes([head[14], head[15]]));
        if !is_message || !is_data || !(HEAD_BYTES + 1..=MAX_COMMAND_BYTES).contains(&command_bytes) {
            return None;
        }
        let data_bytes = command_bytes - HEAD_BYTES;
        let end: &[u8; HEAD_BYTES] = input.get(BEFORE_PAYLOAD + data_bytes..)?.first_chunk()?;
        let is_end = end[..PREFIX_BYTES] == [CommandId::EndMessage as u8, HEAD_BYTES as u8, 0];
        let number = u32::from_le_bytes([head[3], head[4], head[5], head[6]]);
        (is_end && end[PREFIX_BYTES..] == *session && number != 0).then_some(Self {
            session: SessionId(number),
            message_count: u32::from_le_bytes([head[7], head[8], head[9], head[10]]),
            flags: head[11],
            data_bytes,
        })
    }

    /// Bytes of its payload.
    pub(super) fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    /// Bytes of its three commands.
    pub(super) fn length(&self) -> usize {
        BEFORE_PAYLOAD + self.data_bytes + HEAD_BYTES
    }

    /// The message as a part, out of the input that it was read from.
    pub(super) fn part(&self, input: &Bytes) -> Part {
        Part {
            index: 0,
            flags: self.flags,
            tail: Bytes::from_static(b"\0"),
            payload: Chain::from(input.slice(BEFORE_PAYLOAD..BEFORE_PAYLOAD + self.data_bytes)),
            payload_bytes: self.data_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstp::Command;
    use crate::sstp::command::Message;
    use bytes::BytesMut;

    fn message(session: u32, tail: &'static [u8], flags: u8, data: &[(u32, usize)], end: u32) -> Bytes {
        let mut bytes = BytesMut::new();
        let tail = Bytes::from_static(tail);
        Command::Message(Message { session: SessionId(session), message_count: 7, flags, tail })
            .encode(&mut bytes);
        for &(session, length) in data {
            let payload = Bytes::from(vec![9; length]);
            Command::Data { session: SessionId(session), payload }.encode(&mut bytes);
        }
        Command::EndMessage { session: SessionId(end) }.encode(&mut bytes);
        bytes.freeze()
    }

    #[test]
    fn a_message_of_one_data_is_read_whole_and_only_when_it_is_all_there() {
        for length in [1, 100, 2048] {
            let input = message(5, b"\0", flags::A | flags::D, &[(5, length)], 5);
            for cut in 0..input.len() {
                assert_eq!(WholeMessage::read(&input[..cut]), None, "cut at {cut}");
            }
            let whole = WholeMessage::read(&input).unwrap();
            assert_eq!((whole.session, whole.message_count), (SessionId(5), 7));
            assert_eq!((whole.data_bytes(), whole.length()), (length, input.len()));
            let part = whole.part(&input);
            assert_eq!((part.flags, &part.tail[..]), (flags::A | flags::D, &b"\0"[..]));
            assert_eq!(part.payload[..], [Bytes::from(vec![9; length])]);
        }
    }

    #[test]
    fn anything_unusual_is_left_to_be_read_command_by_command() {
        let unusual = [
            message(5, b"ref\0", 0, &[(5, 10)], 5),
            message(5, b"\0\x01\0\0\0", flags::E, &[(5, 10)], 5),
            message(5, b"\0", flags::R1, &[(5, 10)], 5),
            message(5, b"\0", 0, &[(6, 10)], 5),
            message(5, b"\0", 0, &[(5, 10)], 6),
            message(5, b"\0", 0, &[(5, 10), (5, 10)], 5),
            message(5, b"\0", 0, &[], 5),
            message(0, b"\0", 0, &[(0, 10)], 0),
        ];
        for input in unusual {
            assert_eq!(WholeMessage::read(&input), None, "{input:?}");
        }
    }
}

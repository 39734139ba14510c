//! What a connection still has to send: small things gathered in one buffer, large payload as the slices that came in.

use super::command::SessionId;
use super::encode;
use super::profile::MAX_DATA_BYTES;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Payload below this is copied into the gathering buffer, since a slice of its own costs more than the copy: 32 bytes of
/// bookkeeping, a reference count, and an entry of the kernel's vector.
const COPY_BELOW: usize = 512;

/// The output of one connection, in order.
#[derive(Debug, Default)]
pub struct OutputQueue {
    slices: VecDeque<Bytes>,
    /// What follows the slices.
    tail: BytesMut,
    bytes: usize,
}

impl OutputQueue {
    /// Bytes not yet sent.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends what `encode` writes.
    pub fn encode(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let before = self.tail.len();
        encode(&mut self.tail);
        self.bytes += self.tail.len() - before;
    }

    /// Appends Data commands for `payload`, as many as it takes.
    pub fn data(&mut self, session: SessionId, mut payload: Bytes) {
        while !payload.is_empty() {
            let piece = payload.split_to(payload.len().min(MAX_DATA_BYTES));
            self.encode(|out| encode::put_data_head(out, session, piece.len()));
            if piece.len() < COPY_BELOW {
                self.encode(|out| out.extend_from_slice(&piece));
            } else {
                self.slice(piece);
            }
        }
    }

    /// Appends Message, one Data for `payload` and EndMessage.
    pub fn whole_message(&mut self, session: SessionId, count: u32, flags: u8, tail: &[u8], payload: &Bytes) {
        let is_small = payload.len() < COPY_BELOW;
        let room = tail.len() + encode::AROUND_MESSAGE_BYTES + if is_small { payload.len() } else { 0 };
        self.tail.reserve(room);
        self.encode(|out| {
            encode::put_message_and_data_head(out, session, count, flags, tail, payload.len());
            if is_small {
                out.extend_from_slice(payload);
                encode::put_end_message(out, session);
            }
        });
        if !is_small {
            self.slice(payload.clone());
            self.encode(|out| encode::put_end_message(out, session));
        }
    }

    /// Appends a slice as it is.
    fn slice(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.slices.push_back(self.tail.split().freeze());
        self.slices.push_back(piece);
    }

    /// Fills `vector` with the front of the queue; returns how many entries were filled.
    pub fn gather<'a>(&'a self, vector: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.slices.iter().map(|slice| &slice[..]).chain(tail);
        let mut filled = 0;
        for (entry, piece) in vector.iter_mut().zip(pieces) {
            *entry = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }

    /// The first `count` bytes have been sent.
    pub fn advance(&mut self, mut count: usize) {
        self.bytes = self.bytes.checked_sub(count).expect("no more is sent than was queued");
        while let Some(front) = self.slices.front_mut() {
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.slices.pop_front();
        }
        if count == self.tail.len() {
            self.tail.clear();
        } else {
            self.tail.advance(count);
        }
    }

    /// Takes everything, joined; for tests and simple drivers.
    pub fn take(&mut self) -> Bytes {
        let mut joined = BytesMut::with_capacity(self.bytes);
        for slice in self.slices.drain(..) {
            joined.extend_from_slice(&slice);
        }
        joined.extend_from_slice(&self.tail);
        self.tail.clear();
        self.bytes = 0;
        joined.freeze()
    }

    /// Gives the buffers of an idle connection back.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sstp::command::{Command, Message};

    /// It writes the three commands by itself, the commonest ones in one piece.
    #[test]
    fn a_whole_message_is_its_three_commands() {
        for tail in [&b"\0"[..], b"", b"ref\0", b"\0\x01\0\0\0"] {
            for length in [1, 100, COPY_BELOW - 1, COPY_BELOW, MAX_DATA_BYTES] {
                let (session, payload) = (SessionId(0x0102_0304), Bytes::from(vec![7; length]));
                let message =
                    Message { session, message_count: 0x0506_0708, flags: 0x11, tail: tail.to_vec().into() };
                let mut commands = BytesMut::new();
                Command::Message(message).encode(&mut commands);
                Command::Data { session, payload: payload.clone() }.encode(&mut commands);
                Command::EndMessage { session }.encode(&mut commands);
                let mut queue = OutputQueue::default();
                queue.whole_message(session, 0x0506_0708, 0x11, tail, &payload);
                assert_eq!((queue.len(), queue.take()), (commands.len(), commands.freeze()));
            }
        }
    }

    #[test]
    fn what_is_gathered_and_advanced_is_what_was_queued() {
        let large = Bytes::from((0..5000u32).map(|n| n as u8).collect::<Vec<_>>());
        for step in [1, 3, 700, 2048, 100_000] {
            let mut queue = OutputQueue::default();
            queue.encode(|out| encode::put_noop(out, 1));
            queue.data(SessionId(9), large.clone());
            queue.data(SessionId(9), Bytes::from_static(b"small"));
            let whole = 7 + 3 * 7 + 5000 + 7 + 5;
            assert_eq!(queue.len(), whole);
            let mut sent = Vec::new();
            while !queue.is_empty() {
                let mut vector = [IoSlice::new(&[]); 3];
                let filled = queue.gather(&mut vector);
                let gathered: Vec<u8> = vector[..filled].iter().flat_map(|piece| piece.to_vec()).collect();
                let count = gathered.len().min(step);
                sent.extend_from_slice(&gathered[..count]);
                queue.advance(count);
            }
            assert_eq!(sent.len(), whole);
            assert_eq!(&sent[..7], &[0x10, 7, 0, 1, 0, 0, 0]);
            assert_eq!(&sent[7..14], &[0x0e, 0x07, 0x08, 9, 0, 0, 0]);
            assert_eq!(&sent[14..14 + 2048], &large[..2048]);
            assert!(sent.ends_with(b"small"));
        }
    }

    #[test]
    fn large_payload_is_not_copied() {
        let payload = Bytes::from(vec![7; 2048]);
        let mut queue = OutputQueue::default();
        queue.data(SessionId(1), payload.clone());
        let mut vector = [IoSlice::new(&[]); 4];
        assert_eq!(queue.gather(&mut vector), 2);
        assert_eq!(vector[1].as_ptr(), payload.as_ptr());
    }
}

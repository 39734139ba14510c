//! The wires between clients and shards: bytes in order, in pieces, late, through buffers of limited size, and lost with
//! everything on the way when a wire breaks. The two ends learn of that each at its own time.

use crate::dice::Dice;
use bytes::Bytes;
use relay_core::relay::ConnectionId;
use relay_core::sstp::output::OutputQueue;
use relay_core::time::Timestamp;
use std::collections::VecDeque;
use std::io::IoSlice;

/// How wires behave.
#[derive(Clone, Copy)]
pub(crate) struct WireFaults {
    /// The longest piece that arrives at once.
    pub(crate) piece: usize,
    /// The longest delay of a piece in milliseconds.
    pub(crate) delay: u64,
    /// Bytes that a wire holds in one direction.
    pub(crate) buffer: usize,
}

/// One direction.
#[derive(Default)]
pub(crate) struct Pipe {
    pieces: VecDeque<(Timestamp, Bytes)>,
    bytes: usize,
    last_due: Timestamp,
    /// Nothing more comes in; the receiver learns it then, behind the last piece.
    end: Option<Timestamp>,
}

impl Pipe {
    /// Takes from `output` what there is room for, cut anywhere.
    pub(crate) fn fill(
        &mut self,
        output: &mut OutputQueue,
        now: Timestamp,
        faults: WireFaults,
        dice: &mut Dice,
    ) {
        while !output.is_empty() && self.bytes < faults.buffer && self.end.is_none() {
            let most = dice.between(1, faults.piece.min(faults.buffer - self.bytes) as u64) as usize;
            let mut piece = Vec::with_capacity(most);
            {
                let mut vector = [IoSlice::new(&[]); 8];
                let filled = output.gather(&mut vector);
                for slice in &vector[..filled] {
                    piece.extend_from_slice(&slice[..slice.len().min(most - piece.len())]);
                }
            }
            output.advance(piece.len());
            self.last_due = self.last_due.max(Timestamp(now.0 + dice.between(0, faults.delay)));
            self.bytes += piece.len();
            self.pieces.push_back((self.last_due, piece.into()));
        }
    }

    /// The next piece that has arrived.
    pub(crate) fn take(&mut self, now: Timestamp) -> Option<Bytes> {
        let (_, piece) = self.pieces.pop_front_if(|(due, _)| *due <= now)?;
        self.bytes -= piece.len();
        Some(piece)
    }

    /// Whether the receiver has got everything and learns that nothing more comes.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        self.pieces.is_empty() && self.end.is_some_and(|end| end <= now)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The sender closes in order.
    pub(crate) fn close(&mut self, now: Timestamp) {
        self.end.get_or_insert(now);
    }

    /// The wire breaks: a part of what is on the way still arrives.
    pub(crate) fn cut(&mut self, now: Timestamp, dice: &mut Dice) {
        let kept = dice.below(self.pieces.len() + 1);
        self.pieces.truncate(kept);
        self.bytes = self.pieces.iter().map(|(_, piece)| piece.len()).sum();
        self.end = Some(Timestamp(now.0 + dice.between(0, 3000)));
    }
}

/// The relay's end of a wire.
pub(crate) enum RelayEnd {
    /// To be accepted by a shard, or handed to it with what was received before.
    Arriving { shard: usize, handed_over: Option<Bytes> },
    /// A connection of a shard.
    Open { shard: usize, id: ConnectionId },
    /// Nobody is there.
    Gone,
}

impl std::fmt::Debug for RelayEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RelayEnd::Arriving { shard, .. } => write!(f, "arriving at shard {shard}"),
            RelayEnd::Open { shard, id } => write!(f, "connection {:#x} of shard {shard}", id.as_u64()),
            RelayEnd::Gone => write!(f, "gone"),
        }
    }
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes, end {:?}", self.bytes, self.end)
    }
}

/// A wire.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) relay: RelayEnd,
    pub(crate) to_relay: Pipe,
    pub(crate) to_client: Pipe,
}

impl Wire {
    pub(crate) fn new(shard: usize) -> Self {
        let relay = RelayEnd::Arriving { shard, handed_over: None };
        Self { relay, to_relay: Pipe::default(), to_client: Pipe::default() }
    }

    pub(crate) fn cut(&mut self, now: Timestamp, dice: &mut Dice) {
        self.to_relay.cut(now, dice);
        self.to_client.cut(now, dice);
    }
}

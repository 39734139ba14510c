//! One session of a connection, as its originator and as its receiver see it (sstp-behaviour 6.3).

use super::command::SessionId;
use super::profile::{self, flags};
use crate::store::{Chain, PART_BYTES};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Payload of a Data command below this is gathered with its neighbours: a slice of its own costs more than the copy.
const GATHER_BELOW: usize = 512;

/// One entry of a connection's session table.
#[derive(Debug)]
pub(super) enum Session {
    /// We sent Open or FanoutOpen.
    Outbound(OutboundState),
    /// The peer sent Open or FanoutOpen.
    Inbound(Box<Receiving>),
    /// An Attach exchange: alive until the account is detached.
    Attach,
    /// A Register exchange: ends with its RegisterResponse.
    Register,
}

/// SessionState at the originator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OutboundState {
    /// Open sent, no answer yet.
    Opening,
    /// May send.
    Ready,
    /// Accepted or running, but the receiver asked to hold ('suspended' and 'blocked' behave alike).
    Stopped,
}

/// MessageReceiver, with what has arrived of the sequence in progress.
#[derive(Debug, Default)]
pub(super) struct Receiving {
    sequence: Option<Sequence>,
}

/// A message sequence in progress: Message has arrived, EndMessage has not.
#[derive(Debug)]
struct Sequence {
    flags: u8,
    tail: Bytes,
    /// Payload bytes in all, those already handed on included.
    total: u64,
    /// Parts already handed on.
    parts: u32,
    chain: Chain,
    /// Small payloads that follow the chain; so that a peer that sends a byte at a time costs a byte at a time.
    gathered: BytesMut,
    chain_bytes: usize,
}

/// A part of a received message, or the whole of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// Counts from 0 within the message.
    pub index: u32,
    /// Flag byte of the Message command.
    pub flags: u8,
    /// Everything behind the flag byte of the Message command, verbatim.
    pub tail: Bytes,
    /// The payload of this part, at most [`PART_BYTES`].
    pub payload: Chain,
    /// Payload bytes in `payload`.
    pub payload_bytes: usize,
}

/// The command does not fit the MessageReceiver state.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OutOfState {
    /// Answered by ConnectClose ProtocolError.
    Protocol,
    /// The body is longer than allowed; the session is closed.
    TooLong,
}

impl Receiving {
    /// Message: waiting -> ready.
    pub(super) fn message(&mut self, flags: u8, tail: Bytes) -> Result<(), OutOfState> {
        if self.sequence.is_some() {
            return Err(OutOfState::Protocol);
        }
        self.sequence = Some(Sequence {
            flags,
            tail,
            total: 0,
            parts: 0,
            chain: Chain::new(),
            gathered: BytesMut::new(),
            chain_bytes: 0,
        });
        Ok(())
    }

    /// Whether no sequence is in progress.
    pub(super) fn is_waiting(&self) -> bool {
        self.sequence.is_none()
    }

    /// Data: ready or buffering -> buffering. Gives a part when one is full, or when `hand_on` says that the connection
    /// holds too much.
    pub(super) fn data(
        &mut self,
        payload: Bytes,
        most: u64,
        hand_on: bool,
    ) -> Result<Option<Part>, OutOfState> {
        let sequence = self.sequence.as_mut().ok_or(OutOfState::Protocol)?;
        sequence.total += payload.len() as u64;
        if sequence.total > most {
            return Err(OutOfState::TooLong);
        }
        let full = (sequence.chain_bytes + payload.len() > PART_BYTES).then(|| sequence.take_part());
        sequence.append(payload);
        Ok(full.or_else(|| hand_on.then(|| sequence.take_part())))
    }

    /// EndMessage: ready or buffering -> waiting. Gives the last part and whether flag A asks for a prompt acknowledgement.
    pub(super) fn end(&mut self) -> Result<(Part, bool), OutOfState> {
        let mut sequence = self.sequence.take().ok_or(OutOfState::Protocol)?;
        Ok((sequence.take_part(), sequence.flags & flags::A != 0))
    }

    /// Payload bytes held for the part in progress.
    pub(super) fn held_bytes(&self) -> usize {
        self.sequence.as_ref().map_or(0, |sequence| sequence.chain_bytes)
    }
}

impl Sequence {
    fn append(&mut self, payload: Bytes) {
        self.chain_bytes += payload.len();
        if payload.len() < GATHER_BELOW && !self.chain.is_empty() {
            self.gathered.extend_from_slice(&payload);
        } else {
            self.seal_gathered();
            self.chain.push(payload);
        }
    }

    fn seal_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.chain.push(std::mem::take(&mut self.gathered).freeze());
        }
    }

    fn take_part(&mut self) -> Part {
        self.seal_gathered();
        let part = Part {
            index: self.parts,
            flags: self.flags,
            tail: self.tail.clone(),
            payload: std::mem::take(&mut self.chain),
            payload_bytes: self.chain_bytes,
        };
        self.parts += 1;
        self.chain_bytes = 0;
        part
    }
}

/// The sessions that this side closed most recently: their late commands are dropped in silence.
#[derive(Debug, Default)]
pub(super) struct Tombstones(VecDeque<SessionId>);

impl Tombstones {
    pub(super) fn insert(&mut self, session: SessionId) {
        if self.0.len() == profile::TOMBSTONES {
            self.0.pop_front();
        }
        self.0.push_back(session);
    }

    pub(super) fn contains(&self, session: SessionId) -> bool {
        self.0.contains(&session)
    }

    pub(super) fn remove(&mut self, session: SessionId) {
        self.0.retain(|&tombstone| tombstone != session);
    }
}

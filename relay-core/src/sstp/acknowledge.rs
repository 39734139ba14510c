//! The two message lists of a connection and their cumulative acknowledgement (sstp-behaviour 3.1.4.2.1, 3.1.4.7, 3.1.5.19).
//!
//! The invariant on which every count rests: *each EndMessage on the wire is one entry in the sender's outbound list and one
//! in the receiver's inbound list, in the same order*, whatever became of its session meanwhile. MessageCount is then a
//! number of entries from the front, the same ones on both sides.

use super::command::SessionId;
use std::collections::VecDeque;

/// Names a received message sequence of one connection, in order of its EndMessage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InboundSeq(pub u64);

#[derive(Clone, Copy, Debug)]
struct Entry {
    complete: bool,
    immediate: bool,
}

/// InboundMessageList: what was received, and which of it is complete.
#[derive(Debug, Default)]
pub struct InboundMessages {
    entries: VecDeque<Entry>,
    /// Sequence number of the front entry.
    front: u64,
    /// Length of the leading run of complete entries.
    leading: usize,
    /// Whether an entry of the leading run asked for an immediate acknowledgement.
    immediate: bool,
}

impl InboundMessages {
    /// A message sequence has ended; it is 'processing' until [`InboundMessages::complete`].
    pub fn push(&mut self, acknowledge_immediately: bool) -> InboundSeq {
        let seq = InboundSeq(self.front + self.entries.len() as u64);
        self.entries.push_back(Entry { complete: false, immediate: acknowledge_immediately });
        seq
    }

    /// The higher layer has finished with a message.
    ///
    /// # Panics
    /// If the message was never received, or completed before: each is completed exactly once.
    pub fn complete(&mut self, seq: InboundSeq) {
        let index = seq.0.checked_sub(self.front).expect("a message is completed once") as usize;
        let entry = self.entries.get_mut(index).expect("only received messages are completed");
        assert!(!entry.complete, "a message is completed once");
        entry.complete = true;
        while let Some(entry) = self.entries.get(self.leading).filter(|entry| entry.complete) {
            self.immediate |= entry.immediate;
            self.leading += 1;
        }
    }

    /// Length of the leading run of complete messages: what an acknowledgement sent now would count.
    pub fn acknowledgeable(&self) -> usize {
        self.leading
    }

    /// Whether the leading run holds a message with flag A.
    pub fn wants_immediate(&self) -> bool {
        self.immediate
    }

    /// Messages received and not yet acknowledged.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether every received message has been acknowledged.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Computes MessageCount (3.1.4.2.1): removes the leading run and returns its length.
    pub fn take_count(&mut self) -> u32 {
        let count = self.leading;
        self.entries.drain(..count);
        self.front += count as u64;
        self.leading = 0;
        self.immediate = false;
        count as u32
    }

    /// Gives unused memory back.
    pub fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }
}

/// OutboundMessageList: what was sent and is not yet acknowledged.
#[derive(Debug, Default)]
pub struct OutboundMessages {
    runs: VecDeque<Run>,
    /// Messages in all runs.
    messages: usize,
    /// Messages that the peer has acknowledged and that were not yet taken.
    acknowledged: usize,
}

/// Messages of one session with one tag that were sent behind one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The session.
    pub session: SessionId,
    /// The sender's tag.
    pub tag: u64,
    /// How many, at least 1.
    pub count: u32,
}

/// MessageCount is above the number of messages outstanding: a ProtocolError (wire-profile 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountTooHigh;

impl OutboundMessages {
    /// A message sequence with the caller's `tag` was sent.
    pub fn push(&mut self, session: SessionId, tag: u64) {
        self.messages += 1;
        match self.runs.back_mut() {
            Some(run) if run.session == session && run.tag == tag && run.count < u32::MAX => run.count += 1,
            _ => self.runs.push_back(Run { session, tag, count: 1 }),
        }
    }

    /// The peer acknowledges `count` more messages (3.1.5.19); [`OutboundMessages::take_acknowledged`] gives them in runs.
    ///
    /// # Errors
    /// [`CountTooHigh`]; nothing is acknowledged then.
    pub fn acknowledge(&mut self, count: u32) -> Result<(), CountTooHigh> {
        let acknowledged = self.acknowledged + count as usize;
        if acknowledged > self.messages {
            return Err(CountTooHigh);
        }
        self.acknowledged = acknowledged;
        Ok(())
    }

    /// Whether there are acknowledged messages that were not yet taken.
    pub fn has_acknowledged(&self) -> bool {
        self.acknowledged > 0
    }

    /// The oldest acknowledged messages that were not yet taken, as far as they are of one run.
    pub fn take_acknowledged(&mut self) -> Option<Run> {
        if self.acknowledged == 0 {
            return None;
        }
        let front = self.runs.front_mut().expect("no more is acknowledged than was sent");
        let count = front.count.min(u32::try_from(self.acknowledged).unwrap_or(u32::MAX));
        let taken = Run { count, ..*front };
        front.count -= count;
        if front.count == 0 {
            self.runs.pop_front();
        }
        self.messages -= count as usize;
        self.acknowledged -= count as usize;
        Some(taken)
    }

    /// Messages sent and not yet acknowledged.
    pub fn len(&self) -> usize {
        self.messages - self.acknowledged
    }

    /// Whether everything sent has been acknowledged.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives unused memory back.
    pub fn shrink(&mut self) {
        self.runs.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_count_is_the_leading_run_of_complete_messages() {
        let mut inbound = InboundMessages::default();
        let seqs: Vec<_> = (0..4).map(|_| inbound.push(false)).collect();
        inbound.complete(seqs[1]);
        inbound.complete(seqs[3]);
        assert_eq!(inbound.take_count(), 0);
        inbound.complete(seqs[0]);
        assert_eq!(inbound.acknowledgeable(), 2);
        assert_eq!(inbound.take_count(), 2);
        assert_eq!(inbound.take_count(), 0, "a count is a delta");
        inbound.complete(seqs[2]);
        assert_eq!(inbound.take_count(), 2);
        assert!(inbound.is_empty());
    }

    #[test]
    fn flag_a_counts_once_its_message_is_in_the_leading_run() {
        let mut inbound = InboundMessages::default();
        let first = inbound.push(false);
        let second = inbound.push(true);
        inbound.complete(second);
        assert!(!inbound.wants_immediate());
        inbound.complete(first);
        assert!(inbound.wants_immediate());
        inbound.take_count();
        assert!(!inbound.wants_immediate());
    }

    #[test]
    #[should_panic(expected = "a message is completed once")]
    fn completion_happens_exactly_once() {
        let mut inbound = InboundMessages::default();
        let seq = inbound.push(false);
        inbound.complete(seq);
        inbound.complete(seq);
    }

    #[test]
    fn acknowledgements_take_the_oldest_of_all_sessions() {
        let mut outbound = OutboundMessages::default();
        for tag in 0..3 {
            outbound.push(SessionId(tag as u32 % 2 + 1), tag);
        }
        outbound.acknowledge(2).unwrap();
        assert_eq!(outbound.take_acknowledged(), Some(Run { session: SessionId(1), tag: 0, count: 1 }));
        assert_eq!(outbound.take_acknowledged(), Some(Run { session: SessionId(2), tag: 1, count: 1 }));
        assert_eq!(outbound.take_acknowledged(), None);
        assert_eq!(outbound.len(), 1);
    }

    #[test]
    fn messages_of_one_session_and_tag_are_acknowledged_as_a_run_however_they_are_counted() {
        let mut outbound = OutboundMessages::default();
        let sent = [(1, 5), (1, 5), (1, 5), (2, 5), (1, 5), (1, 6)];
        sent.iter().for_each(|&(session, tag)| outbound.push(SessionId(session), tag));
        let mut taken = Vec::new();
        for count in [2, 3, 1] {
            outbound.acknowledge(count).unwrap();
            taken.extend(std::iter::from_fn(|| outbound.take_acknowledged()));
        }
        let run = |session, tag, count| Run { session: SessionId(session), tag, count };
        assert_eq!(taken, [run(1, 5, 2), run(1, 5, 1), run(2, 5, 1), run(1, 5, 1), run(1, 6, 1)]);
        assert!(outbound.is_empty());
    }

    #[test]
    fn a_count_above_the_outstanding_is_refused_whole() {
        let mut outbound = OutboundMessages::default();
        outbound.push(SessionId(1), 7);
        outbound.acknowledge(1).unwrap();
        assert_eq!(outbound.acknowledge(1), Err(CountTooHigh));
        assert_eq!(outbound.take_acknowledged(), Some(Run { session: SessionId(1), tag: 7, count: 1 }));
    }
}

//! What a log must hold: the model that histories of it are checked against, and how histories are made up.

use super::tests::{head, payload};
use super::*;
use proptest::prelude::*;
use relay_core::store::{LogEntry, Restored};
use std::collections::{BTreeMap, BTreeSet};

pub(super) const RECIPIENTS: u32 = 3;

#[derive(Clone, Debug)]
pub(super) enum Action {
    /// The first part of a new message, which has this many parts of that size.
    Begin { identity: bool, parts: u32, bytes: usize },
    /// The next part of some unfinished message.
    Continue(u64),
    /// Some complete message is done for some recipient.
    DeleteRecipient(u64, u32),
    /// Some message, complete or not, is deleted.
    Delete(u64),
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    Append(Vec<Action>),
    /// The same while the log is maintained.
    AppendAndMaintain(Vec<Action>),
    Maintain,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (any::<bool>(), 1..4_u32, 0..6000_usize)
            .prop_map(|(identity, parts, bytes)| Action::Begin { identity, parts, bytes }),
        4 => any::<u64>().prop_map(Action::Continue),
        2 => (any::<u64>(), 0..RECIPIENTS)
            .prop_map(|(message, recipient)| Action::DeleteRecipient(message, recipient)),
        4 => any::<u64>().prop_map(Action::Delete),
    ]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let batch = || prop::collection::vec(action(), 1..12);
    prop_oneof![
        12 => batch().prop_map(Step::Append),
        2 => batch().prop_map(Step::AppendAndMaintain),
        2 => Just(Step::Maintain),
        2 => Just(Step::Reopen),
    ]
}

/// What the model knows of a message that was not deleted.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) family: Family,
    pub(super) parts: u32,
    pub(super) bytes: usize,
    pub(super) positions: Vec<Position>,
    pub(super) pending: BTreeSet<u32>,
}

impl Known {
    pub(super) fn is_complete(&self) -> bool {
        self.positions.len() as u32 == self.parts
    }

    fn part(&self, id: u64) -> LogEntry {
        let index = self.positions.len() as u32;
        LogEntry::Part {
            id: RecordId(id),
            family: self.family,
            index,
            last: index + 1 == self.parts,
            head: (index == 0).then(|| head(RECIPIENTS)),
            payload: [Bytes::from(payload(id + u64::from(index), self.bytes))].into_iter().collect(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) messages: BTreeMap<u64, Known>,
    pub(super) highest_id: u64,
}

impl Model {
    /// The entries of a batch. A message occurs at most once in it, as its positions are known only afterwards.
    pub(super) fn entries(&mut self, actions: &[Action]) -> Vec<LogEntry> {
        let mut used = BTreeSet::new();
        actions.iter().filter_map(|action| self.entry(action, &mut used)).filter(is_possible).collect()
    }

    fn entry(&mut self, action: &Action, used: &mut BTreeSet<u64>) -> Option<LogEntry> {
        let mut pick = |index: &u64, wanted: &dyn Fn(&Known) -> bool| {
            let fit = |(id, known): &(&u64, &Known)| !used.contains(*id) && wanted(known);
            let candidates: Vec<u64> = self.messages.iter().filter(fit).map(|(id, _)| *id).collect();
            let id = *candidates.get((*index % candidates.len().max(1) as u64) as usize)?;
            used.insert(id);
            Some((id, self.messages[&id].clone()))
        };
        match action {
            Action::Begin { identity, parts, bytes } => {
                self.highest_id += 1;
                let known = Known {
                    family: if *identity { Family::Identity } else { Family::Device },
                    parts: *parts,
                    bytes: *bytes,
                    positions: Vec::new(),
                    pending: (0..RECIPIENTS).collect(),
                };
                used.insert(self.highest_id);
                let entry = known.part(self.highest_id);
                self.messages.insert(self.highest_id, known);
                Some(entry)
            }
            Action::Continue(index) => {
                let (id, known) = pick(index, &|known| !known.is_complete())?;
                Some(known.part(id))
            }
            Action::DeleteRecipient(index, recipient) => {
                let (id, known) = pick(index, &Known::is_complete)?;
                let (family, first) = (known.family, known.positions[0]);
                Some(LogEntry::DeleteRecipient { id: RecordId(id), family, first, recipient: *recipient })
            }
            Action::Delete(index) => {
                let (id, known) = pick(index, &|_| true)?;
                let parts = known.positions.iter().copied().collect();
                Some(LogEntry::Delete { id: RecordId(id), family: known.family, parts })
            }
        }
    }

    pub(super) fn confirm(&mut self, entries: &[LogEntry], positions: Vec<Position>) {
        let mut positions = positions.into_iter();
        for entry in entries {
            match entry {
                LogEntry::Part { id, .. } => {
                    let known = self.messages.get_mut(&id.0).unwrap();
                    known.positions.push(positions.next().unwrap());
                }
                LogEntry::DeleteRecipient { id, recipient, .. } => {
                    self.messages.get_mut(&id.0).unwrap().pending.remove(recipient);
                }
                LogEntry::Delete { id, .. } => {
                    self.messages.remove(&id.0);
                }
            }
        }
        assert_eq!(positions.next(), None);
    }

    /// A restart forgets what is incomplete or done for everybody.
    pub(super) fn restart(&mut self) {
        self.messages.retain(|_, known| known.is_complete() && !known.pending.is_empty());
    }

    /// Every durable part is where it was appended, whatever moved.
    pub(super) async fn check_parts(&self, log: &MailboxLog<impl Disk>) {
        for (id, known) in &self.messages {
            for (index, part) in known.positions.iter().enumerate() {
                assert_eq!(log.read(*part).await.unwrap(), payload(id + index as u64, known.bytes));
            }
        }
    }

    pub(super) async fn check(&mut self, log: &MailboxLog<impl Disk>, replay: &Replay) {
        assert_eq!(replay.report.torn_tail_bytes, 0);
        self.check_ignoring_torn_tails(log, replay).await;
    }

    /// The same after a crash.
    pub(super) async fn check_ignoring_torn_tails(&mut self, log: &MailboxLog<impl Disk>, replay: &Replay) {
        assert_eq!(replay.highest_id, RecordId(self.highest_id));
        assert_eq!(replay.report.damaged, []);
        let ids: Vec<u64> = replay.messages.iter().map(|message| message.id.0).collect();
        assert_eq!(ids, self.messages.keys().copied().collect::<Vec<_>>());
        for message in &replay.messages {
            self.check_message(message);
        }
        self.check_parts(log).await;
    }

    pub(super) fn check_message(&mut self, message: &Restored) {
        let known = self.messages.get_mut(&message.id.0).unwrap();
        assert_eq!(message.pending, known.pending.iter().copied().collect::<Vec<_>>());
        assert_eq!(message.family, known.family);
        assert_eq!(message.head, head(RECIPIENTS));
        assert_eq!(message.parts.len(), known.positions.len());
        assert_eq!(message.payload_bytes, known.bytes as u64 * u64::from(known.parts));
        known.positions = message.parts.iter().map(|part| part.0).collect();
    }
}

/// What was being appended when the power failed: it may have happened, wholly or in part, or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Moment {
    pub(super) model: Model,
    pub(super) in_flight: Vec<LogEntry>,
}

impl Moment {
    /// Checks what a crash at this moment left, and answers the model that holds from there on.
    pub(super) async fn check(&self, log: &MailboxLog<impl Disk>, replay: &Replay) -> Model {
        assert_eq!(replay.report.damaged, [], "a crash alone damages nothing");
        let confirmed = self.model.messages.iter().filter(|(_, known)| !known.positions.is_empty());
        let highest = confirmed.map(|(id, _)| *id).max().unwrap_or(0);
        assert!(replay.highest_id >= RecordId(highest), "ids go on above all that were confirmed");
        let restored: BTreeMap<u64, &Restored> =
            replay.messages.iter().map(|message| (message.id.0, message)).collect();
        for (id, known) in self.model.messages.iter().filter(|(_, known)| known.is_complete()) {
            let may_be_gone = known.pending.iter().all(|recipient| self.may_be_done(*id, *recipient));
            assert!(may_be_gone || restored.contains_key(id), "message {id} was confirmed and is lost");
        }
        let mut after = Model { highest_id: replay.highest_id.0, ..Model::default() };
        for (id, message) in restored {
            let known = self.model.messages.get(&id).expect("a deleted message came back");
            assert!(known.is_complete() || self.may_be_complete(id, known), "message {id} is not complete");
            let pending: BTreeSet<u32> = message.pending.iter().copied().collect();
            assert!(pending.is_subset(&known.pending), "a recipient of {id} was done and is not any more");
            for recipient in known.pending.difference(&pending) {
                assert!(self.may_be_done(id, *recipient), "recipient {recipient} of {id} lost its message");
            }
            let positions = message.parts.iter().map(|part| part.0).collect();
            after.messages.insert(id, Known { positions, pending, ..known.clone() });
        }
        after.check_parts(log).await;
        after
    }

    fn may_be_done(&self, id: u64, wanted: u32) -> bool {
        self.in_flight.iter().any(|entry| match entry {
            LogEntry::Delete { id: deleted, .. } => deleted.0 == id,
            LogEntry::DeleteRecipient { id: of, recipient, .. } => of.0 == id && *recipient == wanted,
            LogEntry::Part { .. } => false,
        })
    }

    fn may_be_complete(&self, id: u64, known: &Known) -> bool {
        let coming = self
            .in_flight
            .iter()
            .filter(|entry| matches!(entry, LogEntry::Part { id: of, .. } if of.0 == id));
        (known.positions.len() + coming.count()) as u32 == known.parts
    }
}

/// A deletion of a message without durable parts has nothing to delete.
fn is_possible(entry: &LogEntry) -> bool {
    !matches!(entry, LogEntry::Delete { parts, .. } if parts.is_empty())
}

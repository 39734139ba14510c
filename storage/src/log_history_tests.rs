//! Random histories of a log against a model: whatever happened, a reopened log holds exactly the messages that were
//! confirmed and not deleted.

use super::tests::{head, options, payload, run};
use super::*;
use proptest::prelude::*;
use relay_core::store::{LogEntry, Restored};
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 32 * 1024;
const RECIPIENTS: u32 = 3;

#[derive(Clone, Debug)]
enum Action {
    /// The first part of a new message, which has this many parts of that size.
    Begin { identity: bool, parts: u32, bytes: usize },
    /// The next part of some unfinished message.
    Continue(prop::sample::Index),
    /// Some complete message is done for some recipient.
    DeleteRecipient(prop::sample::Index, u32),
    /// Some message, complete or not, is deleted.
    Delete(prop::sample::Index),
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Action>),
    /// The same, but the disk fails at first.
    AppendTwice(Vec<Action>),
    Maintain,
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (any::<bool>(), 1..4_u32, 0..6000_usize)
            .prop_map(|(identity, parts, bytes)| Action::Begin { identity, parts, bytes }),
        4 => any::<prop::sample::Index>().prop_map(Action::Continue),
        2 => (any::<prop::sample::Index>(), 0..RECIPIENTS)
            .prop_map(|(message, recipient)| Action::DeleteRecipient(message, recipient)),
        4 => any::<prop::sample::Index>().prop_map(Action::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let batch = || prop::collection::vec(action(), 1..12);
    prop_oneof![
        12 => batch().prop_map(Step::Append),
        1 => batch().prop_map(Step::AppendTwice),
        2 => Just(Step::Maintain),
        2 => Just(Step::Reopen),
    ]
}

/// What the model knows of a message that was not deleted.
#[derive(Clone, Debug)]
struct Known {
    family: Family,
    parts: u32,
    bytes: usize,
    positions: Vec<Position>,
    pending: BTreeSet<u32>,
}

impl Known {
    fn is_complete(&self) -> bool {
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

#[derive(Debug, Default)]
struct Model {
    messages: BTreeMap<u64, Known>,
    highest_id: u64,
}

impl Model {
    /// The entries of a batch. A message occurs at most once in it, as its positions are known only afterwards.
    fn entries(&mut self, actions: &[Action]) -> Vec<LogEntry> {
        let mut used = BTreeSet::new();
        actions.iter().filter_map(|action| self.entry(action, &mut used)).collect()
    }

    fn entry(&mut self, action: &Action, used: &mut BTreeSet<u64>) -> Option<LogEntry> {
        let mut pick = |index: &prop::sample::Index, wanted: &dyn Fn(&Known) -> bool| {
            let fit = |(id, known): &(&u64, &Known)| !used.contains(*id) && wanted(known);
            let candidates: Vec<u64> = self.messages.iter().filter(fit).map(|(id, _)| *id).collect();
            let id = *candidates.get(index.index(candidates.len().max(1)))?;
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

    fn confirm(&mut self, entries: &[LogEntry], positions: Vec<Position>) {
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
    fn restart(&mut self) {
        self.messages.retain(|_, known| known.is_complete() && !known.pending.is_empty());
    }

    /// Every durable part is where it was appended, whatever moved.
    async fn check_parts(&self, log: &MailboxLog) {
        for (id, known) in &self.messages {
            for (index, part) in known.positions.iter().enumerate() {
                assert_eq!(log.read(*part).await.unwrap(), payload(id + index as u64, known.bytes));
            }
        }
    }

    async fn check(&mut self, log: &MailboxLog, replay: &Replay) {
        assert_eq!(replay.highest_id, RecordId(self.highest_id));
        assert_eq!((replay.report.torn_tail_bytes, &replay.report.damaged[..]), (0, &[][..]));
        let ids: Vec<u64> = replay.messages.iter().map(|message| message.id.0).collect();
        assert_eq!(ids, self.messages.keys().copied().collect::<Vec<_>>());
        for message in &replay.messages {
            self.check_message(message);
        }
        self.check_parts(log).await;
    }

    fn check_message(&mut self, message: &Restored) {
        let known = self.messages.get_mut(&message.id.0).unwrap();
        assert_eq!(message.pending, known.pending.iter().copied().collect::<Vec<_>>());
        assert_eq!(message.family, known.family);
        assert_eq!(message.head, head(RECIPIENTS));
        assert_eq!(message.parts.len(), known.positions.len());
        assert_eq!(message.payload_bytes, known.bytes as u64 * u64::from(known.parts));
        known.positions = message.parts.iter().map(|part| part.0).collect();
    }
}

async fn live_through(directory: &TempDir, steps: &[Step]) {
    let open = || MailboxLog::open(options(directory.path(), SEGMENT_BYTES));
    let mut model = Model::default();
    let (mut log, _) = open().await.unwrap();
    for step in steps {
        match step {
            Step::Append(actions) | Step::AppendTwice(actions) => {
                let entries = model.entries(actions);
                // A deletion of a message without durable parts has nothing to delete.
                let entries: Vec<_> = entries.into_iter().filter(is_possible).collect();
                if matches!(step, Step::AppendTwice(_)) && !entries.is_empty() {
                    log.state.borrow_mut().faults.sync = true;
                    log.append(&entries).await.unwrap_err();
                    log.state.borrow_mut().faults.sync = false;
                }
                let positions = log.append(&entries).await.unwrap();
                model.confirm(&entries, positions);
            }
            Step::Maintain => {
                while log.wants_maintenance() {
                    log.maintain().await.unwrap();
                }
                model.check_parts(&log).await;
            }
            Step::Reopen => {
                log.close().await.unwrap();
                model.restart();
                let (reopened, replay) = open().await.unwrap();
                log = reopened;
                model.check(&log, &replay).await;
            }
        }
    }
}

fn is_possible(entry: &LogEntry) -> bool {
    !matches!(entry, LogEntry::Delete { parts, .. } if parts.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_log_holds_what_was_confirmed_and_not_deleted(steps in prop::collection::vec(step(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let steps: Vec<_> = steps.into_iter().chain([Step::Maintain, Step::Reopen, Step::Reopen]).collect();
        run(async { live_through(&directory, &steps).await });
    }
}

//! The power fails at every point of small histories: after every write, name and sync, with every beginning and every end
//! of what was not durable surviving, and with random parts of it. Whatever is left, nothing that was confirmed is lost,
//! nothing that was deleted comes back, nothing is called damaged, and the log goes on.

use super::log_model::{Action, Model, Moment, Step, step};
use super::*;
use crate::simulated_disk::{SimulatedDisk, World};
use futures_lite::future::{block_on, zip};
use proptest::prelude::*;
use relay_core::store::LogEntry;

fn options(segment_bytes: u64) -> LogOptions {
    LogOptions { directory: PathBuf::from("/log"), segment_bytes, shard: 0, shards: 1 }
}

/// What may be left of what was not durable.
enum Survival {
    First(usize),
    Last(usize),
    Random(u64),
}

impl Survival {
    /// All beginnings and all ends, and some random parts.
    fn every(at_stake: usize) -> Vec<Survival> {
        let first = (0..=at_stake).map(Survival::First);
        let last = (1..at_stake).map(Survival::Last);
        let random = (0..if at_stake > 2 { 3 } else { 0 }).map(Survival::Random);
        first.chain(last).chain(random).collect()
    }

    /// Nothing, all, and a few random parts.
    fn some(at_stake: usize, seed: u64) -> Vec<Survival> {
        let random = (0..at_stake.min(3) as u64).map(|round| Survival::Random(seed * 7 + round));
        [Survival::First(0), Survival::First(at_stake)].into_iter().chain(random).collect()
    }

    fn apply(&self, world: &World) -> World {
        world.after_crash(&|index, count| match self {
            Survival::First(kept) => index < *kept,
            Survival::Last(kept) => index + kept >= count,
            Survival::Random(seed) => {
                let mixed = (seed.wrapping_add(1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64);
                mixed.wrapping_mul(0xff51_afd7_ed55_8ccd) >> 63 == 1
            }
        })
    }
}

/// A history as it was lived through: what was on the disk after each change, and what must be found there.
struct Recording {
    worlds: Vec<(World, usize)>,
    moments: Vec<Moment>,
    /// Segments that were emptied and used again.
    emptied: u64,
}

/// A log in the middle of a history.
struct Life {
    disk: SimulatedDisk,
    segment_bytes: u64,
    log: Option<MailboxLog<SimulatedDisk>>,
    model: Model,
    moments: Vec<Moment>,
    emptied: u64,
}

impl Life {
    async fn begin(disk: &SimulatedDisk, segment_bytes: u64, model: Model) -> Life {
        let (log, _) = MailboxLog::open_on(disk.clone(), options(segment_bytes)).await.unwrap();
        let mut life = Life {
            disk: disk.clone(),
            segment_bytes,
            log: Some(log),
            model,
            moments: Vec::new(),
            emptied: 0,
        };
        life.note(&[]);
        life
    }

    /// From here on the disk's changes belong to this moment.
    fn note(&mut self, in_flight: &[LogEntry]) {
        self.moments.push(Moment { model: self.model.clone(), in_flight: in_flight.to_vec() });
        self.disk.set_mark(self.moments.len() - 1);
    }

    async fn append(&mut self, actions: &[Action], maintain: bool) {
        let entries = self.model.entries(actions);
        self.note(&entries);
        let log = self.log.as_ref().expect("open between steps");
        let upkeep = async { if maintain { log.maintain().await } else { Ok(()) } };
        let (positions, maintained) = zip(log.append(&entries), upkeep).await;
        maintained.unwrap();
        self.model.confirm(&entries, positions.unwrap());
        self.note(&[]);
    }

    async fn live_through(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Append(actions) => self.append(actions, false).await,
                Step::AppendAndMaintain(actions) => self.append(actions, true).await,
                Step::Maintain => self.maintain().await,
                Step::Reopen => self.reopen().await,
            }
        }
    }

    async fn maintain(&mut self) {
        let log = self.log.as_ref().expect("open between steps");
        while log.wants_maintenance() {
            log.maintain().await.unwrap();
        }
        self.model.check_parts(log).await;
    }

    async fn reopen(&mut self) {
        let log = self.log.take().expect("open between steps");
        self.emptied += log.stats().emptied_segments;
        log.close().await.unwrap();
        self.model.restart();
        self.note(&[]);
        let opened = MailboxLog::open_on(self.disk.clone(), options(self.segment_bytes)).await;
        let (log, replay) = opened.unwrap();
        self.model.check_ignoring_torn_tails(&log, &replay).await;
        self.log = Some(log);
        self.note(&[]);
    }
}

fn record(disk: &SimulatedDisk, steps: &[Step], segment_bytes: u64) -> Recording {
    disk.record();
    let (moments, emptied) = block_on(async {
        let mut life = Life::begin(disk, segment_bytes, Model::default()).await;
        life.live_through(steps).await;
        life.reopen().await;
        (life.moments, life.emptied)
    });
    Recording { worlds: disk.recorded(), moments, emptied }
}

/// Messages of both families in a batch and more than a segment holds, one of them gone again, and upkeep.
fn afterwards() -> Vec<Step> {
    let begin = |identity, bytes| Action::Begin { identity, parts: 1, bytes };
    vec![
        Step::Append(vec![begin(false, 500), begin(true, 5000), begin(false, 3000)]),
        Step::Append(vec![Action::Delete(0), begin(true, 3000), begin(false, 5000)]),
        Step::Maintain,
        Step::Append(vec![begin(false, 10), begin(true, 10)]),
        Step::Reopen,
        Step::Reopen,
    ]
}

/// Opens what a crash left, checks it, and goes on with it. Answers what a second crash would find, if that is to be recorded,
/// which costs more than all the rest.
fn recover(world: World, moment: &Moment, segment_bytes: u64, recorded: bool) -> Recording {
    let disk = SimulatedDisk::holding(world);
    if recorded {
        disk.record();
    }
    let (moments, emptied) = block_on(async {
        let opened = MailboxLog::open_on(disk.clone(), options(segment_bytes)).await;
        let (log, replay) = opened.expect("a crash leaves a log that opens");
        let model = moment.check(&log, &replay).await;
        let mut life = Life { log: Some(log), ..Life::new(&disk, segment_bytes, moment, model) };
        life.live_through(&afterwards()).await;
        let files = disk.paths().len();
        assert!(files <= 40, "{files} files");
        (life.moments, life.emptied)
    });
    Recording { worlds: disk.recorded(), moments, emptied }
}

impl Life {
    /// After a crash: until the log is open, the moment is still that of the crash.
    fn new(disk: &SimulatedDisk, segment_bytes: u64, crashed: &Moment, model: Model) -> Life {
        let mut life = Life {
            disk: disk.clone(),
            segment_bytes,
            log: None,
            model,
            moments: vec![crashed.clone()],
            emptied: 0,
        };
        life.note(&[]);
        life
    }
}

/// How many crashes were survived.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    points: u64,
    crashes: u64,
    second_crashes: u64,
}

fn crash_everywhere(name: &str, steps: &[Step], segment_bytes: u64) -> (Count, u64) {
    let recording = record(&SimulatedDisk::new(), steps, segment_bytes);
    let mut count = Count::default();
    for (point, (world, mark)) in recording.worlds.iter().enumerate() {
        count.points += 1;
        let moment = &recording.moments[*mark];
        for survival in Survival::every(world.at_stake()) {
            count.crashes += 1;
            let again = count.crashes % 256 == 1;
            let after = recover(survival.apply(world), moment, segment_bytes, again);
            if again {
                count.second_crashes += crash_again(&after, point as u64, segment_bytes);
            }
        }
    }
    println!("{name}: {count:?}");
    (count, recording.emptied)
}

/// A crash of what recovers from a crash.
fn crash_again(recording: &Recording, seed: u64, segment_bytes: u64) -> u64 {
    let mut crashes = 0;
    for (world, mark) in &recording.worlds {
        for survival in Survival::some(world.at_stake(), seed) {
            crashes += 1;
            recover(survival.apply(world), &recording.moments[*mark], segment_bytes, false);
        }
    }
    crashes
}

fn message(identity: bool, bytes: usize) -> Action {
    Action::Begin { identity, parts: 1, bytes }
}

const SMALL: u64 = 16 * 1024;

/// The payload of a message whose record takes exactly so many bytes.
fn payload_of_record(bytes: usize) -> usize {
    block_on(async {
        let mut life = Life::begin(&SimulatedDisk::new(), SMALL, Model::default()).await;
        life.append(&[message(false, 1000)], false).await;
        bytes - (life.model.messages[&1].positions[0].length as usize - 1000)
    })
}

#[test]
fn a_crash_that_loses_the_beginning_of_a_batch_and_leaves_its_end_damages_nothing() {
    // Records that begin at blocks are found again behind what was lost.
    let block = payload_of_record(4096);
    let steps = [
        Step::Append(vec![message(false, 100)]),
        Step::Append(vec![message(false, block), message(false, block)]),
        Step::Append(vec![message(true, block), message(true, 100), message(false, 100)]),
    ];
    let (count, _) = crash_everywhere("beginnings", &steps, 2 * SMALL);
    assert!(count.crashes > 100, "{count:?}");
}

#[test]
fn a_crash_at_every_point_of_storing_and_acknowledging_loses_nothing() {
    let steps = [
        Step::Append(vec![message(false, 700), message(true, 3000), message(false, 700)]),
        Step::Append(vec![Action::Begin { identity: false, parts: 2, bytes: 1000 }, message(true, 50)]),
        Step::Append(vec![Action::DeleteRecipient(0, 1), Action::Continue(0), message(false, 4000)]),
        Step::Append(vec![Action::Delete(1), Action::Delete(0)]),
        Step::Reopen,
        Step::Append(vec![message(false, 100)]),
    ];
    let (count, _) = crash_everywhere("storing", &steps, SMALL);
    assert!(count.points > 20 && count.crashes > 500, "{count:?}");
}

#[test]
fn a_crash_at_every_point_of_rolling_and_recycling_loses_nothing() {
    let mut steps = Vec::new();
    for round in 0..4 {
        steps.push(Step::Append(vec![message(round % 2 == 0, 9000), message(false, 300)]));
        steps.push(Step::AppendAndMaintain(vec![Action::Delete(0), message(round % 2 == 1, 2000)]));
    }
    let (count, _) = crash_everywhere("recycling", &steps, SMALL);
    assert!(count.points > 60, "{count:?}");
}

#[test]
fn a_crash_at_every_point_of_emptying_a_segment_loses_nothing() {
    // A message that stays, with one recipient done, in each of many segments that are otherwise dead.
    let mut steps = vec![];
    for _ in 0..7 {
        steps.push(Step::Append(vec![message(false, 10), message(false, 10_500)]));
        steps.push(Step::Append(vec![Action::DeleteRecipient(0, 2), Action::Delete(u64::MAX)]));
    }
    steps.push(Step::Maintain);
    steps.push(Step::AppendAndMaintain(vec![Action::Delete(1), message(true, 10)]));
    let (count, emptied) = crash_everywhere("emptying", &steps, SMALL);
    assert!(count.points > 60 && emptied > 0, "{count:?}, {emptied} emptied");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn a_crash_anywhere_in_a_random_history_loses_nothing(
        steps in prop::collection::vec(step(), 1..16), seed: u64, large: bool,
    ) {
        let segment_bytes = if large { 2 * SMALL } else { SMALL };
        let disk = SimulatedDisk::new();
        disk.be_restless(seed);
        let recording = record(&disk, &steps, segment_bytes);
        let points = recording.worlds.len();
        for (point, (world, mark)) in recording.worlds.iter().enumerate() {
            if !(point as u64 ^ seed).is_multiple_of(1 + points as u64 / 24) {
                continue;
            }
            for survival in Survival::some(world.at_stake(), seed.wrapping_add(point as u64) >> 8) {
                recover(survival.apply(world), &recording.moments[*mark], segment_bytes, false);
            }
        }
    }
}

//! The load driver: groups of one sender and its receivers, on one thread each or many to a thread, in a closed loop bounded by
//! a window or in an open loop at a rate. It counts, checks every byte and the order, and measures latency from the
//! time at which a message was meant to be sent, so that a stall is seen as such.

use crate::clock;
use crate::link::{Epoll, Link, Ready};
use crate::payload::{Damage, Pattern, Reading};
use crate::tally::Tally;
use crate::wire::{Wire, WireError, Witness};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How long connections may take to be ready, and messages to come through at the end.
const PATIENCE: Duration = Duration::from_secs(20);
/// Messages that an open loop sends for one group before it looks at its connections again.
const BURST: usize = 256;
/// Bytes that may wait on a connection before its group sends no more.
const MOST_BACKLOG: usize = 1 << 20;
/// The longest sleep, so that the end of a round is seen.
const LONGEST_WAIT: Duration = Duration::from_millis(5);

/// When a message is done and its place in the window free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// When the server has acknowledged it.
    Acknowledged,
    /// When all receivers have it.
    Delivered,
}

/// What load is put on.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Payloads.
    pub(crate) pattern: Pattern,
    /// Messages of one sender that may be under way.
    pub(crate) window: u64,
    /// Every so many messages an acknowledgement is asked for.
    pub(crate) ask_every: u64,
    /// Messages a second of each sender; `None` for as many as the window lets through.
    pub(crate) rate: Option<f64>,
    /// When a message is done.
    pub(crate) done: Done,
    /// Whether acknowledgements come at all.
    pub(crate) acknowledged: bool,
}

/// When what is measured; readings of [`clock`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    /// The beginning of the warm-up.
    pub(crate) start: u64,
    /// Its length.
    pub(crate) warm_up: Duration,
    /// The length of a round.
    pub(crate) round: Duration,
    /// How many rounds.
    pub(crate) rounds: usize,
}

impl Schedule {
    /// The end of a round; round 0 is the warm-up.
    pub(crate) fn end_of(&self, round: usize) -> u64 {
        self.start + clock::nanoseconds(self.warm_up) + clock::nanoseconds(self.round) * round as u64
    }
}

/// Why a load could not be put on, or what went wrong with it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// A socket.
    #[error("connection {end}: {error}")]
    Socket {
        /// Which connection of its thread.
        end: usize,
        /// What the system said.
        error: io::Error,
    },
    /// The server closed a connection.
    #[error("the server closed connection {0}")]
    Closed(usize),
    /// A protocol error.
    #[error("connection {end}: {error}")]
    Wire {
        /// Which connection of its thread.
        end: usize,
        /// What was said.
        error: WireError,
    },
    /// A message arrived damaged, or out of order.
    #[error("connection {end}: {damage}")]
    Damaged {
        /// Which connection of its thread.
        end: usize,
        /// How.
        damage: Damage,
    },
    /// Not ready or not done in time.
    #[error("{0}")]
    TooSlow(String),
    /// More acknowledgements than messages.
    #[error("more was acknowledged than sent")]
    TooManyAcknowledged,
}

impl From<io::Error> for LoadError {
    fn from(error: io::Error) -> Self {
        LoadError::Socket { end: usize::MAX, error }
    }
}

impl LoadError {
    fn on(self, at: usize) -> Self {
        match self {
            LoadError::Socket { end: usize::MAX, error } => LoadError::Socket { end: at, error },
            LoadError::Wire { end: usize::MAX, error } => LoadError::Wire { end: at, error },
            other => other,
        }
    }
}

/// What a driver has measured.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Of each round.
    pub(crate) tallies: Vec<Tally>,
    /// The senders, and how many messages each has sent in all.
    pub(crate) sent: Vec<(u32, u64)>,
}

/// One connection of a group.
#[derive(Debug)]
struct End<W> {
    link: Link,
    wire: W,
    group: usize,
    reader: Option<Reader>,
    dirty: bool,
}

/// A receiver's view of its sender's messages.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The one that is coming.
    pub(crate) reading: Reading,
    /// Those that came whole, which is the number of the next one.
    pub(crate) next: u64,
    /// What was wrong first.
    pub(crate) damage: Option<Damage>,
}

impl Reader {
    /// For the messages of `sender`.
    pub(crate) fn new(pattern: Pattern, sender: u32) -> Self {
        Self { reading: Reading::new(pattern, sender), next: 0, damage: None }
    }

    /// A message is whole at the time `now`.
    pub(crate) fn end(&mut self, now: u64, tally: &mut Tally) {
        match self.reading.end() {
            Ok((number, stamp)) if number == self.next => {
                self.next += 1;
                tally.delivery(now.saturating_sub(stamp));
            }
            Ok((found, _)) => {
                self.damage.get_or_insert(Damage::Order { expected: self.next, found });
            }
            Err(damage) => {
                self.damage.get_or_insert(damage);
            }
        }
    }
}

/// A sender and what it is owed.
#[derive(Debug)]
struct Group {
    /// Names its messages.
    sender: u32,
    end: usize,
    receivers: u64,
    sent: u64,
    acknowledged: u64,
    /// By all receivers together.
    delivered: u64,
    /// Of messages that were not acknowledged: when they were meant to be sent.
    stamps: VecDeque<u64>,
    /// Of an open loop: when its first message was due.
    first_due: u64,
    dirty: bool,
}

impl Group {
    fn done(&self, load: &Load) -> u64 {
        match load.done {
            Done::Acknowledged => self.acknowledged,
            Done::Delivered => self.delivered / self.receivers.max(1),
        }
    }
}

/// Hears what one connection receives.
struct Ear<'a> {
    acknowledged: u64,
    delivered: u64,
    reader: Option<&'a mut Reader>,
    now: u64,
    tally: &'a mut Tally,
}

impl Witness for Ear<'_> {
    fn acknowledged(&mut self, count: u64) {
        self.acknowledged += count;
    }

    fn begin(&mut self) {
        if let Some(reader) = &mut self.reader {
            reader.reading.begin();
        }
    }

    fn piece(&mut self, bytes: &[u8]) {
        if let Some(reader) = &mut self.reader {
            reader.reading.piece(bytes);
        }
    }

    fn end(&mut self) {
        let Some(reader) = &mut self.reader else { return };
        self.delivered += 1;
        reader.end(self.now, self.tally);
    }
}

/// A sender and its receivers, not yet connected.
#[derive(Debug)]
pub(crate) struct Party<W> {
    /// Names the sender's messages.
    pub(crate) sender: u32,
    /// The sender's wire.
    pub(crate) sending: W,
    /// The receivers' wires.
    pub(crate) receiving: Vec<W>,
}

/// The groups of one thread, connected.
#[derive(Debug)]
pub(crate) struct Driver<W> {
    load: Load,
    ends: Vec<End<W>>,
    groups: Vec<Group>,
    epoll: Epoll,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
    payload: Vec<u8>,
    dirty_ends: Vec<usize>,
    dirty_groups: Vec<usize>,
    tally: Tally,
}

impl<W: Wire> Driver<W> {
    /// Connects everybody, receivers first, and waits until all are ready.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(crate) fn connect(
        address: SocketAddr,
        load: Load,
        parties: Vec<Party<W>>,
    ) -> Result<Self, LoadError> {
        let mut driver = Self {
            payload: vec![0; load.pattern.longest()],
            load,
            ends: Vec::new(),
            groups: Vec::new(),
            epoll: Epoll::new()?,
            ready: Vec::new(),
            scratch: Vec::new(),
            dirty_ends: Vec::new(),
            dirty_groups: Vec::new(),
            tally: Tally::default(),
        };
        for party in parties {
            driver.add(address, party)?;
        }
        Ok(driver)
    }

    fn add(&mut self, address: SocketAddr, party: Party<W>) -> Result<(), LoadError> {
        let group = self.groups.len();
        let receivers = party.receiving.len() as u64;
        let first = self.ends.len();
        for wire in party.receiving {
            let reader = Reader::new(self.load.pattern.clone(), party.sender);
            self.add_end(address, wire, group, Some(reader))?;
        }
        // Receivers are there before anything is sent.
        let receiving = first..self.ends.len();
        self.await_ready(receiving)?;
        let end = self.ends.len();
        self.add_end(address, party.sending, group, None)?;
        self.groups.push(Group {
            sender: party.sender,
            end,
            receivers,
            sent: 0,
            acknowledged: 0,
            delivered: 0,
            stamps: VecDeque::new(),
            first_due: 0,
            dirty: false,
        });
        self.await_ready(end..end + 1)
    }

    fn add_end(
        &mut self,
        address: SocketAddr,
        wire: W,
        group: usize,
        reader: Option<Reader>,
    ) -> Result<(), LoadError> {
        let token = self.ends.len();
        let link = Link::connect(address)?;
        self.epoll.add(&link, token)?;
        let mut end = End { link, wire, group, reader, dirty: false };
        end.wire.greet(&mut end.link.out);
        end.link.flush(&self.epoll, token)?;
        self.ends.push(end);
        Ok(())
    }

    fn await_ready(&mut self, ends: std::ops::Range<usize>) -> Result<(), LoadError> {
        let deadline = clock::now() + clock::nanoseconds(PATIENCE);
        while !self.ends[ends.clone()].iter().all(|end| end.wire.is_ready()) {
            if clock::now() > deadline {
                return Err(LoadError::TooSlow("a connection was not ready in time".into()));
            }
            self.turn(LONGEST_WAIT)?;
        }
        Ok(())
    }

    /// Runs a warm-up and the rounds, then lets everything come through. Gives the tally of each round, and how many messages
    /// each sender has sent.
    ///
    /// # Errors
    /// [`LoadError`]: also if anything sent was not acknowledged, or not delivered.
    pub(crate) fn run(mut self, schedule: Schedule) -> Result<Outcome, LoadError> {
        clock::sleep_until(schedule.start);
        let mut tallies = Vec::new();
        let period = self.load.rate.map(|rate| 1e9 / rate);
        self.stagger(schedule.start, period);
        self.dirty_all_groups();
        for round in 0..=schedule.rounds {
            let end = schedule.end_of(round);
            self.tally = Tally::default();
            loop {
                let now = clock::now();
                if now >= end {
                    break;
                }
                let patience = self.send_due(now, period)?;
                self.flush_ends()?;
                self.turn(patience.min(LONGEST_WAIT))?;
            }
            if round > 0 {
                tallies.push(std::mem::take(&mut self.tally));
            }
        }
        self.finish()?;
        let sent = self.groups.iter().map(|group| (group.sender, group.sent)).collect();
        Ok(Outcome { tallies, sent })
    }

    /// Spreads the senders of an open loop over one period, so that they do not send all at once.
    fn stagger(&mut self, start: u64, period: Option<f64>) {
        let groups = self.groups.len() as f64;
        for (index, group) in self.groups.iter_mut().enumerate() {
            let share = period.map_or(0.0, |period| period * index as f64 / groups);
            group.first_due = start + share as u64;
        }
    }

    fn dirty_all_groups(&mut self) {
        for index in 0..self.groups.len() {
            mark(&mut self.groups[index].dirty, &mut self.dirty_groups, index);
        }
    }

    /// Sends whatever the window or the rate allows; says how long nothing else will be due.
    fn send_due(&mut self, now: u64, period: Option<f64>) -> Result<Duration, LoadError> {
        match period {
            None => {
                while let Some(index) = self.dirty_groups.pop() {
                    self.groups[index].dirty = false;
                    self.fill(index, now);
                }
                Ok(LONGEST_WAIT)
            }
            Some(period) => {
                let mut next = u64::MAX;
                for index in 0..self.groups.len() {
                    next = next.min(self.catch_up(index, now, period));
                }
                self.dirty_groups.clear();
                Ok(Duration::from_nanos(next.saturating_sub(clock::now())))
            }
        }
    }

    /// Closed loop: as many as the window has room for.
    fn fill(&mut self, index: usize, now: u64) {
        let group = &mut self.groups[index];
        let end = &mut self.ends[group.end];
        let room = self.load.window.saturating_sub(group.sent - group.done(&self.load));
        if room == 0 || !end.wire.may_send() || end.link.backlog() > MOST_BACKLOG {
            return;
        }
        let affordable = 1 + (MOST_BACKLOG / self.load.pattern.mean()) as u64;
        for _ in 0..room.min(affordable) {
            let prompt = (group.sent + 1).is_multiple_of(self.load.ask_every);
            put(&self.load, group, end, &mut self.payload, &mut self.tally, now, prompt);
        }
        mark(&mut end.dirty, &mut self.dirty_ends, group.end);
    }

    /// Open loop: everything that is due by now, and when the next one is.
    fn catch_up(&mut self, index: usize, now: u64, period: f64) -> u64 {
        let group = &mut self.groups[index];
        let end = &mut self.ends[group.end];
        for _ in 0..BURST {
            let due = group.first_due + (group.sent as f64 * period) as u64;
            if due > now {
                return due;
            }
            let full = group.sent - group.done(&self.load) >= self.load.window;
            if full || !end.wire.may_send() || end.link.backlog() > MOST_BACKLOG {
                return now + clock::nanoseconds(LONGEST_WAIT);
            }
            let last_due = group.first_due + ((group.sent + 1) as f64 * period) as u64 > now;
            let prompt = last_due || (group.sent + 1).is_multiple_of(self.load.ask_every);
            put(&self.load, group, end, &mut self.payload, &mut self.tally, due, prompt);
            mark(&mut end.dirty, &mut self.dirty_ends, group.end);
        }
        now
    }

    fn flush_ends(&mut self) -> Result<(), LoadError> {
        while let Some(token) = self.dirty_ends.pop() {
            let end = &mut self.ends[token];
            end.dirty = false;
            end.link.flush(&self.epoll, token).map_err(|error| LoadError::Socket { end: token, error })?;
        }
        Ok(())
    }

    /// Waits for something, and takes it in.
    fn turn(&mut self, patience: Duration) -> Result<(), LoadError> {
        let mut ready = std::mem::take(&mut self.ready);
        self.epoll.wait(patience, &mut ready)?;
        for &event in &ready {
            if event.writable {
                let link = &mut self.ends[event.token].link;
                link.unblock(&self.epoll, event.token)
                    .map_err(|error| LoadError::from(error).on(event.token))?;
                let group = self.ends[event.token].group;
                if let Some(state) = self.groups.get_mut(group) {
                    mark(&mut state.dirty, &mut self.dirty_groups, group);
                }
            }
            if event.readable {
                self.hear(event.token).map_err(|error| error.on(event.token))?;
            }
        }
        self.ready = ready;
        self.flush_ends()
    }

    fn hear(&mut self, token: usize) -> Result<(), LoadError> {
        let End { link, wire, group, reader, dirty } = &mut self.ends[token];
        let now = clock::now();
        let mut ear =
            Ear { acknowledged: 0, delivered: 0, reader: reader.as_mut(), now, tally: &mut self.tally };
        let open = link.receive(&mut self.scratch, |input, out| {
            wire.take(input, out, &mut ear).map_err(|error| LoadError::Wire { end: usize::MAX, error })
        })?;
        let (acknowledged, delivered) = (ear.acknowledged, ear.delivered);
        if !open {
            return Err(LoadError::Closed(token));
        }
        if let Some(damage) = reader.as_ref().and_then(|reader| reader.damage) {
            return Err(LoadError::Damaged { end: token, damage });
        }
        if link.backlog() > 0 {
            mark(dirty, &mut self.dirty_ends, token);
        }
        let index = *group;
        let Some(group) = self.groups.get_mut(index) else { return Ok(()) };
        self.tally.acknowledged += acknowledged;
        self.tally.delivered += delivered;
        group.acknowledged += acknowledged;
        group.delivered += delivered;
        for _ in 0..acknowledged {
            let stamp = group.stamps.pop_front().ok_or(LoadError::TooManyAcknowledged)?;
            self.tally.acknowledgement(now.saturating_sub(stamp));
        }
        // Also a session that may send again.
        mark(&mut group.dirty, &mut self.dirty_groups, index);
        Ok(())
    }

    /// A last message of each sender asks for everything to be acknowledged; then all that was sent has to come through.
    fn finish(&mut self) -> Result<(), LoadError> {
        let deadline = clock::now() + clock::nanoseconds(PATIENCE);
        let mut open: Vec<usize> = (0..self.groups.len()).collect();
        while clock::now() < deadline {
            let now = clock::now();
            open.retain(|&index| {
                let group = &mut self.groups[index];
                let end = &mut self.ends[group.end];
                let may = end.wire.may_send();
                if may {
                    put(&self.load, group, end, &mut self.payload, &mut self.tally, now, true);
                    mark(&mut end.dirty, &mut self.dirty_ends, group.end);
                }
                !may
            });
            self.flush_ends()?;
            self.turn(LONGEST_WAIT)?;
            if open.is_empty() && self.groups.iter().all(|group| self.is_settled(group)) {
                return Ok(());
            }
        }
        Err(LoadError::TooSlow(self.shortfall()))
    }

    fn is_settled(&self, group: &Group) -> bool {
        let acknowledged = !self.load.acknowledged || group.acknowledged == group.sent;
        acknowledged && group.delivered == group.sent * group.receivers
    }

    fn shortfall(&self) -> String {
        let count = |count: fn(&Group) -> u64| self.groups.iter().map(count).sum::<u64>();
        let stopped = self.groups.iter().filter(|group| !self.ends[group.end].wire.may_send()).count();
        format!(
            "{} s after the end, of {} messages {} were acknowledged, and of {} deliveries {} made; {stopped} of {} \
             senders were told to stop",
            PATIENCE.as_secs(),
            count(|group| group.sent),
            count(|group| group.acknowledged),
            count(|group| group.sent * group.receivers),
            count(|group| group.delivered),
            self.groups.len(),
        )
    }
}

fn put<W: Wire>(
    load: &Load,
    group: &mut Group,
    end: &mut End<W>,
    payload: &mut [u8],
    tally: &mut Tally,
    stamp: u64,
    prompt: bool,
) {
    let payload = load.pattern.write(group.sender, group.sent, stamp, payload);
    end.wire.put(payload, prompt, &mut end.link.out);
    group.sent += 1;
    if load.acknowledged {
        group.stamps.push_back(stamp);
    }
    tally.sent += 1;
}

fn mark(dirty: &mut bool, list: &mut Vec<usize>, index: usize) {
    if !std::mem::replace(dirty, true) {
        list.push(index);
    }
}

//! One who sends short messages at a rate, one who receives them, and somebody who sends long ones beside them: all on one thread,
//! which takes turns between them in small steps, so that the generator adds little to what it measures. Every byte is checked.

use crate::clock;
use crate::link::{Epoll, Link, Ready};
use crate::load::{LoadError, Reader};
use crate::payload::Pattern;
use crate::population::User;
use crate::relay_process::RelayProcess;
use crate::sstp_wire::{HAUL, Recipients, SstpWire, begin_message, end_message, message_data};
use crate::tally::Tally;
use crate::wire::{Wire, Witness};
use crate::workload::traffic;
use relay_core::sstp::profile::MAX_DATA_BYTES;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// Bytes of a short message.
pub(crate) const SHORT: usize = 100;
/// Payload of a long message that is sent in one turn: whole Data commands.
const STEP: usize = 32 * MAX_DATA_BYTES;
/// What the kernel may hold of a connection on which a long message is sent and that it has not sent; more would stand before
/// what the same connection says next.
const UNSENT: u32 = 128 * 1024;
/// How long connections may take, and what is under way at the end of a round.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest sleep.
const LONGEST_WAIT: Duration = Duration::from_millis(2);

/// Where the long messages go, as those see it who talk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    /// Nowhere: nobody sends any.
    Nowhere,
    /// From the same connection to the same connection, on another session.
    Session,
    /// Between two others.
    Connection,
    /// To somebody who is not there, so that they stay on the disk. They are collected, and checked, after the round.
    Offline,
    /// Not through the relay at all: so many bytes a second go to a thread of this process and back.
    Decoy(f64),
}

/// What a round has shown.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// The short messages.
    pub(crate) tally: Tally,
    /// Bytes of long messages that went out while they did.
    pub(crate) hauled: u64,
    /// Long messages that were checked.
    pub(crate) checked: u64,
    /// How long it took.
    pub(crate) seconds: f64,
}

/// The users, by what they do.
const TALKER: u32 = 0;
const LISTENER: u32 = 1;
const HAULER: u32 = 2;
const RECEIVER: u32 = 3;
const ABSENT: u32 = 4;
/// Users that a relay must know.
pub(crate) const USERS: u32 = 5;

#[derive(Debug)]
struct End {
    link: Link,
    wire: SstpWire,
    /// Of short messages.
    talk: Option<Reader>,
    /// Of long ones.
    haul: Option<Reader>,
    acknowledged: u64,
}

/// Hears what one connection receives.
struct Ear<'a> {
    end: (&'a mut Option<Reader>, &'a mut Option<Reader>, &'a mut u64),
    hauled_on: Option<u32>,
    is_haul: bool,
    now: u64,
    tally: &'a mut Tally,
    /// Latencies of long messages, which nobody asks for.
    long: &'a mut Tally,
}

impl Ear<'_> {
    fn reader(&mut self) -> Option<&mut Reader> {
        if self.is_haul { self.end.1.as_mut() } else { self.end.0.as_mut() }
    }
}

impl Witness for Ear<'_> {
    fn acknowledged(&mut self, count: u64) {
        *self.end.2 += count;
    }

    fn session(&mut self, session: u32) {
        self.is_haul = self.hauled_on == Some(session);
    }

    fn begin(&mut self) {
        if let Some(reader) = self.reader() {
            reader.reading.begin();
        }
    }

    fn piece(&mut self, bytes: &[u8]) {
        if let Some(reader) = self.reader() {
            reader.reading.piece(bytes);
        }
    }

    fn end(&mut self) {
        let now = self.now;
        let (reader, tally) = match self.is_haul {
            true => (self.end.1.as_mut(), &mut *self.long),
            false => (self.end.0.as_mut(), &mut *self.tally),
        };
        if let Some(reader) = reader {
            reader.end(now, tally);
        }
    }
}

/// Long messages on their way.
#[derive(Debug)]
struct Haul {
    /// Index of the connection that sends them.
    end: usize,
    /// The whole of the one that is being sent, and how much of it went.
    payload: Vec<u8>,
    at: Option<usize>,
    sent: u64,
    bytes: u64,
}

/// A connection to a thread that sends back what it receives.
#[derive(Debug)]
struct Decoy {
    link: Link,
    began: u64,
    bytes_a_second: f64,
    sent: u64,
    returned: u64,
}

/// All of them, connected to a relay.
#[derive(Debug)]
pub(crate) struct Scene {
    epoll: Epoll,
    ready: Vec<Ready>,
    scratch: Vec<u8>,
    ends: Vec<End>,
    short: Pattern,
    long: Pattern,
    talked: u64,
    haul: Option<Haul>,
    decoy: Option<Decoy>,
    tally: Tally,
    long_tally: Tally,
}

const SENDING_END: usize = 0;
const LISTENING_END: usize = 1;
/// The token of the decoy's connection.
const DECOY: usize = usize::MAX;

impl Scene {
    /// Connects everybody; `long` is the pattern of long messages.
    ///
    /// # Errors
    /// [`LoadError`].
    pub(crate) fn connect(relay: &RelayProcess, place: Place, long: Pattern) -> Result<Self, LoadError> {
        let mut scene = Self {
            epoll: Epoll::new()?,
            ready: Vec::new(),
            scratch: Vec::new(),
            ends: Vec::new(),
            short: Pattern::new(SHORT),
            long,
            talked: 0,
            haul: None,
            decoy: None,
            tally: Tally::default(),
            long_tally: Tally::default(),
        };
        let to_listener = Recipients::One(User::new(LISTENER));
        scene.add(relay.address(), traffic::sender(relay, TALKER, to_listener))?;
        scene.add(relay.address(), traffic::receiver(relay, LISTENER))?;
        scene.ends[LISTENING_END].talk = Some(Reader::new(scene.short.clone(), TALKER));
        match place {
            Place::Nowhere => {}
            Place::Session => {
                scene.ends[LISTENING_END].haul = Some(Reader::new(scene.long.clone(), HAULER));
                scene.begin_haul(SENDING_END, LISTENER)?;
            }
            Place::Connection => {
                scene.add_receiver(relay, RECEIVER)?;
                let end = scene.add(relay.address(), traffic::sender(relay, HAULER, Recipients::Nobody))?;
                scene.begin_haul(end, RECEIVER)?;
            }
            Place::Offline => {
                let end = scene.add(relay.address(), traffic::sender(relay, HAULER, Recipients::Nobody))?;
                scene.begin_haul(end, ABSENT)?;
            }
            Place::Decoy(bytes_a_second) => scene.begin_decoy(bytes_a_second)?,
        }
        Ok(scene)
    }

    fn add(&mut self, address: SocketAddr, wire: SstpWire) -> Result<usize, LoadError> {
        let token = self.ends.len();
        let link = Link::connect(address)?;
        self.epoll.add(&link, token)?;
        let mut end = End { link, wire, talk: None, haul: None, acknowledged: 0 };
        end.wire.greet(&mut end.link.out);
        self.ends.push(end);
        self.until(|scene| scene.ends[token].wire.is_ready(), "a connection was not ready in time")?;
        Ok(token)
    }

    fn add_receiver(&mut self, relay: &RelayProcess, user: u32) -> Result<usize, LoadError> {
        let end = self.add(relay.address(), traffic::receiver(relay, user))?;
        self.ends[end].haul = Some(Reader::new(self.long.clone(), HAULER));
        Ok(end)
    }

    fn begin_haul(&mut self, end: usize, recipient: u32) -> Result<(), LoadError> {
        let End { link, wire, .. } = &mut self.ends[end];
        link.keep_unsent(UNSENT)?;
        wire.open_haul(&User::new(recipient), &mut link.out);
        self.until(
            |scene| scene.ends[end].wire.may_haul(),
            "the session for long messages was not open in time",
        )?;
        self.haul = Some(Haul { end, payload: vec![0; self.long.longest()], at: None, sent: 0, bytes: 0 });
        Ok(())
    }

    fn begin_decoy(&mut self, bytes_a_second: f64) -> Result<(), LoadError> {
        let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))?;
        let link = Link::connect(listener.local_addr()?)?;
        let (stream, _) = listener.accept()?;
        // It ends with the connection.
        std::thread::Builder::new().name("decoy".into()).spawn(move || {
            let mut output = &stream;
            io::copy(&mut io::BufReader::with_capacity(64 * 1024, &stream), &mut output)
        })?;
        link.keep_unsent(UNSENT)?;
        self.epoll.add(&link, DECOY)?;
        self.decoy = Some(Decoy { link, began: clock::now(), bytes_a_second, sent: 0, returned: 0 });
        Ok(())
    }

    /// Talks at a rate for so long, the long messages beside it, and lets everything come through.
    ///
    /// # Errors
    /// [`LoadError`]: also if anything is damaged, lost or not acknowledged.
    pub(crate) fn run(&mut self, rate: f64, warm_up: f64, seconds: f64) -> Result<Heard, LoadError> {
        let start = clock::now();
        let period = 1e9 / rate;
        let at = |seconds: f64| start + (seconds * 1e9) as u64;
        if let Some(decoy) = &mut self.decoy {
            decoy.began = start;
        }
        self.talk_until(start, period, at(warm_up))?;
        self.tally = Tally::default();
        let before = self.hauled();
        self.talk_until(start, period, at(warm_up + seconds))?;
        let (tally, hauled) = (self.tally.clone(), self.hauled() - before);
        self.settle()?;
        Ok(Heard { tally, hauled, checked: self.checked(), seconds })
    }

    fn hauled(&self) -> u64 {
        self.haul.as_ref().map_or(0, |haul| haul.bytes) + self.decoy.as_ref().map_or(0, |decoy| decoy.sent)
    }

    fn checked(&self) -> u64 {
        self.ends.iter().filter_map(|end| end.haul.as_ref()).map(|reader| reader.next).sum()
    }

    fn talk_until(&mut self, start: u64, period: f64, end: u64) -> Result<(), LoadError> {
        while clock::now() < end {
            let next = self.talk_due(start, period, end);
            self.haul_on(true);
            self.feed_decoy();
            let wait = Duration::from_nanos(next.saturating_sub(clock::now()));
            self.turn(wait.min(LONGEST_WAIT))?;
        }
        Ok(())
    }

    /// Sends what is due; says when the next one is. A sender that was told to stop sends later what was due meanwhile, with the
    /// time at which it was due.
    fn talk_due(&mut self, start: u64, period: f64, end: u64) -> u64 {
        let mut payload = [0; SHORT];
        loop {
            let due = start + (self.talked as f64 * period) as u64;
            if due > clock::now() || due >= end {
                return due;
            }
            let End { link, wire, .. } = &mut self.ends[SENDING_END];
            if !wire.may_send() {
                return end;
            }
            let payload = self.short.write(TALKER, self.talked, due, &mut payload);
            wire.put(payload, true, &mut link.out);
            self.talked += 1;
            self.tally.sent += 1;
        }
    }

    /// Sends a step of a long message; begins a new one only if it `may_begin`.
    fn haul_on(&mut self, may_begin: bool) {
        let Some(haul) = &mut self.haul else { return };
        let End { link, wire, .. } = &mut self.ends[haul.end];
        if link.backlog() > 0 || !wire.may_haul() {
            return;
        }
        let at = match haul.at {
            Some(at) => at,
            None if !may_begin => return,
            None => {
                self.long.write(HAULER, haul.sent, clock::now(), &mut haul.payload);
                begin_message(HAUL, true, &mut link.out);
                0
            }
        };
        let next = haul.payload.len().min(at + STEP);
        message_data(HAUL, &haul.payload[at..next], &mut link.out);
        haul.bytes += (next - at) as u64;
        haul.at = Some(next);
        if next == haul.payload.len() {
            end_message(HAUL, &mut link.out);
            haul.at = None;
            haul.sent += 1;
        }
    }

    fn feed_decoy(&mut self) {
        let Some(decoy) = &mut self.decoy else { return };
        let due = (clock::now() - decoy.began) as f64 / 1e9 * decoy.bytes_a_second;
        if decoy.link.backlog() == 0 && decoy.sent as f64 + STEP as f64 <= due {
            decoy.link.out.resize(STEP, 7);
            decoy.sent += STEP as u64;
        }
    }

    /// Sends what there is, waits for something, and takes it in.
    fn turn(&mut self, patience: Duration) -> Result<(), LoadError> {
        for token in 0..self.ends.len() {
            self.ends[token].link.flush(&self.epoll, token)?;
        }
        if let Some(decoy) = &mut self.decoy {
            decoy.link.flush(&self.epoll, DECOY)?;
        }
        // A long message that can go on is not to be waited for.
        let goes_on = self.haul.as_ref().is_some_and(|haul| {
            let end = &self.ends[haul.end];
            end.link.backlog() == 0 && end.wire.may_haul() && haul.at.is_some()
        });
        let mut ready = std::mem::take(&mut self.ready);
        self.epoll.wait(if goes_on { Duration::ZERO } else { patience }, &mut ready)?;
        for event in &ready {
            self.serve(*event)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn serve(&mut self, event: Ready) -> Result<(), LoadError> {
        if event.token == DECOY {
            return self.serve_decoy(event);
        }
        let End { link, wire, talk, haul, acknowledged } = &mut self.ends[event.token];
        if event.writable {
            link.unblock(&self.epoll, event.token)?;
        }
        if !event.readable {
            return Ok(());
        }
        let mut ear = Ear {
            hauled_on: wire.hauled_on(),
            end: (talk, haul, acknowledged),
            is_haul: false,
            now: clock::now(),
            tally: &mut self.tally,
            long: &mut self.long_tally,
        };
        let open = link.receive(&mut self.scratch, |input, out| {
            wire.take(input, out, &mut ear).map_err(|error| LoadError::Wire { end: event.token, error })
        })?;
        if !open {
            return Err(LoadError::Closed(event.token));
        }
        let damage = [&talk, &haul].into_iter().find_map(|reader| reader.as_ref()?.damage);
        damage.map_or(Ok(()), |damage| Err(LoadError::Damaged { end: event.token, damage }))
    }

    fn serve_decoy(&mut self, event: Ready) -> Result<(), LoadError> {
        let Some(Decoy { link, returned, .. }) = &mut self.decoy else { return Ok(()) };
        if event.writable {
            link.unblock(&self.epoll, DECOY)?;
        }
        if event.readable {
            let taken = link.receive(&mut self.scratch, |input, _| {
                *returned += input.len() as u64;
                Ok::<_, io::Error>(input.len())
            })?;
            if !taken {
                return Err(LoadError::Closed(DECOY));
            }
        }
        Ok(())
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool, otherwise: &str) -> Result<(), LoadError> {
        let deadline = clock::now() + clock::nanoseconds(PATIENCE);
        while !done(self) {
            if clock::now() > deadline {
                return Err(LoadError::TooSlow(otherwise.into()));
            }
            self.haul_on(false);
            self.turn(LONGEST_WAIT)?;
        }
        Ok(())
    }

    /// Ends the long message that is under way, and waits until all is acknowledged, and delivered where somebody is there.
    fn settle(&mut self) -> Result<(), LoadError> {
        let is_through = |scene: &Self| {
            let hauled = scene.haul.as_ref().map_or(0, |haul| haul.sent);
            let readers = scene.ends.iter().filter_map(|end| end.haul.as_ref());
            scene.haul.as_ref().is_none_or(|haul| haul.at.is_none())
                && scene.ends[LISTENING_END].talk.as_ref().is_none_or(|reader| reader.next == scene.talked)
                && readers.into_iter().all(|reader| reader.next == hauled)
                && scene.ends.iter().map(|end| end.acknowledged).sum::<u64>() == scene.talked + hauled
                && scene.decoy.as_ref().is_none_or(|decoy| decoy.returned == decoy.sent)
        };
        self.until(is_through, "what was sent did not come through in time")?;
        // The last acknowledgements, or what they are for would come again.
        self.turn(Duration::ZERO)
    }

    /// Whoever was absent comes, collects everything, and looks at it.
    ///
    /// # Errors
    /// As [`Scene::run`].
    pub(crate) fn collect(&mut self, relay: &RelayProcess) -> Result<u64, LoadError> {
        self.add_receiver(relay, ABSENT)?;
        self.settle()?;
        Ok(self.checked())
    }
}

//! One address that keeps thousands of handshakes begun and ends none of them: what an attacker without keys can do. It runs on
//! a thread of its own, and dials again, after a pause, whenever it is turned away or cut off.
//!
//! An attacker has machines of his own. Ours shares a processor with those who are measured, so its thread stands back: what time
//! there is goes to them first.

use crate::clock;
use crate::failure::Failure;
use crate::holder::connect_from;
use crate::link::{Epoll, Link};
use crate::load::LoadError;
use crate::processors::stand_back;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Dials before the connections that are there are looked at again.
const BURST: usize = 64;
/// From one byte of a drip to the next.
const DRIP_EVERY: Duration = Duration::from_secs(1);
/// The longest sleep, so that the end is seen and nothing is late for long.
const LONGEST_WAIT: Duration = Duration::from_millis(2);

/// How a handshake is not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// An overheard Connect is repeated, and the challenge that it earns is left without an answer
    Handshake,
    /// The Connect comes a byte a second
    Drip,
}

/// What is done to whom.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The relay.
    pub(crate) address: SocketAddr,
    /// The one address that all of it comes from.
    pub(crate) source: Ipv4Addr,
    /// Handshakes to keep begun.
    pub(crate) attempts: usize,
    /// How.
    pub(crate) kind: Kind,
    /// A whole Connect.
    pub(crate) connect: Vec<u8>,
    /// From being turned away or cut off to the next dial of the same attempt.
    pub(crate) pause: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(crate) struct Outcome {
    /// How long it went on.
    pub(crate) seconds: f64,
    /// Connections dialled.
    pub(crate) dials: u64,
    /// Of these, not taken by the kernel.
    pub(crate) failed: u64,
    /// Closed by the relay before it said anything.
    pub(crate) turned_away: u64,
    /// Connects that were answered.
    pub(crate) answered: u64,
    /// Connections that were there at the end.
    pub(crate) held: u64,
}

impl Outcome {
    /// Both together; of the connections held, the mean is the caller's to take.
    pub(crate) fn add(&mut self, other: &Outcome) {
        self.seconds += other.seconds;
        self.dials += other.dials;
        self.failed += other.failed;
        self.turned_away += other.turned_away;
        self.answered += other.answered;
        self.held += other.held;
    }
}

#[derive(Debug, Default)]
struct Attempt {
    link: Option<Link>,
    /// Counts the dials, so that what was due on an earlier connection is known as such.
    dial: u32,
    /// Bytes of the Connect that are on their way.
    said: usize,
    heard: bool,
}

/// A siege under way.
#[derive(Debug)]
pub(crate) struct Siege {
    over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Outcome, LoadError>>,
}

impl Siege {
    /// Begins, and returns once every attempt has been dialled.
    ///
    /// # Errors
    /// The system has no thread or descriptor to spare.
    pub(crate) fn lay(plan: Plan) -> Result<Self, Failure> {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let ramp = plan.pause;
        let thread = std::thread::Builder::new().name("siege".into());
        // An epoll instance stays on its thread.
        let besiege = move || {
            stand_back()?;
            Besieger::new(plan)?.run(&seen)
        };
        let thread = thread.spawn(besiege).map_err(Failure::system("thread"))?;
        std::thread::sleep(2 * ramp);
        Ok(Self { over, thread })
    }

    /// Ends it, and closes all its connections.
    ///
    /// # Errors
    /// What stopped it before.
    pub(crate) fn lift(self) -> Result<Outcome, LoadError> {
        self.over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// A listener that closes whatever it accepts: somebody else to besiege on the same machine, to tell what a siege costs a relay
/// from what it costs the machine.
#[derive(Debug)]
pub(crate) struct Decoy {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Decoy {
    /// Begins; it ends with its handle.
    ///
    /// # Errors
    /// The system has no thread or port to spare.
    pub(crate) fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let decoy = Self { address: listener.local_addr()?, over: Arc::default() };
        let over = decoy.over.clone();
        std::thread::Builder::new().name("decoy".into()).spawn(move || {
            // It is only politeness.
            let _ = stand_back();
            while !over.load(Ordering::SeqCst) {
                if listener.accept().is_err() {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        })?;
        Ok(decoy)
    }
}

impl Drop for Decoy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

struct Besieger {
    plan: Plan,
    attempts: Vec<Attempt>,
    epoll: Epoll,
    /// What is to be dialled, and when; in order, since every pause is as long.
    dials: VecDeque<(u64, usize)>,
    /// The next byte of which dial of which attempt is due, and when; in order as well.
    drips: VecDeque<(u64, usize, u32)>,
    scratch: Vec<u8>,
    outcome: Outcome,
}

impl Besieger {
    fn new(plan: Plan) -> std::io::Result<Self> {
        let (start, step) = (clock::now(), clock::nanoseconds(plan.pause) / plan.attempts.max(1) as u64);
        Ok(Self {
            attempts: (0..plan.attempts).map(|_| Attempt::default()).collect(),
            dials: (0..plan.attempts).map(|index| (start + step * index as u64, index)).collect(),
            drips: VecDeque::new(),
            epoll: Epoll::new()?,
            scratch: Vec::new(),
            outcome: Outcome::default(),
            plan,
        })
    }

    fn run(mut self, over: &AtomicBool) -> Result<Outcome, LoadError> {
        let start = clock::now();
        let mut ready = Vec::new();
        while !over.load(Ordering::SeqCst) {
            self.dial_due()?;
            self.drip_due();
            self.epoll.wait(LONGEST_WAIT, &mut ready)?;
            for event in &ready {
                self.hear(event.token);
            }
        }
        self.outcome.seconds = (clock::now() - start) as f64 / 1e9;
        self.outcome.held = self.attempts.iter().filter(|attempt| attempt.link.is_some()).count() as u64;
        Ok(self.outcome)
    }

    fn dial_due(&mut self) -> Result<(), LoadError> {
        for _ in 0..BURST {
            let Some(&(due, index)) = self.dials.front().filter(|(due, _)| *due <= clock::now()) else {
                break;
            };
            self.dials.pop_front();
            self.outcome.dials += 1;
            match connect_from(self.plan.address, self.plan.source) {
                Ok(link) => {
                    self.epoll.add(&link, index)?;
                    self.begin(index, link, due);
                }
                Err(_) => {
                    self.outcome.failed += 1;
                    self.again(index);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, index: usize, link: Link, now: u64) {
        let attempt = &mut self.attempts[index];
        attempt.dial = attempt.dial.wrapping_add(1);
        (attempt.link, attempt.said, attempt.heard) = (Some(link), 0, false);
        let dial = attempt.dial;
        match self.plan.kind {
            Kind::Handshake => self.say(index, self.plan.connect.len()),
            Kind::Drip => self.drips.push_back((now.max(clock::now()), index, dial)),
        }
    }

    fn drip_due(&mut self) {
        let now = clock::now();
        while let Some(&(_, index, dial)) = self.drips.front().filter(|(due, ..)| *due <= now) {
            self.drips.pop_front();
            let attempt = &self.attempts[index];
            // The last byte is never said.
            if attempt.dial == dial && attempt.link.is_some() && attempt.said + 1 < self.plan.connect.len() {
                self.say(index, 1);
                self.drips.push_back((now + clock::nanoseconds(DRIP_EVERY), index, dial));
            }
        }
    }

    fn say(&mut self, index: usize, bytes: usize) {
        let attempt = &mut self.attempts[index];
        let Some(link) = &mut attempt.link else { return };
        link.out.extend_from_slice(&self.plan.connect[attempt.said..attempt.said + bytes]);
        attempt.said += bytes;
        if link.flush(&self.epoll, index).is_err() {
            self.lost(index);
        }
    }

    fn hear(&mut self, index: usize) {
        let attempt = &mut self.attempts[index];
        let Some(link) = &mut attempt.link else { return };
        let mut heard = 0;
        let open = link.receive(&mut self.scratch, |input, _| {
            heard = input.len();
            Ok::<_, std::io::Error>(heard)
        });
        if heard > 0 && !std::mem::replace(&mut attempt.heard, true) {
            self.outcome.answered += 1;
        }
        if !matches!(open, Ok(true)) {
            self.lost(index);
        }
    }

    fn lost(&mut self, index: usize) {
        let attempt = &mut self.attempts[index];
        attempt.link = None;
        self.outcome.turned_away += u64::from(!attempt.heard);
        self.again(index);
    }

    fn again(&mut self, index: usize) {
        self.dials.push_back((clock::now() + clock::nanoseconds(self.plan.pause), index));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn whoever_is_turned_away_dials_again() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let plan = Plan {
            address: listener.local_addr().unwrap(),
            source: Ipv4Addr::new(127, 66, 0, 1),
            attempts: 3,
            kind: Kind::Handshake,
            connect: b"hello".to_vec(),
            pause: Duration::from_millis(5),
        };
        let siege = Siege::lay(plan).unwrap();
        for _ in 0..9 {
            let (mut stream, peer) = listener.accept().unwrap();
            assert_eq!(peer.ip(), Ipv4Addr::new(127, 66, 0, 1));
            let mut said = [0; 5];
            stream.read_exact(&mut said).unwrap();
            assert_eq!(&said, b"hello");
        }
        let outcome = siege.lift().unwrap();
        assert!(outcome.dials >= 9 && outcome.turned_away >= 6, "{outcome:?}");
        assert_eq!((outcome.failed, outcome.answered), (0, 0));
    }
}

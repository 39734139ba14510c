//! What the service manager is told (sd_notify(3)): ready, reloading, stopping; and the watchdog, which is fed only while
//! every shard answers.
//!
//! Without a service manager nothing of this does anything. It never decides what the relay does, and a manager that hangs
//! makes nobody here wait for long: one thread speaks to it, and the others wait for that one for a second at most.

use crate::events;
use crossbeam::utils::CachePadded;
use relay_core::relay::ShardId;
use sd_notify::NotifyState;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

/// What a shard that has ended in order shows instead of a count.
const ENDED: u64 = u64::MAX;
/// How long the service manager may take to take a message; it does at once unless it hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// How to say something, and whom to tell how that went.
type Saying = (Box<dyn FnOnce() -> io::Result<()> + Send>, mpsc::SyncSender<io::Result<()>>);

/// The way to the thread that speaks to the manager, which begins with the first message.
static SPEAKER: OnceLock<mpsc::SyncSender<Saying>> = OnceLock::new();

/// The pulses of all shards: counters that move as long as the shard's executor gets around to its time task.
#[derive(Clone, Debug)]
pub struct Pulses(Arc<[CachePadded<AtomicU64>]>);

impl Pulses {
    /// So many shards, none of which has moved.
    pub fn new(shards: u16) -> Self {
        Self((0..shards).map(|_| CachePadded::default()).collect())
    }

    /// The pulse that `shard` is to keep going.
    pub fn of(&self, shard: ShardId) -> Pulse {
        Pulse { pulses: self.clone(), shard }
    }
}

/// One shard's pulse.
#[derive(Clone, Debug)]
pub struct Pulse {
    pulses: Pulses,
    shard: ShardId,
}

impl Pulse {
    /// Shows that the shard works.
    pub fn beat(&self) {
        self.counter().fetch_add(1, Ordering::Relaxed);
    }

    /// Shows that the shard has ended as it should, and need not be asked any more.
    pub fn end(&self) {
        self.counter().store(ENDED, Ordering::Relaxed);
    }

    fn counter(&self) -> &AtomicU64 {
        &self.pulses.0[usize::from(self.shard.0)]
    }
}

/// Looks whether all shards move.
struct Rounds {
    pulses: Pulses,
    seen: Vec<u64>,
}

impl Rounds {
    fn new(pulses: Pulses) -> Self {
        let seen = vec![0; pulses.0.len()];
        Self { pulses, seen }
    }

    /// Whether each shard has moved since this was last true.
    fn all_have_moved(&mut self) -> bool {
        let now: Vec<u64> = self.pulses.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let moved = now.iter().zip(&self.seen).all(|(now, seen)| *now == ENDED || now != seen);
        if moved {
            self.seen = now;
        }
        moved
    }
}

/// Says that the relay serves; `status` is one line for `systemctl status`.
pub fn ready(status: &str) {
    let status = status.to_owned();
    tell(move || sd_notify::notify(false, &[NotifyState::Ready, NotifyState::Status(&status)]));
}

/// Says that the relay reads its configuration again; [`ready`] follows.
pub fn reloading() {
    // The time tells the manager which of several reloads this is.
    let now = NotifyState::monotonic_usec_now().unwrap_or(NotifyState::MonotonicUsec(0));
    tell(move || sd_notify::notify(false, &[NotifyState::Reloading, now]));
}

/// Says that the relay shuts down.
pub fn stopping() {
    let status = NotifyState::Status("completing what was received");
    tell(move || sd_notify::notify(false, &[NotifyState::Stopping, status]));
}

fn tell(say: impl FnOnce() -> io::Result<()> + Send + 'static) {
    if let Err(error) = said(say) {
        tracing::warn!(event = events::MANAGER_DEAF, %error, "the service manager cannot be told how the relay is");
    }
}

fn said(say: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    let speaker = match SPEAKER.get() {
        Some(speaker) => speaker,
        None => {
            let speaker = speaker()?;
            SPEAKER.get_or_init(|| speaker)
        }
    };
    let (done, answer) = mpsc::sync_channel(1);
    let hangs = || io::Error::from(io::ErrorKind::TimedOut);
    speaker.try_send((Box::new(say), done)).map_err(|_| hangs())?;
    answer.recv_timeout(PATIENCE).map_err(|_| hangs())?
}

/// Begins the thread. One message may wait for another that hangs; what comes then is not said.
fn speaker() -> io::Result<mpsc::SyncSender<Saying>> {
    let (speaker, sayings) = mpsc::sync_channel::<Saying>(1);
    std::thread::Builder::new().name("notify".into()).spawn(move || {
        for (say, done) in sayings {
            // Whoever asked may have lost patience.
            let _ = done.send(say());
        }
    })?;
    Ok(speaker)
}

/// The thread that feeds the service manager's watchdog. It ends when this is dropped.
#[derive(Debug)]
pub struct Watchdog {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts feeding the watchdog, if the service manager has one (`WatchdogSec=`): four times in its time at most, and
    /// only if every shard has moved since the last time.
    ///
    /// # Errors
    /// The system has no thread to spare.
    pub fn start(pulses: Pulses) -> io::Result<Self> {
        let mut microseconds = 0;
        if !sd_notify::watchdog_enabled(false, &mut microseconds) {
            return Ok(Self { stop: None, thread: None });
        }
        let interval = Duration::from_micros(microseconds) / 4;
        let (stop, stopped) = mpsc::channel();
        let watch = move || {
            let mut rounds = Rounds::new(pulses);
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                if rounds.all_have_moved() {
                    tell(|| sd_notify::notify(false, &[NotifyState::Watchdog]));
                }
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(watch)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!(event = events::WATCHDOG_PANICKED, "the watchdog's thread panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stuck_shard_is_noticed_among_those_that_move() {
        let pulses = Pulses::new(3);
        let shards = [0, 1, 2].map(|shard| pulses.of(ShardId(shard)));
        let mut rounds = Rounds::new(pulses);
        assert!(!rounds.all_have_moved(), "none has begun");
        shards.iter().for_each(Pulse::beat);
        assert!(rounds.all_have_moved());
        for _ in 0..5 {
            shards[0].beat();
            shards[2].beat();
            assert!(!rounds.all_have_moved(), "shard 1 is stuck");
        }
        shards[1].beat();
        assert!(rounds.all_have_moved());
        assert!(!rounds.all_have_moved());
    }

    #[test]
    fn a_shard_that_has_ended_is_not_asked() {
        let pulses = Pulses::new(2);
        let (first, second) = (pulses.of(ShardId(0)), pulses.of(ShardId(1)));
        let mut rounds = Rounds::new(pulses);
        first.end();
        assert!(!rounds.all_have_moved());
        second.beat();
        assert!(rounds.all_have_moved());
    }
}

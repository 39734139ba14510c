//! The mesh: one bounded lock-free queue for each ordered pair of shards, and one from the side thread to each shard.
//!
//! A shard that finds nothing to do goes to sleep; who pushes into one of its queues wakes it, but only then. A queue that is
//! full keeps its items with the sender, who is woken when there is room again. Nothing is dropped.

use crate::descriptors::Lines;
use atomic_waker::AtomicWaker;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use relay_core::relay::ShardId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::task::{Context, Poll};

/// Where letters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A shard.
    Shard(ShardId),
    /// The side thread.
    Side,
}

/// All queues of a relay; shared by its threads.
#[derive(Debug)]
pub struct Mesh<L> {
    shards: u16,
    /// `queues[to][from]`, the side thread last.
    queues: Vec<Vec<Queue<L>>>,
    bells: Vec<CachePadded<Bell>>,
    /// The way to wake shards that have descriptor tables of their own, which is not by a waker.
    lines: Option<Lines>,
}

#[derive(Debug)]
struct Queue<L> {
    letters: ArrayQueue<L>,
    /// The sender holds letters back because the queue was full.
    held_back: CachePadded<AtomicBool>,
    /// How often that happened.
    stalls: AtomicU64,
}

/// How a shard is woken.
#[derive(Debug, Default)]
struct Bell {
    asleep: AtomicBool,
    waker: AtomicWaker,
}

impl Bell {
    /// Whether its shard sleeps and is for the caller to wake.
    fn is_to_ring(&self) -> bool {
        // Pairs with the fence in `poll_letters`: either the sleeper sees the letter, or we see that it sleeps.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel)
    }
}

impl<L> Mesh<L> {
    /// Queues for so many shards, each holding up to `capacity` letters; those from the side thread at least 256.
    pub fn new(shards: u16, capacity: usize) -> Arc<Self> {
        Self::with_lines(shards, capacity, None)
    }

    /// As [`Mesh::new`]; with lines, shards are woken over them: each has to poll [`Mesh::poll_letters`] again when its bell has
    /// rung.
    pub fn with_lines(shards: u16, capacity: usize, lines: Option<Lines>) -> Arc<Self> {
        let queue = |from| Queue {
            letters: ArrayQueue::new(if from == shards { capacity.max(256) } else { capacity }),
            held_back: CachePadded::new(AtomicBool::new(false)),
            stalls: AtomicU64::new(0),
        };
        Arc::new(Self {
            shards,
            queues: (0..shards).map(|_| (0..=shards).map(queue).collect()).collect(),
            bells: (0..shards).map(|_| CachePadded::new(Bell::default())).collect(),
            lines,
        })
    }

    /// How many shards there are.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The lines between shards with descriptor tables of their own.
    pub fn lines(&self) -> Option<&Lines> {
        self.lines.as_ref()
    }

    fn queue(&self, from: Sender, to: ShardId) -> &Queue<L> {
        let from = match from {
            Sender::Shard(shard) => usize::from(shard.0),
            Sender::Side => usize::from(self.shards),
        };
        &self.queues[usize::from(to.0)][from]
    }

    /// Pushes a letter without waking the receiver: [`Mesh::ring`] follows a run of pushes.
    ///
    /// # Errors
    /// Gives the letter back if the queue is full; the sender's bell rings when there is room.
    pub fn push(&self, from: Sender, to: ShardId, letter: L) -> Result<(), L> {
        let queue = self.queue(from, to);
        let Err(letter) = queue.letters.push(letter) else { return Ok(()) };
        queue.stalls.fetch_add(1, Ordering::Relaxed);
        queue.held_back.store(true, Ordering::SeqCst);
        // The receiver may have made room before it could see the flag.
        queue.letters.push(letter)
    }

    /// Wakes a shard if it sleeps.
    pub fn ring(&self, to: ShardId) {
        let bell = &self.bells[usize::from(to.0)];
        if bell.is_to_ring() {
            match &self.lines {
                Some(lines) => lines.ring(to),
                None => bell.waker.wake(),
            }
        }
    }

    /// Takes up to `most` letters that reached `to` from `from`, and wakes a sender that held some back.
    pub fn take(&self, from: Sender, to: ShardId, most: usize, mut receive: impl FnMut(L)) -> usize {
        let queue = self.queue(from, to);
        let mut taken = 0;
        while taken < most
            && let Some(letter) = queue.letters.pop()
        {
            receive(letter);
            taken += 1;
        }
        if taken > 0
            && queue.held_back.load(Ordering::SeqCst)
            && queue.held_back.swap(false, Ordering::SeqCst)
            && let Sender::Shard(shard) = from
        {
            self.ring(shard);
        }
        taken
    }

    /// Ready when a letter waits for `shard`, or the shard was woken for another reason.
    pub fn poll_letters(&self, shard: ShardId, context: &mut Context<'_>, slept: &mut bool) -> Poll<()> {
        let bell = &self.bells[usize::from(shard.0)];
        if *slept && !bell.asleep.load(Ordering::Acquire) {
            *slept = false;
            return Poll::Ready(());
        }
        if self.lines.is_none() {
            // A waker must not leave the table of its shard: it knows the shard's eventfd by number.
            bell.waker.register(context.waker());
        }
        bell.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queues[usize::from(shard.0)].iter().any(|queue| !queue.letters.is_empty()) {
            bell.asleep.store(false, Ordering::Relaxed);
            *slept = false;
            return Poll::Ready(());
        }
        *slept = true;
        Poll::Pending
    }

    /// Letters that wait in the queue between two shards, and how often it was full.
    pub fn depth(&self, from: ShardId, to: ShardId) -> (usize, u64) {
        let queue = self.queue(Sender::Shard(from), to);
        (queue.letters.len(), queue.stalls.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    #[test]
    fn a_full_queue_gives_the_letter_back_and_rings_the_sender_when_there_is_room() {
        let mesh = Mesh::new(2, 2);
        assert_eq!(mesh.push(Sender::Shard(A), B, 1), Ok(()));
        assert_eq!(mesh.push(Sender::Shard(A), B, 2), Ok(()));
        assert_eq!(mesh.push(Sender::Shard(A), B, 3), Err(3));
        assert_eq!(mesh.depth(A, B), (2, 1));
        let mut slept = false;
        let mut context = Context::from_waker(Waker::noop());
        assert!(mesh.poll_letters(A, &mut context, &mut slept).is_pending());
        assert_eq!(mesh.take(Sender::Shard(A), B, 1, |letter| assert_eq!(letter, 1)), 1);
        assert!(mesh.poll_letters(A, &mut context, &mut slept).is_ready(), "the sender was woken");
        assert_eq!(mesh.push(Sender::Shard(A), B, 3), Ok(()));
    }

    #[test]
    fn a_sleeper_is_woken_by_the_first_letter() {
        let mesh = Mesh::new(1, 4);
        let mut slept = false;
        let mut context = Context::from_waker(Waker::noop());
        assert!(mesh.poll_letters(A, &mut context, &mut slept).is_pending());
        assert!(mesh.poll_letters(A, &mut context, &mut slept).is_pending(), "nothing has come");
        assert_eq!(mesh.push(Sender::Side, A, ()), Ok(()));
        mesh.ring(A);
        assert!(mesh.poll_letters(A, &mut context, &mut slept).is_ready());
    }

    #[test]
    fn every_letter_of_two_threads_arrives_once_and_in_order() {
        let mesh = Mesh::new(2, 8);
        let sender = mesh.clone();
        let thread = std::thread::spawn(move || {
            let mut sent = 0u32;
            while sent < 20_000 {
                match sender.push(Sender::Shard(A), B, sent) {
                    Ok(()) => sent += 1,
                    Err(_) => std::thread::yield_now(),
                }
            }
        });
        let mut expected = 0;
        while expected < 20_000 {
            mesh.take(Sender::Shard(A), B, 5, |letter| {
                assert_eq!(letter, expected);
                expected += 1;
            });
        }
        thread.join().unwrap();
    }
}

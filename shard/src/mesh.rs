//! The mesh: one bounded lock-free queue for each ordered pair of shards, and one from the side thread to each shard.
//!
//! A shard that finds nothing to do goes to sleep; who pushes into one of its queues wakes it, but only then. A queue that is
//! full keeps its items with the sender, who is woken when there is room again. Nothing is dropped. What one shard has to say to
//! another at a time comes in one letter, so that its items move in memory once, and queues need few slots.

use crate::descriptors::Lines;
use atomic_waker::AtomicWaker;
use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;
use relay_core::relay::ShardId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::task::{Context, Poll};

/// Where letters come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A shard.
    Shard(ShardId),
    /// The side thread.
    Side,
}

/// Letters in one queue, however few items are in each.
const SLOTS: usize = 256;

/// What can be sent through the mesh.
pub trait Load {
    /// How much of a queue's capacity it takes.
    fn items(&self) -> usize;
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
    /// Items in all letters, and how many there may be. Several threads of the side may pass that by a letter each.
    items: CachePadded<AtomicUsize>,
    capacity: usize,
    /// The sender holds letters back because the queue was full.
    held_back: CachePadded<AtomicBool>,
    /// How often that happened.
    stalls: AtomicU64,
}

impl<L: Load> Queue<L> {
    fn free(&self) -> usize {
        // Orders itself with the flag `held_back`, as the receiver's subtraction does.
        let free = self.capacity.saturating_sub(self.items.load(Ordering::SeqCst));
        if self.letters.is_full() { 0 } else { free }
    }

    fn push(&self, letter: L) -> Result<(), L> {
        let items = letter.items();
        if items > self.free() {
            return Err(letter);
        }
        self.items.fetch_add(items, Ordering::SeqCst);
        self.letters.push(letter).inspect_err(|_| {
            self.items.fetch_sub(items, Ordering::SeqCst);
        })
    }

    /// The receiver is to ring when there is room.
    fn hold_back(&self) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.held_back.store(true, Ordering::SeqCst);
    }
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

impl<L: Load> Mesh<L> {
    /// Queues for so many shards, each holding up to `capacity` items; those from the side thread at least 256.
    pub fn new(shards: u16, capacity: usize) -> Arc<Self> {
        Self::with_lines(shards, capacity, None)
    }

    /// As [`Mesh::new`]; with lines, shards are woken over them: each has to poll [`Mesh::poll_letters`] again when its bell has
    /// rung.
    pub fn with_lines(shards: u16, capacity: usize, lines: Option<Lines>) -> Arc<Self> {
        let queue = |from| Queue {
            letters: ArrayQueue::new(SLOTS),
            items: CachePadded::default(),
            capacity: if from == shards { capacity.max(SLOTS) } else { capacity },
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
        let Err(letter) = queue.push(letter) else { return Ok(()) };
        queue.hold_back();
        // The receiver may have made room before it could see the flag.
        queue.push(letter)
    }

    /// How many items the next letter may have. If none, the sender's bell rings when there is room.
    pub fn room(&self, from: Sender, to: ShardId) -> usize {
        let queue = self.queue(from, to);
        match queue.free() {
            0 => {
                queue.hold_back();
                queue.free()
            }
            free => free,
        }
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

    /// Takes letters with about `most` items that reached `to` from `from`, and wakes a sender that held some back. Returns how
    /// many items that were.
    pub fn take(&self, from: Sender, to: ShardId, most: usize, mut receive: impl FnMut(L)) -> usize {
        let queue = self.queue(from, to);
        let mut taken = 0;
        while taken < most
            && let Some(letter) = queue.letters.pop()
        {
            let items = letter.items();
            taken += items;
            receive(letter);
            queue.items.fetch_sub(items, Ordering::SeqCst);
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

    /// Items that wait in the queue between two shards, and how often it was full.
    pub fn depth(&self, from: ShardId, to: ShardId) -> (usize, u64) {
        let queue = self.queue(Sender::Shard(from), to);
        (queue.items.load(Ordering::Relaxed), queue.stalls.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    const A: ShardId = ShardId(0);
    const B: ShardId = ShardId(1);

    impl Load for u32 {
        fn items(&self) -> usize {
            1
        }
    }

    impl Load for &str {
        fn items(&self) -> usize {
            self.len()
        }
    }

    #[test]
    fn a_queue_holds_so_many_items_in_however_many_letters() {
        let mesh = Mesh::new(2, 6);
        let push = |letter| mesh.push(Sender::Shard(A), B, letter);
        assert_eq!(push("four"), Ok(()));
        assert_eq!(mesh.room(Sender::Shard(A), B), 2);
        assert_eq!(push("six"), Err("six"));
        assert_eq!(push("by"), Ok(()));
        assert_eq!(mesh.room(Sender::Shard(A), B), 0);
        assert_eq!(mesh.take(Sender::Shard(A), B, 1, |letter| assert_eq!(letter, "four")), 4);
        assert_eq!(mesh.depth(A, B), (2, 2));
        assert_eq!(mesh.room(Sender::Shard(A), B), 4);
        assert_eq!(push("six"), Ok(()));
    }

    #[test]
    fn a_queue_without_a_slot_has_no_room() {
        let mesh = Mesh::new(2, 10 * SLOTS);
        for letter in 0..SLOTS as u32 {
            assert_eq!(mesh.push(Sender::Shard(A), B, letter), Ok(()));
        }
        assert_eq!(mesh.room(Sender::Shard(A), B), 0);
        assert_eq!(mesh.push(Sender::Shard(A), B, 7), Err(7));
        assert_eq!(mesh.depth(A, B), (SLOTS, 2));
    }

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
        assert_eq!(mesh.push(Sender::Side, A, 1), Ok(()));
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

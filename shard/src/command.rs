//! What operators and managers ask of running shards, and how the answer comes back.
//!
//! A command is a letter like any other: it takes its turn in the shard's queue, the shard answers through a [`Reply`] without
//! waiting, and nobody else touches its state. Every command is short work; what could be long comes in bounded pages.

use crate::board::Shown;
use crate::letter::Letter;
use crate::mesh::{Mesh, Sender};
use relay_core::relay::operator::{ConnectionView, MailboxView};
use relay_core::relay::redeposit::{Durable, RedepositPart};
use relay_core::relay::{Intake, Listed, MailboxOrder, Page, ShardId, Whom};
use relay_core::sstp::CloseReason;
use relay_core::store::RecordId;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often a full queue is tried again.
const ROOM_AGAIN: Duration = Duration::from_millis(1);

/// Where a shard's answer goes. Answering never waits; an answer that nobody awaits any more is dropped.
pub type Reply<T> = oneshot::Sender<T>;

/// One order to one shard.
#[derive(Debug)]
pub enum Command {
    /// What have you done, and what do you have?
    Status(Reply<Box<Shown>>),
    /// Which connections?
    Connections {
        /// Which of them.
        whom: Whom,
        /// Which part of the table.
        page: Page,
        /// The answer.
        reply: Reply<Listed<ConnectionView>>,
    },
    /// Which mailboxes come first?
    Mailboxes {
        /// In which order.
        order: MailboxOrder,
        /// Which part of the table.
        page: Page,
        /// The answer.
        reply: Reply<Listed<MailboxView>>,
    },
    /// End connections.
    Disconnect {
        /// Which ones.
        whom: Whom,
        /// ReasonId of ConnectClose.
        reason: CloseReason,
        /// ReturnTime, with [`CloseReason::Resting`].
        return_time: Duration,
        /// How many there were.
        reply: Reply<usize>,
    },
    /// Complete what has been received, tell every peer when to return, take nobody in; but go on running.
    Drain {
        /// Connections that are still there when the grace of a shutdown is over; 0 if all went well.
        reply: Reply<usize>,
    },
    /// Be in service again.
    EndDrain(Reply<()>),
    /// Which messages are there?
    Messages {
        /// Which part of the table.
        page: Page,
        /// The answer.
        reply: Reply<Listed<RecordId>>,
    },
    /// Take mail from a backup in.
    Redeposit {
        /// Parts of messages.
        parts: Vec<RedepositPart>,
        /// Counts them once they are durable.
        durable: Durable,
        /// They are taken.
        reply: Reply<()>,
    },
    /// The rest of a message from a backup will never come.
    GiveUpRedeposit {
        /// Its number.
        number: u64,
        /// It is forgotten.
        reply: Reply<()>,
    },
    /// Take these things in from now on, and nothing else.
    Intake(Intake, Reply<()>),
}

/// Why a shard does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoAnswer {
    /// There is no such shard.
    #[error("there is no shard {0}")]
    NoSuchShard(u16),
    /// It took too long.
    #[error("shard {0} does not answer in time")]
    Late(u16),
    /// It has ended.
    #[error("shard {0} has ended")]
    Gone(u16),
}

/// The way to all shards for whoever is no shard. Clones share it. Its calls may be made from any thread but a shard's.
#[derive(Clone, Debug)]
pub struct Shards(Arc<Mesh<Letter>>);

impl Shards {
    /// The shards on this mesh.
    pub fn new(mesh: Arc<Mesh<Letter>>) -> Self {
        Self(mesh)
    }

    /// How many there are.
    pub fn count(&self) -> u16 {
        self.0.shards()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.count()).map(ShardId)
    }

    /// Sends a command and waits for the answer, `patience` long in all.
    ///
    /// # Errors
    /// [`NoAnswer`]; after [`NoAnswer::Late`] the command may still be carried out.
    pub async fn ask<T>(
        &self,
        shard: ShardId,
        patience: Duration,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, NoAnswer> {
        if shard.0 >= self.count() {
            return Err(NoAnswer::NoSuchShard(shard.0));
        }
        let (reply, answer) = oneshot::channel();
        let asking = async {
            self.send(shard, Letter::Command(command(reply))).await;
            answer.await.map_err(|_| NoAnswer::Gone(shard.0))
        };
        tokio::time::timeout(patience, asking).await.unwrap_or(Err(NoAnswer::Late(shard.0)))
    }

    /// Waits until there is room for the letter.
    async fn send(&self, shard: ShardId, mut letter: Letter) {
        while let Err(back) = self.0.push(Sender::Side, shard, letter) {
            letter = back;
            self.0.ring(shard);
            tokio::time::sleep(ROOM_AGAIN).await;
        }
        self.0.ring(shard);
    }

    /// As [`Shards::ask`], of every shard at the same time; the answers come in the order of the shards.
    pub async fn ask_each<T: Send + 'static>(
        &self,
        patience: Duration,
        command: impl FnOnce(Reply<T>) -> Command + Clone + Send + 'static,
    ) -> Vec<Result<T, NoAnswer>> {
        let ask = |shard| {
            let (this, command) = (self.clone(), command.clone());
            (shard, tokio::spawn(async move { this.ask(shard, patience, command).await }))
        };
        let asked: Vec<_> = self.all().map(ask).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (shard, answer) in asked {
            answers.push(answer.await.unwrap_or(Err(NoAnswer::Gone(shard.0))));
        }
        answers
    }

    /// Letters that wait in the queue between two shards, and how often it was full.
    pub fn queue(&self, from: ShardId, to: ShardId) -> (usize, u64) {
        self.0.depth(from, to)
    }
}

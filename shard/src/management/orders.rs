//! Letters from the management thread to the shards: who is told what. It waits for room in their queues, and where a
//! change has to have taken effect, for them.

use crate::events;
use crate::letter::{Done, Letter};
use crate::mesh::{Mesh, Sender};
use relay_core::address::AccountUrl;
use relay_core::relay::home::home;
use relay_core::relay::mesh::Target;
use relay_core::relay::{Order, Receipt, ShardId};
use relay_core::spmr::Defaults;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use storage::{QuotaChange, StorageError, UserDatabase};
use tokio::sync::mpsc;

/// Things that one order names, so that it takes a shard no noticeable time.
const THINGS_AN_ORDER: usize = 256;
/// Tries, a millisecond apart, after which a shard is taken to have ended.
const TRIES: u32 = 5000;

/// The way to the shards.
pub(super) struct Orders {
    mesh: Arc<Mesh<Letter>>,
    /// How long shards may take to become quiescent.
    patience: Duration,
}

/// A shard did not do in time what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shards took too long")]
pub(super) struct TooSlow;

/// Why shards did not do what they were to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotDone {
    /// The user database cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// They took too long.
    #[error(transparent)]
    TooSlow(#[from] TooSlow),
}

impl Orders {
    pub(super) fn new(mesh: Arc<Mesh<Letter>>, patience: Duration) -> Self {
        Self { mesh, patience }
    }

    fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.mesh.shards()).map(ShardId)
    }

    async fn post(&self, shard: ShardId, mut letter: Letter) {
        for _ in 0..TRIES {
            match self.mesh.push(Sender::Side, shard, letter) {
                Ok(()) => return self.mesh.ring(shard),
                Err(back) => letter = back,
            }
            self.mesh.ring(shard);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tracing::error!(event = events::SHARD_DEAF, shard = shard.0, "the shard takes no letters");
    }

    /// Gives every shard each order about accounts with one home, and waits until all are obeyed.
    async fn give<T: Clone>(
        &self,
        things: Vec<(ShardId, T)>,
        order: impl Fn(Arc<[T]>) -> Order,
    ) -> Result<(), TooSlow> {
        let (done, ended) = mpsc::channel::<Infallible>(1);
        let receipt: Receipt = Arc::new(done);
        for at in self.shards() {
            let here: Vec<T> =
                things.iter().filter(|(shard, _)| *shard == at).map(|(_, thing)| thing.clone()).collect();
            for some in here.chunks(THINGS_AN_ORDER) {
                let some: Arc<[T]> = some.into();
                for shard in self.shards() {
                    let (order, receipt) = (order(some.clone()), receipt.clone());
                    self.post(shard, Letter::Order { home: at, order, receipt }).await;
                }
            }
        }
        drop(receipt);
        self.wait(ended).await
    }

    fn home(&self, account: &AccountUrl) -> ShardId {
        home(account, self.mesh.shards())
    }

    /// What an account's mail can be targeted to.
    fn targets(
        &self,
        users: &UserDatabase,
        accounts: &[AccountUrl],
    ) -> Result<Vec<(ShardId, Target)>, StorageError> {
        let mut targets = Vec::new();
        for account in accounts {
            let home = self.home(account);
            targets.push((home, Target::Account(account.clone())));
            let devices = users.read_account(account)?.unwrap_or_default().devices;
            targets.extend(devices.into_iter().map(|device| (home, Target::Device(account.clone(), device))));
        }
        Ok(targets)
    }

    /// Accounts are locked out.
    pub(super) async fn lock_out(
        &self,
        users: &UserDatabase,
        accounts: &[AccountUrl],
    ) -> Result<(), NotDone> {
        Ok(self.give(self.targets(users, accounts)?, Order::LockOut).await?)
    }

    /// What waits for accounts is to be deleted.
    pub(super) async fn purge(&self, users: &UserDatabase, accounts: &[AccountUrl]) -> Result<(), NotDone> {
        Ok(self.give(self.targets(users, accounts)?, Order::Purge).await?)
    }

    /// Quotas have changed.
    pub(super) async fn quotas(&self, changes: Vec<QuotaChange>) -> Result<(), NotDone> {
        let things = changes
            .into_iter()
            .map(|(account, identity, quota)| (self.home(&account), (identity, quota)))
            .collect();
        Ok(self.give(things, Order::Quota).await?)
    }

    /// Defaults have changed.
    pub(super) async fn defaults(&self, defaults: Defaults) -> Result<(), NotDone> {
        self.all(|done| Letter::Defaults(defaults, done)).await
    }

    /// Makes all shards quiescent.
    pub(super) async fn rest(&self) -> Result<(), NotDone> {
        self.all(Letter::Rest).await
    }

    /// Makes all shards serve again.
    pub(super) async fn resume(&self) -> Result<(), NotDone> {
        self.all(Letter::Resume).await
    }

    /// Asks all shards, and waits until each has done it.
    async fn all(&self, letter: impl Fn(Done) -> Letter) -> Result<(), NotDone> {
        let (done, ended) = mpsc::channel(1);
        for shard in self.shards() {
            self.post(shard, letter(done.clone())).await;
        }
        drop(done);
        Ok(self.wait(ended).await?)
    }

    /// Waits for the end of all that holds the other side of the channel. A shard may take all of its time to become quiescent.
    async fn wait(&self, mut ended: mpsc::Receiver<Infallible>) -> Result<(), TooSlow> {
        let all = tokio::time::timeout(2 * self.patience, ended.recv()).await;
        all.map_or(Err(TooSlow), |_nothing| Ok(()))
    }
}

//! What the management of users means for mail and connections that are there: locking accounts out, deleting their mail,
//! changing quotas and defaults, and being quiescent (management-soap-spmr 7.8 to 7.11). The records themselves have
//! changed already, by other hands; nothing here waits for them.
//!
//! An order is given to every shard, and each passes it to the shard whose mail it is about. So it arrives there
//! behind all that the others have sent under the old records.

use super::home::ShardId;
use super::mesh::{ConnectionId, MeshItem, Target};
use super::{Action, Relay};
use crate::address::{AccountUrl, IdentityUrl};
use crate::directory::Unreadable;
use crate::sstp::CloseReason;
use crate::time::Timestamp;
use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

/// Messages that a purge deletes before others have their turn.
const PURGED_A_TURN: usize = 1024;

/// Goes along with an order, a clone with each copy and with what follows from it: once the last one is gone, the order has been
/// obeyed.
pub type Receipt = Arc<dyn Any + Send + Sync>;

/// An order about accounts of which one shard is the home. Each names at most a few hundred things, so that it takes a shard
/// no noticeable time.
#[derive(Clone, Debug)]
pub enum Order {
    /// These accounts are locked out: nobody collects their mail, and nobody sends to them. What waits for them stays.
    LockOut(Arc<[Target]>),
    /// What waits for these is to be deleted.
    Purge(Arc<[Target]>),
    /// Bytes of mail that may wait for these identities; `None` for the default.
    Quota(Arc<[(IdentityUrl, Option<u64>)]>),
}

impl Relay {
    /// Passes an order to its home. The driver gives each order to every shard.
    pub fn order(&mut self, now: Timestamp, home: ShardId, order: Order, receipt: Receipt) {
        self.now = now;
        self.mesh.send(home, MeshItem::Order(order, receipt));
        self.settle();
    }

    /// Sets the defaults that are given; they hold for the next message.
    pub fn set_defaults(&mut self, quota_per_identity: Option<u64>, lifetime: Option<Duration>) {
        let config = Arc::make_mut(&mut self.config);
        config.quota_per_identity = quota_per_identity.unwrap_or(config.quota_per_identity);
        config.lifetime = lifetime.unwrap_or(config.lifetime);
    }

    /// Ends what [`Relay::drain`] began: newcomers are let in again, and those that stayed are read again.
    pub fn resume(&mut self, now: Timestamp) {
        self.now = now;
        self.draining = false;
        let paused: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.paused).map(|(_, peer)| peer.id).collect();
        for connection in paused {
            if self.may_read(connection) {
                self.actions.push_back(Action::Resume { connection });
            }
        }
    }

    pub(super) fn obey(&mut self, order: &Order, receipt: &Receipt) {
        match order {
            Order::LockOut(targets) => {
                self.in_mailroom(|room, around| room.lock_out(around, targets, receipt));
            }
            Order::Purge(targets) => {
                self.in_mailroom(|room, around| room.purge(around, targets));
                self.purge_on();
            }
            Order::Quota(quotas) => self.in_mailroom(|room, _| room.set_quotas(quotas)),
        }
    }

    /// Goes on with purges, for one turn.
    pub(super) fn purge_on(&mut self) {
        self.in_mailroom(|room, around| room.purge_some(around, PURGED_A_TURN));
    }

    /// The account of a target that this connection collects is locked out: its mail is no more for this connection, and a
    /// connection whose device has no other account ends.
    pub(super) fn evict(&mut self, id: ConnectionId, target: &Target) {
        let Some(peer) = self.live_peer(id).filter(|peer| !peer.connection.is_ended()) else { return };
        let Some(index) = peer.collects.iter().position(|(_, collected)| collected == target) else { return };
        let (shard, target) = peer.collects.swap_remove(index);
        match &target {
            Target::Account(account) => {
                while let Some(index) = peer.attachments.iter().position(|a| a.account == *account) {
                    let event = peer.attachments.swap_remove(index).event;
                    peer.connection.close_session(event, CloseReason::UserAuthenticationFailed);
                }
            }
            Target::Device(_, device) => {
                let record = self.directory.device(device).map(Option::unwrap_or_default);
                // What cannot be read may say so as well: then its next Connect waits for the answer.
                let hit = record.and_then(|record| self.has_only_locked_out_accounts(&record));
                if hit.unwrap_or(true) {
                    // Its next Connect is rejected, and says so.
                    self.connection(id).close(CloseReason::NoReason, 0);
                }
            }
        }
        self.mesh.send(shard, MeshItem::Uncollect { target, connection: id });
        self.poll_connection(id);
    }

    pub(super) fn is_account_locked_out(&self, account: &AccountUrl) -> Result<bool, Unreadable> {
        Ok(self.directory.account(account)?.is_some_and(|record| record.locked_out))
    }
}

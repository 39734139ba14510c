//! What shards say to each other about presence. A [`Note`] tells how something stands, not that it changed: a later
//! note about the same thing makes an earlier one that has not been sent yet unnecessary, so that nothing queues up
//! for a shard that is slow.

use crate::address::DeviceUrl;
use crate::presence::Status;

/// Notes of one mesh item. A receiver may have to mark a hundred subscribers for each.
pub(super) const NOTES_A_BATCH: usize = 1024;

/// Names a device that somebody on a shard watches, on that shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WatchedId {
    pub(super) index: u32,
    /// Tells it from others that had the index before it.
    pub(super) generation: u32,
}

/// Names what one session of a connection publishes about one device, on the connection's shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PublicationId {
    pub(super) index: u32,
    /// Tells it from others that had the index before it.
    pub(super) generation: u32,
}

/// One thing that one shard tells another about presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// To the device's home: somebody here watches the device; always answered by a [`Note::Status`].
    Watch {
        /// The device.
        device: DeviceUrl,
        /// Where the status is to go.
        watched: WatchedId,
    },
    /// To the device's home: nobody here watches it any more.
    Unwatch {
        /// The device.
        device: DeviceUrl,
        /// Where the status went.
        watched: WatchedId,
    },
    /// To the device's home: a session here publishes this.
    Publish {
        /// The device.
        device: DeviceUrl,
        /// The session's word on it.
        publication: PublicationId,
        /// What it says.
        status: Status,
    },
    /// To the device's home: the session is gone, or says nothing any more.
    Withdraw {
        /// The device.
        device: DeviceUrl,
        /// The session's word on it.
        publication: PublicationId,
    },
    /// From the device's home: how it stands.
    Status {
        /// The device, as the receiver named it.
        watched: WatchedId,
        /// Its status.
        status: Status,
    },
}

//! Every number of WAN DPP, with its provenance: *seen* in a published document, *inferred* from one, or *ours*. The message layer of
//! the published protocol could not be read, so that its payload bytes are this project's own (wire-profile sec. 4).
//! One fact learnt later changes one line here.

use std::time::Duration;

/// First byte of every message (ours, wire-profile 4).
pub const MAJOR_VERSION: u8 = 1;
/// Second byte of every message (ours, wire-profile 4).
pub const MINOR_VERSION: u8 = 0;
/// Fourth byte of every message (ours, wire-profile 4).
pub const RESERVED: u8 = 0;
/// Versions, MessageId, reserved byte and total length (ours, wire-profile 4).
pub const HEADER_BYTES: usize = 8;
/// The most devices that one message names: its count is 16 bits wide (ours, wire-profile 4).
pub const MAX_DEVICES: usize = u16::MAX as usize;

/// MessageId of Publish (ours, wire-profile 4; the name is seen in the overview document).
pub const PUBLISH: u8 = 1;
/// MessageId of Subscribe (ours, wire-profile 4; the name is seen in the overview document).
pub const SUBSCRIBE: u8 = 2;
/// MessageId of Unsubscribe (ours, wire-profile 4; the name is seen in the overview document).
pub const UNSUBSCRIBE: u8 = 3;
/// MessageId of Notify (ours, wire-profile 4; the name is seen in the shared glossary).
pub const NOTIFY: u8 = 4;

/// Status byte *unknown* (ours, wire-profile 4; the status itself is seen as a display state of clients).
pub const STATUS_UNKNOWN: u8 = 0;
/// Status byte *online* (ours, wire-profile 4; the status itself is seen).
pub const STATUS_ONLINE: u8 = 1;
/// Status byte *offline* (ours, wire-profile 4; the status itself is seen).
pub const STATUS_OFFLINE: u8 = 2;
/// Status byte *away* (ours, wire-profile 4).
pub const STATUS_AWAY: u8 = 3;

/// The most presence sessions of one connection (ours): several are allowed (presence-wan-dpp 2.2, inferred), and eight are more
/// than anybody has a use for.
pub const MAX_SESSIONS: usize = 8;
/// Default coalescing window of Notify (ours, wire-profile 4).
pub const WINDOW: Duration = Duration::from_millis(100);
/// Default time for which a device that lost its last connection is still shown as it was (ours, presence-wan-dpp 6).
pub const OFFLINE_DAMPING: Duration = Duration::ZERO;
/// Default for the subscriptions of one connection (ours).
pub const SUBSCRIPTIONS_PER_CONNECTION: usize = 10_000;
/// Default for the subscribers of one device on one shard (ours).
pub const SUBSCRIBERS_PER_DEVICE: usize = 10_000;
/// Payload bytes after which the relay ends a Notify and begins another one (ours): eight Data commands.
pub const NOTIFY_BYTES: usize = 16 << 10;
/// Payload bytes after which our client ends a Subscribe or Unsubscribe and begins another one (ours).
pub const REQUEST_BYTES: usize = 16 << 10;

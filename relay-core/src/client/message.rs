//! A message on its way out, and how it may fail.

use super::destination::Destination;
use crate::sstp::profile::flags;
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, OpenResponseId};
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

/// The longest UserRef that we send, in bytes: it has to fit a Message command beside the optional fields.
const MAX_USER_REF_BYTES: usize = 1024;

/// Names a message of ours in the life of a [`Client`](super::Client).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub u64);

/// The body of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In memory.
    Whole(Bytes),
    /// Asked for in pieces, from the beginning again after each loss: it has to give the same bytes each time.
    Pulled {
        /// Bytes in all.
        length: u64,
    },
}

impl Body {
    /// Bytes in all.
    pub fn length(&self) -> u64 {
        match self {
            Body::Whole(bytes) => bytes.len() as u64,
            Body::Pulled { length } => *length,
        }
    }

    /// Bytes that it occupies while it waits.
    pub fn bytes_in_memory(&self) -> usize {
        match self {
            Body::Whole(bytes) => bytes.len(),
            Body::Pulled { .. } => 0,
        }
    }
}

/// What the application wants sent.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    pub(super) destination: Arc<Destination>,
    pub(super) body: Body,
    pub(super) flags: u8,
    pub(super) lifetime: Option<u32>,
    pub(super) user_ref: Text,
}

/// A UserRef of more than 1024 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a UserRef of {0} bytes; at most {MAX_USER_REF_BYTES} are allowed")]
pub struct UserRefTooLong(pub usize);

impl OutgoingMessage {
    /// A message that asks for prompt acknowledgement.
    pub fn new(destination: Arc<Destination>, body: Body) -> Self {
        Self { destination, body, flags: flags::A, lifetime: None, user_ref: Text::EMPTY }
    }

    /// Flag D: recipients that are offline do not get it.
    pub fn only_if_online(mut self) -> Self {
        self.flags |= flags::D;
        self
    }

    /// Flag E: after so many seconds it is no longer worth delivering.
    pub fn lifetime_seconds(mut self, seconds: u32) -> Self {
        self.flags |= flags::E;
        self.lifetime = Some(seconds);
        self
    }

    /// Flag A unset: the acknowledgement may come up to the relay's timer later, which is cheaper in bulk. The last message of a burst should
    /// keep the flag.
    pub fn acknowledged_at_leisure(mut self) -> Self {
        self.flags &= !flags::A;
        self
    }

    /// A string that travels with the message.
    ///
    /// # Errors
    /// [`UserRefTooLong`].
    pub fn user_ref(mut self, user_ref: Text) -> Result<Self, UserRefTooLong> {
        if user_ref.as_bytes().len() > MAX_USER_REF_BYTES {
            return Err(UserRefTooLong(user_ref.as_bytes().len()));
        }
        self.user_ref = user_ref;
        Ok(self)
    }

    /// Where it goes.
    pub fn destination(&self) -> &Arc<Destination> {
        &self.destination
    }

    /// Its body.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// What stands behind the flags of the Message command (wire-profile 1).
    pub(super) fn tail(&self) -> Bytes {
        let mut tail = BytesMut::with_capacity(self.user_ref.as_bytes().len() + 5);
        tail.put_slice(self.user_ref.as_bytes());
        tail.put_u8(0);
        if let Some(seconds) = self.lifetime {
            tail.put_u32_le(seconds);
        }
        tail.freeze()
    }
}

/// Why a message is not even queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// Too many messages or bytes wait; try again after some have been acknowledged.
    #[error("the queue of outgoing messages is full")]
    Full,
    /// A body in memory that is larger than the whole queue may be; let it be pulled instead.
    #[error("a body of {0} bytes in memory, which is more than the queue may hold")]
    TooLong(usize),
    /// The client is closing.
    #[error("the client is closed")]
    Closed,
}

/// Why a queued message was given up. It may have arrived all the same, for some recipients or for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendFailure {
    /// The relay does not open a session towards the destination.
    #[error("the relay refused the destination: {0}")]
    Refused(OpenResponseId),
    /// The relay closed the session while the message was on its way.
    #[error("the relay closed the session: {0}")]
    Closed(CloseReason),
    /// The URLs of resource, identity and device do not fit one Open.
    #[error("the URLs of resource, identity and device are too long together")]
    AddressTooLong,
    /// So many recipients that no FanoutOpen holds them.
    #[error("too many recipients for one session")]
    TooManyRecipients,
    /// The body could not be read.
    #[error("the body could not be read")]
    BodyUnavailable,
    /// The client was closed before the relay acknowledged it.
    #[error("the client was closed")]
    ClientClosed,
}

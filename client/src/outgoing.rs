//! A message as an application writes it, and what becomes of it.

use crate::body::{Body, Source};
use relay_core::address::{DeviceUrl, IdentityUrl, ResourceUrl};
use relay_core::client::{
    Body as QueuedBody, Destination, OutgoingMessage, QueueError, Recipient, SendFailure,
};
use relay_core::sstp::StatusId;
use relay_core::sstp::text::Text;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::oneshot;

/// The resource handler of messages that name none.
const DEFAULT_RESOURCE: &str = "furrow.mail";

/// A message to be sent. Made with [`Message::to`], completed with the other methods.
#[derive(Clone, Debug)]
pub struct Message {
    recipients: Vec<Recipient>,
    resource: ResourceUrl,
    body: Body,
    user_ref: String,
    lifetime: Option<Duration>,
    only_if_online: bool,
    at_leisure: bool,
}

impl Message {
    /// An empty message to an identity, on whatever device it is.
    pub fn to(identity: IdentityUrl) -> Self {
        Self::to_recipient(Recipient::identity(identity))
    }

    /// An empty message to a recipient.
    pub fn to_recipient(recipient: Recipient) -> Self {
        Self {
            recipients: vec![recipient],
            resource: ResourceUrl::new(DEFAULT_RESOURCE).expect("the default resource is a URL"),
            body: Body::default(),
            user_ref: String::new(),
            lifetime: None,
            only_if_online: false,
            at_leisure: false,
        }
    }

    /// Restricts the last recipient to one device.
    pub fn device(mut self, device: DeviceUrl) -> Self {
        if let Some(last) = self.recipients.last_mut() {
            last.device = Some(device);
        }
        self
    }

    /// One more recipient: the message goes to the relay once and from there to all.
    pub fn and_to(mut self, recipient: Recipient) -> Self {
        self.recipients.push(recipient);
        self
    }

    /// The resource handler on the recipient's side; `furrow.mail` if none is named.
    pub fn resource(mut self, resource: ResourceUrl) -> Self {
        self.resource = resource;
        self
    }

    /// The body; empty if none is given.
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    /// A string that travels with the message: ASCII without zero bytes, at most 1024 bytes.
    pub fn user_ref(mut self, user_ref: impl Into<String>) -> Self {
        self.user_ref = user_ref.into();
        self
    }

    /// How long it is worth delivering, in whole seconds.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }

    /// Recipients that are offline do not get it.
    pub fn only_if_online(mut self) -> Self {
        self.only_if_online = true;
        self
    }

    /// The relay may take its time to acknowledge; cheaper in bulk.
    pub fn acknowledged_at_leisure(mut self) -> Self {
        self.at_leisure = true;
        self
    }

    pub(crate) fn into_parts(self) -> Result<(OutgoingMessage, Option<Body>), SendError> {
        let mut recipients = self.recipients.into_iter();
        let first = recipients.next().expect("a message has a recipient from the beginning");
        let destination = recipients.fold(Destination::new(self.resource, first), Destination::and);
        let (body, source) = match self.body.0 {
            Source::Whole(bytes) => (QueuedBody::Whole(bytes), None),
            Source::Pieces(source) => {
                (QueuedBody::Pulled { length: source.length() }, Some(Body(Source::Pieces(source))))
            }
        };
        let mut message = OutgoingMessage::new(Arc::new(destination), body);
        if self.only_if_online {
            message = message.only_if_online();
        }
        if let Some(lifetime) = self.lifetime {
            message = message.lifetime_seconds(lifetime.as_secs().min(u32::MAX.into()) as u32);
        }
        if self.at_leisure {
            message = message.acknowledged_at_leisure();
        }
        let user_ref = Text::new(self.user_ref.into_bytes()).ok_or(SendError::UserRef)?;
        Ok((message.user_ref(user_ref).map_err(|_| SendError::UserRef)?, source))
    }
}

/// Why a message was not sent, or perhaps not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// It was not even queued.
    #[error(transparent)]
    NotQueued(#[from] QueueError),
    /// It was given up. It may have arrived all the same.
    #[error(transparent)]
    Failed(#[from] SendFailure),
    /// The user reference is too long or not ASCII.
    #[error("the user reference has to be at most 1024 ASCII characters")]
    UserRef,
}

/// The relay has the message safely.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Recipients that will not get it, by their index in the message, and why. Always empty for a single recipient.
    pub failed: Vec<(u16, StatusId)>,
}

/// A message on its way: a future of its [`Receipt`]. Dropping it changes nothing for the message.
#[derive(Debug)]
pub struct Delivery(pub(crate) oneshot::Receiver<Result<Receipt, SendError>>);

impl Future for Delivery {
    type Output = Result<Receipt, SendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let closed = Err(SendError::Failed(SendFailure::ClientClosed));
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.unwrap_or(closed))
    }
}

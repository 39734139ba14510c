//! Messages as an application receives them: head first, body in pieces, acknowledged when dealt with.

use crate::driver::Command;
use bytes::{Buf, Bytes, BytesMut};
use relay_core::client::{IncomingHead, IncomingId};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::{Mutex, mpsc};

/// The stream of incoming messages. Clones and further calls of [`Client::incoming`](crate::Client::incoming) share it: each
/// message goes to one of them.
#[derive(Clone, Debug)]
pub struct Incoming(pub(crate) Arc<Mutex<mpsc::UnboundedReceiver<Received>>>);

impl Incoming {
    /// The next message, as soon as it begins to arrive; `None` once the client is closed. Dropping the future loses
    /// nothing.
    pub async fn recv(&mut self) -> Option<Received> {
        self.0.lock().await.recv().await
    }
}

/// What the driver tells the reader of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(VecDeque<Bytes>),
    End,
    Lost,
}

/// A message. Dropped without [`acknowledge`](Received::acknowledge), it comes again later.
#[derive(Debug)]
pub struct Received {
    head: IncomingHead,
    body: IncomingBody,
    answered: bool,
}

impl Received {
    pub(crate) fn new(
        id: IncomingId,
        head: IncomingHead,
        pieces: mpsc::UnboundedReceiver<Piece>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        let body = IncomingBody { id, pieces, commands, ready: VecDeque::new(), state: Reading::Open };
        Self { head, body, answered: false }
    }

    /// The resource handler for which it is.
    pub fn resource(&self) -> &str {
        self.head.address.resource.as_str()
    }

    /// The identity to which it was sent.
    pub fn identity(&self) -> &str {
        self.head.address.identity.as_str()
    }

    /// The device to which it was sent; empty if it was sent to the identity alone.
    pub fn device(&self) -> &str {
        self.head.address.device.as_str()
    }

    /// The sender's user reference; may be empty.
    pub fn user_ref(&self) -> &str {
        std::str::from_utf8(self.head.user_ref()).unwrap_or_default()
    }

    /// How long the sender thought it worth delivering.
    pub fn lifetime(&self) -> Option<Duration> {
        self.head.lifetime_seconds().map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// The flag byte of the Message command.
    pub fn flags(&self) -> u8 {
        self.head.flags
    }

    /// The body, to be read in pieces or as an [`AsyncRead`].
    pub fn body(&mut self) -> &mut IncomingBody {
        &mut self.body
    }

    /// The rest of the body as a whole.
    ///
    /// # Errors
    /// [`BodyError::TooLong`] if it is longer than `limit` bytes, [`BodyError::Lost`].
    pub async fn bytes(&mut self, limit: usize) -> Result<Bytes, BodyError> {
        let Some(first) = self.body.chunk().await? else { return Ok(Bytes::new()) };
        let mut whole = BytesMut::new();
        let mut next = Some(first);
        while let Some(chunk) = next {
            if whole.len() + chunk.len() > limit {
                return Err(BodyError::TooLong(limit));
            }
            whole.extend_from_slice(&chunk);
            next = self.body.chunk().await?;
        }
        Ok(whole.freeze())
    }

    /// The message has been dealt with: the relay may forget it. Unread bytes are dropped.
    pub fn acknowledge(mut self) {
        self.answered = true;
        self.body.tell(Command::Acknowledge(self.body.id));
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        if !self.answered {
            self.body.tell(Command::GiveBack(self.body.id));
        }
    }
}

/// Why a body cannot be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The connection was lost in the middle: the message will come again.
    #[error("the connection was lost in the middle of the message; it will come again")]
    Lost,
    /// Longer than the reader allows.
    #[error("the body is longer than {0} bytes")]
    TooLong(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    Ended,
    Lost,
}

/// The body of a [`Received`] message.
#[derive(Debug)]
pub struct IncomingBody {
    id: IncomingId,
    pieces: mpsc::UnboundedReceiver<Piece>,
    commands: mpsc::UnboundedSender<Command>,
    ready: VecDeque<Bytes>,
    state: Reading,
}

impl IncomingBody {
    /// The next bytes; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`BodyError::Lost`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        std::future::poll_fn(|context| self.poll_chunk(context)).await
    }

    fn poll_chunk(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        let chunk = ready!(self.poll_unreported(context));
        if let Ok(Some(chunk)) = &chunk {
            self.tell(Command::Consumed { id: self.id, bytes: chunk.len() });
        }
        Poll::Ready(chunk)
    }

    /// The next bytes, of which the driver does not know yet that they leave.
    fn poll_unreported(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BodyError>> {
        loop {
            if let Some(chunk) = self.ready.pop_front() {
                return Poll::Ready(Ok(Some(chunk)));
            }
            match self.state {
                Reading::Open => match ready!(self.pieces.poll_recv(context)) {
                    Some(Piece::Data(chunks)) => self.ready = chunks,
                    Some(Piece::End) => self.state = Reading::Ended,
                    Some(Piece::Lost) | None => self.state = Reading::Lost,
                },
                Reading::Ended => return Poll::Ready(Ok(None)),
                Reading::Lost => return Poll::Ready(Err(BodyError::Lost)),
            }
        }
    }

    /// Tells the driver; if it is gone, so is the message.
    fn tell(&self, command: Command) {
        if self.commands.send(command).is_err() {
            tracing::debug!("the client is closed; the message will come again");
        }
    }
}

impl AsyncRead for IncomingBody {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut chunk = match ready!(self.poll_unreported(context)) {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Poll::Ready(Ok(())),
            Err(error) => return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, error))),
        };
        let taken = chunk.len().min(buffer.remaining());
        buffer.put_slice(&chunk[..taken]);
        chunk.advance(taken);
        self.tell(Command::Consumed { id: self.id, bytes: taken });
        if !chunk.is_empty() {
            self.ready.push_front(chunk);
        }
        Poll::Ready(Ok(()))
    }
}

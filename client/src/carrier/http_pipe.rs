//! A virtual connection made of HTTP requests: the sockets around the machine of [`relay_core::http::client`].

use crate::clock::Clock;
use crate::entropy::SystemEntropy;
use bytes::{Buf, Bytes, BytesMut};
use relay_core::http::Encapsulation;
use relay_core::http::client::{Action, HttpClient, HttpClientConfig, Wire};
use relay_core::sstp::output::OutputQueue;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the last words may take.
const LINGER: Duration = Duration::from_secs(1);
/// What one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// How long one TCP connection may take to open.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

type Dialling = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// A TCP connection, to the relay or to a proxy.
enum Socket {
    Dialling(Dialling),
    Open { stream: TcpStream, unsent: BytesMut },
}

/// See the module's head.
pub(crate) struct HttpPipe {
    machine: HttpClient,
    clock: Clock,
    /// What is dialled.
    address: String,
    /// Its two connections are endless.
    long_lived: bool,
    sockets: [Option<Socket>; 2],
    buffer: Box<[u8]>,
}

impl fmt::Debug for HttpPipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpPipe").field("address", &self.address).finish_non_exhaustive()
    }
}

impl HttpPipe {
    /// Opens a virtual connection over TCP connections to `address`, as far as the handshake of the encapsulation goes.
    pub(crate) async fn open(config: HttpClientConfig, address: String, clock: Clock) -> io::Result<Self> {
        let long_lived = config.encapsulation == Encapsulation::LongLived;
        let machine = HttpClient::new(config, clock.now(), &mut SystemEntropy::default());
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        let mut pipe = Self { machine, clock, address, long_lived, sockets: [None, None], buffer };
        while !pipe.machine.is_established() {
            pipe.check()?;
            pipe.turn().await;
        }
        Ok(pipe)
    }

    fn check(&self) -> io::Result<()> {
        match self.machine.failure() {
            Some(error) => Err(io::Error::other(error)),
            None => Ok(()),
        }
    }

    /// Waits until there is something to read (if wanted) or room to write (if wanted), and meanwhile keeps the requests going.
    pub(crate) async fn ready(&mut self, read: bool, write: bool) -> io::Result<()> {
        loop {
            if read && self.machine.has_received() || write && self.machine.has_room() {
                return Ok(());
            }
            if !self.machine.has_received() {
                self.check()?;
            }
            self.turn().await;
        }
    }

    pub(crate) fn read(&mut self) -> io::Result<Option<Bytes>> {
        match self.machine.receive(self.clock.now()) {
            Some(bytes) => Ok(Some(bytes)),
            None => self.check().map(|()| None),
        }
    }

    pub(crate) fn write(&mut self, output: &mut OutputQueue) -> io::Result<bool> {
        let any = self.machine.send(self.clock.now(), output);
        self.act();
        if any { Ok(true) } else { self.check().map(|()| false) }
    }

    /// Lets one thing happen: bytes come or go, a connection opens or ends, a time is over.
    async fn turn(&mut self) {
        self.act();
        let due = self.machine.poll_timeout().map(|due| self.clock.until(due));
        let mut time = pin!(async {
            match due {
                Some(due) => tokio::time::sleep(due).await,
                None => std::future::pending().await,
            }
        });
        poll_fn(|context| {
            let mut any = false;
            for wire in [Wire::Get, Wire::Post] {
                any |= self.poll_socket(context, wire);
            }
            if time.as_mut().poll(context).is_ready() {
                self.machine.handle_timeout(self.clock.now());
                any = true;
            }
            if any { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        self.act();
    }

    /// Does what the machine wants done.
    fn act(&mut self) {
        while let Some(action) = self.machine.next_action() {
            match action {
                Action::Dial(wire) => self.sockets[wire as usize] = Some(Socket::Dialling(self.dial())),
                Action::Send(wire, bytes) => {
                    if let Some(Socket::Open { unsent, .. }) = &mut self.sockets[wire as usize] {
                        unsent.extend_from_slice(&bytes);
                        self.write_socket(wire);
                    }
                }
                Action::HangUp(wire) => self.sockets[wire as usize] = None,
            }
        }
    }

    fn dial(&self) -> Dialling {
        let address = self.address.clone();
        Box::pin(async move {
            let stream = timeout(DIAL_TIMEOUT, TcpStream::connect(address)).await??;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }

    /// Whether anything happened on the wire.
    fn poll_socket(&mut self, context: &mut Context<'_>, wire: Wire) -> bool {
        match &mut self.sockets[wire as usize] {
            None => false,
            Some(Socket::Dialling(dialling)) => match dialling.as_mut().poll(context) {
                Poll::Pending => false,
                Poll::Ready(Ok(stream)) => {
                    let unsent = BytesMut::new();
                    self.sockets[wire as usize] = Some(Socket::Open { stream, unsent });
                    self.machine.connected(self.clock.now(), wire);
                    true
                }
                Poll::Ready(Err(error)) => self.lost(wire, &error),
            },
            Some(Socket::Open { .. }) => {
                let wrote = self.poll_write(context, wire);
                self.poll_read(context, wire) || wrote
            }
        }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, wire: Wire) -> bool {
        if !self.machine.wants_read(wire) {
            return false;
        }
        loop {
            let Some(Socket::Open { stream, .. }) = &self.sockets[wire as usize] else { return true };
            match stream.poll_read_ready(context) {
                Poll::Pending => return false,
                Poll::Ready(Err(error)) => return self.lost(wire, &error),
                Poll::Ready(Ok(())) => {}
            }
            match stream.try_read(&mut self.buffer) {
                Ok(0) => return self.lost(wire, &io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    self.machine.received(self.clock.now(), wire, &self.buffer[..length]);
                    return true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return self.lost(wire, &error),
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, wire: Wire) -> bool {
        loop {
            let Some(Socket::Open { stream, unsent }) = &self.sockets[wire as usize] else { return true };
            if unsent.is_empty() || stream.poll_write_ready(context).is_pending() {
                return false;
            }
            if self.write_socket(wire) {
                return true;
            }
        }
    }

    /// Sends what goes without waiting; whether that was all, or the connection is gone.
    fn write_socket(&mut self, wire: Wire) -> bool {
        while let Some(Socket::Open { stream, unsent }) = &mut self.sockets[wire as usize] {
            match stream.try_write(unsent) {
                Ok(count) => unsent.advance(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) => return self.lost(wire, &error),
            }
            if unsent.is_empty() {
                self.machine.sent(self.clock.now(), wire);
                return true;
            }
        }
        true
    }

    fn lost(&mut self, wire: Wire, error: &io::Error) -> bool {
        tracing::trace!(?wire, %error, "an HTTP connection has ended");
        self.sockets[wire as usize] = None;
        self.machine.lost(self.clock.now(), wire);
        true
    }

    /// Sends the last words and waits a little for the relay to have read them.
    pub(crate) async fn hang_up(mut self, last_words: Bytes) {
        let mut output = OutputQueue::default();
        output.encode(|out| out.extend_from_slice(&last_words));
        let farewell = async {
            while !output.is_empty() || !self.machine.is_flushed() {
                self.write(&mut output)?;
                self.check()?;
                if !self.machine.is_flushed() {
                    self.turn().await;
                    while self.read()?.is_some() {}
                }
            }
            // Only there may last words be on their way that nothing has answered yet.
            let [get, post] = &mut self.sockets;
            if self.long_lived
                && let (Some(Socket::Open { stream: get, .. }), Some(Socket::Open { stream: post, .. })) =
                    (get, post)
            {
                post.shutdown().await?;
                while get.read(&mut self.buffer).await? > 0 {}
            }
            io::Result::Ok(())
        };
        if let Ok(Err(error)) = timeout(LINGER, farewell).await {
            tracing::debug!(%error, "the relay did not take our last words");
        }
    }
}

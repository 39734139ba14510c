//! A client's end of one virtual connection, as a machine without I/O.
//!
//! The driver does what [`Action`]s say, calls back what became of it, and between them passes the stream:
//! [`HttpClient::send`] takes what SSTP has to say, [`HttpClient::receive`] gives what the relay said. There are at most two
//! TCP connections at a time, the [`Wire`]s, each to the relay or to the proxy.

mod keep_alive;
mod long_lived;
mod polling;
mod wire;

pub use wire::Wire;

use super::guid::Guid;
use super::head::{self, HeadError, RequestHeaders};
use super::poll::PollError;
use super::profile::{CONNECTION_ESTABLISHMENT, INBOX_BYTES, OUTBOX_BYTES, PORT};
use super::proxy::Credentials;
use super::target::{self, Encapsulation};
use crate::sstp::output::OutputQueue;
use crate::time::{Entropy, Timestamp};
use bytes::{Bytes, BytesMut};
use polling::Polling;
use std::collections::VecDeque;
use std::io::IoSlice;
use wire::WireState;

/// Which relay, and by which way.
#[derive(Clone, Debug)]
pub struct HttpClientConfig {
    /// LongLived, KeepAlive or Polling.
    pub encapsulation: Encapsulation,
    /// The relay, `HOST:PORT` or `HOST`.
    pub authority: String,
    /// Requests go to an HTTP proxy, with these credentials if it wants some.
    pub proxy: Option<Option<Credentials>>,
}

/// Something that only the driver can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a TCP connection to the relay, or to the proxy if there is one; then [`HttpClient::connected`] or
    /// [`HttpClient::lost`].
    Dial(Wire),
    /// Send these bytes; then [`HttpClient::sent`].
    Send(Wire, Bytes),
    /// Close the TCP connection; nothing is called back.
    HangUp(Wire),
}

/// Why a virtual connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpClientError {
    /// Another status than 200.
    #[error("HTTP status {0}")]
    Status(u16),
    /// The proxy wants credentials, or others (status 401 or 407; section 7.7). Of the schemes Basic alone is spoken.
    #[error("the proxy wants other credentials")]
    ProxyAuthentication,
    /// What came is not a response.
    #[error("{0}")]
    Head(#[from] HeadError),
    /// A response without a length, or with one above 32768 octets.
    #[error("a response of unknown or excessive length")]
    Length,
    /// The echo string did not come back.
    #[error("the echo string did not come back")]
    Echo,
    /// The body of a Polling response.
    #[error("{0}")]
    Poll(#[from] PollError),
    /// A Polling response of another virtual connection, or out of order.
    #[error("a Polling response that was not asked for")]
    OutOfOrder,
    /// Octets that nothing had been asked for.
    #[error("octets that nothing had been asked for")]
    Unasked,
    /// A TCP connection could not be opened, or broke while something was on it.
    #[error("a connection was lost")]
    Lost,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// A direction of LongLived has carried all that it may (3.1.4.3): another virtual connection goes on.
    #[error("the connection has carried all that it may")]
    Exhausted,
}

/// A virtual connection.
#[derive(Debug)]
pub struct HttpClient {
    config: HttpClientConfig,
    guid: Guid,
    now: Timestamp,
    wires: [WireState; 2],
    inbox: VecDeque<Bytes>,
    inbox_bytes: usize,
    outbox: BytesMut,
    mode: Mode,
    establish_by: Option<Timestamp>,
    established: bool,
    failed: Option<HttpClientError>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum Mode {
    LongLived(long_lived::LongLived),
    KeepAlive(keep_alive::KeepAlive),
    Polling(Polling),
}

impl HttpClient {
    /// Begins a virtual connection with a new GUID.
    pub fn new(config: HttpClientConfig, now: Timestamp, entropy: &mut dyn Entropy) -> Self {
        let mode = match config.encapsulation {
            Encapsulation::LongLived => Mode::LongLived(long_lived::LongLived::default()),
            Encapsulation::KeepAlive => Mode::KeepAlive(keep_alive::KeepAlive::default()),
            Encapsulation::Polling => Mode::Polling(Polling::default()),
        };
        let mut client = Self {
            config,
            guid: Guid::random(entropy),
            now,
            wires: [WireState::default(), WireState::default()],
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            outbox: BytesMut::new(),
            mode,
            establish_by: Some(now + CONNECTION_ESTABLISHMENT),
            established: false,
            failed: None,
            actions: VecDeque::new(),
        };
        match &client.mode {
            Mode::LongLived(_) => client.start_long_lived(),
            Mode::KeepAlive(_) => client.start_keep_alive(),
            Mode::Polling(_) => client.start_polling(),
        }
        client
    }

    /// The next thing that only the driver can do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A TCP connection is open.
    pub fn connected(&mut self, now: Timestamp, wire: Wire) {
        self.now = now;
        let state = self.wire(wire);
        state.up();
        if let Some(request) = state.unsent.take() {
            self.actions.push_back(Action::Send(wire, request));
        }
    }

    /// The bytes of the last [`Action::Send`] on this wire are on their way.
    pub fn sent(&mut self, now: Timestamp, wire: Wire) {
        self.now = now;
        if let (Mode::LongLived(state), Wire::Post) = (&mut self.mode, wire) {
            state.sending = false;
            self.pump();
        }
    }

    /// Bytes arrived on a wire.
    pub fn received(&mut self, now: Timestamp, wire: Wire, bytes: &[u8]) {
        self.now = now;
        if self.failed.is_some() {
            return;
        }
        self.wire(wire).input.extend_from_slice(bytes);
        let outcome = match &self.mode {
            Mode::LongLived(_) => self.read_long_lived(wire),
            Mode::KeepAlive(_) => self.read_keep_alive(wire),
            Mode::Polling(_) => self.read_polling(wire),
        };
        if let Err(error) = outcome {
            self.fail(error);
        }
    }

    /// A TCP connection could not be opened, or has ended.
    pub fn lost(&mut self, now: Timestamp, wire: Wire) {
        self.now = now;
        let had_request = self.wire(wire).down();
        match &self.mode {
            Mode::Polling(_) if had_request => self.poll_lost(),
            // Between two requests a connection may end.
            Mode::KeepAlive(_) if !had_request => {}
            Mode::Polling(_) => {}
            Mode::LongLived(_) | Mode::KeepAlive(_) => self.fail(HttpClientError::Lost),
        }
    }

    /// Whether the stream has begun: what is sent now will be carried.
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// Why it is over, if it is.
    pub fn failure(&self) -> Option<HttpClientError> {
        self.failed
    }

    /// The next bytes of the stream; the driver takes them before it looks at [`HttpClient::failure`].
    pub fn receive(&mut self, now: Timestamp) -> Option<Bytes> {
        self.now = now;
        let bytes = self.inbox.pop_front()?;
        self.inbox_bytes -= bytes.len();
        self.pump();
        Some(bytes)
    }

    /// Whether [`HttpClient::receive`] has something.
    pub fn has_received(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Whether the driver may read from a wire; if not, it reads again once [`HttpClient::receive`] was called. Where each
    /// answer is asked for, not asking bounds what is received.
    pub fn wants_read(&self, wire: Wire) -> bool {
        !matches!((&self.mode, wire), (Mode::LongLived(_), Wire::Get)) || self.inbox_has_room()
    }

    fn inbox_has_room(&self) -> bool {
        self.inbox_bytes < INBOX_BYTES
    }

    /// Takes the front of `output`, as much as there is room for, and removes it there; whether anything went.
    pub fn send(&mut self, now: Timestamp, output: &mut OutputQueue) -> bool {
        self.now = now;
        let mut any = false;
        while self.has_room() && !output.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = output.gather(&mut slices);
            let mut count = 0;
            for slice in &slices[..filled] {
                let piece = &slice[..slice.len().min(OUTBOX_BYTES - self.outbox.len())];
                self.outbox.extend_from_slice(piece);
                count += piece.len();
            }
            output.advance(count);
            any = true;
            self.pump();
        }
        any
    }

    /// Whether [`HttpClient::send`] would take something.
    pub fn has_room(&self) -> bool {
        self.failed.is_none() && self.outbox.len() < OUTBOX_BYTES
    }

    /// Whether everything that was sent has been carried, as far as this end can know.
    pub fn is_flushed(&self) -> bool {
        let carrying = match &self.mode {
            Mode::LongLived(state) => state.sending,
            _ => self.wires[Wire::Post as usize].asked,
        };
        self.failed.is_some() || self.outbox.is_empty() && !carrying
    }

    /// When [`HttpClient::handle_timeout`] is next due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        if self.failed.is_some() {
            return None;
        }
        let poll = match &self.mode {
            Mode::Polling(state) if self.inbox_has_room() => state.next_poll,
            _ => None,
        };
        let wires = self.wires.iter().filter_map(|wire| wire.due);
        wires.chain(self.establish_by).chain(poll).min()
    }

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        let late = |due: Option<Timestamp>| due.is_some_and(|due| due <= now);
        if late(self.establish_by) {
            return self.fail(HttpClientError::TimedOut);
        }
        for wire in [Wire::Get, Wire::Post] {
            if late(self.wire(wire).due) {
                return self.answer_is_late(wire);
            }
        }
        self.pump();
    }

    fn answer_is_late(&mut self, wire: Wire) {
        match &self.mode {
            Mode::Polling(_) => {
                self.hang_up(wire);
                self.wire(wire).down();
                self.poll_lost();
            }
            _ => self.fail(HttpClientError::TimedOut),
        }
    }

    fn wire(&mut self, wire: Wire) -> &mut WireState {
        &mut self.wires[wire as usize]
    }

    fn fail(&mut self, error: HttpClientError) {
        if self.failed.is_none() {
            self.failed = Some(error);
            self.hang_up(Wire::Get);
            self.hang_up(Wire::Post);
        }
    }

    fn hang_up(&mut self, wire: Wire) {
        if self.wire(wire).is_open() {
            self.wire(wire).down();
            self.actions.push_back(Action::HangUp(wire));
        }
    }

    fn establish(&mut self) {
        self.established = true;
        self.establish_by = None;
    }

    /// Bytes of the stream have come.
    fn deliver(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.inbox_bytes += bytes.len();
            self.inbox.push_back(bytes);
        }
    }

    /// Carries what waits, as far as it goes now.
    fn pump(&mut self) {
        if self.failed.is_some() || !self.established {
            return;
        }
        match &self.mode {
            Mode::LongLived(_) => self.pump_long_lived(),
            Mode::KeepAlive(_) => self.pump_keep_alive(),
            Mode::Polling(_) => self.pump_polling(),
        }
    }

    /// The relay's authority without the port that HTTP has by itself.
    fn host(&self) -> &str {
        let authority = &self.config.authority;
        match authority.rsplit_once(':') {
            Some((host, port)) if port.parse() == Ok(PORT) => host,
            _ => authority,
        }
    }

    /// Relay-Server-Name: the host alone.
    fn server_name(&self) -> &str {
        let authority = &self.config.authority;
        authority.rsplit_once(':').map_or(authority, |(host, _)| host)
    }

    /// The head of a request: relative directly, absolute through a proxy (2.2.2.1.1, 2.2.4.1.1).
    fn request_head(&self, method: &str, content_length: Option<u64>) -> String {
        let relative = target::write(self.config.encapsulation, self.server_name(), &self.guid);
        let uri = match (&self.config.proxy, self.config.encapsulation) {
            (None, _) => relative,
            // Exactly the host, without a path (2.2.4.1.1).
            (Some(_), Encapsulation::Polling) => format!("http://{}", self.host()),
            (Some(_), _) => format!("http://{}{relative}", self.host()),
        };
        let credentials = self.config.proxy.as_ref().map(|known| known.as_ref().map(Credentials::basic));
        let headers = RequestHeaders {
            host: self.host(),
            content_length,
            keep_alive: self.config.encapsulation == Encapsulation::KeepAlive,
            proxy: credentials.as_ref().map(|known| known.as_deref()),
        };
        head::write_request(method, &uri, headers)
    }
}

//! The client as one machine: ties the connection, the proofs, the registration, the outbox and the inbox together, and knows when to
//! connect again.

use super::authentication::Login;
use super::backoff::Backoff;
use super::config::ClientConfig;
use super::event::{Disconnected, Event};
use super::inbox::{Inbox, IncomingId};
use super::message::{MessageId, OutgoingMessage, QueueError};
use super::outbox::Outbox;
use super::presence::{PRESENCE_TAG, PresenceDesk};
use super::registration::{Registrar, Registration, RegistrationError, Standing};
use super::route::Transmission;
use crate::address::DeviceUrl;
use crate::presence::Status;
use crate::sstp::connection::{self, Ended};
use crate::sstp::output::OutputQueue;
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, ConnectResponseId, Connection, SessionId};
use crate::time::{Entropy, Timestamp};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A connection that lasted as long after login, or carried a message, was of use: the next loss begins a new count.
const OF_USE_AFTER: Duration = Duration::from_secs(5);

/// The transport and what is known of it.
#[derive(Debug)]
enum Link {
    /// There is none until then.
    Waiting(Timestamp),
    /// The driver was told to dial.
    Dialling,
    Up(Box<Up>),
    /// The connection has ended; its last words are in the output. Dial again at the time, or never.
    HangingUp(Box<Up>, Option<Timestamp>),
    Closed,
}

/// One connection.
#[derive(Debug)]
struct Up {
    connection: Connection,
    login: Login,
    /// Ready or RegistrationNeeded was told.
    announced_at: Option<Timestamp>,
    of_use: bool,
    /// RetryTime of the relay's ConnectResponse.
    retry_time: Duration,
    /// Why we closed it ourselves.
    own_reason: Option<Disconnected>,
    /// The registration was complete on it.
    registered: bool,
}

/// One client. See the [module](super).
pub struct Client {
    config: ClientConfig,
    connection_config: Arc<connection::ConnectionConfig>,
    entropy: Box<dyn Entropy + Send>,
    link: Link,
    backoff: Backoff,
    outbox: Outbox,
    inbox: Inbox,
    presence: PresenceDesk,
    registrar: Option<Registrar>,
    events: VecDeque<Event>,
    closing: bool,
}

impl Client {
    /// A client that wants to connect at once.
    pub fn new(config: ClientConfig, now: Timestamp, entropy: Box<dyn Entropy + Send>) -> Self {
        Self {
            connection_config: Arc::new(config.connection.clone()),
            outbox: Outbox::new(config.limits.clone()),
            inbox: Inbox::new(&config.limits),
            presence: PresenceDesk::new(),
            config,
            entropy,
            link: Link::Waiting(now),
            backoff: Backoff::default(),
            registrar: None,
            events: VecDeque::new(),
            closing: false,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Answers [`Event::Dial`]: bytes can be sent and received.
    pub fn transport_up(&mut self, now: Timestamp) {
        if !matches!(self.link, Link::Dialling) {
            return;
        }
        let (login, token) = Login::new(&self.config, &mut *self.entropy);
        let target = Text::from(&self.config.relay_url);
        let connection = Connection::initiator(self.connection_config.clone(), now, target, token);
        self.link = Link::Up(Box::new(Up {
            connection,
            login,
            announced_at: None,
            of_use: false,
            retry_time: Duration::ZERO,
            own_reason: None,
            registered: false,
        }));
    }

    /// There is no transport: none could be opened, it broke, or it was closed as [`Event::HangUp`] asked.
    pub fn transport_lost(&mut self, now: Timestamp) {
        match &mut self.link {
            Link::Dialling => {
                let retry_at = self.retry_at(now, Duration::ZERO);
                self.link = Link::Waiting(retry_at);
                self.disconnected(Disconnected::Unreachable, retry_at);
            }
            Link::Up(up) => {
                up.connection.transport_lost();
                self.process(now);
                self.hung_up();
            }
            Link::HangingUp(..) => self.hung_up(),
            Link::Waiting(_) | Link::Closed => {}
        }
    }

    /// Takes received bytes.
    pub fn receive(&mut self, now: Timestamp, bytes: Bytes) {
        if let Link::Up(up) = &mut self.link {
            up.connection.receive(now, bytes);
        }
    }

    /// Whether the driver should read. While it says no, the relay's bytes wait in the transport.
    pub fn wants_input(&self) -> bool {
        self.inbox.wants_input()
    }

    /// The next event. Acts on all that has been put in and on every deadline that has passed; call it until it gives nothing after each
    /// call into the machine, and at [`Client::poll_timeout`].
    pub fn poll(&mut self, now: Timestamp) -> Option<Event> {
        if self.events.is_empty() {
            self.process(now);
        }
        self.events.pop_front()
    }

    /// When [`Client::poll`] is due without anything else having happened.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.link {
            Link::Waiting(until) => Some(*until),
            Link::Up(up) => {
                let own = [up.connection.poll_timeout(), self.outbox.next_hold(), self.inbox.renew_at()];
                let presence =
                    self.presence.next_due().filter(|_| up.announced_at.is_some() && up.login.may_send());
                own.into_iter().chain([presence]).flatten().min()
            }
            Link::Dialling | Link::HangingUp(..) | Link::Closed => None,
        }
    }

    /// What is to be sent. Poll before looking.
    pub fn output(&mut self) -> Option<&mut OutputQueue> {
        match &mut self.link {
            Link::Up(up) | Link::HangingUp(up, _) => Some(up.connection.output()),
            _ => None,
        }
    }

    /// Takes a message: from now on it is the client's duty, until [`Event::Delivered`] or [`Event::Failed`].
    ///
    /// # Errors
    /// [`QueueError`]; the message was not taken.
    pub fn send(&mut self, message: OutgoingMessage) -> Result<MessageId, QueueError> {
        if self.closing {
            return Err(QueueError::Closed);
        }
        self.outbox.push(message)
    }

    /// Messages taken and neither delivered nor failed.
    pub fn unfinished(&self) -> usize {
        self.outbox.len()
    }

    /// Answers [`Event::WantBody`] with 1 to `max` bytes; an answer to an earlier question is ignored. No bytes at all say that the body is
    /// shorter than it was declared, as [`Client::body_unavailable`] does.
    pub fn provide(&mut self, message: MessageId, offset: u64, bytes: Bytes) {
        if let Link::Up(up) = &mut self.link {
            self.outbox.provide(message, offset, bytes, &mut up.connection, &mut self.events);
        }
    }

    /// Answers [`Event::WantBody`]: the body cannot be read, and its message fails.
    pub fn body_unavailable(&mut self, message: MessageId) {
        if let Link::Up(up) = &mut self.link {
            self.outbox.body_unavailable(message, &mut up.connection, &mut self.events);
        }
    }

    /// The application has taken so many bytes of an incoming message out of memory: there is room for more.
    pub fn consumed(&mut self, id: IncomingId, bytes: usize) {
        self.inbox.consumed(id, bytes);
    }

    /// The application has dealt with an incoming message, which the relay may now forget. It may say so before the end has arrived; the
    /// rest is then dropped. `false` if the message came on a connection that is gone: it will come again.
    pub fn acknowledge(&mut self, id: IncomingId) -> bool {
        let Link::Up(up) = &mut self.link else { return false };
        let known = self.inbox.acknowledge(id, &mut up.connection);
        up.of_use |= known;
        known
    }

    /// The application wants an incoming message later, not now. It comes again on the next connection, which is made
    /// after [`super::Limits::redelivery_delay`].
    pub fn give_back(&mut self, id: IncomingId, now: Timestamp) {
        self.inbox.give_back(id, now);
    }

    /// Publishes the status of this device, now and on every connection to come. [`Status::Unknown`] takes it back.
    pub fn publish(&mut self, status: Status) {
        self.presence.publish(status);
    }

    /// Watches a device: [`Event::Presence`] tells its status, now and whenever it changes. Watching it again asks anew.
    pub fn watch(&mut self, device: DeviceUrl) {
        self.presence.watch(device);
    }

    /// Watches a device no more.
    pub fn unwatch(&mut self, device: &DeviceUrl) {
        self.presence.unwatch(device);
    }

    /// Registers, on this connection or the next; ends with [`Event::Registered`] or [`Event::RegistrationFailed`].
    ///
    /// # Errors
    /// [`RegistrationError`] if it cannot even begin.
    pub fn register(&mut self, registration: Registration) -> Result<(), RegistrationError> {
        if self.closing {
            return Err(RegistrationError::ClientClosed);
        }
        if self.registrar.is_some() {
            return Err(RegistrationError::UnderWay);
        }
        self.registrar = Some(Registrar::new(registration, &self.config)?);
        Ok(())
    }

    /// Closes for good: what was acknowledged reaches the relay with ConnectClose, what was not sent is given up. Ends with
    /// [`Event::Closed`], after [`Event::HangUp`] if there is a connection.
    pub fn close(&mut self) {
        if std::mem::replace(&mut self.closing, true) {
            return;
        }
        if let Link::Up(up) = &mut self.link {
            up.connection.close(CloseReason::NoReason, 0);
        } else if matches!(self.link, Link::Waiting(_) | Link::Dialling) {
            self.link = Link::Closed;
            self.announce_closed();
        }
    }

    /// Does all that can be done without more input.
    fn process(&mut self, now: Timestamp) {
        match &mut self.link {
            Link::Waiting(until) if *until <= now => {
                self.link = Link::Dialling;
                self.events.push_back(Event::Dial);
            }
            Link::Up(_) => self.process_connection(now),
            _ => {}
        }
    }

    fn process_connection(&mut self, now: Timestamp) {
        while let Link::Up(up) = &mut self.link {
            if let Some(event) = up.connection.poll(now) {
                self.connection_event(now, event);
                continue;
            }
            if !self.inbox.wants_input() {
                // The relay is not silent: we do not listen.
                up.connection.receive(now, Bytes::new());
            }
            if self.inbox.renew_at().is_some_and(|at| at <= now) {
                self.renew();
                continue;
            }
            self.advance_login(now);
            self.fill_output(now);
            let Link::Up(up) = &mut self.link else { return };
            if up.connection.poll_timeout().is_some_and(|due| due <= now) {
                up.connection.handle_timeout(now);
                up.connection.prepare_output(now);
            }
            if !up.connection.is_ended() {
                return;
            }
        }
    }

    fn fill_output(&mut self, now: Timestamp) {
        let Link::Up(up) = &mut self.link else { return };
        self.inbox.regulate(&mut up.connection);
        if up.login.may_send() && up.connection.is_established() {
            self.outbox.release_holds(now);
            self.outbox.pump(now, &mut up.connection, &mut self.events);
            if up.announced_at.is_some() {
                let most = self.config.limits.output_high_water;
                self.presence.pump(now, &self.config.relay_url, &mut up.connection, most);
            }
        }
        up.connection.prepare_output(now);
    }

    /// Tells once how the login went, and begins a registration that waits for it.
    fn advance_login(&mut self, now: Timestamp) {
        let Link::Up(up) = &mut self.link else { return };
        if !up.login.is_settled() || !up.connection.is_established() {
            return;
        }
        let pending = self.registrar.as_mut().filter(|registrar| !registrar.has_begun());
        let standing = pending.map(|registrar| {
            let account_known = up.login.is_attached(registrar.account());
            registrar.begin(account_known, &self.config, &mut up.connection, &mut *self.entropy)
        });
        if up.announced_at.is_none() {
            up.announced_at = Some(now);
            let unregistered = up.login.is_unregistered();
            self.events.push_back(if unregistered { Event::RegistrationNeeded } else { Event::Ready });
        }
        self.registration_stands(standing);
    }

    fn registration_stands(&mut self, standing: Option<Standing>) {
        match standing {
            None | Some(Standing::UnderWay) => {}
            Some(Standing::Failed(error)) => {
                self.registrar = None;
                self.events.push_back(Event::RegistrationFailed(error));
            }
            Some(Standing::Complete) => {
                self.registrar = None;
                if let Link::Up(up) = &mut self.link {
                    up.registered = true;
                }
                self.renew();
            }
        }
    }

    /// Closes the connection in order to make a new one at once.
    fn renew(&mut self) {
        if let Link::Up(up) = &mut self.link {
            up.own_reason = Some(Disconnected::Renewing);
            up.connection.close(CloseReason::NoReason, 0);
        }
    }

    fn connection_event(&mut self, now: Timestamp, event: connection::Event) {
        use connection::Event as E;
        let Link::Up(up) = &mut self.link else { return };
        let (connection, events) = (&mut up.connection, &mut self.events);
        match event {
            E::ConnectResponse { response, retry_time, token } => {
                self.connect_response(response, retry_time, &token)
            }
            E::AttachResponse { event, token } => {
                if let Err(error) = up.login.attach_response(event, &token, connection, events) {
                    self.fail_connection(error.into());
                }
            }
            E::RegisterResponse { event, token } => {
                let (config, entropy) = (&self.config, &mut *self.entropy);
                let registrar = self.registrar.as_mut();
                let standing =
                    registrar.and_then(|it| it.answered(event, &token, config, connection, entropy));
                self.registration_stands(standing);
            }
            E::Open(open) => {
                if !self.presence.opened(&open, connection) {
                    self.inbox.opened(open, connection);
                }
            }
            E::Part { session, part, end } => {
                if let Some(part) = self.presence.part(session, part, end, connection, events) {
                    self.inbox.part(session, part, end, connection, events);
                }
            }
            E::MessageTooLong(session) => {
                if !self.presence.closed(session, now, events) {
                    self.inbox.closed(session, events);
                }
            }
            E::SessionReady(session) | E::SessionStopped(session) if self.presence.speaks_on(session) => {}
            E::SessionRefused { session, response } if self.presence.speaks_on(session) => {
                self.presence.refused(response, events);
            }
            E::SessionReady(session) => self.outbox.session_ready(session),
            E::SessionStopped(session) => self.outbox.session_stopped(session),
            E::SessionRefused { session, response } => self.outbox.session_refused(session, response, events),
            E::SessionStatus(status) => self.outbox.session_status(status),
            E::SessionClosed { session, reason } => self.session_closed(now, session, reason),
            E::Acknowledged { tag: PRESENCE_TAG, .. } => up.of_use = true,
            E::Acknowledged { tag, count, .. } => {
                debug_assert_eq!(count, 1, "every transmission has a tag of its own");
                up.of_use = true;
                self.outbox.acknowledged(Transmission(tag), connection, events)
            }
            E::Ended(how) => self.ended(now, how),
            // What only relays and acceptors are told.
            E::Connect(_)
            | E::ConnectAuthenticate { .. }
            | E::FanoutOpen(_)
            | E::Attach(_)
            | E::AttachAuthenticate { .. }
            | E::Register(_) => {}
        }
    }

    fn connect_response(&mut self, response: ConnectResponseId, retry_time: u32, token: &[u8]) {
        let Link::Up(up) = &mut self.link else { return };
        if response != ConnectResponseId::Ok {
            // Ended::Refused follows.
            up.retry_time = Duration::from_secs(retry_time.into());
            return;
        }
        let accounts = &self.config.accounts;
        match up.login.connected(token, accounts, &mut up.connection, &mut *self.entropy) {
            Ok(()) => self.outbox.connected(),
            Err(cause) => self.fail_connection(cause),
        }
    }

    fn fail_connection(&mut self, cause: Disconnected) {
        if let Link::Up(up) = &mut self.link {
            up.own_reason = Some(cause);
            up.connection.close(CloseReason::DeviceAuthenticationFailed, 0);
        }
    }

    fn session_closed(&mut self, now: Timestamp, session: SessionId, reason: CloseReason) {
        let Link::Up(up) = &mut self.link else { return };
        if self.presence.closed(session, now, &mut self.events)
            || self.outbox.session_closed(session, reason, now, &mut self.events)
            || up.login.closed(session, &mut self.events)
        {
            return;
        }
        match self.registrar.as_mut().and_then(|registrar| registrar.closed(session, reason)) {
            None => self.inbox.closed(session, &mut self.events),
            standing => self.registration_stands(standing),
        }
    }

    /// The connection has ended: what it held falls back to the client, and the next one is planned.
    fn ended(&mut self, now: Timestamp, how: Ended) {
        let Link::Up(mut up) = std::mem::replace(&mut self.link, Link::Dialling) else {
            unreachable!("only a connection ends");
        };
        let lasted = up.announced_at.is_some_and(|at| now.since(at) >= OF_USE_AFTER);
        if up.of_use || lasted || up.registered {
            self.backoff.reset();
        }
        let (cause, imposed) = cause_of(&how, &up);
        let retry_at = match up.own_reason {
            Some(Disconnected::Renewing) => now,
            _ => self.retry_at(now, imposed),
        };
        let registered = std::mem::take(&mut up.registered);
        let next = (!self.closing).then_some(retry_at);
        self.link = Link::HangingUp(up, next);
        self.events.push_back(Event::HangUp);
        self.disconnected(cause, retry_at);
        if registered {
            self.events.push_back(Event::Registered);
        }
    }

    fn disconnected(&mut self, cause: Disconnected, retry_at: Timestamp) {
        self.outbox.disconnected();
        self.inbox.disconnected(&mut self.events);
        self.presence.disconnected(&mut self.events);
        if let Some(registrar) = &mut self.registrar {
            registrar.disconnected();
        }
        if !self.closing {
            self.events.push_back(Event::Disconnected { cause, retry_at });
        }
    }

    /// The transport that was to be closed is closed.
    fn hung_up(&mut self) {
        if let Link::HangingUp(_, next) = &self.link {
            match *next {
                Some(retry_at) if !self.closing => self.link = Link::Waiting(retry_at),
                _ => {
                    self.link = Link::Closed;
                    self.announce_closed();
                }
            }
        }
    }

    fn announce_closed(&mut self) {
        self.outbox.abandon(&mut self.events);
        self.inbox.disconnected(&mut self.events);
        if self.registrar.take().is_some() {
            self.events.push_back(Event::RegistrationFailed(RegistrationError::ClientClosed));
        }
        self.events.push_back(Event::Closed);
    }

    fn retry_at(&mut self, now: Timestamp, imposed: Duration) -> Timestamp {
        now + self.backoff.next(imposed, &mut *self.entropy)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("device_url", &self.config.device_url)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// What an end means, and the pause that the relay imposes with it.
fn cause_of(how: &Ended, up: &Up) -> (Disconnected, Duration) {
    let none = Duration::ZERO;
    match (up.own_reason, how) {
        (Some(own), _) => (own, none),
        (None, Ended::Refused(ConnectResponseId::AuthenticationFailed)) => {
            (Disconnected::DeviceRefused, none)
        }
        (None, Ended::Refused(response)) => {
            let imposed = if *response == ConnectResponseId::TryLater { up.retry_time } else { none };
            (Disconnected::Refused(*response), imposed)
        }
        (None, Ended::ByPeer { reason: CloseReason::DeviceAuthenticationFailed, .. }) => {
            (Disconnected::DeviceRefused, none)
        }
        (None, Ended::ByPeer { reason, return_time }) => {
            let resting = *reason == CloseReason::Resting;
            let imposed = Duration::from_secs(if resting { (*return_time).into() } else { 0 });
            (Disconnected::ClosedByRelay(*reason), imposed)
        }
        (None, Ended::Violation(violation)) => (Disconnected::Violation(*violation), none),
        (None, Ended::Deadline) => (Disconnected::Silent, none),
        (None, Ended::TransportLost | Ended::ByUs(_)) => (Disconnected::TransportLost, none),
    }
}

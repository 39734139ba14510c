//! One machine against a peer whose commands are written down by hand.

use crate::pair::{CLIENT, RELAY, START, config, drain, text};
use bytes::{Bytes, BytesMut};
use relay_core::sstp::acknowledge::InboundSeq;
use relay_core::sstp::command::{AccountRequest, Connect, FanoutEntry, FanoutOpen, Message, Open};
use relay_core::sstp::connection::{Ended, Endpoint};
use relay_core::sstp::frame::FrameReader;
use relay_core::sstp::text::Text;
use relay_core::sstp::{
    CloseReason, Command, ConnectResponseId, Connection, ConnectionConfig, Event, OpenResponseId, SessionId,
    Version,
};
use relay_core::time::Timestamp;
use std::sync::Arc;
use std::time::Duration;

/// A machine, the time, and the peer's end of the wire.
pub(crate) struct Script {
    pub(crate) machine: Connection,
    pub(crate) now: Timestamp,
}

impl Script {
    /// A relay that waits for Connect.
    pub(crate) fn fresh_relay() -> Self {
        Self::acceptor(config(Endpoint::Relay))
    }

    /// Any acceptor that waits for Connect.
    pub(crate) fn acceptor(config: ConnectionConfig) -> Self {
        Self { machine: Connection::acceptor(Arc::new(config), START), now: START }
    }

    /// A client that has sent Connect.
    pub(crate) fn connecting_client() -> Self {
        let config = Arc::new(config(Endpoint::Client));
        let machine = Connection::initiator(config, START, text(RELAY), Bytes::new());
        let mut script = Self { machine, now: START };
        assert!(matches!(script.sent()[..], [Command::Connect(_)]));
        script
    }

    /// An established relay.
    pub(crate) fn relay() -> Self {
        Self::relay_with(config(Endpoint::Relay))
    }

    /// An established acceptor of this configuration.
    pub(crate) fn relay_with(config: ConnectionConfig) -> Self {
        let mut script = Self::acceptor(config);
        assert!(matches!(script.receive(connect(6))[..], [Event::Connect(_)]));
        script.machine.accept(script.now, Bytes::new(), false);
        assert!(matches!(script.sent()[..], [Command::ConnectResponse { .. }]));
        script
    }

    /// An established client, the initiator.
    pub(crate) fn client() -> Self {
        let mut script = Self::connecting_client();
        let events = script.receive(connect_response(6, ConnectResponseId::Ok));
        assert!(matches!(events[..], [Event::ConnectResponse { .. }]));
        script
    }

    /// An established relay on which the peer has opened this session.
    pub(crate) fn relay_with_session(session: u32) -> Self {
        let mut script = Self::relay();
        script.opened(session);
        script
    }

    /// The peer opens a session and gets Ok.
    pub(crate) fn opened(&mut self, session: u32) {
        assert_eq!(self.receive(open(session)).len(), 1);
        self.machine.respond(SessionId(session), OpenResponseId::Ok);
        assert_eq!(self.sent(), [open_response(session, OpenResponseId::Ok)]);
    }

    /// A session of the machine that the peer has accepted.
    pub(crate) fn ready_session(&mut self) -> SessionId {
        let session = self.machine.open(text("app"), text("identity"), Text::EMPTY).expect("there is room");
        assert!(matches!(self.sent()[..], [Command::Open(_)]));
        let events = self.receive(open_response(session.0, OpenResponseId::Ok));
        assert_eq!(events, [Event::SessionReady(session)]);
        session
    }

    /// The machine gets a command.
    pub(crate) fn receive(&mut self, command: Command) -> Vec<Event> {
        let mut bytes = BytesMut::new();
        command.encode(&mut bytes);
        self.receive_bytes(&bytes)
    }

    pub(crate) fn receive_all(&mut self, commands: impl IntoIterator<Item = Command>) -> Vec<Event> {
        commands.into_iter().flat_map(|command| self.receive(command)).collect()
    }

    pub(crate) fn receive_bytes(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.machine.receive(self.now, Bytes::copy_from_slice(bytes));
        drain(&mut self.machine, self.now)
    }

    /// The machine gets a message of one Data command and gives its entry of InboundMessageList.
    pub(crate) fn receive_message(&mut self, session: u32, flags: u8) -> InboundSeq {
        let events = self.receive_all(message(session, flags, &[b"payload"]));
        let [Event::Part { end: Some(end), .. }] = events[..] else { panic!("{events:?}") };
        end
    }

    /// The machine sends a message of one Data command.
    pub(crate) fn send_message(&mut self, session: SessionId, tag: u64) {
        self.machine.begin_message(session, 0, &[0]);
        self.machine.message_data(session, Bytes::from_static(b"payload"));
        self.machine.end_message(session, tag);
    }

    /// What the machine has to send now.
    pub(crate) fn sent(&mut self) -> Vec<Command> {
        self.machine.prepare_output(self.now);
        let mut reader = FrameReader::default();
        reader.push(self.machine.output().take());
        let mut commands = Vec::new();
        while let Some(frame) = reader.next_frame().expect("the machine sends commands") {
            commands.push(Command::decode(frame, self.machine.version()).expect("and good ones"));
        }
        assert_eq!(reader.held_bytes(), 0, "the machine sends whole commands");
        commands
    }

    /// Time passes and the deadlines are looked at.
    pub(crate) fn wait(&mut self, time: Duration) -> Vec<Event> {
        self.now = self.now + time;
        self.machine.handle_timeout(self.now);
        drain(&mut self.machine, self.now)
    }

    /// The machine has ended on a violation by the command just received and says `reason`.
    #[track_caller]
    pub(crate) fn assert_violation(&mut self, events: &[Event], reason: CloseReason) {
        let Some(Event::Ended(Ended::Violation(violation))) = events.last() else {
            panic!("no violation: {events:?}")
        };
        assert_eq!(violation.reason(), reason, "{violation}");
        let sent = self.sent();
        let Some(Command::ConnectClose { reason: said, return_time: 0, .. }) = sent.last() else {
            panic!("no ConnectClose: {sent:?}")
        };
        assert_eq!(*said, reason);
        assert!(self.machine.is_ended());
        assert_eq!(self.machine.poll_timeout(), None);
    }
}

pub(crate) fn connect(minor_version: u8) -> Command {
    Command::from(Connect {
        minor_version,
        target_device_url: text(RELAY),
        source_device_urls: [text(CLIENT)].into_iter().collect(),
        authentication_token: Bytes::from_static(&[1, 2, 3]),
        peer_product_version: text("Furrow Test 0 1"),
        peer_product_capabilities: Text::EMPTY,
    })
}

pub(crate) fn connect_response(minor_version: u8, response: ConnectResponseId) -> Command {
    Command::ConnectResponse { minor_version, response, retry_time: 30, token: Bytes::new() }
}

pub(crate) fn connect_close(message_count: u32) -> Command {
    Command::ConnectClose { reason: CloseReason::Resting, message_count, return_time: 60 }
}

pub(crate) fn open(session: u32) -> Command {
    Command::Open(Open {
        session: SessionId(session),
        resource_url: text("app"),
        identity_url: text("identity"),
        device_url: Text::EMPTY,
    })
}

pub(crate) fn fanout_open(session: u32, relay_urls: &[&str], version: Version) -> Command {
    let entries: Vec<FanoutEntry> = relay_urls
        .iter()
        .map(|relay_url| FanoutEntry {
            identity_url: text("identity"),
            device_url: text("device"),
            relay_url: text(relay_url),
        })
        .collect();
    let open = FanoutOpen::new(SessionId(session), text("app"), &entries, version);
    Command::FanoutOpen(open.expect("it fits"))
}

pub(crate) fn open_response(session: u32, response: OpenResponseId) -> Command {
    Command::OpenResponse { session: SessionId(session), response }
}

pub(crate) fn close(session: u32, reason: CloseReason) -> Command {
    Command::Close { session: SessionId(session), reason }
}

pub(crate) fn begin(session: u32, message_count: u32, flags: u8) -> Command {
    Command::Message(Message {
        session: SessionId(session),
        message_count,
        flags,
        tail: Bytes::from_static(&[0]),
    })
}

pub(crate) fn data(session: u32, payload: &[u8]) -> Command {
    Command::Data { session: SessionId(session), payload: Bytes::copy_from_slice(payload) }
}

pub(crate) fn end(session: u32) -> Command {
    Command::EndMessage { session: SessionId(session) }
}

pub(crate) fn message(session: u32, flags: u8, payloads: &[&[u8]]) -> Vec<Command> {
    let mut commands = vec![begin(session, 0, flags)];
    commands.extend(payloads.iter().map(|payload| data(session, payload)));
    commands.push(end(session));
    commands
}

pub(crate) fn noop(message_count: u32) -> Command {
    Command::Noop { message_count }
}

pub(crate) fn account_request(event: u32) -> AccountRequest {
    AccountRequest {
        event: SessionId(event),
        resource_url: Text::EMPTY,
        account_url: text("account"),
        authentication_token: Bytes::from_static(&[7]),
    }
}

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

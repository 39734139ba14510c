//! Two connection machines back to back and the bytes between them. Owns no rule and checks none.

use bytes::{Bytes, BytesMut};
use relay_core::sstp::connection::Endpoint;
use relay_core::sstp::text::Text;
use relay_core::sstp::{Connection, ConnectionConfig, Event};
use relay_core::time::Timestamp;
use std::io::IoSlice;
use std::sync::Arc;

/// Device URL of the relay, which is the acceptor.
pub(crate) const RELAY: &str = "dpp://relay.example/R";
/// Device URL of the client, which is the initiator.
pub(crate) const CLIENT: &str = "dpp://client.example/C";
/// When every test begins.
pub(crate) const START: Timestamp = Timestamp(1_000_000);

/// An ASCII literal.
pub(crate) fn text(text: &str) -> Text {
    Text::new(text.as_bytes().to_vec()).expect("a literal is ASCII")
}

/// The defaults for the relay or the client.
pub(crate) fn config(endpoint: Endpoint) -> ConnectionConfig {
    let url = if endpoint == Endpoint::Relay { RELAY } else { CLIENT };
    ConnectionConfig::new(endpoint, vec![text(url)], text("Furrow Test 0 1"))
}

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Initiator,
    Acceptor,
}

impl Side {
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Initiator => Side::Acceptor,
            Side::Acceptor => Side::Initiator,
        }
    }
}

/// An initiator and an acceptor.
pub(crate) struct Pair {
    pub(crate) initiator: Connection,
    pub(crate) acceptor: Connection,
    pub(crate) now: Timestamp,
}

impl Pair {
    /// Both, the Connect not yet moved.
    pub(crate) fn new(initiator: ConnectionConfig, acceptor: ConnectionConfig) -> Self {
        Self {
            initiator: Connection::initiator(Arc::new(initiator), START, text(RELAY), Bytes::new()),
            acceptor: Connection::acceptor(Arc::new(acceptor), START),
            now: START,
        }
    }

    /// Both after a handshake without tokens.
    pub(crate) fn established(initiator: ConnectionConfig, acceptor: ConnectionConfig) -> Self {
        let mut pair = Self::new(initiator, acceptor);
        let events = pair.deliver(Side::Initiator, usize::MAX);
        assert!(matches!(events[..], [Event::Connect(_)]), "{events:?}");
        pair.acceptor.accept(pair.now, Bytes::new(), false);
        let events = pair.deliver(Side::Acceptor, usize::MAX);
        assert!(matches!(events[..], [Event::ConnectResponse { .. }]), "{events:?}");
        pair
    }

    pub(crate) fn machine(&mut self, side: Side) -> &mut Connection {
        match side {
            Side::Initiator => &mut self.initiator,
            Side::Acceptor => &mut self.acceptor,
        }
    }

    /// Moves at most `most` bytes from one side to the other and returns what happens there.
    pub(crate) fn deliver(&mut self, from: Side, most: usize) -> Vec<Event> {
        let now = self.now;
        let sender = self.machine(from);
        sender.prepare_output(now);
        let bytes = take_output(sender, most);
        if bytes.is_empty() {
            return Vec::new();
        }
        let receiver = self.machine(from.other());
        receiver.receive(now, bytes);
        drain(receiver, now)
    }
}

/// Everything that the machine has to tell.
pub(crate) fn drain(machine: &mut Connection, now: Timestamp) -> Vec<Event> {
    std::iter::from_fn(|| machine.poll(now)).collect()
}

/// At most `most` bytes of the output, taken as a socket takes them.
fn take_output(machine: &mut Connection, most: usize) -> Bytes {
    let mut taken = BytesMut::new();
    while taken.len() < most && !machine.output().is_empty() {
        let mut vector = [IoSlice::new(&[]); 4];
        let before = taken.len();
        let filled = machine.output().gather(&mut vector);
        for piece in &vector[..filled] {
            let room = most - taken.len();
            taken.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        let count = taken.len() - before;
        machine.output().advance(count);
    }
    taken.freeze()
}

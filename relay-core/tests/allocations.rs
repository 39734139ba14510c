//! What a message costs the relay in memory: in steady state a 100-byte message allocates nothing, from the sender's bytes to
//! both acknowledgements; and stored mail holds nothing of what it was received in.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::{AccountRecord, DeviceRecord, Directory, IdentityRecord, Profile, Unreadable};
use relay_core::relay::{ConnectionId, Relay, RelayConfig, ShardId};
use relay_core::security::{ClientCredentials, HelloAnswer, Layer, hello};
use relay_core::sstp::command::Message;
use relay_core::sstp::connection::{ConnectionConfig, Endpoint};
use relay_core::sstp::text::Text;
use relay_core::sstp::{Command, Connection, Event, OpenResponseId, SessionId};
use relay_core::store::Position;
use relay_core::time::{Entropy, Timestamp};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
/// Messages in one read, as a busy sender has them.
const BATCH: u32 = 64;

struct Counter(u8);

impl Entropy for Counter {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_mul(5).wrapping_add(17);
            *byte = self.0;
        }
    }
}

struct Users(HashMap<DeviceUrl, DeviceRecord>);

impl Directory for Users {
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        Ok(self.0.get(url).cloned())
    }

    fn account(&self, _: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        Ok(Some(AccountRecord::default()))
    }

    fn identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        let account = AccountUrl::new(url.as_str().replace("identity", "account")).unwrap();
        Ok(Some(IdentityRecord::of(account)))
    }
}

fn text(text: &str) -> Text {
    Text::new(text.as_bytes().to_vec()).unwrap()
}

/// Carries what both sides have to say until neither says more; gives the client's events.
fn talk(relay: &mut Relay, id: ConnectionId, client: &mut Connection) -> Vec<Event> {
    let mut events = Vec::new();
    loop {
        client.prepare_output(NOW);
        let up = client.output().take();
        relay.received(NOW, id, up.clone());
        let down = relay.prepare_output(NOW, id).unwrap().take();
        if up.is_empty() && down.is_empty() {
            return events;
        }
        client.receive(NOW, down);
        while let Some(event) = client.poll(NOW) {
            if let Event::Open(open) = &event {
                client.respond(open.session, OpenResponseId::Ok);
            }
            events.push(event);
        }
    }
}

fn authenticated(relay: &mut Relay, name: &str, keys: &ClientCredentials) -> (ConnectionId, Connection) {
    let greeting = hello(Layer::Device, name, keys, &mut Counter(3));
    let config = ConnectionConfig::new(Endpoint::Client, vec![text(name)], text("test"));
    let mut client = Connection::initiator(Arc::new(config), NOW, text("relay"), greeting.token.clone());
    let id = relay.connected(NOW, None, None);
    let events = talk(relay, id, &mut client);
    let [Event::ConnectResponse { token, .. }] = &events[..] else { panic!("{events:?}") };
    let HelloAnswer::Proof { token } = greeting.answer(token).unwrap() else { panic!("refused") };
    client.connect_authenticate(token);
    talk(relay, id, &mut client);
    (id, client)
}

/// A read with messages of 100 bytes.
fn messages(session: SessionId) -> Bytes {
    let mut bytes = BytesMut::new();
    for _ in 0..BATCH {
        let head = Message { session, message_count: 0, flags: 0, tail: Bytes::from_static(b"\0") };
        Command::Message(head).encode(&mut bytes);
        Command::Data { session, payload: Bytes::from_static(&[7; 100]) }.encode(&mut bytes);
        Command::EndMessage { session }.encode(&mut bytes);
    }
    bytes.freeze()
}

/// Sends what a connection's output holds into nowhere, and tells how much it was.
fn drain(relay: &mut Relay, id: ConnectionId) -> usize {
    let output = relay.prepare_output(NOW, id).unwrap();
    let length = output.len();
    output.advance(length);
    relay.sent(NOW, id);
    length
}

/// A relay with two devices connected, and a session of the first towards the second.
struct World {
    relay: Relay,
    a: ConnectionId,
    b: ConnectionId,
    bob: Connection,
    session: SessionId,
}

fn world() -> World {
    let keys =
        ["device-a", "device-b"].map(|_| ClientCredentials::generate(Profile::Modern, &mut Counter(9)));
    let record = |keys: &ClientCredentials, account: &str| DeviceRecord {
        credentials: Some(keys.as_registered()),
        accounts: vec![AccountUrl::new(account).unwrap()],
        locked_out: false,
    };
    let users = HashMap::from([
        (DeviceUrl::new("device-a").unwrap(), record(&keys[0], "account-a")),
        (DeviceUrl::new("device-b").unwrap(), record(&keys[1], "account-b")),
    ]);
    let connection = ConnectionConfig::new(Endpoint::Relay, vec![text("relay")], text("test"));
    let config = Arc::new(RelayConfig::new(Arc::new(connection), 1));
    let mut relay = Relay::new(ShardId(0), config, Box::new(Users(users)), Box::new(Counter(1)), NOW, 1);
    let (a, mut alice) = authenticated(&mut relay, "device-a", &keys[0]);
    let (b, bob) = authenticated(&mut relay, "device-b", &keys[1]);
    let session = alice.open(text("resource"), text("identity-b"), text("device-b")).unwrap();
    talk(&mut relay, a, &mut alice);
    World { relay, a, b, bob, session }
}

/// Allocations are counted for the whole process, so the tests here take turns.
static TURN: Mutex<()> = Mutex::new(());

#[test]
fn stored_mail_holds_nothing_of_what_it_was_received_in() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let World { mut relay, a, b, session, .. } = world();
    relay.disconnected(NOW, b);
    let read = messages(session);
    relay.received(NOW, a, read.clone());
    let mut batch = Vec::new();
    relay.take_batch(1 << 20, &mut batch);
    assert_eq!(batch.len(), BATCH as usize);
    let position = |segment| Position { segment, offset: 4096, length: 200 };
    batch.clear();
    relay.appended(NOW, &(0..BATCH).map(position).collect::<Vec<_>>());
    assert_eq!(relay.mail().0, BATCH as usize, "all of it waits");
    assert!(read.is_unique(), "nothing refers to the read buffer any more");
}

#[test]
fn a_message_of_100_bytes_to_an_online_recipient_allocates_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let profiler = dhat::Profiler::builder().testing().build();
    let World { mut relay, a, b, mut bob, session } = world();
    let read = messages(session);
    let mut acknowledgement = BytesMut::new();
    Command::Noop { message_count: BATCH }.encode(&mut acknowledgement);
    let acknowledgement = acknowledgement.freeze();
    // The first batch opens Bob's session, which he accepts.
    relay.received(NOW, a, read.clone());
    talk(&mut relay, b, &mut bob);
    relay.received(NOW, b, acknowledgement.clone());
    let mut touched = Vec::new();
    let mut batch = Vec::new();
    let mut round = |relay: &mut Relay| {
        relay.received(NOW, a, read.clone());
        assert!(drain(relay, b) > BATCH as usize * 100);
        relay.received(NOW, b, acknowledgement.clone());
        assert!(drain(relay, a) > 0, "the sender is acknowledged");
        relay.take_batch(1 << 20, &mut batch);
        assert!(batch.is_empty(), "what was delivered is not stored");
        relay.take_touched(&mut touched);
        touched.clear();
    };
    for _ in 0..100 {
        round(&mut relay);
    }
    let before = dhat::HeapStats::get().total_blocks;
    for _ in 0..1000 {
        round(&mut relay);
    }
    let allocations = dhat::HeapStats::get().total_blocks - before;
    drop(profiler);
    assert_eq!(allocations, 0, "allocations for {} messages", 1000 * BATCH);
}

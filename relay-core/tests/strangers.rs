//! A shard's relay against peers that have not proven who they are: what they may take, and what they may not have.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bytes::{Bytes, BytesMut};
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::*;
use relay_core::relay::{
    Action, ConnectionId, RegisterFailure, Registered, Relay, RelayConfig, SecurityFailure, ShardId,
};
use relay_core::security::*;
use relay_core::sstp::command::{AccountRequest, Connect};
use relay_core::sstp::connection::Endpoint;
use relay_core::sstp::frame::FrameReader;
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, Command, ConnectResponseId, ConnectionConfig, SessionId, Version};
use relay_core::time::{Entropy, Timestamp};
use std::net::IpAddr;
use std::sync::Arc;

const RELAY: &str = "grooveDNS://relay.example";
const ATTACKER: &str = "192.0.2.66";
const FRIEND: &str = "198.51.100.1";

fn text(text: &str) -> Text {
    Text::new(text.as_bytes().to_vec()).unwrap()
}

/// SplitMix64.
struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.0;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
        }
    }
}

/// Alice and Bob, each with one device.
#[derive(Clone)]
struct Person {
    device: DeviceUrl,
    account: AccountUrl,
    keys: Arc<ClientCredentials>,
}

impl Person {
    fn new(name: &str, seed: u64) -> Self {
        Self {
            device: DeviceUrl::new(format!("dpp://relay.example/{name}")).unwrap(),
            account: AccountUrl::new(format!("grooveAccount://{name}@")).unwrap(),
            keys: Arc::new(ClientCredentials::generate(Profile::Modern, &mut Seeded(seed))),
        }
    }
}

struct People(Vec<Person>);

impl Directory for People {
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        let person = self.0.iter().find(|person| person.device == *url);
        Ok(person.map(|person| DeviceRecord {
            credentials: Some(person.keys.as_registered()),
            accounts: vec![person.account.clone()],
            locked_out: false,
        }))
    }
    fn account(&self, url: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        let person = self.0.iter().find(|person| person.account == *url);
        Ok(person.map(|person| AccountRecord {
            credentials: Some(person.keys.as_registered()),
            ..Default::default()
        }))
    }
    fn identity(&self, _: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        Ok(None)
    }
}

struct Scene {
    relay: Relay,
    now: Timestamp,
    alice: Person,
    bob: Person,
    failures: Vec<SecurityFailure>,
    registers: Vec<(ConnectionId, SessionId)>,
}

impl Scene {
    fn new(limit: impl FnOnce(&mut RelayConfig)) -> Self {
        let connection = ConnectionConfig::new(Endpoint::Relay, vec![text(RELAY)], text("Furrow Test 0 1"));
        let mut config = RelayConfig::new(Arc::new(connection), 1);
        limit(&mut config);
        let (alice, bob) = (Person::new("alice", 1), Person::new("bob", 2));
        let directory = Box::new(People(vec![alice.clone(), bob.clone()]));
        let now = Timestamp(1_000_000);
        let relay = Relay::new(ShardId(0), Arc::new(config), directory, Box::new(Seeded(3)), now, 1);
        Self { relay, now, alice, bob, failures: Vec::new(), registers: Vec::new() }
    }

    /// A connection from `address`, if it is let in.
    fn dial(&mut self, address: &str) -> Option<ConnectionId> {
        let address: IpAddr = address.parse().unwrap();
        let turned_away = self.relay.turns_away(self.now, address, false);
        let id = (!turned_away).then(|| self.relay.connected(self.now, Some(address), None));
        self.tidy();
        id
    }

    /// What a driver does: drops what has ended, and takes the actions.
    fn tidy(&mut self) {
        while let Some(action) = self.relay.next_action() {
            match action {
                Action::SecurityFailed(failure) => self.failures.push(failure),
                Action::Register(registration) => {
                    self.registers.push((registration.connection, registration.event));
                }
                _ => {}
            }
        }
        let mut touched = Vec::new();
        self.relay.take_touched(&mut touched);
        for id in touched {
            if self.relay.is_finished(id) {
                self.relay.disconnected(self.now, id);
            }
        }
    }

    fn is_there(&mut self, id: ConnectionId) -> bool {
        self.relay.prepare_output(self.now, id).is_some()
    }

    /// Says something and gives what the relay says.
    fn say(&mut self, id: ConnectionId, command: Command) -> Vec<Command> {
        let mut bytes = BytesMut::new();
        command.encode(&mut bytes);
        self.relay.received(self.now, id, bytes.freeze());
        let mut reader = FrameReader::default();
        if let Some(output) = self.relay.prepare_output(self.now, id) {
            reader.push(output.take());
        }
        self.tidy();
        let frames = std::iter::from_fn(|| reader.next_frame().unwrap());
        frames.map(|frame| Command::decode(frame, Version::V1_6).unwrap()).collect()
    }

    fn connect(&mut self, id: ConnectionId, device: &DeviceUrl, token: Bytes) -> Vec<Command> {
        let connect = Connect {
            minor_version: 6,
            target_device_url: text(RELAY),
            source_device_urls: [text(device.as_str())].into_iter().collect(),
            authentication_token: token,
            peer_product_version: text("Test"),
            peer_product_capabilities: Text::EMPTY,
        };
        self.say(id, Command::from(connect))
    }

    /// A connection from `address` says that it is `device` and shows `keys`: the response's code and what is answered then.
    fn authenticate(&mut self, address: &str, device: &DeviceUrl, keys: &ClientCredentials) -> Answer {
        let id = self.dial(address).expect("the address has room");
        self.now.0 += 1;
        let hello = hello(Layer::Device, device.as_str(), keys, &mut Seeded(self.now.0));
        let answers = self.connect(id, device, hello.token.clone());
        let [Command::ConnectResponse { response, retry_time, token, .. }, then @ ..] = &answers[..] else {
            panic!("{answers:?}")
        };
        let mut answer =
            Answer { id, response: *response, retry_time: *retry_time, proof: None, then: then.to_vec() };
        if *response == ConnectResponseId::Ok
            && let Ok(HelloAnswer::Proof { token }) = hello.answer(token)
        {
            answer.then = self.say(id, Command::ConnectAuthenticate { token: token.clone() });
            answer.proof = Some(token);
        }
        answer
    }

    fn alice_arrives(&mut self) -> ConnectionId {
        let alice = self.alice.clone();
        let answer = self.authenticate(FRIEND, &alice.device, &alice.keys);
        assert!(answer.proof.is_some() && answer.then.is_empty(), "{answer:?}");
        answer.id
    }

    fn register(&mut self, id: ConnectionId, event: u32) -> Vec<Command> {
        let (keys, relay) = (&self.alice.keys, RelayKeys::generate(&mut Seeded(9)));
        let (device, account) = (&self.alice.device, &self.alice.account);
        let entropy = &mut Seeded(10);
        let token =
            register_device_account(device, keys, account, keys, relay.public(), b"", entropy).unwrap();
        let request = AccountRequest {
            event: SessionId(event),
            resource_url: Text::EMPTY,
            account_url: text(account.as_str()),
            authentication_token: token,
        };
        self.say(id, Command::Register(request))
    }
}

#[derive(Debug)]
struct Answer {
    id: ConnectionId,
    response: ConnectResponseId,
    retry_time: u32,
    proof: Option<Bytes>,
    then: Vec<Command>,
}

fn closes(commands: &[Command], wanted: CloseReason) -> bool {
    matches!(commands, [.., Command::ConnectClose { reason, .. }] if *reason == wanted)
}

#[test]
fn an_address_with_too_many_half_open_connections_is_turned_away_and_others_are_not() {
    let mut scene = Scene::new(|config| config.max_unauthenticated_per_address = 3);
    let held: Vec<_> = (0..3).map(|_| scene.dial(ATTACKER).unwrap()).collect();
    assert_eq!(scene.dial(ATTACKER), None);
    assert_eq!(scene.relay.stats().turned_away, 1);
    scene.alice_arrives();
    scene.relay.disconnected(scene.now, held[0]);
    assert!(scene.dial(ATTACKER).is_some(), "one has gone, one may come");
}

#[test]
fn an_ipv6_attacker_has_one_allowance_for_its_whole_64() {
    let mut scene = Scene::new(|config| config.max_unauthenticated_per_address = 2);
    let mut address = |host: u32| scene.dial(&format!("2001:db8:0:1::{host:x}")).is_some();
    assert_eq!([address(1), address(2), address(3)], [true, true, false]);
}

#[test]
fn an_address_may_begin_so_many_tls_handshakes_a_minute() {
    let mut scene = Scene::new(|config| config.tls_handshakes_per_address_per_minute = 2);
    let address: IpAddr = ATTACKER.parse().unwrap();
    let turned_away: Vec<_> = (0..3).map(|_| scene.relay.turns_away(scene.now, address, true)).collect();
    assert_eq!(turned_away, [false, false, true]);
    assert!(!scene.relay.turns_away(scene.now, address, false), "without TLS there is nothing to compute");
    assert!(!scene.relay.turns_away(scene.now, FRIEND.parse().unwrap(), true));
}

#[test]
fn authenticated_connections_are_not_counted_as_strangers() {
    let mut scene = Scene::new(|config| {
        config.max_unauthenticated_per_address = 1;
        config.max_unauthenticated = 1;
    });
    let (first, second) = (scene.alice_arrives(), scene.alice_arrives());
    assert_eq!(scene.relay.unauthenticated(), 0);
    assert!(scene.dial(FRIEND).is_some());
    assert!(scene.is_there(first) && scene.is_there(second));
}

#[test]
fn above_the_bound_of_the_shard_the_oldest_half_open_connection_makes_room() {
    let mut scene = Scene::new(|config| config.max_unauthenticated = 3);
    let alice = scene.alice_arrives();
    let held: Vec<_> = (0..5).map(|n| scene.dial(&format!("203.0.113.{n}")).unwrap()).collect();
    let there: Vec<_> = held.iter().map(|&id| scene.is_there(id)).collect();
    assert_eq!(there, [false, false, true, true, true]);
    assert!(scene.is_there(alice));
    assert_eq!((scene.relay.unauthenticated(), scene.relay.stats().pushed_out), (3, 2));
    scene.alice_arrives();
}

#[test]
fn after_too_many_failures_an_address_is_told_to_try_later_even_with_the_right_key() {
    let mut scene = Scene::new(|config| config.failures_per_address_per_minute = 3);
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    for _ in 0..3 {
        let answer = scene.authenticate(ATTACKER, &alice.device, &bob.keys);
        assert_eq!(answer.response, ConnectResponseId::AuthenticationFailed);
    }
    let answer = scene.authenticate(ATTACKER, &alice.device, &alice.keys);
    assert_eq!((answer.response, answer.retry_time), (ConnectResponseId::TryLater, 30));
    assert_eq!(scene.relay.stats().security_failures, 3, "TryLater is no failure");
    scene.alice_arrives();
    scene.now.0 += 60_000;
    let answer = scene.authenticate(ATTACKER, &alice.device, &alice.keys);
    assert!(answer.proof.is_some() && answer.then.is_empty());
}

#[test]
fn above_its_number_a_registration_is_answered_with_busy_and_not_judged() {
    let mut scene = Scene::new(|config| config.registrations_per_address_per_minute = 2);
    let id = scene.dial(ATTACKER).unwrap();
    let unknown = DeviceUrl::new("dpp://relay.example/new").unwrap();
    scene.connect(id, &unknown, Bytes::new());
    assert_eq!(scene.register(id, 1), []);
    assert_eq!(scene.register(id, 2), []);
    let answers = scene.register(id, 3);
    let [Command::RegisterResponse { token, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(read_register_response(token), Ok(RegisterStatus::Busy));
    assert_eq!(scene.registers, [(id, SessionId(1)), (id, SessionId(2))]);
    let stats = scene.relay.stats();
    assert_eq!((stats.busy, stats.registered, stats.security_failures), (1, 0, 0));
    // A verdict that comes when the peer has gone changes nothing.
    scene.relay.disconnected(scene.now, id);
    let late = Registered::Answered { response: Bytes::new(), failure: None };
    scene.relay.registered(scene.now, id, SessionId(1), late);
    assert_eq!(scene.relay.stats().registered, 0);
}

#[test]
fn strangers_that_name_a_device_do_not_shut_it_out() {
    let mut scene = Scene::new(|config| config.max_connections_per_device = 1);
    let alice = scene.alice.clone();
    for n in 0..3u8 {
        let id = scene.dial(ATTACKER).unwrap();
        let hello = hello_without_key(Layer::Device, Profile::Modern);
        let token = if n == 0 { Bytes::new() } else { hello };
        scene.connect(id, &alice.device, token);
    }
    scene.alice_arrives();
    let second = scene.authenticate(FRIEND, &alice.device, &alice.keys);
    assert!(closes(&second.then, CloseReason::CrossedConnections), "{second:?}");
    assert_eq!(scene.relay.stats().authenticated, 1);
}

#[test]
fn of_two_handshakes_at_once_only_as_many_as_allowed_become_connections() {
    let mut scene = Scene::new(|config| config.max_connections_per_device = 1);
    let alice = scene.alice.clone();
    let start = |scene: &mut Scene, seed| {
        let id = scene.dial(FRIEND).unwrap();
        let hello = hello(Layer::Device, alice.device.as_str(), &alice.keys, &mut Seeded(seed));
        let answers = scene.connect(id, &alice.device, hello.token.clone());
        let [Command::ConnectResponse { token, .. }] = &answers[..] else { panic!("{answers:?}") };
        let Ok(HelloAnswer::Proof { token }) = hello.answer(token) else { panic!("no proof") };
        (id, Command::ConnectAuthenticate { token })
    };
    let (first, second) = (start(&mut scene, 1), start(&mut scene, 2));
    assert_eq!(scene.say(first.0, first.1), []);
    assert!(closes(&scene.say(second.0, second.1), CloseReason::CrossedConnections));
    scene.relay.disconnected(scene.now, first.0);
    scene.alice_arrives();
}

#[test]
fn a_replayed_handshake_proves_nothing() {
    let mut scene = Scene::new(|_| {});
    let alice = scene.alice.clone();
    let hello = hello(Layer::Device, alice.device.as_str(), &alice.keys, &mut Seeded(1));
    let mut proof = None;
    for overheard in [false, true] {
        let id = scene.dial(FRIEND).unwrap();
        let answers = scene.connect(id, &alice.device, hello.token.clone());
        let [Command::ConnectResponse { response: ConnectResponseId::Ok, token, .. }] = &answers[..] else {
            panic!("{answers:?}")
        };
        let Ok(HelloAnswer::Proof { token }) = hello.answer(token) else { panic!("no proof") };
        let said = proof.get_or_insert(token).clone();
        let answers = scene.say(id, Command::ConnectAuthenticate { token: said });
        assert_eq!(closes(&answers, CloseReason::DeviceAuthenticationFailed), overheard, "{answers:?}");
    }
    assert_eq!(scene.relay.stats().authenticated, 1);
    assert!(matches!(scene.failures[..], [SecurityFailure { reason: SecurityError::WrongMac(_), .. }]));
}

#[test]
fn the_right_key_of_one_device_does_not_open_another() {
    let mut scene = Scene::new(|_| {});
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let answer = scene.authenticate(ATTACKER, &alice.device, &bob.keys);
    assert_eq!(answer.response, ConnectResponseId::AuthenticationFailed);
    let failure = &scene.failures[0];
    assert_eq!(failure.device.as_ref(), Some(&alice.device));
    assert_eq!(failure.address, Some(ATTACKER.parse().unwrap()));
    assert_eq!(failure.message, MessageId::SecConnect);
}

fn attach(account: &AccountUrl, token: Bytes) -> Command {
    attach_as(7, account, token)
}

fn attach_as(event: u32, account: &AccountUrl, token: Bytes) -> Command {
    Command::Attach(AccountRequest {
        event: SessionId(event),
        resource_url: Text::EMPTY,
        account_url: text(account.as_str()),
        authentication_token: token,
    })
}

#[test]
fn nobody_attaches_an_account_without_its_key() {
    let mut scene = Scene::new(|_| {});
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let id = scene.alice_arrives();
    let hello = hello(Layer::Account, bob.account.as_str(), &alice.keys, &mut Seeded(1));
    let answers = scene.say(id, attach(&bob.account, hello.token.clone()));
    let [Command::AttachResponse { token, .. }] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(hello.answer(token), Ok(HelloAnswer::Failed));
    assert_eq!(scene.relay.stats().attached, 0);
    assert_eq!(scene.failures[0].account.as_ref(), Some(&bob.account));
}

#[test]
fn an_address_that_has_failed_too_often_attaches_nothing_even_with_the_right_key() {
    let mut scene = Scene::new(|config| config.failures_per_address_per_minute = 3);
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    let id = scene.alice_arrives();
    let try_as = |scene: &mut Scene, keys: &ClientCredentials, event: u32| {
        scene.now.0 += 1;
        let hello = hello(Layer::Account, alice.account.as_str(), keys, &mut Seeded(scene.now.0));
        let answers = scene.say(id, attach_as(event, &alice.account, hello.token.clone()));
        let [Command::AttachResponse { token, .. }] = &answers[..] else { panic!("{answers:?}") };
        hello.answer(token)
    };
    for event in 1..=3 {
        assert_eq!(try_as(&mut scene, &bob.keys, event), Ok(HelloAnswer::Failed));
    }
    assert_eq!(try_as(&mut scene, &alice.keys, 4), Ok(HelloAnswer::Failed));
    let stats = scene.relay.stats();
    assert_eq!((stats.put_off, stats.security_failures), (1, 3), "the fourth was not looked into");
    assert!(scene.failures.iter().all(|failure| failure.message == MessageId::SecAttach));
    scene.now.0 += 60_000;
    assert!(matches!(try_as(&mut scene, &alice.keys, 5), Ok(HelloAnswer::Proof { .. })));
}

#[test]
fn the_failure_of_a_registration_is_told_with_account_and_message() {
    let mut scene = Scene::new(|_| {});
    let alice = scene.alice.clone();
    let id = scene.dial(ATTACKER).unwrap();
    scene.connect(id, &alice.device, Bytes::new());
    let failure = RegisterFailure {
        account: alice.account.clone(),
        message: MessageId::SecIdentityRegister,
        reason: SecurityError::IdentityNotListed,
    };
    let outcome = Registered::Answered { response: Bytes::new(), failure: Some(failure) };
    scene.relay.registered(scene.now, id, SessionId(1), outcome);
    scene.tidy();
    let told = &scene.failures[0];
    assert_eq!((told.device.as_ref(), told.account.as_ref()), (Some(&alice.device), Some(&alice.account)));
    assert_eq!(
        (told.message, told.reason),
        (MessageId::SecIdentityRegister, SecurityError::IdentityNotListed)
    );
}

#[test]
fn a_device_that_has_not_proven_itself_attaches_nothing_even_with_the_account_key() {
    let mut scene = Scene::new(|_| {});
    let bob = scene.bob.clone();
    let id = scene.dial(ATTACKER).unwrap();
    scene.connect(id, &bob.device, Bytes::new());
    let hello = hello(Layer::Account, bob.account.as_str(), &bob.keys, &mut Seeded(1));
    let answers = scene.say(id, attach(&bob.account, hello.token.clone()));
    let refused = Command::Close { session: SessionId(7), reason: CloseReason::DeviceAuthenticationFailed };
    assert_eq!(answers, [refused]);
    assert_eq!(scene.relay.stats().attached, 0);
}

#[test]
fn the_security_log_has_few_lines_of_one_address_and_tells_how_many_it_left_out() {
    let mut scene = Scene::new(|config| config.failures_per_address_per_minute = 1000);
    let (alice, bob) = (scene.alice.clone(), scene.bob.clone());
    for _ in 0..30 {
        scene.authenticate(ATTACKER, &alice.device, &bob.keys);
    }
    assert_eq!(scene.failures.len(), 10);
    scene.now.0 += 6000;
    scene.authenticate(ATTACKER, &alice.device, &bob.keys);
    assert_eq!(scene.failures[10].untold, 20);
    assert_eq!(scene.relay.stats().security_failures, 31, "the counters leave out nothing");
}

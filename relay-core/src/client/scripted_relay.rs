//! A relay in memory for the machine's tests: does what its script says, over a transport that is two byte vectors.

use super::*;
use crate::address::{AccountUrl, DeviceUrl, IdentityUrl, ResourceUrl};
use crate::directory::*;
use crate::security::{
    self, Challenge, HelloVerdict, RegisterContext, RegisterVerdict, RelayKeys, answer_register,
};
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::connection::{self, ConnectionConfig, Endpoint};
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, ConnectResponseId, Connection, OpenResponseId, SessionId};
use crate::time::{Entropy, Timestamp};
use bytes::Bytes;
use hashbrown::HashMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const RELAY: &str = "grooveDNS://relay.test";
pub(crate) const DEVICE: &str = "dpp://relay.test/device";
pub(crate) const ACCOUNT: &str = "grooveAccount://account@";
pub(crate) const ME: &str = "grooveIdentity://me@";

pub(crate) fn identity(name: &str) -> IdentityUrl {
    IdentityUrl::new(format!("grooveIdentity://{name}@")).unwrap()
}

pub(crate) fn destination(name: &str) -> Arc<Destination> {
    Arc::new(Destination::new(ResourceUrl::new("mail").unwrap(), Recipient::identity(identity(name))))
}

pub(crate) fn message(to: &str, body: impl Into<Bytes>) -> OutgoingMessage {
    OutgoingMessage::new(destination(to), Body::Whole(body.into()))
}

/// What every pulled body holds at `offset`.
pub(crate) fn pattern(offset: u64, length: usize) -> Bytes {
    (offset..offset + length as u64).map(|at| (at * 31 % 251) as u8).collect()
}

/// SplitMix64.
pub(crate) struct Seeded(pub(crate) u64);

impl Entropy for Seeded {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed >> 56) as u8;
        }
    }
}

/// How the relay answers a Connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Welcome {
    /// Security as registered in its directory.
    Authenticate,
    /// Ok with an empty token.
    Anyone,
    TryLater(u32),
    /// The transport does not even open.
    Unreachable,
}

/// A message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) to: String,
    pub(crate) flags: u8,
    pub(crate) tail: Bytes,
    pub(crate) body: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Records {
    devices: HashMap<DeviceUrl, DeviceRecord>,
    accounts: HashMap<AccountUrl, AccountRecord>,
    pub(crate) identities: HashMap<IdentityUrl, IdentityRecord>,
}

impl Directory for Records {
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        Ok(self.devices.get(url).cloned())
    }
    fn account(&self, url: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        Ok(self.accounts.get(url).cloned())
    }
    fn identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        Ok(self.identities.get(url).cloned())
    }
}

impl Records {
    fn apply(&mut self, change: DirectoryChange) {
        match change {
            DirectoryChange::Device(url, record) => drop(self.devices.insert(url, record.unwrap())),
            DirectoryChange::Account(url, record) => drop(self.accounts.insert(url, record.unwrap())),
            DirectoryChange::Identity(url, record) => drop(self.identities.insert(url, record.unwrap())),
        }
    }
}

/// A client, the relay, and the transport between them.
pub(crate) struct Script {
    pub(crate) now: Timestamp,
    pub(crate) client: Client,
    pub(crate) relay: Option<Connection>,
    pub(crate) welcome: Welcome,
    /// How Opens are answered, by identity; Ok if not listed.
    pub(crate) answers: HashMap<String, OpenResponseId>,
    /// Whether messages are acknowledged when they arrive.
    pub(crate) acknowledging: bool,
    pub(crate) provides_bodies: bool,
    pub(crate) pre_authentication: bool,
    pub(crate) arrived: Vec<Arrived>,
    pub(crate) unacknowledged: Vec<InboundSeq>,
    /// Opens in order, with the SessionId of the running connection.
    pub(crate) opens: Vec<(SessionId, String)>,
    pub(crate) fanouts: Vec<(SessionId, usize)>,
    /// Tags of the relay's own messages that the client has acknowledged.
    pub(crate) delivered: Vec<u64>,
    /// Answers of the client to sessions of the relay, and the closes.
    pub(crate) relay_events: Vec<connection::Event>,
    pub(crate) events: Vec<Event>,
    pub(crate) dials: Vec<Timestamp>,
    pub(crate) records: Records,
    pub(crate) attached: Vec<String>,
    pub(crate) proven: bool,
    partial: HashMap<SessionId, Arrived>,
    sessions: HashMap<SessionId, String>,
    keys: RelayKeys,
    challenges: HashMap<Option<SessionId>, (Challenge, String)>,
    device: Option<DeviceUrl>,
    entropy: Seeded,
}

impl Script {
    /// A client without keys and a relay that takes mail from anyone.
    pub(crate) fn anonymous() -> Self {
        Self::with(Welcome::Anyone, |_| {})
    }

    /// A client with keys, not yet registered.
    pub(crate) fn with_keys() -> Self {
        Self::with_keys_of(Profile::Modern)
    }

    pub(crate) fn with_keys_of(profile: Profile) -> Self {
        let mut entropy = Seeded(7);
        let mut credentials = || Arc::new(security::ClientCredentials::generate(profile, &mut entropy));
        let (device, account) = (credentials(), credentials());
        Self::with(Welcome::Authenticate, |config| {
            config.device_credentials = Some(device);
            config.accounts = vec![Account { url: AccountUrl::new(ACCOUNT).unwrap(), credentials: account }];
        })
    }

    /// As `with_keys`, registered with the identity [`ME`] and ready.
    pub(crate) fn registered() -> Self {
        let mut script = Self::with_keys();
        script.run();
        script.client.register(script.registration()).unwrap();
        script.run();
        assert!(script.events.contains(&Event::Ready), "{:?}", script.events);
        script.events.clear();
        script
    }

    /// The relay's records say that device and account have registered before.
    pub(crate) fn registered_before(mut self) -> Self {
        let config = self.client.config();
        let account = &config.accounts[0];
        let device_record = DeviceRecord {
            credentials: config.device_credentials.as_ref().map(|keys| keys.as_registered()),
            accounts: vec![account.url.clone()],
            locked_out: false,
        };
        let account_record = AccountRecord {
            credentials: Some(account.credentials.as_registered()),
            ..AccountRecord::default()
        };
        self.records.accounts.insert(account.url.clone(), account_record);
        self.records.devices.insert(DeviceUrl::new(DEVICE).unwrap(), device_record);
        self
    }

    pub(crate) fn with(welcome: Welcome, change: impl FnOnce(&mut ClientConfig)) -> Self {
        let keys = RelayKeys::generate(&mut Seeded(1));
        let mut config =
            ClientConfig::new(DeviceUrl::new(RELAY).unwrap(), DeviceUrl::new(DEVICE).unwrap()).unwrap();
        config.relay_keys = Some(keys.public().clone());
        change(&mut config);
        let now = Timestamp(1_000_000);
        Self {
            now,
            client: Client::new(config, now, Box::new(Seeded(2))),
            relay: None,
            welcome,
            answers: HashMap::new(),
            acknowledging: true,
            provides_bodies: true,
            pre_authentication: false,
            arrived: Vec::new(),
            unacknowledged: Vec::new(),
            opens: Vec::new(),
            fanouts: Vec::new(),
            delivered: Vec::new(),
            relay_events: Vec::new(),
            events: Vec::new(),
            dials: Vec::new(),
            records: Records::default(),
            attached: Vec::new(),
            proven: false,
            partial: HashMap::new(),
            sessions: HashMap::new(),
            keys,
            challenges: HashMap::new(),
            device: None,
            entropy: Seeded(3),
        }
    }

    pub(crate) fn registration(&self) -> Registration {
        Registration {
            account: AccountUrl::new(ACCOUNT).unwrap(),
            pre_auth_token: Vec::new(),
            identities: vec![IdentityUrl::new(ME).unwrap()],
            on_new_device: false,
        }
    }

    /// Lets both sides talk until neither has anything to say at this moment.
    pub(crate) fn run(&mut self) {
        while self.run_client() | self.run_relay() {}
    }

    /// Time passes, in steps no longer than the next deadline of either side.
    pub(crate) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        self.run();
        while self.now < until {
            let relay_due = self.relay.as_ref().and_then(Connection::poll_timeout);
            let due = [self.client.poll_timeout(), relay_due].into_iter().flatten().min();
            self.now = due.map_or(until, |due| due.min(until)).max(Timestamp(self.now.0 + 1)).min(until);
            if let Some(relay) = &mut self.relay {
                relay.handle_timeout(self.now);
            }
            self.run();
        }
    }

    /// The transport breaks; neither side gets what is under way.
    pub(crate) fn cut(&mut self) {
        self.relay = None;
        self.forget_connection();
        self.client.transport_lost(self.now);
    }

    pub(crate) fn relay(&mut self) -> &mut Connection {
        self.relay.as_mut().expect("the connection is up")
    }

    /// The relay sends a message on a session of its own.
    pub(crate) fn deliver(&mut self, session: SessionId, body: Bytes, tag: u64) {
        self.relay().begin_message(session, 0, b"\0");
        self.relay().message_data(session, body);
        self.relay().end_message(session, tag);
    }

    pub(crate) fn open_to_client(&mut self) -> SessionId {
        let text = |text: &'static str| Text::new(text.as_bytes()).unwrap();
        let session = self.relay().open(text("mail"), text(ME), Text::EMPTY).unwrap();
        self.run();
        session
    }

    pub(crate) fn acknowledge_all(&mut self) {
        for seq in std::mem::take(&mut self.unacknowledged) {
            self.relay().complete(seq);
        }
        self.run();
    }

    pub(crate) fn bodies(&self, to: &str) -> Vec<Vec<u8>> {
        let to = identity(to).to_string();
        self.arrived.iter().filter(|arrived| arrived.to == to).map(|arrived| arrived.body.clone()).collect()
    }

    /// The sessions that the client wants are opened, and the client fills its output once.
    pub(crate) fn open_only(&mut self) {
        self.client.poll(self.now);
        self.transfer_to_relay();
        self.run_relay();
        self.client.poll(self.now);
    }

    fn forget_connection(&mut self) {
        self.partial.clear();
        self.sessions.clear();
        self.challenges.clear();
        self.unacknowledged.clear();
        self.attached.clear();
        self.proven = false;
    }

    /// Only the client acts; what it sends reaches the relay.
    pub(crate) fn run_client(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.client.poll(self.now) {
            busy = true;
            match event {
                Event::Dial => self.dial(),
                Event::HangUp => {
                    self.transfer_to_relay();
                    self.run_relay();
                    self.relay = None;
                    self.forget_connection();
                    self.client.transport_lost(self.now);
                }
                Event::WantBody { message, offset, max } if self.provides_bodies => {
                    self.client.provide(message, offset, pattern(offset, max.min(10_000)));
                }
                event => self.events.push(event),
            }
        }
        busy | self.transfer_to_relay()
    }

    fn transfer_to_relay(&mut self) -> bool {
        let sent = self.client.output().map(|output| output.take()).unwrap_or_default();
        let any = !sent.is_empty();
        if let Some(relay) = self.relay.as_mut().filter(|_| any) {
            relay.receive(self.now, sent);
        }
        any
    }

    fn dial(&mut self) {
        self.dials.push(self.now);
        if self.welcome == Welcome::Unreachable {
            return self.client.transport_lost(self.now);
        }
        let text = |text: &'static str| Text::new(text.as_bytes()).unwrap();
        let config = ConnectionConfig::new(Endpoint::Relay, vec![text(RELAY)], text("test"));
        self.relay = Some(Connection::acceptor(Arc::new(config), self.now));
        self.client.transport_up(self.now);
    }

    fn run_relay(&mut self) -> bool {
        let mut busy = false;
        while let Some(event) = self.relay.as_mut().and_then(|relay| relay.poll(self.now)) {
            busy = true;
            self.relay_event(event);
        }
        let Some(relay) = &mut self.relay else { return busy };
        relay.prepare_output(self.now);
        let sent = relay.output().take();
        busy |= !sent.is_empty();
        let ended = relay.is_ended();
        if self.client.wants_input() {
            self.client.receive(self.now, sent);
        } else {
            assert!(sent.is_empty(), "the relay honours OkStopSending");
        }
        if ended {
            self.relay = None;
            self.forget_connection();
            self.run_client();
            self.client.transport_lost(self.now);
        }
        busy
    }

    fn relay_event(&mut self, event: connection::Event) {
        use connection::Event as E;
        match event {
            E::Connect(connect) => self.connect(*connect),
            E::ConnectAuthenticate { token } => {
                let (challenge, _) = self.challenges.remove(&None).unwrap();
                challenge.verify(&token).unwrap();
                self.proven = true;
                self.relay().authenticated();
            }
            E::Attach(request) => self.attach(request),
            E::AttachAuthenticate { event, token } => {
                let (challenge, account) = self.challenges.remove(&Some(event)).unwrap();
                challenge.verify(&token).unwrap();
                self.attached.push(account);
            }
            E::Register(request) => self.register(request),
            E::Open(open) => {
                let identity = open.identity_url.as_str().to_owned();
                let answer = self.answers.get(&identity).copied().unwrap_or(OpenResponseId::Ok);
                self.opens.push((open.session, identity.clone()));
                self.sessions.insert(open.session, identity);
                self.relay().respond(open.session, answer);
            }
            E::FanoutOpen(open) => {
                self.fanouts.push((open.session, open.len()));
                self.sessions.insert(open.session, "fanout".to_owned());
                self.relay().respond(open.session, OpenResponseId::Ok);
            }
            E::Part { session, part, end } => self.part(session, part, end),
            E::Acknowledged { tag, count, .. } => {
                self.delivered.extend(std::iter::repeat_n(tag, count as usize));
            }
            event => self.relay_events.push(event),
        }
    }

    fn part(&mut self, session: SessionId, part: connection::Part, end: Option<InboundSeq>) {
        let to = self.sessions[&session].clone();
        let arrived = self.partial.entry(session).or_insert_with(|| Arrived {
            to,
            flags: part.flags,
            tail: part.tail.clone(),
            body: Vec::new(),
        });
        part.payload.iter().for_each(|slice| arrived.body.extend_from_slice(slice));
        let Some(seq) = end else { return };
        self.arrived.push(self.partial.remove(&session).unwrap());
        if self.acknowledging {
            self.relay().complete(seq);
        } else {
            self.unacknowledged.push(seq);
        }
    }

    fn connect(&mut self, connect: crate::sstp::command::Connect) {
        let now = self.now;
        match self.welcome {
            Welcome::Anyone => self.relay().accept(now, Bytes::new(), false),
            Welcome::TryLater(seconds) => {
                self.relay().refuse(ConnectResponseId::TryLater, seconds, Bytes::new())
            }
            Welcome::Unreachable => unreachable!("the transport does not open"),
            Welcome::Authenticate => {
                let device = DeviceUrl::new(connect.source_device_urls[0].as_bytes()).unwrap();
                let record = self.records.device(&device).unwrap();
                let token = &connect.authentication_token;
                let verdict = security::answer_connect(token, &device, record.as_ref(), &mut self.entropy);
                self.device = Some(device);
                match verdict {
                    HelloVerdict::RegistrationNeeded { token } => self.relay().accept(now, token, false),
                    HelloVerdict::Failed { token, .. } => {
                        self.relay().refuse(ConnectResponseId::AuthenticationFailed, 0, token)
                    }
                    HelloVerdict::Challenged { token, challenge } => {
                        self.challenges.insert(None, (challenge, String::new()));
                        self.relay().accept(now, token, true);
                    }
                }
            }
        }
    }

    fn attach(&mut self, request: crate::sstp::command::AccountRequest) {
        let account = AccountUrl::new(request.account_url.as_bytes()).unwrap();
        let record = self.records.account(&account).unwrap();
        let token = &request.authentication_token;
        let response = match security::answer_attach(token, &account, record.as_ref(), &mut self.entropy) {
            HelloVerdict::RegistrationNeeded { token } | HelloVerdict::Failed { token, .. } => token,
            HelloVerdict::Challenged { token, challenge } => {
                self.challenges.insert(Some(request.event), (challenge, account.to_string()));
                token
            }
        };
        self.relay().attach_response(request.event, response);
    }

    fn register(&mut self, request: crate::sstp::command::AccountRequest) {
        let account = AccountUrl::new(request.account_url.as_bytes()).unwrap();
        let context = RegisterContext {
            keys: &self.keys,
            device: self.device.as_ref().unwrap(),
            account: &account,
            directory: &self.records,
            pre_authentication_required: self.pre_authentication,
        };
        match answer_register(&request.authentication_token, &context) {
            RegisterVerdict::Accepted { changes, response } => {
                changes.into_iter().for_each(|change| self.records.apply(change));
                self.relay().register_response(request.event, response);
            }
            RegisterVerdict::Refused { response, .. } => {
                self.relay().register_response(request.event, response)
            }
            RegisterVerdict::Malformed(_) => {
                self.relay().close_session(request.event, CloseReason::ProtocolError)
            }
        }
    }
}

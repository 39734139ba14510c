//! A small relay over loopback TCP: registers, authenticates, stores in memory, delivers. No limits and no disk.

use bytes::{Bytes, BytesMut};
use client::{ClientProfile, Fallback, RelayIdentity, SystemEntropy};
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::*;
use relay_core::security::{self, Challenge, HelloVerdict, RegisterContext, RegisterVerdict, RelayKeys};
use relay_core::sstp::acknowledge::InboundSeq;
use relay_core::sstp::command::{AccountRequest, Connect, FanoutOpen, Open};
use relay_core::sstp::connection::{ConnectionConfig, Endpoint, Event, Part};
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, ConnectResponseId, Connection, OpenResponseId, SessionId};
use relay_core::time::Timestamp;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const RELAY_URL: &str = "grooveDNS://relay.test";

/// A stored message.
#[derive(Clone)]
struct Stored {
    number: u64,
    resource: Text,
    identity: Text,
    device: Text,
    flags: u8,
    tail: Bytes,
    body: Bytes,
}

#[derive(Default)]
struct Records {
    devices: HashMap<DeviceUrl, DeviceRecord>,
    accounts: HashMap<AccountUrl, AccountRecord>,
    identities: HashMap<IdentityUrl, IdentityRecord>,
    stored: Vec<Stored>,
    next: u64,
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

struct Shared {
    keys: RelayKeys,
    records: Mutex<Records>,
    /// Changes when something is stored, or connections are to be cut.
    news: watch::Sender<u64>,
    cuts: watch::Sender<u64>,
}

/// The relay; ends with the runtime.
#[derive(Clone)]
pub(crate) struct TestRelay {
    shared: Arc<Shared>,
    address: SocketAddr,
}

impl TestRelay {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let shared = Arc::new(Shared {
            keys: RelayKeys::generate(&mut SystemEntropy::default()),
            records: Mutex::default(),
            news: watch::channel(0).0,
            cuts: watch::channel(0).0,
        });
        let relay = Self { address: listener.local_addr().unwrap(), shared: shared.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Peer::new(shared.clone()).serve(stream));
            }
        });
        relay
    }

    pub(crate) fn identity(&self) -> RelayIdentity {
        RelayIdentity {
            relay_url: DeviceUrl::new(RELAY_URL).unwrap(),
            // The first one refuses: clients try the next.
            addresses: vec!["127.0.0.1:1".into(), self.address.to_string()],
            public_keys: self.shared.keys.public().clone(),
            tls: None,
            fallback: Fallback::default(),
        }
    }

    pub(crate) fn profile(&self) -> ClientProfile {
        ClientProfile::generate(self.identity())
    }

    /// Breaks all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Messages that no recipient has acknowledged.
    pub(crate) fn stored(&self) -> usize {
        self.shared.records.lock().unwrap().stored.len()
    }
}

/// One connection.
struct Peer {
    shared: Arc<Shared>,
    connection: Connection,
    now: Timestamp,
    device: Option<DeviceUrl>,
    proven: bool,
    attached: Vec<AccountUrl>,
    challenges: HashMap<Option<SessionId>, (Challenge, Option<AccountUrl>)>,
    /// Sessions of the client, with resource and recipients.
    deposits: HashMap<SessionId, (Text, Vec<(Text, Text)>)>,
    partial: HashMap<SessionId, BytesMut>,
    /// Sessions towards the client.
    deliveries: HashMap<(Text, Text, Text), SessionId>,
    under_way: Vec<u64>,
}

impl Peer {
    fn new(shared: Arc<Shared>) -> Self {
        let text = |text: &'static str| Text::new(text.as_bytes()).unwrap();
        let config = ConnectionConfig::new(Endpoint::Relay, vec![text(RELAY_URL)], text("test"));
        Self {
            shared,
            connection: Connection::acceptor(Arc::new(config), Timestamp(0)),
            now: Timestamp(0),
            device: None,
            proven: false,
            attached: Vec::new(),
            challenges: HashMap::new(),
            deposits: HashMap::new(),
            partial: HashMap::new(),
            deliveries: HashMap::new(),
            under_way: Vec::new(),
        }
    }

    async fn serve(mut self, mut stream: TcpStream) {
        let mut news = self.shared.news.subscribe();
        let mut cuts = self.shared.cuts.subscribe();
        let mut buffer = BytesMut::new();
        while !self.connection.is_ended() {
            buffer.reserve(16 << 10);
            tokio::select! {
                read = stream.read_buf(&mut buffer) => match read {
                    Ok(1..) => self.connection.receive(self.now, buffer.split().freeze()),
                    _ => return,
                },
                changed = news.changed() => changed.unwrap(),
                _ = cuts.changed() => return,
            }
            while let Some(event) = self.connection.poll(self.now) {
                self.event(event);
            }
            self.deliver();
            self.connection.prepare_output(self.now);
            let output = self.connection.output().take();
            if stream.write_all(&output).await.is_err() {
                return;
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Connect(connect) => self.connect(*connect),
            Event::ConnectAuthenticate { token } => {
                let (challenge, _) = self.challenges.remove(&None).unwrap();
                challenge.verify(&token).unwrap();
                self.proven = true;
                self.connection.authenticated();
            }
            Event::Attach(request) => self.attach(request),
            Event::AttachAuthenticate { event, token } => {
                let (challenge, account) = self.challenges.remove(&Some(event)).unwrap();
                challenge.verify(&token).unwrap();
                self.attached.extend(account);
            }
            Event::Register(request) => self.register(request),
            Event::Open(open) => self.open(open),
            Event::FanoutOpen(open) => self.fanout_open(open),
            Event::Part { session, part, end } => self.part(session, part, end),
            Event::Acknowledged { tag, .. } => {
                self.shared.records.lock().unwrap().stored.retain(|stored| stored.number != tag);
            }
            _ => {}
        }
    }

    fn connect(&mut self, connect: Connect) {
        let device = DeviceUrl::new(connect.source_device_urls[0].as_bytes()).unwrap();
        let record = self.shared.records.lock().unwrap().device(&device).expect("kept in memory");
        let token = &connect.authentication_token;
        match security::answer_connect(token, &device, record.as_ref(), &mut SystemEntropy::default()) {
            HelloVerdict::RegistrationNeeded { token } => self.connection.accept(self.now, token, false),
            HelloVerdict::Failed { token, .. } => {
                self.connection.refuse(ConnectResponseId::AuthenticationFailed, 0, token)
            }
            HelloVerdict::Challenged { token, challenge } => {
                self.challenges.insert(None, (challenge, None));
                self.connection.accept(self.now, token, true);
            }
        }
        self.device = Some(device);
    }

    fn attach(&mut self, request: AccountRequest) {
        let account = AccountUrl::new(request.account_url.as_bytes()).unwrap();
        let record = self.shared.records.lock().unwrap().account(&account).expect("kept in memory");
        let token = &request.authentication_token;
        let verdict =
            security::answer_attach(token, &account, record.as_ref(), &mut SystemEntropy::default());
        let response = match verdict {
            HelloVerdict::RegistrationNeeded { token } | HelloVerdict::Failed { token, .. } => token,
            HelloVerdict::Challenged { token, challenge } => {
                self.challenges.insert(Some(request.event), (challenge, Some(account)));
                token
            }
        };
        self.connection.attach_response(request.event, response);
    }

    fn register(&mut self, request: AccountRequest) {
        let account = AccountUrl::new(request.account_url.as_bytes()).unwrap();
        let mut records = self.shared.records.lock().unwrap();
        let context = RegisterContext {
            keys: &self.shared.keys,
            device: self.device.as_ref().unwrap(),
            account: &account,
            directory: &*records,
            pre_authentication_required: false,
        };
        match security::answer_register(&request.authentication_token, &context) {
            RegisterVerdict::Accepted { changes, response } => {
                changes.into_iter().for_each(|change| records.apply(change));
                self.connection.register_response(request.event, response);
            }
            RegisterVerdict::Refused { response, .. } => {
                self.connection.register_response(request.event, response)
            }
            RegisterVerdict::Malformed(_) => {
                self.connection.close_session(request.event, CloseReason::ProtocolError)
            }
        }
    }

    fn open(&mut self, open: Open) {
        let known = self.shared.records.lock().unwrap().identities.contains_key(open.identity_url.as_str());
        if !known || !self.proven {
            return self.connection.respond(open.session, OpenResponseId::Unknown);
        }
        self.deposits.insert(open.session, (open.resource_url, vec![(open.identity_url, open.device_url)]));
        self.connection.respond(open.session, OpenResponseId::Ok);
    }

    fn fanout_open(&mut self, open: FanoutOpen) {
        let recipients = open.entries().map(|entry| (entry.identity_url, entry.device_url)).collect();
        self.deposits.insert(open.session, (open.resource_url.clone(), recipients));
        self.connection.respond(open.session, OpenResponseId::Ok);
    }

    fn part(&mut self, session: SessionId, part: Part, end: Option<InboundSeq>) {
        let body = self.partial.entry(session).or_default();
        part.payload.iter().for_each(|slice| body.extend_from_slice(slice));
        let Some(seq) = end else { return };
        let body = self.partial.remove(&session).unwrap().freeze();
        let (resource, recipients) = &self.deposits[&session];
        let mut records = self.shared.records.lock().unwrap();
        for (identity, device) in recipients {
            records.next += 1;
            let stored = Stored {
                number: records.next,
                resource: resource.clone(),
                identity: identity.clone(),
                device: device.clone(),
                flags: part.flags,
                tail: part.tail.clone(),
                body: body.clone(),
            };
            records.stored.push(stored);
        }
        self.connection.complete(seq);
        self.shared.news.send_modify(|news| *news += 1);
    }

    /// Sends what is stored for this client and not yet under way.
    fn deliver(&mut self) {
        let shared = self.shared.clone();
        let records = shared.records.lock().unwrap();
        for stored in &records.stored {
            if self.under_way.contains(&stored.number) || !self.is_for_us(stored, &records) {
                continue;
            }
            let address = (stored.resource.clone(), stored.identity.clone(), stored.device.clone());
            let session = match self.deliveries.get(&address) {
                Some(session) => *session,
                None => {
                    let (resource, identity, device) = address.clone();
                    let session = self.connection.open(resource, identity, device).unwrap();
                    self.deliveries.insert(address, session);
                    session
                }
            };
            if self.connection.may_send(session) {
                self.connection.begin_message(session, stored.flags, &stored.tail);
                self.connection.message_data(session, stored.body.clone());
                self.connection.end_message(session, stored.number);
                self.under_way.push(stored.number);
            }
        }
    }

    fn is_for_us(&self, stored: &Stored, records: &Records) -> bool {
        let device = self.device.as_ref().map_or("", |device| device.as_str());
        match stored.device.as_str() {
            "" => {
                let owner = records.identities.get(stored.identity.as_str()).map(|record| &record.account);
                owner.is_some_and(|owner| self.attached.contains(owner))
            }
            target => self.proven && target == device,
        }
    }
}

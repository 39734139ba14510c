//! The test bench: one or two shards, clients on wires without delay, a log that is durable when the test says so.
//!
//! Everybody is registered: account `n` has identity `n` and lives on device `n`.

use crate::dice::Dice;
use crate::population::Population;
use bytes::{Bytes, BytesMut};
use relay_core::relay::home::home;
use relay_core::relay::{Action, ConnectionId, Relay, RelayConfig, ShardId};
use relay_core::security::{self, Hello, HelloAnswer, Layer};
use relay_core::sstp::acknowledge::InboundSeq;
use relay_core::sstp::command::{FanoutEntry, FanoutOpen};
use relay_core::sstp::connection::{ConnectionConfig, Endpoint};
use relay_core::sstp::text::Text;
use relay_core::sstp::{Connection, Event, OpenResponseId, SessionId, Version};
use relay_core::store::{LogEntry, Position, RecordId, Restored};
use relay_core::time::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const RELAY: &str = "dpp://relay";

/// A client, by its position on the bench.
pub(crate) type Who = usize;

/// A message as a client got it: flags, tail, payload.
pub(crate) type Got = (u8, Bytes, Vec<u8>);

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Proof {
    Right,
    Wrong,
    None,
}

pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) shard: usize,
    pub(crate) id: Option<ConnectionId>,
    hello: Option<Hello>,
    /// What happened, but for what the bench answers by itself.
    pub(crate) events: Vec<Event>,
    pub(crate) got: Vec<Got>,
    payload: HashMap<SessionId, BytesMut>,
    /// What the client answers to an Open.
    pub(crate) accepts: OpenResponseId,
    /// Whether it finishes with messages.
    pub(crate) finishes: bool,
    unfinished: Vec<InboundSeq>,
    /// Whether it takes what the relay sends.
    pub(crate) reads: bool,
    /// What it does about a challenge.
    pub(crate) proof: Proof,
}

pub(crate) struct Bench {
    pub(crate) url: &'static str,
    pub(crate) now: Timestamp,
    pub(crate) people: Population,
    pub(crate) relays: Vec<Relay>,
    pub(crate) clients: Vec<Client>,
    pub(crate) actions: Vec<Action>,
    /// Everything that became durable on each shard.
    pub(crate) written: Vec<LogEntry>,
    payloads: Vec<Option<Bytes>>,
    /// Batches become durable as soon as there is one.
    pub(crate) durable_at_once: bool,
    /// Whether items pass from shard to shard.
    pub(crate) mesh_runs: bool,
    /// Parts cannot be read back.
    pub(crate) unreadable: Option<u32>,
    dice: Dice,
    config: Arc<RelayConfig>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(1, |_| {})
    }

    pub(crate) fn with(shards: u16, change: impl FnOnce(&mut RelayConfig)) -> Self {
        Self::named(RELAY, shards, change)
    }

    pub(crate) fn named(url: &'static str, shards: u16, change: impl FnOnce(&mut RelayConfig)) -> Self {
        let mut dice = Dice::new(1);
        let devices: Vec<Vec<usize>> = (0..8).map(|account| vec![account]).collect();
        let people = Population::new(8, 1, &devices, &mut dice);
        people.register_all_but(&[]);
        let urls = vec![Text::new(url).unwrap()];
        let connection = ConnectionConfig::new(Endpoint::Relay, urls, Text::EMPTY);
        let mut config = RelayConfig::new(Arc::new(connection), shards);
        config.commit_delay = Duration::ZERO;
        change(&mut config);
        let config = Arc::new(config);
        let now = Timestamp(1_700_000_000_000);
        let relay = |shard: u16| {
            let directory = Box::new(people.directory.clone());
            Relay::new(ShardId(shard), config.clone(), directory, Box::new(Dice::new(2)), now, 1)
        };
        Self {
            url,
            now,
            relays: (0..shards).map(relay).collect(),
            people,
            clients: Vec::new(),
            actions: Vec::new(),
            written: Vec::new(),
            payloads: Vec::new(),
            durable_at_once: true,
            mesh_runs: true,
            unreadable: None,
            dice,
            config,
        }
    }

    /// The shard that is home to an account.
    pub(crate) fn home(&self, account: usize) -> usize {
        usize::from(home(&self.people.accounts[account].url, self.relays.len() as u16).0)
    }

    /// A device connects to a shard, with a token or without, and waits for nothing.
    pub(crate) fn dial(
        &mut self,
        shard: usize,
        urls: &[&str],
        version: Version,
        hello: Option<Hello>,
    ) -> Who {
        self.dial_to(self.url, shard, urls, version, hello)
    }

    pub(crate) fn dial_to(
        &mut self,
        target: &'static str,
        shard: usize,
        urls: &[&str],
        version: Version,
        hello: Option<Hello>,
    ) -> Who {
        let urls = urls.iter().map(|url| Text::new(url.as_bytes().to_vec()).unwrap()).collect();
        let mut config = ConnectionConfig::new(Endpoint::Client, urls, Text::EMPTY);
        config.version = version;
        config.acknowledge_delay = Duration::ZERO;
        let token = hello.as_ref().map_or(Bytes::new(), |hello| hello.token.clone());
        let target = Text::new(target).unwrap();
        self.clients.push(Client {
            connection: Connection::initiator(Arc::new(config), self.now, target, token),
            shard,
            id: Some(self.relays[shard].connected(self.now, None, None)),
            hello,
            events: Vec::new(),
            got: Vec::new(),
            payload: HashMap::new(),
            accepts: OpenResponseId::Ok,
            finishes: true,
            unfinished: Vec::new(),
            reads: true,
            proof: Proof::Right,
        });
        self.clients.len() - 1
    }

    pub(crate) fn hello(&mut self, device: usize) -> Hello {
        let device = &self.people.devices[device];
        security::hello(Layer::Device, device.url.as_str(), &device.keys, &mut self.dice)
    }

    /// A device connects to its home and authenticates.
    pub(crate) fn device(&mut self, device: usize) -> Who {
        self.device_of(device, Version::V1_6)
    }

    pub(crate) fn device_of(&mut self, device: usize, version: Version) -> Who {
        let hello = self.hello(device);
        let url = self.people.devices[device].url.to_string();
        let who = self.dial(self.home(device), &[&url], version, Some(hello));
        self.exchange();
        who
    }

    /// A connection that proves nothing.
    pub(crate) fn stranger(&mut self) -> Who {
        let who = self.dial(0, &["dpp://stranger"], Version::V1_6, None);
        self.exchange();
        who
    }

    /// Attaches an account, with the keys of another one if so wished.
    pub(crate) fn attach(&mut self, who: Who, account: usize, keys: usize) -> SessionId {
        let url = self.people.accounts[account].url.clone();
        let keys = &self.people.accounts[keys].keys;
        let hello = security::hello(Layer::Account, url.as_str(), keys, &mut self.dice);
        let client = &mut self.clients[who];
        let event = client.connection.attach((&url).into(), hello.token.clone()).unwrap();
        client.hello = Some(hello);
        self.exchange();
        event
    }

    pub(crate) fn identity(&self, account: usize) -> Text {
        (&self.people.accounts[account].identities[0]).into()
    }

    pub(crate) fn device_url(&self, device: usize) -> Text {
        (&self.people.devices[device].url).into()
    }

    /// A session to an account's identity, on its device or not.
    pub(crate) fn open(&mut self, who: Who, account: usize, on_device: bool) -> SessionId {
        let device = if on_device { self.device_url(account) } else { Text::EMPTY };
        let identity = self.identity(account);
        self.open_to(who, "resource", identity, device)
    }

    pub(crate) fn open_to(
        &mut self,
        who: Who,
        resource: &'static str,
        identity: Text,
        device: Text,
    ) -> SessionId {
        let resource = Text::new(resource).unwrap();
        let session = self.clients[who].connection.open(resource, identity, device).unwrap();
        self.exchange();
        session
    }

    /// An entry for an account's identity, on its device or not.
    pub(crate) fn entry(&self, account: usize, on_device: bool) -> FanoutEntry {
        let device_url = if on_device { self.device_url(account) } else { Text::EMPTY };
        FanoutEntry { identity_url: self.identity(account), device_url, relay_url: Text::EMPTY }
    }

    pub(crate) fn fanout(&mut self, who: Who, resource: &'static str, entries: &[FanoutEntry]) -> SessionId {
        let resource = Text::new(resource).unwrap();
        let connection = &mut self.clients[who].connection;
        let session = connection.open_fanout(|id, version| FanoutOpen::new(id, resource, entries, version));
        self.exchange();
        session.unwrap()
    }

    /// Sends a message; its tag is the number of its payload bytes.
    pub(crate) fn send(&mut self, who: Who, session: SessionId, flags: u8, bytes: usize) {
        self.send_with(who, session, flags, b"\0", bytes);
    }

    pub(crate) fn send_with(&mut self, who: Who, session: SessionId, flags: u8, tail: &[u8], bytes: usize) {
        let connection = &mut self.clients[who].connection;
        connection.begin_message(session, flags, tail);
        connection.message_data(session, vec![7; bytes].into());
        connection.end_message(session, bytes as u64);
        self.exchange();
    }

    /// Tags of messages that were acknowledged to a client, since the last call.
    pub(crate) fn acknowledged(&mut self, who: Who) -> Vec<u64> {
        let mut tags = Vec::new();
        self.clients[who].events.retain(|event| match event {
            Event::Acknowledged { tag, count, .. } => {
                tags.extend(std::iter::repeat_n(*tag, *count as usize));
                false
            }
            _ => true,
        });
        tags
    }

    /// Takes a client's events.
    pub(crate) fn events(&mut self, who: Who) -> Vec<Event> {
        std::mem::take(&mut self.clients[who].events)
    }

    /// Payload lengths of what a client got, in order.
    pub(crate) fn lengths(&self, who: Who) -> Vec<usize> {
        self.clients[who].got.iter().map(|(_, _, payload)| payload.len()).collect()
    }

    /// The transport of a client is gone.
    pub(crate) fn lose(&mut self, who: Who) {
        if let Some(id) = self.clients[who].id.take() {
            let shard = self.clients[who].shard;
            self.relays[shard].disconnected(self.now, id);
        }
        self.clients[who].connection.transport_lost();
        self.exchange();
    }

    /// Time passes; all deadlines are met.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        for relay in &mut self.relays {
            relay.handle_timeout(self.now);
        }
        self.exchange();
    }

    /// Takes a batch of a shard.
    pub(crate) fn take_batch(&mut self, shard: usize) -> Vec<LogEntry> {
        let mut batch = Vec::new();
        self.relays[shard].take_batch(1 << 20, &mut batch);
        batch
    }

    /// A batch has become durable.
    pub(crate) fn appended(&mut self, shard: usize, batch: Vec<LogEntry>) {
        let mut positions = Vec::new();
        for entry in &batch {
            if let LogEntry::Part { payload, .. } = entry {
                let joined: Vec<u8> = payload.iter().flat_map(|slice| slice.to_vec()).collect();
                let position =
                    Position { segment: 0, offset: self.payloads.len() as u32, length: joined.len() as u32 };
                self.payloads.push(Some(joined.into()));
                positions.push(position);
            }
        }
        self.written.extend(batch);
        self.relays[shard].appended(self.now, &positions);
        self.exchange();
    }

    /// A shard crashes: its connections are lost, and a new one begins with what is durable. For messages of one part.
    pub(crate) fn restart(&mut self, shard: usize) {
        for who in 0..self.clients.len() {
            if self.clients[who].shard == shard && self.clients[who].id.take().is_some() {
                self.clients[who].connection.transport_lost();
            }
        }
        let directory = Box::new(self.people.directory.clone());
        let (id, config) = (ShardId(shard as u16), self.config.clone());
        let next = self.written.len() as u64 + 1;
        let mut relay = Relay::new(id, config, directory, Box::new(Dice::new(3)), self.now, next);
        for message in self.durable() {
            relay.restore(message);
        }
        self.relays[shard] = relay;
    }

    /// What replay finds.
    fn durable(&self) -> Vec<Restored> {
        let mut found: BTreeMap<RecordId, Restored> = BTreeMap::new();
        let mut part = 0;
        for entry in &self.written {
            match entry {
                LogEntry::Part { id, family, head, payload, .. } => {
                    let bytes = payload.iter().map(Bytes::len).sum::<usize>() as u32;
                    let position = Position { segment: 0, offset: part, length: bytes };
                    let head = head.clone().expect("messages of one part");
                    let restored = Restored {
                        id: *id,
                        family: *family,
                        pending: (0..head.recipients.len() as u32).collect(),
                        head,
                        parts: [(position, bytes)].into_iter().collect(),
                        payload_bytes: u64::from(bytes),
                    };
                    part += 1;
                    found.insert(*id, restored);
                }
                LogEntry::DeleteRecipient { id, recipient, .. } => {
                    let pending = &mut found.get_mut(id).unwrap().pending;
                    pending.retain(|place| place != recipient);
                }
                LogEntry::Delete { id, .. } => drop(found.remove(id)),
            }
        }
        found.into_values().filter(|message| !message.pending.is_empty()).collect()
    }

    /// How many parts, deletions of a recipient, and deletions were written.
    pub(crate) fn log(&self) -> (usize, usize, usize) {
        let count = |is: fn(&LogEntry) -> bool| self.written.iter().filter(|entry| is(entry)).count();
        (
            count(|entry| matches!(entry, LogEntry::Part { .. })),
            count(|entry| matches!(entry, LogEntry::DeleteRecipient { .. })),
            count(|entry| matches!(entry, LogEntry::Delete { .. })),
        )
    }

    /// Everything that can happen without time passing happens.
    pub(crate) fn exchange(&mut self) {
        loop {
            let mut moved = false;
            for who in 0..self.clients.len() {
                moved |= self.exchange_with(who);
            }
            for shard in 0..self.relays.len() {
                moved |= self.act(shard) | self.pump(shard);
                if self.durable_at_once && self.relays[shard].has_appends() {
                    let batch = self.take_batch(shard);
                    moved = true;
                    if !batch.is_empty() {
                        self.appended(shard, batch);
                    }
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn exchange_with(&mut self, who: Who) -> bool {
        let Client { connection, shard, id, .. } = &mut self.clients[who];
        let Some(found) = *id else { return false };
        let relay = &mut self.relays[*shard];
        connection.handle_timeout(self.now);
        connection.prepare_output(self.now);
        let mut moved = false;
        if !connection.output().is_empty() && relay.wants_read(found) {
            relay.received(self.now, found, connection.output().take());
            moved = true;
        }
        if !self.clients[who].reads {
            return moved;
        }
        let Client { connection, id, .. } = &mut self.clients[who];
        if let Some(output) = relay.prepare_output(self.now, found) {
            let bytes = output.take();
            moved |= !bytes.is_empty();
            relay.sent(self.now, found);
            if relay.is_finished(found) {
                relay.disconnected(self.now, found);
                *id = None;
            }
            connection.receive(self.now, bytes);
        }
        while let Some(event) = self.clients[who].connection.poll(self.now) {
            self.clients[who].event(event);
        }
        moved
    }

    fn act(&mut self, shard: usize) -> bool {
        let mut acted = false;
        while let Some(action) = self.relays[shard].next_action() {
            acted = true;
            match action {
                Action::HandOff { connection, shard: to, bytes } => {
                    let to = usize::from(to.0);
                    let id = self.relays[to].connected(self.now, None, Some(bytes));
                    let is_it = |client: &&mut Client| client.shard == shard && client.id == Some(connection);
                    let client = self.clients.iter_mut().find(is_it).unwrap();
                    (client.shard, client.id) = (to, Some(id));
                }
                Action::Read { token, position } => {
                    let readable = self.unreadable != Some(position.offset);
                    let payload = self.payloads[position.offset as usize].clone().filter(|_| readable);
                    self.relays[shard].read_done(self.now, token, payload);
                }
                other => self.actions.push(other),
            }
        }
        acted
    }

    fn pump(&mut self, from: usize) -> bool {
        let mut moved = false;
        for to in (0..self.relays.len()).filter(|&to| to != from && self.mesh_runs) {
            let items: Vec<_> = self.relays[from].outbox(ShardId(to as u16)).drain(..).collect();
            moved |= !items.is_empty();
            for item in items {
                self.relays[to].mesh_received(self.now, ShardId(from as u16), item);
            }
            self.relays[to].mesh_drained();
        }
        self.relays[from].outbox_drained();
        moved
    }
}

impl Client {
    /// Finishes with the oldest message that it has not finished with.
    pub(crate) fn complete_oldest(&mut self) {
        self.connection.complete(self.unfinished.remove(0));
    }

    /// What the client answers to a challenge.
    fn proof(&self, challenge: &[u8]) -> Option<Bytes> {
        let Ok(HelloAnswer::Proof { token }) = self.hello.as_ref().unwrap().answer(challenge) else {
            return None;
        };
        match self.proof {
            Proof::Right => Some(token),
            Proof::Wrong => {
                let mut token = token.to_vec();
                *token.last_mut().unwrap() ^= 1;
                Some(token.into())
            }
            Proof::None => None,
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::ConnectResponse { ref token, .. }
                if self.connection.is_established() && !token.is_empty() =>
            {
                if let Some(proof) = self.proof(token) {
                    self.connection.connect_authenticate(proof);
                }
                self.events.push(event);
            }
            Event::AttachResponse { event, ref token } => {
                if let Some(proof) = self.proof(token) {
                    self.connection.attach_authenticate(event, proof);
                }
            }
            Event::Open(ref open) => {
                self.connection.respond(open.session, self.accepts);
                self.events.push(event);
            }
            Event::Part { session, part, end } => {
                let payload = self.payload.entry(session).or_default();
                part.payload.iter().for_each(|slice| payload.extend_from_slice(slice));
                if let Some(end) = end {
                    self.got.push((part.flags, part.tail, payload.split().to_vec()));
                    match self.finishes {
                        true => self.connection.complete(end),
                        false => self.unfinished.push(end),
                    }
                }
            }
            other => self.events.push(other),
        }
    }
}

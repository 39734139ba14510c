//! A scripted client: one device over `Connection::initiator`. It authenticates (or registers first), attaches its accounts, sends
//! what its streams have queued, receives, and sends again what was not acknowledged. Some of its habits are bad: see [`Habits`].

use crate::dice::Dice;
use crate::model::{MessageNumber, Model};
use crate::population::Population;
use crate::scenario::RELAYS;
use bytes::{Bytes, BytesMut};
use relay_core::address::{IdentityUrl, MailboxAddress, ResourceUrl};
use relay_core::security::{self, Hello, HelloAnswer, Layer, RegisterStatus, RelayPublicKeys};
use relay_core::sstp::acknowledge::InboundSeq;
use relay_core::sstp::command::{FanoutEntry, FanoutOpen, Open, SessionStatus};
use relay_core::sstp::connection::{ConnectionConfig, Ended, Part};
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, Connection, Event, OpenResponseId, SessionId, StatusId};
use relay_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

/// How a client behaves, each in a thousand at every occasion.
#[derive(Clone, Copy, Default)]
pub(crate) struct Habits {
    /// Refuses a session of the relay.
    pub(crate) refuses: u64,
    /// Closes a session of the relay or its own, or detaches an account and attaches it again.
    pub(crate) closes: u64,
    /// Stops a session of the relay for a while.
    pub(crate) stops: u64,
    /// Finishes with a message late.
    pub(crate) dawdles: u64,
    /// Never finishes with a message on this connection.
    pub(crate) hoards: u64,
}

/// A session that the client wants to have open whenever it is connected, and what is to be sent on it.
pub(crate) struct Stream {
    /// Unique in the schedule.
    pub(crate) number: usize,
    pub(crate) resource: ResourceUrl,
    pub(crate) recipients: Arc<[MailboxAddress]>,
    pub(crate) fanout: bool,
    pub(crate) queue: VecDeque<MessageNumber>,
    /// Not opened again before then.
    pub(crate) not_before: Timestamp,
}

pub(crate) struct Client {
    pub(crate) device: usize,
    pub(crate) streams: Vec<Stream>,
    pub(crate) online: Option<Online>,
    pub(crate) not_before: Timestamp,
    config: Arc<ConnectionConfig>,
    /// Payload bytes that may be unacknowledged on a session when another message begins.
    window: usize,
    people: Rc<Population>,
    relay_keys: RelayPublicKeys,
    /// How many relays there are; accounts live at them in turn.
    relays: usize,
}

/// What lasts as long as a connection.
pub(crate) struct Online {
    pub(crate) connection: Connection,
    connected_at: Timestamp,
    /// Position in the world's list of wires.
    pub(crate) wire: usize,
    habits: Habits,
    hello: Hello,
    authenticated: bool,
    registering: Option<SessionId>,
    /// The identity that is registered next.
    identity: usize,
    attaching: BTreeMap<SessionId, (usize, Hello)>,
    /// Attached, and accounts that once were: their mail may still be on the way.
    attached: BTreeMap<SessionId, usize>,
    was_attached: BTreeSet<usize>,
    senders: BTreeMap<SessionId, Sender>,
    receivers: BTreeMap<SessionId, Receiver>,
    finish: Vec<(Timestamp, InboundSeq)>,
}

/// An open stream.
struct Sender {
    stream: usize,
    ready: bool,
    /// A message on its way, and how much of it has gone.
    current: Option<(MessageNumber, usize)>,
    unacknowledged: VecDeque<MessageNumber>,
    faulted: BTreeSet<usize>,
}

/// A session of the relay.
struct Receiver {
    mailbox: MailboxAddress,
    payload: BytesMut,
    stopped: bool,
}

impl Client {
    pub(crate) fn new(
        device: usize,
        config: Arc<ConnectionConfig>,
        window: usize,
        people: Rc<Population>,
        relay_keys: RelayPublicKeys,
        relays: usize,
    ) -> Self {
        let (online, streams, not_before) = (None, Vec::new(), Timestamp(0));
        Self { device, streams, online, not_before, config, window, people, relay_keys, relays }
    }

    pub(crate) fn connect(&mut self, now: Timestamp, wire: usize, habits: Habits, dice: &mut Dice) {
        let device = &self.people.devices[self.device];
        let hello = security::hello(Layer::Device, device.url.as_str(), &device.keys, dice);
        let target = Text::new(RELAYS[self.relay()]).unwrap();
        let connection = Connection::initiator(self.config.clone(), now, target, hello.token.clone());
        self.online = Some(Online {
            connection,
            connected_at: now,
            wire,
            habits,
            hello,
            authenticated: false,
            registering: None,
            identity: 0,
            attaching: BTreeMap::new(),
            attached: BTreeMap::new(),
            was_attached: BTreeSet::new(),
            senders: BTreeMap::new(),
            receivers: BTreeMap::new(),
            finish: Vec::new(),
        });
    }

    /// The relay of its device.
    pub(crate) fn relay(&self) -> usize {
        self.people.devices[self.device].accounts[0] % self.relays
    }

    /// The relay of a recipient, if it is not this client's.
    pub(crate) fn elsewhere(&self, address: &MailboxAddress) -> Option<usize> {
        let account = self.people.accounts.iter().position(|account| account.url == address.account).unwrap();
        Some(account % self.relays).filter(|&relay| relay != self.relay())
    }

    fn entry(&self, address: &MailboxAddress) -> FanoutEntry {
        let relay_url =
            self.elsewhere(address).map_or(Text::EMPTY, |relay| Text::new(RELAYS[relay]).unwrap());
        FanoutEntry { relay_url, ..entry(address) }
    }

    /// The client has authenticated and attached everything, sent everything, and had everything acknowledged.
    pub(crate) fn is_satisfied(&self) -> bool {
        let Some(online) = &self.online else { return false };
        let accounts = &self.people.devices[self.device].accounts;
        online.authenticated
            && accounts.iter().all(|account| online.attached.values().any(|attached| attached == account))
            && online.finish.is_empty()
            && online.connection.unfinished() == 0
            && online.connection.unacknowledged() == 0
            && self.streams.iter().all(|stream| stream.queue.is_empty())
            && online.senders.values().all(|sender| sender.ready && sender.current.is_none())
    }

    /// One line on what the client waits for.
    pub(crate) fn describe(&self) -> String {
        let Some(online) = &self.online else { return format!("client {}: offline", self.device) };
        let queued: usize = self.streams.iter().map(|stream| stream.queue.len()).sum();
        let stopped = online.senders.values().filter(|sender| !sender.ready).count();
        format!(
            "client {}: authenticated {}, attached {}, queued {queued}, unacknowledged {}, unfinished {}, to finish {}, sessions not ready {stopped}",
            self.device,
            online.authenticated,
            online.attached.len(),
            online.connection.unacknowledged(),
            online.connection.unfinished(),
            online.finish.len(),
        )
    }

    /// Takes what has arrived on the wire.
    pub(crate) fn receive(&mut self, now: Timestamp, bytes: Bytes, model: &mut Model, dice: &mut Dice) {
        if let Some(online) = &mut self.online {
            online.connection.receive(now, bytes);
        }
        self.poll(now, model, dice);
    }

    /// The wire is gone, or is to be.
    pub(crate) fn lost(&mut self, now: Timestamp, model: &mut Model, dice: &mut Dice) {
        if let Some(online) = &mut self.online {
            online.connection.transport_lost();
        }
        self.poll(now, model, dice);
    }

    fn poll(&mut self, now: Timestamp, model: &mut Model, dice: &mut Dice) {
        while let Some(event) = self.online.as_mut().and_then(|online| online.connection.poll(now)) {
            self.event(now, event, model, dice);
        }
    }

    fn event(&mut self, now: Timestamp, event: Event, model: &mut Model, dice: &mut Dice) {
        let online = self.online.as_mut().expect("events come while online");
        match event {
            Event::ConnectResponse { token, .. } => self.connect_answered(&token),
            Event::RegisterResponse { token, .. } => self.registered(&token),
            Event::AttachResponse { event, token } => {
                let (account, hello) =
                    online.attaching.remove(&event).expect("only what was asked is answered");
                match hello.answer(&token).expect("the relay proves itself") {
                    HelloAnswer::Proof { token } => online.connection.attach_authenticate(event, token),
                    HelloAnswer::Failed if self.people.was_locked_out(&self.people.accounts[account].url) => {
                        return;
                    }
                    refusal => panic!("an account was refused: {refusal:?}"),
                }
                online.attached.insert(event, account);
                online.was_attached.insert(account);
            }
            Event::SessionReady(session) => online.sender(session, |sender| sender.ready = true),
            Event::SessionStopped(session) => online.sender(session, |sender| sender.ready = false),
            Event::SessionRefused { session, response } => {
                assert_eq!(response, OpenResponseId::Unknown, "a stream was refused");
                self.stream_over(session, now);
            }
            Event::SessionStatus(status) => self.faulted(&status, model),
            Event::SessionClosed { session, reason: CloseReason::UserAuthenticationFailed } => {
                let account = online.attached.remove(&session).expect("an account's session");
                assert!(
                    self.people.was_locked_out(&self.people.accounts[account].url),
                    "account {account} was detached"
                );
            }
            Event::SessionClosed { session, reason } => {
                let expected = [
                    CloseReason::QuotaWouldBeExceeded,
                    CloseReason::EmptySession,
                    CloseReason::InternalError,
                ];
                assert!(expected.contains(&reason), "a session was closed: {reason}");
                online.receivers.remove(&session);
                if let (CloseReason::QuotaWouldBeExceeded, Some(sender)) =
                    (reason, online.senders.get(&session))
                {
                    let stream = &self.streams[sender.stream];
                    assert!(!stream.fanout, "fanout was closed for one recipient's quota");
                    model.refused_for_quota(stream.number, &stream.recipients[0]);
                }
                self.stream_over(session, now);
            }
            Event::Acknowledged { session, tag, count } => {
                assert_eq!(count, 1, "every message has a number of its own");
                self.acknowledged(now, session, tag as MessageNumber, model);
            }
            Event::Open(open) => self.opened(&open, dice),
            Event::Part { session, part, end } => self.part(now, session, part, end, model, dice),
            Event::Ended(how) => self.ended(how, now),
            other => panic!("a relay does not cause {other:?}"),
        }
    }

    fn connect_answered(&mut self, token: &[u8]) {
        let online = self.online.as_mut().expect("online");
        if !online.connection.is_established() {
            return;
        }
        if token.is_empty() {
            return; // CrossedConnections follows.
        }
        match online.hello.answer(token).expect("the relay proves itself") {
            HelloAnswer::Proof { token } => {
                online.connection.connect_authenticate(token);
                online.authenticated = true;
            }
            HelloAnswer::RegistrationNeeded => self.register(),
            HelloAnswer::Failed => panic!("a device was refused"),
        }
    }

    fn register(&mut self) {
        let online = self.online.as_mut().expect("online");
        let device = &self.people.devices[self.device];
        let account = &self.people.accounts[device.accounts[0]];
        let (keys, dice) = (&self.relay_keys, &mut Dice::new(self.device as u64));
        let token = security::register_device_account(
            &device.url,
            &device.keys,
            &account.url,
            &account.keys,
            keys,
            b"",
            dice,
        );
        online.registering = online.connection.register((&account.url).into(), token.unwrap());
    }

    /// After the device and its account come the identities; then a new connection.
    fn registered(&mut self, token: &[u8]) {
        let online = self.online.as_mut().expect("online");
        assert_eq!(security::read_register_response(token), Ok(RegisterStatus::Ok));
        let device = &self.people.devices[self.device];
        let account = &self.people.accounts[device.accounts[0]];
        match account.identities.get(online.identity) {
            Some(identity) => {
                online.identity += 1;
                let token = security::register_identity(&account.url, &account.keys, identity, b"").unwrap();
                online.registering = online.connection.register((&account.url).into(), token);
            }
            None => online.connection.close(CloseReason::NoReason, 0),
        }
    }

    fn acknowledged(&mut self, now: Timestamp, session: SessionId, number: MessageNumber, model: &mut Model) {
        let online = self.online.as_mut().expect("online");
        // On a session that was closed the message is taken for lost: it is in its stream's queue again.
        let Some(sender) = online.senders.get_mut(&session) else { return };
        assert_eq!(sender.unacknowledged.pop_front(), Some(number), "acknowledgements come in order");
        model.acknowledged(now, number, &sender.faulted);
    }

    /// What a stream has not had acknowledged is to be sent again.
    fn stream_over(&mut self, session: SessionId, now: Timestamp) {
        let Some(sender) = self.online.as_mut().and_then(|online| online.senders.remove(&session)) else {
            return;
        };
        let stream = &mut self.streams[sender.stream];
        stream.not_before = Timestamp(now.0 + 1000);
        let current = sender.current.map(|(number, _)| number);
        for number in sender.unacknowledged.into_iter().chain(current).rev() {
            stream.queue.push_front(number);
        }
    }

    fn opened(&mut self, open: &Open, dice: &mut Dice) {
        let people = self.people.clone();
        let online = self.online.as_mut().expect("online");
        let identity = IdentityUrl::new(open.identity_url.as_bytes()).unwrap();
        let owner =
            people.accounts.iter().position(|account| account.identities.contains(&identity)).unwrap();
        let device = (!open.device_url.is_empty()).then(|| {
            let own = &people.devices[self.device];
            assert_eq!(open.device_url, (&own.url).into(), "mail of another device");
            assert!(own.accounts.contains(&owner), "mail of an account that is not on the device");
            own.url.clone()
        });
        assert!(online.authenticated, "no mail before the device is authenticated");
        assert!(
            device.is_some() || online.was_attached.contains(&owner),
            "mail of an account that is not attached"
        );
        let account = people.accounts[owner].url.clone();
        let resource = ResourceUrl::new(open.resource_url.as_bytes()).unwrap();
        let mailbox = MailboxAddress { account, identity, device, resource };
        if dice.chance(online.habits.refuses) {
            return online.connection.respond(open.session, OpenResponseId::NoResource);
        }
        let stopped = dice.chance(online.habits.stops);
        let response = if stopped { OpenResponseId::OkStopSending } else { OpenResponseId::Ok };
        online.connection.respond(open.session, response);
        online.receivers.insert(open.session, Receiver { mailbox, payload: BytesMut::new(), stopped });
    }

    fn part(
        &mut self,
        now: Timestamp,
        session: SessionId,
        part: Part,
        end: Option<InboundSeq>,
        model: &mut Model,
        dice: &mut Dice,
    ) {
        let online = self.online.as_mut().expect("online");
        let receiver = online.receivers.get_mut(&session).expect("only on sessions that were accepted");
        if part.index == 0 {
            receiver.payload.clear();
        }
        part.payload.iter().for_each(|slice| receiver.payload.extend_from_slice(slice));
        let Some(end) = end else { return };
        model.delivered(online.connected_at, &receiver.mailbox, part.flags, &part.tail, &receiver.payload);
        if dice.chance(online.habits.hoards) {
            online.finish.push((Timestamp(u64::MAX), end));
        } else if dice.chance(online.habits.dawdles) {
            online.finish.push((Timestamp(now.0 + dice.between(1, 5000)), end));
        } else {
            online.connection.complete(end);
        }
    }

    fn ended(&mut self, how: Ended, now: Timestamp) {
        assert!(
            !matches!(how, Ended::Violation(_)),
            "client {}: the relay broke the protocol: {how:?}",
            self.device
        );
        let sessions: Vec<_> = self.online.iter().flat_map(|online| online.senders.keys().copied()).collect();
        for session in sessions {
            self.stream_over(session, now);
        }
        for stream in &mut self.streams {
            stream.not_before = now;
        }
        let rest = if matches!(how, Ended::Refused(_) | Ended::ByPeer { .. }) { 700 } else { 10 };
        self.not_before = self.not_before.max(Timestamp(now.0 + rest));
    }

    /// Does what there is to do: opens streams, sends, finishes with messages, and now and then something odd.
    pub(crate) fn act(&mut self, now: Timestamp, model: &mut Model, dice: &mut Dice) {
        if let Some(online) = &mut self.online
            && online.connection.poll_timeout().is_some_and(|due| due <= now)
        {
            online.connection.handle_timeout(now);
        }
        self.poll(now, model, dice);
        let Some(online) = self.online.as_mut().filter(|online| online.authenticated) else { return };
        if !online.connection.is_established() {
            return;
        }
        self.attach_missing(dice);
        self.open_streams(now);
        self.send(model, dice);
        self.finish(now);
        self.be_odd(now, dice);
    }

    fn attach_missing(&mut self, dice: &mut Dice) {
        let online = self.online.as_mut().expect("online");
        let accounts = self.people.devices[self.device].accounts.iter();
        for &account in accounts.filter(|&&account| !self.people.is_locked_out(account)) {
            let under_way = online.attaching.values().any(|(attaching, _)| *attaching == account);
            if !under_way && !online.attached.values().any(|attached| *attached == account) {
                let account_data = &self.people.accounts[account];
                let url = &account_data.url;
                let hello = security::hello(Layer::Account, url.as_str(), &account_data.keys, dice);
                let event =
                    online.connection.attach(url.into(), hello.token.clone()).expect("room for a session");
                online.attaching.insert(event, (account, hello));
            }
        }
    }

    fn open_streams(&mut self, now: Timestamp) {
        for (place, stream) in self.streams.iter().enumerate() {
            let remote = stream.recipients.iter().any(|address| self.elsewhere(address).is_some());
            let entries: Vec<FanoutEntry> =
                stream.recipients.iter().map(|address| self.entry(address)).collect();
            let online = self.online.as_mut().expect("online");
            let open = online.senders.values().any(|sender| sender.stream == place);
            if open || stream.queue.is_empty() || stream.not_before > now {
                continue;
            }
            let session = if stream.fanout || remote {
                let resource = Text::from(&stream.resource);
                online.connection.open_fanout(|id, version| FanoutOpen::new(id, resource, &entries, version))
            } else {
                let FanoutEntry { identity_url, device_url, .. } = &entries[0];
                let resource = Text::from(&stream.resource);
                online.connection.open(resource, identity_url.clone(), device_url.clone())
            };
            let sender = Sender {
                stream: place,
                ready: false,
                current: None,
                unacknowledged: VecDeque::new(),
                faulted: BTreeSet::new(),
            };
            online.senders.insert(session.expect("room for a session"), sender);
        }
    }

    fn send(&mut self, model: &mut Model, dice: &mut Dice) {
        let online = self.online.as_mut().expect("online");
        for (&session, sender) in &mut online.senders {
            while online.connection.output_bytes() < 64 << 10 && dice.chance(900) {
                let queue = &mut self.streams[sender.stream].queue;
                let (number, sent) = match sender.current {
                    Some(current) => current,
                    None if !sender.ready || sender.unacknowledged_bytes(model) >= self.window => break,
                    None => {
                        let Some(number) = queue.pop_front() else { break };
                        model.sent(number);
                        let message = &model.messages[number];
                        online.connection.begin_message(session, message.flags, &message.tail);
                        (number, 0)
                    }
                };
                let payload = model.payload(number);
                let piece = payload.len().min(sent + dice.between(1, 60_000) as usize);
                if piece > sent {
                    online.connection.message_data(session, payload.slice(sent..piece));
                }
                sender.current = Some((number, piece));
                if piece == payload.len() {
                    online.connection.end_message(session, number as u64);
                    sender.unacknowledged.push_back(number);
                    sender.current = None;
                }
            }
        }
    }

    fn finish(&mut self, now: Timestamp) {
        let online = self.online.as_mut().expect("online");
        let connection = &mut online.connection;
        online.finish.retain(|&(due, end)| {
            if due <= now {
                connection.complete(end);
            }
            due > now
        });
    }

    fn be_odd(&mut self, now: Timestamp, dice: &mut Dice) {
        let online = self.online.as_mut().expect("online");
        let habits = online.habits;
        for (&session, receiver) in &mut online.receivers {
            if dice.chance(if receiver.stopped { 100 } else { habits.stops / 10 }) {
                receiver.stopped = !receiver.stopped;
                let stop = receiver.stopped;
                let response = if stop { OpenResponseId::OkStopSending } else { OpenResponseId::Ok };
                online.connection.respond(session, response);
            }
        }
        if dice.chance(habits.closes / 10)
            && let Some(session) = pick_key(&online.receivers, dice)
        {
            online.connection.close_session(session, CloseReason::NoReason);
            online.receivers.remove(&session);
        }
        if dice.chance(habits.closes / 10)
            && let Some(event) = pick_key(&online.attached, dice)
        {
            online.connection.close_session(event, CloseReason::NoReason);
            online.attached.remove(&event);
        }
        if dice.chance(habits.closes / 10)
            && let Some(session) = pick_key(&online.senders, dice)
        {
            online.connection.close_session(session, CloseReason::NoReason);
            self.stream_over(session, now);
        }
    }
}

impl Sender {
    fn unacknowledged_bytes(&self, model: &Model) -> usize {
        self.unacknowledged.iter().map(|&number| model.messages[number].bytes).sum()
    }
}

impl Online {
    fn sender(&mut self, session: SessionId, change: impl FnOnce(&mut Sender)) {
        change(self.senders.get_mut(&session).expect("the relay answers sessions that are open"));
    }
}

impl Client {
    fn faulted(&mut self, status: &SessionStatus, model: &Model) {
        let online = self.online.as_ref().expect("online");
        let Some(sender) = online.senders.get(&status.session) else { return };
        let stream = &self.streams[sender.stream];
        let recipients = &stream.recipients;
        let about_relay = !matches!(status.status, StatusId::QuotaWouldBeExceeded | StatusId::LockedOut);
        let plain = status.identity_url.is_empty() && recipients.len() == 1;
        let named: Vec<usize> = if plain && !about_relay {
            vec![0]
        } else if status.indexes.is_empty() {
            let is_named = |address: &MailboxAddress| {
                let entry = self.entry(address);
                match about_relay {
                    true => entry.relay_url == status.device_url,
                    false => {
                        (&entry.identity_url, &entry.device_url) == (&status.identity_url, &status.device_url)
                    }
                }
            };
            (0..recipients.len()).filter(|&place| is_named(&recipients[place])).collect()
        } else {
            status.indexes.iter().map(|&index| usize::from(index)).collect()
        };
        assert!(!named.is_empty() && named.iter().all(|&place| place < recipients.len()), "{status:?}");
        for recipient in named.iter().map(|&place| &recipients[place]) {
            match status.status {
                StatusId::QuotaWouldBeExceeded => model.refused_for_quota(stream.number, recipient),
                StatusId::LockedOut => assert!(
                    self.people.was_locked_out(&recipient.account),
                    "{recipient:?} was refused as locked out"
                ),
                _ => {}
            }
        }
        let online = self.online.as_mut().expect("online");
        online.senders.get_mut(&status.session).expect("looked up above").faulted.extend(named);
    }
}

fn pick_key<V>(map: &BTreeMap<SessionId, V>, dice: &mut Dice) -> Option<SessionId> {
    (!map.is_empty()).then(|| *map.keys().nth(dice.below(map.len())).expect("below the length"))
}

fn entry(address: &MailboxAddress) -> FanoutEntry {
    FanoutEntry {
        identity_url: (&address.identity).into(),
        device_url: address.device.as_ref().map_or(Text::EMPTY, Text::from),
        relay_url: Text::EMPTY,
    }
}

//! A scripted client of presence: one connection of one device, which publishes, watches, and takes what it is told. What it does and
//! when is decided by the world; what it is told it judges itself.

use crate::dice::Dice;
use crate::network::Wire;
use crate::population::Population;
use bytes::{Bytes, BytesMut};
use relay_core::address::DeviceUrl;
use relay_core::presence::{Decoder, Item, Message, Status};
use relay_core::security::{self, Hello, HelloAnswer, Layer};
use relay_core::sstp::acknowledge::InboundSeq;
use relay_core::sstp::command::Open;
use relay_core::sstp::connection::{ConnectionConfig, Ended, Endpoint, Part};
use relay_core::sstp::profile::{RESOURCE_WAN_DPP, flags};
use relay_core::sstp::text::Text;
use relay_core::sstp::{CloseReason, Connection, Event, OpenResponseId, SessionId};
use relay_core::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

/// The presence session that the actor opened, and what it said on it.
struct Speaking {
    session: SessionId,
    ready: bool,
    /// Tag of the last message.
    said: u64,
    acknowledged: u64,
}

/// The presence session that the relay opened.
struct Listening {
    session: SessionId,
    stopped: bool,
    decoder: Decoder,
    /// Devices in the Notify that is arriving.
    named: BTreeSet<usize>,
}

pub(crate) struct Actor {
    pub(crate) device: usize,
    pub(crate) wire: Wire,
    pub(crate) connection: Connection,
    /// Nothing more comes of it, but the relay may not know yet.
    pub(crate) gone: bool,
    /// It has to keep its device present.
    pub(crate) is_anchor: bool,
    hello: Hello,
    authenticated: bool,
    speaking: Option<Speaking>,
    listening: Option<Listening>,
    /// What it published last on its session.
    pub(crate) published: Option<Status>,
    pub(crate) watches: BTreeSet<usize>,
    pub(crate) view: BTreeMap<usize, Status>,
    /// Devices that it was told are present.
    seen_present: BTreeSet<usize>,
    finish: Vec<(Timestamp, InboundSeq)>,
    people: Rc<Population>,
}

impl Actor {
    pub(crate) fn connect(
        device: usize,
        shard: usize,
        people: &Rc<Population>,
        now: Timestamp,
        dice: &mut Dice,
    ) -> Self {
        let known = &people.devices[device];
        let hello = security::hello(Layer::Device, known.url.as_str(), &known.keys, dice);
        let config = ConnectionConfig::new(Endpoint::Client, vec![(&known.url).into()], Text::EMPTY);
        let target = Text::new("dpp://relay").unwrap();
        Self {
            device,
            wire: Wire::new(shard),
            connection: Connection::initiator(Arc::new(config), now, target, hello.token.clone()),
            gone: false,
            is_anchor: false,
            hello,
            authenticated: false,
            speaking: None,
            listening: None,
            published: None,
            watches: BTreeSet::new(),
            view: BTreeMap::new(),
            seen_present: BTreeSet::new(),
            finish: Vec::new(),
            people: people.clone(),
        }
    }

    /// Its session takes messages.
    pub(crate) fn is_ready(&self) -> bool {
        self.connection.is_established() && self.speaking.as_ref().is_some_and(|speaking| speaking.ready)
    }

    /// All it said has reached the relay, and it has finished with all it was told.
    pub(crate) fn is_settled(&self) -> bool {
        let heard = |speaking: &Speaking| speaking.ready && speaking.said == speaking.acknowledged;
        self.gone || self.speaking.as_ref().is_some_and(heard) && self.finish.is_empty()
    }

    /// The relay knows that it is present.
    pub(crate) fn is_known_present(&self) -> bool {
        self.is_ready() && self.is_settled_speaking() && self.published.is_some_and(Status::is_present)
    }

    fn is_settled_speaking(&self) -> bool {
        self.speaking.as_ref().is_some_and(|speaking| speaking.said == speaking.acknowledged)
    }

    pub(crate) fn publish(&mut self, status: Status, dice: &mut Dice) {
        let devices = if dice.chance(500) { vec![] } else { vec![self.url(self.device)] };
        self.published = Some(status);
        self.say(Message::Publish { status, devices }, dice);
    }

    pub(crate) fn watch(&mut self, devices: &[usize], dice: &mut Dice) {
        self.watches.extend(devices);
        self.say(Message::Subscribe(devices.iter().map(|&device| self.url(device)).collect()), dice);
    }

    pub(crate) fn unwatch(&mut self, devices: &[usize], dice: &mut Dice) {
        for device in devices {
            self.watches.remove(device);
            self.view.remove(device);
        }
        if self.watches.is_empty() && dice.chance(500) {
            return self.say(Message::Unsubscribe(vec![]), dice);
        }
        self.say(Message::Unsubscribe(devices.iter().map(|&device| self.url(device)).collect()), dice);
    }

    fn url(&self, device: usize) -> DeviceUrl {
        self.people.devices[device].url.clone()
    }

    /// Says something, in pieces.
    fn say(&mut self, message: Message, dice: &mut Dice) {
        let speaking = self.speaking.as_mut().expect("only what is ready speaks");
        let mut body = BytesMut::new();
        message.encode(&mut body);
        speaking.said += 1;
        self.connection.begin_message(speaking.session, flags::A, b"\0");
        let piece = dice.between(1, 60) as usize;
        for piece in body.chunks(piece) {
            self.connection.message_data(speaking.session, Bytes::copy_from_slice(piece));
        }
        self.connection.end_message(speaking.session, speaking.said);
    }

    /// Closes its session, with all that came through it; another one is opened.
    pub(crate) fn begin_anew(&mut self) {
        if let Some(speaking) = self.speaking.take() {
            self.connection.close_session(speaking.session, CloseReason::NoReason);
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.published = None;
        self.watches.clear();
        self.view.clear();
    }

    /// Stops the relay's session, or lets it go on.
    pub(crate) fn stop(&mut self, stop: bool) {
        if let Some(listening) = &mut self.listening {
            listening.stopped = stop;
            let response = if stop { OpenResponseId::OkStopSending } else { OpenResponseId::Ok };
            self.connection.respond(listening.session, response);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.listening.as_ref().is_some_and(|listening| listening.stopped)
    }

    /// Closes the relay's session, and asks to be told again.
    pub(crate) fn hang_up_on(&mut self, dice: &mut Dice) {
        let Some(listening) = self.listening.take() else { return };
        self.connection.close_session(listening.session, CloseReason::NoReason);
        if let Some(&device) = self.watches.first() {
            self.watch(&[device], dice);
        }
    }

    /// Does what is due by itself.
    pub(crate) fn act(&mut self, now: Timestamp) {
        if self.connection.poll_timeout().is_some_and(|due| due <= now) {
            self.connection.handle_timeout(now);
        }
        let connection = &mut self.connection;
        self.finish.retain(|&(due, end)| {
            if due <= now {
                connection.complete(end);
            }
            due > now
        });
        if self.authenticated && self.speaking.is_none() && self.connection.is_established() {
            let resource = Text::new(RESOURCE_WAN_DPP).unwrap();
            let session = self.connection.open(resource, Text::EMPTY, Text::EMPTY).expect("there is room");
            self.speaking = Some(Speaking { session, ready: false, said: 0, acknowledged: 0 });
        }
    }

    pub(crate) fn poll(&mut self, now: Timestamp, anchored: &BTreeSet<usize>, dice: &mut Dice) {
        while let Some(event) = self.connection.poll(now) {
            match event {
                Event::ConnectResponse { token, .. } => self.connect_answered(&token),
                Event::SessionReady(session) => {
                    let speaking = self.speaking.as_mut().filter(|speaking| speaking.session == session);
                    speaking.expect("only what was opened is answered").ready = true;
                }
                Event::Acknowledged { session, tag, count } => {
                    assert_eq!(count, 1, "every message has a tag of its own");
                    let speaking = self.speaking.as_mut().filter(|speaking| speaking.session == session);
                    if let Some(speaking) = speaking {
                        assert_eq!(tag, speaking.acknowledged + 1);
                        speaking.acknowledged = tag;
                    }
                }
                Event::Open(open) => self.opened(open, dice),
                Event::Part { session, part, end } => self.part(now, session, &part, end, anchored, dice),
                Event::Ended(how) => {
                    assert!(!matches!(how, Ended::Violation(_) | Ended::Refused(_)), "{how:?}");
                    self.gone = true;
                    self.forget();
                }
                other => panic!("a relay does not cause {other:?}"),
            }
        }
    }

    fn connect_answered(&mut self, token: &[u8]) {
        let HelloAnswer::Proof { token } = self.hello.answer(token).expect("the relay proves itself") else {
            panic!("a device was refused");
        };
        self.connection.connect_authenticate(token);
        self.authenticated = true;
    }

    fn opened(&mut self, open: Open, dice: &mut Dice) {
        let own = Text::from(&self.people.devices[self.device].url);
        assert_eq!(open.resource_url.as_str(), RESOURCE_WAN_DPP);
        assert_eq!((open.identity_url, open.device_url), (Text::EMPTY, own));
        assert!(self.listening.is_none(), "one session to listen on is enough");
        let stopped = dice.chance(200);
        let response = if stopped { OpenResponseId::OkStopSending } else { OpenResponseId::Ok };
        self.connection.respond(open.session, response);
        self.listening = Some(Listening {
            session: open.session,
            stopped,
            decoder: Decoder::default(),
            named: BTreeSet::new(),
        });
    }

    fn part(
        &mut self,
        now: Timestamp,
        session: SessionId,
        part: &Part,
        end: Option<InboundSeq>,
        anchored: &BTreeSet<usize>,
        dice: &mut Dice,
    ) {
        let listening = self.listening.as_mut().filter(|listening| listening.session == session);
        let listening = listening.expect("parts come on open sessions");
        for slice in part.payload.iter() {
            listening.decoder.push(slice.clone());
            while let Some(item) = listening.decoder.poll().expect("a relay says what is right") {
                let Item::Notify(status, url) = item else { panic!("not for a client: {item:?}") };
                let device = self.people.devices.iter().position(|device| device.url == url).unwrap();
                assert!(listening.named.insert(device), "{url} twice in one Notify");
                let false_offline = !status.is_present() && self.seen_present.contains(&device);
                assert!(!(false_offline && anchored.contains(&device)), "{url} is said to be {status}");
                if status.is_present() {
                    self.seen_present.insert(device);
                }
                // What was on its way when the device was unsubscribed from says nothing any more.
                if self.watches.contains(&device) {
                    self.view.insert(device, status);
                }
            }
        }
        if let Some(end) = end {
            listening.decoder.finish().expect("a relay says what is right");
            listening.named.clear();
            let pause = if dice.chance(100) { dice.between(1, 3000) } else { 0 };
            self.finish.push((Timestamp(now.0 + pause), end));
        }
    }
}

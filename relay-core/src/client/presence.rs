//! Presence at the client: what the device publishes, which devices are watched, and what the relay tells of them (WAN DPP).
//!
//! The application's wishes outlive connections; a session states them anew each time. Nothing queues up: what is not
//! said yet is a set of devices.

use super::event::Event;
use crate::address::DeviceUrl;
use crate::presence::{Decoder, Item, Kind, Malformed, MessageWriter, Status, profile};
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::command::Open;
use crate::sstp::connection::Part;
use crate::sstp::profile::{RESOURCE_WAN_DPP, flags};
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, Connection, OpenResponseId, SessionId};
use crate::time::Timestamp;
use bytes::BytesMut;
use hashbrown::HashMap;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Tag of what is said here in the connection's list of unacknowledged messages; no transmission of the outbox has it.
pub(super) const PRESENCE_TAG: u64 = u64::MAX;
/// How long after the relay closed the session another one is opened on the same connection.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// The session on which we speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speaking {
    /// There is none, and none is opened before then.
    NotBefore(Timestamp),
    On(SessionId),
    /// The relay has no presence for us on this connection.
    Refused,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct PresenceDesk {
    own: Option<Status>,
    /// `own` was not said on this session.
    own_unsaid: bool,
    /// The devices that are watched, and whether the session has subscribed to them.
    watched: BTreeMap<DeviceUrl, bool>,
    to_subscribe: BTreeSet<DeviceUrl>,
    to_unsubscribe: BTreeSet<DeviceUrl>,
    speaking: Speaking,
    /// The sessions on which the relay speaks.
    listening: HashMap<SessionId, Decoder>,
    /// The application was told something that is void without a session.
    has_told: bool,
}

impl PresenceDesk {
    pub(super) fn new() -> Self {
        Self {
            own: None,
            own_unsaid: false,
            watched: BTreeMap::new(),
            to_subscribe: BTreeSet::new(),
            to_unsubscribe: BTreeSet::new(),
            speaking: Speaking::NotBefore(Timestamp(0)),
            listening: HashMap::new(),
            has_told: false,
        }
    }

    pub(super) fn publish(&mut self, status: Status) {
        self.own = Some(status);
        self.own_unsaid = true;
    }

    pub(super) fn watch(&mut self, device: DeviceUrl) {
        self.watched.insert(device.clone(), false);
        self.to_subscribe.insert(device);
    }

    pub(super) fn unwatch(&mut self, device: &DeviceUrl) {
        self.to_subscribe.remove(device);
        if self.watched.remove(device) == Some(true) {
            self.to_unsubscribe.insert(device.clone());
        }
    }

    /// When a session may be opened again.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        match self.speaking {
            Speaking::NotBefore(at) if self.has_wishes() => Some(at),
            _ => None,
        }
    }

    fn has_wishes(&self) -> bool {
        self.own.is_some() || !self.watched.is_empty()
    }

    fn has_something_to_say(&self) -> bool {
        self.own_unsaid || !self.to_subscribe.is_empty() || !self.to_unsubscribe.is_empty()
    }

    /// Opens the session, if there is a use for it, and says what is to be said while the output is below `most` bytes.
    pub(super) fn pump(
        &mut self,
        now: Timestamp,
        relay: &DeviceUrl,
        connection: &mut Connection,
        most: usize,
    ) {
        match self.speaking {
            Speaking::NotBefore(at) if at <= now && self.has_wishes() => {
                let resource = Text::new(RESOURCE_WAN_DPP).expect("ASCII");
                if let Some(session) = connection.open(resource, Text::EMPTY, relay.into()) {
                    self.speaking = Speaking::On(session);
                    self.begin();
                } else {
                    self.speaking = Speaking::NotBefore(now + OPEN_AGAIN);
                }
            }
            Speaking::On(session) => {
                while self.has_something_to_say()
                    && connection.may_send(session)
                    && connection.output_bytes() <= most
                {
                    self.say(session, connection);
                }
            }
            _ => {}
        }
    }

    /// A new session knows nothing.
    fn begin(&mut self) {
        self.own_unsaid = self.own.is_some();
        self.to_unsubscribe.clear();
        self.watched.values_mut().for_each(|subscribed| *subscribed = false);
        self.to_subscribe = self.watched.keys().cloned().collect();
    }

    /// Says one message sequence's worth.
    fn say(&mut self, session: SessionId, connection: &mut Connection) {
        let mut body = BytesMut::new();
        if std::mem::take(&mut self.own_unsaid)
            && let Some(status) = self.own
        {
            MessageWriter::new(Kind::Publish(status), &mut body).finish();
        }
        if !self.to_unsubscribe.is_empty() {
            let mut writer = MessageWriter::new(Kind::Unsubscribe, &mut body);
            while writer.len() < profile::REQUEST_BYTES
                && let Some(device) = self.to_unsubscribe.pop_first()
            {
                writer.device(&device);
            }
            writer.finish();
        }
        if !self.to_subscribe.is_empty() {
            let mut writer = MessageWriter::new(Kind::Subscribe, &mut body);
            while writer.len() < profile::REQUEST_BYTES
                && let Some(device) = self.to_subscribe.pop_first()
            {
                writer.device(&device);
                self.watched.insert(device, true);
            }
            writer.finish();
        }
        connection.begin_message(session, flags::A, b"\0");
        connection.message_data(session, body.freeze());
        connection.end_message(session, PRESENCE_TAG);
    }

    /// Whether it is the session on which we speak.
    pub(super) fn speaks_on(&self, session: SessionId) -> bool {
        self.speaking == Speaking::On(session)
    }

    /// The relay does not open our session.
    pub(super) fn refused(&mut self, response: OpenResponseId, events: &mut VecDeque<Event>) {
        self.speaking = Speaking::Refused;
        events.push_back(Event::PresenceRefused(response));
    }

    /// The relay opens a session; `false` if it is not one of presence.
    pub(super) fn opened(&mut self, open: &Open, connection: &mut Connection) -> bool {
        let is_presence = open.resource_url.as_str() == RESOURCE_WAN_DPP && open.identity_url.is_empty();
        if is_presence {
            self.listening.insert(open.session, Decoder::default());
            connection.respond(open.session, OpenResponseId::Ok);
        }
        is_presence
    }

    /// A session was closed by the relay; `false` if it is none of presence. What was known is void.
    pub(super) fn closed(
        &mut self,
        session: SessionId,
        now: Timestamp,
        events: &mut VecDeque<Event>,
    ) -> bool {
        let known = self.listening.remove(&session).is_some();
        if !known && !self.speaks_on(session) {
            return false;
        }
        if self.speaks_on(session) {
            self.speaking = Speaking::NotBefore(now + OPEN_AGAIN);
        } else {
            // A Subscribe makes the relay open another one.
            self.to_subscribe = self.watched.keys().cloned().collect();
        }
        self.know_nothing(events);
        true
    }

    /// The connection is gone.
    pub(super) fn disconnected(&mut self, events: &mut VecDeque<Event>) {
        self.speaking = Speaking::NotBefore(Timestamp(0));
        self.listening.clear();
        self.know_nothing(events);
    }

    fn know_nothing(&mut self, events: &mut VecDeque<Event>) {
        if std::mem::take(&mut self.has_told) {
            events.push_back(Event::PresenceUnknown);
        }
    }

    /// A part of a message; gives the part back if its session is none of presence.
    pub(super) fn part(
        &mut self,
        session: SessionId,
        part: Part,
        end: Option<InboundSeq>,
        connection: &mut Connection,
        events: &mut VecDeque<Event>,
    ) -> Option<Part> {
        let Some(mut decoder) = self.listening.remove(&session) else { return Some(part) };
        let outcome = self.read(&mut decoder, part, end.is_some(), events);
        if let Some(end) = end {
            connection.complete(end);
        }
        match outcome {
            Ok(()) => drop(self.listening.insert(session, decoder)),
            Err(_) => {
                connection.close_session(session, CloseReason::ProtocolError);
                self.know_nothing(events);
            }
        }
        None
    }

    fn read(
        &mut self,
        decoder: &mut Decoder,
        part: Part,
        ends: bool,
        events: &mut VecDeque<Event>,
    ) -> Result<(), Malformed> {
        for slice in part.payload.iter() {
            decoder.push(slice.clone());
            while let Some(item) = decoder.poll()? {
                let Item::Notify(status, device) = item else { return Err(Malformed::Direction) };
                // What was on its way when the device was unwatched is of no interest any more.
                if self.watched.contains_key(&device) {
                    self.has_told = true;
                    events.push_back(Event::Presence { device, status });
                }
            }
        }
        if ends { decoder.finish() } else { Ok(()) }
    }
}

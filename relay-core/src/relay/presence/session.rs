//! What a client does on its presence sessions: Open, Publish, Subscribe, Unsubscribe, Close.

use super::attendee::{Attendee, Reverse, Schedule};
use crate::address::DeviceUrl;
use crate::presence::{Item, Malformed, Status};
use crate::relay::Relay;
use crate::relay::mesh::ConnectionId;
use crate::sstp::acknowledge::InboundSeq;
use crate::sstp::command::{Connect, Open};
use crate::sstp::connection::Part;
use crate::sstp::{CloseReason, OpenResponseId, SessionId};

/// Why a session is closed.
enum Misuse {
    Malformed,
    /// More devices wait to be refused than may wait.
    TooMany,
}

impl From<Malformed> for Misuse {
    fn from(_: Malformed) -> Self {
        Misuse::Malformed
    }
}

impl Misuse {
    fn reason(&self) -> CloseReason {
        match self {
            Misuse::Malformed => CloseReason::ProtocolError,
            Misuse::TooMany => CloseReason::QuotaWouldBeExceeded,
        }
    }
}

/// The SourceDeviceURLs behind the first one.
pub(in crate::relay) fn aliases(connect: &Connect) -> Box<[DeviceUrl]> {
    let others = connect.source_device_urls[1..].iter();
    others.filter_map(|url| DeviceUrl::new(url.as_bytes()).ok()).collect()
}

impl Relay {
    /// Open of the presence resource (wire-profile 4).
    pub(in crate::relay) fn presence_open_received(&mut self, id: ConnectionId, open: &Open) {
        let response = match self.presence_session_for(id, open) {
            Ok(()) => OpenResponseId::Ok,
            Err(refusal) => refusal,
        };
        self.connection(id).respond(open.session, response);
    }

    fn presence_session_for(&mut self, id: ConnectionId, open: &Open) -> Result<(), OpenResponseId> {
        if !self.config.presence.enabled || !open.identity_url.is_empty() {
            return Err(OpenResponseId::NoResource);
        }
        let is_ours = self.config.connection.local_device_urls.contains(&open.device_url);
        if !self.peer(id).authenticated || !(open.device_url.is_empty() || is_ours) {
            return Err(OpenResponseId::Unknown);
        }
        let index = match self.peer(id).attendee {
            Some(index) => index,
            None => {
                let attendee = Attendee::new(id, self.own_devices(id));
                let index = self.presence.attendees.insert(attendee) as u32;
                self.peer_mut(id).attendee = Some(index);
                index
            }
        };
        let taken = self.presence.attendees[index as usize].open(open.session);
        if taken { Ok(()) } else { Err(OpenResponseId::NoResource) }
    }

    /// The devices for which a connection may speak: the one that has proven its key, and the others of its Connect, but for
    /// those that are registered and belong to others.
    fn own_devices(&self, id: ConnectionId) -> Box<[DeviceUrl]> {
        let peer = self.peer(id);
        let device = peer.device.clone().expect("an authenticated connection has a device");
        let record = self.directory.device(&device).ok().flatten();
        let accounts = record.map(|record| record.accounts).unwrap_or_default();
        // An alias of which the record cannot be read may be somebody else's.
        let is_own = |alias: &&DeviceUrl| {
            self.directory.device(alias).is_ok_and(|record| {
                record.is_none_or(|record| {
                    record.credentials.is_none()
                        || record.accounts.iter().any(|account| accounts.contains(account))
                })
            })
        };
        let aliases = peer.aliases.iter().filter(is_own).cloned().collect::<Vec<_>>();
        [device].into_iter().chain(aliases).collect()
    }

    /// A part of a message on a session that carries no mail; `true` if it is one of presence.
    pub(in crate::relay) fn presence_part(
        &mut self,
        id: ConnectionId,
        session: SessionId,
        part: &Part,
        end: Option<InboundSeq>,
    ) -> bool {
        let Some(index) = self.peer(id).attendee else { return false };
        let Some(slot) = self.presence.attendees[index as usize].slot(session) else { return false };
        let outcome = self.presence_body(index, slot, session, part, end.is_some());
        if let Some(end) = end {
            self.connection(id).complete(end);
        }
        if let Err(misuse) = outcome {
            self.stats.presence.malformed += u64::from(matches!(misuse, Misuse::Malformed));
            self.connection(id).close_session(session, misuse.reason());
            self.presence_session_gone(id, session);
        }
        true
    }

    fn presence_body(
        &mut self,
        index: u32,
        slot: u8,
        session: SessionId,
        part: &Part,
        ends: bool,
    ) -> Result<(), Misuse> {
        let held = self.presence.attendees[index as usize].session(session).expect("it has a slot");
        let mut decoder = std::mem::take(&mut held.decoder);
        for slice in part.payload.iter() {
            decoder.push(slice.clone());
            while let Some(item) = decoder.poll()? {
                self.presence_item(index, slot, item)?;
            }
        }
        if ends {
            decoder.finish()?;
        }
        let held = self.presence.attendees[index as usize].session(session).expect("items close no session");
        held.decoder = decoder;
        Ok(())
    }

    fn presence_item(&mut self, index: u32, slot: u8, item: Item) -> Result<(), Misuse> {
        match item {
            Item::PublishAll(status) => {
                for own in 0..self.presence.attendees[index as usize].own.len() {
                    self.publish(index, slot, own, status);
                }
            }
            Item::Publish(status, device) => {
                let own = self.presence.attendees[index as usize].own.iter().position(|own| *own == device);
                match own {
                    Some(own) => self.publish(index, slot, own, status),
                    None => self.stats.presence.foreign += 1,
                }
            }
            Item::Subscribe(device) => self.subscribe(index, slot, device)?,
            Item::Unsubscribe(device) => {
                if let Some(device) = self.presence.watched.find(&device) {
                    self.unsubscribe(index, slot, device);
                }
            }
            Item::UnsubscribeAll => self.unsubscribe_all(index, slot),
            Item::Notify(..) => return Err(Malformed::Direction.into()),
        }
        Ok(())
    }

    /// A session publishes; with *unknown* it takes its word back.
    fn publish(&mut self, index: u32, slot: u8, own: usize, status: Status) {
        self.stats.presence.published += 1;
        let attendee = &mut self.presence.attendees[index as usize];
        let publications = &mut self.presence.publications;
        match attendee.publication(slot, own) {
            _ if status == Status::Unknown => {
                attendee
                    .take_publications(Some(slot), Some(own))
                    .into_iter()
                    .for_each(|id| publications.end(id));
            }
            Some(id) => publications.change(id, status),
            None => {
                let id = publications.begin(attendee.own[own].clone(), status);
                attendee.add_publication(slot, own, id);
            }
        }
    }

    fn subscribe(&mut self, index: u32, slot: u8, url: DeviceUrl) -> Result<(), Misuse> {
        let config = &self.config.presence;
        let attendee = &mut self.presence.attendees[index as usize];
        if attendee.reverse == Reverse::Declined {
            attendee.reverse = Reverse::Unopened;
            // What could not be told before is told with the answer.
            if attendee.schedule == Schedule::Overdue {
                attendee.schedule = Schedule::Idle;
            }
        }
        let watched = &mut self.presence.watched;
        let claimed = watched.find(&url).filter(|device| attendee.claims.contains_key(device));
        let has_room = attendee.claims.len() < config.max_subscriptions_per_connection;
        let device = match claimed {
            Some(device) => {
                attendee.claim_again(device, slot);
                Some(device)
            }
            None if has_room => {
                let added = watched.subscribe(url.clone(), index, config.max_subscribers_per_device);
                added.map(|(device, place)| {
                    attendee.claim(device, slot, place);
                    device
                })
            }
            None => None,
        };
        match device {
            // Before its home has answered there is nothing to tell; the answer is news.
            Some(device) if watched.get(device).status.is_some() => attendee.mark(device),
            Some(_) => {}
            None => {
                self.stats.presence.refused += 1;
                if !attendee.refuse(url) {
                    return Err(Misuse::TooMany);
                }
            }
        }
        let due = self.now + config.window;
        self.presence.schedule(index, due);
        Ok(())
    }

    fn unsubscribe(&mut self, index: u32, slot: u8, device: u32) {
        let attendees = &mut self.presence.attendees;
        let Some(claim) = attendees[index as usize].release(device, slot) else { return };
        if let Some(moved) = self.presence.watched.unsubscribe(device, claim.place) {
            let moved = attendees[moved as usize].claims.get_mut(&device);
            moved.expect("a subscriber has a claim").place = claim.place;
        }
    }

    fn unsubscribe_all(&mut self, index: u32, slot: u8) {
        for device in self.presence.attendees[index as usize].claimed_by(slot) {
            self.unsubscribe(index, slot, device);
        }
    }

    /// A session is gone: if it was one of presence, what came through it goes with it.
    pub(in crate::relay) fn presence_session_gone(&mut self, id: ConnectionId, session: SessionId) {
        let Some(index) = self.peer(id).attendee else { return };
        let attendee = &mut self.presence.attendees[index as usize];
        if attendee.reverse == Reverse::Opened(session) {
            attendee.decline();
        }
        if let Some(slot) = attendee.close(session) {
            self.presence_slot_gone(index, slot);
            self.presence.attendees[index as usize].forget_refusals();
        }
    }

    fn presence_slot_gone(&mut self, index: u32, slot: u8) {
        self.unsubscribe_all(index, slot);
        let publications = self.presence.attendees[index as usize].take_publications(Some(slot), None);
        publications.into_iter().for_each(|id| self.presence.publications.end(id));
    }

    /// The connection has ended.
    pub(in crate::relay) fn presence_connection_gone(&mut self, id: ConnectionId) {
        let Some(index) = self.peer_mut(id).attendee.take() else { return };
        let sessions: Vec<SessionId> =
            self.presence.attendees[index as usize].sessions.iter().map(|known| known.session).collect();
        for session in sessions {
            if let Some(slot) = self.presence.attendees[index as usize].close(session) {
                self.presence_slot_gone(index, slot);
            }
        }
        self.presence.attendees.remove(index as usize);
    }
}

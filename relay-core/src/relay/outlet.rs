//! Outlets: the sessions that the relay opens on recipients' connections to deliver their mail.
//!
//! A mailroom may have a window of parts on the way to an outlet; the outlet moves them into its connection's output while
//! that is below its high-water mark, and returns what they cost as credit. Outlets of one connection take turns. When the
//! outputs of all connections together are above the shard's mark, one gets a part only if it has nothing else to send:
//! those who do not read then hold one part each, and those who do read are served on.
//!
//! What is in the output stands before whatever is said next. So a part of a long message is queued only where little else is:
//! a short message beside it waits for [`LONG_ROOM_BYTES`] and one part at most, and the long one loses nothing, since
//! the kernel holds as much again.

use super::home::ShardId;
use super::mailroom::MessageKey;
use super::mesh::{ConnectionId, DeliveryPart, Epoch, MailboxId, MeshItem, OutletId, part_cost};
use super::{Relay, RelayConfig};
use crate::address::MailboxAddress;
use crate::sstp::profile::{MAX_DATA_BYTES, flags};
use crate::sstp::text::Text;
use crate::sstp::{CloseReason, SessionId};
use crate::time::Timestamp;
use std::collections::VecDeque;

/// The output of a connection from which on no part of a message of several parts is queued there.
const LONG_ROOM_BYTES: usize = 64 << 10;
/// The window of an outlet among very many.
const LEAST_WINDOW_BYTES: usize = 4096;

/// See the module's head.
#[derive(Debug)]
pub(super) struct Outlet {
    generation: u32,
    connection: ConnectionId,
    session: SessionId,
    home: ShardId,
    mailbox: MailboxId,
    epoch: Epoch,
    /// The mailroom was told that it may send.
    announced: bool,
    backlog: VecDeque<DeliveryPart>,
    /// In the connection's queue of outlets that wait for room.
    waiting: bool,
    /// What parts that have reached the output cost, and the mailroom has not been given back.
    credit: u32,
}

/// The output of a connection from which on no further part is queued there.
pub(super) fn output_room(config: &RelayConfig, shard_output: usize) -> usize {
    if shard_output < config.shard_output_bytes { config.connection_output_bytes } else { 1 }
}

/// The same for a part of a message that has several, or for one that is a message.
pub(super) fn part_room(config: &RelayConfig, shard_output: usize, is_whole: bool) -> usize {
    let room = output_room(config, shard_output);
    if is_whole { room } else { room.min(LONG_ROOM_BYTES) }
}

impl OutletId {
    /// What the connection's acknowledgement will bring back.
    fn tag(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_tag(tag: u64) -> Self {
        Self { index: tag as u32, generation: (tag >> 32) as u32 }
    }
}

impl Relay {
    pub(super) fn open_outlet(
        &mut self,
        home: ShardId,
        connection: ConnectionId,
        mailbox: MailboxId,
        epoch: Epoch,
        address: &MailboxAddress,
    ) {
        let opened = self.live_peer(connection).filter(|peer| !peer.connection.is_ended()).and_then(|peer| {
            let device = address.device.as_ref().map_or(Text::EMPTY, Text::from);
            peer.connection.open((&address.resource).into(), (&address.identity).into(), device)
        });
        let Some(session) = opened else {
            return self.mesh.send(home, MeshItem::OutletClosed { mailbox, epoch });
        };
        let generation = self.next_outlet;
        self.next_outlet = generation.wrapping_add(1);
        let outlet = Outlet {
            generation,
            connection,
            session,
            home,
            mailbox,
            epoch,
            announced: false,
            backlog: VecDeque::new(),
            waiting: false,
            credit: 0,
        };
        let id = OutletId { index: self.outlets.insert(outlet) as u32, generation };
        self.peer_mut(connection).outlets.insert(session, id);
        self.touch(connection);
    }

    /// The client has accepted the session, or lets it go on.
    pub(super) fn outlet_ready(&mut self, connection: ConnectionId, session: SessionId) {
        let outlets = &self.peer(connection).outlets;
        let Some(&id) = outlets.get(&session) else { return };
        // The connection's output is shared out, so that many outlets together hold not much more than one.
        let window = (self.config.connection_output_bytes / outlets.len()).max(LEAST_WINDOW_BYTES) as u32;
        let outlet = &mut self.outlets[id.index as usize];
        if !outlet.announced {
            outlet.announced = true;
            let (mailbox, epoch) = (outlet.mailbox, outlet.epoch);
            return self.mesh.send(outlet.home, MeshItem::OutletReady { mailbox, epoch, outlet: id, window });
        }
        self.flush_outlet(id);
    }

    pub(super) fn deliver(&mut self, part: DeliveryPart) {
        let id = part.outlet;
        let Some(outlet) = self.outlet(id) else { return };
        if outlet.backlog.is_empty() && self.has_room(id, part.is_whole()) {
            return self.send_part(id, part);
        }
        self.outlets[id.index as usize].backlog.push_back(part);
        self.flush_outlet(id);
    }

    /// Delivers a message that is whole and in the mailroom's memory; `false` if it has to wait, or has more than one piece.
    pub(super) fn deliver_whole(&mut self, id: OutletId, key: MessageKey) -> bool {
        let Some(outlet) = self.outlet(id) else { return true };
        let is_next = outlet.backlog.is_empty();
        if !is_next || !self.has_room(id, true) {
            return false;
        }
        let (bits, tail, payload) = self.mailroom.whole(key);
        let [payload] = &payload[..] else { return false };
        if payload.len() > MAX_DATA_BYTES {
            return false;
        }
        let outlet = &self.outlets[id.index as usize];
        let connection = &mut self.peers[outlet.connection.index()].connection;
        connection.whole_message(outlet.session, bits | flags::A, tail, payload, id.tag());
        self.count_part(id, part_cost(payload.len() as u32));
        true
    }

    fn outlet(&mut self, id: OutletId) -> Option<&mut Outlet> {
        self.outlets.get_mut(id.index as usize).filter(|outlet| outlet.generation == id.generation)
    }

    /// Moves parts into the connection's output while there is room.
    fn flush_outlet(&mut self, id: OutletId) {
        while self.send_waiting_part(id) {}
    }

    /// Whether a part may go into the connection's output. If there is no room the outlet has its turn later.
    fn has_room(&mut self, id: OutletId, is_whole: bool) -> bool {
        let outlet = &mut self.outlets[id.index as usize];
        let peer = self.peers.get_mut(outlet.connection.index()).expect("an outlet ends with its connection");
        if !peer.connection.may_send(outlet.session) {
            return false;
        }
        let room = part_room(&self.config, self.output_bytes, is_whole);
        let fits = peer.connection.output_bytes() < room;
        if !fits && !outlet.waiting {
            outlet.waiting = true;
            peer.waiting_outlets.push_back(id);
        }
        fits
    }

    /// Moves the part that has waited longest; `false` if there is none, no room or no leave to send.
    fn send_waiting_part(&mut self, id: OutletId) -> bool {
        let Some(front) = self.outlets[id.index as usize].backlog.front() else { return false };
        let is_whole = front.is_whole();
        if !self.has_room(id, is_whole) {
            return false;
        }
        let part = self.outlets[id.index as usize].backlog.pop_front().expect("looked at above");
        self.send_part(id, part);
        true
    }

    /// Puts a part into the connection's output.
    fn send_part(&mut self, id: OutletId, part: DeliveryPart) {
        let cost = part.cost();
        let outlet = &mut self.outlets[id.index as usize];
        let peer = self.peers.get_mut(outlet.connection.index()).expect("an outlet ends with its connection");
        let connection = &mut peer.connection;
        match (part.head, &part.payload[..]) {
            (Some((bits, tail)), [payload]) if part.last && payload.len() <= MAX_DATA_BYTES => {
                connection.whole_message(outlet.session, bits | flags::A, &tail, payload, id.tag());
            }
            (head, payload) => {
                if let Some((bits, tail)) = head {
                    connection.begin_message(outlet.session, bits | flags::A, &tail);
                }
                for piece in payload {
                    connection.message_data(outlet.session, piece.clone());
                }
                if part.last {
                    connection.end_message(outlet.session, id.tag());
                }
            }
        }
        self.count_part(id, cost);
    }

    /// A part has reached the output.
    fn count_part(&mut self, id: OutletId, cost: u32) {
        let outlet = &mut self.outlets[id.index as usize];
        if outlet.credit == 0 {
            self.credited.push(id);
        }
        outlet.credit += cost;
        let connection = outlet.connection;
        self.count_output(connection);
        self.touch(connection);
    }

    /// Gives mailrooms back what their parts took of the outlets' windows: once for a run of parts.
    pub(super) fn send_credits(&mut self) {
        while let Some(id) = self.credited.pop() {
            let Some(outlet) = self.outlet(id) else { continue };
            let cost = std::mem::take(&mut outlet.credit);
            let (home, mailbox, epoch) = (outlet.home, outlet.mailbox, outlet.epoch);
            self.mesh.send(home, MeshItem::Credit { mailbox, epoch, cost });
        }
    }

    /// Brings the shard's sum of output up to date with a connection's.
    pub(super) fn count_output(&mut self, connection: ConnectionId) {
        let peer = &mut self.peers[connection.index()];
        let bytes = peer.connection.output_bytes();
        self.output_bytes = self.output_bytes + bytes - peer.counted_output;
        peer.counted_output = bytes;
    }

    /// A connection leaves: its output no longer counts.
    pub(super) fn uncount_output(&mut self, connection: ConnectionId) {
        self.output_bytes -= std::mem::take(&mut self.peers[connection.index()].counted_output);
    }

    /// Output has been sent: what waited for room goes on. More output may be there afterwards.
    pub fn sent(&mut self, now: Timestamp, id: ConnectionId) {
        self.now = now;
        if self.live_peer(id).is_none() {
            return;
        }
        self.count_output(id);
        let low = output_room(&self.config, self.output_bytes) / 2;
        let peer = self.peer(id);
        if peer.notify_waits && peer.connection.output_bytes() <= low {
            self.presence_has_room(id);
        }
        let peer = self.peer(id);
        let waits = !peer.waiting_outlets.is_empty() || self.has_waiting_legs(id);
        if waits && peer.connection.output_bytes() <= low {
            self.flush_waiting_outlets(id);
            self.flush_waiting_legs(id);
            self.settle();
        }
    }

    /// The output of a connection has drained: outlets that waited send one part each, in turn, as long as one of them can.
    pub(super) fn flush_waiting_outlets(&mut self, connection: ConnectionId) {
        let mut in_vain = 0;
        loop {
            let room = output_room(&self.config, self.output_bytes);
            let Some(peer) = self.live_peer(connection) else { return };
            if peer.connection.output_bytes() >= room || in_vain > peer.waiting_outlets.len() {
                return;
            }
            let Some(id) = peer.waiting_outlets.pop_front() else { return };
            let Some(outlet) = self.outlet(id) else { continue };
            outlet.waiting = false;
            let sent = self.send_waiting_part(id);
            in_vain = if sent { 0 } else { in_vain + 1 };
            let outlet = &mut self.outlets[id.index as usize];
            if sent && !outlet.backlog.is_empty() && !outlet.waiting {
                outlet.waiting = true;
                self.peer_mut(connection).waiting_outlets.push_back(id);
            }
        }
    }

    /// The client has acknowledged messages that an outlet sent. Runs of one outlet go to its mailroom together.
    pub(super) fn outlet_acknowledged(&mut self, tag: u64, count: u32) {
        let Some(outlet) = self.outlet(OutletId::from_tag(tag)) else { return };
        let (home, mailbox, epoch) = (outlet.home, outlet.mailbox, outlet.epoch);
        match &mut self.acknowledged {
            Some((to, of, in_epoch, sum)) if (*to, *of, *in_epoch) == (home, mailbox, epoch) => *sum += count,
            _ => {
                self.send_acknowledged();
                self.acknowledged = Some((home, mailbox, epoch, count));
            }
        }
    }

    /// Sends the run of acknowledgements gathered so far.
    pub(super) fn send_acknowledged(&mut self) {
        if let Some((home, mailbox, epoch, count)) = self.acknowledged.take() {
            self.mesh.send(home, MeshItem::Acknowledged { mailbox, epoch, count });
        }
    }

    /// The client has refused or closed the session, or the connection is gone.
    pub(super) fn outlet_gone(&mut self, connection: ConnectionId, session: SessionId) {
        self.send_acknowledged();
        let Some(id) = self.peer_mut(connection).outlets.remove(&session) else { return };
        let outlet = self.outlets.remove(id.index as usize);
        let (mailbox, epoch) = (outlet.mailbox, outlet.epoch);
        self.mesh.send(outlet.home, MeshItem::OutletClosed { mailbox, epoch });
    }

    /// The mailroom ends a delivery.
    pub(super) fn close_outlet(&mut self, id: OutletId) {
        let Some(outlet) = self.outlet(id) else { return };
        let (connection, session) = (outlet.connection, outlet.session);
        self.outlets.remove(id.index as usize);
        let peer = self.peer_mut(connection);
        peer.outlets.remove(&session);
        peer.connection.close_session(session, CloseReason::InternalError);
        self.touch(connection);
    }
}

//! Presence: who publishes what, who watches whom, and how that comes together across shards (WAN DPP; wire-profile
//! sec. 4, presence-wan-dpp sec. 7).
//!
//! Three places, which may be on three shards and talk only in [`Note`]s. The *publications* of a connection are kept on its
//! shard; the *registry* on the home of a device's URL is the only writer of its status; the *watched devices* of a shard
//! know which of its connections to tell. A note says how something stands, so a shard that is slow has at most one pending for each
//! device and publication; one mesh item carries all notes for one shard.
//!
//! Everything is soft state of connections: it goes with the session or connection that brought it, and with the relay.

mod attendee;
mod config;
mod dirty;
mod note;
mod publications;
mod registry;
mod session;
mod watched;

pub use config::PresenceConfig;
pub use note::{Note, PublicationId, WatchedId};
pub(super) use session::aliases;

use super::Relay;
use super::home::ShardId;
use super::mesh::{ConnectionId, MeshItem};
use super::outlet::output_room;
use crate::presence::Status;
use crate::sstp::SessionId;
use crate::sstp::profile::{RESOURCE_WAN_DPP, flags};
use crate::sstp::text::Text;
use crate::time::Timestamp;
use attendee::{Attendee, Reverse, Schedule};
use note::NOTES_A_BATCH;
use publications::Publications;
use registry::Registry;
use slab::Slab;
use std::collections::VecDeque;
use watched::WatchedDevices;

/// Tag of every Notify in its connection's list of unacknowledged messages; no outlet has it.
pub(super) const NOTIFY_TAG: u64 = u64::MAX;
/// Subscribers told in one turn; the others are told in the next one, so that mail is not held up.
const NOTIFIED_A_TURN: usize = 1024;
/// Notifies of one connection without acknowledgement, above which it is told nothing more: a bound on memory, far above
/// what a client that is alive lets come together.
const MAX_UNACKNOWLEDGED: usize = 1024;

/// Counters of presence on one shard since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceStats {
    /// Statuses published for own devices.
    pub published: u64,
    /// Statuses published for devices of others, and ignored.
    pub foreign: u64,
    /// Subscriptions refused since a limit was reached; each was answered with *unknown*.
    pub refused: u64,
    /// Bodies that were no WAN DPP messages.
    pub malformed: u64,
    /// Notify messages sent.
    pub notifies: u64,
    /// Statuses in them.
    pub statuses: u64,
    /// Batches of notes sent to other shards.
    pub batches: u64,
}

/// What presence holds at present on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresenceCounts {
    /// Connections with presence sessions.
    pub connections: usize,
    /// Devices of which the shard is home.
    pub devices: usize,
    /// Publications of the shard's connections.
    pub publications: usize,
    /// Devices that are watched from here.
    pub watched: usize,
    /// Subscriptions to them.
    pub subscriptions: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Presence {
    attendees: Slab<Attendee>,
    publications: Publications,
    registry: Registry,
    watched: WatchedDevices,
    /// When to tell whom; in order, since everybody's window is equally long.
    due: VecDeque<(Timestamp, u32)>,
}

impl Presence {
    pub(super) fn new(config: &PresenceConfig, shards: u16) -> Self {
        Self {
            attendees: Slab::new(),
            publications: Publications::new(shards),
            registry: Registry::new(shards, config.offline_damping),
            watched: WatchedDevices::new(shards),
            due: VecDeque::new(),
        }
    }

    /// When something of presence is next due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let tell = self.due.front().map(|(due, _)| *due);
        [tell, self.registry.next_due()].into_iter().flatten().min()
    }

    /// Whether there may be something to tell a shard.
    pub(super) fn has_notes(&self, to: ShardId) -> bool {
        self.registry.has_notes(to) || self.publications.has_notes(to) || self.watched.has_notes(to)
    }

    fn take_notes(&mut self, to: ShardId) -> Vec<Note> {
        let mut notes = Vec::new();
        self.publications.take_notes(to, NOTES_A_BATCH, &mut notes);
        self.watched.take_notes(to, notes.len() + NOTES_A_BATCH, &mut notes);
        self.registry.take_notes(to, notes.len() + NOTES_A_BATCH, &mut notes);
        notes
    }

    /// An attendee has news: they are told at the end of its window.
    fn schedule(&mut self, index: u32, due: Timestamp) {
        let attendee = &mut self.attendees[index as usize];
        if attendee.schedule == Schedule::Idle && attendee.has_news() {
            attendee.schedule = Schedule::Due(due);
            self.due.push_back((due, index));
        }
    }

    /// A home has told a status: it is news for all subscribers on this shard.
    fn told(&mut self, watched: WatchedId, status: Status, due: Timestamp) {
        let Some(device) = self.watched.told(watched, status) else { return };
        for &index in &device.subscribers {
            let attendee = &mut self.attendees[index as usize];
            attendee.mark(watched.index);
            if attendee.schedule == Schedule::Idle {
                attendee.schedule = Schedule::Due(due);
                self.due.push_back((due, index));
            }
        }
    }
}

/// Between shards, and in time.
impl Relay {
    /// What presence holds at present.
    pub fn presence(&self) -> PresenceCounts {
        let (watched, subscriptions) = self.presence.watched.counts();
        PresenceCounts {
            connections: self.presence.attendees.len(),
            devices: self.presence.registry.len(),
            publications: self.presence.publications.len(),
            watched,
            subscriptions,
        }
    }

    /// Puts what there is to tell a shard into one mesh item, unless one still waits: then it is told in the next one, as it
    /// stands then.
    pub(super) fn post_presence(&mut self, to: ShardId) {
        if !self.presence.has_notes(to) || self.mesh.holds_presence(to) {
            return;
        }
        let notes = self.presence.take_notes(to);
        if !notes.is_empty() {
            self.stats.presence.batches += u64::from(to != self.shard);
            self.mesh.send(to, MeshItem::Presence(notes));
        }
    }

    pub(super) fn presence_notes(&mut self, from: ShardId, notes: Vec<Note>) {
        let due = self.now + self.config.presence.window;
        for note in notes {
            let registry = &mut self.presence.registry;
            match note {
                Note::Watch { device, watched } => registry.watch(from, &device, watched),
                Note::Unwatch { device, watched } => registry.unwatch(from, &device, watched),
                Note::Publish { device, publication, status } => {
                    registry.publish(from, &device, publication, status);
                }
                Note::Withdraw { device, publication } => {
                    registry.withdraw(self.now, from, &device, publication);
                }
                Note::Status { watched, status } => self.presence.told(watched, status, due),
            }
        }
    }

    /// Tells whoever is due, some at a time, and shows devices as offline whose damping is over.
    pub(super) fn presence_timeout(&mut self) {
        let now = self.now;
        self.presence.registry.handle_timeout(now);
        for _ in 0..NOTIFIED_A_TURN {
            let Some((due, index)) = self.presence.due.pop_front_if(|(due, _)| *due <= now) else { return };
            // The connection may be gone, and another one may have its place.
            let attendee = self.presence.attendees.get(index as usize);
            if attendee.is_some_and(|attendee| attendee.schedule == Schedule::Due(due)) {
                self.notify(index);
            }
        }
    }

    /// Tells an attendee what it does not know, as far as its session and its output allow now.
    fn notify(&mut self, index: u32) {
        let attendee = &mut self.presence.attendees[index as usize];
        let id = attendee.connection;
        attendee.schedule = if attendee.has_news() { Schedule::Overdue } else { Schedule::Idle };
        if attendee.schedule == Schedule::Idle {
            return;
        }
        let peer = self.peers.get_mut(id.index()).expect("an attendee ends with its connection");
        if attendee.reverse == Reverse::Unopened {
            let resource = Text::new(RESOURCE_WAN_DPP).expect("ASCII");
            let device = Text::from(&attendee.own[0]);
            let opened = peer.connection.open(resource, Text::EMPTY, device);
            attendee.reverse = opened.map_or(Reverse::Declined, Reverse::Opened);
            return self.touch(id);
        }
        let Reverse::Opened(session) = attendee.reverse else { return };
        if !peer.connection.may_send(session) {
            return;
        }
        let room = output_room(&self.config, self.output_bytes) / 2;
        while attendee.has_news() && attendee.unacknowledged < MAX_UNACKNOWLEDGED {
            if peer.connection.output_bytes() > room {
                peer.notify_waits = true;
                break;
            }
            let Some((body, statuses)) = attendee.take_notify(&self.presence.watched) else { continue };
            attendee.unacknowledged += 1;
            peer.connection.begin_message(session, flags::A, b"\0");
            peer.connection.message_data(session, body);
            peer.connection.end_message(session, NOTIFY_TAG);
            self.stats.presence.notifies += 1;
            self.stats.presence.statuses += statuses;
        }
        if !attendee.has_news() {
            attendee.schedule = Schedule::Idle;
        }
        self.count_output(id);
        self.touch(id);
    }

    /// Tells an attendee what is overdue, since something that stood in the way is gone.
    fn notify_overdue(&mut self, id: ConnectionId) {
        let Some(index) = self.peer(id).attendee else { return };
        if self.presence.attendees[index as usize].schedule == Schedule::Overdue {
            self.notify(index);
        }
    }

    /// The connection's output has drained.
    pub(super) fn presence_has_room(&mut self, id: ConnectionId) {
        self.peer_mut(id).notify_waits = false;
        self.notify_overdue(id);
    }

    /// A session of ours may send; `true` if it is the one on which the client is told.
    pub(super) fn presence_ready(&mut self, id: ConnectionId, session: SessionId) -> bool {
        let Some(index) = self.peer(id).attendee else { return false };
        let is_it = self.presence.attendees[index as usize].reverse == Reverse::Opened(session);
        if is_it {
            self.notify_overdue(id);
        }
        is_it
    }

    /// The client has acknowledged so many Notifies.
    pub(super) fn presence_acknowledged(&mut self, id: ConnectionId, count: u32) {
        let Some(index) = self.peer(id).attendee else { return };
        self.presence.attendees[index as usize].unacknowledged -= count as usize;
        self.notify_overdue(id);
    }
}

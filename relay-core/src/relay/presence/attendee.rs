//! One connection as presence sees it: its sessions, what it may publish, what it watches, and what it has not been told yet.
//!
//! What is not told is a set of devices, not a queue of messages: a subscriber that is stopped or slow gets the value of the
//! moment when it can be told, and no other.

use super::note::PublicationId;
use super::watched::WatchedDevices;
use crate::address::DeviceUrl;
use crate::presence::{Decoder, Kind, MessageWriter, Status, profile};
use crate::relay::mesh::ConnectionId;
use crate::sstp::SessionId;
use crate::time::Timestamp;
use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use smallvec::SmallVec;

/// Devices above a limit that wait to be answered with *unknown*.
const MAX_REFUSALS: usize = 1024;

/// A presence session that the client opened.
#[derive(Debug)]
pub(super) struct PresenceSession {
    pub(super) session: SessionId,
    /// Its bit in [`Claim::sessions`].
    slot: u8,
    pub(super) decoder: Decoder,
}

/// The session on which the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reverse {
    /// There was nothing to tell.
    Unopened,
    Opened(SessionId),
    /// The client refused or closed it, or the connection has no room for it. A Subscribe opens another one.
    Declined,
}

/// When the client is told what it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schedule {
    /// There is nothing to tell.
    Idle,
    /// At the end of the window.
    Due(Timestamp),
    /// As soon as its session and its output allow.
    Overdue,
}

/// A device that the connection watches.
#[derive(Debug)]
pub(super) struct Claim {
    /// Its place among the device's subscribers.
    pub(super) place: u32,
    /// The sessions that subscribed to it.
    sessions: u8,
    /// In [`Attendee::pending`].
    pending: bool,
    told: Option<Status>,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Attendee {
    pub(super) connection: ConnectionId,
    /// The device URLs for which it may speak.
    pub(super) own: Box<[DeviceUrl]>,
    pub(super) sessions: SmallVec<[PresenceSession; 1]>,
    /// What is published: by which session, which of the own devices, and under which name.
    publications: Vec<(u8, usize, PublicationId)>,
    /// By the index of the device.
    pub(super) claims: HashMap<u32, Claim>,
    /// Devices whose status it may not know, each once; and some that it watches no more.
    pending: Vec<u32>,
    /// Devices that are to be answered with *unknown*.
    refused: Vec<DeviceUrl>,
    pub(super) reverse: Reverse,
    pub(super) schedule: Schedule,
    /// Notifies that the client has not acknowledged.
    pub(super) unacknowledged: usize,
}

impl Attendee {
    pub(super) fn new(connection: ConnectionId, own: Box<[DeviceUrl]>) -> Self {
        Self {
            connection,
            own,
            sessions: SmallVec::new(),
            publications: Vec::new(),
            claims: HashMap::new(),
            pending: Vec::new(),
            refused: Vec::new(),
            reverse: Reverse::Unopened,
            schedule: Schedule::Idle,
            unacknowledged: 0,
        }
    }

    /// Takes a session in; `false` if there are as many as there may be.
    pub(super) fn open(&mut self, session: SessionId) -> bool {
        let is_free = |slot: &u8| self.sessions.iter().all(|other| other.slot != *slot);
        let Some(slot) = (0..profile::MAX_SESSIONS as u8).find(is_free) else { return false };
        self.sessions.push(PresenceSession { session, slot, decoder: Decoder::default() });
        true
    }

    pub(super) fn session(&mut self, session: SessionId) -> Option<&mut PresenceSession> {
        self.sessions.iter_mut().find(|known| known.session == session)
    }

    /// Drops a session; gives its slot.
    pub(super) fn close(&mut self, session: SessionId) -> Option<u8> {
        let place = self.sessions.iter().position(|known| known.session == session)?;
        Some(self.sessions.remove(place).slot)
    }

    pub(super) fn slot(&self, session: SessionId) -> Option<u8> {
        self.sessions.iter().find(|known| known.session == session).map(|known| known.slot)
    }

    // What it publishes.

    pub(super) fn publication(&self, slot: u8, own: usize) -> Option<PublicationId> {
        let is_it = |(of, device, _): &&(u8, usize, PublicationId)| (*of, *device) == (slot, own);
        self.publications.iter().find(is_it).map(|(.., id)| *id)
    }

    pub(super) fn add_publication(&mut self, slot: u8, own: usize, id: PublicationId) {
        self.publications.push((slot, own, id));
    }

    /// Takes a publication, or those of all devices, of a session, or of all sessions.
    pub(super) fn take_publications(&mut self, slot: Option<u8>, own: Option<usize>) -> Vec<PublicationId> {
        let mut taken = Vec::new();
        self.publications.retain(|&(of, device, id)| {
            let stays = slot.is_some_and(|slot| slot != of) || own.is_some_and(|own| own != device);
            if !stays {
                taken.push(id);
            }
            stays
        });
        taken
    }

    // What it watches.

    /// A session subscribes to a device that the connection watches already; the status is to be told again.
    pub(super) fn claim_again(&mut self, device: u32, slot: u8) {
        let claim = self.claims.get_mut(&device).expect("the connection watches it");
        claim.sessions |= 1 << slot;
        claim.told = None;
    }

    /// A session subscribes to a device that the connection does not watch yet.
    pub(super) fn claim(&mut self, device: u32, slot: u8, place: u32) {
        let claim = Claim { place, sessions: 1 << slot, pending: false, told: None };
        self.claims.insert(device, claim);
    }

    /// A session watches a device no more; gives the claim if no other session does.
    pub(super) fn release(&mut self, device: u32, slot: u8) -> Option<Claim> {
        let claim = self.claims.get_mut(&device)?;
        claim.sessions &= !(1 << slot);
        if claim.sessions == 0 { self.claims.remove(&device) } else { None }
    }

    /// The devices that a session watches, in a fixed order.
    pub(super) fn claimed_by(&self, slot: u8) -> Vec<u32> {
        let is_claimed = |claim: &Claim| claim.sessions & (1 << slot) != 0;
        let claimed = self.claims.iter().filter(|(_, claim)| is_claimed(claim));
        let mut devices: Vec<u32> = claimed.map(|(device, _)| *device).collect();
        devices.sort_unstable();
        devices
    }

    // What it is to be told.

    /// A device's status may be news.
    pub(super) fn mark(&mut self, device: u32) {
        let Some(claim) = self.claims.get_mut(&device) else { return };
        if !std::mem::replace(&mut claim.pending, true) {
            // Devices that were unsubscribed from since leave their entries behind.
            if self.pending.len() >= 2 * self.claims.len().max(8) {
                self.drop_stale();
            }
            self.pending.push(device);
        }
    }

    fn drop_stale(&mut self) {
        let mut live = std::mem::take(&mut self.pending);
        live.sort_unstable();
        live.dedup();
        live.retain(|device| self.claims.get(device).is_some_and(|claim| claim.pending));
        self.pending = live;
    }

    /// A device above a limit is to be answered; `false` if too many wait for that already.
    pub(super) fn refuse(&mut self, device: DeviceUrl) -> bool {
        if self.refused.contains(&device) {
            return true;
        }
        if self.refused.len() == MAX_REFUSALS {
            return false;
        }
        self.refused.push(device);
        true
    }

    /// The next Notify, with everything that is pending or as much as fits one; `None` if nothing is news.
    pub(super) fn take_notify(&mut self, devices: &WatchedDevices) -> Option<(Bytes, u64)> {
        let mut body = BytesMut::new();
        let mut writer = MessageWriter::new(Kind::Notify, &mut body);
        let mut statuses = 0;
        while writer.len() < profile::NOTIFY_BYTES {
            if let Some(device) = self.refused.pop() {
                writer.status(Status::Unknown, &device);
                statuses += 1;
                continue;
            }
            let Some(index) = self.pending.pop() else { break };
            let Some(claim) = self.claims.get_mut(&index).filter(|claim| claim.pending) else { continue };
            claim.pending = false;
            // Without a status yet, its arrival marks the device again.
            let device = devices.get(index);
            if let Some(status) = device.status.filter(|status| claim.told != Some(*status)) {
                claim.told = Some(status);
                writer.status(status, &device.url);
                statuses += 1;
            }
        }
        writer.finish();
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
        (statuses > 0).then(|| (body.freeze(), statuses))
    }

    /// Whether something waits to be told.
    pub(super) fn has_news(&self) -> bool {
        !self.pending.is_empty() || !self.refused.is_empty()
    }

    /// What the client was told may not have reached it: its session is gone. Everything is told again on the next one.
    pub(super) fn decline(&mut self) {
        self.reverse = Reverse::Declined;
        self.pending.clear();
        for (device, claim) in &mut self.claims {
            (claim.told, claim.pending) = (None, true);
            self.pending.push(*device);
        }
        self.pending.sort_unstable();
    }

    /// No session is left that wants to be told anything.
    pub(super) fn forget_refusals(&mut self) {
        if self.sessions.is_empty() {
            self.refused = Vec::new();
        }
    }
}

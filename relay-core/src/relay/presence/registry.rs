//! The devices of which this shard is the home: what is published about each, what is shown of it, and which shards are told.
//!
//! One writer: a device's status changes here and nowhere else. It is held in memory alone, since clients publish and
//! subscribe anew after every restart.

use super::dirty::Dirty;
use super::note::{Note, PublicationId, WatchedId};
use crate::address::DeviceUrl;
use crate::presence::Status;
use crate::relay::home::ShardId;
use crate::time::Timestamp;
use hashbrown::HashMap;
use slab::Slab;
use smallvec::SmallVec;
use std::collections::VecDeque;
use std::time::Duration;

/// Sessions whose word on one device is remembered; above it the oldest one counts no more. A registered device has far fewer, but anybody
/// may list the same unregistered device among its own.
const MAX_STATEMENTS: usize = 64;

/// What one session says about the device.
#[derive(Debug)]
struct Statement {
    shard: ShardId,
    publication: PublicationId,
    status: Status,
}

/// A shard on which somebody watches the device.
#[derive(Debug)]
struct Watcher {
    shard: ShardId,
    watched: WatchedId,
    /// What it was last told.
    told: Option<Status>,
}

#[derive(Debug)]
struct Device {
    url: DeviceUrl,
    /// The latest one last.
    statements: SmallVec<[Statement; 1]>,
    /// What is shown.
    status: Status,
    /// *Offline* is held back until then.
    damped: Option<Timestamp>,
    watchers: SmallVec<[Watcher; 1]>,
}

impl Device {
    fn new(url: DeviceUrl) -> Self {
        let (statements, watchers) = (SmallVec::new(), SmallVec::new());
        Self { url, statements, status: Status::Offline, damped: None, watchers }
    }

    /// The latest word of a session that is there. As long as one says that the device is present, it is: another one that ends, or
    /// says that *it* goes offline, does not change that.
    fn stated(&self) -> Status {
        let present = self.statements.iter().rev().find(|statement| statement.status.is_present());
        present.map_or(Status::Offline, |statement| statement.status)
    }

    fn watcher(&mut self, shard: ShardId) -> Option<&mut Watcher> {
        self.watchers.iter_mut().find(|watcher| watcher.shard == shard)
    }

    fn is_forgotten(&self) -> bool {
        self.statements.is_empty() && self.watchers.is_empty() && self.damped.is_none()
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Registry {
    damping: Duration,
    devices: Slab<Device>,
    by_url: HashMap<DeviceUrl, u32>,
    /// For each shard the devices that it may have to be told of.
    untold: Vec<Dirty>,
    /// When to look at a device whose offline is held back; in order, since all are held back equally long.
    damped: VecDeque<(Timestamp, u32)>,
}

impl Registry {
    pub(super) fn new(shards: u16, damping: Duration) -> Self {
        Self {
            damping,
            devices: Slab::new(),
            by_url: HashMap::new(),
            untold: (0..shards).map(|_| Dirty::default()).collect(),
            damped: VecDeque::new(),
        }
    }

    /// Devices known.
    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// When [`Registry::handle_timeout`] is due.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.damped.front().map(|(due, _)| *due)
    }

    /// Shows devices as offline whose time is over.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((due, index)) = self.damped.pop_front_if(|(due, _)| *due <= now) {
            // The device may have come back and gone again, or another one may have its place.
            let Some(device) = self.devices.get_mut(index as usize) else { continue };
            if device.damped == Some(due) {
                device.damped = None;
                self.show(index, Status::Offline);
                self.forget_if_idle(index);
            }
        }
    }

    pub(super) fn watch(&mut self, from: ShardId, url: &DeviceUrl, watched: WatchedId) {
        let index = self.device(url);
        let watcher = Watcher { shard: from, watched, told: None };
        let device = &mut self.devices[index as usize];
        match device.watcher(from) {
            Some(known) => *known = watcher,
            None => device.watchers.push(watcher),
        }
        self.untold[usize::from(from.0)].insert(index);
    }

    pub(super) fn unwatch(&mut self, from: ShardId, url: &DeviceUrl, watched: WatchedId) {
        let Some(&index) = self.by_url.get(url) else { return };
        let watchers = &mut self.devices[index as usize].watchers;
        watchers.retain(|watcher| (watcher.shard, watcher.watched) != (from, watched));
        self.forget_if_idle(index);
    }

    /// A session says something about a device: from now on this is the latest word on it.
    pub(super) fn publish(
        &mut self,
        from: ShardId,
        url: &DeviceUrl,
        publication: PublicationId,
        status: Status,
    ) {
        let index = self.device(url);
        let device = &mut self.devices[index as usize];
        device.statements.retain(|statement| !statement.is(from, publication));
        if device.statements.len() == MAX_STATEMENTS {
            device.statements.remove(0);
        }
        device.statements.push(Statement { shard: from, publication, status });
        let stated = device.stated();
        device.damped = None;
        self.show(index, stated);
    }

    /// A session says nothing any more. If it was the last one to keep the device online, that is a loss.
    pub(super) fn withdraw(
        &mut self,
        now: Timestamp,
        from: ShardId,
        url: &DeviceUrl,
        publication: PublicationId,
    ) {
        let Some(&index) = self.by_url.get(url) else { return };
        let device = &mut self.devices[index as usize];
        device.statements.retain(|statement| !statement.is(from, publication));
        let stated = device.stated();
        if stated.is_present() || self.damping.is_zero() || !device.status.is_present() {
            self.show(index, stated);
            return self.forget_if_idle(index);
        }
        if device.damped.is_none() {
            let due = now + self.damping;
            device.damped = Some(due);
            self.damped.push_back((due, index));
        }
    }

    /// Appends what a shard is to be told, up to `most` notes in all.
    pub(super) fn take_notes(&mut self, to: ShardId, most: usize, notes: &mut Vec<Note>) {
        let untold = &mut self.untold[usize::from(to.0)];
        while notes.len() < most
            && let Some(index) = untold.pop()
        {
            let Some(device) = self.devices.get_mut(index as usize) else { continue };
            let status = device.status;
            if let Some(watcher) = device.watcher(to).filter(|watcher| watcher.told != Some(status)) {
                watcher.told = Some(status);
                notes.push(Note::Status { watched: watcher.watched, status });
            }
        }
    }

    /// Whether there may be something to tell a shard.
    pub(super) fn has_notes(&self, to: ShardId) -> bool {
        !self.untold[usize::from(to.0)].is_empty()
    }

    fn device(&mut self, url: &DeviceUrl) -> u32 {
        if let Some(&index) = self.by_url.get(url) {
            return index;
        }
        let index = self.devices.insert(Device::new(url.clone())) as u32;
        self.by_url.insert(url.clone(), index);
        index
    }

    fn show(&mut self, index: u32, status: Status) {
        let device = &mut self.devices[index as usize];
        if device.status != status {
            device.status = status;
            for watcher in &device.watchers {
                self.untold[usize::from(watcher.shard.0)].insert(index);
            }
        }
    }

    fn forget_if_idle(&mut self, index: u32) {
        if self.devices[index as usize].is_forgotten() {
            let device = self.devices.remove(index as usize);
            self.by_url.remove(&device.url);
        }
    }
}

impl Statement {
    fn is(&self, shard: ShardId, publication: PublicationId) -> bool {
        (self.shard, self.publication) == (shard, publication)
    }
}

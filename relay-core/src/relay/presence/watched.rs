//! The devices that connections of this shard watch: one entry each, however many watch it, and one question to its home.

use super::dirty::Dirty;
use super::note::{Note, WatchedId};
use crate::address::DeviceUrl;
use crate::presence::Status;
use crate::relay::home::{self, ShardId};
use hashbrown::HashMap;
use slab::Slab;

/// One device.
#[derive(Debug)]
pub(super) struct WatchedDevice {
    generation: u32,
    pub(super) url: DeviceUrl,
    /// As its home has told; `None` until it has.
    pub(super) status: Option<Status>,
    /// The attendees that watch it. Each knows its place here, so that it leaves without a search.
    pub(super) subscribers: Vec<u32>,
    /// Its home knows that it is watched here.
    announced: bool,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct WatchedDevices {
    shards: u16,
    devices: Slab<WatchedDevice>,
    by_url: HashMap<DeviceUrl, u32>,
    next_generation: u32,
    /// For each home the devices of which it may have to be told.
    untold: Vec<Dirty>,
    subscriptions: usize,
}

impl WatchedDevices {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            shards,
            devices: Slab::new(),
            by_url: HashMap::new(),
            next_generation: 0,
            untold: (0..shards).map(|_| Dirty::default()).collect(),
            subscriptions: 0,
        }
    }

    /// The index of a device that is watched.
    pub(super) fn find(&self, url: &DeviceUrl) -> Option<u32> {
        self.by_url.get(url).copied()
    }

    pub(super) fn get(&self, index: u32) -> &WatchedDevice {
        &self.devices[index as usize]
    }

    /// Adds a subscriber, who does not watch the device yet; gives the device and the subscriber's place there, or `None` if the
    /// device has as many subscribers as it may have.
    pub(super) fn subscribe(&mut self, url: DeviceUrl, attendee: u32, most: usize) -> Option<(u32, u32)> {
        let index = self.find(&url).unwrap_or_else(|| self.add(url));
        let device = &mut self.devices[index as usize];
        let place = device.subscribers.len();
        let has_room = place < most;
        if has_room {
            device.subscribers.push(attendee);
            self.subscriptions += 1;
        }
        if !device.announced {
            self.touch(index);
        }
        has_room.then_some((index, place as u32))
    }

    /// Removes the subscriber in a place; gives the one who has the place now, if it was not the last one.
    pub(super) fn unsubscribe(&mut self, index: u32, place: u32) -> Option<u32> {
        let subscribers = &mut self.devices[index as usize].subscribers;
        subscribers.swap_remove(place as usize);
        self.subscriptions -= 1;
        if subscribers.capacity() > 4 * subscribers.len().max(4) {
            subscribers.shrink_to(2 * subscribers.len());
        }
        let moved = subscribers.get(place as usize).copied();
        if subscribers.is_empty() {
            self.touch(index);
        }
        moved
    }

    /// The home tells a status; gives the device if that is news here.
    pub(super) fn told(&mut self, id: WatchedId, status: Status) -> Option<&WatchedDevice> {
        let device = self.devices.get_mut(id.index as usize)?;
        if device.generation != id.generation || device.status.replace(status) == Some(status) {
            return None;
        }
        Some(device)
    }

    /// Devices watched, and subscriptions to them.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.devices.len(), self.subscriptions)
    }

    /// Appends what a home is to be told, up to `most` notes in all.
    pub(super) fn take_notes(&mut self, to: ShardId, most: usize, notes: &mut Vec<Note>) {
        while notes.len() < most
            && let Some(index) = self.untold[usize::from(to.0)].pop()
        {
            let Some(known) = self.devices.get_mut(index as usize) else { continue };
            let watched = WatchedId { index, generation: known.generation };
            let device = known.url.clone();
            match (known.subscribers.is_empty(), known.announced) {
                (false, false) => {
                    known.announced = true;
                    notes.push(Note::Watch { device, watched });
                }
                (true, true) => {
                    self.remove(index);
                    notes.push(Note::Unwatch { device, watched });
                }
                (true, false) => self.remove(index),
                (false, true) => {}
            }
        }
    }

    /// Whether there may be something to tell a home.
    pub(super) fn has_notes(&self, to: ShardId) -> bool {
        !self.untold[usize::from(to.0)].is_empty()
    }

    fn add(&mut self, url: DeviceUrl) -> u32 {
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let (status, subscribers) = (None, Vec::new());
        let device = WatchedDevice { generation, url: url.clone(), status, subscribers, announced: false };
        let index = self.devices.insert(device) as u32;
        self.by_url.insert(url, index);
        index
    }

    fn remove(&mut self, index: u32) {
        let device = self.devices.remove(index as usize);
        self.by_url.remove(&device.url);
    }

    fn touch(&mut self, index: u32) {
        let home = home::home_of_device(&self.devices[index as usize].url, self.shards);
        self.untold[usize::from(home.0)].insert(index);
    }
}

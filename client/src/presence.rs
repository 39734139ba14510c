//! The status of devices: what an application is told by one relay or by several.
//!
//! Between the tasks that talk to relays and the application stands one value for each device, not a queue: an application that looks
//! rarely sees the latest.

use crate::driver::Command;
use crate::handle::Client;
use relay_core::address::DeviceUrl;
use relay_core::presence::Status;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, mpsc};

/// A device has another status than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusChange {
    /// The device.
    pub device: DeviceUrl,
    /// Its status now.
    pub status: Status,
}

/// A set of devices and their statuses, as a stream of changes.
///
/// Each device is asked about at one relay, normally its own ([`RelayIdentity::serves`](crate::RelayIdentity::serves)); a
/// device whose relay cannot be reached is [`Status::Unknown`] until it can. Dropping it ends the watch.
#[derive(Debug, Default)]
pub struct StatusWatch {
    board: Arc<Board>,
    /// Whom to tell that a device is of no interest any more.
    asked: HashMap<DeviceUrl, mpsc::WeakUnboundedSender<Command>>,
}

impl StatusWatch {
    /// Of no device yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches devices, which are asked about at the relay of `client`, as long as it has a handle. A device that is watched
    /// already moves there.
    pub fn add(&mut self, client: &Client, devices: impl IntoIterator<Item = DeviceUrl>) {
        for device in devices {
            self.remove(&device);
            let ear = Ear::new(device.clone(), self.board.clone());
            let commands = client.commands();
            // If the client is closed, the ear comes back and says that nobody listens.
            if commands.send(Command::Watch(ear)).is_ok() {
                self.asked.insert(device, commands.downgrade());
            }
        }
    }

    /// Watches a device no more.
    pub fn remove(&mut self, device: &DeviceUrl) {
        if let Some(commands) = self.asked.remove(device).and_then(|commands| commands.upgrade()) {
            // A client that is closed has forgotten the device.
            let _ = commands.send(Command::Unwatch { device: device.clone(), board: self.board.clone() });
        }
        self.board.lock().statuses.remove(device);
    }

    /// The next change; `None` if nothing is watched or every client is closed. Changes of one device between two calls come as
    /// one. Dropping the future loses nothing.
    pub async fn changed(&mut self) -> Option<StatusChange> {
        loop {
            let news = self.board.news.notified();
            {
                let mut content = self.board.lock();
                if let Some(change) = content.next_change() {
                    return Some(change);
                }
                if content.ears == 0 {
                    return None;
                }
            }
            news.await;
        }
    }

    /// All devices with their statuses, in the order of their URLs.
    pub fn statuses(&self) -> Vec<(DeviceUrl, Status)> {
        let content = self.board.lock();
        content.statuses.iter().map(|(device, known)| (device.clone(), known.status)).collect()
    }
}

impl Drop for StatusWatch {
    fn drop(&mut self) {
        let devices: Vec<_> = self.asked.keys().cloned().collect();
        devices.iter().for_each(|device| self.remove(device));
    }
}

/// What a watch shares with the tasks that talk to relays.
#[derive(Debug, Default)]
pub(crate) struct Board {
    content: Mutex<Content>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Content {
    statuses: BTreeMap<DeviceUrl, Known>,
    /// Devices whose change was not seen, each once; and some that are watched no more.
    changed: VecDeque<DeviceUrl>,
    /// Devices about which somebody may tell something.
    ears: usize,
    next_ear: u64,
}

#[derive(Debug)]
struct Known {
    /// Who may tell it: not one who was asked before.
    ear: u64,
    status: Status,
    /// In the queue of changes.
    changed: bool,
}

impl Content {
    fn next_change(&mut self) -> Option<StatusChange> {
        while let Some(device) = self.changed.pop_front() {
            if let Some(known) = self.statuses.get_mut(&device).filter(|known| known.changed) {
                known.changed = false;
                return Some(StatusChange { status: known.status, device });
            }
        }
        None
    }
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Content> {
        // Nothing in here can panic half-way.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, ear: &Ear, status: Status) {
        let content = &mut *self.lock();
        let device = &ear.device;
        let known = content.statuses.get_mut(device).filter(|known| known.ear == ear.number);
        let Some(known) = known else { return };
        if std::mem::replace(&mut known.status, status) != status {
            if !std::mem::replace(&mut known.changed, true) {
                // Devices that were removed since leave their entries behind.
                if content.changed.len() > 2 * content.statuses.len() {
                    let statuses = &content.statuses;
                    content.changed.retain(|device| statuses.get(device).is_some_and(|known| known.changed));
                }
                content.changed.push_back(device.clone());
            }
            self.news.notify_one();
        }
    }
}

/// One device on one board, held by whoever can tell something about it. When it is dropped, nobody can any more.
#[derive(Debug)]
pub(crate) struct Ear {
    number: u64,
    device: DeviceUrl,
    board: Arc<Board>,
}

impl Ear {
    fn new(device: DeviceUrl, board: Arc<Board>) -> Self {
        let content = &mut *board.lock();
        content.ears += 1;
        content.next_ear += 1;
        let number = content.next_ear;
        content
            .statuses
            .insert(device.clone(), Known { ear: number, status: Status::Unknown, changed: false });
        Self { number, device, board: board.clone() }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.board.tell(self, Status::Unknown);
        self.board.lock().ears -= 1;
        self.board.news.notify_one();
    }
}

/// The devices that one client is asked about.
#[derive(Debug, Default)]
pub(crate) struct Ears(HashMap<DeviceUrl, Vec<Ear>>);

impl Ears {
    /// Takes an ear; gives its device, which the relay is to be asked about.
    pub(crate) fn add(&mut self, ear: Ear) -> DeviceUrl {
        let device = ear.device.clone();
        self.0.entry(device.clone()).or_default().push(ear);
        device
    }

    /// Drops the ear of a board; `true` if nobody asks about the device any more.
    pub(crate) fn remove(&mut self, device: &DeviceUrl, board: &Arc<Board>) -> bool {
        let Some(ears) = self.0.get_mut(device) else { return false };
        ears.retain(|ear| !Arc::ptr_eq(&ear.board, board));
        let unwanted = ears.is_empty();
        if unwanted {
            self.0.remove(device);
        }
        unwanted
    }

    /// The relay tells a status.
    pub(crate) fn tell(&self, device: &DeviceUrl, status: Status) {
        self.0.get(device).into_iter().flatten().for_each(|ear| ear.board.tell(ear, status));
    }

    /// Nobody can tell anything at the moment.
    pub(crate) fn know_nothing(&self) {
        self.0.keys().for_each(|device| self.tell(device, Status::Unknown));
    }
}

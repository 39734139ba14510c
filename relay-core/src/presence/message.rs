//! The four messages, and how they are written.

use super::Status;
use super::profile;
use crate::address::DeviceUrl;
use bytes::{BufMut, BytesMut};

/// What a message is, and what stands in front of its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Client to relay: the devices have this status; no devices mean every SourceDeviceURL of the connection.
    Publish(Status),
    /// Client to relay: tell the status of the devices, now and whenever it changes.
    Subscribe,
    /// Client to relay: tell no more of the devices; no devices mean all.
    Unsubscribe,
    /// Relay to client: the devices have the status beside them.
    Notify,
}

/// A whole message, for those who have one in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`Kind::Publish`].
    Publish {
        /// What is published.
        status: Status,
        /// The devices; empty for every SourceDeviceURL of the connection.
        devices: Vec<DeviceUrl>,
    },
    /// See [`Kind::Subscribe`]; never empty.
    Subscribe(Vec<DeviceUrl>),
    /// See [`Kind::Unsubscribe`]; empty for all.
    Unsubscribe(Vec<DeviceUrl>),
    /// See [`Kind::Notify`].
    Notify(Vec<(Status, DeviceUrl)>),
}

impl Message {
    /// Appends the message to `out`.
    ///
    /// # Panics
    /// With more than [`profile::MAX_DEVICES`] devices, or with none in a Subscribe.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Message::Publish { status, devices } => write_all(Kind::Publish(*status), devices, out),
            Message::Subscribe(devices) => {
                assert!(!devices.is_empty(), "a Subscribe names at least one device");
                write_all(Kind::Subscribe, devices, out);
            }
            Message::Unsubscribe(devices) => write_all(Kind::Unsubscribe, devices, out),
            Message::Notify(entries) => {
                let mut writer = MessageWriter::new(Kind::Notify, out);
                for (status, device) in entries {
                    writer.status(*status, device);
                }
                writer.finish();
            }
        }
    }
}

fn write_all(kind: Kind, devices: &[DeviceUrl], out: &mut BytesMut) {
    let mut writer = MessageWriter::new(kind, out);
    devices.iter().for_each(|device| writer.device(device));
    writer.finish();
}

/// Writes one message, device by device, into a buffer that may hold others before it.
#[derive(Debug)]
pub struct MessageWriter<'a> {
    out: &'a mut BytesMut,
    start: usize,
    count_at: usize,
    count: u16,
}

impl<'a> MessageWriter<'a> {
    /// Begins a message behind what `out` holds.
    pub fn new(kind: Kind, out: &'a mut BytesMut) -> Self {
        let start = out.len();
        let id = match kind {
            Kind::Publish(_) => profile::PUBLISH,
            Kind::Subscribe => profile::SUBSCRIBE,
            Kind::Unsubscribe => profile::UNSUBSCRIBE,
            Kind::Notify => profile::NOTIFY,
        };
        out.put_slice(&[profile::MAJOR_VERSION, profile::MINOR_VERSION, id, profile::RESERVED, 0, 0, 0, 0]);
        if let Kind::Publish(status) = kind {
            out.put_u8(status.byte());
        }
        let count_at = out.len();
        out.put_u16_le(0);
        Self { out, start, count_at, count: 0 }
    }

    /// Adds a device, to any message but a Notify.
    ///
    /// # Panics
    /// Above [`profile::MAX_DEVICES`] devices.
    pub fn device(&mut self, device: &DeviceUrl) {
        self.count = self.count.checked_add(1).expect("the caller bounds the number of devices");
        self.out.put_slice(device.as_bytes());
        self.out.put_u8(0);
    }

    /// Adds a device with its status, to a Notify.
    ///
    /// # Panics
    /// Above [`profile::MAX_DEVICES`] devices.
    pub fn status(&mut self, status: Status, device: &DeviceUrl) {
        self.out.put_u8(status.byte());
        self.device(device);
    }

    /// Bytes of the message so far.
    pub fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Whether it names no device yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Fills in the length and the number of devices.
    pub fn finish(self) {
        let length = u32::try_from(self.len()).expect("65535 URLs of 1024 bytes are far below 4 GiB");
        self.out[self.start + 4..self.start + 8].copy_from_slice(&length.to_le_bytes());
        self.out[self.count_at..self.count_at + 2].copy_from_slice(&self.count.to_le_bytes());
    }
}

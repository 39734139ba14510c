//! Reading messages out of the body of an SSTP message sequence, which arrives in slices that may be cut anywhere.
//!
//! A message is never assembled: what it says comes out device by device, and the decoder holds at most one unfinished device
//! beside the slice that it was given. So a body of any length costs the memory of one URL.

use super::Status;
use super::message::Kind;
use super::profile;
use crate::address::{DeviceUrl, InvalidUrl, MAX_URL_BYTES};
use bytes::{Buf, Bytes};

/// How a body is wrong. The answer to each is Close of the session with ProtocolError (wire-profile 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A body without any message.
    #[error("an empty body")]
    Empty,
    /// The body ended in the middle of a message.
    #[error("the body ends in the middle of a message")]
    Truncated,
    /// The first byte.
    #[error("major version {0}")]
    MajorVersion(u8),
    /// The second byte.
    #[error("minor version {0}")]
    MinorVersion(u8),
    /// The third byte.
    #[error("MessageId {0}")]
    MessageId(u8),
    /// The fourth byte.
    #[error("{0} in the reserved byte")]
    Reserved(u8),
    /// The total length is below or above what a message with this MessageId can have.
    #[error("a length of {0} bytes")]
    Length(u32),
    /// A byte that stands for no status.
    #[error("status {0}")]
    Status(u8),
    /// A Subscribe without devices.
    #[error("a Subscribe of nothing")]
    NoDevice,
    /// The devices go beyond the message's length.
    #[error("the devices are longer than the message")]
    Overrun,
    /// The message is longer than its devices.
    #[error("{0} bytes behind the last device")]
    Trailing(u32),
    /// A device URL.
    #[error(transparent)]
    Url(#[from] InvalidUrl),
    /// A message that only the other side sends.
    #[error("a message of the other side")]
    Direction,
}

/// One thing that a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Every SourceDeviceURL of the connection has this status.
    PublishAll(Status),
    /// This device has this status.
    Publish(Status, DeviceUrl),
    /// Tell of this device.
    Subscribe(DeviceUrl),
    /// Tell of nothing any more.
    UnsubscribeAll,
    /// Tell no more of this device.
    Unsubscribe(DeviceUrl),
    /// This device has this status, says the relay.
    Notify(Status, DeviceUrl),
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    /// Status and count of a Publish, or the count of another message.
    Head(u8),
    Devices(Kind, u16),
}

/// Reads the bodies of one session, one behind the other.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    input: Bytes,
    /// The beginning of what comes next, from earlier slices.
    partial: Vec<u8>,
    /// Bytes of the message behind `partial`.
    left: u32,
    /// The body has had a message.
    any: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: State::Header, input: Bytes::new(), partial: Vec::new(), left: 0, any: false }
    }
}

impl Decoder {
    /// Takes the next slice of the body. Call [`Decoder::poll`] until it gives nothing before the next one.
    pub fn push(&mut self, slice: Bytes) {
        debug_assert!(self.input.is_empty(), "the slice before this one was read to its end");
        self.input = slice;
    }

    /// The next thing that the body says; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`Malformed`]; the decoder is of no more use.
    pub fn poll(&mut self) -> Result<Option<Item>, Malformed> {
        loop {
            match self.state {
                State::Header => {
                    let Some(header) = self.fixed::<{ profile::HEADER_BYTES }>() else { return Ok(None) };
                    self.any = true;
                    self.header(header)?;
                }
                State::Head(profile::PUBLISH) => {
                    let Some([status, low, high]) = self.fixed::<3>() else { return Ok(None) };
                    self.left -= 3;
                    let status = Status::from_byte(status).ok_or(Malformed::Status(status))?;
                    if let Some(item) = self.devices(Kind::Publish(status), [low, high])? {
                        return Ok(Some(item));
                    }
                }
                State::Head(id) => {
                    let Some(count) = self.fixed::<2>() else { return Ok(None) };
                    self.left -= 2;
                    let kind = match id {
                        profile::SUBSCRIBE => Kind::Subscribe,
                        profile::UNSUBSCRIBE => Kind::Unsubscribe,
                        _ => Kind::Notify,
                    };
                    if let Some(item) = self.devices(kind, count)? {
                        return Ok(Some(item));
                    }
                }
                State::Devices(_, 0) => {
                    if self.left > 0 {
                        return Err(Malformed::Trailing(self.left));
                    }
                    self.state = State::Header;
                }
                State::Devices(kind, count) => {
                    let Some(item) = self.device(kind)? else { return Ok(None) };
                    self.state = State::Devices(kind, count - 1);
                    return Ok(Some(item));
                }
            }
        }
    }

    /// The body is over; the next slice begins another one.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], [`Malformed::Empty`].
    pub fn finish(&mut self) -> Result<(), Malformed> {
        if self.state != State::Header || !self.partial.is_empty() || !self.input.is_empty() {
            return Err(Malformed::Truncated);
        }
        self.partial = Vec::new();
        if std::mem::take(&mut self.any) { Ok(()) } else { Err(Malformed::Empty) }
    }

    /// The next `N` bytes, once they are all here.
    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let missing = N - self.partial.len();
        if self.input.len() < missing {
            self.partial.extend_from_slice(&self.input);
            self.input.clear();
            return None;
        }
        let mut bytes = [0; N];
        bytes[..self.partial.len()].copy_from_slice(&self.partial);
        bytes[self.partial.len()..].copy_from_slice(&self.input[..missing]);
        self.input.advance(missing);
        self.partial.clear();
        Some(bytes)
    }

    fn header(&mut self, header: [u8; profile::HEADER_BYTES]) -> Result<(), Malformed> {
        let [major, minor, id, reserved, length @ ..] = header;
        let length = u32::from_le_bytes(length);
        if major != profile::MAJOR_VERSION {
            return Err(Malformed::MajorVersion(major));
        }
        if minor != profile::MINOR_VERSION {
            return Err(Malformed::MinorVersion(minor));
        }
        let (head, entry) = match id {
            profile::PUBLISH => (3, MAX_URL_BYTES + 1),
            profile::SUBSCRIBE | profile::UNSUBSCRIBE => (2, MAX_URL_BYTES + 1),
            profile::NOTIFY => (2, MAX_URL_BYTES + 2),
            _ => return Err(Malformed::MessageId(id)),
        };
        if reserved != profile::RESERVED {
            return Err(Malformed::Reserved(reserved));
        }
        let least = profile::HEADER_BYTES + head;
        if !(least..=least + profile::MAX_DEVICES * entry).contains(&(length as usize)) {
            return Err(Malformed::Length(length));
        }
        self.left = length - profile::HEADER_BYTES as u32;
        self.state = State::Head(id);
        Ok(())
    }

    /// A message's head has been read; one without devices says something by that.
    fn devices(&mut self, kind: Kind, count: [u8; 2]) -> Result<Option<Item>, Malformed> {
        let count = u16::from_le_bytes(count);
        self.state = State::Devices(kind, count);
        if count > 0 || self.left > 0 {
            return Ok(None);
        }
        match kind {
            Kind::Publish(status) => Ok(Some(Item::PublishAll(status))),
            Kind::Unsubscribe => Ok(Some(Item::UnsubscribeAll)),
            Kind::Subscribe => Err(Malformed::NoDevice),
            Kind::Notify => Ok(None),
        }
    }

    /// The next device, once its terminating zero is here.
    fn device(&mut self, kind: Kind) -> Result<Option<Item>, Malformed> {
        let prefix = usize::from(kind == Kind::Notify);
        // What may be looked at: neither beyond the message nor beyond the longest URL.
        let most = (self.left as usize).min(prefix + MAX_URL_BYTES + 1);
        let held = self.partial.len();
        let window = &self.input[..self.input.len().min(most - held)];
        let skip = prefix.saturating_sub(held).min(window.len());
        let Some(end) = window[skip..].iter().position(|&byte| byte == 0).map(|end| end + skip) else {
            return self.unfinished(prefix, most, window.len());
        };
        self.partial.extend_from_slice(&window[..end]);
        self.input.advance(end + 1);
        self.left -= self.partial.len() as u32 + 1;
        let item = item(kind, &self.partial);
        self.partial.clear();
        item.map(Some)
    }

    /// No zero among the next `length` bytes: more are needed, unless there can be none that are right.
    fn unfinished(&mut self, prefix: usize, most: usize, length: usize) -> Result<Option<Item>, Malformed> {
        self.partial.extend_from_slice(&self.input[..length]);
        self.input.advance(length);
        match self.partial.len() {
            held if held < most => Ok(None),
            held if held > prefix + MAX_URL_BYTES => Err(InvalidUrl::TooLong(held - prefix).into()),
            _ => Err(Malformed::Overrun),
        }
    }
}

fn item(kind: Kind, bytes: &[u8]) -> Result<Item, Malformed> {
    Ok(match kind {
        Kind::Publish(status) => Item::Publish(status, DeviceUrl::new(bytes)?),
        Kind::Subscribe => Item::Subscribe(DeviceUrl::new(bytes)?),
        Kind::Unsubscribe => Item::Unsubscribe(DeviceUrl::new(bytes)?),
        Kind::Notify => {
            let (&byte, url) = bytes.split_first().expect("a status stands in front of the URL");
            let status = Status::from_byte(byte).ok_or(Malformed::Status(byte))?;
            Item::Notify(status, DeviceUrl::new(url)?)
        }
    })
}

//! The 18 commands of SSTP as values, and their decoding (sstp-messages sec. 4, wire-profile 1).
//!
//! Decoding is zero-copy: strings, tokens and payload are slices of the received bytes. It checks everything that can be
//! checked without knowing the connection's state; what a command may do in which state is [`super::connection`]'s.

use super::codes::{CloseReason, ConnectResponseId, OpenResponseId, StatusId};
use super::profile::{self, flags};
use super::text::Text;
use bytes::{Buf, Bytes};
use smallvec::SmallVec;

/// Names a session, or the exchange of an Attach or Register (there called EventId); one space of numbers per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u32);

/// The version that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// SSTP 1.5.
    V1_5,
    /// SSTP 1.6: failover field in fanout entries, indexes in SessionStatus.
    V1_6,
}

impl Version {
    /// MinorVersionNumber.
    pub fn minor(self) -> u8 {
        match self {
            Version::V1_5 => profile::MINOR_VERSION_1_5,
            Version::V1_6 => profile::MINOR_VERSION_1_6,
        }
    }

    /// The highest version that a peer of this minor number and we both speak; `None` below 1.5.
    pub fn from_minor(minor: u8) -> Option<Version> {
        match minor {
            0..profile::MINOR_VERSION_1_5 => None,
            profile::MINOR_VERSION_1_5 => Some(Version::V1_5),
            _ => Some(Version::V1_6),
        }
    }
}

/// CommandId (sstp-messages 4.20).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's; `Command` documents each")]
pub enum CommandId {
    Connect = 0x01,
    ConnectResponse = 0x02,
    ConnectAuthenticate = 0x03,
    ConnectClose = 0x04,
    Open = 0x05,
    FanoutOpen = 0x06,
    OpenResponse = 0x07,
    Attach = 0x08,
    AttachResponse = 0x09,
    AttachAuthenticate = 0x0a,
    Register = 0x0b,
    RegisterResponse = 0x0c,
    Message = 0x0d,
    Data = 0x0e,
    EndMessage = 0x0f,
    Noop = 0x10,
    Close = 0x11,
    SessionStatus = 0x12,
}

impl CommandId {
    /// All of them, in order of their numbers.
    pub const ALL: [CommandId; 18] = [
        CommandId::Connect,
        CommandId::ConnectResponse,
        CommandId::ConnectAuthenticate,
        CommandId::ConnectClose,
        CommandId::Open,
        CommandId::FanoutOpen,
        CommandId::OpenResponse,
        CommandId::Attach,
        CommandId::AttachResponse,
        CommandId::AttachAuthenticate,
        CommandId::Register,
        CommandId::RegisterResponse,
        CommandId::Message,
        CommandId::Data,
        CommandId::EndMessage,
        CommandId::Noop,
        CommandId::Close,
        CommandId::SessionStatus,
    ];

    /// The command with this number.
    ///
    /// # Errors
    /// [`DecodeError::UnknownCommand`].
    pub fn from_byte(byte: u8) -> Result<CommandId, DecodeError> {
        let index = usize::from(byte).wrapping_sub(1);
        CommandId::ALL.get(index).copied().ok_or(DecodeError::UnknownCommand(byte))
    }

    /// The shortest and the longest CommandLength allowed (sstp-messages 4.19).
    pub fn length_limits(self) -> (usize, usize) {
        use CommandId as C;
        let most = profile::MAX_COMMAND_BYTES;
        match self {
            C::Connect => (13, most),
            C::ConnectResponse => (12, most),
            C::ConnectAuthenticate => (5, most),
            C::ConnectClose => (12, 12),
            C::Open => (14, most),
            C::FanoutOpen => (14, profile::MAX_LONG_COMMAND_BYTES),
            C::OpenResponse | C::Close => (8, 8),
            C::Attach => (12, most),
            C::Register => (12, profile::MAX_REGISTER_BYTES),
            C::AttachResponse | C::AttachAuthenticate | C::RegisterResponse => (9, most),
            C::Message => (13, most),
            C::Data => (8, most),
            C::EndMessage | C::Noop => (7, 7),
            C::SessionStatus => (11, profile::MAX_LONG_COMMAND_BYTES),
        }
    }
}

/// Why some bytes are not a command. Each is answered by ConnectClose ProtocolError, but for
/// [`DecodeError::MajorVersion`], which is answered by a ConnectResponse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// CommandId is not 0x01 to 0x12.
    #[error("unknown CommandId {0:#04x}")]
    UnknownCommand(u8),
    /// CommandLength is outside the limits of the command.
    #[error("{command:?} with CommandLength {length}")]
    Length {
        /// The command.
        command: CommandId,
        /// Its CommandLength.
        length: usize,
    },
    /// A field reaches beyond CommandLength.
    #[error("{0:?} ends inside a field")]
    Truncated(CommandId),
    /// Bytes remain behind the last field.
    #[error("{0:?} has bytes behind its last field")]
    Trailing(CommandId),
    /// A string holds a byte above 0x7F.
    #[error("{0:?} has a string that is not ASCII")]
    NotAscii(CommandId),
    /// A field that must not be empty is.
    #[error("{command:?} with an empty {field}")]
    EmptyField {
        /// The command.
        command: CommandId,
        /// The field.
        field: &'static str,
    },
    /// A field or bit that must be zero is not.
    #[error("{0:?} with a reserved field or bit that is not zero")]
    Reserved(CommandId),
    /// SessionId or EventId is 0.
    #[error("{0:?} for session 0")]
    SessionZero(CommandId),
    /// A Connect that names no source device.
    #[error("Connect without a SourceDeviceURL")]
    NoSourceDevice,
    /// A Connect of another major version; nothing behind it was parsed.
    #[error("Connect of major version {0}")]
    MajorVersion(u8),
}

/// Connect: the first command on a transport, by the side that opened it (4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// MinorVersionNumber as sent; may be above what we know.
    pub minor_version: u8,
    /// The device URL that the sender expects the receiver to have.
    pub target_device_url: Text,
    /// The sender's own device URLs, at least one.
    pub source_device_urls: SmallVec<[Text; 1]>,
    /// A SecConnect message, or empty.
    pub authentication_token: Bytes,
    /// "vendor product version build".
    pub peer_product_version: Text,
    /// Vendor-extensible; empty in shipped products.
    pub peer_product_capabilities: Text,
}

/// Open: a session towards one resource handler (4.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Chosen by the sender.
    pub session: SessionId,
    /// The resource handler; never empty.
    pub resource_url: Text,
    /// The destination identity; empty only for presence.
    pub identity_url: Text,
    /// The destination device; empty for an identity-targeted session.
    pub device_url: Text,
}

/// One recipient of a FanoutOpen (4.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanoutEntry {
    /// The recipient identity.
    pub identity_url: Text,
    /// The recipient device; empty for an identity-targeted recipient.
    pub device_url: Text,
    /// The recipient's relay; empty for the relay that gets the command.
    pub relay_url: Text,
}

/// FanoutOpen: a session towards many recipients with one resource (4.6). The entries stay in their wire form, whose
/// layout depends on the connection's version, and are read in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FanoutOpen {
    /// Chosen by the sender.
    pub session: SessionId,
    /// The resource handler, common to all recipients; never empty.
    pub resource_url: Text,
    count: u16,
    entries: Bytes,
    version: Version,
}

impl FanoutOpen {
    /// Builds the command for a connection of `version`, the entries in the order in which SessionStatus will
    /// refer to them. `None` if it would be longer than 65535 bytes.
    pub fn new<'a>(
        session: SessionId,
        resource_url: Text,
        entries: impl IntoIterator<Item = &'a FanoutEntry>,
        version: Version,
    ) -> Option<Self> {
        let mut wire = Vec::new();
        let mut count = 0u16;
        for entry in entries {
            for text in [&entry.identity_url, &entry.device_url, &entry.relay_url] {
                wire.extend_from_slice(text.as_bytes());
                wire.push(0);
            }
            if version == Version::V1_6 {
                wire.push(0);
            }
            count = count.checked_add(1)?;
        }
        let length = 12 + resource_url.wire_len() + wire.len();
        (length <= profile::MAX_LONG_COMMAND_BYTES).then(|| Self {
            session,
            resource_url,
            count,
            entries: wire.into(),
            version,
        })
    }

    /// NumFanoutDeviceEntries.
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    /// Whether there is no recipient at all.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The recipients, in the order of the command.
    pub fn entries(&self) -> impl Iterator<Item = FanoutEntry> + use<> {
        let mut fields = Fields::new(CommandId::FanoutOpen, self.entries.clone());
        let version = self.version;
        (0..self.count)
            .map(move |_| fields.fanout_entry(version).expect("the entries were parsed on arrival"))
    }

    pub(super) fn wire_entries(&self) -> &[u8] {
        &self.entries
    }
}

/// SessionStatus: one or several recipients of a fanout session became unreachable or unwilling (4.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStatus {
    /// The fanout session.
    pub session: SessionId,
    /// What happened.
    pub status: StatusId,
    /// The recipient's device, or for 0x01 to 0x03 the remote relay.
    pub device_url: Text,
    /// The recipient's identity; may be empty.
    pub identity_url: Text,
    /// Zero-based positions in the FanoutOpen (1.6 only); empty in the single-recipient form.
    pub indexes: Vec<u16>,
}

/// Message: starts a message sequence (4.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The session.
    pub session: SessionId,
    /// Acknowledges that many messages of the connection.
    pub message_count: u32,
    /// See [`flags`].
    pub flags: u8,
    /// UserRef and the optional field groups, verbatim.
    pub tail: Bytes,
}

impl Message {
    /// The lifetime that the Ephemeral Fields of a Message with these `flags` and this `tail` give, in seconds
    /// (wire-profile 1).
    pub fn ephemeral_seconds(flags: u8, tail: &[u8]) -> Option<u32> {
        if flags & flags::E == 0 {
            return None;
        }
        let user_ref = tail.iter().position(|&byte| byte == 0)?;
        let field = tail.get(user_ref + 1..user_ref + 1 + profile::EPHEMERAL_BYTES)?;
        Some(u32::from_le_bytes(field.try_into().expect("four bytes")))
    }

    /// UserRef, the string in front of the optional fields of `tail`.
    pub fn user_ref(tail: &[u8]) -> &[u8] {
        tail.split(|&byte| byte == 0).next().unwrap_or(&[])
    }
}

/// Attach and Register share their layout (4.14, 4.17, wire-profile 1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRequest {
    /// EventId, chosen by the sender.
    pub event: SessionId,
    /// The relay's URL; may be empty.
    pub resource_url: Text,
    /// The account; never empty.
    pub account_url: Text,
    /// A SecAttach, or SecDeviceAccountRegister or SecIdentityRegister message.
    pub authentication_token: Bytes,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// See [`Connect`]. Boxed: it is by far the largest, once in a connection, and the others are handed on all the time.
    Connect(Box<Connect>),
    /// The answer to Connect (4.2).
    ConnectResponse {
        /// The negotiated MinorVersionNumber.
        minor_version: u8,
        /// The verdict.
        response: ConnectResponseId,
        /// With TryLater: seconds until another try is welcome.
        retry_time: u32,
        /// A SecConnectResponse-family message, or empty.
        token: Bytes,
    },
    /// The answer to the challenge of a ConnectResponse (4.3).
    ConnectAuthenticate {
        /// A SecConnectAuthenticate message.
        token: Bytes,
    },
    /// The end of the connection and all its sessions (4.4).
    ConnectClose {
        /// Why.
        reason: CloseReason,
        /// The final acknowledgement.
        message_count: u32,
        /// With Resting: seconds until another connection is welcome.
        return_time: u32,
    },
    /// See [`Open`].
    Open(Open),
    /// See [`FanoutOpen`].
    FanoutOpen(FanoutOpen),
    /// The answer to Open and FanoutOpen, and later the stop and go of the session (4.7).
    OpenResponse {
        /// The session.
        session: SessionId,
        /// The verdict.
        response: OpenResponseId,
    },
    /// See [`AccountRequest`].
    Attach(AccountRequest),
    /// The relay's challenge or refusal (4.15).
    AttachResponse {
        /// EventId of the Attach.
        event: SessionId,
        /// A SecAttachResponse-family message.
        token: Bytes,
    },
    /// The client's answer to the challenge (4.16).
    AttachAuthenticate {
        /// EventId of the Attach.
        event: SessionId,
        /// A SecAttachAuthenticate message.
        token: Bytes,
    },
    /// See [`AccountRequest`].
    Register(AccountRequest),
    /// The relay's verdict on a Register (4.18).
    RegisterResponse {
        /// EventId of the Register.
        event: SessionId,
        /// A registration response message.
        token: Bytes,
    },
    /// See [`Message`].
    Message(Message),
    /// A slice of a message body (4.11).
    Data {
        /// The session.
        session: SessionId,
        /// 1 to 2048 bytes.
        payload: Bytes,
    },
    /// The end of a message sequence (4.12).
    EndMessage {
        /// The session.
        session: SessionId,
    },
    /// An acknowledgement or a sign of life (4.13).
    Noop {
        /// Acknowledges that many messages of the connection.
        message_count: u32,
    },
    /// The end of one session (4.9).
    Close {
        /// The session.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// See [`SessionStatus`].
    SessionStatus(SessionStatus),
}

impl From<Connect> for Command {
    fn from(connect: Connect) -> Self {
        Command::Connect(Box::new(connect))
    }
}

impl Command {
    /// Decodes one whole command, as [`super::frame::FrameReader`] cuts them, on a connection of `version`.
    ///
    /// # Errors
    /// [`DecodeError`]; the command is then used up. Less than a prefix is `Truncated`, and nothing at all is no command.
    pub fn decode(frame: Bytes, version: Version) -> Result<Command, DecodeError> {
        let id = CommandId::from_byte(frame.first().copied().unwrap_or(0))?;
        let mut fields = Fields::new(id, frame);
        fields.skip(profile::PREFIX_BYTES)?;
        let command = fields.command(version)?;
        if fields.bytes.is_empty() { Ok(command) } else { Err(DecodeError::Trailing(id)) }
    }
}

/// Decodes one whole Data command.
pub(super) fn decode_data(frame: Bytes) -> Result<(SessionId, Bytes), DecodeError> {
    let mut fields = Fields::new(CommandId::Data, frame);
    fields.skip(profile::PREFIX_BYTES)?;
    fields.data()
}

/// Decodes one whole EndMessage command.
pub(super) fn decode_end_message(frame: &[u8]) -> Result<SessionId, DecodeError> {
    let id = CommandId::EndMessage;
    let session = frame.get(profile::PREFIX_BYTES..).ok_or(DecodeError::Truncated(id))?;
    let session = session.first_chunk().ok_or(DecodeError::Truncated(id))?;
    session_id(id, u32::from_le_bytes(*session))
}

fn session_id(command: CommandId, session: u32) -> Result<SessionId, DecodeError> {
    if session == 0 { Err(DecodeError::SessionZero(command)) } else { Ok(SessionId(session)) }
}

/// The unread fields of one command.
struct Fields {
    id: CommandId,
    bytes: Bytes,
}

impl Fields {
    fn new(id: CommandId, bytes: Bytes) -> Self {
        Self { id, bytes }
    }

    fn command(&mut self, version: Version) -> Result<Command, DecodeError> {
        use CommandId as C;
        Ok(match self.id {
            C::Connect => Command::Connect(Box::new(self.connect()?)),
            C::ConnectResponse => self.connect_response()?,
            C::ConnectAuthenticate => Command::ConnectAuthenticate { token: self.token()? },
            C::ConnectClose => Command::ConnectClose {
                reason: self.u8()?.into(),
                message_count: self.u32()?,
                return_time: self.u32()?,
            },
            C::Open => Command::Open(self.open()?),
            C::FanoutOpen => Command::FanoutOpen(self.fanout_open(version)?),
            C::OpenResponse => {
                Command::OpenResponse { session: self.session()?, response: self.u8()?.into() }
            }
            C::Attach => Command::Attach(self.account_request()?),
            C::AttachResponse => Command::AttachResponse { event: self.session()?, token: self.token()? },
            C::AttachAuthenticate => {
                Command::AttachAuthenticate { event: self.session()?, token: self.token()? }
            }
            C::Register => Command::Register(self.account_request()?),
            C::RegisterResponse => Command::RegisterResponse { event: self.session()?, token: self.token()? },
            C::Message => Command::Message(self.message()?),
            C::Data => {
                let (session, payload) = self.data()?;
                Command::Data { session, payload }
            }
            C::EndMessage => Command::EndMessage { session: self.session()? },
            C::Noop => Command::Noop { message_count: self.u32()? },
            C::Close => Command::Close { session: self.session()?, reason: self.u8()?.into() },
            C::SessionStatus => Command::SessionStatus(self.session_status(version)?),
        })
    }

    fn connect(&mut self) -> Result<Connect, DecodeError> {
        let major = self.u8()?;
        if major != profile::MAJOR_VERSION {
            return Err(DecodeError::MajorVersion(major));
        }
        let minor_version = self.u8()?;
        self.zero(1)?;
        let target_device_url = self.text()?;
        let sources = self.u8()?;
        if sources == 0 {
            return Err(DecodeError::NoSourceDevice);
        }
        let source_device_urls = (0..sources).map(|_| self.text()).collect::<Result<_, _>>()?;
        Ok(Connect {
            minor_version,
            target_device_url,
            source_device_urls,
            authentication_token: self.token()?,
            peer_product_version: self.text()?,
            peer_product_capabilities: self.text()?,
        })
    }

    fn connect_response(&mut self) -> Result<Command, DecodeError> {
        let major = self.u8()?;
        if major != profile::MAJOR_VERSION {
            return Err(DecodeError::MajorVersion(major));
        }
        Ok(Command::ConnectResponse {
            minor_version: self.u8()?,
            response: self.u8()?.into(),
            retry_time: self.u32()?,
            token: self.token()?,
        })
    }

    fn open(&mut self) -> Result<Open, DecodeError> {
        let open = Open {
            session: self.session()?,
            resource_url: self.text_not_empty("ResourceURL")?,
            identity_url: self.text()?,
            device_url: self.text()?,
        };
        self.open_flags()?;
        self.zero(2)?;
        Ok(open)
    }

    fn fanout_open(&mut self, version: Version) -> Result<FanoutOpen, DecodeError> {
        let session = self.session()?;
        let resource_url = self.text_not_empty("ResourceURL")?;
        self.open_flags()?;
        let count = self.u16()?;
        let all = self.bytes.clone();
        for _ in 0..count {
            self.fanout_entry(version)?;
        }
        let entries = all.slice(..all.len() - self.bytes.len());
        self.zero(2)?;
        Ok(FanoutOpen { session, resource_url, count, entries, version })
    }

    fn fanout_entry(&mut self, version: Version) -> Result<FanoutEntry, DecodeError> {
        let entry =
            FanoutEntry { identity_url: self.text()?, device_url: self.text()?, relay_url: self.text()? };
        if version == Version::V1_6 {
            self.zero(1)?;
        }
        Ok(entry)
    }

    fn session_status(&mut self, version: Version) -> Result<SessionStatus, DecodeError> {
        let session = self.session()?;
        let status = self.u8()?.into();
        self.zero(1)?;
        let device_url = self.text()?;
        let identity_url = self.text()?;
        let mut indexes = Vec::new();
        if version == Version::V1_6 && !self.bytes.is_empty() {
            let count = usize::from(self.u16()?);
            if self.bytes.len() != 2 * count {
                return Err(if self.bytes.len() < 2 * count {
                    DecodeError::Truncated(self.id)
                } else {
                    DecodeError::Trailing(self.id)
                });
            }
            indexes = (0..count).map(|_| self.u16()).collect::<Result<_, _>>()?;
        }
        Ok(SessionStatus { session, status, device_url, identity_url, indexes })
    }

    fn account_request(&mut self) -> Result<AccountRequest, DecodeError> {
        Ok(AccountRequest {
            event: self.session()?,
            resource_url: self.text()?,
            account_url: self.text_not_empty("AccountURL")?,
            authentication_token: self.token()?,
        })
    }

    fn message(&mut self) -> Result<Message, DecodeError> {
        let session = self.session()?;
        let message_count = self.u32()?;
        let bits = self.u8()?;
        if bits & flags::RESERVED != 0 {
            return Err(DecodeError::Reserved(self.id));
        }
        let tail = self.bytes.clone();
        self.text()?;
        self.skip(if bits & flags::E != 0 { profile::EPHEMERAL_BYTES } else { 0 })?;
        self.skip(if bits & flags::S != 0 { profile::STREAM_SIZE_BYTES } else { 0 })?;
        if bits & flags::F != 0 {
            self.bytes.clear();
        }
        Ok(Message { session, message_count, flags: bits, tail })
    }

    /// The flag byte of Open and FanoutOpen: r1 to r7 must be zero, I is ignored (4.5).
    fn open_flags(&mut self) -> Result<(), DecodeError> {
        if self.u8()? & !0x01 == 0 { Ok(()) } else { Err(DecodeError::Reserved(self.id)) }
    }

    fn need(&self, bytes: usize) -> Result<(), DecodeError> {
        if self.bytes.len() >= bytes { Ok(()) } else { Err(DecodeError::Truncated(self.id)) }
    }

    fn skip(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.need(bytes)?;
        self.bytes.advance(bytes);
        Ok(())
    }

    fn zero(&mut self, bytes: usize) -> Result<(), DecodeError> {
        self.need(bytes)?;
        let zero = self.bytes[..bytes].iter().all(|&byte| byte == 0);
        self.bytes.advance(bytes);
        if zero { Ok(()) } else { Err(DecodeError::Reserved(self.id)) }
    }

    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.need(1)?;
        Ok(self.bytes.get_u8())
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.need(2)?;
        Ok(self.bytes.get_u16_le())
    }

    fn u32(&mut self) -> Result<u32, DecodeError> {
        self.need(4)?;
        Ok(self.bytes.get_u32_le())
    }

    fn session(&mut self) -> Result<SessionId, DecodeError> {
        session_id(self.id, self.u32()?)
    }

    fn data(&mut self) -> Result<(SessionId, Bytes), DecodeError> {
        Ok((self.session()?, std::mem::take(&mut self.bytes)))
    }

    fn token(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::from(self.u16()?);
        self.need(length)?;
        Ok(self.bytes.split_to(length))
    }

    fn text(&mut self) -> Result<Text, DecodeError> {
        let length = self.bytes.iter().position(|&byte| byte == 0).ok_or(DecodeError::Truncated(self.id))?;
        let text = Text::new(self.bytes.split_to(length)).ok_or(DecodeError::NotAscii(self.id))?;
        self.bytes.advance(1);
        Ok(text)
    }

    fn text_not_empty(&mut self, field: &'static str) -> Result<Text, DecodeError> {
        let text = self.text()?;
        if text.is_empty() { Err(DecodeError::EmptyField { command: self.id, field }) } else { Ok(text) }
    }
}

//! SSTP as the load driver speaks it: the handshake through relay-core's commands and security, then messages from templates
//! and a parser that looks at nothing but what it needs, since the generator shares the machine with the relay.

use crate::population::{RELAY_URL, User};
use crate::wire::{Wire, WireError, Witness};
use bytes::{Bytes, BytesMut};
use client::SystemEntropy;
use relay_core::security::{self, ClientCredentials, HelloAnswer, Layer};
use relay_core::sstp::command::{AccountRequest, CommandId, Connect, FanoutEntry, FanoutOpen, Open};
use relay_core::sstp::profile::{MAX_DATA_BYTES, RESOURCE_WAN_DPP, flags};
use relay_core::sstp::text::Text;
use relay_core::sstp::{Command, ConnectResponseId, OpenResponseId, SessionId, Version};
use std::sync::Arc;

/// The exchange by which the account is attached.
const ATTACH: SessionId = SessionId(1);
/// The session on which messages are sent.
const SENDING: SessionId = SessionId(2);
/// The session on which long messages are sent beside others, and the resource that it is for.
pub(crate) const HAUL: SessionId = SessionId(3);
const HAUL_RESOURCE: &str = "bench/haul";
/// Prefix and SessionId.
const HEAD_BYTES: usize = 7;
/// A Message command with an empty UserRef.
const MESSAGE_BYTES: usize = 13;

const MESSAGE: u8 = CommandId::Message as u8;
const DATA: u8 = CommandId::Data as u8;
const END_MESSAGE: u8 = CommandId::EndMessage as u8;
const NOOP: u8 = CommandId::Noop as u8;

/// Whom a connection sends to.
#[derive(Clone, Debug)]
pub(crate) enum Recipients {
    /// Nobody: it only receives.
    Nobody,
    /// One identity.
    One(User),
    /// Many identities, by one FanoutOpen.
    Many(Vec<User>),
    /// The relay itself, about presence.
    Presence,
}

/// What a connection is for.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    /// Who it is.
    pub(crate) user: User,
    /// Its keys.
    pub(crate) keys: Arc<ClientCredentials>,
    /// Whether its account is attached, so that mail for its identity is collected.
    pub(crate) collects: bool,
    /// Whom it sends to.
    pub(crate) recipients: Recipients,
}

#[derive(Debug)]
enum Phase {
    Start,
    Connecting(security::Hello),
    Attaching(security::Hello),
    Opening,
    Ready,
}

/// One SSTP connection.
#[derive(Debug)]
pub(crate) struct SstpWire {
    role: Role,
    phase: Phase,
    stopped: bool,
    /// Whether long messages may be sent; `None` without a session for them.
    haul: Option<bool>,
    /// The relay's session for long messages.
    hauled_on: Option<u32>,
    /// Received messages that are not yet acknowledged.
    unacknowledged: u32,
}

impl SstpWire {
    /// A connection that has said nothing.
    pub(crate) fn new(role: Role) -> Self {
        Self { role, phase: Phase::Start, stopped: false, haul: None, hauled_on: None, unacknowledged: 0 }
    }

    /// Opens a session for long messages beside whatever else the connection does.
    pub(crate) fn open_haul(&mut self, recipient: &User, out: &mut Vec<u8>) {
        let open = Open {
            session: HAUL,
            resource_url: Text::new(HAUL_RESOURCE).expect("ASCII"),
            identity_url: (&recipient.identity).into(),
            device_url: Text::EMPTY,
        };
        encode(&Command::Open(open), out);
        self.haul = Some(false);
    }

    /// Whether the relay takes long messages at present.
    pub(crate) fn may_haul(&self) -> bool {
        self.haul == Some(true)
    }

    /// The session on which the relay delivers long messages, once there is one.
    pub(crate) fn hauled_on(&self) -> Option<u32> {
        self.hauled_on
    }

    /// Commands that are rare: all of the handshake, and what stops a session.
    fn command(&mut self, frame: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let command = Command::decode(Bytes::copy_from_slice(frame), Version::V1_6)
            .map_err(|error| WireError::Refused(format!("a command that is none: {error}")))?;
        match command {
            Command::ConnectResponse { response, token, .. } => self.connected(response, &token, out),
            Command::AttachResponse { token, .. } => self.attached(&token, out),
            Command::OpenResponse { session: SENDING, response } => self.opened(response),
            Command::OpenResponse { session: HAUL, response } => {
                self.haul = Some(is_go(response)?);
                Ok(())
            }
            Command::Open(open) => {
                if open.resource_url.as_str() == HAUL_RESOURCE {
                    self.hauled_on = Some(open.session.0);
                }
                encode(&Command::OpenResponse { session: open.session, response: OpenResponseId::Ok }, out);
                Ok(())
            }
            other => Err(WireError::Refused(format!("{other:?}"))),
        }
    }

    fn connected(
        &mut self,
        response: ConnectResponseId,
        token: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let Phase::Connecting(hello) = &self.phase else {
            return Err(WireError::Malformed("a ConnectResponse too many"));
        };
        if response != ConnectResponseId::Ok {
            return Err(WireError::Refused(format!("ConnectResponse {response}")));
        }
        let token = proof(hello, token)?;
        encode(&Command::ConnectAuthenticate { token }, out);
        if self.role.collects {
            let account = &self.role.user.account;
            let hello = security::hello(
                Layer::Account,
                account.as_str(),
                &self.role.keys,
                &mut SystemEntropy::default(),
            );
            let request = AccountRequest {
                event: ATTACH,
                resource_url: Text::EMPTY,
                account_url: account.into(),
                authentication_token: hello.token.clone(),
            };
            encode(&Command::Attach(request), out);
            self.phase = Phase::Attaching(hello);
        } else {
            self.open(out);
        }
        Ok(())
    }

    fn attached(&mut self, token: &[u8], out: &mut Vec<u8>) -> Result<(), WireError> {
        let Phase::Attaching(hello) = &self.phase else {
            return Err(WireError::Malformed("an AttachResponse too many"));
        };
        let token = proof(hello, token)?;
        encode(&Command::AttachAuthenticate { event: ATTACH, token }, out);
        self.open(out);
        Ok(())
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        let resource_url = Text::new(&b"bench"[..]).expect("ASCII");
        let command = match &self.role.recipients {
            Recipients::Nobody => {
                self.phase = Phase::Ready;
                return;
            }
            Recipients::One(user) => Command::Open(Open {
                session: SENDING,
                resource_url,
                identity_url: (&user.identity).into(),
                device_url: Text::EMPTY,
            }),
            Recipients::Presence => Command::Open(Open {
                session: SENDING,
                resource_url: Text::new(RESOURCE_WAN_DPP).expect("ASCII"),
                identity_url: Text::EMPTY,
                device_url: Text::EMPTY,
            }),
            Recipients::Many(users) => {
                let entries: Vec<_> = users
                    .iter()
                    .map(|user| FanoutEntry {
                        identity_url: (&user.identity).into(),
                        device_url: Text::EMPTY,
                        relay_url: Text::EMPTY,
                    })
                    .collect();
                let open = FanoutOpen::new(SENDING, resource_url, &entries, Version::V1_6);
                Command::FanoutOpen(open.expect("the command line bounds the number of recipients"))
            }
        };
        encode(&command, out);
        self.phase = Phase::Opening;
    }

    fn opened(&mut self, response: OpenResponseId) -> Result<(), WireError> {
        self.stopped = !is_go(response)?;
        if matches!(self.phase, Phase::Opening) {
            self.phase = Phase::Ready;
        }
        Ok(())
    }
}

/// Whether a session may send, if it is open at all.
fn is_go(response: OpenResponseId) -> Result<bool, WireError> {
    match response {
        OpenResponseId::Ok => Ok(true),
        OpenResponseId::OkStopSending => Ok(false),
        other => Err(WireError::Refused(format!("OpenResponse {other}"))),
    }
}

fn proof(hello: &security::Hello, token: &[u8]) -> Result<Bytes, WireError> {
    match hello.answer(token) {
        Ok(HelloAnswer::Proof { token }) => Ok(token),
        Ok(refusal) => Err(WireError::Refused(format!("{refusal:?}"))),
        Err(error) => Err(WireError::Refused(error.to_string())),
    }
}

/// Appends a command.
pub(crate) fn encode(command: &Command, out: &mut Vec<u8>) {
    let mut bytes = BytesMut::new();
    command.encode(&mut bytes);
    out.extend_from_slice(&bytes);
}

/// The Connect of a device, with its SecConnect.
pub(crate) fn connect(device: &relay_core::address::DeviceUrl, token: Bytes) -> Command {
    let text = |text: &'static str| Text::new(text.as_bytes()).expect("ASCII");
    Command::from(Connect {
        minor_version: Version::V1_6.minor(),
        target_device_url: text(RELAY_URL),
        source_device_urls: [Text::from(device)].into_iter().collect(),
        authentication_token: token,
        peer_product_version: text("Furrow Bench 0.1 1"),
        peer_product_capabilities: Text::EMPTY,
    })
}

impl Wire for SstpWire {
    fn greet(&mut self, out: &mut Vec<u8>) {
        let device = &self.role.user.device;
        let hello =
            security::hello(Layer::Device, device.as_str(), &self.role.keys, &mut SystemEntropy::default());
        encode(&connect(device, hello.token.clone()), out);
        self.phase = Phase::Connecting(hello);
    }

    fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready)
    }

    fn may_send(&self) -> bool {
        !self.stopped
    }

    fn put(&mut self, payload: &[u8], prompt: bool, out: &mut Vec<u8>) {
        begin_message(SENDING, prompt, out);
        message_data(SENDING, payload, out);
        end_message(SENDING, out);
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) -> Result<usize, WireError> {
        let mut used = 0;
        while let Some(prefix) = input.get(used..used + 3) {
            let length = usize::from(u16::from_le_bytes([prefix[1], prefix[2]]));
            if length < HEAD_BYTES {
                return Err(WireError::Malformed("CommandLength below 7"));
            }
            let Some(frame) = input.get(used..used + length) else { break };
            used += length;
            match frame[0] {
                MESSAGE if length >= MESSAGE_BYTES => {
                    witness.acknowledged(number(&frame[7..11]));
                    witness.session(number(&frame[3..7]) as u32);
                    witness.begin();
                }
                DATA => {
                    witness.session(number(&frame[3..7]) as u32);
                    witness.piece(&frame[HEAD_BYTES..]);
                }
                END_MESSAGE => {
                    witness.session(number(&frame[3..7]) as u32);
                    witness.end();
                    self.unacknowledged += 1;
                }
                NOOP => witness.acknowledged(number(&frame[3..7])),
                _ => self.command(frame, out)?,
            }
        }
        if self.unacknowledged > 0 {
            let count = std::mem::take(&mut self.unacknowledged);
            out.extend_from_slice(&head(NOOP, HEAD_BYTES as u16, count.to_le_bytes()));
        }
        Ok(used)
    }
}

/// Begins a message on a session.
pub(crate) fn begin_message(session: SessionId, prompt: bool, out: &mut Vec<u8>) {
    let mut message = [0; MESSAGE_BYTES];
    message[0] = MESSAGE;
    message[1] = MESSAGE_BYTES as u8;
    message[3..7].copy_from_slice(&session.0.to_le_bytes());
    message[11] = if prompt { flags::A } else { 0 };
    out.extend_from_slice(&message);
}

/// Goes on with it.
pub(crate) fn message_data(session: SessionId, payload: &[u8], out: &mut Vec<u8>) {
    for piece in payload.chunks(MAX_DATA_BYTES) {
        let length = (HEAD_BYTES + piece.len()) as u16;
        out.extend_from_slice(&head(DATA, length, session.0.to_le_bytes()));
        out.extend_from_slice(piece);
    }
}

/// Ends it.
pub(crate) fn end_message(session: SessionId, out: &mut Vec<u8>) {
    out.extend_from_slice(&head(END_MESSAGE, HEAD_BYTES as u16, session.0.to_le_bytes()));
}

fn head(command: u8, length: u16, field: [u8; 4]) -> [u8; HEAD_BYTES] {
    let [low, high] = length.to_le_bytes();
    let [a, b, c, d] = field;
    [command, low, high, a, b, c, d]
}

fn number(bytes: &[u8]) -> u64 {
    u64::from(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_core::directory::Profile;
    use relay_core::sstp::frame::FrameReader;

    #[derive(Default)]
    struct Heard {
        acknowledged: u64,
        messages: Vec<Vec<u8>>,
    }

    impl Witness for Heard {
        fn acknowledged(&mut self, count: u64) {
            self.acknowledged += count;
        }
        fn begin(&mut self) {
            self.messages.push(Vec::new());
        }
        fn piece(&mut self, bytes: &[u8]) {
            self.messages.last_mut().expect("a message has begun").extend_from_slice(bytes);
        }
        fn end(&mut self) {}
    }

    fn wire() -> SstpWire {
        SstpWire::new(Role {
            user: User::new(1),
            keys: Arc::new(crate::population::make_keys(Profile::Modern)),
            collects: false,
            recipients: Recipients::Nobody,
        })
    }

    #[test]
    fn what_is_put_are_commands_as_the_codec_has_them_and_is_taken_back() {
        let payloads: Vec<Vec<u8>> = [16, 2048, 2049, 10_000].map(|length| vec![7; length]).into();
        let mut stream = Vec::new();
        for payload in &payloads {
            wire().put(payload, true, &mut stream);
        }
        let mut reader = FrameReader::default();
        reader.push(Bytes::from(stream.clone()));
        let mut ended = 0;
        while let Some(frame) = reader.next_frame().unwrap() {
            let command = Command::decode(frame, Version::V1_6).unwrap();
            ended += usize::from(command == Command::EndMessage { session: SENDING });
        }
        assert_eq!(ended, payloads.len());

        let (mut receiver, mut heard, mut out) = (wire(), Heard::default(), Vec::new());
        let mut used = 0;
        for end in 0..=stream.len() {
            used += receiver.take(&stream[used..end], &mut out, &mut heard).unwrap();
        }
        assert_eq!(heard.messages, payloads);
        assert_eq!(out.len(), payloads.len() * HEAD_BYTES, "each was acknowledged");
        let mut sender = Heard::default();
        wire().take(&out, &mut Vec::new(), &mut sender).unwrap();
        assert_eq!(sender.acknowledged, payloads.len() as u64);
    }

    #[test]
    fn a_refusal_ends_the_connection() {
        let mut bytes = Vec::new();
        encode(&Command::OpenResponse { session: SENDING, response: OpenResponseId::Unknown }, &mut bytes);
        let taken = wire().take(&bytes, &mut Vec::new(), &mut Heard::default());
        assert!(matches!(taken, Err(WireError::Refused(_))));
    }
}

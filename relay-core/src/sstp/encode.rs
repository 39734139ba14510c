//! Encoding of commands: straight into the buffer that will be sent.

use super::command::{
    AccountRequest, Command, CommandId, Connect, FanoutOpen, Open, SessionId, SessionStatus,
};
use super::profile;
use super::text::Text;
use bytes::{BufMut, Bytes, BytesMut};

impl Command {
    /// Appends the command to `out`.
    ///
    /// # Panics
    /// If it is longer than CommandLength can say or than its command allows; what builds commands from outside input checks first.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Command::Connect(connect) => frame(out, CommandId::Connect, |out| put_connect(out, connect)),
            Command::ConnectResponse { minor_version, response, retry_time, token } => {
                frame(out, CommandId::ConnectResponse, |out| {
                    out.put_u8(profile::MAJOR_VERSION);
                    out.put_u8(*minor_version);
                    out.put_u8((*response).into());
                    out.put_u32_le(*retry_time);
                    put_token(out, token);
                })
            }
            Command::ConnectAuthenticate { token } => {
                frame(out, CommandId::ConnectAuthenticate, |out| put_token(out, token))
            }
            Command::ConnectClose { reason, message_count, return_time } => {
                frame(out, CommandId::ConnectClose, |out| {
                    out.put_u8((*reason).into());
                    out.put_u32_le(*message_count);
                    out.put_u32_le(*return_time);
                })
            }
            Command::Open(open) => frame(out, CommandId::Open, |out| put_open(out, open)),
            Command::FanoutOpen(open) => frame(out, CommandId::FanoutOpen, |out| put_fanout_open(out, open)),
            Command::OpenResponse { session, response } => {
                put_short(out, CommandId::OpenResponse, *session, (*response).into())
            }
            Command::Attach(request) => frame(out, CommandId::Attach, |out| put_request(out, request)),
            Command::AttachResponse { event, token } => {
                put_event_token(out, CommandId::AttachResponse, *event, token)
            }
            Command::AttachAuthenticate { event, token } => {
                put_event_token(out, CommandId::AttachAuthenticate, *event, token)
            }
            Command::Register(request) => frame(out, CommandId::Register, |out| put_request(out, request)),
            Command::RegisterResponse { event, token } => {
                put_event_token(out, CommandId::RegisterResponse, *event, token)
            }
            Command::Message(message) => {
                put_message(out, message.session, message.message_count, message.flags, &message.tail)
            }
            Command::Data { session, payload } => {
                put_data_head(out, *session, payload.len());
                out.put_slice(payload);
            }
            Command::EndMessage { session } => put_end_message(out, *session),
            Command::Noop { message_count } => put_noop(out, *message_count),
            Command::Close { session, reason } => {
                put_short(out, CommandId::Close, *session, (*reason).into())
            }
            Command::SessionStatus(status) => {
                frame(out, CommandId::SessionStatus, |out| put_session_status(out, status))
            }
        }
    }
}

/// Bytes of Message without its tail, of Data without its payload, and of EndMessage.
pub(super) const AROUND_MESSAGE_BYTES: usize = 12 + 7 + 7;

/// Message: the head of a sequence.
pub(super) fn put_message(out: &mut BytesMut, session: SessionId, count: u32, flags: u8, tail: &[u8]) {
    out.reserve(12 + tail.len());
    let [id, low, high] = prefix(CommandId::Message, 12 + tail.len());
    let [s0, s1, s2, s3] = session.0.to_le_bytes();
    let [c0, c1, c2, c3] = count.to_le_bytes();
    out.put_slice(&[id, low, high, s0, s1, s2, s3, c0, c1, c2, c3, flags]);
    out.put_slice(tail);
}

/// Message and its only Data, up to the payload. One write if the UserRef is empty, as it is but for few messages.
#[inline]
pub(super) fn put_message_and_data_head(
    out: &mut BytesMut,
    session: SessionId,
    count: u32,
    flags: u8,
    tail: &[u8],
    payload: usize,
) {
    if *tail != [0] {
        put_message(out, session, count, flags, tail);
        return put_data_head(out, session, payload);
    }
    assert!((1..=profile::MAX_DATA_BYTES).contains(&payload), "payload of Data is 1 to 2048 bytes");
    let [id, low, high] = prefix(CommandId::Message, 13);
    let [data, data_low, data_high] = prefix(CommandId::Data, 7 + payload);
    let [s0, s1, s2, s3] = session.0.to_le_bytes();
    let [c0, c1, c2, c3] = count.to_le_bytes();
    let message = [id, low, high, s0, s1, s2, s3, c0, c1, c2, c3, flags, 0];
    let head = [data, data_low, data_high, s0, s1, s2, s3];
    let mut both = [0; 20];
    both[..13].copy_from_slice(&message);
    both[13..].copy_from_slice(&head);
    out.put_slice(&both);
}

/// Data up to its payload, which the caller puts behind it.
pub(super) fn put_data_head(out: &mut BytesMut, session: SessionId, payload: usize) {
    assert!((1..=profile::MAX_DATA_BYTES).contains(&payload), "payload of Data is 1 to 2048 bytes");
    put_number(out, CommandId::Data, 7 + payload, session.0);
}

/// EndMessage.
pub(super) fn put_end_message(out: &mut BytesMut, session: SessionId) {
    put_number(out, CommandId::EndMessage, 7, session.0);
}

/// Noop.
pub(super) fn put_noop(out: &mut BytesMut, message_count: u32) {
    put_number(out, CommandId::Noop, 7, message_count);
}

fn put_short(out: &mut BytesMut, id: CommandId, session: SessionId, code: u8) {
    put_number(out, id, 8, session.0);
    out.put_u8(code);
}

/// The prefix and the number, mostly a SessionId, that most commands begin with; in one piece, since each one costs a check
/// of the room.
#[inline]
fn put_number(out: &mut BytesMut, id: CommandId, length: usize, number: u32) {
    let [id, low, high] = prefix(id, length);
    let [a, b, c, d] = number.to_le_bytes();
    out.put_slice(&[id, low, high, a, b, c, d]);
}

#[inline]
fn prefix(id: CommandId, length: usize) -> [u8; 3] {
    let (_, most) = id.length_limits();
    assert!(length <= most, "{id:?} of {length} bytes");
    let [low, high] = (length as u16).to_le_bytes();
    [id as u8, low, high]
}

/// Writes a command whose length is known only afterwards.
fn frame(out: &mut BytesMut, id: CommandId, fields: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_slice(&[id as u8, 0, 0]);
    fields(out);
    let length = out.len() - start;
    let (_, most) = id.length_limits();
    assert!(length <= most, "{id:?} of {length} bytes");
    out[start + 1..start + 3].copy_from_slice(&(length as u16).to_le_bytes());
}

fn put_text(out: &mut BytesMut, text: &Text) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn put_token(out: &mut BytesMut, token: &Bytes) {
    out.put_u16_le(u16::try_from(token.len()).expect("a token fits its command"));
    out.put_slice(token);
}

fn put_event_token(out: &mut BytesMut, id: CommandId, event: SessionId, token: &Bytes) {
    frame(out, id, |out| {
        out.put_u32_le(event.0);
        put_token(out, token);
    })
}

fn put_connect(out: &mut BytesMut, connect: &Connect) {
    out.put_slice(&[profile::MAJOR_VERSION, connect.minor_version, 0]);
    put_text(out, &connect.target_device_url);
    out.put_u8(u8::try_from(connect.source_device_urls.len()).expect("at most 255 SourceDeviceURLs"));
    for url in &connect.source_device_urls {
        put_text(out, url);
    }
    put_token(out, &connect.authentication_token);
    put_text(out, &connect.peer_product_version);
    put_text(out, &connect.peer_product_capabilities);
}

fn put_open(out: &mut BytesMut, open: &Open) {
    out.put_u32_le(open.session.0);
    put_text(out, &open.resource_url);
    put_text(out, &open.identity_url);
    put_text(out, &open.device_url);
    out.put_slice(&[0, 0, 0]);
}

fn put_fanout_open(out: &mut BytesMut, open: &FanoutOpen) {
    out.put_u32_le(open.session.0);
    put_text(out, &open.resource_url);
    out.put_u8(0);
    out.put_u16_le(open.len() as u16);
    out.put_slice(open.wire_entries());
    out.put_u16_le(0);
}

fn put_request(out: &mut BytesMut, request: &AccountRequest) {
    out.put_u32_le(request.event.0);
    put_text(out, &request.resource_url);
    put_text(out, &request.account_url);
    put_token(out, &request.authentication_token);
}

fn put_session_status(out: &mut BytesMut, status: &SessionStatus) {
    out.put_u32_le(status.session.0);
    out.put_u8(status.status.into());
    out.put_u8(0);
    put_text(out, &status.device_url);
    put_text(out, &status.identity_url);
    if !status.indexes.is_empty() {
        out.put_u16_le(status.indexes.len() as u16);
        for index in &status.indexes {
            out.put_u16_le(*index);
        }
    }
}

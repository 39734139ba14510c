//! Mosquitto: MQTT 3.1.1 at QoS 0, which acknowledges nothing, and QoS 1, which acknowledges.

use super::{Peer, Recipe, text};
use crate::failure::Failure;
use crate::wire::{Wire, WireError, Witness};
use std::net::SocketAddr;
use std::path::Path;

const PROGRAM: &str = "mosquitto";

const CONNACK: u8 = 2;
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const SUBACK: u8 = 9;

/// Its version.
pub(crate) fn version() -> String {
    super::version(PROGRAM, "-h")
}

/// How it is set up, in words.
pub(crate) fn configuration() -> String {
    "max_inflight_messages 0 and max_queued_messages 0, so that it drops nothing; no persistence; else as shipped".into()
}

/// Starts a server.
///
/// # Errors
/// [`Failure`].
pub(crate) fn start(parent: &Path) -> Result<Peer, Failure> {
    let file = |address: SocketAddr, _: &Path| {
        format!(
            "listener {} {}\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\nlog_dest none\n",
            address.port(),
            address.ip()
        )
    };
    let arguments = |_: SocketAddr, _: &Path| vec!["-c".into(), "mosquitto.conf".into()];
    Peer::start(
        parent,
        &Recipe { program: PROGRAM, arguments: &arguments, file: Some(("mosquitto.conf", &file)) },
    )
}

/// One MQTT connection.
#[derive(Debug)]
pub(crate) struct MqttWire {
    client: String,
    topic: String,
    subscribes: bool,
    qos: u8,
    ready: bool,
    next_packet: u16,
}

impl MqttWire {
    /// Publishes to the topic of this number with this quality of service.
    pub(crate) fn publisher(number: u32, qos: u8) -> Self {
        Self::new(format!("p{number}"), number, false, qos)
    }

    /// Subscribes to the topic of this number; `client` tells subscribers of one topic apart.
    pub(crate) fn subscriber(number: u32, client: u32, qos: u8) -> Self {
        Self::new(format!("s{number}.{client}"), number, true, qos)
    }

    fn new(client: String, number: u32, subscribes: bool, qos: u8) -> Self {
        Self { client, topic: format!("bench/{number}"), subscribes, qos, ready: false, next_packet: 0 }
    }

    fn packet(
        &mut self,
        first: u8,
        body: &[u8],
        out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) -> Result<(), WireError> {
        match first >> 4 {
            CONNACK if body.get(1) == Some(&0) => {
                if self.subscribes {
                    self.subscribe(out);
                } else {
                    self.ready = true;
                }
            }
            SUBACK if body.get(2).is_some_and(|code| *code < 3) => self.ready = true,
            PUBACK => witness.acknowledged(1),
            PUBLISH => {
                let topic = body.get(..2).ok_or(WireError::Malformed("PUBLISH without a topic"))?;
                let mut start = 2 + usize::from(u16::from_be_bytes([topic[0], topic[1]]));
                if first & 0b0110 != 0 {
                    let id = body.get(start..start + 2).ok_or(WireError::Malformed("PUBLISH"))?;
                    out.extend_from_slice(&[PUBACK << 4, 2, id[0], id[1]]);
                    start += 2;
                }
                witness.begin();
                witness.piece(body.get(start..).ok_or(WireError::Malformed("PUBLISH"))?);
                witness.end();
            }
            _ => return Err(WireError::Refused(format!("packet {first:#04x} {}", text(body)))),
        }
        Ok(())
    }

    fn subscribe(&self, out: &mut Vec<u8>) {
        let mut body = vec![0, 1];
        put_text(&self.topic, &mut body);
        body.push(self.qos);
        out.push(0x82);
        put_length(body.len(), out);
        out.extend_from_slice(&body);
    }
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Remaining Length: seven bits a byte, least significant first.
fn put_length(mut length: usize, out: &mut Vec<u8>) {
    loop {
        let more = length >= 128;
        out.push((length % 128) as u8 | if more { 128 } else { 0 });
        length /= 128;
        if !more {
            return;
        }
    }
}

/// Remaining Length behind the first byte of `input`, and the length of the whole packet's head.
fn length(input: &[u8]) -> Result<Option<(usize, usize)>, WireError> {
    let mut length = 0;
    for (index, &byte) in input.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 127) << (7 * index);
        if byte & 128 == 0 {
            return Ok(Some((length, index + 2)));
        }
    }
    if input.len() >= 5 { Err(WireError::Malformed("a packet's length")) } else { Ok(None) }
}

impl Wire for MqttWire {
    fn greet(&mut self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        put_text("MQTT", &mut body);
        // Protocol level 4, clean session, no keep-alive.
        body.extend_from_slice(&[4, 2, 0, 0]);
        put_text(&self.client, &mut body);
        out.push(0x10);
        put_length(body.len(), out);
        out.extend_from_slice(&body);
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn put(&mut self, payload: &[u8], _prompt: bool, out: &mut Vec<u8>) {
        let id = if self.qos > 0 { 2 } else { 0 };
        out.push(PUBLISH << 4 | self.qos << 1);
        put_length(2 + self.topic.len() + id + payload.len(), out);
        put_text(&self.topic, out);
        if self.qos > 0 {
            self.next_packet = self.next_packet.checked_add(1).unwrap_or(1);
            out.extend_from_slice(&self.next_packet.to_be_bytes());
        }
        out.extend_from_slice(payload);
    }

    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        witness: &mut impl Witness,
    ) -> Result<usize, WireError> {
        let mut used = 0;
        while let Some((length, head)) = length(&input[used..])? {
            let Some(body) = input.get(used + head..used + head + length) else { break };
            self.packet(input[used], body, out, witness)?;
            used += head + length;
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::heard::Heard;

    #[test]
    fn what_is_put_is_taken_back_however_it_is_cut() {
        for (qos, length) in [(0, 100), (1, 100), (0, 200), (1, 20_000)] {
            let payload = vec![7; length];
            let mut stream = Vec::new();
            let mut publisher = MqttWire::publisher(3, qos);
            publisher.put(&payload, false, &mut stream);
            publisher.put(&payload, false, &mut stream);
            for cut in [0, 1, 2, 3, 50, stream.len() / 2, stream.len() - 1] {
                let (mut wire, mut heard) = (MqttWire::subscriber(3, 0, qos), Heard::default());
                let mut out = Vec::new();
                let used = wire.take(&stream[..cut], &mut out, &mut heard).unwrap();
                let rest = wire.take(&stream[used..], &mut out, &mut heard).unwrap();
                assert_eq!(used + rest, stream.len());
                assert_eq!(heard.messages, [payload.clone(), payload.clone()]);
                publisher.take(&out, &mut Vec::new(), &mut heard).unwrap();
                assert_eq!(heard.acknowledged, 2 * u64::from(qos));
            }
        }
    }

    #[test]
    fn packet_ids_are_never_zero() {
        let mut wire = MqttWire::publisher(1, 1);
        wire.next_packet = u16::MAX;
        let mut out = Vec::new();
        wire.put(b"", false, &mut out);
        assert!(out.ends_with(&[0, 1]));
    }

    #[test]
    fn a_refusal_is_an_error() {
        let mut wire = MqttWire::publisher(1, 1);
        assert!(wire.take(&[0x20, 2, 0, 5], &mut Vec::new(), &mut Heard::default()).is_err());
        wire.take(&[0x20, 2, 0, 0], &mut Vec::new(), &mut Heard::default()).unwrap();
        assert!(wire.is_ready());
    }
}

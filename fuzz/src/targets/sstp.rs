//! Framing and decoding of SSTP commands.

use bytes::{Bytes, BytesMut};
use relay_core::sstp::command::{Command, Version};
use relay_core::sstp::frame::FrameReader;

/// A Connect of each version, a Message with its Data and an Open, as bytes of the specification's examples.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let connect = |minor: u8| {
        let mut bytes = vec![1, 0, 0, 1, minor, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(b"grooveDNS://relay\0dpp://device\0\0product\0\0\0");
        let length = bytes.len() as u16;
        bytes[1..3].copy_from_slice(&length.to_le_bytes());
        bytes
    };
    // Every command number with a plausible length and zeros.
    let zeros = (0..32u8).flat_map(|command| {
        [6u16, 12, 24, 60].map(|length| {
            let mut bytes = vec![0; usize::from(length)];
            bytes[0] = command;
            bytes[1..3].copy_from_slice(&length.to_le_bytes());
            bytes
        })
    });
    [connect(5), connect(6)].into_iter().chain(zeros).collect()
}

/// What is decoded in one piece and in two is the same, and encodes to what was decoded.
pub(crate) fn run(data: &[u8]) {
    for version in [Version::V1_5, Version::V1_6] {
        let whole = decode(&[data], version);
        let (left, right) = data.split_at(data.len() / 3);
        assert_eq!(whole, decode(&[left, right], version));
    }
}

fn decode(pieces: &[&[u8]], version: Version) -> Vec<String> {
    let mut reader = FrameReader::default();
    let mut decoded = Vec::new();
    for piece in pieces {
        reader.push(Bytes::copy_from_slice(piece));
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => decoded.push(one(frame, version)),
                Ok(None) => break,
                Err(error) => {
                    decoded.push(error.to_string());
                    return decoded;
                }
            }
        }
    }
    decoded
}

fn one(frame: Bytes, version: Version) -> String {
    match Command::decode(frame, version) {
        Ok(command) => {
            let mut again = BytesMut::new();
            command.encode(&mut again);
            let twice = Command::decode(again.freeze(), version);
            assert_eq!(twice.as_ref().ok(), Some(&command), "what is encoded is decoded again");
            format!("{command:?}")
        }
        Err(error) => error.to_string(),
    }
}

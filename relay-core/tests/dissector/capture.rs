//! A capture file made by hand (pcap with raw IPv4 and TCP), and what tshark with the dissector says of it.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// LINKTYPE_RAW: packets begin with their IP header.
const RAW_IP: u32 = 101;
const ACK: u8 = 0x10;

/// The packets of any number of connections, in the order in which they were "seen".
pub(crate) struct Capture {
    file: Vec<u8>,
    packets: u32,
    connections: u16,
}

/// One TCP connection of a capture.
pub(crate) struct Tcp {
    client_port: u16,
    server_port: u16,
    /// Next sequence numbers of the client and of the server.
    sequence: [u32; 2],
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Capture {
    pub(crate) fn new() -> Self {
        let mut file = Vec::new();
        file.extend_from_slice(&0xa1b2_c3d4_u32.to_le_bytes());
        for version in [2u16, 4] {
            file.extend_from_slice(&version.to_le_bytes());
        }
        for field in [0, 0, 262_144, RAW_IP] {
            file.extend_from_slice(&u32::to_le_bytes(field));
        }
        Self { file, packets: 0, connections: 0 }
    }

    /// How many there are; tshark counts them from 1.
    pub(crate) fn packets(&self) -> u32 {
        self.packets
    }

    /// A new connection to this port. tshark numbers them from 0 in the order of their first packets.
    pub(crate) fn connect(&mut self, server_port: u16) -> Tcp {
        self.connections += 1;
        Tcp { client_port: 10_000 + self.connections, server_port, sequence: [1000, 5000] }
    }

    /// Sends bytes in segments of at most `most`.
    pub(crate) fn send(&mut self, tcp: &mut Tcp, from: Side, bytes: &[u8], most: usize) {
        for segment in bytes.chunks(most) {
            self.segment(tcp, from, segment);
        }
    }

    fn segment(&mut self, tcp: &mut Tcp, from: Side, payload: &[u8]) {
        let (client, server) = (([10, 0, 0, 1], tcp.client_port), ([10, 0, 0, 2], tcp.server_port));
        let (own, other) = if from == Side::Client { (0, 1) } else { (1, 0) };
        let (source, target) = if from == Side::Client { (client, server) } else { (server, client) };
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&(40 + payload.len() as u16).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0]);
        packet.extend_from_slice(&source.0);
        packet.extend_from_slice(&target.0);
        packet.extend_from_slice(&source.1.to_be_bytes());
        packet.extend_from_slice(&target.1.to_be_bytes());
        packet.extend_from_slice(&tcp.sequence[own].to_be_bytes());
        packet.extend_from_slice(&tcp.sequence[other].to_be_bytes());
        packet.extend_from_slice(&[0x50, ACK, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend_from_slice(payload);
        tcp.sequence[own] += payload.len() as u32;
        self.packets += 1;
        let length = packet.len() as u32;
        for field in [self.packets / 1000, self.packets % 1000 * 1000, length, length] {
            self.file.extend_from_slice(&field.to_le_bytes());
        }
        self.file.extend_from_slice(&packet);
    }

    /// What tshark prints of it: a line for each packet that `filter` shows, with the fields (all their values, joined by
    /// commas). `None`, said aloud, where there is no tshark.
    pub(crate) fn dissect(&self, filter: &str, fields: &[&str], passes: u8) -> Option<Vec<Vec<String>>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.file).unwrap();
        let mut tshark = Command::new("tshark");
        tshark.arg("-n").arg("-r").arg(file.path());
        tshark.arg("-X").arg(format!("lua_script:{}", script().display()));
        if passes == 2 {
            tshark.arg("-2");
        }
        tshark.args(["-Y", filter, "-T", "fields", "-E", "separator=|", "-E", "aggregator=,"]);
        for field in fields {
            tshark.args(["-e", field]);
        }
        // Nobody's own preferences and plugins take part.
        let home = tempfile::tempdir().unwrap();
        tshark.env("HOME", home.path()).env("XDG_CONFIG_HOME", home.path());
        let output = match tshark.output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!(
                    "SKIPPED: tshark is not installed, so the dissector was not run (apt-get install tshark)"
                );
                return None;
            }
            output => output.unwrap(),
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && !errors.contains("Lua"), "tshark: {errors}");
        let text = String::from_utf8(output.stdout).unwrap();
        Some(text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect())
    }

    /// For each field all its values but the empty ones, packet after packet, joined by commas; checks that a second look at
    /// the packets gives the same.
    pub(crate) fn values<const N: usize>(&self, fields: [&str; N]) -> Option<[String; N]> {
        let once = self.dissect("tcp", &fields, 1)?;
        assert_eq!(self.dissect("tcp", &fields, 2)?, once, "a second pass differs");
        Some(std::array::from_fn(|field| {
            let values =
                once.iter().flat_map(|line| line[field].split(',')).filter(|value| !value.is_empty());
            values.collect::<Vec<_>>().join(",")
        }))
    }

    /// The numbers of the connections that have a packet which `filter` shows.
    pub(crate) fn streams(&self, filter: &str) -> Option<BTreeSet<usize>> {
        let lines = self.dissect(filter, &["tcp.stream"], 1)?;
        Some(lines.iter().map(|line| line[0].parse().unwrap()).collect())
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wireshark/furrow-sstp.lua")
}

//! Every number of SSTP that the wire profile settles, with its provenance: *seen* in the published
//! specification, *inferred* from it, or *ours*. One fact learnt later changes one line here.

use std::time::Duration;

/// MajorVersionNumber (seen, 2.2.1.1).
pub const MAJOR_VERSION: u8 = 1;
/// MinorVersionNumber of SSTP 1.5 (seen, 2.2.1.1).
pub const MINOR_VERSION_1_5: u8 = 5;
/// MinorVersionNumber of SSTP 1.6 (seen, 2.2.1.1).
pub const MINOR_VERSION_1_6: u8 = 6;

/// CommandId and CommandLength in front of every command (seen, all field pages).
pub const PREFIX_BYTES: usize = 3;
/// Limit of most commands (seen for ConnectAuthenticate, Open, Message; inferred for the rest).
pub const MAX_COMMAND_BYTES: usize = 2055;
/// Limit of FanoutOpen (seen, 2.2.6) and of SessionStatus with indexes (inferred).
pub const MAX_LONG_COMMAND_BYTES: usize = 65535;
/// Limit of Register (ours): a legacy registration carries two ElGamal ciphertexts, two sets of public keys and two RSA
/// signatures, some 2.4 KB in all (wire-profile 2), which contradicts the inferred 2055.
pub const MAX_REGISTER_BYTES: usize = 8192;
/// Payload of one Data command (seen, 3.1.4.6).
pub const MAX_DATA_BYTES: usize = 2048;
/// StreamSize Fields of a Message with flag S (seen, 2.2.10.1).
pub const STREAM_SIZE_BYTES: usize = 24;
/// Ephemeral Fields of a Message with flag E: a lifetime in seconds (ours, wire-profile 1).
pub const EPHEMERAL_BYTES: usize = 4;

/// Sessions whose late commands are silently dropped after this side closed them (ours, wire-profile 1).
pub const TOMBSTONES: usize = 256;
/// Completed messages after which an acknowledgement goes out without waiting for the timer (ours): the timer is an
/// upper bound, and a fast sender should not have to remember five seconds of traffic.
pub const ACKNOWLEDGE_RUN: usize = 64;

/// Default wait for Connect after the transport is up (ours, wire-profile 1).
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Default wait for ConnectAuthenticate after ConnectResponse (ours, wire-profile 1).
pub const AUTHENTICATE_DEADLINE: Duration = Duration::from_secs(10);
/// Default Message Acknowledgment Timer (seen, 3.1.2.1).
pub const ACKNOWLEDGE_DELAY: Duration = Duration::from_secs(5);
/// Default time without sending after which a Noop goes out (seen in the sibling HTTP document; ours for TCP).
pub const KEEP_ALIVE: Duration = Duration::from_secs(45);
/// Default time without receiving after which a connection is dropped (ours, wire-profile 1).
pub const IDLE_DEADLINE: Duration = Duration::from_secs(135);

/// The native TCP port (seen, 3.1.1.1).
pub const PORT: u16 = 2492;
/// The resource of the presence service (seen, 3.3.5.6).
pub const RESOURCE_WAN_DPP: &str = "grooveWanDPP";

/// Flag bits of the Message command (bit names seen, masks inferred, settled by wire-profile 1).
pub mod flags {
    /// Reserved, must be zero.
    pub const R1: u8 = 0x80;
    /// Fragmentation Fields present.
    pub const F: u8 = 0x40;
    /// The receiving application should follow this message and report on it.
    pub const G: u8 = 0x20;
    /// StreamSize Fields present.
    pub const S: u8 = 0x10;
    /// Reserved, must be zero.
    pub const R2: u8 = 0x08;
    /// AcknowledgeImmediately. Hop-by-hop.
    pub const A: u8 = 0x04;
    /// Ephemeral Fields present.
    pub const E: u8 = 0x02;
    /// DoNotDeliverIfOffline.
    pub const D: u8 = 0x01;
    /// The bits that must be zero.
    pub const RESERVED: u8 = R1 | R2;
}

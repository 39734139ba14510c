//! Every number, size and label of SSTP Security, with its provenance. Holds no behaviour.
//!
//! Provenance words: *seen* = read in the published specification; *inferred* = deduced from it; *ours* = settled by
//! wire profile 1 because the specification could not be read. One fact learnt later changes one line here.

use crate::directory::Profile;

/// The two layers of SSTP Security, each with its own secret key (sstp-security sec. 1, seen).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    /// The device key, proven in the Connect exchange.
    Device,
    /// The account key, proven in the Attach exchange.
    Account,
}

impl Profile {
    /// The major version byte of every message of this profile: 1 (inferred) or 2 (ours).
    pub const fn major(self) -> u8 {
        match self {
            Profile::Legacy => 1,
            Profile::Modern => 2,
        }
    }

    /// The profile of a major version byte, if it is one of ours.
    pub const fn from_major(major: u8) -> Option<Self> {
        match major {
            1 => Some(Profile::Legacy),
            2 => Some(Profile::Modern),
            _ => None,
        }
    }

    /// The minor version that a client writes: legacy 3 in device-layer and 4 in account-layer messages (seen, note
    /// 1 of sec. 2.2), modern 0 (ours).
    pub(super) const fn client_minor(self, layer: Layer) -> u8 {
        match (self, layer) {
            (Profile::Legacy, Layer::Device) => 3,
            (Profile::Legacy, Layer::Account) => 4,
            (Profile::Modern, _) => 0,
        }
    }

    /// The minor version that a relay writes: legacy 4 (seen, same note), modern 0 (ours).
    pub(super) const fn relay_minor(self) -> u8 {
        match self {
            Profile::Legacy => 4,
            Profile::Modern => 0,
        }
    }

    /// Whether a receiver accepts `minor`: legacy 3 and 4 (seen: must not demand its own), modern 0 (ours).
    pub(super) const fn accepts_minor(self, minor: u8) -> bool {
        match self {
            Profile::Legacy => minor == 3 || minor == 4,
            Profile::Modern => minor == 0,
        }
    }

    /// The length of a device or account key in bytes: legacy 24 (inferred), modern 32 (ours).
    pub const fn key_bytes(self) -> usize {
        match self {
            Profile::Legacy => LEGACY_KEY_BYTES,
            Profile::Modern => MODERN_KEY_BYTES,
        }
    }
}

macro_rules! message_ids {
    ($($(#[$meta:meta])* $name:ident = $value:literal,)*) => {
        /// The MessageID of a security message. Names are the specification's where it has one (seen); the numbers
        /// are ours (wire-profile sec. 2), the same in both profiles.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum MessageId {
            $($(#[$meta])* $name = $value,)*
        }

        impl MessageId {
            /// The message with this number, if there is one. 11 is unused.
            pub const fn from_byte(byte: u8) -> Option<Self> {
                match byte {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

message_ids! {
    /// Client to relay in Connect.
    SecConnect = 1,
    /// Relay to client in ConnectResponse: the challenge.
    SecConnectResponse = 2,
    /// Relay to client in ConnectResponse.
    SecConnectResponseDeviceRegistrationNeeded = 3,
    /// Relay to client in ConnectResponse.
    SecConnectResponseAuthenticationFailed = 4,
    /// Client to relay in ConnectAuthenticate: the proof.
    SecConnectAuthenticate = 5,
    /// Client to relay in Attach.
    SecAttach = 6,
    /// Relay to client in AttachResponse: the challenge.
    SecAttachResponse = 7,
    /// Relay to client in AttachResponse.
    SecAttachResponseAccountRegistrationNeeded = 8,
    /// Relay to client in AttachResponse.
    SecAttachResponseAuthenticationFailed = 9,
    /// Client to relay in AttachAuthenticate: the proof.
    SecAttachAuthenticate = 10,
    /// Client to relay in Register; wraps one of the next two but one.
    SecDeviceAccountRegister = 12,
    /// Relay to client in RegisterResponse.
    SecDeviceAccountRegisterResponse = 13,
    /// Inside SecDeviceAccountRegister: an account that the relay does not know yet.
    SecAccountRegister = 14,
    /// Inside SecDeviceAccountRegister: an account that the relay knows, on a device where it is new.
    SecAccountOnNewDeviceRegister = 15,
    /// Client to relay in Register.
    SecIdentityRegister = 16,
    /// Relay to client in RegisterResponse.
    SecIdentityRegisterResponse = 17,
}

impl MessageId {
    /// The client's first message of a layer's challenge/response.
    pub(super) const fn hello(layer: Layer) -> Self {
        match layer {
            Layer::Device => Self::SecConnect,
            Layer::Account => Self::SecAttach,
        }
    }

    /// The relay's challenge of a layer.
    pub(super) const fn challenge(layer: Layer) -> Self {
        match layer {
            Layer::Device => Self::SecConnectResponse,
            Layer::Account => Self::SecAttachResponse,
        }
    }

    /// The relay's answer to a layer's hello when it holds no key.
    pub(super) const fn registration_needed(layer: Layer) -> Self {
        match layer {
            Layer::Device => Self::SecConnectResponseDeviceRegistrationNeeded,
            Layer::Account => Self::SecAttachResponseAccountRegistrationNeeded,
        }
    }

    /// The relay's answer to a layer's wrong hello.
    pub(super) const fn failed(layer: Layer) -> Self {
        match layer {
            Layer::Device => Self::SecConnectResponseAuthenticationFailed,
            Layer::Account => Self::SecAttachResponseAuthenticationFailed,
        }
    }

    /// The client's proof of a layer.
    pub(super) const fn proof(layer: Layer) -> Self {
        match layer {
            Layer::Device => Self::SecConnectAuthenticate,
            Layer::Account => Self::SecAttachAuthenticate,
        }
    }
}

/// The outcome of a registration, as it stands in messages 13 and 17 (wire-profile sec. 2, ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RegisterStatus {
    /// Registered, or was already registered with the same keys.
    Ok = 0,
    /// A required pre-authentication token is missing or wrong, or the identity is not listed.
    PreAuthenticationFailed = 1,
    /// A signature or a MAC is wrong.
    SignatureInvalid = 2,
    /// A secret key could not be opened with the relay's private key.
    KeyUndecryptable = 3,
    /// The device or account is registered with other keys or in the other profile.
    AlreadyRegistered = 4,
    /// The account has to be registered first.
    UnknownAccount = 5,
    /// Refused by a rule: another account's identity, a locked-out device or account, a full record.
    NotPermitted = 6,
    /// Too many registrations at this moment; try again later.
    Busy = 7,
}

impl RegisterStatus {
    /// The status with this number, if there is one.
    pub const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Ok,
            1 => Self::PreAuthenticationFailed,
            2 => Self::SignatureInvalid,
            3 => Self::KeyUndecryptable,
            4 => Self::AlreadyRegistered,
            5 => Self::UnknownAccount,
            6 => Self::NotPermitted,
            7 => Self::Busy,
            _ => return None,
        })
    }
}

/// Version and MessageID bytes before the fields (seen, 2.2.2).
pub(super) const HEADER_BYTES: usize = 3;

/// The longest UserPreAuthToken in bytes (ours).
pub const MAX_PRE_AUTH_TOKEN_BYTES: usize = 1024;

/// The most accounts on one device (ours): a bound on the device record, which strangers can grow.
pub const MAX_ACCOUNTS_PER_DEVICE: usize = 64;

/// The most devices of one account (ours).
pub const MAX_DEVICES_PER_ACCOUNT: usize = 256;

/// The most identities of one account that clients may claim (ours); a management server may list more.
pub const MAX_IDENTITIES_PER_ACCOUNT: usize = 256;

/// Modern: a device or account key (ours).
pub(super) const MODERN_KEY_BYTES: usize = 32;
/// Modern: a client's or relay's nonce (ours).
pub(super) const MODERN_NONCE_BYTES: usize = 32;
/// Modern: HMAC-SHA256, whole (ours).
pub(super) const MODERN_MAC_BYTES: usize = 32;
/// Modern: an X25519 key (RFC 7748).
pub(super) const X25519_BYTES: usize = 32;
/// Modern: an Ed25519 public key or seed (RFC 8032).
pub(super) const ED25519_KEY_BYTES: usize = 32;
/// Modern: an Ed25519 signature (RFC 8032).
pub(super) const ED25519_SIGNATURE_BYTES: usize = 64;
/// Modern: the tag of ChaCha20-Poly1305 (RFC 8439).
pub(super) const AEAD_TAG_BYTES: usize = 16;
/// Modern: ephemeral key, ciphertext and tag of a sealed key (ours).
pub(super) const SEALED_KEY_BYTES: usize = X25519_BYTES + MODERN_KEY_BYTES + AEAD_TAG_BYTES;

/// Modern: MAC labels (ours).
pub(super) const LABEL_HELLO: &str = "sstps2 hello";
pub(super) const LABEL_CHALLENGE: &str = "sstps2 challenge";
pub(super) const LABEL_PROOF: &str = "sstps2 proof";
pub(super) const LABEL_NEW_DEVICE: &str = "sstps2 new-device";
pub(super) const LABEL_IDENTITY: &str = "sstps2 identity";
/// Modern: what precedes a signed registration message (ours).
pub(super) const LABEL_REGISTER: &str = "sstps2 register";
/// Modern: HKDF info of a sealed device key and account key (ours).
pub(super) const INFO_DEVICE_KEY: &str = "sstps2 device key";
pub(super) const INFO_ACCOUNT_KEY: &str = "sstps2 account key";

/// Legacy: a device or account key (inferred: 192-bit MARC4 keys elsewhere in the family). The IV is as long (seen).
pub(super) const LEGACY_KEY_BYTES: usize = 24;
/// Legacy: a client's or relay's nonce (inferred).
pub(super) const LEGACY_NONCE_BYTES: usize = 20;
/// Legacy: HMAC-SHA1, whole (inferred).
pub(super) const LEGACY_MAC_BYTES: usize = 20;
/// Legacy: a number of the 1536-bit ElGamal group (seen, note 2 of sec. 6).
pub(super) const ELGAMAL_BYTES: usize = 1536 / 8;
/// Legacy: an ElGamal ciphertext, two numbers (computed).
pub(super) const ELGAMAL_CIPHERTEXT_BYTES: usize = 2 * ELGAMAL_BYTES;
/// Legacy: the longest ElGamal plaintext (computed: the modulus less three bytes).
pub const MAX_ELGAMAL_PLAINTEXT_BYTES: usize = ELGAMAL_BYTES - 3;
/// Legacy: modulus and signature of a 2048-bit RSA key (ours).
pub(super) const RSA_BYTES: usize = 2048 / 8;
/// Legacy: the public exponent of RSA keys that we make (ours).
pub(super) const RSA_PUBLIC_EXPONENT: u32 = 65537;
/// Legacy: the longest public keys object in bytes (ours): two keys of 4096 bits in their general forms.
pub(super) const MAX_PUBLIC_KEYS_BYTES: usize = 3072;
/// Legacy: key and encryption algorithm of the two kinds of encryption pair (sibling MS-GRVSPCM 3.2.5.2.2.2).
pub(super) const ENCRYPTION_ALGORITHMS: [(&[u8], &[u8]); 2] = [(b"DH", b"ELGAMAL"), (b"RSA", b"RSA")];
/// Legacy: key and signature algorithm of a signature pair (same source).
pub(super) const SIGNATURE_ALGORITHMS: (&[u8], &[u8]) = (b"RSA", b"RSA");

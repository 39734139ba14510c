//! Both ends against one another, and the tokens against vectors that were computed apart from this code.

use super::test_entropy::Seeded;
use super::*;
use crate::address::{AccountUrl, DeviceUrl, IdentityUrl};
use crate::directory::*;
use crate::time::Entropy;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;

mod attacks;
mod handshakes;
mod legacy_vectors;
mod modern_vectors;
mod primitives;
mod registrations;

const BOTH_PROFILES: [Profile; 2] = [Profile::Modern, Profile::Legacy];

/// Each profile on each layer.
const CASES: [(Profile, Layer); 4] = [
    (Profile::Modern, Layer::Device),
    (Profile::Modern, Layer::Account),
    (Profile::Legacy, Layer::Device),
    (Profile::Legacy, Layer::Account),
];

fn device() -> DeviceUrl {
    DeviceUrl::new("dpp://host/device").unwrap()
}

fn account() -> AccountUrl {
    AccountUrl::new("grooveAccount://key@").unwrap()
}

fn identity() -> IdentityUrl {
    IdentityUrl::new("grooveIdentity://key@").unwrap()
}

/// A client's legacy keys from a file, because making RSA keys is slow.
const LEGACY_KEYS: &str = include_str!("tests/legacy.keys");

/// Those keys with another secret key.
fn legacy_credentials(secret: &[u8; 24]) -> ClientCredentials {
    let secret = format!("secret {}", hex(secret));
    let lines = LEGACY_KEYS.lines().map(|line| if line.starts_with("secret") { &secret } else { line });
    ClientCredentials::decode(lines.collect::<Vec<_>>().join("\n").as_bytes()).unwrap()
}

/// Credentials of a device or an account, as different seeds make them. Those of the legacy profile differ in the
/// secret key only.
fn credentials(profile: Profile, seed: u64) -> ClientCredentials {
    let entropy = &mut Seeded::new(seed);
    match profile {
        Profile::Modern => ClientCredentials::generate(profile, entropy),
        Profile::Legacy => legacy_credentials(&entropy.bytes()),
    }
}

/// 0, 1, 2, … without end.
struct Counting(u8);

impl Counting {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

impl Entropy for Counting {
    fn fill(&mut self, buffer: &mut [u8]) {
        for byte in buffer {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The profile's major and the relay's minor version.
fn relay_version(profile: Profile) -> [u8; 2] {
    match profile {
        Profile::Modern => [2, 0],
        Profile::Legacy => [1, 4],
    }
}

fn other(profile: Profile) -> Profile {
    match profile {
        Profile::Modern => Profile::Legacy,
        Profile::Legacy => Profile::Modern,
    }
}

/// The relay of the vectors.
fn example_relay() -> RelayKeys {
    let (x25519, elgamal) = (hex(&[9; 32]), hex(&[2; 192]));
    let file = format!("furrow-keys 1 relay-private\nx25519 {x25519}\nelgamal-1536 {elgamal}\n");
    RelayKeys::decode(file.as_bytes()).unwrap()
}

fn relay_keys() -> &'static RelayKeys {
    static KEYS: LazyLock<RelayKeys> = LazyLock::new(|| RelayKeys::generate(&mut Seeded::new(99)));
    &KEYS
}

/// A directory in memory that takes the changes of accepted registrations.
#[derive(Clone, Debug, Default, PartialEq)]
struct Records {
    devices: HashMap<DeviceUrl, DeviceRecord>,
    accounts: HashMap<AccountUrl, AccountRecord>,
    identities: HashMap<IdentityUrl, IdentityRecord>,
}

impl Directory for Records {
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        Ok(self.devices.get(url).cloned())
    }
    fn account(&self, url: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        Ok(self.accounts.get(url).cloned())
    }
    fn identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        Ok(self.identities.get(url).cloned())
    }
}

impl Records {
    fn apply(&mut self, changes: Vec<DirectoryChange>) {
        for change in changes {
            match change {
                DirectoryChange::Device(url, record) => self.devices.insert(url, record.unwrap()).map(drop),
                DirectoryChange::Account(url, record) => self.accounts.insert(url, record.unwrap()).map(drop),
                DirectoryChange::Identity(url, record) => {
                    self.identities.insert(url, record.unwrap()).map(drop)
                }
            };
        }
    }
}

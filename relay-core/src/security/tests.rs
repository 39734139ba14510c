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

mod handshakes;
mod registrations;
mod vectors;

const BOTH_LAYERS: [Layer; 2] = [Layer::Device, Layer::Account];

fn device() -> DeviceUrl {
    DeviceUrl::new("dpp://host/device").unwrap()
}

fn account() -> AccountUrl {
    AccountUrl::new("grooveAccount://key@").unwrap()
}

fn identity() -> IdentityUrl {
    IdentityUrl::new("grooveIdentity://key@").unwrap()
}

/// Credentials of a device or an account, as different seeds make them.
fn credentials(seed: u64) -> ClientCredentials {
    ClientCredentials::generate_modern(&mut Seeded::new(seed))
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
    fn device(&self, url: &DeviceUrl) -> Option<DeviceRecord> {
        self.devices.get(url).cloned()
    }
    fn account(&self, url: &AccountUrl) -> Option<AccountRecord> {
        self.accounts.get(url).cloned()
    }
    fn identity(&self, url: &IdentityUrl) -> Option<IdentityRecord> {
        self.identities.get(url).cloned()
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

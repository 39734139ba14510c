//! The users of a run: a device, an account and an identity each, all with the same prepared keys, written straight into the
//! relay's user database before the relay starts. Their number is their name, so that any process can say who they are.

use client::SystemEntropy;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::{
    AccountRecord, Credentials, DeviceRecord, DirectoryChange, IdentityRecord, Profile,
};
use relay_core::security::ClientCredentials;
use std::path::Path;
use storage::{StorageError, UserDatabase};

/// The relay of every run.
pub(crate) const RELAY_URL: &str = "grooveDNS://bench.localhost";
/// Users in one transaction of the database.
const USERS_A_BATCH: u32 = 2000;
/// What each identity may have waiting: more than a run leaves.
const QUOTA_BYTES: u64 = 1 << 40;

/// One user. URLs are as long as those that our tools make.
#[derive(Clone, Debug)]
pub(crate) struct User {
    /// Its device.
    pub(crate) device: DeviceUrl,
    /// Its account.
    pub(crate) account: AccountUrl,
    /// Its identity.
    pub(crate) identity: IdentityUrl,
}

impl User {
    /// The user of this number.
    pub(crate) fn new(number: u32) -> Self {
        let valid = "digits are part of a URL";
        Self {
            device: DeviceUrl::new(format!("dpp://bench.localhost/{number:039}")).expect(valid),
            account: AccountUrl::new(format!("grooveAccount://{number:039}@")).expect(valid),
            identity: IdentityUrl::new(format!("grooveIdentity://{number:039}@")).expect(valid),
        }
    }

    fn records(&self, credentials: &Credentials) -> [DirectoryChange; 3] {
        let device = DeviceRecord {
            credentials: Some(credentials.clone()),
            accounts: vec![self.account.clone()],
            locked_out: false,
        };
        let account = AccountRecord {
            credentials: Some(credentials.clone()),
            identities: vec![self.identity.clone()],
            devices: vec![self.device.clone()],
            pre_auth_token: None,
            locked_out: false,
        };
        let identity =
            IdentityRecord { quota_bytes: Some(QUOTA_BYTES), ..IdentityRecord::of(self.account.clone()) };
        [
            DirectoryChange::Device(self.device.clone(), Some(device)),
            DirectoryChange::Account(self.account.clone(), Some(account)),
            DirectoryChange::Identity(self.identity.clone(), Some(identity)),
        ]
    }
}

/// Keys for all users of a run.
pub(crate) fn make_keys(profile: Profile) -> ClientCredentials {
    ClientCredentials::generate(profile, &mut SystemEntropy::default())
}

/// Writes the users of these numbers into the database in `directory`.
///
/// # Errors
/// [`StorageError`], for example while a relay has the database open.
pub(crate) fn register(
    directory: &Path,
    users: std::ops::Range<u32>,
    keys: &ClientCredentials,
) -> Result<(), StorageError> {
    let database = UserDatabase::open(directory)?;
    let credentials = keys.as_registered();
    let mut first = users.start;
    while first < users.end {
        let next = users.end.min(first + USERS_A_BATCH);
        let changes: Vec<_> =
            (first..next).flat_map(|number| User::new(number).records(&credentials)).collect();
        database.apply(&changes)?;
        first = next;
    }
    Ok(())
}

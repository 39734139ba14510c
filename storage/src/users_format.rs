//! How the values of the user database stand on disk: a format byte and an rkyv archive, checked on access. Knows no
//! database.

use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::{AccountRecord, Credentials, DeviceRecord, IdentityRecord, Profile, SecretKey};
use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::util::AlignedVec;
use rkyv::with::{InlineAsBox, Map};
use rkyv::{Archive, Portable, Serialize};

/// The first byte of a value.
const FORMAT: u8 = 1;
/// That of an identity with a lifetime of its own.
const FORMAT_WITH_LIFETIME: u8 = 2;

const LEGACY: u8 = 1;
const MODERN: u8 = 2;

/// Why a value cannot be read, in words.
pub(crate) type Fault = &'static str;

const NOT_A_RECORD: Fault = "it is not a record";
const NOT_A_URL: Fault = "a URL in it is not one";

/// A record that has a place in the user database.
pub(crate) trait Stored: Sized {
    /// The value for the database.
    fn encode(&self) -> Vec<u8>;
    /// The record of a value.
    fn decode(value: &[u8]) -> Result<Self, Fault>;
}

#[derive(Archive, Serialize)]
struct StoredCredentials<'a> {
    #[rkyv(with = InlineAsBox)]
    secret: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    public_keys: &'a [u8],
    profile: u8,
}

#[derive(Archive, Serialize)]
struct StoredDevice<'a> {
    credentials: Option<StoredCredentials<'a>>,
    #[rkyv(with = Map<InlineAsBox>)]
    accounts: Vec<&'a str>,
    locked_out: bool,
}

#[derive(Archive, Serialize)]
struct StoredAccount<'a> {
    credentials: Option<StoredCredentials<'a>>,
    #[rkyv(with = Map<InlineAsBox>)]
    identities: Vec<&'a str>,
    #[rkyv(with = Map<InlineAsBox>)]
    devices: Vec<&'a str>,
    #[rkyv(with = Map<InlineAsBox>)]
    pre_auth_token: Option<&'a [u8]>,
    locked_out: bool,
}

#[derive(Archive, Serialize)]
struct StoredIdentity<'a> {
    #[rkyv(with = InlineAsBox)]
    account: &'a str,
    quota_bytes: Option<u64>,
}

#[derive(Archive, Serialize)]
struct StoredIdentityWithLifetime<'a> {
    #[rkyv(with = InlineAsBox)]
    account: &'a str,
    quota_bytes: Option<u64>,
    lifetime_seconds: u32,
}

#[derive(Archive, Serialize)]
struct StoredListedAccount<'a> {
    #[rkyv(with = Map<InlineAsBox>)]
    identities: Vec<&'a str>,
    #[rkyv(with = Map<InlineAsBox>)]
    token: Option<&'a [u8]>,
}

fn archive(
    value: &impl for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
) -> Vec<u8> {
    archive_as(FORMAT, value)
}

fn archive_as(
    format: u8,
    value: &impl for<'a> Serialize<HighSerializer<AlignedVec, ArenaHandle<'a>, rancor::Error>>,
) -> Vec<u8> {
    let archived =
        rkyv::to_bytes::<rancor::Error>(value).expect("a growing vector and an arena take every value");
    [&[format], &archived[..]].concat()
}

/// Gives the archive in `value`, aligned and checked, to `read`.
fn access<T, R>(value: &[u8], read: impl FnOnce(&T) -> Result<R, Fault>) -> Result<R, Fault>
where
    T: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
{
    access_as(FORMAT, value, read)
}

fn access_as<T, R>(format: u8, value: &[u8], read: impl FnOnce(&T) -> Result<R, Fault>) -> Result<R, Fault>
where
    T: Portable + for<'a> CheckBytes<HighValidator<'a, rancor::Failure>>,
{
    match value {
        [found, archived @ ..] if *found == format => {
            let mut aligned = AlignedVec::<16>::with_capacity(archived.len());
            aligned.extend_from_slice(archived);
            read(rkyv::access::<T, rancor::Failure>(&aligned).map_err(|_| NOT_A_RECORD)?)
        }
        [] => Err("it is empty"),
        _ => Err("its format is of another version"),
    }
}

fn credentials(credentials: Option<&Credentials>) -> Option<StoredCredentials<'_>> {
    credentials.map(|credentials| StoredCredentials {
        secret: credentials.secret.expose(),
        public_keys: &credentials.public_keys,
        profile: match credentials.profile {
            Profile::Legacy => LEGACY,
            Profile::Modern => MODERN,
        },
    })
}

impl ArchivedStoredCredentials<'_> {
    fn read(&self) -> Result<Credentials, Fault> {
        Ok(Credentials {
            profile: match self.profile {
                LEGACY => Profile::Legacy,
                MODERN => Profile::Modern,
                _ => return Err("its security profile is unknown"),
            },
            secret: SecretKey::new(self.secret.to_vec()),
            public_keys: self.public_keys.to_vec(),
        })
    }
}

impl Stored for DeviceRecord {
    fn encode(&self) -> Vec<u8> {
        archive(&StoredDevice {
            credentials: credentials(self.credentials.as_ref()),
            accounts: self.accounts.iter().map(AccountUrl::as_str).collect(),
            locked_out: self.locked_out,
        })
    }

    fn decode(value: &[u8]) -> Result<Self, Fault> {
        access(value, |stored: &ArchivedStoredDevice<'_>| {
            let accounts = stored.accounts.iter().map(|url| AccountUrl::new(url.as_bytes()));
            Ok(Self {
                credentials: stored.credentials.as_ref().map(|stored| stored.read()).transpose()?,
                accounts: accounts.collect::<Result<_, _>>().map_err(|_| NOT_A_URL)?,
                locked_out: stored.locked_out,
            })
        })
    }
}

impl Stored for AccountRecord {
    fn encode(&self) -> Vec<u8> {
        archive(&StoredAccount {
            credentials: credentials(self.credentials.as_ref()),
            identities: self.identities.iter().map(IdentityUrl::as_str).collect(),
            devices: self.devices.iter().map(DeviceUrl::as_str).collect(),
            pre_auth_token: self.pre_auth_token.as_ref().map(SecretKey::expose),
            locked_out: self.locked_out,
        })
    }

    fn decode(value: &[u8]) -> Result<Self, Fault> {
        access(value, |stored: &ArchivedStoredAccount<'_>| {
            let identities = stored.identities.iter().map(|url| IdentityUrl::new(url.as_bytes()));
            let devices = stored.devices.iter().map(|url| DeviceUrl::new(url.as_bytes()));
            Ok(Self {
                credentials: stored.credentials.as_ref().map(|stored| stored.read()).transpose()?,
                identities: identities.collect::<Result<_, _>>().map_err(|_| NOT_A_URL)?,
                devices: devices.collect::<Result<_, _>>().map_err(|_| NOT_A_URL)?,
                pre_auth_token: stored.pre_auth_token.as_ref().map(|token| SecretKey::new(token.to_vec())),
                locked_out: stored.locked_out,
            })
        })
    }
}

impl Stored for IdentityRecord {
    fn encode(&self) -> Vec<u8> {
        let (account, quota_bytes) = (self.account.as_str(), self.quota_bytes);
        match self.lifetime_seconds {
            None => archive(&StoredIdentity { account, quota_bytes }),
            Some(lifetime_seconds) => {
                let stored = StoredIdentityWithLifetime { account, quota_bytes, lifetime_seconds };
                archive_as(FORMAT_WITH_LIFETIME, &stored)
            }
        }
    }

    fn decode(value: &[u8]) -> Result<Self, Fault> {
        let account = |url: &str| AccountUrl::new(url).map_err(|_| NOT_A_URL);
        if value.first() == Some(&FORMAT_WITH_LIFETIME) {
            let read = |stored: &ArchivedStoredIdentityWithLifetime<'_>| {
                Ok(Self {
                    account: account(&stored.account)?,
                    quota_bytes: stored.quota_bytes.as_ref().map(|quota| quota.to_native()),
                    lifetime_seconds: Some(stored.lifetime_seconds.to_native()),
                })
            };
            return access_as(FORMAT_WITH_LIFETIME, value, read);
        }
        access(value, |stored: &ArchivedStoredIdentity<'_>| {
            Ok(Self {
                account: account(&stored.account)?,
                quota_bytes: stored.quota_bytes.as_ref().map(|quota| quota.to_native()),
                lifetime_seconds: None,
            })
        })
    }
}

/// What a management server lists of an account; quota and lifetime stand with the identities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedAccount {
    pub(crate) identities: Vec<IdentityUrl>,
    pub(crate) token: Option<SecretKey>,
}

impl Stored for ListedAccount {
    fn encode(&self) -> Vec<u8> {
        archive(&StoredListedAccount {
            identities: self.identities.iter().map(IdentityUrl::as_str).collect(),
            token: self.token.as_ref().map(SecretKey::expose),
        })
    }

    fn decode(value: &[u8]) -> Result<Self, Fault> {
        access(value, |stored: &ArchivedStoredListedAccount<'_>| {
            let identities = stored.identities.iter().map(|url| IdentityUrl::new(url.as_bytes()));
            Ok(Self {
                identities: identities.collect::<Result<_, _>>().map_err(|_| NOT_A_URL)?,
                token: stored.token.as_ref().map(|token| SecretKey::new(token.to_vec())),
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn urls() -> impl Strategy<Value = Vec<String>> {
        prop::collection::vec("[!-~]{1,40}", 0..5)
    }

    fn any_credentials() -> impl Strategy<Value = Option<Credentials>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..64);
        prop::option::of((any::<bool>(), bytes(), bytes()).prop_map(|(modern, secret, public_keys)| {
            Credentials {
                profile: if modern { Profile::Modern } else { Profile::Legacy },
                secret: SecretKey::new(secret),
                public_keys,
            }
        }))
    }

    proptest! {
        #[test]
        fn a_device_record_round_trips(
            credentials in any_credentials(), accounts in urls(), locked_out: bool,
        ) {
            let accounts = accounts.iter().map(|url| AccountUrl::new(url).unwrap()).collect();
            let record = DeviceRecord { credentials, accounts, locked_out };
            prop_assert_eq!(DeviceRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn an_account_record_round_trips(
            credentials in any_credentials(), identities in urls(), devices in urls(),
            token in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)), locked_out: bool,
        ) {
            let record = AccountRecord {
                credentials,
                identities: identities.iter().map(|url| IdentityUrl::new(url).unwrap()).collect(),
                devices: devices.iter().map(|url| DeviceUrl::new(url).unwrap()).collect(),
                pre_auth_token: token.map(SecretKey::new),
                locked_out,
            };
            prop_assert_eq!(AccountRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn an_identity_record_round_trips(
            account in "[!-~]{1,1024}", quota_bytes: Option<u64>, lifetime_seconds: Option<u32>,
        ) {
            let record = IdentityRecord { account: AccountUrl::new(account).unwrap(), quota_bytes, lifetime_seconds };
            prop_assert_eq!(IdentityRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn a_listed_account_round_trips(
            identities in urls(), token in prop::option::of(prop::collection::vec(any::<u8>(), 0..40)),
        ) {
            let record = ListedAccount {
                identities: identities.iter().map(|url| IdentityUrl::new(url).unwrap()).collect(),
                token: token.map(SecretKey::new),
            };
            prop_assert_eq!(ListedAccount::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn no_value_makes_reading_panic(value in prop::collection::vec(any::<u8>(), 0..200)) {
            let value = [&[FORMAT], &value[..]].concat();
            let _ = DeviceRecord::decode(&value);
            let _ = AccountRecord::decode(&value);
            let _ = IdentityRecord::decode(&value);
            let _ = ListedAccount::decode(&value);
            let _ = IdentityRecord::decode(&[&[FORMAT_WITH_LIFETIME], &value[1..]].concat());
        }
    }

    #[test]
    fn a_value_of_another_format_is_told_from_a_damaged_one() {
        let mut value = DeviceRecord::default().encode();
        value[0] = 2;
        assert_eq!(DeviceRecord::decode(&value), Err("its format is of another version"));
        assert_eq!(DeviceRecord::decode(&[]), Err("it is empty"));
        assert_eq!(DeviceRecord::decode(&[FORMAT]), Err(NOT_A_RECORD));
    }
}

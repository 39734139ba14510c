//! The user database: devices, accounts and identities, in sled. Answers from any thread; a change is durable when
//! [`UserDatabase::apply`] returns. Decides nothing about who may register what.
//!
//! Two layers make a record: what clients have registered and operators have set, and on top of it what a management server
//! lists ([`crate::listing`]). A listing that is replaced takes nothing of the first layer with it. An account has the
//! identities of both, and the token of the first if there is one; an identity is the listed one.

use crate::error::StorageError;
use crate::events;
use crate::listing::{Listing, ListingState, QuotaChange};
use crate::managers::ManagerStore;
use crate::users_format::{ListedAccount, Stored};
use crate::users_restored::RestoredMail;
use crate::users_seen::SeenTimes;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::directory::{
    AccountRecord, DeviceRecord, Directory, DirectoryChange, IdentityRecord, Unreadable,
};
use relay_core::spmr::ListedUser;
use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use std::borrow::Cow;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Pages that sled may keep in memory, if nobody says otherwise.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

const DEVICE: &str = "device";
const ACCOUNT: &str = "account";
const IDENTITY: &str = "identity";

/// How many records of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserCounts {
    /// Device records.
    pub devices: usize,
    /// Account records.
    pub accounts: usize,
    /// Identity records.
    pub identities: usize,
    /// Accounts that a management server lists.
    pub listed_accounts: usize,
    /// Identities that a management server lists.
    pub listed_identities: usize,
}

/// The user database of a relay. Clones share it.
#[derive(Clone, Debug)]
pub struct UserDatabase {
    database: sled::Db,
    devices: sled::Tree,
    accounts: sled::Tree,
    identities: sled::Tree,
    seen: SeenTimes,
    restored: RestoredMail,
    /// Held by whoever reads records in order to change them.
    changing: Arc<Mutex<()>>,
    listing: Listing,
    managers: ManagerStore,
}

impl UserDatabase {
    /// Opens the database in a directory, or begins one there that only its owner may read.
    ///
    /// # Errors
    /// [`StorageError::UsersLocked`] if another process has it open, [`StorageError::Users`] if sled cannot read it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        Self::open_with_cache(path, CACHE_BYTES)
    }

    /// As [`UserDatabase::open`], with so many bytes of pages in memory. Where the users have no room in them, every one that
    /// is read or listed costs reading a page back.
    ///
    /// # Errors
    /// As [`UserDatabase::open`].
    pub fn open_with_cache(path: impl AsRef<Path>, cache_bytes: u64) -> Result<Self, StorageError> {
        let path = path.as_ref();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| StorageError::io("creating", path, error))?;
        let config = sled::Config::new().path(path).cache_capacity(cache_bytes).flush_every_ms(None);
        let database = config.open().map_err(|error| match error {
            sled::Error::Io(error) if error.to_string().contains("could not acquire lock") => {
                StorageError::UsersLocked { path: path.into() }
            }
            error => StorageError::Users(error),
        })?;
        Ok(Self {
            devices: database.open_tree(DEVICE)?,
            accounts: database.open_tree(ACCOUNT)?,
            identities: database.open_tree(IDENTITY)?,
            seen: SeenTimes::open(&database)?,
            restored: RestoredMail::open(&database)?,
            changing: Arc::default(),
            listing: Listing::open(&database)?,
            managers: ManagerStore::open(&database)?,
            database,
        })
    }

    /// Makes all changes or none, in order, durably. Blocks until the disk has them: not for a shard's thread.
    ///
    /// # Errors
    /// [`StorageError::Users`]: after an error in the transaction nothing has changed; after one in making it durable the
    /// changes are visible and the next successful call makes them durable too.
    pub fn apply(&self, changes: &[DirectoryChange]) -> Result<(), StorageError> {
        self.make_visible(changes)?;
        self.flush()
    }

    /// Lets `decide` read records and say what is to change, makes all of its changes or none, durably, and gives back what else
    /// it said. Nobody else who calls this changes anything in between, so what was read still holds when it is changed.
    /// Blocks like [`UserDatabase::apply`]; while the disk works, others may already decide.
    ///
    /// # Errors
    /// As [`UserDatabase::apply`].
    pub fn update<T>(
        &self,
        decide: impl FnOnce(&Self) -> (Vec<DirectoryChange>, T),
    ) -> Result<T, StorageError> {
        let said = {
            let _guard = self.exclusive();
            let (changes, said) = decide(self);
            self.make_visible(&changes)?;
            said
        };
        // Also if nothing changed: what was read may be somebody's change that is not durable yet.
        self.flush()?;
        Ok(said)
    }

    /// Says from when on [`UserDatabase::note_seen`] is called, in seconds since the Unix epoch, unless that was said before:
    /// devices for which it never was count as seen then.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn begin_noting_seen(&self, now: u64) -> Result<(), StorageError> {
        self.seen.begin(now)?;
        self.flush()
    }

    /// Notes that devices were connected at a time, in seconds since the Unix epoch; [`UserDatabase::flush`] makes it durable.
    ///
    /// # Errors
    /// [`StorageError::Users`]; devices before the one that failed are noted.
    pub fn note_seen<'a>(
        &self,
        devices: impl IntoIterator<Item = &'a DeviceUrl>,
        at: u64,
    ) -> Result<(), StorageError> {
        devices.into_iter().try_for_each(|device| self.seen.note(device, at))
    }

    fn make_visible(&self, changes: &[DirectoryChange]) -> Result<(), StorageError> {
        for change in changes {
            if let DirectoryChange::Device(device, None) = change {
                self.seen.forget(device)?;
            }
        }
        let changes = changes.iter().map(|change| self.unlisted(change)).collect::<Result<Vec<_>, _>>()?;
        let changes: Vec<Change<'_>> = changes.iter().map(|change| Change::encode(change)).collect();
        let trees = (&self.devices, &self.accounts, &self.identities);
        let result = trees.transaction(|(devices, accounts, identities)| {
            for change in &changes {
                let tree = match change.tree {
                    DEVICE => devices,
                    ACCOUNT => accounts,
                    _ => identities,
                };
                change.make(tree)?;
            }
            Ok::<(), ConflictableTransactionError<std::convert::Infallible>>(())
        });
        match result {
            Ok(()) => Ok(()),
            Err(TransactionError::Storage(error)) => Err(error.into()),
            Err(TransactionError::Abort(never)) => match never {},
        }
    }

    /// Keeps others from changing records. Whoever writes back what it has read holds this meanwhile.
    pub fn exclusive(&self) -> MutexGuard<'_, ()> {
        // Whoever panicked meanwhile wrote whole records.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What mail has been restored from backups.
    pub fn restored_mail(&self) -> &RestoredMail {
        &self.restored
    }

    /// What is remembered of management servers.
    pub fn managers(&self) -> &ManagerStore {
        &self.managers
    }

    /// Whether users can be listed.
    pub fn listing_state(&self) -> ListingState {
        self.listing.state()
    }

    /// Makes what was changed durable.
    ///
    /// # Errors
    /// [`StorageError::Users`]; the next successful call makes it durable too.
    pub fn flush(&self) -> Result<(), StorageError> {
        self.database.flush()?;
        Ok(())
    }

    /// Lists users, for a listing that is ready; [`UserDatabase::flush`] makes it durable. Gives the quotas that have changed by
    /// it, of identities that were known before. Hold [`UserDatabase::exclusive`].
    ///
    /// # Errors
    /// [`StorageError::Users`]; users before the one that failed are listed.
    pub fn list(&self, users: &[ListedUser]) -> Result<Vec<QuotaChange>, StorageError> {
        self.listing.add(users, &self.identities)
    }

    /// Lists users in a new listing, which is not in force before [`UserDatabase::activate_listing`]. The first ones begin
    /// it.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn list_aside(&self, users: &[ListedUser]) -> Result<(), StorageError> {
        self.listing.build(users)
    }

    /// Puts the new listing in force in one step, durably; `false` if there is none.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn activate_listing(&self) -> Result<bool, StorageError> {
        self.listing.activate()
    }

    /// Throws the new listing away; `false` if there is none. What is in force stays.
    ///
    /// # Errors
    /// [`StorageError::Users`]; the next start throws it away, too.
    pub fn abandon_listing(&self) -> Result<bool, StorageError> {
        self.listing.abandon()
    }

    /// Asks management servers to list all users anew. Those that are listed stay until then.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn flag_listing(&self) -> Result<(), StorageError> {
        self.listing.flag()
    }

    /// Whether an account is registered or listed, be it in a listing that is not in force yet.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn is_known(&self, account: &AccountUrl) -> Result<bool, StorageError> {
        Ok(self.accounts.contains_key(account.as_bytes())? || self.listing.is_listed(account)?)
    }

    /// Locks accounts out or lets them in again, durably; gives those that are known. Hold [`UserDatabase::exclusive`].
    ///
    /// # Errors
    /// [`StorageError::Users`], [`StorageError::UserRecordDamaged`]; nothing has changed then.
    pub fn lock_out(&self, accounts: &[(AccountUrl, bool)]) -> Result<Vec<AccountUrl>, StorageError> {
        let mut known = Vec::new();
        let mut changes = Vec::new();
        for (url, locked_out) in accounts {
            let registered: Option<AccountRecord> = read(&self.accounts, ACCOUNT, url.as_bytes())?;
            if registered.is_none() && !self.listing.is_listed(url)? {
                continue;
            }
            let record = AccountRecord { locked_out: *locked_out, ..registered.unwrap_or_default() };
            changes.push((url, record.encode()));
            known.push(url.clone());
        }
        // One by one, since a transaction over all would keep readers waiting; after a crash the caller asks again.
        for (url, record) in changes {
            self.accounts.insert(url.as_bytes(), record)?;
        }
        self.database.flush()?;
        Ok(known)
    }

    /// The change without what the listing says, so that it goes when the listing goes.
    fn unlisted<'a>(&self, change: &'a DirectoryChange) -> Result<Cow<'a, DirectoryChange>, StorageError> {
        let DirectoryChange::Account(url, Some(record)) = change else { return Ok(Cow::Borrowed(change)) };
        let Some(listed) = self.listing.account(url)? else { return Ok(Cow::Borrowed(change)) };
        let mut record = record.clone();
        record.identities.retain(|identity| !listed.identities.contains(identity));
        record.pre_auth_token = record.pre_auth_token.filter(|token| Some(token) != listed.token.as_ref());
        Ok(Cow::Owned(DirectoryChange::Account(url.clone(), Some(record))))
    }

    /// How many records there are. Reads every key: for tools.
    pub fn counts(&self) -> UserCounts {
        let (listed_accounts, listed_identities) = self.listing.counts();
        UserCounts {
            listed_accounts,
            listed_identities,
            devices: self.devices.len(),
            accounts: self.accounts.len(),
            identities: self.identities.len(),
        }
    }

    /// The record of a device; unlike [`Directory::device`] it tells a damaged record from a missing one.
    ///
    /// # Errors
    /// [`StorageError::UserRecordDamaged`], [`StorageError::Users`].
    pub fn read_device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, StorageError> {
        read(&self.devices, DEVICE, url.as_bytes())
    }

    /// The record of an account; unlike [`Directory::account`] it tells a damaged record from a missing one.
    ///
    /// # Errors
    /// [`StorageError::UserRecordDamaged`], [`StorageError::Users`].
    pub fn read_account(&self, url: &AccountUrl) -> Result<Option<AccountRecord>, StorageError> {
        let registered = read(&self.accounts, ACCOUNT, url.as_bytes())?;
        Ok(with_listed(registered, self.listing.account(url)?))
    }

    /// The record of an identity; unlike [`Directory::identity`] it tells a damaged record from a missing one.
    ///
    /// # Errors
    /// [`StorageError::UserRecordDamaged`], [`StorageError::Users`].
    pub fn read_identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, StorageError> {
        match self.listing.identity(url)? {
            Some(listed) => Ok(Some(listed)),
            None => read(&self.identities, IDENTITY, url.as_bytes()),
        }
    }

    /// All devices by URL, each with its record or what is wrong with it.
    pub fn devices(&self) -> impl Iterator<Item = Result<(DeviceUrl, DeviceRecord), StorageError>> + use<> {
        iterate(&self.devices, DEVICE, |key| DeviceUrl::new(key).ok())
    }

    /// All accounts, each with its record or what is wrong with it: first those that have registered or were changed by an
    /// operator, by URL, then those that are only listed.
    pub fn accounts(
        &self,
    ) -> impl Iterator<Item = Result<(AccountUrl, AccountRecord), StorageError>> + use<> {
        let (this, registered) = (self.clone(), self.accounts.clone());
        let merged = iterate(&self.accounts, ACCOUNT, |key| AccountUrl::new(key).ok()).map(move |entry| {
            let (url, record) = entry?;
            let listed = this.listing.account(&url)?;
            Ok((url, with_listed(Some(record), listed).unwrap_or_default()))
        });
        let listed = self.listing.accounts().into_iter();
        let listed = listed.flat_map(|tree| iterate(&tree, "listed", |key| AccountUrl::new(key).ok()));
        merged.chain(listed.filter_map(move |entry| {
            entry
                .and_then(|(url, listed): (AccountUrl, ListedAccount)| {
                    let is_registered = registered.contains_key(url.as_bytes())?;
                    let record = with_listed(None, Some(listed)).unwrap_or_default();
                    Ok((!is_registered).then_some((url, record)))
                })
                .transpose()
        }))
    }

    /// All identities that were registered, by URL, each with its record or what is wrong with it.
    pub fn identities(
        &self,
    ) -> impl Iterator<Item = Result<(IdentityUrl, IdentityRecord), StorageError>> + use<> {
        iterate(&self.identities, IDENTITY, |key| IdentityUrl::new(key).ok())
    }
}

/// A record that is read and makes no sense counts as missing, with a warning in the log: it can be made anew. One that
/// cannot be read is [`Unreadable`], with an error in the log.
impl Directory for UserDatabase {
    fn device(&self, url: &DeviceUrl) -> Result<Option<DeviceRecord>, Unreadable> {
        or_missing(self.read_device(url))
    }

    fn account(&self, url: &AccountUrl) -> Result<Option<AccountRecord>, Unreadable> {
        or_missing(self.read_account(url))
    }

    fn identity(&self, url: &IdentityUrl) -> Result<Option<IdentityRecord>, Unreadable> {
        or_missing(self.read_identity(url))
    }

    fn last_seen(&self, url: &DeviceUrl) -> Result<Option<u64>, Unreadable> {
        or_missing(self.seen.of(url))
    }
}

/// What is registered of an account, with what is listed of it.
fn with_listed(registered: Option<AccountRecord>, listed: Option<ListedAccount>) -> Option<AccountRecord> {
    let Some(listed) = listed else { return registered };
    let mut record = registered.unwrap_or_default();
    for identity in listed.identities {
        if !record.identities.contains(&identity) {
            record.identities.push(identity);
        }
    }
    record.pre_auth_token = record.pre_auth_token.or(listed.token);
    Some(record)
}

/// A change as sled takes it.
struct Change<'a> {
    tree: &'static str,
    key: &'a [u8],
    /// The new value; `None` removes the record.
    value: Option<sled::IVec>,
}

impl<'a> Change<'a> {
    fn encode(change: &'a DirectoryChange) -> Self {
        fn value(record: Option<&impl Stored>) -> Option<sled::IVec> {
            record.map(|record| record.encode().into())
        }
        match change {
            DirectoryChange::Device(url, record) => {
                Self { tree: DEVICE, key: url.as_bytes(), value: value(record.as_ref()) }
            }
            DirectoryChange::Account(url, record) => {
                Self { tree: ACCOUNT, key: url.as_bytes(), value: value(record.as_ref()) }
            }
            DirectoryChange::Identity(url, record) => {
                Self { tree: IDENTITY, key: url.as_bytes(), value: value(record.as_ref()) }
            }
        }
    }

    fn make(
        &self,
        tree: &TransactionalTree,
    ) -> Result<(), ConflictableTransactionError<std::convert::Infallible>> {
        match &self.value {
            Some(value) => tree.insert(self.key, value.clone())?,
            None => tree.remove(self.key)?,
        };
        Ok(())
    }
}

#[cfg(test)]
impl UserDatabase {
    pub(crate) fn listing(&self) -> &Listing {
        &self.listing
    }
}

fn read<R: Stored>(tree: &sled::Tree, name: &'static str, key: &[u8]) -> Result<Option<R>, StorageError> {
    let value = tree.get(key)?;
    value.map(|value| R::decode(&value).map_err(|reason| damaged(name, key, reason))).transpose()
}

fn iterate<U, R: Stored>(
    tree: &sled::Tree,
    name: &'static str,
    url: fn(&[u8]) -> Option<U>,
) -> impl Iterator<Item = Result<(U, R), StorageError>> + use<U, R> {
    tree.iter().map(move |entry| {
        let (key, value) = entry?;
        let url = url(&key).ok_or_else(|| damaged(name, &key, "its key is not a URL"))?;
        let record = R::decode(&value).map_err(|reason| damaged(name, &key, reason))?;
        Ok((url, record))
    })
}

fn damaged(tree: &'static str, key: &[u8], reason: &'static str) -> StorageError {
    StorageError::UserRecordDamaged { tree, key: String::from_utf8_lossy(key).into_owned(), reason }
}

fn or_missing<R>(record: Result<Option<R>, StorageError>) -> Result<Option<R>, Unreadable> {
    record.or_else(|error| match error {
        StorageError::UserRecordDamaged { .. } => {
            tracing::warn!(event = events::USER_RECORD_DAMAGED, %error, "a record of the user database counts as missing");
            Ok(None)
        }
        error => {
            tracing::error!(event = events::USERS_UNREADABLE, %error, "the user database cannot be read: those whom it is about are told to come later");
            Err(Unreadable)
        }
    })
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;

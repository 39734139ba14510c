//! The users as a management server lists them, in generations: one is in force, and at most one is being built aside. Which
//! is in force is one record, so that building ends in one step, or not at all. Knows nothing of registrations.

use crate::error::StorageError;
use crate::events;
use crate::users_format::{ListedAccount, Stored};
use relay_core::address::{AccountUrl, IdentityUrl};
use relay_core::directory::IdentityRecord;
use relay_core::spmr::ListedUser;
use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

const ACCOUNTS: &str = "listed-accounts-";
const IDENTITIES: &str = "listed-identities-";
const TREE: &str = "listing";
const STATE: &[u8] = b"state";
const FORMAT: u8 = 1;

/// Whether users can be added as they are told (management-soap-spmr 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListingState {
    /// They can.
    Ready,
    /// Not before all of them have been told anew, while the relay is quiescent.
    NeedsBuild,
    /// That is under way. A restart makes it [`ListingState::NeedsBuild`].
    Building,
}

/// The quota of an identity that has changed, with the account that decides its home.
pub type QuotaChange = (AccountUrl, IdentityUrl, Option<u64>);

/// All users of one generation.
#[derive(Clone, Debug)]
pub(crate) struct Generation {
    number: u64,
    pub(crate) accounts: sled::Tree,
    pub(crate) identities: sled::Tree,
}

impl Generation {
    fn open(database: &sled::Db, number: u64) -> Result<Self, StorageError> {
        Ok(Self {
            number,
            accounts: database.open_tree(format!("{ACCOUNTS}{number}"))?,
            identities: database.open_tree(format!("{IDENTITIES}{number}"))?,
        })
    }

    fn remove(&self, database: &sled::Db) -> Result<(), StorageError> {
        database.drop_tree(self.accounts.name())?;
        database.drop_tree(self.identities.name())?;
        Ok(())
    }
}

/// The generations. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Listing {
    database: sled::Db,
    tree: sled::Tree,
    /// Held for the exchange of a pointer only, so readers do not wait.
    in_force: Arc<RwLock<Option<Generation>>>,
    change: Arc<Mutex<Change>>,
}

#[derive(Debug)]
struct Change {
    needs_build: bool,
    building: Option<Generation>,
}

fn encode(needs_build: bool, in_force: Option<u64>) -> [u8; 10] {
    let mut bytes = [0; 10];
    (bytes[0], bytes[1]) = (FORMAT, u8::from(needs_build));
    // Generations count from 1.
    bytes[2..].copy_from_slice(&in_force.unwrap_or(0).to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(bool, Option<u64>)> {
    let (&[format, needs_build], number) = bytes.split_first_chunk()?;
    let number = u64::from_le_bytes(number.try_into().ok()?);
    (format == FORMAT).then_some((needs_build != 0, (number > 0).then_some(number)))
}

impl Listing {
    /// Opens the generation in force. What was being built is thrown away.
    pub(crate) fn open(database: &sled::Db) -> Result<Self, StorageError> {
        let tree = database.open_tree(TREE)?;
        let value = tree.get(STATE)?;
        let (needs_build, number) = match value.as_deref().map(decode) {
            Some(Some(state)) => state,
            Some(None) => {
                tracing::error!(
                    event = events::LISTING_DAMAGED,
                    "the state of the listed users is damaged; they need to be listed anew"
                );
                (true, None)
            }
            None => (true, None),
        };
        let in_force = number.map(|number| Generation::open(database, number)).transpose()?;
        let listing = Self {
            database: database.clone(),
            tree,
            in_force: Arc::new(RwLock::new(in_force)),
            change: Arc::new(Mutex::new(Change { needs_build, building: None })),
        };
        listing.remove_others(number)?;
        Ok(listing)
    }

    fn remove_others(&self, in_force: Option<u64>) -> Result<(), StorageError> {
        for name in self.database.tree_names() {
            let text = String::from_utf8_lossy(&name);
            let number = text.strip_prefix(ACCOUNTS).or_else(|| text.strip_prefix(IDENTITIES));
            if let Some(number) = number
                && number.parse().ok() != in_force
            {
                self.database.drop_tree(&name)?;
            }
        }
        Ok(())
    }

    fn change(&self) -> MutexGuard<'_, Change> {
        self.change.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn in_force(&self) -> Option<Generation> {
        self.in_force.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    pub(crate) fn state(&self) -> ListingState {
        let change = self.change();
        match (&change.building, change.needs_build) {
            (Some(_), _) => ListingState::Building,
            (None, true) => ListingState::NeedsBuild,
            (None, false) => ListingState::Ready,
        }
    }

    /// The listed account of the generation in force.
    pub(crate) fn account(&self, account: &AccountUrl) -> Result<Option<ListedAccount>, StorageError> {
        match self.in_force() {
            Some(generation) => get(&generation.accounts, account.as_bytes()),
            None => Ok(None),
        }
    }

    /// The listed identity of the generation in force.
    pub(crate) fn identity(&self, identity: &IdentityUrl) -> Result<Option<IdentityRecord>, StorageError> {
        match self.in_force() {
            Some(generation) => get(&generation.identities, identity.as_bytes()),
            None => Ok(None),
        }
    }

    /// The listed accounts in force.
    pub(crate) fn accounts(&self) -> Option<sled::Tree> {
        self.in_force().map(|generation| generation.accounts)
    }

    /// How many accounts and identities are listed.
    pub(crate) fn counts(&self) -> (usize, usize) {
        self.in_force().map_or((0, 0), |generation| (generation.accounts.len(), generation.identities.len()))
    }

    /// Whether an account is listed, in force or in what is being built.
    pub(crate) fn is_listed(&self, account: &AccountUrl) -> Result<bool, StorageError> {
        let building = self.change().building.clone();
        for generation in self.in_force().into_iter().chain(building) {
            if generation.accounts.contains_key(account.as_bytes())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Adds users to what is in force, each wholly or not at all; gives the quotas that changed of identities that were known
    /// before, be it because they are `registered`: nothing waits for others.
    pub(crate) fn add(
        &self,
        users: &[ListedUser],
        registered: &sled::Tree,
    ) -> Result<Vec<QuotaChange>, StorageError> {
        let Some(Generation { accounts, identities, .. }) = self.in_force() else { return Ok(Vec::new()) };
        let mut quotas = Vec::new();
        for user in users {
            // A transaction keeps readers waiting, so it holds one user only.
            let added = (&accounts, &identities)
                .transaction(|(accounts, identities)| put(accounts, identities, user));
            match added {
                Ok(changed) => {
                    for Changed { quota, was_listed } in changed {
                        if was_listed || registered.contains_key(quota.1.as_bytes())? {
                            quotas.push(quota);
                        }
                    }
                }
                Err(TransactionError::Storage(error)) => return Err(error.into()),
                Err(TransactionError::Abort(never)) => match never {},
            }
        }
        Ok(quotas)
    }

    /// Adds users to what is being built, which begins empty with the first.
    pub(crate) fn build(&self, users: &[ListedUser]) -> Result<(), StorageError> {
        let mut change = self.change();
        if change.building.is_none() {
            let number = self.in_force().map_or(0, |generation| generation.number) + 1;
            change.building = Some(Generation::open(&self.database, number)?);
        }
        // Held to the end: what an operator throws away meanwhile must not be written to.
        let Some(building) = &change.building else { return Ok(()) };
        for user in users {
            put(&building.accounts, &building.identities, user)?;
        }
        self.database.flush()?;
        Ok(())
    }

    /// Throws away what was being built; `false` if nothing was.
    pub(crate) fn abandon(&self) -> Result<bool, StorageError> {
        match self.change().building.take() {
            Some(building) => building.remove(&self.database).map(|()| true),
            None => Ok(false),
        }
    }

    /// Puts what was built in force, in one step and durably; the generation before it is removed. `false` if nothing was
    /// being built.
    pub(crate) fn activate(&self) -> Result<bool, StorageError> {
        let mut change = self.change();
        let Some(built) = change.building.clone() else { return Ok(false) };
        self.database.flush()?;
        self.tree.insert(STATE, &encode(false, Some(built.number)))?;
        self.database.flush()?;
        (change.needs_build, change.building) = (false, None);
        let mut in_force = self.in_force.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = in_force.replace(built);
        drop(in_force);
        if let Some(before) = before {
            before.remove(&self.database)?;
        }
        Ok(true)
    }

    /// Asks for the users to be listed anew. Those in force stay until then.
    pub(crate) fn flag(&self) -> Result<(), StorageError> {
        let mut change = self.change();
        self.tree.insert(STATE, &encode(true, self.in_force().map(|generation| generation.number)))?;
        self.database.flush()?;
        change.needs_build = true;
        Ok(())
    }
}

fn get<R: Stored>(tree: &sled::Tree, key: &[u8]) -> Result<Option<R>, StorageError> {
    let value = tree.get(key)?;
    value
        .map(|value| {
            R::decode(&value).map_err(|reason| StorageError::UserRecordDamaged {
                tree: "listed",
                key: String::from_utf8_lossy(key).into_owned(),
                reason,
            })
        })
        .transpose()
}

/// A tree, inside a transaction or not.
trait Shelf {
    type Error;

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Self::Error>;
    /// Gives what was there.
    fn put(&self, key: &[u8], value: Vec<u8>) -> Result<Option<sled::IVec>, Self::Error>;
    fn remove(&self, key: &[u8]) -> Result<(), Self::Error>;
}

impl Shelf for sled::Tree {
    type Error = sled::Error;

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, sled::Error> {
        sled::Tree::get(self, key)
    }

    fn put(&self, key: &[u8], value: Vec<u8>) -> Result<Option<sled::IVec>, sled::Error> {
        self.insert(key, value)
    }

    fn remove(&self, key: &[u8]) -> Result<(), sled::Error> {
        sled::Tree::remove(self, key).map(drop)
    }
}

impl Shelf for TransactionalTree {
    type Error = ConflictableTransactionError<std::convert::Infallible>;

    fn get(&self, key: &[u8]) -> Result<Option<sled::IVec>, Self::Error> {
        Ok(TransactionalTree::get(self, key)?)
    }

    fn put(&self, key: &[u8], value: Vec<u8>) -> Result<Option<sled::IVec>, Self::Error> {
        Ok(self.insert(key, value)?)
    }

    fn remove(&self, key: &[u8]) -> Result<(), Self::Error> {
        TransactionalTree::remove(self, key)?;
        Ok(())
    }
}

/// A record, if it can be read: one that cannot is as good as replaced.
fn readable<R: Stored>(value: Option<sled::IVec>) -> Option<R> {
    R::decode(&value?).ok()
}

/// A quota that changed.
struct Changed {
    quota: QuotaChange,
    was_listed: bool,
}

/// Lists a user as it is told. An identity that was another account's goes over; one that it had and has no more is nobody's.
fn put<S: Shelf>(accounts: &S, identities: &S, user: &ListedUser) -> Result<Vec<Changed>, S::Error> {
    let mut quotas = Vec::new();
    // To look first would be to find each place in the trees twice, which is what listing takes its time for.
    let listed = ListedAccount { identities: user.identities.clone(), token: user.token.clone() };
    let before: Option<ListedAccount> = readable(accounts.put(user.account.as_bytes(), listed.encode())?);
    let had = before.map_or(Vec::new(), |before| before.identities);
    for identity in had.into_iter().filter(|identity| !user.identities.contains(identity)) {
        let record: Option<IdentityRecord> = readable(identities.get(identity.as_bytes())?);
        if record.is_some_and(|record| record.account == user.account) {
            identities.remove(identity.as_bytes())?;
            quotas.push(Changed { quota: (user.account.clone(), identity, None), was_listed: true });
        }
    }
    for identity in &user.identities {
        let record = IdentityRecord {
            account: user.account.clone(),
            quota_bytes: user.quota_bytes,
            lifetime_seconds: user.lifetime_seconds,
        };
        let before: Option<IdentityRecord> = readable(identities.put(identity.as_bytes(), record.encode())?);
        if let Some(owner) = before.as_ref().map(|before| &before.account).filter(|url| **url != user.account)
        {
            take_away(accounts, owner, identity)?;
        }
        let was_listed = before.is_some();
        if before.and_then(|before| before.quota_bytes) != user.quota_bytes {
            let quota = (user.account.clone(), identity.clone(), user.quota_bytes);
            quotas.push(Changed { quota, was_listed });
        }
    }
    Ok(quotas)
}

fn take_away<S: Shelf>(accounts: &S, owner: &AccountUrl, identity: &IdentityUrl) -> Result<(), S::Error> {
    if let Some(mut listed) = readable::<ListedAccount>(accounts.get(owner.as_bytes())?) {
        listed.identities.retain(|found| found != identity);
        accounts.put(owner.as_bytes(), listed.encode())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::UserDatabase;
    use relay_core::directory::{AccountRecord, Credentials, Directory, DirectoryChange, Profile, SecretKey};

    fn account(name: &str) -> AccountUrl {
        AccountUrl::new(format!("account://{name}")).unwrap()
    }

    fn identity(name: &str) -> IdentityUrl {
        IdentityUrl::new(format!("identity://{name}")).unwrap()
    }

    fn user(name: &str, identities: &[&str], quota_bytes: Option<u64>) -> ListedUser {
        ListedUser {
            account: account(name),
            identities: identities.iter().map(|name| identity(name)).collect(),
            token: Some(SecretKey::new(name.as_bytes().to_vec())),
            quota_bytes,
            lifetime_seconds: Some(60),
        }
    }

    fn open() -> (UserDatabase, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (UserDatabase::open(directory.path()).unwrap(), directory)
    }

    /// A database with these users in force.
    fn with(users: &[ListedUser]) -> (UserDatabase, tempfile::TempDir) {
        let (database, directory) = open();
        database.list_aside(users).unwrap();
        assert!(database.activate_listing().unwrap());
        (database, directory)
    }

    fn identities(database: &UserDatabase, name: &str) -> Vec<IdentityUrl> {
        database.account(&account(name)).unwrap().unwrap().identities
    }

    #[test]
    fn a_new_database_needs_to_be_built_and_is_not_in_force_before_it_is_activated() {
        let (database, directory) = open();
        assert_eq!(database.listing_state(), ListingState::NeedsBuild);
        assert!(!database.activate_listing().unwrap());
        database.list_aside(&[user("a", &["a"], Some(7))]).unwrap();
        database.list_aside(&[user("b", &[], None)]).unwrap();
        assert_eq!(database.listing_state(), ListingState::Building);
        assert_eq!(database.account(&account("a")), Ok(None));
        assert!(database.activate_listing().unwrap());
        drop(database);
        let database = UserDatabase::open(directory.path()).unwrap();
        assert_eq!(database.listing_state(), ListingState::Ready);
        let record = database.account(&account("a")).unwrap().unwrap();
        assert_eq!(record.pre_auth_token.unwrap().expose(), b"a");
        let listed = database.identity(&identity("a")).unwrap().unwrap();
        assert_eq!((listed.account, listed.quota_bytes), (account("a"), Some(7)));
        assert_eq!(listed.lifetime_seconds, Some(60));
        let accounts: Vec<_> = database.accounts().map(|entry| entry.unwrap().0).collect();
        assert_eq!(accounts, [account("a"), account("b")]);
        assert_eq!(database.counts().listed_accounts, 2);
    }

    #[test]
    fn a_half_built_database_is_one_that_needs_to_be_built_after_a_restart() {
        let (database, directory) = with(&[user("old", &["old"], None)]);
        database.flag_listing().unwrap();
        assert_eq!(database.listing_state(), ListingState::NeedsBuild);
        database.list_aside(&[user("new", &["new"], None)]).unwrap();
        drop(database);
        let database = UserDatabase::open(directory.path()).unwrap();
        assert_eq!(database.listing_state(), ListingState::NeedsBuild);
        assert_eq!(database.account(&account("new")), Ok(None));
        assert!(database.account(&account("old")).unwrap().is_some(), "what was in force stays");
        database.list_aside(&[user("other", &[], None)]).unwrap();
        database.activate_listing().unwrap();
        assert_eq!(database.account(&account("new")), Ok(None), "nothing of the first attempt is left");
        assert_eq!(database.account(&account("old")), Ok(None), "who is not listed any more is not known");
        assert_eq!(database.identity(&identity("old")), Ok(None));
        assert!(database.account(&account("other")).unwrap().is_some());
    }

    #[test]
    fn an_abandoned_listing_leaves_what_is_in_force_and_the_next_begins_empty() {
        let (database, _directory) = with(&[user("old", &["old"], None)]);
        database.flag_listing().unwrap();
        assert!(!database.abandon_listing().unwrap());
        database.list_aside(&[user("new", &["new"], None)]).unwrap();
        assert!(database.abandon_listing().unwrap());
        assert_eq!(database.listing_state(), ListingState::NeedsBuild);
        assert!(database.account(&account("old")).unwrap().is_some());
        database.list_aside(&[user("other", &[], None)]).unwrap();
        assert!(database.activate_listing().unwrap());
        assert_eq!(database.account(&account("new")).unwrap(), None);
        assert!(database.account(&account("other")).unwrap().is_some());
    }

    #[test]
    fn what_clients_registered_outlives_a_listing() {
        let (database, _directory) = with(&[user("a", &["listed"], None)]);
        let mut record = database.account(&account("a")).unwrap().unwrap();
        let (profile, secret) = (Profile::Modern, SecretKey::new(vec![7; 32]));
        record.credentials = Some(Credentials { profile, secret, public_keys: vec![8; 32] });
        record.identities.push(identity("own"));
        let changes = [
            DirectoryChange::Account(account("a"), Some(record.clone())),
            DirectoryChange::Identity(identity("own"), Some(IdentityRecord::of(account("a")))),
        ];
        database.apply(&changes).unwrap();
        let merged = database.account(&account("a")).unwrap().unwrap();
        assert_eq!(merged.credentials, record.credentials);
        assert_eq!(merged.identities, [identity("own"), identity("listed")]);
        database.flag_listing().unwrap();
        database.list_aside(&[user("b", &["own"], None)]).unwrap();
        database.activate_listing().unwrap();
        let left = database.account(&account("a")).unwrap().unwrap();
        assert_eq!(left, AccountRecord { identities: vec![identity("own")], pre_auth_token: None, ..record });
        let owner = database.identity(&identity("own")).unwrap().unwrap().account;
        assert_eq!(owner, account("b"), "a listed identity is the listed account's");
    }

    #[test]
    fn adding_a_known_user_changes_it_in_place_and_tells_the_quotas_that_changed() {
        let (database, _directory) = with(&[user("a", &["1", "2"], Some(5)), user("b", &["3"], None)]);
        let changed = database.list(&[user("a", &["2", "3"], Some(6))]).unwrap();
        let expected = [
            (account("a"), identity("1"), None),
            (account("a"), identity("2"), Some(6)),
            (account("a"), identity("3"), Some(6)),
        ];
        assert_eq!(changed, expected);
        assert_eq!(database.list(&[user("a", &["2", "3"], Some(6))]).unwrap(), []);
        assert_eq!(identities(&database, "a"), [identity("2"), identity("3")]);
        assert_eq!(identities(&database, "b"), []);
        assert_eq!(database.identity(&identity("1")), Ok(None));
        assert_eq!(database.identity(&identity("3")).unwrap().unwrap().account, account("a"));
    }

    #[test]
    fn the_quotas_of_identities_that_nobody_knew_are_not_told() {
        let (database, _directory) = with(&[user("a", &[], None)]);
        let own = DirectoryChange::Identity(identity("registered"), Some(IdentityRecord::of(account("a"))));
        database.apply(&[own]).unwrap();
        let changed = database.list(&[user("b", &["new", "registered"], Some(6))]).unwrap();
        assert_eq!(changed, [(account("b"), identity("registered"), Some(6))]);
    }

    #[test]
    fn known_accounts_are_locked_out_and_let_in_again_whatever_lists_them() {
        let (database, _directory) = with(&[user("listed", &["i"], None)]);
        let record = AccountRecord { identities: vec![identity("x")], ..AccountRecord::default() };
        database.apply(&[DirectoryChange::Account(account("registered"), Some(record))]).unwrap();
        let all = ["listed", "registered", "unknown"].map(|name| (account(name), true));
        assert_eq!(database.lock_out(&all).unwrap(), [account("listed"), account("registered")]);
        assert_eq!(database.account(&account("unknown")), Ok(None));
        database.flag_listing().unwrap();
        database.list_aside(&[user("listed", &["i"], None), user("new", &[], None)]).unwrap();
        assert_eq!(database.lock_out(&[(account("new"), true)]).unwrap(), [account("new")]);
        database.activate_listing().unwrap();
        for name in ["listed", "registered", "new"] {
            assert!(database.account(&account(name)).unwrap().unwrap().locked_out, "{name} after a rebuild");
            database.lock_out(&[(account(name), false)]).unwrap();
            assert!(!database.account(&account(name)).unwrap().unwrap().locked_out);
        }
        assert_eq!(identities(&database, "registered"), [identity("x")]);
    }

    #[test]
    fn a_damaged_state_means_that_users_need_to_be_listed_anew() {
        let (database, directory) = with(&[user("a", &[], None)]);
        database.listing().tree.insert(STATE, &b"x"[..]).unwrap();
        drop(database);
        let database = UserDatabase::open(directory.path()).unwrap();
        assert_eq!(database.listing_state(), ListingState::NeedsBuild);
        assert_eq!(database.account(&account("a")), Ok(None));
    }
}

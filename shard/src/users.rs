//! What an operator does to the user database: lists users, lets them in by a token, locks them out, makes them register anew. Of a
//! relay that runs, only the last. Owns no rule of the protocol.

use client::SystemEntropy;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, InvalidUrl};
use relay_core::directory::{AccountRecord, DeviceRecord, DirectoryChange, SecretKey};
use relay_core::time::Entropy;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use storage::{StorageError, UserDatabase};

/// Random bytes of a token; it is their hexadecimal form.
const TOKEN_BYTES: usize = 16;

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UsersError {
    /// There is no user database: a wrong folder would otherwise get an empty one.
    #[error("{}: no user database; --data is the folder that relay.data_dir names", .0.display())]
    NoDatabase(PathBuf),
    /// The relay runs, or the database cannot be read.
    #[error("{0}. These commands are for a relay that is stopped")]
    Storage(#[from] StorageError),
    /// An account, device or identity is not a URL.
    #[error("{0}")]
    Url(#[from] InvalidUrl),
    /// No such account.
    #[error("{0}: no such account; `relayd user list` shows all")]
    NoSuchAccount(AccountUrl),
    /// No such device.
    #[error("{0}: no such device; `relayd user show` tells an account's devices")]
    NoSuchDevice(DeviceUrl),
    /// The account has registered already, so no token would be asked for.
    #[error("{0}: is registered already; `relayd user clear-keys` lets it register anew")]
    Registered(AccountUrl),
}

/// The users of a relay.
#[derive(Debug)]
pub struct Users(UserDatabase);

impl Users {
    /// Opens the user database in the data folder of a relay.
    ///
    /// # Errors
    /// [`UsersError::NoDatabase`], [`UsersError::Storage`] in particular if the relay runs.
    pub fn open(data: &Path) -> Result<Self, UsersError> {
        let path = data.join("users");
        if !path.is_dir() {
            return Err(UsersError::NoDatabase(path));
        }
        Ok(Self(UserDatabase::open(path)?))
    }

    /// The users of a running relay, whose keys may be cleared; the rest is for one that does not run.
    pub fn of(database: UserDatabase) -> Self {
        Self(database)
    }

    /// Lists the account, if it is not, with the identities that it may claim, and gives the new token with which it can
    /// register. An earlier token is no longer good.
    ///
    /// # Errors
    /// [`UsersError::Registered`], [`UsersError::Url`], [`UsersError::Storage`].
    pub fn token(&self, account: &str, identities: &[String]) -> Result<String, UsersError> {
        let account = AccountUrl::new(account)?;
        let mut record = self.0.read_account(&account)?.unwrap_or_default();
        if record.credentials.is_some() {
            return Err(UsersError::Registered(account));
        }
        for identity in identities {
            let identity = IdentityUrl::new(identity.as_str())?;
            if !record.identities.contains(&identity) {
                record.identities.push(identity);
            }
        }
        let mut bytes = [0; TOKEN_BYTES];
        SystemEntropy::default().fill(&mut bytes);
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        record.pre_auth_token = Some(SecretKey::new(token.clone().into_bytes()));
        self.store(account, record)?;
        Ok(token)
    }

    /// Locks an account out, or lets it in again: it cannot attach, its mail is refused, and its devices cannot connect if they
    /// are nobody else's.
    ///
    /// # Errors
    /// [`UsersError::NoSuchAccount`], [`UsersError::Url`], [`UsersError::Storage`].
    pub fn lock(&self, account: &str, locked_out: bool) -> Result<(), UsersError> {
        let (account, record) = self.find(account)?;
        self.store(account, AccountRecord { locked_out, ..record })
    }

    /// Locks a device out, or lets it in again: its connections are rejected, and mail for it alone is refused. Its accounts
    /// may use other devices.
    ///
    /// # Errors
    /// [`UsersError::NoSuchDevice`], [`UsersError::Url`], [`UsersError::Storage`].
    pub fn lock_device(&self, device: &str, locked_out: bool) -> Result<(), UsersError> {
        let device = DeviceUrl::new(device)?;
        let Some(record) = self.0.read_device(&device)? else {
            return Err(UsersError::NoSuchDevice(device));
        };
        let record = DeviceRecord { locked_out, ..record };
        Ok(self.0.apply(&[DirectoryChange::Device(device, Some(record))])?)
    }

    /// Forgets the account's keys, so that it can register with new ones; identities and devices stay.
    ///
    /// # Errors
    /// [`UsersError::NoSuchAccount`], [`UsersError::Url`], [`UsersError::Storage`].
    pub fn clear_keys(&self, account: &str) -> Result<(), UsersError> {
        self.change(|users| {
            let (account, record) = users.find(account)?;
            Ok(DirectoryChange::Account(account, Some(AccountRecord { credentials: None, ..record })))
        })
    }

    /// Forgets the device's keys, so that it can register with new ones; its accounts stay.
    ///
    /// # Errors
    /// [`UsersError::NoSuchDevice`], [`UsersError::Url`], [`UsersError::Storage`].
    pub fn clear_device_keys(&self, device: &str) -> Result<(), UsersError> {
        self.change(|users| {
            let device = DeviceUrl::new(device)?;
            let Some(record) = users.0.read_device(&device)? else {
                return Err(UsersError::NoSuchDevice(device));
            };
            Ok(DirectoryChange::Device(device, Some(DeviceRecord { credentials: None, ..record })))
        })
    }

    /// Makes a change of which nothing comes between reading and writing, though the relay runs.
    fn change(
        &self,
        decide: impl FnOnce(&Self) -> Result<DirectoryChange, UsersError>,
    ) -> Result<(), UsersError> {
        self.0.update(|_| match decide(self) {
            Ok(change) => (vec![change], Ok(())),
            Err(error) => (Vec::new(), Err(error)),
        })?
    }

    /// Asks management servers to list all users anew. Those that are listed stay until then.
    ///
    /// # Errors
    /// [`UsersError::Storage`].
    pub fn rebuild(&self) -> Result<(), UsersError> {
        Ok(self.0.flag_listing()?)
    }

    /// One line for each account.
    ///
    /// # Errors
    /// [`UsersError::Storage`].
    pub fn list(&self) -> Result<String, UsersError> {
        let mut text = String::new();
        for entry in self.0.accounts() {
            let (account, record) = entry?;
            // Writing to a String does not fail.
            let _ = writeln!(text, "{account}  {}", state(&record));
        }
        Ok(text)
    }

    /// All that may be shown of an account; no key and no token.
    ///
    /// # Errors
    /// [`UsersError::NoSuchAccount`], [`UsersError::Url`], [`UsersError::Storage`].
    pub fn show(&self, account: &str) -> Result<String, UsersError> {
        let (account, record) = self.find(account)?;
        let mut text = format!("{account}  {}\n", state(&record));
        if let Some(credentials) = &record.credentials {
            let _ = writeln!(text, "profile   {:?}", credentials.profile);
        }
        for identity in &record.identities {
            let _ = writeln!(text, "identity  {identity}");
        }
        for device in &record.devices {
            let locked_out = self.0.read_device(device)?.is_some_and(|device| device.locked_out);
            let _ = writeln!(text, "device    {device}{}", if locked_out { "  locked out" } else { "" });
        }
        Ok(text)
    }

    fn find(&self, account: &str) -> Result<(AccountUrl, AccountRecord), UsersError> {
        let account = AccountUrl::new(account)?;
        match self.0.read_account(&account)? {
            Some(record) => Ok((account, record)),
            None => Err(UsersError::NoSuchAccount(account)),
        }
    }

    fn store(&self, account: AccountUrl, record: AccountRecord) -> Result<(), UsersError> {
        Ok(self.0.apply(&[DirectoryChange::Account(account, Some(record))])?)
    }
}

fn state(record: &AccountRecord) -> &'static str {
    match (record.locked_out, &record.credentials, &record.pre_auth_token) {
        (true, _, _) => "locked out",
        (false, Some(_), _) => "registered",
        (false, None, Some(_)) => "may register with its token",
        (false, None, None) => "not registered",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_core::directory::{Credentials, Profile};

    const ACCOUNT: &str = "grooveAccount://alice@";

    fn users() -> (Users, tempfile::TempDir) {
        let data = tempfile::tempdir().unwrap();
        drop(UserDatabase::open(data.path().join("users")).unwrap());
        (Users::open(data.path()).unwrap(), data)
    }

    fn register(users: &Users) {
        let (account, mut record) = users.find(ACCOUNT).unwrap();
        let (profile, secret) = (Profile::Modern, SecretKey::new(vec![7; 32]));
        record.credentials = Some(Credentials { profile, secret, public_keys: vec![8; 32] });
        users.store(account, record).unwrap();
    }

    #[test]
    fn a_token_is_new_each_time_and_the_database_holds_the_last() {
        let (users, _data) = users();
        let identities = ["grooveIdentity://alice@".to_owned()];
        let first = users.token(ACCOUNT, &identities).unwrap();
        let second = users.token(ACCOUNT, &identities).unwrap();
        assert_ne!(first, second);
        let (_, record) = users.find(ACCOUNT).unwrap();
        assert_eq!(record.pre_auth_token.unwrap().expose(), second.as_bytes());
        assert_eq!(record.identities.len(), 1);
        assert!(!users.show(ACCOUNT).unwrap().contains(&second), "a token is shown once");
    }

    #[test]
    fn a_registered_account_gets_no_token_until_its_keys_are_cleared() {
        let (users, _data) = users();
        users.token(ACCOUNT, &[]).unwrap();
        register(&users);
        assert!(matches!(users.token(ACCOUNT, &[]), Err(UsersError::Registered(_))));
        users.clear_keys(ACCOUNT).unwrap();
        users.token(ACCOUNT, &[]).unwrap();
    }

    #[test]
    fn a_device_whose_keys_are_cleared_keeps_its_accounts() {
        let (users, _data) = users();
        let device = DeviceUrl::new("dpp://d").unwrap();
        assert!(matches!(users.clear_device_keys("dpp://d"), Err(UsersError::NoSuchDevice(_))));
        let secret = SecretKey::new(vec![7; 32]);
        let credentials = Some(Credentials { profile: Profile::Modern, secret, public_keys: vec![8; 32] });
        let accounts = vec![AccountUrl::new(ACCOUNT).unwrap()];
        let record = DeviceRecord { credentials, accounts: accounts.clone(), locked_out: false };
        users.0.apply(&[DirectoryChange::Device(device.clone(), Some(record))]).unwrap();
        users.clear_device_keys("dpp://d").unwrap();
        let record = users.0.read_device(&device).unwrap().unwrap();
        assert_eq!((record.credentials, record.accounts), (None, accounts));
    }

    #[test]
    fn an_account_is_locked_out_and_let_in_again() {
        let (users, _data) = users();
        assert!(matches!(users.lock(ACCOUNT, true), Err(UsersError::NoSuchAccount(_))));
        users.token(ACCOUNT, &[]).unwrap();
        register(&users);
        users.lock(ACCOUNT, true).unwrap();
        assert_eq!(users.list().unwrap(), format!("{ACCOUNT}  locked out\n"));
        users.lock(ACCOUNT, false).unwrap();
        assert_eq!(users.list().unwrap(), format!("{ACCOUNT}  registered\n"));
    }

    #[test]
    fn a_device_is_locked_out_and_let_in_again() {
        let (users, _data) = users();
        let device = DeviceUrl::new("dpp://relay.example/alice").unwrap();
        assert!(matches!(users.lock_device(device.as_str(), true), Err(UsersError::NoSuchDevice(_))));
        users.token(ACCOUNT, &[]).unwrap();
        let (account, mut record) = users.find(ACCOUNT).unwrap();
        record.devices.push(device.clone());
        let of_device = DeviceRecord { accounts: vec![account.clone()], ..Default::default() };
        users.0.apply(&[DirectoryChange::Device(device.clone(), Some(of_device.clone()))]).unwrap();
        users.store(account, record).unwrap();
        users.lock_device(device.as_str(), true).unwrap();
        assert!(users.show(ACCOUNT).unwrap().ends_with(&format!("device    {device}  locked out\n")));
        users.lock_device(device.as_str(), false).unwrap();
        assert_eq!(users.0.read_device(&device).unwrap(), Some(of_device));
    }

    #[test]
    fn the_database_of_a_running_relay_and_a_wrong_folder_are_told() {
        let (_users, data) = users();
        let Err(UsersError::Storage(StorageError::UsersLocked { .. })) = Users::open(data.path()) else {
            panic!("two have it open")
        };
        assert!(matches!(Users::open(Path::new("/nonexistent")), Err(UsersError::NoDatabase(_))));
    }
}

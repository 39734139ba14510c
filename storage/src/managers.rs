//! What the relay remembers of management servers: the key shared with each, the messages taken under it, the keys that
//! were shared before, and the defaults that were set. Judges no message.

use crate::error::StorageError;
use relay_core::spmr::{
    Defaults, MAX_FORMER_KEYS, MAX_REQUESTS_PER_KEY, MessageTrace, SHARED_KEY_BYTES, SharedKey,
};

const TREE: &str = "management";
const FORMER: &str = "management-former-keys";
const DEFAULTS: &[u8] = b"defaults";
const FORMAT: u8 = 1;

/// The durable memory of management servers. Clones share it. One thread changes it.
#[derive(Clone, Debug)]
pub struct ManagerStore {
    database: sled::Db,
    tree: sled::Tree,
    former: sled::Tree,
}

/// What became of a key that a management server offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// It is shared from now on, or was already.
    Yes,
    /// The management server has had [`MAX_FORMER_KEYS`] keys.
    TooManyKeys,
}

/// A key as it is stored.
struct KeyRecord {
    key: SharedKey,
    /// Messages taken under it.
    taken: u32,
    /// Keys before it, and so a number for it.
    before: u32,
}

impl KeyRecord {
    const BYTES: usize = 1 + SHARED_KEY_BYTES + 8;

    fn encode(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = FORMAT;
        bytes[1..=SHARED_KEY_BYTES].copy_from_slice(self.key.expose());
        bytes[Self::BYTES - 8..Self::BYTES - 4].copy_from_slice(&self.taken.to_le_bytes());
        bytes[Self::BYTES - 4..].copy_from_slice(&self.before.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::BYTES] = bytes.try_into().ok()?;
        let (key, numbers) = bytes.strip_prefix(&[FORMAT])?.split_at(SHARED_KEY_BYTES);
        let (taken, before) = numbers.split_at(4);
        Some(Self {
            key: SharedKey::from_bytes(key)?,
            taken: u32::from_le_bytes(taken.try_into().ok()?),
            before: u32::from_le_bytes(before.try_into().ok()?),
        })
    }
}

fn key_name(server: &str) -> Vec<u8> {
    [b"key/", server.as_bytes()].concat()
}

fn former_name(server: &str, trace: &[u8; 32]) -> Vec<u8> {
    // Traces have one length, so no two servers' names meet.
    [&trace[..], server.as_bytes()].concat()
}

impl ManagerStore {
    pub(crate) fn open(database: &sled::Db) -> Result<Self, StorageError> {
        Ok(Self {
            tree: database.open_tree(TREE)?,
            former: database.open_tree(FORMER)?,
            database: database.clone(),
        })
    }

    /// A record that cannot be read counts as missing: the management server registers again then.
    fn record(&self, server: &str) -> Result<Option<KeyRecord>, StorageError> {
        Ok(self.tree.get(key_name(server))?.and_then(|value| KeyRecord::decode(&value)))
    }

    /// The messages taken under a key, in a tree of its own, so that they can be forgotten at once.
    fn taken(&self, server: &str, record: &KeyRecord) -> Result<sled::Tree, StorageError> {
        Ok(self.database.open_tree(taken_name(server, record.before))?)
    }

    /// The key shared with a management server; `None` also if it has been used [`MAX_REQUESTS_PER_KEY`] times.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn shared_key(&self, server: &str) -> Result<Option<SharedKey>, StorageError> {
        let record = self.record(server)?.filter(|record| record.taken < MAX_REQUESTS_PER_KEY);
        Ok(record.map(|record| record.key))
    }

    /// Whether a message was taken under the present key.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn was_taken(&self, server: &str, message: &MessageTrace) -> Result<bool, StorageError> {
        match self.record(server)? {
            Some(record) => Ok(self.taken(server, &record)?.contains_key(message)?),
            None => Ok(false),
        }
    }

    /// Takes a message. It is durable with the next change that is: nothing that it asks for can be without it.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn take(&self, server: &str, message: &MessageTrace) -> Result<(), StorageError> {
        if let Some(mut record) = self.record(server)? {
            self.taken(server, &record)?.insert(message, &[])?;
            record.taken = record.taken.saturating_add(1);
            self.tree.insert(key_name(server), &record.encode())?;
        }
        Ok(())
    }

    /// Whether a key with this [`SharedKey::trace`] was shared before the present one.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn is_former_key(&self, server: &str, trace: &[u8; 32]) -> Result<bool, StorageError> {
        Ok(self.former.contains_key(former_name(server, trace))?)
    }

    /// Shares a key, durably; the messages of the one before are forgotten, that one itself is remembered.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn share(&self, server: &str, key: &SharedKey) -> Result<Shared, StorageError> {
        let before = match self.record(server)? {
            Some(record) if record.key == *key => return Ok(Shared::Yes),
            Some(record) if record.before >= MAX_FORMER_KEYS => return Ok(Shared::TooManyKeys),
            Some(record) => {
                self.former.insert(former_name(server, &record.key.trace()), &[])?;
                self.database.drop_tree(taken_name(server, record.before))?;
                record.before + 1
            }
            None => 0,
        };
        let record = KeyRecord { key: key.clone(), taken: 0, before };
        // Left over if the record of an earlier key was damaged.
        self.taken(server, &record)?.clear()?;
        self.tree.insert(key_name(server), &record.encode())?;
        self.database.flush()?;
        Ok(Shared::Yes)
    }

    /// The defaults that management servers have set.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn defaults(&self) -> Result<Defaults, StorageError> {
        let value = self.tree.get(DEFAULTS)?;
        Ok(value.and_then(|value| decode_defaults(&value)).unwrap_or_default())
    }

    /// Sets those that are given, durably.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn set_defaults(&self, defaults: Defaults) -> Result<(), StorageError> {
        let defaults = self.defaults()?.with(defaults);
        self.tree.insert(DEFAULTS, &encode_defaults(&defaults))?;
        self.database.flush()?;
        Ok(())
    }
}

fn taken_name(server: &str, before: u32) -> String {
    format!("management-taken-{before}-{server}")
}

const DEFAULTS_BYTES: usize = 1 + 9 + 5 + 1;

fn encode_defaults(defaults: &Defaults) -> [u8; DEFAULTS_BYTES] {
    let mut bytes = [0; DEFAULTS_BYTES];
    bytes[0] = FORMAT;
    bytes[1] = u8::from(defaults.quota_bytes.is_some());
    bytes[2..10].copy_from_slice(&defaults.quota_bytes.unwrap_or(0).to_le_bytes());
    bytes[10] = u8::from(defaults.lifetime_seconds.is_some());
    bytes[11..15].copy_from_slice(&defaults.lifetime_seconds.unwrap_or(0).to_le_bytes());
    bytes[15] = defaults.pre_authentication.map_or(0, |required| 1 + u8::from(required));
    bytes
}

fn decode_defaults(bytes: &[u8]) -> Option<Defaults> {
    let bytes: &[u8; DEFAULTS_BYTES] = bytes.try_into().ok()?;
    let quota = u64::from_le_bytes(bytes[2..10].try_into().ok()?);
    let lifetime = u32::from_le_bytes(bytes[11..15].try_into().ok()?);
    (bytes[0] == FORMAT).then_some(Defaults {
        quota_bytes: (bytes[1] != 0).then_some(quota),
        lifetime_seconds: (bytes[10] != 0).then_some(lifetime),
        pre_authentication: bytes[15].checked_sub(1).map(|required| required != 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::users::UserDatabase;

    fn key(byte: u8) -> SharedKey {
        SharedKey::from_bytes(&[byte; 20]).unwrap()
    }

    fn store(path: &std::path::Path) -> ManagerStore {
        UserDatabase::open(path).unwrap().managers().clone()
    }

    #[test]
    fn a_shared_key_and_the_messages_taken_under_it_survive_a_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let managers = store(directory.path());
        assert_eq!(managers.shared_key("a").unwrap(), None);
        assert_eq!(managers.share("a", &key(1)).unwrap(), Shared::Yes);
        managers.take("a", &[7; 16]).unwrap();
        managers.set_defaults(Defaults::default()).unwrap();
        drop(managers);
        let managers = store(directory.path());
        assert_eq!(managers.shared_key("a").unwrap(), Some(key(1)));
        assert_eq!(managers.shared_key("ab").unwrap(), None);
        assert!(managers.was_taken("a", &[7; 16]).unwrap());
        assert!(!managers.was_taken("a", &[8; 16]).unwrap());
        assert!(!managers.was_taken("b", &[7; 16]).unwrap());
    }

    #[test]
    fn a_new_key_makes_the_old_one_a_former_key_and_forgets_its_messages() {
        let directory = tempfile::tempdir().unwrap();
        let managers = store(directory.path());
        for byte in [1, 2, 2] {
            assert_eq!(managers.share("a", &key(byte)).unwrap(), Shared::Yes);
            managers.take("a", &[byte; 16]).unwrap();
        }
        assert!(!managers.was_taken("a", &[1; 16]).unwrap());
        assert!(managers.was_taken("a", &[2; 16]).unwrap());
        assert!(managers.is_former_key("a", &key(1).trace()).unwrap());
        assert!(!managers.is_former_key("b", &key(1).trace()).unwrap());
        assert!(!managers.is_former_key("a", &key(2).trace()).unwrap());
    }

    #[test]
    fn a_key_is_good_for_so_many_messages_and_a_server_for_so_many_keys() {
        let directory = tempfile::tempdir().unwrap();
        let managers = store(directory.path());
        let put = |record: &KeyRecord| managers.tree.insert(key_name("a"), &record.encode()).unwrap();
        put(&KeyRecord { key: key(1), taken: MAX_REQUESTS_PER_KEY - 1, before: 3 });
        assert_eq!(managers.shared_key("a").unwrap(), Some(key(1)));
        managers.take("a", &[1; 16]).unwrap();
        assert_eq!(managers.shared_key("a").unwrap(), None);
        put(&KeyRecord { key: key(1), taken: 0, before: MAX_FORMER_KEYS });
        assert_eq!(managers.share("a", &key(2)).unwrap(), Shared::TooManyKeys);
        assert_eq!(managers.shared_key("a").unwrap(), Some(key(1)));
    }

    #[test]
    fn a_damaged_key_is_no_key() {
        let directory = tempfile::tempdir().unwrap();
        let managers = store(directory.path());
        managers.tree.insert(key_name("a"), &b"spoilt"[..]).unwrap();
        assert_eq!(managers.shared_key("a").unwrap(), None);
        managers.share("a", &key(1)).unwrap();
        assert_eq!(managers.shared_key("a").unwrap(), Some(key(1)));
    }

    #[test]
    fn defaults_are_changed_one_by_one_and_survive_a_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let managers = store(directory.path());
        assert_eq!(managers.defaults().unwrap(), Defaults::default());
        let changes = [
            Defaults { quota_bytes: Some(u64::MAX), ..Defaults::default() },
            Defaults { lifetime_seconds: Some(9), ..Defaults::default() },
            Defaults { pre_authentication: Some(false), ..Defaults::default() },
        ];
        let all = changes.into_iter().fold(Defaults::default(), Defaults::with);
        changes.into_iter().for_each(|change| managers.set_defaults(change).unwrap());
        drop(managers);
        assert_eq!(store(directory.path()).defaults().unwrap(), all);
    }
}

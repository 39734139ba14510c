//! Which messages of which logs have been restored from a backup, so that doing it again restores nothing twice. A message gets a
//! new id when it is restored, so its old one has to be remembered apart: a bit for each, in stretches of ids.

use crate::error::StorageError;
use relay_core::store::RecordId;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

const TREE: &str = "restored";
/// Ids of one stretch, a bit for each.
const STRETCH: u64 = 4096;
const STRETCH_BYTES: usize = (STRETCH / 8) as usize;

/// See the module's head. Clones share it.
#[derive(Clone, Debug)]
pub struct RestoredMail(sled::Tree);

impl RestoredMail {
    pub(crate) fn open(database: &sled::Db) -> Result<Self, StorageError> {
        Ok(Self(database.open_tree(TREE)?))
    }

    /// Whether a message of the log with this salt has been restored.
    ///
    /// # Errors
    /// [`StorageError::Users`].
    pub fn contains(&self, log: u64, id: RecordId) -> Result<bool, StorageError> {
        let (byte, bit) = place(id);
        let bits = self.0.get(key(log, id))?;
        Ok(bits.and_then(|bits| bits.get(byte).copied()).is_some_and(|bits| bits & bit != 0))
    }

    /// Notes that messages of logs, each named by its salt, have been restored. Durable once it returns.
    ///
    /// # Errors
    /// [`StorageError::Users`]; some may have been noted.
    pub fn insert(&self, restored: &[(u64, RecordId)]) -> Result<(), StorageError> {
        let mut stretches: BTreeMap<[u8; 16], Vec<u8>> = BTreeMap::new();
        for &(log, id) in restored {
            let key = key(log, id);
            let stretch = match stretches.entry(key) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let mut bits = self.0.get(key)?.map(|bits| bits.to_vec()).unwrap_or_default();
                    bits.resize(STRETCH_BYTES, 0);
                    place.insert(bits)
                }
            };
            let (byte, bit) = place(id);
            stretch[byte] |= bit;
        }
        for (key, bits) in stretches {
            self.0.insert(key, bits)?;
        }
        self.0.flush()?;
        Ok(())
    }
}

fn key(log: u64, id: RecordId) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&log.to_be_bytes());
    key[8..].copy_from_slice(&(id.0 / STRETCH).to_be_bytes());
    key
}

fn place(id: RecordId) -> (usize, u8) {
    let within = id.0 % STRETCH;
    ((within / 8) as usize, 1 << (within % 8))
}

#[cfg(test)]
mod tests {
    use crate::UserDatabase;
    use relay_core::store::RecordId;

    #[test]
    fn exactly_what_was_restored_is_remembered_over_a_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let ids = [(7, 1), (7, 2), (7, 4095), (7, 4096), (7, u64::MAX), (8, 3)];
        let ids: Vec<_> = ids.into_iter().map(|(log, id)| (log, RecordId(id))).collect();
        UserDatabase::open(folder.path()).unwrap().restored_mail().insert(&ids[..3]).unwrap();
        let users = UserDatabase::open(folder.path()).unwrap();
        users.restored_mail().insert(&ids[3..]).unwrap();
        for log in [6, 7, 8] {
            for id in [0, 1, 2, 3, 4094, 4095, 4096, 4097, u64::MAX] {
                let expected = ids.contains(&(log, RecordId(id)));
                let found = users.restored_mail().contains(log, RecordId(id)).unwrap();
                assert_eq!(found, expected, "{log} {id}");
            }
        }
    }
}

//! When devices were last connected: one number for each device, written at most once a day by the side thread. A tree of its
//! own, so that noting it neither waits for nor disturbs whoever changes records.

use crate::error::StorageError;
use relay_core::address::DeviceUrl;

const SEEN: &str = "seen";
/// Not a URL: when this began to be written down. Devices without a time of their own count as seen then.
const BEGUN: &[u8] = b"";

/// See the module's head.
#[derive(Clone, Debug)]
pub(crate) struct SeenTimes(sled::Tree);

impl SeenTimes {
    pub(crate) fn open(database: &sled::Db) -> Result<Self, StorageError> {
        Ok(Self(database.open_tree(SEEN)?))
    }

    /// Sets the time from which on nobody is overlooked, unless there is one.
    pub(crate) fn begin(&self, now: u64) -> Result<(), StorageError> {
        if self.0.get(BEGUN)?.is_none() {
            self.0.insert(BEGUN, &now.to_le_bytes())?;
        }
        Ok(())
    }

    pub(crate) fn note(&self, device: &DeviceUrl, at: u64) -> Result<(), StorageError> {
        self.0.insert(device.as_bytes(), &at.to_le_bytes())?;
        Ok(())
    }

    pub(crate) fn forget(&self, device: &DeviceUrl) -> Result<(), StorageError> {
        self.0.remove(device.as_bytes())?;
        Ok(())
    }

    pub(crate) fn of(&self, device: &DeviceUrl) -> Result<Option<u64>, StorageError> {
        let value = match self.0.get(device.as_bytes())? {
            Some(value) => Some(value),
            None => self.0.get(BEGUN)?,
        };
        // A value of another length is damaged: as good as none.
        Ok(value.and_then(|value| Some(u64::from_le_bytes(value.as_ref().try_into().ok()?))))
    }
}

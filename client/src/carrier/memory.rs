//! What a client remembers of the way that worked last, in a file of its directory. Losing it costs a search, no more.

use super::Carrier;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MEMORY_FILE: &str = "carrier.toml";
/// After so long the better ways are tried again: firewalls change, and laptops travel.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Serialize, Deserialize)]
struct File {
    carrier: String,
    /// Seconds since the epoch.
    found: u64,
}

/// Where it is remembered, if anywhere.
#[derive(Clone, Debug)]
pub(crate) struct Memory(pub(crate) Option<PathBuf>);

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

impl Memory {
    /// The carrier that worked less than a day ago.
    pub(crate) fn recall(&self) -> Option<Carrier> {
        let text = fs::read_to_string(self.0.as_ref()?.join(MEMORY_FILE)).ok()?;
        let file: File = toml::from_str(&text).ok()?;
        let fresh = now().checked_sub(file.found)? < MEMORY.as_secs();
        fresh.then(|| file.carrier.parse().ok()).flatten()
    }

    /// Remembers the carrier that works.
    pub(crate) fn keep(&self, carrier: Carrier) {
        let Some(directory) = &self.0 else { return };
        let file = File { carrier: carrier.name().into(), found: now() };
        let text = toml::to_string(&file).expect("a word and a number have a TOML form");
        let draft = directory.join("carrier.new");
        let written: io::Result<()> =
            fs::write(&draft, text).and_then(|()| fs::rename(&draft, directory.join(MEMORY_FILE)));
        if let Err(error) = written {
            tracing::debug!(%error, "the carrier that works is not remembered");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_is_remembered_for_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let memory = Memory(Some(directory.path().to_owned()));
        assert_eq!(memory.recall(), None);
        memory.keep(Carrier::Polling);
        assert_eq!(memory.recall(), Some(Carrier::Polling));
        let path = directory.path().join(MEMORY_FILE);
        for (found, expected) in
            [(now() - MEMORY.as_secs() + 60, Some(Carrier::Socks)), (now() - MEMORY.as_secs(), None)]
        {
            fs::write(&path, format!("carrier = \"socks\"\nfound = {found}\n")).unwrap();
            assert_eq!(memory.recall(), expected);
        }
        fs::write(&path, "nonsense").unwrap();
        assert_eq!(memory.recall(), None);
        Memory(None).keep(Carrier::Direct);
    }
}

//! A note that a relay is being made quiescent for a rebuild, beside the keys. If it is still there, the rebuild was interrupted: no
//! answer of the relay tells a half-built user database from one that is ready, so it is this side that has to know.

use super::failure::Failure;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// See the module's head.
pub(super) struct Note {
    path: PathBuf,
    relay: String,
}

impl Note {
    /// Of the relay at a URL.
    pub(super) fn beside(keys: &Path, relay: &str) -> Self {
        let mut path = keys.as_os_str().to_owned();
        path.push(".rebuilding");
        Self { path: path.into(), relay: relay.to_owned() }
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> Failure {
        let path = self.path.clone();
        move |error| Failure::File { path, error }
    }

    /// The relays that are noted, a line each.
    fn relays(&self) -> Result<Vec<String>, Failure> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(text.lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(self.failed()(error)),
        }
    }

    /// Whether a rebuild of the relay was interrupted.
    pub(super) fn is_there(&self) -> Result<bool, Failure> {
        Ok(self.relays()?.contains(&self.relay))
    }

    /// A rebuild begins.
    pub(super) fn write(&self) -> Result<(), Failure> {
        if self.is_there()? {
            return Ok(());
        }
        let append = || {
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
            writeln!(file, "{}", self.relay)?;
            file.sync_all()
        };
        append().map_err(self.failed())
    }

    /// The relay serves, with all that was listed or with what it had before.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        let mut relays = self.relays()?;
        let before = relays.len();
        relays.retain(|relay| *relay != self.relay);
        match relays.len() {
            left if left == before => Ok(()),
            0 => std::fs::remove_file(&self.path).map_err(self.failed()),
            _ => std::fs::write(&self.path, relays.join("\n") + "\n").map_err(self.failed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_relay_has_a_note_of_its_own_and_the_last_one_takes_the_file_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("manager.key");
        let [one, two] = ["http://one/", "http://two/"].map(|relay| Note::beside(&keys, relay));
        assert!(!one.is_there().unwrap());
        one.remove().unwrap();
        for note in [&one, &two, &one] {
            note.write().unwrap();
        }
        one.remove().unwrap();
        assert_eq!((one.is_there().unwrap(), two.is_there().unwrap()), (false, true));
        two.remove().unwrap();
        assert!(!folder.path().join("manager.key.rebuilding").exists());
    }
}

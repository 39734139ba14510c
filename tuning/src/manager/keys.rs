//! The file with a management server's keys: for its owner only, replaced in one step.

use super::failure::Failure;
use client::SystemEntropy;
use relay_core::directory::Profile;
use relay_core::spmr::{ManagerKeys, ManagerPublicKey};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use zeroize::Zeroizing;

/// The longest file that is read.
const MAX_FILE_BYTES: u64 = 64 * 1024;

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    let path = path.to_owned();
    move |error| Failure::File { path, error }
}

/// Makes keys in a new file.
pub(super) fn make(path: &Path, name: &str, legacy: bool) -> Result<ManagerPublicKey, Failure> {
    let profile = if legacy { Profile::Legacy } else { Profile::Modern };
    let keys = ManagerKeys::generate(name, profile, &mut SystemEntropy::default())?;
    write_new(path, &keys).map_err(failed(path))?;
    Ok(keys.public())
}

fn write_new(path: &Path, keys: &ManagerKeys) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(&keys.encode())?;
    file.sync_all()
}

/// Reads the keys.
pub(super) fn read(path: &Path) -> Result<ManagerKeys, Failure> {
    let file = File::open(path).map_err(failed(path))?;
    let mode = file.metadata().map_err(failed(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Failure::Mode { path: path.to_owned(), mode });
    }
    let mut text = Zeroizing::new(Vec::new());
    file.take(MAX_FILE_BYTES).read_to_end(&mut text).map_err(failed(path))?;
    ManagerKeys::decode(&text).map_err(|error| Failure::Keys { path: path.to_owned(), error })
}

/// Writes the keys in the place of what the file held.
pub(super) fn replace(path: &Path, keys: &ManagerKeys) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    // Left over from one that was interrupted.
    let _ = std::fs::remove_file(beside);
    write_new(beside, keys).and_then(|()| std::fs::rename(beside, path)).map_err(failed(path))
}

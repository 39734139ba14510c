//! A new relay's files: its configuration, its keys, and the identity file that its clients are given.

use client::{DeviceUrl, InvalidUrl, RelayIdentity, SystemEntropy};
use relay_core::security::RelayKeys;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use tuning::Config;

/// The files that [`init`] made.
#[derive(Debug)]
pub struct Initialised {
    /// The configuration.
    pub config: PathBuf,
    /// The relay's private keys, mode 0600.
    pub keys: PathBuf,
    /// What clients need to know: `sstp init --relay FILE`.
    pub identity: PathBuf,
    /// The fingerprint of the public keys.
    pub fingerprint: String,
}

/// Why the files were not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// The relay's URL is not one.
    #[error("--url: {0}")]
    Url(#[from] InvalidUrl),
    /// A file cannot be written; one that exists is never overwritten.
    #[error("{}: {error}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Makes `directory` (mode 0700) with a commented `furrow.toml`, `relay.key` (mode 0600) and `relay-identity.toml`.
/// `config` says what differs from the defaults; its `key_file` is ignored.
///
/// # Errors
/// [`InitError`]. A file that is there already is left alone, and so are those that would have followed.
pub fn init(directory: &Path, config: &Config) -> Result<Initialised, InitError> {
    let relay_url = DeviceUrl::new(config.relay.url.first().map_or("", String::as_str))?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| InitError::File { path, error }
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
    let keys = RelayKeys::generate(&mut SystemEntropy::default());
    let public_keys = keys.public().clone();
    let fingerprint = public_keys.fingerprint();
    let addresses = config.listen.sstp.iter().map(ToString::to_string).collect();
    let identity = RelayIdentity { relay_url, addresses, public_keys, tls: None };
    let made = Initialised {
        config: directory.join("furrow.toml"),
        keys: directory.join("relay.key"),
        identity: directory.join("relay-identity.toml"),
        fingerprint,
    };
    create(&made.config, 0o600, tuning::commented_toml(config).as_bytes()).map_err(failed(&made.config))?;
    create(&made.keys, 0o600, &keys.encode()).map_err(failed(&made.keys))?;
    create(&made.identity, 0o644, identity.to_toml().as_bytes()).map_err(failed(&made.identity))?;
    Ok(made)
}

fn create(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_for_their_owner_only_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::new("grooveDNS://relay.example.com");
        let made = init(directory.path(), &config).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&made.keys), 0o600);
        let keys = std::fs::read(&made.keys).unwrap();
        assert!(matches!(init(directory.path(), &config), Err(InitError::File { .. })));
        assert_eq!(std::fs::read(&made.keys).unwrap(), keys);
    }

    #[test]
    fn what_init_writes_is_what_run_and_sstp_read() {
        let directory = tempfile::tempdir().unwrap();
        let made = init(directory.path(), &Config::new("grooveDNS://relay.example.com")).unwrap();
        let config = Config::load(&made.config).unwrap();
        assert_eq!(config.relay.key_file, made.keys);
        let identity = RelayIdentity::load(&made.identity).unwrap();
        assert_eq!(identity.fingerprint(), made.fingerprint);
        assert_eq!(identity.addresses, ["127.0.0.1:2492"]);
    }
}

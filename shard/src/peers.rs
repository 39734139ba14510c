//! The other relays of the configuration: reads their identity files and derives what both sides prove.

use client::{DeviceUrl, InvalidUrl, RelayIdentity, RelayIdentityError};
use relay_core::relay::PeerRelay;
use relay_core::security::sealed::UnusableKey;
use relay_core::security::{PeerSecrets, RelayKeys};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tuning::Config;

/// Why another relay is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Its identity file.
    #[error("peers.identity_files: {}: {error}", .path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: RelayIdentityError,
    },
    /// Its URL is one of our own.
    #[error("peers.identity_files: {}: {url} is this relay itself", .path.display())]
    Ourselves {
        /// The file.
        path: PathBuf,
        /// The URL.
        url: DeviceUrl,
    },
    /// Two files are about the same relay.
    #[error("peers.identity_files: {}: {url} is in another file already", .path.display())]
    Twice {
        /// The second file.
        path: PathBuf,
        /// The URL.
        url: DeviceUrl,
    },
    /// Its public key is none.
    #[error("peers.identity_files: {}: {error}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: UnusableKey,
    },
    /// Our own first URL, which is part of what is proven.
    #[error("relay.url: {0}")]
    OwnUrl(#[from] InvalidUrl),
}

/// Reads every identity file.
///
/// # Errors
/// [`PeerError`], the first one.
pub fn read_peers(config: &Config, keys: &RelayKeys) -> Result<Arc<[PeerRelay]>, PeerError> {
    let own = DeviceUrl::new(config.relay.url.first().map_or("", String::as_str))?;
    let mut peers: Vec<PeerRelay> = Vec::new();
    for path in &config.peers.identity_files {
        let peer = read_peer(path, &own, keys)?;
        let url = || peer.url.clone();
        if config.relay.url.iter().any(|own| own == peer.url.as_str()) {
            return Err(PeerError::Ourselves { path: path.clone(), url: url() });
        }
        if peers.iter().any(|known| known.url == peer.url) {
            return Err(PeerError::Twice { path: path.clone(), url: url() });
        }
        peers.push(peer);
    }
    Ok(peers.into())
}

fn read_peer(path: &Path, own: &DeviceUrl, keys: &RelayKeys) -> Result<PeerRelay, PeerError> {
    let identity =
        RelayIdentity::load(path).map_err(|error| PeerError::Identity { path: path.to_owned(), error })?;
    let secrets = PeerSecrets::derive(keys, own, &identity.public_keys, &identity.relay_url)
        .map_err(|error| PeerError::Key { path: path.to_owned(), error })?;
    Ok(PeerRelay { url: identity.relay_url, addresses: identity.addresses.into(), secrets })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::init;
    use client::SystemEntropy;

    fn relay(directory: &Path, name: &str) -> PathBuf {
        init(&directory.join(name), &Config::new(format!("grooveDNS://{name}"))).unwrap().identity
    }

    fn read(own: &str, files: &[&PathBuf]) -> Result<Arc<[PeerRelay]>, PeerError> {
        let mut config = Config::new(own);
        config.peers.identity_files = files.iter().map(|&file| file.clone()).collect();
        read_peers(&config, &RelayKeys::generate(&mut SystemEntropy::default()))
    }

    #[test]
    fn peers_are_the_relays_of_the_identity_files() {
        let directory = tempfile::tempdir().unwrap();
        let (two, three) = (relay(directory.path(), "two"), relay(directory.path(), "three"));
        let peers = read("grooveDNS://one", &[&two, &three]).unwrap();
        let urls: Vec<&str> = peers.iter().map(|peer| peer.url.as_str()).collect();
        assert_eq!(urls, ["grooveDNS://two", "grooveDNS://three"]);
        assert_eq!(peers[0].addresses[..], ["127.0.0.1:2492".to_owned()]);
    }

    #[test]
    fn this_relay_itself_or_one_twice_or_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let two = relay(directory.path(), "two");
        assert!(matches!(read("grooveDNS://two", &[&two]), Err(PeerError::Ourselves { .. })));
        assert!(matches!(read("grooveDNS://one", &[&two, &two]), Err(PeerError::Twice { .. })));
        let missing = directory.path().join("missing.toml");
        assert!(matches!(read("grooveDNS://one", &[&missing]), Err(PeerError::Identity { .. })));
    }
}

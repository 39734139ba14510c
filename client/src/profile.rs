//! A client's own names and keys, and the directory where they rest: `client.toml`, `device.key` and `account.key`, for the
//! owner's eyes only.

use crate::carrier::{Proxies, ProxySettings, ProxyUrlError};
use crate::entropy::SystemEntropy;
use crate::naming::{new_account_url, new_device_url, new_identity_url};
use crate::relay_identity::{self, RelayIdentity, RelayIdentityError};
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl, InvalidUrl};
use relay_core::directory::Profile as SecurityProfile;
use relay_core::security::{ClientCredentials, KeyFileError};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PROFILE_FILE: &str = "client.toml";
const DEVICE_KEY_FILE: &str = "device.key";
const ACCOUNT_KEY_FILE: &str = "account.key";

/// Who a client is and which relay it uses.
#[derive(Clone, Debug)]
pub struct ClientProfile {
    /// The relay.
    pub relay: RelayIdentity,
    /// This device.
    pub device_url: DeviceUrl,
    /// Its keys.
    pub device_keys: Arc<ClientCredentials>,
    /// The account.
    pub account_url: AccountUrl,
    /// Its keys.
    pub account_keys: Arc<ClientCredentials>,
    /// The account's identities as far as this device knows.
    pub identities: Vec<IdentityUrl>,
    /// The proxies on the way, if they are not to be those of the environment.
    pub proxies: Option<Proxies>,
}

/// Why a client directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is a client already; its keys are not overwritten.
    #[error("{0} holds a client already; choose another directory")]
    Exists(PathBuf),
    /// `client.toml` has not the expected form.
    #[error("{PROFILE_FILE}: {0}")]
    Form(#[from] toml::de::Error),
    /// A URL in `client.toml`.
    #[error("{PROFILE_FILE}: {0}")]
    Url(#[from] InvalidUrl),
    /// The relay in `client.toml`.
    #[error("{PROFILE_FILE}: {0}")]
    Relay(#[from] RelayIdentityError),
    /// A proxy in `client.toml`.
    #[error("{PROFILE_FILE}: proxy: {0}")]
    Proxy(#[from] ProxyUrlError),
    /// A key file.
    #[error("{path}: {source}")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyFileError,
    },
}

/// `client.toml` as it stands.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    device_url: String,
    account_url: String,
    identities: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proxy: Option<ProxySettings>,
    relay: relay_identity::File,
}

impl ClientProfile {
    /// A new device with a new account and one new identity, all with new keys of the modern security profile. Nothing is
    /// registered yet.
    pub fn generate(relay: RelayIdentity) -> Self {
        Self::generate_in(relay, SecurityProfile::Modern)
    }

    /// As [`ClientProfile::generate`], in a security profile of one's choice.
    pub fn generate_in(relay: RelayIdentity, profile: SecurityProfile) -> Self {
        let keys = || Arc::new(ClientCredentials::generate(profile, &mut SystemEntropy::default()));
        Self {
            device_url: new_device_url(&relay.relay_url),
            device_keys: keys(),
            account_url: new_account_url(),
            account_keys: keys(),
            identities: vec![new_identity_url()],
            relay,
            proxies: None,
        }
    }

    /// Reads a client directory.
    ///
    /// # Errors
    /// [`ProfileError`].
    pub fn load(directory: &Path) -> Result<Self, ProfileError> {
        let path = directory.join(PROFILE_FILE);
        let text = fs::read_to_string(&path).map_err(|source| ProfileError::File { path, source })?;
        let file: File = toml::from_str(&text)?;
        let identities = file.identities.iter().map(IdentityUrl::new).collect::<Result<_, _>>()?;
        Ok(Self {
            relay: file.relay.try_into()?,
            device_url: DeviceUrl::new(file.device_url)?,
            device_keys: load_keys(directory.join(DEVICE_KEY_FILE))?,
            account_url: AccountUrl::new(file.account_url)?,
            account_keys: load_keys(directory.join(ACCOUNT_KEY_FILE))?,
            identities,
            proxies: file.proxy.map(Proxies::try_from).transpose()?,
        })
    }

    /// Writes a new client directory, mode 0700, its files 0600.
    ///
    /// # Errors
    /// [`ProfileError::Exists`] if there is a client in it, [`ProfileError::File`].
    pub fn create(&self, directory: &Path) -> Result<(), ProfileError> {
        let fail = |source| ProfileError::File { path: directory.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(fail)?;
        if directory.join(PROFILE_FILE).exists() || directory.join(DEVICE_KEY_FILE).exists() {
            return Err(ProfileError::Exists(directory.to_owned()));
        }
        write_private(&directory.join(DEVICE_KEY_FILE), &self.device_keys.encode())?;
        write_private(&directory.join(ACCOUNT_KEY_FILE), &self.account_keys.encode())?;
        self.save(directory)
    }

    /// Writes `client.toml` anew; the keys stay as they are.
    ///
    /// # Errors
    /// [`ProfileError::File`].
    pub fn save(&self, directory: &Path) -> Result<(), ProfileError> {
        let file = File {
            device_url: self.device_url.to_string(),
            account_url: self.account_url.to_string(),
            identities: self.identities.iter().map(ToString::to_string).collect(),
            proxy: self.proxies.as_ref().map(ProxySettings::from),
            relay: (&self.relay).into(),
        };
        let text = toml::to_string(&file).expect("a profile has a TOML form");
        write_private(&directory.join(PROFILE_FILE), text.as_bytes())
    }
}

fn load_keys(path: PathBuf) -> Result<Arc<ClientCredentials>, ProfileError> {
    let text = match fs::read(&path) {
        Ok(text) => zeroize::Zeroizing::new(text),
        Err(source) => return Err(ProfileError::File { path, source }),
    };
    match ClientCredentials::decode(&text) {
        Ok(keys) => Ok(Arc::new(keys)),
        Err(source) => Err(ProfileError::Key { path, source }),
    }
}

/// Replaces the file at `path` as a whole: after a crash it is the old one or the new one.
fn write_private(path: &Path, content: &[u8]) -> Result<(), ProfileError> {
    let draft = path.with_extension("new");
    let written = || {
        let mut options = fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    written().map_err(|source| ProfileError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_core::security::RelayKeys;
    use std::os::unix::fs::PermissionsExt;

    fn profile() -> ClientProfile {
        ClientProfile::generate(RelayIdentity {
            relay_url: DeviceUrl::new("grooveDNS://relay.example").unwrap(),
            addresses: vec!["127.0.0.1:2492".into()],
            public_keys: RelayKeys::generate(&mut SystemEntropy::default()).public().clone(),
            tls: None,
            fallback: crate::Fallback::default(),
        })
    }

    #[test]
    fn a_profile_survives_its_directory() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("new/furrow");
        let made = profile();
        made.create(&directory).unwrap();
        let read = ClientProfile::load(&directory).unwrap();
        assert_eq!((&read.relay, &read.device_url), (&made.relay, &made.device_url));
        assert_eq!((&read.account_url, &read.identities), (&made.account_url, &made.identities));
        assert_eq!(*read.device_keys.encode(), *made.device_keys.encode());
        assert_eq!(*read.account_keys.encode(), *made.account_keys.encode());
    }

    #[test]
    fn proxies_survive_the_directory_and_a_wrong_url_is_named() {
        let parent = tempfile::tempdir().unwrap();
        let mut made = profile();
        let socks = Some("socks5://me:p%40ss:word@[::1]:9");
        made.proxies = Some(Proxies::configured(Some("web"), None, socks, &["localhost".into()]).unwrap());
        made.create(parent.path()).unwrap();
        assert_eq!(ClientProfile::load(parent.path()).unwrap().proxies, made.proxies);
        let path = parent.path().join(PROFILE_FILE);
        let text = fs::read_to_string(&path).unwrap().replace("http://web", "ftp://web");
        fs::write(&path, text).unwrap();
        assert!(matches!(
            ClientProfile::load(parent.path()),
            Err(ProfileError::Proxy(ProxyUrlError::Scheme))
        ));
    }

    #[test]
    fn only_the_owner_may_look() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("furrow");
        profile().create(&directory).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700);
        for file in [PROFILE_FILE, DEVICE_KEY_FILE, ACCOUNT_KEY_FILE] {
            assert_eq!(mode(&directory.join(file)), 0o600, "{file}");
        }
    }

    #[test]
    fn keys_are_never_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        profile().create(parent.path()).unwrap();
        assert!(matches!(profile().create(parent.path()), Err(ProfileError::Exists(_))));
    }
}

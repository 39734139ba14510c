//! The relay identity file: what a client has to know of a relay. `relayd init` writes it, `sstp init` reads it. It
//! holds nothing secret, but whoever changes it on its way decides which relay a client trusts: hence the fingerprint.

use crate::tls::{RelayTls, RelayTlsError};
use relay_core::address::{DeviceUrl, InvalidUrl};
use relay_core::security::RelayPublicKeys;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The most addresses of one relay.
const MAX_ADDRESSES: usize = 64;

/// What a client has to know of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayIdentity {
    /// The relay's device URL, the target of Connect.
    pub relay_url: DeviceUrl,
    /// Where it listens, `HOST:PORT`, tried in this order.
    pub addresses: Vec<String>,
    /// Its public keys.
    pub public_keys: RelayPublicKeys,
    /// How it is reached by TLS. If this is there, a client uses nothing else.
    pub tls: Option<RelayTls>,
    /// Where else it is reached, by those whose firewall does not let them to its addresses.
    pub fallback: Fallback,
}

/// Other ways to a relay, each `HOST:PORT`, tried in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fallback {
    /// Where it speaks SSTP on port 443 (Secure Tunnel), which is not TLS.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tunnel: Vec<String>,
    /// Where it speaks HTTP.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<String>,
}

impl Fallback {
    fn is_empty(&self) -> bool {
        self.tunnel.is_empty() && self.http.is_empty()
    }
}

/// Why a file is not a relay identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayIdentityError {
    /// It cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not TOML of the expected form.
    #[error("not a relay identity: {0}")]
    Form(#[from] toml::de::Error),
    /// `relay_url` is not a URL.
    #[error("relay_url: {0}")]
    Url(#[from] InvalidUrl),
    /// No address, or too many.
    #[error("{0} addresses; 1 to {MAX_ADDRESSES} are allowed")]
    Addresses(usize),
    /// How it is reached by TLS.
    #[error("tls.{0}")]
    Tls(#[from] RelayTlsError),
    /// A public key is not the hexadecimal form of 32 bytes (modern) or of the DER of an ElGamal key (legacy).
    #[error("public_keys.{0} is not the hexadecimal form of a key")]
    Key(&'static str),
    /// The keys are not those of the fingerprint: the file was changed.
    #[error("the keys have the fingerprint {found}, but the file says {stated}; do not trust this file")]
    Fingerprint {
        /// As computed from the keys.
        found: String,
        /// As stated.
        stated: String,
    },
}

/// The file as it stands.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    relay_url: String,
    addresses: Vec<String>,
    fingerprint: String,
    public_keys: PublicKeys,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls: Option<Tls>,
    #[serde(default, skip_serializing_if = "Fallback::is_empty")]
    fallback: Fallback,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    addresses: Vec<String>,
    server_name: String,
    trusted: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PublicKeys {
    modern: String,
    legacy: String,
}

impl RelayIdentity {
    /// Reads the TOML text.
    ///
    /// # Errors
    /// [`RelayIdentityError`]; in particular if the fingerprint is not that of the keys.
    pub fn parse(text: &str) -> Result<Self, RelayIdentityError> {
        toml::from_str::<File>(text)?.try_into()
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// [`RelayIdentityError`].
    pub fn load(path: &Path) -> Result<Self, RelayIdentityError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RelayIdentityError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Whether a device URL has the host of this relay: then it is here that the device publishes its status
    /// (presence-wan-dpp 3.2, inferred).
    pub fn serves(&self, device: &DeviceUrl) -> bool {
        let host = |url: &str| {
            let (_, rest) = url.split_once("://")?;
            Some(rest.split('/').next().unwrap_or(rest).to_owned())
        };
        host(self.relay_url.as_str()).is_some_and(|own| Some(own) == host(device.as_str()))
    }

    /// The TOML text.
    pub fn to_toml(&self) -> String {
        toml::to_string(&File::from(self)).expect("a relay identity has a TOML form")
    }

    /// The fingerprint of the keys, for people to compare.
    pub fn fingerprint(&self) -> String {
        self.public_keys.fingerprint()
    }
}

impl From<&RelayIdentity> for File {
    fn from(identity: &RelayIdentity) -> File {
        File {
            relay_url: identity.relay_url.to_string(),
            addresses: identity.addresses.clone(),
            fingerprint: identity.fingerprint(),
            public_keys: PublicKeys {
                modern: hex(identity.public_keys.modern()),
                legacy: hex(&identity.public_keys.legacy_der()),
            },
            tls: identity.tls.clone().map(|RelayTls { addresses, server_name, trusted }| Tls {
                addresses,
                server_name,
                trusted,
            }),
            fallback: identity.fallback.clone(),
        }
    }
}

impl TryFrom<File> for RelayIdentity {
    type Error = RelayIdentityError;

    fn try_from(file: File) -> Result<Self, RelayIdentityError> {
        if file.addresses.is_empty() || file.addresses.len() > MAX_ADDRESSES {
            return Err(RelayIdentityError::Addresses(file.addresses.len()));
        }
        let modern = unhex(&file.public_keys.modern).and_then(|bytes| bytes.try_into().ok());
        let modern = modern.ok_or(RelayIdentityError::Key("modern"))?;
        let legacy = unhex(&file.public_keys.legacy).ok_or(RelayIdentityError::Key("legacy"))?;
        let public_keys =
            RelayPublicKeys::new(modern, &legacy).map_err(|_| RelayIdentityError::Key("legacy"))?;
        let found = public_keys.fingerprint();
        if found != file.fingerprint.to_ascii_lowercase() {
            return Err(RelayIdentityError::Fingerprint { found, stated: file.fingerprint });
        }
        let tls = file.tls.map(checked_tls).transpose()?;
        let fallback = file.fallback;
        let most = fallback.tunnel.len().max(fallback.http.len());
        if most > MAX_ADDRESSES {
            return Err(RelayIdentityError::Addresses(most));
        }
        let relay_url = DeviceUrl::new(file.relay_url)?;
        Ok(Self { relay_url, addresses: file.addresses, public_keys, tls, fallback })
    }
}

fn checked_tls(Tls { addresses, server_name, trusted }: Tls) -> Result<RelayTls, RelayIdentityError> {
    if addresses.is_empty() || addresses.len() > MAX_ADDRESSES {
        return Err(RelayIdentityError::Addresses(addresses.len()));
    }
    let tls = RelayTls { addresses, server_name, trusted };
    tls.check()?;
    Ok(tls)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
            Some(digit(*high)? << 4 | digit(*low)?)
        }
        _ => None,
    };
    digits.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;
    use relay_core::security::RelayKeys;

    fn identity() -> RelayIdentity {
        RelayIdentity {
            relay_url: DeviceUrl::new("grooveDNS://relay.example").unwrap(),
            addresses: vec!["127.0.0.1:2492".into(), "relay.example:443".into()],
            public_keys: RelayKeys::generate(&mut SystemEntropy::default()).public().clone(),
            tls: None,
            fallback: Fallback {
                tunnel: vec!["relay.example:443".into()],
                http: vec!["relay.example:80".into()],
            },
        }
    }

    #[test]
    fn a_relay_identity_survives_its_file() {
        let identity = identity();
        assert_eq!(RelayIdentity::parse(&identity.to_toml()).unwrap(), identity);
    }

    #[test]
    fn keys_that_do_not_match_the_fingerprint_are_refused() {
        let (text, other) = (identity().to_toml(), identity());
        let swapped = text.replace(&identity_key(&text), &hex(other.public_keys.modern()));
        assert!(matches!(RelayIdentity::parse(&swapped), Err(RelayIdentityError::Fingerprint { .. })));
    }

    fn identity_key(text: &str) -> String {
        text.split("modern = \"").nth(1).unwrap()[..64].to_owned()
    }

    #[test]
    fn what_is_wrong_with_a_file_is_named() {
        let text = identity().to_toml();
        let parse = |text: String| RelayIdentity::parse(&text).unwrap_err();
        let key = identity_key(&text);
        assert!(matches!(parse(text.replace(&key, "zz")), RelayIdentityError::Key("modern")));
        let legacy = text.replace("legacy = \"", "legacy = \"00");
        assert!(matches!(parse(legacy), RelayIdentityError::Key("legacy")));
        assert!(matches!(parse(text.replace("grooveDNS", "groove DNS")), RelayIdentityError::Url(_)));
        assert!(matches!(parse(text.replace("relay_url", "url")), RelayIdentityError::Form(_)));
        let empty =
            text.lines().map(|line| if line.starts_with("addresses") { "addresses = []" } else { line });
        assert!(matches!(parse(empty.collect::<Vec<_>>().join("\n")), RelayIdentityError::Addresses(0)));
    }
}

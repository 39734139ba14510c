//! New URLs: the forms that our tools produce (wire-profile sec. 1). To the protocol every URL is opaque.

use crate::entropy::SystemEntropy;
use relay_core::address::{AccountUrl, DeviceUrl, IdentityUrl};
use relay_core::http::guid::base32;
use relay_core::time::Entropy;
use std::fmt;

/// Random octets of a KEY.
const KEY_BYTES: usize = 24;

/// The KEY of a URL: 24 octets, shown as 39 characters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; KEY_BYTES]);

impl Key {
    /// A random key.
    pub fn random() -> Self {
        let mut bytes = [0; KEY_BYTES];
        SystemEntropy::default().fill(&mut bytes);
        Self(bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32(&self.0))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A new device URL, `dpp://HOST/KEY`, with the host of the relay's URL.
pub fn new_device_url(relay_url: &DeviceUrl) -> DeviceUrl {
    let whole = relay_url.as_str();
    let host = whole.split_once("://").map_or(whole, |(_, host)| host).trim_end_matches('/');
    // A host so long that the URL would not fit is left out: the key alone names the device.
    DeviceUrl::new(format!("dpp://{host}/{}", Key::random()))
        .or_else(|_| DeviceUrl::new(format!("dpp:///{}", Key::random())))
        .expect("a key is part of a URL")
}

/// A new identity URL, `grooveIdentity://KEY@`.
pub fn new_identity_url() -> IdentityUrl {
    IdentityUrl::new(format!("grooveIdentity://{}@", Key::random())).expect("a key is part of a URL")
}

/// A new account URL, `grooveAccount://KEY@`.
pub fn new_account_url() -> AccountUrl {
    AccountUrl::new(format!("grooveAccount://{}@", Key::random())).expect("a key is part of a URL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_39_characters() {
        assert_eq!(Key([0; KEY_BYTES]).to_string(), "a".repeat(39));
    }

    #[test]
    fn new_urls_have_the_forms_of_our_tools() {
        let device = new_device_url(&DeviceUrl::new("grooveDNS://relay.example").unwrap());
        assert!(device.as_str().starts_with("dpp://relay.example/"));
        assert_eq!(device.as_str().len(), "dpp://relay.example/".len() + 39);
        let long = DeviceUrl::new(format!("grooveDNS://{}", "x".repeat(1000))).unwrap();
        assert!(new_device_url(&long).as_str().starts_with("dpp:///"));
        assert_ne!(new_identity_url(), new_identity_url());
        assert!(new_account_url().as_str().ends_with('@'));
    }
}

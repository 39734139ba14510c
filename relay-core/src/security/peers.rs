//! The keys by which two relays prove themselves to each other (ours; SECURITY.md says what they are worth). Owns their
//! derivation from the two relays' long-lived keys; who is a peer, and when it is called, is the relay's affair.
//!
//! To each other relays are devices of the modern profile whose secret was never sent anywhere: X25519 of the one's private and
//! the other's public key gives both the same secret, and HKDF makes a key of it for each direction. The URLs of caller and
//! called are in the derivation, so that what one proves as a caller proves nothing in the other direction, and a key that stands
//! under two URLs is two keys.

use super::client::{Hello, modern_hello};
use super::profile::{Layer, X25519_BYTES};
use super::relay_keys::{RelayKeys, RelayPublicKeys};
use super::sealed::UnusableKey;
use crate::address::DeviceUrl;
use crate::directory::SecretKey;
use crate::time::Entropy;
use ring::hkdf;
use x25519_dalek::SharedSecret;
use zeroize::Zeroizing;

/// First in the derivation's info.
const LABEL: &[u8] = b"sstps2 relay peer";
/// Length of a derived key: that of a device's secret in the modern profile.
const KEY_BYTES: usize = 32;

/// A key of 32 bytes, as HKDF wants to be told.
struct PeerKey;

impl hkdf::KeyType for PeerKey {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

/// What a relay shares with one other relay. Wiped when dropped; `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSecrets {
    /// For the calls that this relay makes.
    pub calling: SecretKey,
    /// For the calls that the other relay makes.
    pub called: SecretKey,
}

impl PeerSecrets {
    /// Derives them from this relay's keys and URL and the other's. The other relay derives the same two from its own, the other way
    /// round.
    ///
    /// # Errors
    /// [`UnusableKey`] if the other relay's key is a point of small order.
    pub fn derive(
        keys: &RelayKeys,
        own_url: &DeviceUrl,
        peer: &RelayPublicKeys,
        peer_url: &DeviceUrl,
    ) -> Result<Self, UnusableKey> {
        let shared = keys.agree(peer.modern()).ok_or(UnusableKey)?;
        let (own, other) = ((keys.public().modern(), own_url), (peer.modern(), peer_url));
        Ok(Self { calling: key(&shared, own, other), called: key(&shared, other, own) })
    }
}

/// A relay as the derivation sees it.
type Party<'a> = (&'a [u8; X25519_BYTES], &'a DeviceUrl);

/// HKDF-SHA256(salt = caller's public key || called relay's, input = X25519 secret, info = label, zero, `b16` of both URLs).
fn key(shared: &SharedSecret, caller: Party<'_>, called: Party<'_>) -> SecretKey {
    let salt = [*caller.0, *called.0].concat();
    let count = |url: &DeviceUrl| (url.as_bytes().len() as u16).to_le_bytes();
    let (caller_count, called_count) = (count(caller.1), count(called.1));
    let info = [LABEL, &[0], &caller_count, caller.1.as_bytes(), &called_count, called.1.as_bytes()];
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, &salt)
        .extract(shared.as_bytes())
        .expand(&info, PeerKey)
        .and_then(|derived| derived.fill(key.as_mut_slice()))
        .expect("32 bytes are within HKDF's limit");
    SecretKey::new(key.to_vec())
}

/// The SecConnect of a relay that calls another: `url` is its own first URL, `secret` the one for [calling](PeerSecrets::calling).
pub fn peer_hello(url: &str, secret: &SecretKey, entropy: &mut dyn Entropy) -> Hello {
    modern_hello(Layer::Device, url, secret, entropy)
}

#[cfg(test)]
mod tests {
    use super::super::test_entropy::Seeded;
    use super::*;

    fn url(name: &str) -> DeviceUrl {
        DeviceUrl::new(format!("grooveDNS://{name}")).unwrap()
    }

    fn keys(seed: u64) -> RelayKeys {
        RelayKeys::generate(&mut Seeded::new(seed))
    }

    #[test]
    fn two_relays_derive_the_same_two_keys_and_each_direction_has_its_own() {
        let (one, two) = (keys(1), keys(2));
        let at_one = PeerSecrets::derive(&one, &url("one"), two.public(), &url("two")).unwrap();
        let at_two = PeerSecrets::derive(&two, &url("two"), one.public(), &url("one")).unwrap();
        assert_eq!((&at_one.calling, &at_one.called), (&at_two.called, &at_two.calling));
        assert_ne!(at_one.calling, at_one.called);
        assert_eq!(at_one.calling.expose().len(), 32);
    }

    #[test]
    fn another_key_or_url_on_either_side_is_another_secret() {
        let (one, two, three) = (keys(1), keys(2), keys(3));
        let derive = |own: &RelayKeys, own_name, peer: &RelayKeys, peer_name| {
            PeerSecrets::derive(own, &url(own_name), peer.public(), &url(peer_name)).unwrap().calling
        };
        let right = derive(&one, "one", &two, "two");
        for other in [
            derive(&three, "one", &two, "two"),
            derive(&one, "one", &three, "two"),
            derive(&one, "other", &two, "two"),
            derive(&one, "one", &two, "other"),
            derive(&one, "onet", &two, "wo"),
        ] {
            assert_ne!(right, other);
        }
    }

    #[test]
    fn a_public_key_of_small_order_is_refused() {
        let one = keys(1);
        let small = RelayPublicKeys::new([0; 32], &one.public().legacy_der()).unwrap();
        assert_eq!(PeerSecrets::derive(&one, &url("one"), &small, &url("two")), Err(UnusableKey));
    }
}

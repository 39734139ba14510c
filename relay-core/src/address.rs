//! The URLs by which SSTP names things, and the address of a mailbox.
//!
//! To SSTP a URL is opaque: 1 to 1024 bytes, each 0x21 to 0x7E, compared byte for byte (wire-profile sec. 1). Each kind has
//! its own type, so that a device is never taken for an account.

use std::fmt;
use std::sync::Arc;

/// The longest URL in bytes (wire-profile sec. 1, ours).
pub const MAX_URL_BYTES: usize = 1024;

/// Why some bytes are not a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUrl {
    /// No bytes at all.
    #[error("a URL must not be empty")]
    Empty,
    /// More than [`MAX_URL_BYTES`].
    #[error("a URL of {0} bytes; at most {MAX_URL_BYTES} are allowed")]
    TooLong(usize),
    /// A byte outside 0x21..=0x7E.
    #[error("byte {byte:#04x} at position {position} of a URL; only 0x21 to 0x7E are allowed")]
    Byte {
        /// The offending byte.
        byte: u8,
        /// Its zero-based position.
        position: usize,
    },
}

fn checked(bytes: &[u8]) -> Result<&str, InvalidUrl> {
    if bytes.is_empty() {
        return Err(InvalidUrl::Empty);
    }
    if bytes.len() > MAX_URL_BYTES {
        return Err(InvalidUrl::TooLong(bytes.len()));
    }
    if let Some(position) = bytes.iter().position(|byte| !(0x21..=0x7e).contains(byte)) {
        return Err(InvalidUrl::Byte { byte: bytes[position], position });
    }
    Ok(std::str::from_utf8(bytes).expect("bytes 0x21..=0x7E are ASCII"))
}

macro_rules! url {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `bytes` as this kind of URL.
            ///
            /// # Errors
            /// [`InvalidUrl`] if they are not 1 to 1024 bytes of 0x21 to 0x7E.
            pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, InvalidUrl> {
                checked(bytes.as_ref()).map(|text| Self(text.into()))
            }

            /// The URL as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The URL as it stands on the wire, without the terminating zero.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidUrl;

            fn from_str(text: &str) -> Result<Self, InvalidUrl> {
                Self::new(text)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

url! {
    /// Names a client or server computer (sstp-messages sec. 1).
    DeviceUrl
}
url! {
    /// Names a persona of a user; the address of mail.
    IdentityUrl
}
url! {
    /// Names a user's account, which holds identities and may live on several devices.
    AccountUrl
}
url! {
    /// Names the resource handler, the application component that consumes messages.
    ResourceUrl
}

/// What names a mailbox: device-targeted mail has a device, identity-targeted mail has none
/// (sstp-behaviour sec. 1, sstp-security 6.2).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxAddress {
    /// The account that owns the identity; it decides the home shard.
    pub account: AccountUrl,
    /// The recipient identity.
    pub identity: IdentityUrl,
    /// The recipient device; `None` for identity-targeted mail.
    pub device: Option<DeviceUrl>,
    /// The resource handler on the recipient's side.
    pub resource: ResourceUrl,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_1_to_1024_bytes_of_0x21_to_0x7e() {
        assert_eq!(DeviceUrl::new(""), Err(InvalidUrl::Empty));
        assert_eq!(DeviceUrl::new("a b"), Err(InvalidUrl::Byte { byte: 0x20, position: 1 }));
        assert_eq!(DeviceUrl::new([0x7f]), Err(InvalidUrl::Byte { byte: 0x7f, position: 0 }));
        assert_eq!(DeviceUrl::new(vec![b'a'; 1025]), Err(InvalidUrl::TooLong(1025)));
        assert!(DeviceUrl::new(vec![b'~'; 1024]).is_ok());
        assert!(DeviceUrl::new("!").is_ok());
    }

    #[test]
    fn urls_compare_byte_for_byte() {
        assert_ne!(DeviceUrl::new("dpp://HOST/a"), DeviceUrl::new("dpp://host/a"));
    }
}

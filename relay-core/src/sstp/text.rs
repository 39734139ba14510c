//! The string of SSTP: ASCII ended by one zero byte on the wire, held here as a slice without the zero.

use bytes::Bytes;
use std::fmt;

/// A string of a command: 7-bit, without the terminating zero; a slice of what was received, or a literal.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Text(Bytes);

impl Text {
    /// The empty string, a single zero byte on the wire.
    pub const EMPTY: Text = Text(Bytes::new());

    /// Takes `bytes` as a string; `None` if one of them is zero or above 0x7F.
    pub fn new(bytes: impl Into<Bytes>) -> Option<Self> {
        let bytes = bytes.into();
        bytes.iter().all(|byte| (1..0x80).contains(byte)).then_some(Self(bytes))
    }

    /// The bytes without the terminating zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The string as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a Text is ASCII")
    }

    /// Whether it is the empty string.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes on the wire, terminating zero included.
    pub(super) fn wire_len(&self) -> usize {
        self.0.len() + 1
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

macro_rules! from_url {
    ($($url:ident),*) => {$(
        impl From<&crate::address::$url> for Text {
            fn from(url: &crate::address::$url) -> Text {
                Text(Bytes::copy_from_slice(url.as_bytes()))
            }
        }
    )*};
}
from_url!(DeviceUrl, IdentityUrl, AccountUrl, ResourceUrl);

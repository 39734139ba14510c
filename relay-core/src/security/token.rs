//! The form of every security token: a three-byte header, then fields, each a little-endian `u16` count and that many bytes
//! (sstp-security 4.0, 4.3; byte order ours). Owns bounds and exact consumption; knows no message and no cryptography.

use super::profile::{HEADER_BYTES, MessageId};
use crate::directory::Profile;
use bytes::{BufMut, Bytes, BytesMut};

/// Why some bytes are not the security message that belongs in their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The bytes end inside a field.
    #[error("the token ends inside its {0}")]
    Truncated(&'static str),
    /// Bytes are left after the last field.
    #[error("{0} bytes after the last field of the token")]
    TrailingBytes(usize),
    /// A major version that is none of ours.
    #[error("security major version {0} is unknown")]
    MajorVersion(u8),
    /// A minor version that this major version does not have.
    #[error("security minor version {0} is unknown")]
    MinorVersion(u8),
    /// A MessageID that no message has.
    #[error("security message {0} is unknown")]
    UnknownMessage(u8),
    /// A message that does not belong in this command or at this point.
    #[error("security message {0:?} is out of place")]
    UnexpectedMessage(MessageId),
    /// A message of one profile where only the other one fits.
    #[error("a message of the {0:?} profile is out of place")]
    UnexpectedProfile(Profile),
    /// A field whose length is not allowed.
    #[error("a {name} of {bytes} bytes is not allowed")]
    FieldLength {
        /// The field's name.
        name: &'static str,
        /// Its length in bytes.
        bytes: usize,
    },
    /// An identity URL that is not a URL.
    #[error("the token's identity URL: {0}")]
    IdentityUrl(crate::address::InvalidUrl),
    /// A status number that has no meaning.
    #[error("registration status {0} is unknown")]
    UnknownStatus(u8),
    /// A public key that is not encoded as its algorithm asks.
    #[error("the {0} is not a public key of its algorithm")]
    PublicKey(&'static str),
}

/// The header that begins every message (sstp-security 4.0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) profile: Profile,
    pub(super) minor: u8,
    pub(super) id: MessageId,
}

impl Header {
    pub(super) fn bytes(self) -> [u8; HEADER_BYTES] {
        [self.profile.major(), self.minor, self.id as u8]
    }
}

/// The profile that the first byte of a token claims, however wrong the rest is.
pub(super) fn claimed_profile(token: &[u8]) -> Option<Profile> {
    token.first().copied().and_then(Profile::from_major)
}

/// Reads one token from front to back.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    token: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads fields without a header, such as a public keys object.
    pub(super) fn fields(bytes: &'a [u8]) -> Self {
        Self { token: bytes, at: 0 }
    }

    /// Reads and checks the header.
    pub(super) fn open(token: &'a [u8]) -> Result<(Header, Self), TokenError> {
        let Some(&[major, minor, id]) = token.first_chunk::<HEADER_BYTES>() else {
            return Err(TokenError::Truncated("header"));
        };
        let profile = Profile::from_major(major).ok_or(TokenError::MajorVersion(major))?;
        if !profile.accepts_minor(minor) {
            return Err(TokenError::MinorVersion(minor));
        }
        let id = MessageId::from_byte(id).ok_or(TokenError::UnknownMessage(id))?;
        Ok((Header { profile, minor, id }, Self { token, at: HEADER_BYTES }))
    }

    /// Reads a header that has to be of this message.
    pub(super) fn expect(token: &'a [u8], id: MessageId) -> Result<(Header, Self), TokenError> {
        let (header, reader) = Self::open(token)?;
        if header.id != id {
            return Err(TokenError::UnexpectedMessage(header.id));
        }
        Ok((header, reader))
    }

    fn take(&mut self, bytes: usize, name: &'static str) -> Result<&'a [u8], TokenError> {
        let end = self.at.checked_add(bytes).ok_or(TokenError::Truncated(name))?;
        let taken = self.token.get(self.at..end).ok_or(TokenError::Truncated(name))?;
        self.at = end;
        Ok(taken)
    }

    /// A single byte.
    pub(super) fn byte(&mut self, name: &'static str) -> Result<u8, TokenError> {
        Ok(self.take(1, name)?[0])
    }

    /// A counted field of any length.
    pub(super) fn field(&mut self, name: &'static str) -> Result<&'a [u8], TokenError> {
        let count = self.take(2, name)?;
        self.take(usize::from(u16::from_le_bytes([count[0], count[1]])), name)
    }

    /// A counted field of at most `most` bytes.
    pub(super) fn field_up_to(&mut self, most: usize, name: &'static str) -> Result<&'a [u8], TokenError> {
        let field = self.field(name)?;
        if field.len() > most {
            return Err(TokenError::FieldLength { name, bytes: field.len() });
        }
        Ok(field)
    }

    /// A counted field of exactly `N` bytes.
    pub(super) fn exact<const N: usize>(&mut self, name: &'static str) -> Result<&'a [u8; N], TokenError> {
        let field = self.field(name)?;
        field.try_into().map_err(|_| TokenError::FieldLength { name, bytes: field.len() })
    }

    /// The bytes read so far, header included: what a signature that follows covers.
    pub(super) fn read_so_far(&self) -> &'a [u8] {
        &self.token[..self.at]
    }

    /// Ends the token.
    pub(super) fn end(self) -> Result<(), TokenError> {
        match self.token.len() - self.at {
            0 => Ok(()),
            left => Err(TokenError::TrailingBytes(left)),
        }
    }
}

/// Writes one token.
#[derive(Debug)]
pub(super) struct Writer(BytesMut);

impl Writer {
    /// Begins a message.
    pub(super) fn new(header: Header) -> Self {
        let mut token = BytesMut::with_capacity(128);
        token.put_slice(&header.bytes());
        Self(token)
    }

    /// Begins fields without a header.
    pub(super) fn headless() -> Self {
        Self(BytesMut::new())
    }

    /// A single byte.
    pub(super) fn byte(mut self, byte: u8) -> Self {
        self.0.put_u8(byte);
        self
    }

    /// A counted field. Every caller bounds what it writes; the largest field is an embedded account message.
    pub(super) fn field(mut self, field: &[u8]) -> Self {
        self.0.put_u16_le(u16::try_from(field.len()).expect("callers bound every field far below 64 KiB"));
        self.0.put_slice(field);
        self
    }

    /// What has been written so far: what a signature that follows covers.
    pub(super) fn written(&self) -> &[u8] {
        &self.0
    }

    /// The finished token.
    pub(super) fn finish(self) -> Bytes {
        self.0.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: Header = Header { profile: Profile::Modern, minor: 0, id: MessageId::SecConnect };

    #[test]
    fn counts_are_little_endian_and_fields_follow_without_padding() {
        let token = Writer::new(HEADER).field(&[7; 258]).field(b"").byte(9).finish();
        assert_eq!(token[..7], [2, 0, 1, 0x02, 0x01, 7, 7]);
        assert_eq!(token[263..], [0, 0, 9]);
        let (header, mut reader) = Reader::open(&token).unwrap();
        assert_eq!(header, HEADER);
        assert_eq!(reader.field("a").unwrap(), [7; 258]);
        assert_eq!(reader.exact::<0>("b").unwrap(), &[]);
        assert_eq!(reader.byte("c").unwrap(), 9);
        reader.end().unwrap();
    }

    #[test]
    fn each_malformation_of_the_frame_has_its_own_error() {
        let open = |token: &[u8]| Reader::open(token).map(|_| ()).unwrap_err();
        assert_eq!(open(&[]), TokenError::Truncated("header"));
        assert_eq!(open(&[2, 0]), TokenError::Truncated("header"));
        assert_eq!(open(&[3, 0, 1]), TokenError::MajorVersion(3));
        assert_eq!(open(&[2, 1, 1]), TokenError::MinorVersion(1));
        assert_eq!(open(&[1, 2, 1]), TokenError::MinorVersion(2));
        assert_eq!(open(&[2, 0, 11]), TokenError::UnknownMessage(11));
        assert_eq!(
            Reader::expect(&[1, 3, 1], MessageId::SecAttach).map(|_| ()).unwrap_err(),
            TokenError::UnexpectedMessage(MessageId::SecConnect)
        );
        let mut short = Reader::fields(&[3, 0, 1, 2]);
        assert_eq!(short.field("f"), Err(TokenError::Truncated("f")));
        let mut wrong = Reader::fields(&[1, 0, 1]);
        assert_eq!(wrong.exact::<2>("f"), Err(TokenError::FieldLength { name: "f", bytes: 1 }));
        let mut long = Reader::fields(&[2, 0, 1, 1, 5]);
        assert_eq!(long.clone().field_up_to(1, "f"), Err(TokenError::FieldLength { name: "f", bytes: 2 }));
        long.field("f").unwrap();
        assert_eq!(long.end(), Err(TokenError::TrailingBytes(1)));
    }

    #[test]
    fn message_ids_are_those_of_the_wire_profile() {
        for byte in 0..=u8::MAX {
            let known = (1..=17).contains(&byte) && byte != 11;
            assert_eq!(MessageId::from_byte(byte).map(|id| id as u8), known.then_some(byte));
        }
    }

    proptest! {
        #[test]
        fn fields_come_back_as_they_were_written(
            fields in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..8)
        ) {
            let token = fields.iter().fold(Writer::new(HEADER), |writer, field| writer.field(field)).finish();
            let (_, mut reader) = Reader::open(&token).unwrap();
            for field in &fields {
                prop_assert_eq!(reader.field("f"), Ok(&field[..]));
            }
            prop_assert_eq!(reader.read_so_far(), &token[..]);
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_read_past_the_end(token in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::fields(&token);
            let mut read = 0;
            while let Ok(field) = reader.field("f") {
                read += 2 + field.len();
            }
            prop_assert!(read <= token.len());
        }
    }
}

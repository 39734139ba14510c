//! The textual form in which keys rest in a file: one kind and version line, then `NAME HEX` lines; `#` begins a comment
//! line. Owns the form only: what the names mean belongs to the keys, where the file lies to the caller.

use zeroize::Zeroizing;

/// The first word of every key file.
const MAGIC: &str = "furrow-keys";
/// The version of the form.
const VERSION: &str = "1";
/// The longest key file that is read, in bytes: several times the largest that is written.
const MAX_BYTES: usize = 64 * 1024;

/// Why some bytes are not a key file of the expected kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// More than 64 KiB.
    #[error("a key file of {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// Not UTF-8 text.
    #[error("the key file is not text")]
    NotText,
    /// The first line is not the one of this kind of key file and this version.
    #[error("the first line of the key file has to be `{MAGIC} {VERSION} {0}`")]
    OtherKind(&'static str),
    /// A line that is not `NAME HEX`.
    #[error("line {0} of the key file is not a name and hexadecimal digits")]
    Line(usize),
    /// A required entry is missing.
    #[error("the key file has no `{0}` entry")]
    Missing(&'static str),
    /// An entry that this kind of key file does not have, or that stands twice.
    #[error("the key file has an unknown or repeated entry `{0}`")]
    Unknown(String),
    /// An entry whose value is not a key of its kind.
    #[error("the `{0}` entry of the key file is not a valid key")]
    Invalid(&'static str),
}

/// Writes a key file of `kind`.
pub(crate) fn write(kind: &str, entries: &[(&str, &[u8])]) -> Zeroizing<Vec<u8>> {
    let digits: usize = entries.iter().map(|(name, value)| name.len() + 2 * value.len() + 2).sum();
    // One allocation of the right size, so that growing leaves no copy of a key behind.
    let mut text = Zeroizing::new(Vec::with_capacity(MAGIC.len() + VERSION.len() + kind.len() + 3 + digits));
    text.extend_from_slice(format!("{MAGIC} {VERSION} {kind}\n").as_bytes());
    for (name, value) in entries {
        text.extend_from_slice(name.as_bytes());
        text.push(b' ');
        for byte in *value {
            text.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        text.push(b'\n');
    }
    text
}

/// The entries of a key file that have not been taken yet.
pub(crate) struct Entries<'a>(Vec<(&'a str, Zeroizing<Vec<u8>>)>);

impl<'a> Entries<'a> {
    /// Reads a key file of `kind`.
    pub(crate) fn read(kind: &'static str, file: &'a [u8]) -> Result<Self, KeyFileError> {
        if file.len() > MAX_BYTES {
            return Err(KeyFileError::TooLong(file.len()));
        }
        let text = std::str::from_utf8(file).map_err(|_| KeyFileError::NotText)?;
        let mut lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        let first = lines.next().map(|(_, line)| line.split_ascii_whitespace().collect::<Vec<_>>());
        if first.as_deref() != Some(&[MAGIC, VERSION, kind]) {
            return Err(KeyFileError::OtherKind(kind));
        }
        let mut entries = Vec::new();
        for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let entry = line.split_once(' ').and_then(|(name, hex)| Some((name, unhex(hex.trim())?)));
            entries.push(entry.ok_or(KeyFileError::Line(number + 1))?);
        }
        Ok(Self(entries))
    }

    /// Takes the entry `name`.
    pub(crate) fn take(&mut self, name: &'static str) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
        let at = self.0.iter().position(|(found, _)| *found == name).ok_or(KeyFileError::Missing(name))?;
        Ok(self.0.swap_remove(at).1)
    }

    /// Takes the entry `name`, which has to be `N` bytes.
    pub(crate) fn exact<const N: usize>(
        &mut self,
        name: &'static str,
    ) -> Result<Zeroizing<[u8; N]>, KeyFileError> {
        let value = self.take(name)?;
        let mut key = Zeroizing::new([0; N]);
        if value.len() != N {
            return Err(KeyFileError::Invalid(name));
        }
        key.copy_from_slice(&value);
        Ok(key)
    }

    /// Ends the file: no entry may be left.
    pub(crate) fn end(self) -> Result<(), KeyFileError> {
        self.0.first().map_or(Ok(()), |(name, _)| Err(KeyFileError::Unknown((*name).to_owned())))
    }
}

fn unhex(digits: &str) -> Option<Zeroizing<Vec<u8>>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
    for pair in digits.chunks_exact(2) {
        let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_a_kind_line_and_named_hexadecimal_entries() {
        let file = write("relay", &[("a", &[0x01, 0xfe]), ("b", &[])]);
        assert_eq!(std::str::from_utf8(&file).unwrap(), "furrow-keys 1 relay\na 01fe\nb \n");
        let mut entries = Entries::read("relay", &file).unwrap();
        assert_eq!(*entries.exact::<2>("a").unwrap(), [0x01, 0xfe]);
        assert_eq!(*entries.take("b").unwrap(), []);
        entries.end().unwrap();
        let commented = b"# made today\nfurrow-keys 1 relay\n# the key\n\na 01FE\n";
        assert_eq!(*Entries::read("relay", commented).unwrap().take("a").unwrap(), [0x01, 0xfe]);
    }

    #[test]
    fn what_is_wrong_with_a_key_file_is_named() {
        let error = |file: &[u8]| Entries::read("relay", file).map(|_| ()).unwrap_err();
        assert_eq!(error(b""), KeyFileError::OtherKind("relay"));
        assert_eq!(error(b"furrow-keys 2 relay\n"), KeyFileError::OtherKind("relay"));
        assert_eq!(error(b"furrow-keys 1 client\n"), KeyFileError::OtherKind("relay"));
        assert_eq!(error(b"\xff"), KeyFileError::NotText);
        assert_eq!(error(&vec![b'#'; MAX_BYTES + 1]), KeyFileError::TooLong(MAX_BYTES + 1));
        for line in ["a", "a 0", "a 0g", "a 00 00"] {
            assert_eq!(
                error(format!("furrow-keys 1 relay\n{line}\n").as_bytes()),
                KeyFileError::Line(2),
                "{line}"
            );
        }
        let mut entries = Entries::read("relay", b"furrow-keys 1 relay\na 00\na 00\n").unwrap();
        assert_eq!(entries.take("c"), Err(KeyFileError::Missing("c")));
        assert_eq!(entries.exact::<2>("a"), Err(KeyFileError::Invalid("a")));
        assert_eq!(entries.end(), Err(KeyFileError::Unknown("a".into())));
    }
}

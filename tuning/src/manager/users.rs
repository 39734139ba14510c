//! Files of users: CSV with a line of names. A file is read twice, once to see that all of it is right before
//! anything is sent.

use super::failure::Failure;
use super::lifetime;
use csv::{Reader, ReaderBuilder, StringRecord};
use relay_core::address::{AccountUrl, IdentityUrl};
use relay_core::directory::SecretKey;
use relay_core::spmr::{ListedUser, UserSource};
use std::fs::File;
use std::path::{Path, PathBuf};
use tuning::ByteSize;

/// The names that a file may have, in any order.
const COLUMNS: [&str; 5] = ["account", "token", "identities", "quota", "lifetime"];
/// The longest token.
const MAX_TOKEN_BYTES: usize = relay_core::security::MAX_PRE_AUTH_TOKEN_BYTES;
/// The most identities of one user.
const MAX_IDENTITIES: usize = relay_core::security::MAX_IDENTITIES_PER_ACCOUNT;

/// A file of users, or one user.
pub(super) enum Users {
    /// A file.
    File(Box<UserFile>),
    /// One user, and whether it was taken.
    One(Box<ListedUser>, bool),
}

impl UserSource for Users {
    type Error = Failure;

    fn next_user(&mut self) -> Result<Option<ListedUser>, Failure> {
        match self {
            Self::File(file) => file.next_user(),
            Self::One(user, taken) => Ok((!std::mem::replace(taken, true)).then(|| (**user).clone())),
        }
    }

    fn rewind(&mut self) -> Result<(), Failure> {
        match self {
            Self::File(file) => {
                **file = UserFile::open(&file.path)?;
                Ok(())
            }
            Self::One(_, taken) => {
                *taken = false;
                Ok(())
            }
        }
    }
}

/// A file of users.
pub(super) struct UserFile {
    path: PathBuf,
    reader: Reader<File>,
    /// Where each of [`COLUMNS`] stands.
    places: [Option<usize>; COLUMNS.len()],
    record: StringRecord,
}

impl UserFile {
    /// Opens a file and reads its names.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|error| Failure::File { path: path.to_owned(), error })?;
        let mut reader = ReaderBuilder::new().trim(csv::Trim::All).from_reader(file);
        let wrong = |what| Failure::Line { path: path.to_owned(), line: 1, what };
        let names = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
        if let Some(unknown) = names.iter().find(|name| !COLUMNS.contains(name)) {
            return Err(wrong(format!("{unknown:?} is none of {}", COLUMNS.join(", "))));
        }
        let places = COLUMNS.map(|column| names.iter().position(|name| name == column));
        if places[0].is_none() {
            return Err(wrong("there is no column `account`".into()));
        }
        Ok(Self { path: path.to_owned(), reader, places, record: StringRecord::new() })
    }

    /// Reads a file to its end; gives the number of users.
    pub(super) fn check(path: &Path) -> Result<u64, Failure> {
        let mut file = Self::open(path)?;
        let mut users = 0;
        while file.next_user()?.is_some() {
            users += 1;
        }
        Ok(users)
    }

    fn next_user(&mut self) -> Result<Option<ListedUser>, Failure> {
        let line = self.reader.position().line();
        let wrong = |what| Failure::Line { path: self.path.clone(), line, what };
        match self.reader.read_record(&mut self.record) {
            Ok(true) => user(&self.record, &self.places).map(Some).map_err(wrong),
            Ok(false) => Ok(None),
            Err(error) => Err(wrong(error.to_string())),
        }
    }
}

fn user(record: &StringRecord, places: &[Option<usize>; COLUMNS.len()]) -> Result<ListedUser, String> {
    let [account, token, identities, quota, lifetime_text] =
        places.map(|place| place.and_then(|place| record.get(place)).unwrap_or(""));
    let wrong = |column: &str, what: &dyn std::fmt::Display| format!("{column}: {what}");
    let account = AccountUrl::new(account).map_err(|error| wrong("account", &error))?;
    let identities: Vec<IdentityUrl> = identities
        .split_ascii_whitespace()
        .map(IdentityUrl::new)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong("identities", &error))?;
    if identities.len() > MAX_IDENTITIES {
        return Err(wrong("identities", &format!("more than {MAX_IDENTITIES}")));
    }
    if token.len() > MAX_TOKEN_BYTES {
        return Err(wrong("token", &format!("longer than {MAX_TOKEN_BYTES} bytes")));
    }
    let quota: Option<ByteSize> = match quota {
        "" => None,
        text => Some(text.parse().map_err(|error| wrong("quota", &error))?),
    };
    let lifetime_seconds = match lifetime_text {
        "" => None,
        text => Some(lifetime(text).map_err(|error| wrong("lifetime", &error))?),
    };
    Ok(ListedUser {
        account,
        identities,
        token: (!token.is_empty()).then(|| SecretKey::new(token.as_bytes().to_vec())),
        quota_bytes: quota.map(ByteSize::bytes),
        lifetime_seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn columns_stand_in_any_order_and_all_but_the_account_may_be_missing() {
        let (_folder, path) =
            file("lifetime,identities,account,quota\n2 days,i://1 i://2,a://1,\"2 GB\"\n,,a://2,\n");
        assert_eq!(UserFile::check(&path).unwrap(), 2);
        let mut users = Users::File(Box::new(UserFile::open(&path).unwrap()));
        for _ in 0..2 {
            users.rewind().unwrap();
            let first = users.next_user().unwrap().unwrap();
            assert_eq!((first.account.as_str(), first.identities.len()), ("a://1", 2));
            assert_eq!((first.quota_bytes, first.lifetime_seconds), (Some(2_000_000_000), Some(172_800)));
            assert_eq!(first.token, None);
        }
        let second = users.next_user().unwrap().unwrap();
        assert_eq!((second.quota_bytes, second.lifetime_seconds), (None, None));
        assert!(users.next_user().unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_column() {
        let cases = [
            ("token\n", "users.csv:1: there is no column `account`"),
            ("account,colour\n", "users.csv:1: \"colour\" is none of"),
            ("account\na\n\"b c\"\n", "users.csv:3: account:"),
            ("account,identities\na,\u{e4}\n", "users.csv:2: identities:"),
            ("account,quota\na,1\nb,much\n", "users.csv:3: quota:"),
            ("account,lifetime\na,1 ms\n", "users.csv:2: lifetime:"),
            ("account,token\na\n", "users.csv:2: "),
        ];
        for (text, told) in cases {
            let (_folder, path) = file(text);
            let error = UserFile::check(&path).unwrap_err();
            assert!(error.to_string().contains(told), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }
}

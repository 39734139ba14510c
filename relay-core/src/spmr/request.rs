//! What an operation asks for and what is answered, as values that can hold only what is allowed.

use super::operation::Operation;
use crate::address::{AccountUrl, IdentityUrl};
use crate::directory::SecretKey;

/// A user as a management server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedUser {
    /// The account.
    pub account: AccountUrl,
    /// Its identities, at most 256; no other account may claim them.
    pub identities: Vec<IdentityUrl>,
    /// The token with which the account may register, at most 1024 bytes; `None` if it has none.
    pub token: Option<SecretKey>,
    /// Bytes of mail that may wait for each of its identities; `None` for the default.
    pub quota_bytes: Option<u64>,
    /// How long mail for it is kept if its sender does not say, in seconds, at least 1; `None` for the default.
    pub lifetime_seconds: Option<u32>,
}

/// The defaults of the service; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Bytes of mail that may wait for one identity.
    pub quota_bytes: Option<u64>,
    /// How long mail is kept if its sender does not say, in seconds, at least 1.
    pub lifetime_seconds: Option<u32>,
    /// Whether an account has to present its token when it registers.
    pub pre_authentication: Option<bool>,
}

impl Defaults {
    /// These, with those of `newer` that are set in their place.
    pub fn with(self, newer: Defaults) -> Defaults {
        Defaults {
            quota_bytes: newer.quota_bytes.or(self.quota_bytes),
            lifetime_seconds: newer.lifetime_seconds.or(self.lifetime_seconds),
            pre_authentication: newer.pre_authentication.or(self.pre_authentication),
        }
    }
}

/// What is asked, but for Registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// userAdd: these users are to be in the user database, as they are said here.
    UserAdd(Vec<ListedUser>),
    /// accountModify: accounts, each with whether it is to be locked out.
    AccountModify(Vec<(AccountUrl, bool)>),
    /// userPurge: the mail of these accounts is to be deleted.
    UserPurge(Vec<AccountUrl>),
    /// RelayDefault.
    RelayDefault(Defaults),
    /// RelayQuiescent: whether the relay is to be quiescent, that is inactive.
    RelayQuiescent(bool),
}

impl Request {
    /// The operation that asks for it.
    pub fn operation(&self) -> Operation {
        match self {
            Self::UserAdd(_) => Operation::UserAdd,
            Self::AccountModify(_) => Operation::AccountModify,
            Self::UserPurge(_) => Operation::UserPurge,
            Self::RelayDefault(_) => Operation::RelayDefault,
            Self::RelayQuiescent(_) => Operation::RelayQuiescent,
        }
    }
}

/// What became of a request that was understood (management-soap-spmr 9.6, ours).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Done.
    Success = 0,
    /// Nothing was added: the user database needs to be built, while the relay is quiescent (userAdd).
    NeedsBuild = 1,
    /// Done for those accounts that are known; at least one is not.
    UnknownUser = 2,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: &'static [Self] = &[Self::Success, Self::NeedsBuild, Self::UnknownUser];
}

//! The relay's end of the challenge/response: SecConnect and SecAttach in, a verdict and the outstanding challenge out.
//! Owns the order of checks (sstp-security 7.1); which command carries what and when is the connection's affair.

use super::error::SecurityError;
use super::legacy;
use super::modern;
use super::profile::{Layer, MessageId};
use super::token::{Header, Reader, TokenError, Writer, claimed_profile};
use crate::address::{AccountUrl, DeviceUrl};
use crate::directory::{AccountRecord, Credentials, DeviceRecord, Profile};
use crate::time::Entropy;
use bytes::Bytes;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// What a relay answers to SecConnect or SecAttach.
#[derive(Debug)]
pub enum HelloVerdict {
    /// The relay has no key of this device or account. ConnectResponse says Ok, and the connection lives on for Register.
    RegistrationNeeded {
        /// The token of the response.
        token: Bytes,
    },
    /// Refused. ConnectResponse says AuthenticationFailed.
    Failed {
        /// The token of the response.
        token: Bytes,
        /// The cause, for logs and counters; the client is not told.
        reason: SecurityError,
    },
    /// The hello is right, and the client has to answer the challenge.
    Challenged {
        /// The token of the response.
        token: Bytes,
        /// What the client's next message is checked against.
        challenge: Challenge,
    },
}

/// A challenge that the client has to answer. Holds the expected proof and no key; wiped when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Challenge {
    #[zeroize(skip)]
    layer: Layer,
    expected: Expected,
}

#[derive(Zeroize, ZeroizeOnDrop)]
enum Expected {
    Modern(modern::Mac),
    Legacy(legacy::ExpectedProof),
}

impl Challenge {
    /// The layer whose key the client has to prove.
    pub fn layer(&self) -> Layer {
        self.layer
    }

    /// Checks SecConnectAuthenticate or SecAttachAuthenticate, in constant time. Right proofs are not answered.
    ///
    /// # Errors
    /// [`SecurityError`] if the token is malformed, of the other profile or layer, or proves another key.
    pub fn verify(&self, token: &[u8]) -> Result<(), SecurityError> {
        let id = MessageId::proof(self.layer);
        let (header, reader) = Reader::expect(token, id)?;
        match (&self.expected, header.profile) {
            (Expected::Modern(expected), Profile::Modern) => {
                modern::check_mac(modern::read_last_mac(reader)?, expected, id)
            }
            (Expected::Legacy(expected), Profile::Legacy) => expected.verify(header, reader),
            (Expected::Modern(_), found) => {
                Err(SecurityError::OtherProfile { registered: Profile::Modern, found })
            }
            (Expected::Legacy(_), found) => {
                Err(SecurityError::OtherProfile { registered: Profile::Legacy, found })
            }
        }
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Challenge({:?})", self.layer)
    }
}

/// Answers the SecConnect token of a Connect whose first SourceDeviceURL is `device`, with the device's record.
///
/// Checks in the order of sstp-security 7.1: form and versions, key known, an account on the device, key proven. A
/// lock-out is not checked here: SSTP has its own answer to it (ConnectRejected).
pub fn answer_connect(
    token: &[u8],
    device: &DeviceUrl,
    record: Option<&DeviceRecord>,
    entropy: &mut dyn Entropy,
) -> HelloVerdict {
    let known = record.and_then(|record| {
        let standing = match record.accounts.is_empty() {
            true => Err(SecurityError::DeviceWithoutAccounts),
            false => Ok(()),
        };
        Some(Known { credentials: record.credentials.as_ref()?, standing })
    });
    answer_hello(Layer::Device, token, device.as_str(), known, entropy)
}

/// Answers the SecAttach token of an Attach with `account`, with the account's record. A locked-out account fails,
/// whatever it proves.
pub fn answer_attach(
    token: &[u8],
    account: &AccountUrl,
    record: Option<&AccountRecord>,
    entropy: &mut dyn Entropy,
) -> HelloVerdict {
    let known = record.and_then(|record| {
        let standing = match record.locked_out {
            true => Err(SecurityError::LockedOut(Layer::Account)),
            false => Ok(()),
        };
        Some(Known { credentials: record.credentials.as_ref()?, standing })
    });
    answer_hello(Layer::Account, token, account.as_str(), known, entropy)
}

/// The answer to the SecAttach token of an Attach that is not looked into, since its sender has failed too often:
/// SecAttachResponseAuthenticationFailed. Costs no cryptography.
pub fn attach_failed(token: &[u8]) -> Bytes {
    bare(answering_profile(token), MessageId::failed(Layer::Account))
}

/// A token of no profile is answered in the profile that we would rather speak.
fn answering_profile(token: &[u8]) -> Profile {
    claimed_profile(token).unwrap_or(Profile::Modern)
}

/// What the relay knows of a registered device or account.
struct Known<'a> {
    credentials: &'a Credentials,
    /// Whether the record allows authentication at all.
    standing: Result<(), SecurityError>,
}

fn answer_hello(
    layer: Layer,
    token: &[u8],
    url: &str,
    known: Option<Known<'_>>,
    entropy: &mut dyn Entropy,
) -> HelloVerdict {
    let profile = answering_profile(token);
    let answered = Hello::read(layer, token).map_err(SecurityError::from).and_then(|hello| {
        let Some(known) = known else { return Ok(None) };
        known.standing?;
        hello.challenge(layer, url, known.credentials, entropy).map(Some)
    });
    match answered {
        Ok(Some((token, expected))) => {
            HelloVerdict::Challenged { token, challenge: Challenge { layer, expected } }
        }
        Ok(None) => {
            HelloVerdict::RegistrationNeeded { token: bare(profile, MessageId::registration_needed(layer)) }
        }
        Err(reason) => HelloVerdict::Failed { token: bare(profile, MessageId::failed(layer)), reason },
    }
}

/// A relay's message without fields.
fn bare(profile: Profile, id: MessageId) -> Bytes {
    Writer::new(Header { profile, minor: profile.relay_minor(), id }).finish()
}

/// A well-formed SecConnect or SecAttach.
enum Hello<'a> {
    Modern(modern::Hello<'a>),
    Legacy(legacy::Hello<'a>),
}

impl<'a> Hello<'a> {
    fn read(layer: Layer, token: &'a [u8]) -> Result<Self, TokenError> {
        let (header, reader) = Reader::expect(token, MessageId::hello(layer))?;
        match header.profile {
            Profile::Modern => modern::Hello::read(reader).map(Self::Modern),
            Profile::Legacy => legacy::Hello::read(header, reader).map(Self::Legacy),
        }
    }

    fn profile(&self) -> Profile {
        match self {
            Self::Modern(_) => Profile::Modern,
            Self::Legacy(_) => Profile::Legacy,
        }
    }

    fn challenge(
        &self,
        layer: Layer,
        url: &str,
        credentials: &Credentials,
        entropy: &mut dyn Entropy,
    ) -> Result<(Bytes, Expected), SecurityError> {
        let registered = credentials.profile;
        match (self, registered) {
            (Self::Modern(hello), Profile::Modern) => {
                let exchange = modern::Exchange { layer, url, secret: &credentials.secret };
                let (token, proof) = exchange.answer_hello(hello, entropy)?;
                Ok((token, Expected::Modern(proof)))
            }
            (Self::Legacy(hello), Profile::Legacy) => {
                let exchange = legacy::Exchange { layer, secret: &credentials.secret };
                let (token, proof) = exchange.answer_hello(hello, entropy)?;
                Ok((token, Expected::Legacy(proof)))
            }
            (_, registered) => Err(SecurityError::OtherProfile { registered, found: self.profile() }),
        }
    }
}

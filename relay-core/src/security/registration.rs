//! The relay's end of registration: what a Register token changes in the directory, or why it changes nothing. Owns the
//! rules of who may register what (wire-profile sec. 2); the caller makes the changes durable before it answers.

use super::error::SecurityError;
use super::legacy;
use super::modern;
use super::profile::*;
use super::relay_keys::RelayKeys;
use super::token::{Header, Reader, TokenError, Writer};
use crate::address::{AccountUrl, DeviceUrl, IdentityUrl};
use crate::directory::*;
use bytes::Bytes;
use subtle::ConstantTimeEq;

/// What a relay answers to a Register token.
#[derive(Debug)]
pub enum RegisterVerdict {
    /// Registered. The response may leave once the changes are durable; there are none if all was registered before.
    Accepted {
        /// The whole new records.
        changes: Vec<DirectoryChange>,
        /// The token of RegisterResponse.
        response: Bytes,
    },
    /// Refused, with a status for the client.
    Refused {
        /// What the client is told.
        status: RegisterStatus,
        /// The token of RegisterResponse.
        response: Bytes,
        /// The cause, for logs and counters.
        reason: SecurityError,
    },
    /// Not a registration message: Close of the register session with ProtocolError (sstp-security 7.3).
    Malformed(SecurityError),
}

/// What a registration is judged by.
#[derive(Clone, Copy)]
pub struct RegisterContext<'a> {
    /// The relay's private keys, which open the registered keys.
    pub keys: &'a RelayKeys,
    /// The first SourceDeviceURL of the connection.
    pub device: &'a DeviceUrl,
    /// The AccountURL of the Register command.
    pub account: &'a AccountUrl,
    /// What is known so far.
    pub directory: &'a dyn Directory,
    /// Whether only accounts with a listed token and only listed identities may register.
    pub pre_authentication_required: bool,
}

/// Answers a Register token: SecDeviceAccountRegister or SecIdentityRegister. The same as [`open_register`] and
/// [`OpenedRegister::judge`] one after the other.
pub fn answer_register(token: &[u8], context: &RegisterContext<'_>) -> RegisterVerdict {
    open_register(token, context).judge(context)
}

/// A Register token whose keys are open and whose signatures are verified, and which no record has been asked about.
pub struct OpenedRegister<'a>(Result<(Header, Opened<'a>), RegisterVerdict>);

enum Opened<'a> {
    /// Message 12 with what is in it.
    DeviceAccount { device_keys: Credentials, message: AccountMessage<'a> },
    /// Message 16 behind its header.
    Identity(Reader<'a>),
}

/// The first and costly half of [`answer_register`]: everything that the token and the relay's keys decide. It reads no
/// record, so any number may run side by side.
///
/// Costs two key agreements and two signature verifications (modern, about a quarter of a millisecond) or two 1536-bit
/// exponentiations (legacy, about five milliseconds), before anything is proven: callers bound how many run at once, and
/// answer [`busy_response`] above that.
pub fn open_register<'a>(token: &'a [u8], context: &RegisterContext<'_>) -> OpenedRegister<'a> {
    let (header, reader) = match Reader::open(token) {
        Ok(opened) => opened,
        Err(reason) => return OpenedRegister(Err(RegisterVerdict::Malformed(reason.into()))),
    };
    let opened = match (header.id, header.profile) {
        (MessageId::SecDeviceAccountRegister, Profile::Modern) => context.open_modern(reader),
        (MessageId::SecDeviceAccountRegister, Profile::Legacy) => context.open_legacy(reader),
        (MessageId::SecIdentityRegister, _) => Ok(Opened::Identity(reader)),
        (other, _) => Err(TokenError::UnexpectedMessage(other).into()),
    };
    OpenedRegister(opened.map(|opened| (header, opened)).map_err(|reason| refusal(header, reason)))
}

impl OpenedRegister<'_> {
    /// The second half: what the directory makes of it, under the same context. Between this and the changes' becoming
    /// visible no other change may come, or it could be overwritten.
    pub fn judge(self, context: &RegisterContext<'_>) -> RegisterVerdict {
        let (header, opened) = match self.0 {
            Ok(opened) => opened,
            Err(verdict) => return verdict,
        };
        let changes = match opened {
            Opened::DeviceAccount { device_keys, message } => {
                context.register_device_account(device_keys, message)
            }
            Opened::Identity(reader) => context.register_identity(header, reader),
        };
        match changes {
            Ok(changes) => {
                RegisterVerdict::Accepted { changes, response: response(header, RegisterStatus::Ok) }
            }
            Err(reason) => refusal(header, reason),
        }
    }
}

fn refusal(header: Header, reason: SecurityError) -> RegisterVerdict {
    match reason.register_status() {
        Some(status) => RegisterVerdict::Refused { status, response: response(header, status), reason },
        None => RegisterVerdict::Malformed(reason),
    }
}

/// Which registration a Register token means to be, for logs: SecIdentityRegister if it says so, else
/// SecDeviceAccountRegister.
pub fn claimed_registration(token: &[u8]) -> MessageId {
    match Reader::open(token) {
        Ok((Header { id: id @ MessageId::SecIdentityRegister, .. }, _)) => id,
        _ => MessageId::SecDeviceAccountRegister,
    }
}

/// The RegisterResponse token with status Busy for a Register token that the relay has no capacity to judge.
///
/// # Errors
/// [`SecurityError::Token`] if the token does not begin as a registration message.
pub fn busy_response(token: &[u8]) -> Result<Bytes, SecurityError> {
    let (header, _) = Reader::open(token)?;
    match header.id {
        MessageId::SecDeviceAccountRegister | MessageId::SecIdentityRegister => {
            Ok(response(header, RegisterStatus::Busy))
        }
        other => Err(TokenError::UnexpectedMessage(other).into()),
    }
}

fn response(request: Header, status: RegisterStatus) -> Bytes {
    let id = match request.id {
        MessageId::SecIdentityRegister => MessageId::SecIdentityRegisterResponse,
        _ => MessageId::SecDeviceAccountRegisterResponse,
    };
    let minor = request.profile.relay_minor();
    Writer::new(Header { minor, id, ..request }).byte(status as u8).finish()
}

/// The account message inside SecDeviceAccountRegister, opened as far as that needs no directory.
enum AccountMessage<'a> {
    /// SecAccountRegister.
    New { credentials: Credentials, pre_auth_token: &'a [u8] },
    /// SecAccountOnNewDeviceRegister.
    OnNewDevice(NewDevice<'a>),
}

/// The possession proof of SecAccountOnNewDeviceRegister.
enum NewDevice<'a> {
    Modern(modern::NewDevice<'a>),
    Legacy(legacy::Claim<'a>),
}

impl NewDevice<'_> {
    fn verify(&self, registered: &Credentials, account: &str, device: &str) -> Result<(), SecurityError> {
        match (self, registered.profile) {
            (Self::Modern(message), Profile::Modern) => message.verify(&registered.secret, account, device),
            (Self::Legacy(message), Profile::Legacy) => message.verify(&registered.secret).map(drop),
            (Self::Modern(_), registered) => {
                Err(SecurityError::OtherProfile { registered, found: Profile::Modern })
            }
            (Self::Legacy(_), registered) => {
                Err(SecurityError::OtherProfile { registered, found: Profile::Legacy })
            }
        }
    }
}

/// The MAC of SecIdentityRegister.
enum IdentityProof<'a> {
    Modern(&'a modern::Mac),
    Legacy(&'a legacy::Mac),
}

impl RegisterContext<'_> {
    fn register_device_account(
        &self,
        device_keys: Credentials,
        message: AccountMessage<'_>,
    ) -> Result<Vec<DirectoryChange>, SecurityError> {
        let known_device = self.directory.device(self.device)?;
        let known_account = self.directory.account(self.account)?;
        let mut device = known_device.clone().unwrap_or_default();
        let mut account = known_account.clone().unwrap_or_default();
        if device.locked_out {
            return Err(SecurityError::LockedOut(Layer::Device));
        }
        if account.locked_out {
            return Err(SecurityError::LockedOut(Layer::Account));
        }
        register_keys(&mut device.credentials, device_keys, Layer::Device)?;
        self.register_account(&device, &mut account, message)?;
        link(&mut device.accounts, self.account, MAX_ACCOUNTS_PER_DEVICE, Layer::Device)?;
        link(&mut account.devices, self.device, MAX_DEVICES_PER_ACCOUNT, Layer::Account)?;

        let mut changes = Vec::new();
        if known_device.as_ref() != Some(&device) {
            changes.push(DirectoryChange::Device(self.device.clone(), Some(device)));
        }
        if known_account.as_ref() != Some(&account) {
            changes.push(DirectoryChange::Account(self.account.clone(), Some(account)));
        }
        Ok(changes)
    }

    /// Reads, verifies and opens message 12 and the account message in it.
    fn open_modern<'t>(&self, reader: Reader<'t>) -> Result<Opened<'t>, SecurityError> {
        let (offered, message) = modern::read_device_register(reader)?;
        let (header, reader) = open_account_message(message, Profile::Modern)?;
        let message = if header.id == MessageId::SecAccountRegister {
            let (offered, pre_auth_token) = modern::read_account_register(reader)?;
            AccountMessage::New {
                credentials: offered.open(self.keys, self.account.as_str())?,
                pre_auth_token,
            }
        } else {
            AccountMessage::OnNewDevice(NewDevice::Modern(modern::NewDevice::read(reader)?))
        };
        let device_keys = offered.open(self.keys, self.device.as_str())?;
        Ok(Opened::DeviceAccount { device_keys, message })
    }

    /// The same for the legacy profile.
    fn open_legacy<'t>(&self, reader: Reader<'t>) -> Result<Opened<'t>, SecurityError> {
        let (offered, message) = legacy::read_device_register(reader)?;
        let (header, reader) = open_account_message(message, Profile::Legacy)?;
        let message = if header.id == MessageId::SecAccountRegister {
            let (offered, pre_auth_token) = legacy::read_account_register(reader)?;
            AccountMessage::New { credentials: offered.open(self.keys)?, pre_auth_token }
        } else {
            AccountMessage::OnNewDevice(NewDevice::Legacy(legacy::Claim::read(header, reader)?))
        };
        Ok(Opened::DeviceAccount { device_keys: offered.open(self.keys)?, message })
    }

    fn register_account(
        &self,
        device: &DeviceRecord,
        account: &mut AccountRecord,
        message: AccountMessage<'_>,
    ) -> Result<(), SecurityError> {
        match message {
            AccountMessage::New { credentials, pre_auth_token } => {
                if account.credentials.is_none() {
                    self.pre_authenticate(account, pre_auth_token)?;
                    account.credentials = Some(credentials);
                    return Ok(());
                }
                register_keys(&mut account.credentials, credentials, Layer::Account)?;
                // SecAccountRegister names no device, so whoever overheard one could repeat it for a device of its own.
                if account.devices.contains(self.device) || device.accounts.contains(self.account) {
                    Ok(())
                } else {
                    Err(SecurityError::NewDeviceNotProven)
                }
            }
            AccountMessage::OnNewDevice(proof) => {
                let registered = account.credentials.as_ref().ok_or(SecurityError::UnknownAccount)?;
                proof.verify(registered, self.account.as_str(), self.device.as_str())
            }
        }
    }

    /// A first registration presents the token that a management server listed, if it listed one or one is required.
    fn pre_authenticate(&self, account: &AccountRecord, presented: &[u8]) -> Result<(), SecurityError> {
        let right = match &account.pre_auth_token {
            Some(listed) => bool::from(listed.expose().ct_eq(presented)),
            None => !self.pre_authentication_required,
        };
        if right { Ok(()) } else { Err(SecurityError::PreAuthenticationFailed) }
    }

    fn register_identity(
        &self,
        header: Header,
        mut reader: Reader<'_>,
    ) -> Result<Vec<DirectoryChange>, SecurityError> {
        let url = reader.field("IdentityURL")?;
        let identity = IdentityUrl::new(url).map_err(TokenError::IdentityUrl)?;
        let pre_auth_token = reader.field_up_to(MAX_PRE_AUTH_TOKEN_BYTES, "UserPreAuthToken")?;
        let proof = match header.profile {
            Profile::Modern => IdentityProof::Modern(modern::read_last_mac(reader)?),
            Profile::Legacy => IdentityProof::Legacy(legacy::read_last_mac(reader)?),
        };
        let account = self.directory.account(self.account)?.unwrap_or_default();
        let known = account.credentials.as_ref().ok_or(SecurityError::UnknownAccount)?;
        if known.profile != header.profile {
            return Err(SecurityError::OtherProfile { registered: known.profile, found: header.profile });
        }
        let secret = &known.secret;
        match proof {
            IdentityProof::Modern(found) => {
                modern::verify_identity_register(found, secret, self.account.as_str(), url, pre_auth_token)?;
            }
            IdentityProof::Legacy(found) => {
                legacy::verify_identity_register(found, secret, header, url, pre_auth_token)?;
            }
        }
        if account.locked_out {
            return Err(SecurityError::LockedOut(Layer::Account));
        }
        self.claim_identity(identity, account)
    }

    /// An identity belongs to the account for which a management server listed it, else to the first that claims it.
    fn claim_identity(
        &self,
        identity: IdentityUrl,
        mut account: AccountRecord,
    ) -> Result<Vec<DirectoryChange>, SecurityError> {
        let listed = account.identities.contains(&identity);
        let mut changes = Vec::new();
        match self.directory.identity(&identity)? {
            Some(record) if record.account != *self.account => {
                return Err(SecurityError::IdentityOfAnotherAccount);
            }
            Some(_) => {}
            None if self.pre_authentication_required && !listed => {
                return Err(SecurityError::IdentityNotListed);
            }
            None => {
                let record = IdentityRecord::of(self.account.clone());
                changes.push(DirectoryChange::Identity(identity.clone(), Some(record)));
            }
        }
        if !listed {
            link(&mut account.identities, &identity, MAX_IDENTITIES_PER_ACCOUNT, Layer::Account)?;
            changes.push(DirectoryChange::Account(self.account.clone(), Some(account)));
        }
        Ok(changes)
    }
}

/// Reads the header of the account message inside SecDeviceAccountRegister; it tells the kind (sstp-security 7.3).
fn open_account_message(message: &[u8], profile: Profile) -> Result<(Header, Reader<'_>), TokenError> {
    let (header, reader) = Reader::open(message)?;
    if header.profile != profile {
        return Err(TokenError::UnexpectedProfile(header.profile));
    }
    match header.id {
        MessageId::SecAccountRegister | MessageId::SecAccountOnNewDeviceRegister => Ok((header, reader)),
        other => Err(TokenError::UnexpectedMessage(other)),
    }
}

/// Registered keys stay as they are; the same keys may be registered again.
fn register_keys(
    registered: &mut Option<Credentials>,
    offered: Credentials,
    layer: Layer,
) -> Result<(), SecurityError> {
    let Some(known) = registered else {
        *registered = Some(offered);
        return Ok(());
    };
    if known.profile != offered.profile {
        return Err(SecurityError::OtherProfile { registered: known.profile, found: offered.profile });
    }
    let same_secret = bool::from(known.secret.expose().ct_eq(offered.secret.expose()));
    if same_secret && known.public_keys == offered.public_keys {
        Ok(())
    } else {
        Err(SecurityError::AlreadyRegistered(layer))
    }
}

/// Adds `url` to a list of a record, once.
fn link<Url: Clone + PartialEq>(
    list: &mut Vec<Url>,
    url: &Url,
    most: usize,
    record: Layer,
) -> Result<(), SecurityError> {
    if list.contains(url) {
        return Ok(());
    }
    if list.len() >= most {
        return Err(SecurityError::RecordFull(record));
    }
    list.push(url.clone());
    Ok(())
}

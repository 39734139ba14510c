//! The relay's end of SPMR: an HTTP request in, a command or a refusal out, in the order of checks of management-soap-spmr
//! 7.6. Changes nothing: the caller does what the command says, remembers the message, and then asks for the response.

use super::envelope;
use super::error::SpmrError;
use super::fragment::{Fragment, HeaderForm};
use super::manager_keys::ManagerPublicKey;
use super::operation::Operation;
use super::provisional;
use super::registration::Offer;
use super::request::{Outcome, Request};
use super::secured::{self, MessageTrace, Sealed};
use super::shared_key::SharedKey;
use crate::security::RelayKeys;
use crate::time::Entropy;

/// What the relay remembers of management servers. It answers from durable storage.
pub trait KeyLedger {
    /// The key shared with a management server, while it may be used.
    ///
    /// # Errors
    /// [`LedgerFailed`].
    fn shared_key(&self, server: &str) -> Result<Option<SharedKey>, LedgerFailed>;

    /// Whether this message has been taken under the present key.
    ///
    /// # Errors
    /// [`LedgerFailed`].
    fn was_taken(&self, server: &str, message: &MessageTrace) -> Result<bool, LedgerFailed>;

    /// Whether a key with this [`SharedKey::trace`] was shared before the present one.
    ///
    /// # Errors
    /// [`LedgerFailed`].
    fn is_former_key(&self, server: &str, trace: &[u8; 32]) -> Result<bool, LedgerFailed>;

    /// The public key that is configured for a management server.
    fn public_key(&self, server: &str) -> Option<ManagerPublicKey>;
}

/// The ledger cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the database of management servers cannot be read")]
pub struct LedgerFailed;

impl From<LedgerFailed> for SpmrError {
    fn from(_: LedgerFailed) -> Self {
        Self::Internal
    }
}

/// What the relay is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Share this key from now on. All messages of an earlier key are forgotten, the key itself is not.
    Share(SharedKey),
    /// Do this, and take the message.
    Do(Request, MessageTrace),
}

/// A request that was right.
#[derive(Debug)]
pub struct Judged {
    /// The management server.
    pub server: String,
    /// What to do.
    pub command: Command,
    /// How the header was hashed, for the log; `None` for a Registration.
    pub form: Option<HeaderForm>,
    /// The way to answer.
    pub reply: Reply,
}

/// The way to answer a request that was right.
#[derive(Debug)]
pub struct Reply {
    server: String,
    operation: Operation,
    key: SharedKey,
}

impl Reply {
    /// The operation that is answered.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The body of the HTTP response.
    pub fn write(&self, outcome: Outcome, entropy: &mut dyn Entropy) -> Vec<u8> {
        let plaintext = provisional::write_response(self.operation, outcome);
        let fragment = secured::secure(&self.key, &self.server, self.operation, &plaintext, entropy);
        envelope::write(self.operation.response_name(), &fragment)
    }
}

/// Judges a request by its Content-Type and body. `accept` is false if an operator has switched processing off.
///
/// # Errors
/// Why it is refused; [`envelope::write_fault`] tells the management server.
pub fn judge(
    content_type: Option<&[u8]>,
    body: &[u8],
    accept: bool,
    keys: &RelayKeys,
    ledger: &dyn KeyLedger,
) -> Result<Judged, SpmrError> {
    content_type.ok_or(SpmrError::NoContentType)?;
    if !accept {
        return Err(SpmrError::Disabled);
    }
    let (body, document) = envelope::read_request(body)?;
    let fragment = Fragment::read(&document)?;
    drop(document);
    if body == Operation::Registration {
        judge_registration(&fragment, keys, ledger)
    } else {
        judge_secured(body, &fragment, ledger)
    }
}

fn same_method(body: Operation, fragment: &Fragment) -> Result<(), SpmrError> {
    let method = Operation::from_name(&fragment.method)
        .ok_or_else(|| SpmrError::UnknownMethod(fragment.method.clone()))?;
    if method == body { Ok(()) } else { Err(SpmrError::OtherMethod { body, method }) }
}

/// Registration (7.3). The key of an earlier registration is refused, or a recording would bring it back, and with it all
/// that was recorded under it. The present key changes nothing.
fn judge_registration(
    fragment: &Fragment,
    keys: &RelayKeys,
    ledger: &dyn KeyLedger,
) -> Result<Judged, SpmrError> {
    let operation = Operation::Registration;
    let offer = Offer::read(fragment)?;
    same_method(operation, fragment)?;
    let server = fragment.server.clone();
    let manager =
        ledger.public_key(&server).ok_or_else(|| SpmrError::UnknownManagementServer(server.clone()))?;
    let key = offer.open(fragment, &manager, keys)?;
    if ledger.is_former_key(&server, &key.trace())? {
        return Err(SpmrError::Replayed);
    }
    let reply = Reply { server: server.clone(), operation, key: key.clone() };
    Ok(Judged { server, command: Command::Share(key), form: None, reply })
}

/// Any other request (7.4, 7.5). A management server that is configured no more has no key.
fn judge_secured(
    operation: Operation,
    fragment: &Fragment,
    ledger: &dyn KeyLedger,
) -> Result<Judged, SpmrError> {
    let sealed = Sealed::read(fragment)?;
    same_method(operation, fragment)?;
    let server = fragment.server.clone();
    let key = match ledger.public_key(&server) {
        Some(_) => ledger.shared_key(&server)?,
        None => None,
    };
    let key = key.ok_or_else(|| SpmrError::NotRegistered(server.clone()))?;
    let opened = sealed.open(&key, fragment)?;
    if ledger.was_taken(&server, &opened.trace)? {
        return Err(SpmrError::Replayed);
    }
    let request = provisional::read_request(operation, &opened.plaintext)?;
    let reply = Reply { server: server.clone(), operation, key };
    let command = Command::Do(request, opened.trace);
    Ok(Judged { server, command, form: Some(opened.form), reply })
}

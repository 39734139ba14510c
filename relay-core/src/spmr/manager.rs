//! The management server's end of SPMR, without I/O: a request in, documents out and in, an outcome out. It registers when
//! the relay asks for that and repeats the request then (management-soap-spmr 7.2).

use super::envelope::{self, Answer};
use super::error::{FaultCode, SpmrError};
use super::fragment::Fragment;
use super::manager_keys::ManagerKeys;
use super::operation::Operation;
use super::provisional;
use super::registration::{self, UnusableRelayKey};
use super::request::{Outcome, Request};
use super::secured::{self, Sealed};
use super::shared_key::SharedKey;
use crate::security::RelayPublicKeys;
use crate::time::Entropy;

/// Why a request came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// The relay refused it.
    #[error("the relay answers fault {code} ({text})")]
    Fault {
        /// Its number; [`FaultCode`] lists those that are defined.
        code: i64,
        /// Its text.
        text: String,
    },
    /// The relay asks for a registration again and again.
    #[error("the relay asks for a registration although one has just succeeded")]
    RegistrationLost,
    /// What came back is not the response to the request.
    #[error("what came back is not a response: {0}")]
    Response(#[from] SpmrError),
    /// A key cannot be sealed to the relay.
    #[error(transparent)]
    RelayKey(#[from] UnusableRelayKey),
}

/// What is under way.
#[derive(Debug)]
enum Stage {
    Idle,
    /// A registration with this key, and then the request, if there is one.
    Registering(SharedKey),
    Asking,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The next document wants sending: [`Manager::document`].
    Continue,
    /// The request is answered.
    Done(Outcome),
}

/// A management server in conversation with one relay, one request at a time.
///
/// [`Manager::ask`] or [`Manager::register`], then send [`Manager::document`] and give what comes back to
/// [`Manager::answered`] until that says [`Progress::Done`].
#[derive(Debug)]
pub struct Manager {
    keys: ManagerKeys,
    relay: RelayPublicKeys,
    request: Option<Request>,
    stage: Stage,
    /// A registration has succeeded since the request was asked.
    registered: bool,
}

impl Manager {
    /// A management server with these keys that manages the relay with those.
    pub fn new(keys: ManagerKeys, relay: RelayPublicKeys) -> Self {
        Self { keys, relay, request: None, stage: Stage::Idle, registered: false }
    }

    /// Its keys, which change when it registers.
    pub fn keys(&self) -> &ManagerKeys {
        &self.keys
    }

    /// Begins a request. One that was under way is given up.
    pub fn ask(&mut self, request: Request, entropy: &mut dyn Entropy) {
        self.request = Some(request);
        self.registered = false;
        self.stage = match self.keys.shared() {
            Some(_) => Stage::Asking,
            None => Stage::Registering(SharedKey::generate(entropy)),
        };
    }

    /// Begins a registration with a new key.
    pub fn register(&mut self, entropy: &mut dyn Entropy) {
        self.request = None;
        self.registered = false;
        self.stage = Stage::Registering(SharedKey::generate(entropy));
    }

    /// The body of the next HTTP request; `None` if nothing is under way. A document is never sent twice: the relay takes
    /// each once, so after a lost connection ask for another one.
    ///
    /// # Errors
    /// [`ManagerError::RelayKey`].
    pub fn document(&self, entropy: &mut dyn Entropy) -> Result<Option<Vec<u8>>, ManagerError> {
        let (operation, fragment) = match (&self.stage, &self.request, self.keys.shared()) {
            (Stage::Registering(key), ..) => {
                (Operation::Registration, registration::write(&self.keys, &self.relay, key, entropy)?)
            }
            (Stage::Asking, Some(request), Some(key)) => {
                let plaintext = provisional::write_request(request);
                let operation = request.operation();
                (operation, secured::secure(key, self.keys.name(), operation, &plaintext, entropy))
            }
            _ => return Ok(None),
        };
        Ok(Some(envelope::write(operation.name(), &fragment)))
    }

    /// Takes the body of an HTTP response, whatever its status was.
    ///
    /// # Errors
    /// [`ManagerError`]; nothing is under way then.
    pub fn answered(&mut self, body: &[u8], entropy: &mut dyn Entropy) -> Result<Progress, ManagerError> {
        let progress = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => return Err(SpmrError::OtherResponse.into()),
            Stage::Registering(key) => self.registration_answered(key, body)?,
            Stage::Asking => self.request_answered(body, entropy)?,
        };
        if matches!(progress, Progress::Done(_)) {
            self.request = None;
        }
        Ok(progress)
    }

    fn registration_answered(&mut self, key: SharedKey, body: &[u8]) -> Result<Progress, ManagerError> {
        let outcome = match envelope::read_answer(body, Operation::Registration)? {
            Answer::Response(document) => self.open(&key, Operation::Registration, &document)?,
            Answer::Fault(code, text) => return Err(ManagerError::Fault { code, text }),
        };
        self.keys.set_shared(key);
        self.registered = true;
        if self.request.is_none() {
            return Ok(Progress::Done(outcome));
        }
        self.stage = Stage::Asking;
        Ok(Progress::Continue)
    }

    fn request_answered(&mut self, body: &[u8], entropy: &mut dyn Entropy) -> Result<Progress, ManagerError> {
        let operation = self.request.as_ref().map(Request::operation).ok_or(SpmrError::OtherResponse)?;
        match envelope::read_answer(body, operation)? {
            Answer::Response(document) => {
                let key = self.keys.shared().ok_or(SpmrError::OtherResponse)?.clone();
                Ok(Progress::Done(self.open(&key, operation, &document)?))
            }
            Answer::Fault(code, _) if code == i64::from(FaultCode::RegistrationRequired.number()) => {
                if self.registered {
                    return Err(ManagerError::RegistrationLost);
                }
                self.stage = Stage::Registering(SharedKey::generate(entropy));
                Ok(Progress::Continue)
            }
            Answer::Fault(code, text) => Err(ManagerError::Fault { code, text }),
        }
    }

    fn open(&self, key: &SharedKey, operation: Operation, document: &[u8]) -> Result<Outcome, SpmrError> {
        let fragment = Fragment::read(document)?;
        if fragment.server != self.keys.name() || fragment.method != operation.name() {
            return Err(SpmrError::OtherResponse);
        }
        let opened = Sealed::read(&fragment)?.open(key, &fragment)?;
        provisional::read_response(operation, &opened.plaintext)
    }
}

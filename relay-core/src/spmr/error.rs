//! Why an SPMR message is refused: one variant for each cause, and the fault code that tells the other end.

use super::operation::Operation;
use super::profile::{MAX_FORMER_KEYS, MAX_USERS_PER_REQUEST, SHARED_KEY_BYTES};
use super::xml::XmlError;

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal,)*) => {
        /// The codes of a fault (management-soap-spmr 5.1, seen). 302 and 307 are not defined.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum FaultCode {
            $($(#[$doc])* $name = $value,)*
        }

        impl FaultCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code with this number.
            pub fn from_number(number: i64) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| i64::from(code.number()) == number)
            }
        }
    };
}

fault_codes! {
    /// The HTTP request has no Content-Type.
    NoContentType = 301,
    /// No payload.
    NoPayload = 303,
    /// There is no shared key with this management server: it has to register first.
    RegistrationRequired = 304,
    /// Decryption failed.
    DecryptionFailed = 305,
    /// Something went wrong while the message was processed.
    ProcessingFailed = 306,
    /// Something went wrong while a fault was written.
    FaultFailed = 308,
    /// The method's name is not valid.
    InvalidMethod = 309,
    /// The input data is not valid.
    InvalidInput = 310,
    /// There is no input data.
    NoInput = 311,
    /// Some input data is missing.
    MissingInput = 312,
    /// Messages are not processed.
    Disabled = 313,
}

impl FaultCode {
    /// The number on the wire.
    pub fn number(self) -> u16 {
        self as u16
    }
}

/// Why a message is refused, by either end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpmrError {
    /// The HTTP request has no Content-Type.
    #[error("the HTTP request has no Content-Type")]
    NoContentType,
    /// An operator has switched processing off.
    #[error("management messages are not processed here")]
    Disabled,
    /// The body of the HTTP message is empty.
    #[error("the HTTP message has no body")]
    Empty,
    /// The body of the HTTP message is longer than is read.
    #[error("the HTTP message is longer than {0} bytes")]
    TooLong(usize),
    /// The document, the fragment or the plaintext is not XML that is read here.
    #[error("{0}: {1}")]
    Xml(&'static str, XmlError),
    /// The document is not an envelope with a body.
    #[error("the document is not a SOAP envelope with a body")]
    NotAnEnvelope,
    /// The element in the body names no operation.
    #[error("{0:?} is not an operation")]
    UnknownOperation(String),
    /// Method names no operation.
    #[error("{0:?} is not a method")]
    UnknownMethod(String),
    /// Method names another operation than the body does.
    #[error("the body asks for {body} and the fragment for {method}")]
    OtherMethod {
        /// The element in the body.
        body: Operation,
        /// The method of the fragment.
        method: Operation,
    },
    /// The operation has no Payload.
    #[error("{0} has no Payload")]
    NoPayload(Operation),
    /// The Payload has no data.
    #[error("the Payload has no data")]
    NoData,
    /// A value is not base64.
    #[error("{0} is not base64")]
    NotBase64(&'static str),
    /// A required element or attribute is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// No key is shared with this management server.
    #[error("no key is shared with {0:?}")]
    NotRegistered(String),
    /// The IV is not as long as the key.
    #[error("an IV of {0} bytes")]
    IvLength(usize),
    /// The MAC is wrong under every reading of the header.
    #[error("the MAC is wrong")]
    WrongMac,
    /// The message, or the registration of a former key, has been here before.
    #[error("the message has been here before")]
    Replayed,
    /// A response is to another management server or method than was asked.
    #[error("the response is not to this request")]
    OtherResponse,
    /// No public key is configured for this management server.
    #[error("the management server {0:?} is not known here")]
    UnknownManagementServer(String),
    /// KeyAlg or SigAlg is none of ours.
    #[error("{0} {1:?} is not known")]
    Algorithm(&'static str, String),
    /// The signature of a registration is wrong.
    #[error("the signature is wrong")]
    WrongSignature,
    /// The key of a registration does not open.
    #[error("the key does not open with the relay's private key")]
    KeyNotOpened,
    /// The key of a registration has another length.
    #[error("a key of {0} bytes, not {SHARED_KEY_BYTES}")]
    KeyLength(usize),
    /// The management server has had too many keys.
    #[error(
        "more than {MAX_FORMER_KEYS} keys were registered; the management server needs a new signature key"
    )]
    TooManyKeys,
    /// The plaintext's root is not that of the operation.
    #[error("the plaintext is not that of {0}")]
    OtherPlaintext(Operation),
    /// A value is not one that is allowed there.
    #[error("{0} has a value that is not allowed")]
    Value(&'static str),
    /// Too many users in one request.
    #[error("more than {MAX_USERS_PER_REQUEST} users in one request")]
    TooManyUsers,
    /// Something failed inside the relay.
    #[error("the relay failed inside; its log says more")]
    Internal,
}

impl SpmrError {
    /// The code that tells a management server this cause (7.6).
    pub fn fault_code(&self) -> FaultCode {
        use FaultCode as Code;
        match self {
            Self::NoContentType => Code::NoContentType,
            Self::Disabled => Code::Disabled,
            Self::Empty | Self::NoData => Code::NoInput,
            Self::UnknownOperation(_) | Self::UnknownMethod(_) | Self::OtherMethod { .. } => {
                Code::InvalidMethod
            }
            Self::NoPayload(_) => Code::NoPayload,
            Self::Missing(_) => Code::MissingInput,
            Self::NotRegistered(_) => Code::RegistrationRequired,
            Self::IvLength(_)
            | Self::WrongMac
            | Self::Replayed
            | Self::WrongSignature
            | Self::KeyNotOpened => Code::DecryptionFailed,
            Self::UnknownManagementServer(_) | Self::TooManyKeys | Self::Internal | Self::OtherResponse => {
                Code::ProcessingFailed
            }
            Self::TooLong(_)
            | Self::Xml(..)
            | Self::NotAnEnvelope
            | Self::NotBase64(_)
            | Self::Algorithm(..)
            | Self::KeyLength(_)
            | Self::OtherPlaintext(_)
            | Self::Value(_)
            | Self::TooManyUsers => Code::InvalidInput,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_codes_are_those_of_the_specification() {
        let numbers: Vec<u16> = FaultCode::ALL.iter().map(|code| code.number()).collect();
        assert_eq!(numbers, [301, 303, 304, 305, 306, 308, 309, 310, 311, 312, 313]);
        for number in [0, 300, 302, 307, 314, -1] {
            assert_eq!(FaultCode::from_number(number), None);
        }
        assert_eq!(FaultCode::from_number(308), Some(FaultCode::FaultFailed));
    }
}

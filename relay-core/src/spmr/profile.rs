//! Every number, name and text of SPMR, with its provenance. Holds no behaviour.
//!
//! Provenance words: *seen* = read in the published specification; *inferred* = deduced from it; *ours* = settled by
//! wire profile 1 because the specification could not be read. One fact learnt later changes one line here.

/// Begins every document: two processing instructions and nothing between them (seen, 3.1.2.2.2).
pub(super) const PROLOG: &str = "<?xml version='1.0'?><?groove.net version='1.0'?>";
/// The namespace of a fragment (seen, 3.1.2.2.2).
pub(super) const FRAGMENT_NAMESPACE: &str = "urn:groove.net";
/// The value of `xsi:type` on a Payload (seen, 2.2.2.2.3).
pub(super) const PAYLOAD_TYPE: &str = "binary";
/// Opens an envelope and its body (inferred from the sibling's sample, management-soap-spmr 9.5).
pub(super) const ENVELOPE_OPEN: &str = concat!(
    r#"<SOAP-ENV:Envelope SOAP-ENV:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/""#,
    r#" xmlns:SOAP-ENC="http://schemas.xmlsoap.org/soap/encoding/""#,
    r#" xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/""#,
    r#" xmlns:xsd="http://www.w3.org/1999/XMLSchema""#,
    r#" xmlns:xsi="http://www.w3.org/1999/XMLSchema-instance"><SOAP-ENV:Body>"#,
);
/// Opens the envelope of a fault and its body (ours, 9.5).
pub(super) const FAULT_ENVELOPE_OPEN: &str =
    r#"<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"><SOAP-ENV:Body>"#;
/// Closes body and envelope.
pub(super) const ENVELOPE_CLOSE: &str = "</SOAP-ENV:Body></SOAP-ENV:Envelope>";

/// The Content-Type that our ends send. A relay looks only for its presence (inferred, sec. 2).
pub const CONTENT_TYPE: &str = "text/xml; charset=utf-8";
/// The port on which a relay listens for management servers (seen in product documentation).
pub const PORT: u16 = 8009;

/// The length of the shared key in bytes: 160 bits (seen, 1.3.3).
pub const SHARED_KEY_BYTES: usize = 20;
/// The length of an IV: that of the key (inferred from the sibling's rule).
pub(super) const IV_BYTES: usize = SHARED_KEY_BYTES;
/// The length of a MAC: HMAC-SHA1 (seen in the sibling, 3.1.6.8).
pub(super) const MAC_BYTES: usize = 20;

/// The purpose for which a shared key is sealed (ours, wire-profile sec. 6).
pub(super) const SEAL_PURPOSE: &str = "spmr key";
/// KeyAlg of a key sealed to the relay's X25519 key (ours).
pub(super) const KEY_X25519: &str = "X25519";
/// KeyAlg of a key encrypted to the relay's ElGamal key (ours).
pub(super) const KEY_ELGAMAL: &str = "ElGamal1536";
/// SigAlg of an Ed25519 signature (ours).
pub(super) const SIGNATURE_ED25519: &str = "Ed25519";
/// SigAlg of an RSA PKCS#1 v1.5 signature with SHA-1 (ours).
pub(super) const SIGNATURE_RSA: &str = "RSA-SHA1";

/// Elements inside one another (ours); the deepest document of the protocol has five.
pub(super) const MAX_DEPTH: usize = 16;
/// Attributes of one element (ours); an envelope has five.
pub(super) const MAX_ATTRIBUTES: usize = 16;
/// Elements of one document (ours): users with several identities each, and room.
pub(super) const MAX_ELEMENTS: usize = 250_000;
/// The longest identity of a management server in bytes (ours); its form was not seen.
pub const MAX_SERVER_NAME_BYTES: usize = 255;
/// The most users of one request (ours). A larger load is meant to be split (seen in the sibling, MS-GRVPROT 2.5.14).
pub const MAX_USERS_PER_REQUEST: usize = 10_000;
/// Requests under one shared key (ours): each is remembered, so that it cannot be repeated. After so many the relay answers
/// 304, and the management server registers a new key.
pub const MAX_REQUESTS_PER_KEY: u32 = 1 << 20;
/// Keys that one management server may have had (ours): each is remembered, so that no recorded Registration brings it back.
pub const MAX_FORMER_KEYS: u32 = 1 << 16;

//! Securing and opening a message (management-soap-spmr 7.1, 7.5): the plaintext encrypted in a fragment, and a MAC over
//! header and plaintext. Both ends; what is asked is the affair of the operations.

use super::base64_text;
use super::error::SpmrError;
use super::fragment::{self, Fragment, HeaderForm, required};
use super::operation::Operation;
use super::profile::{IV_BYTES, MAC_BYTES};
use super::shared_key::SharedKey;
use crate::time::Entropy;
use ring::digest;

/// Names one message under one shared key: the digest of its IV and MAC. A relay takes each once.
pub type MessageTrace = [u8; 16];

/// A message whose MAC was right.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) plaintext: Vec<u8>,
    pub(super) trace: MessageTrace,
    pub(super) form: HeaderForm,
}

/// Secures a plaintext with a fresh IV; gives the fragment document.
pub(super) fn secure(
    key: &SharedKey,
    server: &str,
    operation: Operation,
    plaintext: &str,
    entropy: &mut dyn Entropy,
) -> String {
    let mut iv = [0; IV_BYTES];
    entropy.fill(&mut iv);
    let header = fragment::header(server, operation.name(), &[]);
    let mac = base64_text::encode(key.mac(header.as_bytes(), plaintext.as_bytes()));
    let mut encrypted = plaintext.as_bytes().to_vec();
    key.crypt(&iv, &mut encrypted);
    let (encrypted, iv) = (base64_text::encode(encrypted), base64_text::encode(iv));
    let content: [(&str, &[(&str, &str)]); 2] =
        [("g:Enc", &[("EC", &encrypted), ("IV", &iv)]), ("g:Auth", &[("MAC", &mac)])];
    fragment::finished(server, operation.name(), &[], &content)
}

/// What a fragment carries in its secured element, before a key is looked for.
pub(super) struct Sealed {
    encrypted: Vec<u8>,
    iv: Vec<u8>,
    mac: Vec<u8>,
}

impl Sealed {
    /// Takes the three values; each has to be there.
    pub(super) fn read(fragment: &Fragment) -> Result<Self, SpmrError> {
        let encrypted = fragment.encrypted.as_ref().ok_or(SpmrError::Missing("g:Enc"))?;
        let authenticator = fragment.authenticator.as_ref().ok_or(SpmrError::Missing("g:Auth"))?;
        Ok(Self {
            encrypted: base64_text::decode(required(encrypted, "EC")?, "EC")?,
            iv: base64_text::decode(required(encrypted, "IV")?, "IV")?,
            mac: base64_text::decode(required(authenticator, "MAC")?, "MAC")?,
        })
    }

    /// Decrypts, and checks the MAC against every form of the fragment's header.
    pub(super) fn open(self, key: &SharedKey, fragment: &Fragment) -> Result<Opened, SpmrError> {
        let iv: [u8; IV_BYTES] =
            self.iv.as_slice().try_into().map_err(|_| SpmrError::IvLength(self.iv.len()))?;
        let mut plaintext = self.encrypted;
        key.crypt(&iv, &mut plaintext);
        let right = fragment.headers.iter().find(|(_, header)| key.verify(header, &plaintext, &self.mac));
        let &(form, _) = right.ok_or(SpmrError::WrongMac)?;
        let mac: [u8; MAC_BYTES] = self.mac.as_slice().try_into().map_err(|_| SpmrError::WrongMac)?;
        Ok(Opened { plaintext, trace: trace(&iv, &mac), form })
    }
}

fn trace(iv: &[u8; IV_BYTES], mac: &[u8; MAC_BYTES]) -> MessageTrace {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(iv);
    context.update(mac);
    *context.finish().as_ref().first_chunk().expect("SHA-256 is longer")
}

#[cfg(test)]
mod tests {
    use super::super::vectors::*;
    use super::*;

    fn key() -> SharedKey {
        SharedKey::from_bytes(&unhex(K)).unwrap()
    }

    fn secured(iv: &str, plaintext: &str) -> String {
        secure(&key(), SERVER, Operation::RelayQuiescent, plaintext, &mut Script(unhex(iv)))
    }

    fn opened(document: &str) -> Result<Opened, SpmrError> {
        let fragment = Fragment::read(document.as_bytes())?;
        Sealed::read(&fragment)?.open(&key(), &fragment)
    }

    #[test]
    fn the_finished_fragments_are_those_of_the_vectors() {
        for vector in &QUIESCENT {
            let document = secured(vector.iv, vector.plaintext);
            assert_eq!(document.len(), 416);
            assert_eq!(sha1(document.as_bytes()), vector.fragment_sha1);
            let fragment = Fragment::read(document.as_bytes()).unwrap();
            let parts = Sealed::read(&fragment).unwrap();
            assert_eq!(hex(&parts.encrypted), vector.encrypted);
            assert_eq!(hex(&parts.mac), vector.mac);
            let header = fragment::header(SERVER, "RelayQuiescent", &[]);
            assert_eq!(sha1(&[header.as_bytes(), vector.plaintext.as_bytes()].concat()), vector.digest);
            let opened = opened(&document).unwrap();
            assert_eq!(opened.plaintext, vector.plaintext.as_bytes());
            assert_eq!(opened.form, HeaderForm::Canonical);
        }
        assert_eq!(secured(IV1, QUIESCENT[0].plaintext), FRAGMENT);
        assert_eq!(base64_text::encode(FRAGMENT), FRAGMENT_BASE64);
    }

    #[test]
    fn every_flipped_bit_of_what_is_secured_is_noticed() {
        let document = secured(IV1, QUIESCENT[0].plaintext);
        let fragment = Fragment::read(document.as_bytes()).unwrap();
        let right = Sealed::read(&fragment).unwrap();
        let fields = [("EC", right.encrypted), ("IV", right.iv), ("MAC", right.mac)];
        for (name, bytes) in &fields {
            for bit in 0..bytes.len() * 8 {
                let mut altered = bytes.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                let (from, to) = (base64_text::encode(bytes), base64_text::encode(altered));
                let document = document.replace(&from, &to);
                assert_eq!(opened(&document).map(|_| ()), Err(SpmrError::WrongMac), "bit {bit} of {name}");
            }
        }
        let renamed = document.replace("msrv1", "nsrv1");
        assert_eq!(opened(&renamed).map(|_| ()), Err(SpmrError::WrongMac));
        let other = document.replace("Method=\"RelayQuiescent\"", "Method=\"userPurge\"");
        assert_eq!(opened(&other).map(|_| ()), Err(SpmrError::WrongMac));
    }

    #[test]
    fn a_header_hashed_as_it_was_sent_is_accepted() {
        let (key, plaintext) = (key(), QUIESCENT[0].plaintext);
        let iv: [u8; IV_BYTES] = unhex(IV1).try_into().unwrap();
        let mut encrypted = plaintext.as_bytes().to_vec();
        key.crypt(&iv, &mut encrypted);
        let body = |secured: &str| {
            format!(
                "<f:fragment xmlns:f='urn:groove.net'><Payload Zone='1' Method='RelayQuiescent' ManagementServer='msrv1.example'>{secured}</Payload></f:fragment>"
            )
        };
        for (hashed, form) in [("<f:SE/>", HeaderForm::Collapsed), ("<f:SE></f:SE>", HeaderForm::Emptied)] {
            let mac = key.mac(body(hashed).as_bytes(), plaintext.as_bytes());
            let [encrypted, iv, mac] = [&encrypted[..], &iv, &mac].map(base64_text::encode);
            let sent =
                body(&format!("<f:SE><f:Enc EC='{encrypted}' IV='{iv}'/><f:Auth MAC='{mac}'/></f:SE>"));
            assert_eq!(opened(&sent).unwrap().form, form);
        }
    }

    #[test]
    fn each_missing_or_wrong_part_has_its_own_error() {
        let document = secured(IV1, QUIESCENT[0].plaintext);
        let iv = base64_text::encode(unhex(IV1));
        let cases = [
            (document.replace("g:Enc", "g:Other"), SpmrError::Missing("g:Enc")),
            (document.replace("g:Auth", "g:Other"), SpmrError::Missing("g:Auth")),
            (document.replace("EC=", "Ec="), SpmrError::Missing("EC")),
            (document.replace("IV=", "Iv="), SpmrError::Missing("IV")),
            (document.replace("MAC=", "Mac="), SpmrError::Missing("MAC")),
            (document.replace(&iv, "AQI="), SpmrError::IvLength(2)),
            (document.replace(&iv, "?"), SpmrError::NotBase64("IV")),
            (document.replace("MAC=\"", "MAC=\"AA"), SpmrError::NotBase64("MAC")),
        ];
        for (document, error) in cases {
            assert_eq!(opened(&document).map(|_| ()), Err(error), "{document}");
        }
    }
}

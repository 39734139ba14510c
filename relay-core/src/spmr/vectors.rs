//! The worked examples of management-soap-spmr sec. 9, and what tests need to use them. Never part of a build.

use crate::time::Entropy;
use ring::digest;

pub(super) const K: &str = "030e19242f3a45505b66717c87929da8b3bec9d4";
pub(super) const IV1: &str = "5b626970777e858c939aa1a8afb6bdc4cbd2d9e0";
pub(super) const IV2: &str = "a1aebbc8d5e2effc091623303d4a5764717e8b98";
pub(super) const SERVER: &str = "msrv1.example";

/// One RelayQuiescent request.
pub(super) struct Quiescent {
    pub(super) iv: &'static str,
    pub(super) plaintext: &'static str,
    pub(super) digest: &'static str,
    pub(super) encrypted: &'static str,
    pub(super) mac: &'static str,
    pub(super) fragment_sha1: &'static str,
}

/// 9.3 and 9.4.
pub(super) const QUIESCENT: [Quiescent; 2] = [
    Quiescent {
        iv: IV1,
        plaintext: "<?xml version='1.0'?><?groove.net version='1.0'?><RelayQuiescent><relay status=\"1\"/></RelayQuiescent>",
        digest: "4053671cf2aebe7826fab32018468feedd07f959",
        encrypted: "20beea3abc5540a18a1e33da24f0f028ac5e246409a42ffdcfe182b6a907b804f255769124409dcae99dc0b1b23cc235\
            2db81e67eb7ff622e89a08bae190b5ceec28c2c234e80e9637ec53b448ac8460f2d40896a4d39e211a75ce75b2250fac\
            02a4ecdbeb",
        mac: "3362c9a5b565fe68e3f32cb0db1a1eedfb2457a6",
        fragment_sha1: "df677237a80147f236b9b4f55bad781917db0275",
    },
    Quiescent {
        iv: IV2,
        plaintext: "<?xml version='1.0'?><?groove.net version='1.0'?><RelayQuiescent><relay status=\"0\"/></RelayQuiescent>",
        digest: "a806f3324a2717981192989d6e2e0864ef525db9",
        encrypted: "9689d971c13be1307b47214ce77114dba9104ef326028bfbbd01d4fa554c4bfb0f34f23cd44ad4d75cbb0d74623090b1\
            cd1e3030e03cca769f48cd99939942ac2d7fbb634130172c4667010378f8858a7dc8edaa7a2e05d35797f002f7b47a31\
            bfd249adba",
        mac: "dd4553efbc278330900f97cfd9fc88c59243fc7f",
        fragment_sha1: "3713f819b626b14015a417f2889720518db6e1b1",
    },
];

/// The finished fragment of 9.3.
pub(super) const FRAGMENT: &str = "<?xml version='1.0'?><?groove.net version='1.0'?><g:fragment xmlns:g=\"urn:groove.net\"><Payload Man\
    agementServer=\"msrv1.example\" Method=\"RelayQuiescent\"><g:SE><g:Enc EC=\"IL7qOrxVQKGKHjPaJPDwKKxe\
    JGQJpC/9z+GCtqkHuATyVXaRJECdyumdwLGyPMI1LbgeZ+t/9iLomgi64ZC1zuwowsI06A6WN+xTtEishGDy1AiWpNOeIRp1znWy\
    JQ+sAqTs2+s=\" IV=\"W2JpcHd+hYyTmqGor7a9xMvS2eA=\"/><g:Auth MAC=\"M2LJpbVl/mjj8yyw2xoe7fskV6Y=\"/></\
    g:SE></Payload></g:fragment>";

/// The same in base64.
pub(super) const FRAGMENT_BASE64: &str = "PD94bWwgdmVyc2lvbj0nMS4wJz8+PD9ncm9vdmUubmV0IHZlcnNpb249JzEuMCc/PjxnOmZyYWdtZW50IHhtbG5zOmc9InVybjpn\
    cm9vdmUubmV0Ij48UGF5bG9hZCBNYW5hZ2VtZW50U2VydmVyPSJtc3J2MS5leGFtcGxlIiBNZXRob2Q9IlJlbGF5UXVpZXNjZW50\
    Ij48ZzpTRT48ZzpFbmMgRUM9IklMN3FPcnhWUUtHS0hqUGFKUER3S0t4ZUpHUUpwQy85eitHQ3Rxa0h1QVR5VlhhUkpFQ2R5dW1k\
    d0xHeVBNSTFMYmdlWit0LzlpTG9tZ2k2NFpDMXp1d293c0kwNkE2V04reFR0RWlzaEdEeTFBaVdwTk9lSVJwMXpuV3lKUStzQXFU\
    czIrcz0iIElWPSJXMkpwY0hkK2hZeVRtcUdvcjdhOXhNdlMyZUE9Ii8+PGc6QXV0aCBNQUM9Ik0yTEpwYlZsL21qajh5eXcyeG9l\
    N2Zza1Y2WT0iLz48L2c6U0U+PC9QYXlsb2FkPjwvZzpmcmFnbWVudD4=";

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

pub(super) fn sha1(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref())
}

/// Gives the bytes that it was made of, in order.
pub(super) struct Script(pub(super) Vec<u8>);

impl Entropy for Script {
    fn fill(&mut self, buffer: &mut [u8]) {
        let rest = self.0.split_off(buffer.len());
        buffer.copy_from_slice(&self.0);
        self.0 = rest;
    }
}

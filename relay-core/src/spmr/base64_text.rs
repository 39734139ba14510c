//! Binary values in XML: base64, on receipt with white space anywhere in it (as `xs:base64Binary` allows).

use super::error::SpmrError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Writes bytes as base64.
pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// Reads base64; `what` names it in the error.
pub(super) fn decode(text: &str, what: &'static str) -> Result<Vec<u8>, SpmrError> {
    let is_space = |byte: &u8| byte.is_ascii_whitespace();
    let decoded = if text.as_bytes().iter().any(is_space) {
        STANDARD.decode(text.bytes().filter(|byte| !is_space(byte)).collect::<Vec<u8>>())
    } else {
        STANDARD.decode(text)
    };
    decoded.map_err(|_| SpmrError::NotBase64(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_allowed_and_nothing_else() {
        assert_eq!(decode(" AQ\n I= \t", "x"), Ok(vec![1, 2]));
        assert_eq!(decode("", "x"), Ok(vec![]));
        for wrong in ["AQ", "A", "AQI=*", "AQ=I", "AQI-"] {
            assert_eq!(decode(wrong, "x"), Err(SpmrError::NotBase64("x")), "{wrong}");
        }
    }
}

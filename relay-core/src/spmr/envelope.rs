//! The envelope around a Payload, and the fault (management-soap-spmr 4.1, 4.9, 9.5). Matches on local names, so that other
//! prefixes and schema years are read too.

use super::base64_text;
use super::canonical::{is_writable, push_empty, push_escaped};
use super::error::{FaultCode, SpmrError};
use super::operation::Operation;
use super::profile::{ENVELOPE_CLOSE, ENVELOPE_OPEN, FAULT_ENVELOPE_OPEN, PAYLOAD_TYPE, PROLOG};
use super::xml::{Scanner, XmlError};

fn xml(error: XmlError) -> SpmrError {
    SpmrError::Xml("the envelope", error)
}

/// Writes an envelope with a fragment document.
pub(super) fn write(element: &str, fragment: &str) -> Vec<u8> {
    let data = base64_text::encode(fragment);
    let mut out = String::with_capacity(data.len() + 512);
    out.push_str(PROLOG);
    out.push_str(ENVELOPE_OPEN);
    out.push('<');
    out.push_str(element);
    out.push('>');
    push_empty(&mut out, "Payload", [("data", data.as_str()), ("xsi:type", PAYLOAD_TYPE)]);
    out.push_str("</");
    out.push_str(element);
    out.push('>');
    out.push_str(ENVELOPE_CLOSE);
    out.into_bytes()
}

/// Writes a fault. A text that XML cannot hold becomes fault 308.
pub fn write_fault(code: FaultCode, text: &str) -> Vec<u8> {
    let (code, text) = match is_writable(text) {
        true => (code, text),
        false => (FaultCode::FaultFailed, "the fault could not be written"),
    };
    let mut out = format!(
        "{PROLOG}{FAULT_ENVELOPE_OPEN}<SOAP-ENV:Fault><faultCode>{}</faultCode><faultString>",
        code.number()
    );
    push_escaped(&mut out, text);
    out.push_str("</faultString></SOAP-ENV:Fault>");
    out.push_str(ENVELOPE_CLOSE);
    out.into_bytes()
}

/// Goes to the first element of the body; gives its name.
fn body_element(scanner: &mut Scanner<'_>) -> Result<String, SpmrError> {
    let root = scanner.child().map_err(xml)?.ok_or(SpmrError::NotAnEnvelope)?;
    if root.name() != "Envelope" {
        return Err(SpmrError::NotAnEnvelope);
    }
    while let Some(element) = scanner.child().map_err(xml)? {
        if element.name() == "Body" {
            let operation = scanner.child().map_err(xml)?.ok_or(SpmrError::NotAnEnvelope)?;
            return Ok(operation.name().to_owned());
        }
        scanner.skip().map_err(xml)?;
    }
    Err(SpmrError::NotAnEnvelope)
}

/// The fragment document in the Payload of the element that was opened last, to the end of the envelope.
fn payload(mut scanner: Scanner<'_>, operation: Operation) -> Result<Vec<u8>, SpmrError> {
    while let Some(element) = scanner.child().map_err(xml)? {
        if element.name() != "Payload" {
            scanner.skip().map_err(xml)?;
            continue;
        }
        let attribute = element.attribute("data").map_err(xml)?;
        let text = scanner.text().map_err(xml)?;
        let data = attribute.as_deref().unwrap_or(&text).trim();
        if data.is_empty() {
            return Err(SpmrError::NoData);
        }
        let fragment = base64_text::decode(data, "data")?;
        scanner.finish().map_err(xml)?;
        return Ok(fragment);
    }
    Err(SpmrError::NoPayload(operation))
}

/// Reads a request: which operation, and its fragment document.
pub(super) fn read_request(body: &[u8]) -> Result<(Operation, Vec<u8>), SpmrError> {
    if body.trim_ascii().is_empty() {
        return Err(SpmrError::Empty);
    }
    let mut scanner = Scanner::new(body).map_err(xml)?;
    let name = body_element(&mut scanner)?;
    let operation = Operation::from_name(&name).ok_or(SpmrError::UnknownOperation(name))?;
    Ok((operation, payload(scanner, operation)?))
}

/// What a relay answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The fragment document of a response.
    Response(Vec<u8>),
    /// A fault with its code, which may be none of ours, and its text.
    Fault(i64, String),
}

/// Reads the answer to a request.
pub(super) fn read_answer(body: &[u8], operation: Operation) -> Result<Answer, SpmrError> {
    if body.trim_ascii().is_empty() {
        return Err(SpmrError::Empty);
    }
    let mut scanner = Scanner::new(body).map_err(xml)?;
    let name = body_element(&mut scanner)?;
    if name.eq_ignore_ascii_case("fault") {
        return read_fault(scanner);
    }
    if name != operation.response_name() && name != operation.name() {
        return Err(SpmrError::UnknownOperation(name));
    }
    payload(scanner, operation).map(Answer::Response)
}

fn read_fault(mut scanner: Scanner<'_>) -> Result<Answer, SpmrError> {
    let (mut code, mut text) = (None, String::new());
    while let Some(element) = scanner.child().map_err(xml)? {
        let content = scanner.text().map_err(xml)?;
        if element.name().eq_ignore_ascii_case("faultcode") {
            code = Some(content.trim().parse().map_err(|_| SpmrError::Value("faultCode"))?);
        } else if element.name().eq_ignore_ascii_case("faultstring") {
            text = content.into_owned();
        }
    }
    scanner.finish().map_err(xml)?;
    Ok(Answer::Fault(code.ok_or(SpmrError::Missing("faultCode"))?, text))
}

#[cfg(test)]
mod tests {
    use super::super::vectors::{FRAGMENT, FRAGMENT_BASE64};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_envelope_and_the_fault_are_those_of_the_samples() {
        let envelope = String::from_utf8(write("RelayQuiescent", FRAGMENT)).unwrap();
        let sample = "<?xml version='1.0'?><?groove.net version='1.0'?><SOAP-ENV:Envelope \
            SOAP-ENV:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\" \
            xmlns:SOAP-ENC=\"http://schemas.xmlsoap.org/soap/encoding/\" \
            xmlns:SOAP-ENV=\"http://schemas.xmlsoap.org/soap/envelope/\" \
            xmlns:xsd=\"http://www.w3.org/1999/XMLSchema\" \
            xmlns:xsi=\"http://www.w3.org/1999/XMLSchema-instance\"><SOAP-ENV:Body><RelayQuiescent>\
            <Payload data=\"PD94…\" xsi:type=\"binary\"/></RelayQuiescent></SOAP-ENV:Body></SOAP-ENV:Envelope>";
        assert_eq!(envelope.replace(FRAGMENT_BASE64, "PD94…"), sample);
        let fault = write_fault(FaultCode::RegistrationRequired, "Registration required");
        assert_eq!(
            String::from_utf8(fault).unwrap(),
            "<?xml version='1.0'?><?groove.net version='1.0'?><SOAP-ENV:Envelope \
             xmlns:SOAP-ENV=\"http://schemas.xmlsoap.org/soap/envelope/\"><SOAP-ENV:Body><SOAP-ENV:Fault>\
             <faultCode>304</faultCode><faultString>Registration required</faultString></SOAP-ENV:Fault>\
             </SOAP-ENV:Body></SOAP-ENV:Envelope>"
        );
    }

    #[test]
    fn a_request_is_read_however_it_is_dressed() {
        let expected = Ok((Operation::RelayQuiescent, FRAGMENT.as_bytes().to_vec()));
        assert_eq!(read_request(&write("RelayQuiescent", FRAGMENT)), expected);
        let text = format!(
            "<s:Envelope xmlns:s='x'><s:Header><a/></s:Header>\n<s:Body><RelayQuiescent>\n<Payload \
             xsi:type='base64'>{FRAGMENT_BASE64}\n</Payload></RelayQuiescent></s:Body></s:Envelope>"
        );
        assert_eq!(read_request(text.as_bytes()), expected);
    }

    #[test]
    fn each_fault_of_an_envelope_has_its_own_error() {
        let body = |inner: &str| format!("<s:Envelope><s:Body>{inner}</s:Body></s:Envelope>");
        let cases = [
            (String::new(), SpmrError::Empty),
            (" \r\n".into(), SpmrError::Empty),
            ("<a/>".into(), SpmrError::NotAnEnvelope),
            ("<Envelope/>".into(), SpmrError::NotAnEnvelope),
            (body(""), SpmrError::NotAnEnvelope),
            (body("<userDelete/>"), SpmrError::UnknownOperation("userDelete".into())),
            (body("<userAdd/>"), SpmrError::NoPayload(Operation::UserAdd)),
            (body("<userAdd><Other data='AA=='/></userAdd>"), SpmrError::NoPayload(Operation::UserAdd)),
            (body("<userAdd><Payload/></userAdd>"), SpmrError::NoData),
            (body("<userAdd><Payload data=' '/></userAdd>"), SpmrError::NoData),
            (body("<userAdd><Payload data='?'/></userAdd>"), SpmrError::NotBase64("data")),
        ];
        for (text, error) in cases {
            assert_eq!(read_request(text.as_bytes()), Err(error), "{text}");
        }
        let broken = read_request(b"x");
        assert!(matches!(broken, Err(SpmrError::Xml("the envelope", _))), "{broken:?}");
    }

    #[test]
    fn an_answer_is_read_under_either_name_and_a_fault_in_any_case_of_letters() {
        for name in ["userAdd", "userAddResponse"] {
            let answer = read_answer(&write(name, "x"), Operation::UserAdd);
            assert_eq!(answer, Ok(Answer::Response(b"x".to_vec())));
        }
        let other = read_answer(&write("userPurgeResponse", "x"), Operation::UserAdd);
        assert_eq!(other, Err(SpmrError::UnknownOperation("userPurgeResponse".into())));
        for (wrapper, code, string) in
            [("Fault", "faultCode", "faultString"), ("SOAP-ENV:Fault", "faultcode", "FAULTSTRING")]
        {
            let text = format!(
                "<Envelope><Body><{wrapper}><{code}> 304 </{code}><{string}>a&lt;b</{string}></{wrapper}></Body></Envelope>"
            );
            let answer = read_answer(text.as_bytes(), Operation::UserAdd);
            assert_eq!(answer, Ok(Answer::Fault(304, "a<b".into())));
        }
        let bare = read_answer(b"<Envelope><Body><Fault/></Body></Envelope>", Operation::UserAdd);
        assert_eq!(bare, Err(SpmrError::Missing("faultCode")));
    }

    #[test]
    fn a_fault_that_cannot_be_written_is_fault_308() {
        let fault = write_fault(FaultCode::InvalidMethod, "no \u{1} here");
        let answer = read_answer(&fault, Operation::UserAdd);
        assert_eq!(answer, Ok(Answer::Fault(308, "the fault could not be written".into())));
    }

    proptest! {
        #[test]
        fn every_fault_comes_back(index in 0..FaultCode::ALL.len(), text in "[ -~äß€]{0,60}") {
            let code = FaultCode::ALL[index];
            let answer = read_answer(&write_fault(code, &text), Operation::UserAdd);
            prop_assert_eq!(answer, Ok(Answer::Fault(i64::from(code.number()), text)));
        }
    }
}

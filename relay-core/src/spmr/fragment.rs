//! The fragment document, which every Payload carries (management-soap-spmr 3.2, 3.3): who says it, which method, and a
//! secured element whose content is authenticated together with a serialized header. Owns its form and the
//! readings of its header; computes no MAC and no signature.

use super::canonical::{push_empty, push_tag};
use super::error::SpmrError;
use super::profile::{FRAGMENT_NAMESPACE, MAX_SERVER_NAME_BYTES, PROLOG};
use super::xml::{Element, Scanner, XmlError};

/// Names and values of attributes.
pub(super) type Attributes = Vec<(String, String)>;

/// How a header was serialized by the other end (7.5): the one that fits is told to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderForm {
    /// Serialized anew from the attributes (8.1).
    Canonical,
    /// The bytes as received, the content of `g:SE` cut out and its tag collapsed.
    Collapsed,
    /// The bytes as received, the content of `g:SE` cut out between its two tags.
    Emptied,
}

/// A fragment as received.
#[derive(Debug)]
pub(super) struct Fragment {
    /// ManagementServer.
    pub(super) server: String,
    /// Method.
    pub(super) method: String,
    /// Attributes of `g:SE`.
    pub(super) secured: Attributes,
    /// Attributes of `g:Enc`, if it is there.
    pub(super) encrypted: Option<Attributes>,
    /// Attributes of `g:Auth`, if it is there.
    pub(super) authenticator: Option<Attributes>,
    /// The header in each form, the likeliest first.
    pub(super) headers: [(HeaderForm, Vec<u8>); 3],
}

/// The value of an attribute that has to be there and not empty.
pub(super) fn required<'a>(attributes: &'a Attributes, name: &'static str) -> Result<&'a str, SpmrError> {
    let found = attributes.iter().find(|(found, _)| found == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty()).ok_or(SpmrError::Missing(name))
}

fn xml(error: XmlError) -> SpmrError {
    SpmrError::Xml("the fragment", error)
}

/// Where the secured element stands in the document.
struct Place {
    open: std::ops::Range<usize>,
    /// Behind its content, where its end tag begins; the same as `end` if it is one empty tag.
    close: usize,
    end: usize,
}

impl Fragment {
    /// Reads a fragment document.
    pub(super) fn read(document: &[u8]) -> Result<Self, SpmrError> {
        let mut scanner = Scanner::new(document).map_err(xml)?;
        find_child(&mut scanner, "fragment")?.ok_or(SpmrError::Missing("g:fragment"))?;
        let payload = find_child(&mut scanner, "Payload")?.ok_or(SpmrError::Missing("Payload"))?;
        let payload = payload.attributes().map_err(xml)?;
        let secured = find_child(&mut scanner, "SE")?.ok_or(SpmrError::Missing("g:SE"))?;
        let (mut encrypted, mut authenticator) = (None, None);
        let mut close = scanner.position();
        while let Some(element) = scanner.child().map_err(xml)? {
            match element.name() {
                "Enc" if encrypted.is_none() => encrypted = Some(element.attributes().map_err(xml)?),
                "Auth" if authenticator.is_none() => authenticator = Some(element.attributes().map_err(xml)?),
                _ => {}
            }
            scanner.skip().map_err(xml)?;
            close = scanner.position();
        }
        let place = Place { open: secured.span.clone(), close, end: scanner.position() };
        scanner.finish().map_err(xml)?;
        let secured = secured.attributes().map_err(xml)?;
        let server = required(&payload, "ManagementServer")?.to_owned();
        let method = required(&payload, "Method")?.to_owned();
        if server.len() > MAX_SERVER_NAME_BYTES {
            return Err(SpmrError::Value("ManagementServer"));
        }
        let headers = headers(document, &payload, &secured, &place);
        Ok(Self { server, method, secured, encrypted, authenticator, headers })
    }
}

/// The next child of this name; others are passed over.
fn find_child<'x>(scanner: &mut Scanner<'x>, name: &str) -> Result<Option<Element<'x>>, SpmrError> {
    while let Some(element) = scanner.child().map_err(xml)? {
        if element.name() == name {
            return Ok(Some(element));
        }
        scanner.skip().map_err(xml)?;
    }
    Ok(None)
}

fn headers(
    document: &[u8],
    payload: &Attributes,
    secured: &Attributes,
    place: &Place,
) -> [(HeaderForm, Vec<u8>); 3] {
    let (before, after) = (&document[..place.open.start], &document[place.end..]);
    let tag = &document[place.open.clone()];
    let bare = tag.strip_suffix(b"/>").or_else(|| tag.strip_suffix(b">")).unwrap_or(tag);
    let collapsed = [before, bare.trim_ascii_end(), b"/>", after].concat();
    // Text may stand before the end tag, which is the last thing in the element.
    let rest = &document[place.close..place.end];
    let end_tag = rest.iter().rposition(|byte| *byte == b'<').map_or(rest, |start| &rest[start..]);
    let emptied = [before, bare, b">", end_tag, after].concat();
    [
        (HeaderForm::Canonical, serialized_header(sorted(payload), sorted(secured)).into_bytes()),
        (HeaderForm::Collapsed, collapsed),
        (HeaderForm::Emptied, emptied),
    ]
}

fn sorted(attributes: &Attributes) -> Vec<(&str, &str)> {
    let mut sorted: Vec<_> = attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    sorted.sort_unstable();
    sorted
}

/// The header of a message that is to be sent (8.1).
pub(super) fn header(server: &str, method: &str, secured: &[(&str, &str)]) -> String {
    serialized_header(
        [("ManagementServer", server), ("Method", method)].into_iter().collect(),
        secured.to_vec(),
    )
}

fn serialized_header(payload: Vec<(&str, &str)>, secured: Vec<(&str, &str)>) -> String {
    with_content(payload, secured, &[])
}

/// The finished fragment: the header with elements in `g:SE`, each of them empty, in this order.
pub(super) fn finished(
    server: &str,
    method: &str,
    secured: &[(&str, &str)],
    content: &[(&str, &[(&str, &str)])],
) -> String {
    with_content(vec![("ManagementServer", server), ("Method", method)], secured.to_vec(), content)
}

fn with_content(
    payload: Vec<(&str, &str)>,
    secured: Vec<(&str, &str)>,
    content: &[(&str, &[(&str, &str)])],
) -> String {
    let mut out = String::from(PROLOG);
    push_tag(&mut out, "g:fragment", [("xmlns:g", FRAGMENT_NAMESPACE)]);
    out.push('>');
    push_tag(&mut out, "Payload", payload);
    out.push('>');
    push_tag(&mut out, "g:SE", secured);
    if content.is_empty() {
        out.push_str("/>");
    } else {
        out.push('>');
        for (name, attributes) in content {
            push_empty(&mut out, name, attributes.iter().copied());
        }
        out.push_str("</g:SE>");
    }
    out.push_str("</Payload></g:fragment>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "<?xml version='1.0'?><?groove.net version='1.0'?><g:fragment xmlns:g=\"urn:groove.net\">\
        <Payload ManagementServer=\"msrv1.example\" Method=\"RelayQuiescent\"><g:SE/></Payload></g:fragment>";

    fn header_of(fragment: &Fragment, form: HeaderForm) -> &str {
        let found = fragment.headers.iter().find(|(found, _)| *found == form).unwrap();
        std::str::from_utf8(&found.1).unwrap()
    }

    #[test]
    fn the_header_is_the_182_bytes_of_the_vector() {
        let header = header("msrv1.example", "RelayQuiescent", &[]);
        assert_eq!(header, HEADER);
        assert_eq!(header.len(), 182);
        assert_eq!(PROLOG.len(), 49);
    }

    #[test]
    fn each_form_of_the_header_is_read_from_what_was_received() {
        let received = "<?xml version='1.0'?><x:fragment xmlns:x='urn:groove.net'><Payload Method='m' Third=\"&lt;\" \
            ManagementServer='s' >\n<x:SE ><x:Enc IV='' EC=''/> <x:Auth MAC='1'/>\n</x:SE > </Payload></x:fragment>";
        let fragment = Fragment::read(received.as_bytes()).unwrap();
        assert_eq!(
            header_of(&fragment, HeaderForm::Canonical),
            "<?xml version='1.0'?><?groove.net version='1.0'?><g:fragment xmlns:g=\"urn:groove.net\">\
             <Payload ManagementServer=\"s\" Method=\"m\" Third=\"&lt;\"><g:SE/></Payload></g:fragment>"
        );
        assert_eq!(
            header_of(&fragment, HeaderForm::Collapsed),
            "<?xml version='1.0'?><x:fragment xmlns:x='urn:groove.net'><Payload Method='m' Third=\"&lt;\" \
             ManagementServer='s' >\n<x:SE/> </Payload></x:fragment>"
        );
        assert_eq!(
            header_of(&fragment, HeaderForm::Emptied),
            "<?xml version='1.0'?><x:fragment xmlns:x='urn:groove.net'><Payload Method='m' Third=\"&lt;\" \
             ManagementServer='s' >\n<x:SE ></x:SE > </Payload></x:fragment>"
        );
    }

    #[test]
    fn each_missing_part_is_named() {
        let cases = [
            ("<a/>", "g:fragment"),
            ("<g:fragment/>", "Payload"),
            ("<g:fragment><Other><g:SE/></Other></g:fragment>", "Payload"),
            ("<g:fragment><Payload ManagementServer='s' Method='m'/></g:fragment>", "g:SE"),
            ("<g:fragment><Payload Method='m'><g:SE/></Payload></g:fragment>", "ManagementServer"),
            (
                "<g:fragment><Payload ManagementServer='' Method='m'><g:SE/></Payload></g:fragment>",
                "ManagementServer",
            ),
            ("<g:fragment><Payload ManagementServer='s'><g:SE/></Payload></g:fragment>", "Method"),
        ];
        for (document, missing) in cases {
            let error = Fragment::read(document.as_bytes()).map(|_| ()).unwrap_err();
            assert_eq!(error, SpmrError::Missing(missing), "{document}");
        }
        let long = "s".repeat(MAX_SERVER_NAME_BYTES + 1);
        let document = header(&long, "m", &[]);
        assert!(matches!(Fragment::read(document.as_bytes()), Err(SpmrError::Value("ManagementServer"))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_all_forms_of_its_header_agree(
            server in "[ -~äß€]{1,40}", method in "[!-~]{1,20}", key in "[!-~]{0,40}", mac in "[!-~]{1,30}",
        ) {
            let secured = [("Key", key.as_str()), ("KeyAlg", "x")];
            let document = finished(&server, &method, &secured, &[("g:Auth", &[("MAC", &mac)])]);
            let fragment = Fragment::read(document.as_bytes()).unwrap();
            prop_assert_eq!(&fragment.server, &server);
            prop_assert_eq!(&fragment.method, &method);
            prop_assert_eq!(&fragment.secured[0].1, &key);
            prop_assert_eq!(required(fragment.authenticator.as_ref().unwrap(), "MAC"), Ok(mac.as_str()));
            let sent = header(&server, &method, &secured);
            prop_assert_eq!(header_of(&fragment, HeaderForm::Canonical), &sent);
            prop_assert_eq!(header_of(&fragment, HeaderForm::Collapsed), &sent);
        }

        #[test]
        fn no_bytes_make_reading_panic(document in "(<g:fragment>)?(<Payload [MS]='a'>)?[<g:SE/>'=Auth ]{0,40}") {
            let _ = Fragment::read(document.as_bytes());
        }
    }
}

//! XML as both ends read it: a stream of elements and text within limits, no document types, and no entities but the five
//! that XML itself names. Knows no message.

use super::profile::{MAX_ATTRIBUTES, MAX_DEPTH, MAX_ELEMENTS};
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use quick_xml::{Reader, XmlVersion};
use std::borrow::Cow;
use std::ops::Range;

/// Why some bytes are not XML that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XmlError {
    /// Not UTF-8.
    #[error("the XML is not UTF-8")]
    NotUtf8,
    /// Not well-formed.
    #[error("the XML is not well-formed at byte {0}")]
    NotWellFormed(usize),
    /// A document type, which could define entities.
    #[error("the XML has a document type")]
    DocumentType,
    /// An entity other than the five that XML names.
    #[error("the XML has an entity of its own")]
    Entity,
    /// Elements too deep inside one another.
    #[error("elements of the XML are more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Too many elements.
    #[error("the XML has more than {MAX_ELEMENTS} elements")]
    TooManyElements,
    /// Too many attributes of one element.
    #[error("an element of the XML has more than {MAX_ATTRIBUTES} attributes")]
    TooManyAttributes,
}

/// One step through a document.
#[derive(Debug)]
pub(super) enum Step<'x> {
    /// An element begins.
    Open(Element<'x>),
    /// The innermost element that is open ends.
    Close,
    /// Text directly inside the innermost open element.
    Text(Cow<'x, str>),
    /// The document ends.
    End,
}

/// The start tag of an element.
#[derive(Debug)]
pub(super) struct Element<'x> {
    tag: BytesStart<'x>,
    /// The bytes of the tag in the document.
    pub(super) span: Range<usize>,
}

impl Element<'_> {
    /// The name without its prefix.
    pub(super) fn name(&self) -> &str {
        self.tag.local_name().into_inner()
    }

    /// The names as written and the values of all attributes but declarations of namespaces.
    pub(super) fn attributes(&self) -> Result<Vec<(String, String)>, XmlError> {
        let mut found = Vec::new();
        for attribute in self.tag.attributes() {
            let attribute = attribute.map_err(|_| XmlError::NotWellFormed(self.span.start))?;
            let name = attribute.key.into_inner();
            if name != "xmlns" && !name.starts_with("xmlns:") {
                let value =
                    attribute.normalized_value(XmlVersion::Implicit1_0).map_err(|_| XmlError::Entity)?;
                found.push((name.to_owned(), value.into_owned()));
            }
        }
        Ok(found)
    }

    /// The value of the attribute `name` that has no prefix.
    pub(super) fn attribute(&self, name: &str) -> Result<Option<Cow<'_, str>>, XmlError> {
        let mut attributes = self.tag.attributes();
        // The scanner has counted the attributes and seen that no two are alike.
        let found = attributes
            .with_checks(false)
            .find(|attribute| attribute.as_ref().is_ok_and(|attribute| attribute.key.into_inner() == name));
        let Some(Ok(attribute)) = found else { return Ok(None) };
        attribute.normalized_value(XmlVersion::Implicit1_0).map(Some).map_err(|_| XmlError::Entity)
    }

    fn check(&self) -> Result<(), XmlError> {
        for (index, attribute) in self.tag.attributes().enumerate() {
            if index == MAX_ATTRIBUTES {
                return Err(XmlError::TooManyAttributes);
            }
            attribute.map_err(|_| XmlError::NotWellFormed(self.span.start))?;
        }
        Ok(())
    }
}

/// Goes through a document from front to back.
pub(super) struct Scanner<'x> {
    reader: Reader<&'x [u8]>,
    depth: usize,
    elements: usize,
    at: usize,
}

impl<'x> Scanner<'x> {
    /// Begins a document. A byte order mark may stand before it.
    pub(super) fn new(document: &'x [u8]) -> Result<Self, XmlError> {
        let text = std::str::from_utf8(document).map_err(|_| XmlError::NotUtf8)?;
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Ok(Self { reader, depth: 0, elements: 0, at: 0 })
    }

    /// The place behind the last step.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next step. Comments and processing instructions are passed over.
    pub(super) fn step(&mut self) -> Result<Step<'x>, XmlError> {
        loop {
            let start = self.at;
            let event = self.reader.read_event().map_err(|_| XmlError::NotWellFormed(start))?;
            self.at = self.reader.buffer_position() as usize;
            match event {
                Event::Start(tag) | Event::Empty(tag) => return self.open(tag, start).map(Step::Open),
                Event::End(_) => {
                    self.depth = self.depth.checked_sub(1).ok_or(XmlError::NotWellFormed(start))?;
                    return Ok(Step::Close);
                }
                Event::Text(text) if self.depth > 0 => return Ok(Step::Text(text.into_inner())),
                Event::Text(text) if text.chars().all(|c| c.is_ascii_whitespace() || c == '\u{feff}') => {}
                Event::CData(text) if self.depth > 0 => return Ok(Step::Text(text.into_inner())),
                Event::GeneralRef(entity) if self.depth > 0 => return Ok(Step::Text(resolve(&entity)?)),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
                Event::DocType(_) => return Err(XmlError::DocumentType),
                Event::Eof if self.depth == 0 && self.elements > 0 => return Ok(Step::End),
                _ => return Err(XmlError::NotWellFormed(start)),
            }
        }
    }

    fn open(&mut self, tag: BytesStart<'x>, start: usize) -> Result<Element<'x>, XmlError> {
        if self.depth == 0 && self.elements > 0 {
            return Err(XmlError::NotWellFormed(start));
        }
        if self.depth == MAX_DEPTH {
            return Err(XmlError::TooDeep);
        }
        if self.elements == MAX_ELEMENTS {
            return Err(XmlError::TooManyElements);
        }
        self.depth += 1;
        self.elements += 1;
        let element = Element { tag, span: start..self.at };
        element.check()?;
        Ok(element)
    }

    /// The next element directly inside the open one, or `None` when that ends. Text between them is passed over.
    pub(super) fn child(&mut self) -> Result<Option<Element<'x>>, XmlError> {
        loop {
            match self.step()? {
                Step::Open(element) => return Ok(Some(element)),
                Step::Close | Step::End => return Ok(None),
                Step::Text(_) => {}
            }
        }
    }

    /// Passes over the rest of the element that was opened last.
    pub(super) fn skip(&mut self) -> Result<(), XmlError> {
        let mut inside = 1;
        while inside > 0 {
            match self.step()? {
                Step::Open(_) => inside += 1,
                Step::Close => inside -= 1,
                Step::Text(_) => {}
                Step::End => return Err(XmlError::NotWellFormed(self.at)),
            }
        }
        Ok(())
    }

    /// The text of the element that was opened last, to its end; elements in it are passed over.
    pub(super) fn text(&mut self) -> Result<Cow<'x, str>, XmlError> {
        let mut text = Cow::Borrowed("");
        loop {
            match self.step()? {
                Step::Text(more) if text.is_empty() => text = more,
                Step::Text(more) => text.to_mut().push_str(&more),
                Step::Open(_) => self.skip()?,
                Step::Close => return Ok(text),
                Step::End => return Err(XmlError::NotWellFormed(self.at)),
            }
        }
    }

    /// Sees the document to its end, wherever it stands.
    pub(super) fn finish(mut self) -> Result<(), XmlError> {
        while !matches!(self.step()?, Step::End) {}
        Ok(())
    }
}

fn resolve(entity: &BytesRef<'_>) -> Result<Cow<'static, str>, XmlError> {
    if let Some(text) = resolve_predefined_entity(entity) {
        return Ok(Cow::Borrowed(text));
    }
    match entity.resolve_char_ref() {
        Ok(Some(character)) => Ok(Cow::Owned(character.into())),
        _ => Err(XmlError::Entity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(document: &str) -> Result<(), XmlError> {
        Scanner::new(document.as_bytes())?.finish()
    }

    #[test]
    fn documents_beyond_a_limit_are_refused() {
        let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
        assert_eq!(read(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(read(&nested(MAX_DEPTH + 1)), Err(XmlError::TooDeep));
        let wide = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count - 1));
        assert_eq!(read(&wide(MAX_ELEMENTS)), Ok(()));
        assert_eq!(read(&wide(MAX_ELEMENTS + 1)), Err(XmlError::TooManyElements));
        let rich = |count: usize| {
            let attributes: String = (0..count).map(|index| format!(" a{index}=''")).collect();
            format!("<a{attributes}/>")
        };
        assert_eq!(read(&rich(MAX_ATTRIBUTES)), Ok(()));
        assert_eq!(read(&rich(MAX_ATTRIBUTES + 1)), Err(XmlError::TooManyAttributes));
    }

    #[test]
    fn entities_are_not_expanded() {
        let bomb = "<!DOCTYPE a [<!ENTITY b \"cc\">]><a>&b;</a>";
        assert_eq!(read(bomb), Err(XmlError::DocumentType));
        let text = |document: &'static str| {
            let mut scanner = Scanner::new(document.as_bytes())?;
            scanner.child()?;
            scanner.text()
        };
        assert_eq!(text("<a>x&lt;&#65;&amp;</a>").unwrap(), "x<A&");
        assert_eq!(text("<a><![CDATA[<b>]]></a>").unwrap(), "<b>");
        assert_eq!(text("<a>&b;</a>"), Err(XmlError::Entity));
        let mut scanner = Scanner::new(b"<a b='&c;' d='&quot;'/>").unwrap();
        let element = scanner.child().unwrap().unwrap();
        assert_eq!(element.attribute("b"), Err(XmlError::Entity));
        assert_eq!(element.attribute("d").unwrap().unwrap(), "\"");
    }

    #[test]
    fn what_is_not_one_element_is_refused() {
        let cases = [
            "",
            " ",
            "a",
            "<a>",
            "</a>",
            "<a></b>",
            "<a/><b/>",
            "<a/>x",
            "<a b/>",
            "<a b='' b=''/>",
            "<a &/>",
        ];
        for document in cases {
            assert!(matches!(read(document), Err(XmlError::NotWellFormed(_))), "{document}");
        }
        assert_eq!(Scanner::new(b"<a>\xff</a>").map(|_| ()), Err(XmlError::NotUtf8));
        assert_eq!(read("\u{feff}<?xml version='1.0'?><!-- c --><a>b</a>\n"), Ok(()));
    }

    #[test]
    fn spans_are_those_of_the_tags() {
        let document = "<a> <b c='>'>text</b><d /></a>";
        let mut scanner = Scanner::new(document.as_bytes()).unwrap();
        let mut spans = Vec::new();
        loop {
            match scanner.step().unwrap() {
                Step::Open(element) => spans.push(element.span),
                Step::Close | Step::Text(_) => {}
                Step::End => break,
            }
        }
        let tags: Vec<_> = spans.into_iter().map(|span| &document[span]).collect();
        assert_eq!(tags, ["<a>", "<b c='>'>", "<d />"]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_scanner_panic(document in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(scanner) = Scanner::new(&document) {
                let _ = scanner.finish();
            }
        }

        #[test]
        fn nothing_like_xml_makes_the_scanner_panic(document in "[<>/a&;!\\[\\]CDATA?' =-]{0,60}") {
            let mut scanner = Scanner::new(document.as_bytes()).unwrap();
            while let Ok(Some(element)) = scanner.child() {
                let _ = element.attributes();
                let _ = element.attribute("a");
            }
        }
    }
}

//! How documents are written so that both ends hash the same bytes (management-soap-spmr 8.1, 8.2): attributes in double
//! quotes with one space before each, empty elements as `<a/>`, nothing between tags, the least escaping.

/// Writes `text` as it stands inside an attribute or an element.
pub(super) fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
}

/// Writes ` NAME="VALUE"`.
pub(super) fn push_attribute(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    push_escaped(out, value);
    out.push('"');
}

/// Writes `<NAME` and the attributes in their order; the caller writes `>` or `/>`.
pub(super) fn push_tag<'a>(
    out: &mut String,
    name: &str,
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    out.push('<');
    out.push_str(name);
    for (name, value) in attributes {
        push_attribute(out, name, value);
    }
}

/// Writes the empty element `<NAME .../>`.
pub(super) fn push_empty<'a>(
    out: &mut String,
    name: &str,
    attributes: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    push_tag(out, name, attributes);
    out.push_str("/>");
}

/// Whether XML 1.0 can hold all of `text`.
pub(super) fn is_writable(text: &str) -> bool {
    text.chars().all(|character| {
        matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_take_the_one_form_that_both_ends_hash() {
        let mut out = String::new();
        push_empty(&mut out, "g:SE", []);
        push_tag(&mut out, "a", [("b", "<&\">'"), ("c", "")]);
        assert_eq!(out, "<g:SE/><a b=\"&lt;&amp;&quot;&gt;'\" c=\"\"");
    }
}

//! Texts as HTML and XML.

/// `text` as character data and as the value of an attribute, in HTML and in XML. What XML cannot
/// hold becomes U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            character if character.is_control() => escaped.push('\u{FFFD}'),
            '\u{FFFE}' | '\u{FFFF}' => escaped.push('\u{FFFD}'),
            character => escaped.push(character),
        }
    }
    escaped
}

/// At most `most` characters of `text`, the last of them … where it has more.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.into();
    }
    let start: String = text.chars().take(most - 1).collect();
    start + "…"
}

/// File systems take names of 255 bytes, and a plot's has two slugs.
const LONGEST_SLUG: usize = 100;

/// `text` as the name of a file and of a place on a page: small letters, digits and hyphens.
pub(super) fn slug(text: &str) -> String {
    let mut slug = String::new();
    for character in text.chars() {
        if character.is_ascii_alphanumeric() {
            slug.push(character.to_ascii_lowercase());
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(LONGEST_SLUG);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        "part".into()
    } else {
        slug.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_something_is_left() {
        assert_eq!(
            escape("<script>\"a\" & 'b'</script>"),
            "&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;"
        );
        assert_eq!(
            escape("a\tb\nc\u{1b}\0\u{FFFE}"),
            "a\tb\nc\u{FFFD}\u{FFFD}\u{FFFD}"
        );
        assert_eq!(escape("schön 函数"), "schön 函数");
    }

    #[test]
    fn long_names_end_early() {
        assert_eq!(shortened("函数函数", 3), "函数…");
        assert_eq!(shortened("abc", 3), "abc");
    }

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(slug("Mine 1/../x"), "mine-1-x");
        assert_eq!(slug("函数"), "part");
        assert_eq!(slug(&"a".repeat(300)).len(), LONGEST_SLUG);
    }
}

//! Tokens of text that no grammar has split: what the parser skipped, and the bodies of macros.

use std::ops::Range;

use super::{Language, TokenClass};

/// The operators of more than one character, over all languages, longest first.
const LONG_OPERATORS: &[&str] = &[
    ">>>=", "<<=", ">>=", "**=", "//=", "...", "===", "!==", "<=>", ">>>", "&&=", "||=", "??=",
    "&^=", "->*", "?->", "==", "!=", "<=", ">=", "->", "=>", "::", "&&", "||", "++", "--", "<<",
    ">>", "**", "+=", "-=", "*=", "/=", "%=", "&=", "|=", "^=", "@=", ":=", "..", "?.", "??", "##",
    "<>", "<-", "&^",
];

impl Language {
    /// Whether a name may have `character`, digits included.
    pub(super) fn is_word(self, character: char) -> bool {
        character == '_'
            || character.is_alphanumeric()
            || character == '$'
                && matches!(
                    self,
                    Self::C | Self::Cpp | Self::Java | Self::JavaScript | Self::Php
                )
    }
}

impl Language {
    /// Python has two dots for two tokens, as in `from ..a import b`.
    fn has_operator(self, operator: &str) -> bool {
        self != Self::Python || !matches!(operator, ".." | "++" | "--" | "&&" | "||" | "::")
    }
}

/// Calls `found` with each token of `text`.
pub(super) fn scan(
    language: Language,
    text: &str,
    mut found: impl FnMut(Range<usize>, TokenClass),
) {
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let rest = &text[start..];
        let (length, class) = if first.is_whitespace() || rest.starts_with("\\\n") {
            (first.len_utf8(), None)
        } else if let Some(length) = comment(language, rest) {
            (length, None)
        } else if matches!(first, '"' | '\'' | '`') {
            (quoted(rest, first), Some(TokenClass::String))
        } else if starts_number(rest) {
            (number(rest), Some(TokenClass::Number))
        } else if language.is_word(first) {
            let length = prefix(rest, |character| language.is_word(character));
            let class = if language.reserves(&rest[..length]) {
                TokenClass::Keyword
            } else {
                TokenClass::Identifier
            };
            (length, Some(class))
        } else {
            let mut long = LONG_OPERATORS
                .iter()
                .filter(|long| language.has_operator(long));
            let long = long.find(|long| rest.starts_with(**long));
            let length = long.map_or(first.len_utf8(), |long| long.len());
            (length, Some(TokenClass::Operator))
        };
        if let Some(class) = class {
            found(start..start + length, class);
        }
        start += length;
    }
}

/// Whether `text` is a number from its start.
pub(super) fn starts_number(text: &str) -> bool {
    let digits = text.strip_prefix('.').unwrap_or(text);
    digits.starts_with(|character: char| character.is_ascii_digit())
}

fn prefix(text: &str, mut belongs: impl FnMut(char) -> bool) -> usize {
    text.find(|character| !belongs(character))
        .unwrap_or(text.len())
}

fn number(text: &str) -> usize {
    let hexadecimal = text.starts_with("0x") || text.starts_with("0X");
    let mut last = ' ';
    prefix(text, |character| {
        let sign = matches!(character, '+' | '-') && matches!(last, 'e' | 'E') && !hexadecimal;
        last = character;
        sign || matches!(character, '.' | '_') || character.is_ascii_alphanumeric()
    })
}

/// Up to the same quote, or to the end of the line where there is none on it.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let mut end = text.len();
    for (place, character) in text.char_indices().skip(1) {
        if character == '\n' && !escaped {
            end = place;
            break;
        }
        if character == quote && !escaped {
            return place + quote.len_utf8();
        }
        escaped = character == '\\' && !escaped;
    }
    text[..end].trim_end().len()
}

fn comment(language: Language, text: &str) -> Option<usize> {
    let of_line = match language {
        Language::Python | Language::Ruby => text.starts_with('#'),
        Language::Php => text.starts_with('#') || text.starts_with("//"),
        _ => text.starts_with("//"),
    };
    if of_line {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") && !matches!(language, Language::Python | Language::Ruby) {
        return Some(text[2..].find("*/").map_or(text.len(), |end| end + 4));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(language: Language, text: &str) -> Vec<(&str, TokenClass)> {
        let mut tokens = Vec::new();
        scan(language, text, |bytes, class| {
            tokens.push((&text[bytes], class));
        });
        tokens
    }

    #[test]
    fn text_is_split_to_its_end() {
        use TokenClass::{Identifier, Keyword, Number, Operator, String};
        assert_eq!(
            scanned(
                Language::C,
                "if (a>=0x1fU) 'x' \"open // no\n 1.5e-3/* c */$é/"
            ),
            [
                ("if", Keyword),
                ("(", Operator),
                ("a", Identifier),
                (">=", Operator),
                ("0x1fU", Number),
                (")", Operator),
                ("'x'", String),
                ("\"open // no", String),
                ("1.5e-3", Number),
                ("$é", Identifier),
                ("/", Operator),
            ]
        );
        assert_eq!(scanned(Language::Python, "\\\n# c"), []);
        assert_eq!(scanned(Language::Java, "/* open"), []);
        assert_eq!(scanned(Language::Python, "'\\"), [("'\\", String)]);
    }
}

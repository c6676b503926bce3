//! Code, and what a probe is to find in it.

use std::ops::Range;

use crate::study::syntax::{CodeToken, Language, SyntaxTree, TokenClass, complexity_class};

/// A function, as models get it, and its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct CodeText {
    /// Its code, runs of white space one space each, as tasks give code to a model.
    pub text: String,
    /// The tokens of the code, by their bytes of `text`.
    pub tokens: Vec<CodeToken>,
    /// The class of its cyclomatic complexity, from 0.
    pub complexity: u32,
    /// Its syntax tree as a sequence.
    pub traversal: String,
    /// What it belongs to, as a problem that it solves.
    pub group: i64,
}

impl CodeText {
    /// Of `code`; none if it does not parse as `language`, or holds no token.
    pub fn parse(code: &str, language: Language, group: i64) -> Option<Self> {
        let tree = SyntaxTree::parse(language, code).ok()?;
        if tree.has_errors() {
            return None;
        }
        let (text, places) = collapsed(code);
        let tokens = tree.tokens().into_iter().map(|token| CodeToken {
            bytes: places[token.bytes.start]..places[token.bytes.end],
            class: token.class,
        });
        let tokens: Vec<CodeToken> = tokens.collect();
        if tokens.is_empty() {
            return None;
        }
        Some(Self {
            tokens,
            text,
            complexity: complexity_class(tree.cyclomatic_complexity()),
            traversal: tree.traversal(),
            group,
        })
    }

    /// Which of a model's tokens tell the class of one of the code's, the last of each: their places and
    /// the class. `spans` are the bytes of `text` that the model's tokens stand for. What stands for
    /// code tokens of two classes, as byte-pair encodings have it, tells none.
    pub fn labelled(&self, spans: &[Range<usize>]) -> Vec<(usize, TokenClass)> {
        let mut found: Vec<(usize, TokenClass)> = Vec::new();
        // The code token that the last one of these ends.
        let mut ended = None;
        let mut first = 0;
        for (place, span) in spans.iter().enumerate() {
            while self
                .tokens
                .get(first)
                .is_some_and(|token| token.bytes.end <= span.start)
            {
                first += 1;
            }
            let here = self.tokens[first..].iter();
            let here: Vec<&CodeToken> = here
                .take_while(|token| token.bytes.start < span.end)
                .collect();
            let (Some(one), Some(last)) = (here.first(), here.last()) else {
                continue;
            };
            let ends = last.bytes.end <= span.end;
            if ends && here.iter().all(|token| token.class == one.class) {
                // The pieces of one character all stand for the whole of it.
                if ended == Some(last.bytes.end) {
                    found.pop();
                }
                ended = Some(last.bytes.end);
                found.push((place, one.class));
            }
        }
        found
    }
}

/// `code` with runs of white space made one space and none at its ends, and for each byte of `code`, its
/// end included, the byte that has its place.
fn collapsed(code: &str) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(code.len());
    let mut places = vec![0; code.len() + 1];
    let mut space = false;
    for (byte, letter) in code.char_indices() {
        if letter.is_whitespace() {
            space = !text.is_empty();
            places[byte..byte + letter.len_utf8()].fill(text.len());
            continue;
        }
        if space {
            text.push(' ');
            space = false;
        }
        for offset in 0..letter.len_utf8() {
            places[byte + offset] = text.len() + offset;
        }
        text.push(letter);
    }
    places[code.len()] = text.len();
    // The end of a word is where it ends, not where the next one begins.
    (text, places)
}

#[cfg(test)]
mod tests {
    use TokenClass::{Identifier, Keyword, Number, Operator};

    use super::*;

    const CODE: &str = "def f(x):\n    return  x + 12\n";

    fn parsed() -> CodeText {
        CodeText::parse(CODE, Language::Python, 0).expect("Python")
    }

    #[test]
    fn tokens_are_found_in_the_collapsed_text() {
        let text = parsed();
        assert_eq!(text.text, "def f(x): return x + 12");
        let words: Vec<&str> = text
            .tokens
            .iter()
            .map(|token| &text.text[token.bytes.clone()])
            .collect();
        assert_eq!(
            words,
            ["def", "f", "(", "x", ")", ":", "return", "x", "+", "12"]
        );
        for wrong in ["def f(:", "", "# nothing\n"] {
            assert_eq!(CodeText::parse(wrong, Language::Python, 0), None);
        }
    }

    #[test]
    fn the_last_piece_of_a_token_tells_its_class() {
        let text = parsed();
        // [CLS] d ef _f (x ): return _x + 1 2 [SEP]
        let spans = [
            0..0,
            0..1,
            1..3,
            3..5,
            5..7,
            7..9,
            10..16,
            16..18,
            19..20,
            21..22,
            22..23,
            0..0,
        ];
        let found = text.labelled(&spans);
        // `(x` is of two classes, `):` of one.
        let expected = [
            (2, Keyword),
            (3, Identifier),
            (5, Operator),
            (6, Keyword),
            (7, Identifier),
            (8, Operator),
            (10, Number),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn pieces_of_a_character_are_one() {
        let text = CodeText::parse("né = 1", Language::Python, 0).expect("Python");
        // n, both bytes of é, =, 1
        let spans = [0..1, 1..3, 1..3, 3..5, 6..7];
        let expected = [(2, Identifier), (3, Operator), (4, Number)];
        assert_eq!(text.labelled(&spans), expected);
    }
}

use std::borrow::Cow;
use std::ops::Range;

use tree_sitter::{Node, Parser, Tree};

use super::Language;

/// Why code was not parsed. Code that breaks the grammar is, as far as it goes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Places are counted in 32 bits.
    #[error(
        "the code has {found} bytes, expected at most {}",
        SyntaxTree::MOST_BYTES
    )]
    TooLong {
        /// Of the code.
        found: usize,
    },
    /// The grammar is not of a version that the parser reads.
    #[error("the grammar of {language} cannot be used")]
    Grammar {
        /// Whose grammar.
        language: Language,
        /// What the parser says of it.
        source: tree_sitter::LanguageError,
    },
    /// The parser gave up.
    #[error("the {language} code could not be parsed")]
    NoTree {
        /// Of the code.
        language: Language,
    },
}

/// A function, as data sets hold it, and its syntax tree by tree-sitter's grammar.
///
/// A method need not stand in its class. Where the text alone breaks the grammar, it is parsed once
/// more inside a class (an `impl` in Rust; for Python this is how an indented text is read), and
/// that is kept if it leaves fewer errors. Of the class nothing is seen outside: places are those of
/// the text that was given.
pub struct SyntaxTree<'code> {
    pub(super) language: Language,
    pub(super) source: Cow<'code, str>,
    /// Where in `source` the code lies.
    pub(super) code: Range<usize>,
    tree: Tree,
}

/// What looks at every node of the code in the order of the text.
pub(super) trait Visitor<'tree> {
    /// At a node that has the role `field` in the one above it; whether to look below it.
    fn enter(&mut self, node: Node<'tree>, field: Option<&str>) -> bool;

    /// After what is below it.
    fn leave(&mut self, _node: Node<'tree>) {}
}

impl<'code> SyntaxTree<'code> {
    /// As long as code may be.
    pub const MOST_BYTES: usize = (u32::MAX / 2) as usize;

    /// Parses `code`, whatever is in it.
    pub fn parse(language: Language, code: &'code str) -> Result<Self, ParseError> {
        if code.len() > Self::MOST_BYTES {
            return Err(ParseError::TooLong { found: code.len() });
        }
        let mut parser = Parser::new();
        parser
            .set_language(&language.grammar(code))
            .map_err(|source| ParseError::Grammar { language, source })?;
        let mut parse = |source: Cow<'code, str>, code: Range<usize>| {
            let tree = parser.parse(source.as_ref(), None);
            tree.map(|tree| Self {
                language,
                source,
                code,
                tree,
            })
            .ok_or(ParseError::NoTree { language })
        };
        let alone = parse(Cow::Borrowed(code), 0..code.len())?;
        let Some([before, after]) = language.around_a_method() else {
            return Ok(alone);
        };
        if !alone.has_errors() || language.is_file(code) {
            return Ok(alone);
        }
        let place = before.len()..before.len() + code.len();
        let inside = parse(Cow::Owned([before, code, after].concat()), place)?;
        Ok(if inside.errors() < alone.errors() {
            inside
        } else {
            alone
        })
    }

    /// Whether some of the code breaks the grammar.
    pub fn has_errors(&self) -> bool {
        self.tree.root_node().has_error()
    }

    /// How many nodes with a name are of one of `kinds`.
    pub fn count(&self, kinds: &[&str]) -> usize {
        struct Count<'kinds>(&'kinds [&'kinds str], usize);
        impl<'tree> Visitor<'tree> for Count<'_> {
            fn enter(&mut self, node: Node<'tree>, _field: Option<&str>) -> bool {
                self.1 += usize::from(node.is_named() && self.0.contains(&node.kind()));
                true
            }
        }
        let mut count = Count(kinds, 0);
        self.visit(&mut count);
        count.1
    }

    /// What stands at `node`.
    pub(super) fn text(&self, node: Node<'_>) -> &str {
        self.source.get(node.byte_range()).unwrap_or_default()
    }

    /// How many places break the grammar.
    fn errors(&self) -> usize {
        struct Errors(usize);
        impl<'tree> Visitor<'tree> for Errors {
            fn enter(&mut self, node: Node<'tree>, _field: Option<&str>) -> bool {
                self.0 += usize::from(node.is_error() || node.is_missing());
                node.has_error()
            }
        }
        let mut errors = Errors(0);
        let mut cursor = self.tree.walk();
        // All of it: an error may be at the class that was put around.
        walk(&mut cursor, &mut errors, |_| Seen::Whole);
        errors.0
    }

    /// Leads `visitor` through the code, without recursion: trees may be deep.
    pub(super) fn visit<'tree>(&'tree self, visitor: &mut impl Visitor<'tree>) {
        let alone = self.code == (0..self.source.len());
        let root = self.tree.root_node().id();
        walk(&mut self.tree.walk(), visitor, |node| {
            let Range { start, end } = node.byte_range();
            if alone || node.id() == root {
                Seen::Whole
            } else if end <= self.code.start || start >= self.code.end {
                Seen::Nothing
            } else if start < self.code.start || end > self.code.end {
                Seen::Below
            } else {
                Seen::Whole
            }
        });
    }
}

/// What of a node a visitor sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Seen {
    Whole,
    /// What is below it, not itself.
    Below,
    Nothing,
}

fn walk<'tree>(
    cursor: &mut tree_sitter::TreeCursor<'tree>,
    visitor: &mut impl Visitor<'tree>,
    seen: impl Fn(&Node<'tree>) -> Seen,
) {
    loop {
        let node = cursor.node();
        let below = match seen(&node) {
            Seen::Whole => visitor.enter(node, cursor.field_name()),
            Seen::Below => true,
            Seen::Nothing => false,
        };
        if below && cursor.goto_first_child() {
            continue;
        }
        loop {
            let node = cursor.node();
            if seen(&node) == Seen::Whole {
                visitor.leave(node);
            }
            if cursor.goto_next_sibling() {
                break;
            }
            if !cursor.goto_parent() {
                return;
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A function as a data set holds it, in each language.
    pub(in crate::study::syntax) const SIMPLE: [(Language, &str); 12] = [
        (Language::Python, "def f(a):\n    return a\n"),
        (Language::Python, "    def f(self):\n        return 1\n"),
        (
            Language::Java,
            "@Override\npublic int f(int a) { return a; }",
        ),
        (Language::C, "int f(int a) { return a; }"),
        (Language::Cpp, "int A::f(int a) const { return a; }"),
        (
            Language::Cpp,
            "virtual int f(int a) const override { return a; }",
        ),
        (Language::JavaScript, "function(a) { return a; }"),
        (Language::JavaScript, "async f(a) { return a; }"),
        (Language::Go, "func (r *T) f(a int) int { return a }"),
        (Language::Rust, "pub fn f(&self, a: u8) -> u8 { a }"),
        (Language::Ruby, "def self.f(a)\n  a\nend"),
        (Language::Php, "public static function f($a) { return $a; }"),
    ];

    #[test]
    fn a_tag_within_code_makes_no_file() {
        for (language, code) in [
            (Language::Java, "public A(Class<?> c) { this.c = c; }"),
            (Language::Php, "public function f() { return '<?xml'; }"),
            (Language::Php, "<?php function f() { return 1; }"),
        ] {
            let tree = SyntaxTree::parse(language, code).expect("a tree");
            assert!(!tree.has_errors(), "{language} {code}");
            assert!(tree.tokens().len() > 8, "{language} {code}");
        }
    }

    #[test]
    fn functions_stand_alone() {
        for (language, code) in SIMPLE {
            let tree = SyntaxTree::parse(language, code).expect("a tree");
            assert!(!tree.has_errors(), "{language} {code}");
            let tokens = tree.tokens();
            let last = tokens.last().expect("a token");
            assert_eq!(last.bytes.end, code.trim_end().len(), "{language} {code}");
        }
    }

    #[test]
    fn errors_are_told() {
        for language in Language::ALL {
            let tree = SyntaxTree::parse(language, "]) = (if").expect("a tree");
            assert!(tree.has_errors(), "{language}");
        }
    }

    /// All labels of `code`, which must be within it and in order.
    fn check(language: Language, code: &str) -> SyntaxTree<'_> {
        let tree = SyntaxTree::parse(language, code).expect("a tree");
        let mut place = 0;
        for token in tree.tokens() {
            assert!(place <= token.bytes.start && !token.bytes.is_empty());
            place = token.bytes.end;
            let text = code.get(token.bytes).expect("whole characters");
            assert_eq!(text, text.trim(), "{language} {code}");
        }
        assert!(tree.cyclomatic_complexity() >= 1);
        let traversal = tree.traversal();
        let count = |bracket| traversal.split(' ').filter(|word| *word == bracket).count();
        assert_eq!(count("("), count(")"), "{language} {code}");
        tree
    }

    #[test]
    fn deep_trees_need_no_stack() {
        let nested = [
            "x = ".to_owned(),
            "(".repeat(20_000),
            "1".into(),
            ")".repeat(20_000),
        ]
        .concat();
        for language in Language::ALL {
            check(language, &nested);
        }
        let tree = check(Language::Python, &nested);
        assert!(!tree.has_errors());
        assert_eq!(tree.count(&["parenthesized_expression"]), 20_000);

        let ifs = |opening: &str, closing: &str| {
            [
                opening,
                &"if (a) {".repeat(5_000),
                &"}".repeat(5_000),
                closing,
            ]
            .concat()
        };
        for (language, opening) in [
            (Language::C, "void f() {"),
            (Language::Cpp, "void f() {"),
            (Language::Java, "void f() {"),
            (Language::JavaScript, "function f() {"),
            (Language::Go, "func f() {"),
            (Language::Rust, "fn f() {"),
            (Language::Php, "function f() {"),
        ] {
            let code = ifs(opening, "}");
            let tree = check(language, &code);
            assert_eq!(tree.cyclomatic_complexity(), 5_001, "{language}");
        }
        let lines: Vec<String> = (0..5_000)
            .map(|depth| format!("{}if a:\n", " ".repeat(depth)))
            .collect();
        check(Language::Python, &lines.concat());
        let ruby = ["if a\n".repeat(5_000), "end\n".repeat(5_000)].concat();
        assert_eq!(check(Language::Ruby, &ruby).cyclomatic_complexity(), 5_001);
    }

    #[test]
    fn any_text_has_labels() {
        let pieces = [
            "\"",
            "'",
            "`",
            "(",
            ")",
            "{",
            "}",
            "[",
            "]",
            "<<~A\n",
            "A\n",
            "if",
            " ",
            "\n",
            "\t",
            "\r\n",
            "é",
            "\u{2028}",
            "\0",
            "#",
            "//",
            "/*",
            "*/",
            "?",
            ":",
            "f\"",
            "${",
            "#{",
            "%w(",
            "<?php",
            "?>",
            "R\"x(",
            "def f",
            "class",
            "\\",
            "0x",
            "1.",
            "...",
            "..",
            "$",
            "@",
            "<<<X\n",
            "X;",
            "\"\"\"",
            "\u{feff}",
            "case",
            "match x",
            "=",
            "&&",
            "=begin\n",
            "__END__\n",
            "<a>",
            "</",
            "r#\"",
        ];
        // Knuth's generator of 64 bits: the same texts in every run.
        let mut state = 1_u64;
        for _ in 0..300 {
            let mut code = String::new();
            for _ in 0..40 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let piece = usize::try_from(state >> 40).expect("24 bits") % pieces.len();
                code.push_str(pieces[piece]);
            }
            for language in Language::ALL {
                check(language, &code);
            }
        }
    }
}

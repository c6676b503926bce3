use std::ops::Range;

use tree_sitter::Node;

use super::scanner::{scan, starts_number};
use super::tree::Visitor;
use super::{Language, SyntaxTree};

/// What a token is: the lexical labels of the Telly paper, which are the token types of Python's
/// `tokenize`. Comments, ends of lines and indentation are no tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenClass {
    /// A name that the language does not reserve; Python's soft keywords are such names. In PHP the
    /// `$` belongs to it, in Ruby `@` and `$`, in Rust the quote of a lifetime.
    Identifier,
    /// A word that the language's specification reserves, its literals among them: Java's `null`
    /// and `this`, JavaScript's `true`, Rust's `self`. Where the specification has them as names
    /// (Go's `nil`, C's `NULL`, JavaScript's `undefined`), they are identifiers, and so are words
    /// that are reserved in some places only (Java's `var`). In C a directive with its `#`.
    Keyword,
    /// An operator, a bracket or a delimiter.
    Operator,
    /// A number, with its suffix.
    Number,
    /// A string with its prefix and quotes, as one token, whatever it interpolates. Characters,
    /// regular expressions, Ruby's symbols, the names of C's system headers, JSX's and PHP's text
    /// are strings as well. A heredoc of Ruby is two: its announcement and its body.
    String,
}

impl TokenClass {
    /// How many there are.
    pub const COUNT: usize = 5;
}

/// A token of code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeToken {
    /// Where it stands in the code.
    pub bytes: Range<usize>,
    /// What it is.
    pub class: TokenClass,
}

impl SyntaxTree<'_> {
    /// The tokens in the order of the code, each with what it is. Where the code breaks the grammar,
    /// the tokens are those that the parser made out, and what it skipped is split by the looks.
    pub fn tokens(&self) -> Vec<CodeToken> {
        let mut leaves = Leaves {
            tree: self,
            place: self.code.start,
            tokens: Vec::new(),
        };
        self.visit(&mut leaves);
        leaves.skipped_until(self.code.end);
        leaves.tokens
    }
}

struct Leaves<'tree, 'code> {
    tree: &'tree SyntaxTree<'code>,
    /// All before it has been looked at.
    place: usize,
    tokens: Vec<CodeToken>,
}

impl Leaves<'_, '_> {
    fn push(&mut self, bytes: Range<usize>, class: TokenClass) {
        let first = self.tree.code.start;
        self.tokens.push(CodeToken {
            bytes: bytes.start - first..bytes.end - first,
            class,
        });
    }

    fn split(&mut self, bytes: Range<usize>) {
        let tree = self.tree;
        scan(
            tree.language,
            &tree.source[bytes.clone()],
            |token, class| {
                self.push(bytes.start + token.start..bytes.start + token.end, class);
            },
        );
    }

    /// Some tokens are in no leaf: the parser skipped them, or the grammar hides them.
    fn skipped_until(&mut self, end: usize) {
        if self.place < end {
            self.split(self.place..end);
            self.place = end;
        }
    }

    /// Takes a leaf, or a node that is one token with all below it.
    fn take(&mut self, node: Node<'_>, class: Option<TokenClass>) {
        let bytes = node.start_byte().max(self.place)..node.end_byte();
        let tree = self.tree;
        let Some(text) = tree
            .source
            .get(bytes.clone())
            .filter(|text| !text.is_empty())
        else {
            return;
        };
        self.skipped_until(bytes.start);
        self.place = bytes.end;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return;
        }
        let start = bytes.start + (text.len() - text.trim_start().len());
        let bytes = start..start + trimmed.len();
        let language = self.tree.language;
        match class.or_else(|| class_of_leaf(language, node, trimmed)) {
            Some(class) => self.push(bytes, class),
            None => self.split(bytes),
        }
    }
}

impl<'tree> Visitor<'tree> for Leaves<'_, '_> {
    fn enter(&mut self, node: Node<'tree>, field: Option<&str>) -> bool {
        let kind = node.kind();
        if node.is_named() && is_no_token(kind) {
            self.skipped_until(node.start_byte());
            self.place = self.place.max(node.end_byte());
            return false;
        }
        if node.is_named()
            && let Some(class) = class_of_whole(self.tree.language, kind)
        {
            self.take(node, Some(class));
            return false;
        }
        if kind == "user_defined_literal" {
            let is_number = starts_number(self.tree.text(node));
            let class = if is_number {
                TokenClass::Number
            } else {
                TokenClass::String
            };
            self.take(node, Some(class));
            return false;
        }
        // PHP's grammar has a call for `isset` and its like, which no function can be named.
        if (self.tree.language, kind, field) == (Language::Php, "name", Some("function"))
            && self.tree.language.reserves(self.tree.text(node))
        {
            self.take(node, Some(TokenClass::Keyword));
            return false;
        }
        // Python has three dots before a name for one token, the grammar for three.
        if kind == "import_prefix" {
            self.take(node, None);
            return false;
        }
        // What an error skipped without a leaf is split later.
        if node.child_count() == 0 && !node.is_error() {
            self.take(node, None);
        }
        true
    }
}

fn is_no_token(kind: &str) -> bool {
    matches!(
        kind,
        "comment"
            | "line_comment"
            | "block_comment"
            | "html_comment"
            | "line_continuation"
            | "hash_bang_line"
            | "shebang"
            | "php_tag"
            | "php_end_tag"
            | "uninterpreted"
    )
}

/// Nodes that are one token, although the grammar sees into them.
fn class_of_whole(language: Language, kind: &str) -> Option<TokenClass> {
    Some(match (language, kind) {
        (Language::Php, "variable_name") | (Language::Rust, "lifetime") => TokenClass::Identifier,
        (
            _,
            "string"
            | "string_literal"
            | "char_literal"
            | "character_literal"
            | "raw_string_literal"
            | "interpreted_string_literal"
            | "rune_literal"
            | "template_string"
            | "system_lib_string"
            | "encapsed_string"
            | "heredoc"
            | "nowdoc"
            | "shell_command_expression"
            | "regex"
            | "subshell"
            | "string_array"
            | "symbol_array"
            | "simple_symbol"
            | "delimited_symbol"
            | "heredoc_beginning"
            | "heredoc_body"
            | "character"
            | "jsx_text"
            | "html_character_reference"
            | "text"
            | "string_start"
            | "string_content"
            | "string_end"
            | "string_fragment"
            | "escape_sequence",
        ) => TokenClass::String,
        (Language::Ruby, "rational" | "complex") => TokenClass::Number,
        _ => return None,
    })
}

/// By its looks, or none where it has to be split.
fn class_of_leaf(language: Language, node: Node<'_>, text: &str) -> Option<TokenClass> {
    let kind = node.kind();
    // These three let a reserved word name what a name before it qualifies, as in `a.class`.
    let may_be_reserved = !matches!(
        language,
        Language::JavaScript | Language::Php | Language::Ruby
    );
    let is_name = node.is_named()
        && (kind.ends_with("identifier")
            || kind.ends_with("_variable")
            || matches!(kind, "name" | "constant" | "hash_key_symbol"));
    Some(if is_name && !may_be_reserved {
        TokenClass::Identifier
    } else if language.reserves(text) || is_directive(language, text) {
        TokenClass::Keyword
    } else if starts_number(text) {
        TokenClass::Number
    } else if is_name || text.chars().all(|character| language.is_word(character)) {
        TokenClass::Identifier
    } else if matches!(kind, "import_prefix" | "preproc_arg")
        || text.chars().any(|character| {
            language.is_word(character) || character.is_whitespace() || character == '"'
        })
    {
        return None;
    } else {
        TokenClass::Operator
    })
}

fn is_directive(language: Language, text: &str) -> bool {
    matches!(language, Language::C | Language::Cpp)
        && text.strip_prefix('#').is_some_and(|word| {
            word.trim_start()
                .starts_with(|first: char| first.is_ascii_alphabetic())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens, each followed by the first letter of its class.
    fn shown(language: Language, code: &str) -> String {
        let tree = SyntaxTree::parse(language, code).expect("a tree");
        let shown: Vec<String> = tree
            .tokens()
            .into_iter()
            .map(|token| {
                let class = format!("{:?}", token.class);
                format!("{}:{}", &code[token.bytes], &class[..1])
            })
            .collect();
        shown.join(" ")
    }

    #[test]
    fn python_is_split_as_tokenize_does() {
        for (code, expected) in [
            (
                "def f(*, a: int = 0x1F) -> None:  # c\n    return a not in self.b",
                "def:K f:I (:O *:O ,:O a:I ::O int:I =:O 0x1F:N ):O ->:O None:K ::O \
                 return:K a:I not:K in:K self:I .:O b:I",
            ),
            (
                "x = rb'a' f\"{b!r:>{c}}\" + \\\n 1.5e-3j ** ...",
                "x:I =:O rb'a':S f\"{b!r:>{c}}\":S +:O 1.5e-3j:N **:O ...:O",
            ),
            (
                "from ... import a\nfrom ..b import (c as d)",
                "from:K ...:O import:K a:I from:K .:O .:O b:I import:K (:O c:I as:K d:I ):O",
            ),
            (
                "print 'a'\nmatch b:\n  case _ if c: pass\n",
                "print:I 'a':S match:I b:I ::O case:I _:I if:K c:I ::O pass:K",
            ),
            (
                "@a\nasync def f(): await b",
                "@:O a:I async:K def:K f:I (:O ):O ::O await:K b:I",
            ),
            ("", ""),
            (" \n\t# only\n", ""),
        ] {
            assert_eq!(shown(Language::Python, code), expected, "{code}");
        }
    }

    #[test]
    fn every_language_has_the_five_classes() {
        for (language, code, expected) in [
            (
                Language::Java,
                "Foo(int a) { var s = \"b\" + 'c'; this.x = a > 1L ? null : true; }",
                "Foo:I (:O int:K a:I ):O {:O var:I s:I =:O \"b\":S +:O 'c':S ;:O this:K .:O x:I =:O \
                 a:I >:O 1L:N ?:O null:K ::O true:K ;:O }:O",
            ),
            (
                Language::C,
                "#include <a.h>\n#define M(x) x + \"s\" // c\nsize_t f(void) { return NULL == L'c'; }",
                "#include:K <a.h>:S #define:K M:I (:O x:I ):O x:I +:O \"s\":S size_t:I f:I (:O void:K \
                 ):O {:O return:K NULL:I ==:O L'c':S ;:O }:O",
            ),
            (
                Language::Cpp,
                "auto f(T&& r) { return r and 12_km != R\"(a\"b)\" && nullptr; }",
                "auto:K f:I (:O T:I &&:O r:I ):O {:O return:K r:I and:K 12_km:N !=:O R\"(a\"b)\":S \
                 &&:O nullptr:K ;:O }:O",
            ),
            (
                Language::JavaScript,
                "const f = a => `x${a + 1}` + /re[/]/g.default ?? undefined ?? this.#p;",
                "const:K f:I =:O a:I =>:O `x${a + 1}`:S +:O /re[/]/g:S .:O default:I ??:O undefined:I \
                 ??:O this:K .:O #p:I ;:O",
            ),
            (
                Language::Go,
                "func f() { x := `raw` + \"s\" + string('r') + 0x1F; return nil }",
                "func:K f:I (:O ):O {:O x:I :=:O `raw`:S +:O \"s\":S +:O string:I (:O 'r':S ):O +:O \
                 0x1F:N ;:O return:K nil:I }:O",
            ),
            (
                Language::Rust,
                "fn f<'a>(&'a self) -> i32 { p!(b'c', r#\"d\"#, 1u8) } // c",
                "fn:K f:I <:O 'a:I >:O (:O &:O 'a:I self:K ):O ->:O i32:I {:O p:I !:O (:O b'c':S ,:O \
                 r#\"d\"#:S ,:O 1u8:N ):O }:O",
            ),
            (
                Language::Ruby,
                "def f\n  @a = <<~E + \"q#{b}\"\n    text\n  E\n  c.class == :d && e? || $g =~ /h/\nend",
                "def:K f:I @a:I =:O <<~E:S +:O \"q#{b}\":S text\n  E:S c:I .:O class:I ==:O :d:S &&:O \
                 e?:I ||:O $g:I =~:O /h/:S end:K",
            ),
            (
                Language::Php,
                "public function f($a) { return isset($a) ? $a->list(1) : TRUE . \"x{$a}\"; }",
                "public:K function:K f:I (:O $a:I ):O {:O return:K isset:K (:O $a:I ):O ?:O $a:I ->:O \
                 list:I (:O 1:N ):O ::O TRUE:K .:O \"x{$a}\":S ;:O }:O",
            ),
        ] {
            assert_eq!(shown(language, code), expected, "{language}");
        }
    }

    #[test]
    fn code_that_breaks_the_grammar_still_has_tokens() {
        assert_eq!(
            shown(Language::Python, "def f(:\n  x = $a ? 1\n"),
            "def:K f:I (:O ::O x:I =:O $:O a:I ?:O 1:N"
        );
    }
}

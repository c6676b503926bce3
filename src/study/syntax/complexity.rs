use tree_sitter::Node;

use super::tree::Visitor;
use super::{Language, SyntaxTree};

/// How many classes of complexity there are.
pub const COMPLEXITY_CLASSES: usize = 6;

/// The classes of the structural probe: complexities of 1, 2, 3, 4, 5 and more are 0 to 5.
pub fn complexity_class(complexity: usize) -> u32 {
    match complexity {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 3,
        5 => 4,
        _ => 5,
    }
}

impl SyntaxTree<'_> {
    /// Cyclomatic complexity: 1, and 1 for each decision. For Python it is radon 6.0.1's
    /// `total_complexity` of the text, which for a text that is one function is the `complexity` that
    /// radon shows for it. Functions and classes that have names and stand inside a function are not
    /// counted with it, as radon has it, while lambdas are. A class counts 1 more for each of its
    /// methods.
    ///
    /// | language | what counts 1 |
    /// |---|---|
    /// | Python | `if`, `elif`, `… if … else …`, `for`, `while`, the `else` of a loop or `try`, `except`, `and`, `or`, each `for` and `if` of a comprehension, `assert` (and nothing inside it), each `case` but one that takes anything; `except*` and its `else` do not, and what decorates a function or is among its parameters does not |
    /// | Java | `if`, `for`, `while`, `do`, `case`, `catch`, `?:`, `&&`, `\|\|` |
    /// | C, C++ | the same, C++'s `for (… : …)`, `and`, `or`; `#if` does not |
    /// | JavaScript | the same, `for … in` and `of`, `??` |
    /// | Go | `if`, `for`, `case` (in `select` too), `&&`, `\|\|` |
    /// | Rust | `if`, `while`, `for`, each arm of a `match` but the first, `let … else`, `?`, `&&`, `\|\|`; `loop` does not |
    /// | Ruby | `if`, `elsif`, `unless`, `while`, `until`, `for` (before and after what they govern), `when`, `in`, `rescue`, `?:`, `&&`, `\|\|`, `and`, `or` |
    /// | PHP | `if`, `elseif`, `for`, `foreach`, `while`, `do`, `case`, `catch`, `?:`, `&&`, `\|\|`, `and`, `or`, `??`, each arm of a `match` |
    ///
    /// `default`, `else` and guards of a case count nowhere, except as said of Python.
    pub fn cyclomatic_complexity(&self) -> usize {
        let mut decisions = Decisions {
            tree: self,
            complexity: 1,
            above: Vec::new(),
        };
        self.visit(&mut decisions);
        decisions.complexity
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scope {
    Text,
    Class,
    Function,
}

/// A node that the walk is inside of.
struct Above<'tree> {
    kind: &'tree str,
    scope: Scope,
    /// Nothing but its body is looked at.
    only_body: bool,
    /// For what is counted once among its children: an arm that is free.
    has_free_arm: bool,
    /// A `try` with `except*`.
    has_groups: bool,
}

struct Decisions<'tree, 'code> {
    tree: &'tree SyntaxTree<'code>,
    complexity: usize,
    above: Vec<Above<'tree>>,
}

impl<'tree> Visitor<'tree> for Decisions<'tree, '_> {
    fn enter(&mut self, node: Node<'tree>, field: Option<&str>) -> bool {
        let kind = node.kind();
        let language = self.tree.language;
        let (scope, looked_at) = match self.above.last() {
            None => (Scope::Text, true),
            Some(above) => (above.scope, !above.only_body || field == Some("body")),
        };
        let defines = if node.is_named() {
            definition(language, kind)
        } else {
            None
        };
        let looked_at = looked_at && (defines.is_none() || scope != Scope::Function);
        let looked_at = looked_at && !(defines == Some(Scope::Class) && scope == Scope::Class);
        let below = looked_at && self.count(node, field);
        if looked_at && defines == Some(Scope::Function) && scope == Scope::Class {
            self.complexity += 1;
        }
        self.above.push(Above {
            kind,
            scope: defines.unwrap_or(scope),
            only_body: language == Language::Python && defines.is_some(),
            has_free_arm: false,
            has_groups: false,
        });
        below
    }

    fn leave(&mut self, _node: Node<'tree>) {
        self.above.pop();
    }
}

impl Decisions<'_, '_> {
    /// Counts `node`; whether to look below it.
    fn count(&mut self, node: Node<'_>, field: Option<&str>) -> bool {
        let above = self.above.last().map_or("", |above| above.kind);
        if above.starts_with("preproc_") && field == Some("condition") {
            return false;
        }
        let kind = node.kind();
        let counts = if !node.is_named() {
            match kind {
                "&&" | "||" | "and" | "or" | "??" => is_logical(above),
                "case" => is_case(above),
                _ => false,
            }
        } else if self.tree.language == Language::Python {
            return self.count_python(node);
        } else {
            is_decision(self.tree.language, kind)
                || kind == "match_arm" && self.is_second_arm()
                || above == "let_declaration" && field == Some("alternative")
        };
        self.complexity += usize::from(counts);
        true
    }

    /// Whether an arm came before it.
    fn is_second_arm(&mut self) -> bool {
        self.above
            .last_mut()
            .is_some_and(|block| std::mem::replace(&mut block.has_free_arm, true))
    }

    fn count_python(&mut self, node: Node<'_>) -> bool {
        let above = self.above.last().map_or("", |above| above.kind);
        let counts = match node.kind() {
            "if_statement"
            | "elif_clause"
            | "conditional_expression"
            | "boolean_operator"
            | "for_statement"
            | "while_statement"
            | "for_in_clause"
            | "assert_statement" => true,
            "if_clause" => above.ends_with("comprehension") || above == "generator_expression",
            "else_clause" => match above {
                "for_statement" | "while_statement" => true,
                "try_statement" => !self.above.last().is_some_and(|above| above.has_groups),
                _ => false,
            },
            "except_clause" => {
                let is_group = is_group(node);
                if is_group && let Some(above) = self.above.last_mut() {
                    above.has_groups = true;
                }
                !is_group
            }
            "case_clause" => !self.takes_anything(node) || self.is_second_arm(),
            _ => false,
        };
        self.complexity += usize::from(counts);
        !matches!(node.kind(), "assert_statement" | "decorator")
    }

    /// Whether a `case` is a lone `_` or name.
    fn takes_anything(&self, case: Node<'_>) -> bool {
        let mut cursor = case.walk();
        let mut patterns = case
            .named_children(&mut cursor)
            .filter(|child| child.kind() == "case_pattern");
        let (Some(pattern), None) = (patterns.next(), patterns.next()) else {
            return false;
        };
        let text = self.tree.text(pattern);
        let starts = text.starts_with(|first: char| first == '_' || first.is_alphabetic());
        let is_word = text.chars().all(|c| Language::Python.is_word(c));
        starts && is_word && !Language::Python.reserves(text)
    }
}

fn is_group(except: Node<'_>) -> bool {
    [0, 1].iter().any(|&place| {
        except
            .child(place)
            .is_some_and(|child| matches!(child.kind(), "*" | "except*"))
    })
}

fn is_logical(above: &str) -> bool {
    matches!(above, "binary_expression" | "binary" | "let_chain")
}

/// Those that a grammar calls a case of `switch`: Python's and Ruby's are counted by their nodes.
fn is_case(above: &str) -> bool {
    matches!(
        above,
        "case_statement"
            | "switch_label"
            | "switch_case"
            | "expression_case"
            | "type_case"
            | "communication_case"
    )
}

/// The scope that a node opens if it defines a function or class with a name.
fn definition(language: Language, kind: &str) -> Option<Scope> {
    Some(match (language, kind) {
        (Language::Python | Language::C | Language::Cpp | Language::Php, "function_definition")
        | (
            Language::Java,
            "method_declaration" | "constructor_declaration" | "compact_constructor_declaration",
        )
        | (
            Language::JavaScript,
            "function_declaration" | "generator_function_declaration" | "method_definition",
        )
        | (Language::Go, "function_declaration" | "method_declaration")
        | (Language::Rust, "function_item")
        | (Language::Ruby, "method" | "singleton_method")
        | (Language::Php, "method_declaration") => Scope::Function,
        (Language::Python, "class_definition")
        | (
            Language::Java,
            "class_declaration"
            | "interface_declaration"
            | "enum_declaration"
            | "record_declaration",
        )
        | (Language::Cpp, "class_specifier" | "struct_specifier" | "union_specifier")
        | (Language::JavaScript, "class_declaration" | "class")
        | (Language::Rust, "impl_item" | "trait_item")
        | (Language::Ruby, "class" | "module" | "singleton_class")
        | (
            Language::Php,
            "class_declaration"
            | "trait_declaration"
            | "interface_declaration"
            | "enum_declaration",
        ) => Scope::Class,
        _ => return None,
    })
}

/// Nodes that count 1 wherever they are.
fn is_decision(language: Language, kind: &str) -> bool {
    match language {
        Language::Rust => matches!(
            kind,
            "if_expression" | "while_expression" | "for_expression" | "try_expression"
        ),
        Language::Ruby => matches!(
            kind,
            "if" | "elsif"
                | "unless"
                | "while"
                | "until"
                | "for"
                | "when"
                | "in_clause"
                | "rescue"
                | "conditional"
                | "if_modifier"
                | "unless_modifier"
                | "while_modifier"
                | "until_modifier"
                | "rescue_modifier"
        ),
        _ => {
            matches!(
                kind,
                "if_statement"
                    | "else_if_clause"
                    | "for_statement"
                    | "enhanced_for_statement"
                    | "for_range_loop"
                    | "for_in_statement"
                    | "foreach_statement"
                    | "while_statement"
                    | "do_statement"
                    | "catch_clause"
                    | "seh_except_clause"
                    | "ternary_expression"
                    | "conditional_expression"
                    | "match_conditional_expression"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complexity(language: Language, code: &str) -> usize {
        let tree = SyntaxTree::parse(language, code).expect("a tree");
        assert!(!tree.has_errors(), "{language} {code}");
        tree.cyclomatic_complexity()
    }

    #[test]
    fn six_classes() {
        let classes = [1, 2, 3, 4, 5, 6, 100].map(complexity_class);
        assert_eq!(classes, [0, 1, 2, 3, 4, 5, 5]);
        assert_eq!(complexity_class(0), 0);
    }

    #[test]
    fn python_counts_as_radon_does() {
        // What radon 6.0.1 says of each.
        for (code, expected) in [
            ("def f(): pass", 1),
            ("def f():\n if a: pass\n elif b: pass\n else: pass", 3),
            (
                "def f():\n for a in b: pass\n else: pass\n while c: pass",
                4,
            ),
            (
                "def f():\n try: pass\n except A: pass\n except B: pass\n else: pass\n finally: pass",
                4,
            ),
            ("def f():\n try: pass\n except* A: pass\n else: pass", 1),
            ("def f(): return a and b and c or d", 4),
            ("def f(): return [a for b in c if d if e for g in h]", 5),
            ("def f(): return {a: b for a in c if d}, (x for y in z)", 4),
            ("def f():\n assert a and b, c if d else e", 2),
            ("def f(): return f'{a if b else c}'", 2),
            (
                "def f():\n match a:\n  case 1 if b: pass\n  case [c]: pass\n  case _: pass",
                3,
            ),
            ("def f():\n match a:\n  case 1: pass\n  case 2: pass", 3),
            (
                "def f():\n match a:\n  case b if c: pass\n  case _: pass",
                2,
            ),
            (
                "def f(a=b or c):\n def g():\n  if a: pass\n return lambda d=e or h: d if d else e",
                3,
            ),
            ("@a(b or c)\ndef f():\n class A:\n  if b: pass\n", 1),
            (
                "class A(b or c):\n x = 1 if a else 2\n def f(self):\n  if a: pass\n def g(self): pass",
                5,
            ),
            ("if a: pass\ndef f():\n if a: pass\ndef g(): pass", 3),
            ("with a as b: pass", 1),
        ] {
            assert_eq!(complexity(Language::Python, code), expected, "{code}");
        }
    }

    #[test]
    fn the_same_decisions_in_every_language() {
        for (language, code, expected) in [
            (
                Language::Java,
                "void f() { for (;;) if (a && b || c) do { } while (d); }",
                6,
            ),
            (
                Language::Java,
                "int f() { switch (a) { case 1: case 2: break; default: } return b ? 1 : 2; }",
                4,
            ),
            (
                Language::Java,
                "void f() { for (A a : b) try { } catch (E e) { } finally { } g(x -> x ? 1 : 2); }",
                4,
            ),
            (
                Language::Java,
                "A f() { return new A() { void g() { if (a) { } } }; }",
                1,
            ),
            (
                Language::C,
                "int f(int a) { while (a) switch (a) { case 1: default: a = b ? c : d; } return a && b; }",
                5,
            ),
            (
                Language::C,
                "#if A && B\nint f() { if (a) { } }\n#endif\nint g() { if (a) { } }",
                3,
            ),
            (
                Language::Cpp,
                "A(int a) : b(a ? 1 : 2) { for (auto& x : y) try { } catch (...) { } if (a and b) { } }",
                6,
            ),
            (
                Language::Cpp,
                "void f(T&& a) { auto l = [](U&& b) { return b || c; }; }",
                2,
            ),
            (
                Language::JavaScript,
                "function f() { for (a of b) if (c ?? d) { } function g() { if (e) { } } return x => x && y; }",
                5,
            ),
            (
                Language::JavaScript,
                "get(a) { switch (a) { case 1: break; default: } try { } catch { } return a ? 1 : 2; }",
                4,
            ),
            (
                Language::Go,
                "func f() { for i := range a { if b && c { } }\n switch d { case 1, 2: default: }\n select { case <-e: } }",
                6,
            ),
            (
                Language::Rust,
                "fn f() { if let A = b { } match c { 1 => {} 2 if d => {} _ => loop {} } for e in g()? { } }",
                6,
            ),
            (
                Language::Rust,
                "fn f(&self) { let A(b) = c else { return }; while let D = e && g || h { } }",
                5,
            ),
            (
                Language::Ruby,
                "def f\n a if b and c\n d unless e\n case g\n when 1, 2 then h\n else i\n end\nend",
                5,
            ),
            (
                Language::Ruby,
                "def f\n begin\n a ? b : c\n rescue D\n e until g\n end\nend",
                4,
            ),
            (
                Language::Php,
                "public function f($a) { foreach ($a as $b) { if ($c) { } elseif ($d ?? $e) { } } }",
                5,
            ),
            (
                Language::Php,
                "function f($a) { switch ($a) { case 1: default: } return match ($a) { 1, 2 => 3, default => $b ?: 4 }; }",
                4,
            ),
        ] {
            assert_eq!(complexity(language, code), expected, "{language} {code}");
        }
    }

    #[test]
    fn a_function_without_decisions_is_simple_in_every_language() {
        for (language, code) in super::super::tree::tests::SIMPLE {
            assert_eq!(complexity(language, code), 1, "{language}");
        }
    }
}

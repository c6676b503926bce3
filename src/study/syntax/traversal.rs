use tree_sitter::Node;

use super::SyntaxTree;
use super::tree::Visitor;

impl SyntaxTree<'_> {
    /// The tree as a sequence: `( type children ) type` for each node with a name, in lower case,
    /// with one space between. That is structure-based traversal (Hu et al. 2018, "Deep code comment
    /// generation") of the tree alone, without the names and values that the code has ("A neural
    /// model for generating natural language summaries of program subroutines", ICSE 2019). Comments
    /// are no part of it, nor is what the parser had to make up.
    pub fn traversal(&self) -> String {
        let mut traversal = Traversal(String::new());
        self.visit(&mut traversal);
        traversal.0
    }
}

struct Traversal(String);

impl Traversal {
    fn push(&mut self, bracket: char, node: Node<'_>) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push(bracket);
        self.0.push(' ');
        self.0.push_str(&node.kind().to_lowercase());
    }
}

/// Whether a node is part of the abstract tree.
fn belongs(node: Node<'_>) -> bool {
    node.is_named() && !node.is_missing() && (node.is_error() || !node.is_extra())
}

impl<'tree> Visitor<'tree> for Traversal {
    fn enter(&mut self, node: Node<'tree>, _field: Option<&str>) -> bool {
        if belongs(node) {
            self.push('(', node);
        }
        // Ruby's heredocs and C's directives are extra, too, and have trees of their own.
        !node.kind().ends_with("comment")
    }

    fn leave(&mut self, node: Node<'tree>) {
        if belongs(node) {
            self.push(')', node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Language;
    use super::*;

    fn traversal(language: Language, code: &str) -> String {
        let tree = SyntaxTree::parse(language, code).expect("a tree");
        tree.traversal()
    }

    #[test]
    fn the_tree_without_what_the_code_names() {
        let expected = "( module ( function_definition ( identifier ) identifier ( parameters \
            ( identifier ) identifier ) parameters ( block ( return_statement ( binary_operator \
            ( identifier ) identifier ( integer ) integer ) binary_operator ) return_statement \
            ) block ) function_definition ) module";
        assert_eq!(
            traversal(Language::Python, "def f(a):\n    return a + 1  # c\n"),
            expected
        );
        assert_eq!(
            traversal(Language::Python, "def g(b):\n    # d\n    return b + 2"),
            expected
        );
    }

    #[test]
    fn the_class_put_around_a_method_is_no_part() {
        let found = traversal(Language::Php, "public function f() { }");
        assert_eq!(
            found,
            "( program ( method_declaration ( visibility_modifier ) visibility_modifier ( name ) name \
             ( formal_parameters ) formal_parameters ( compound_statement ) compound_statement \
             ) method_declaration ) program"
        );
    }
}

//! What a probe asks about source code, read off a syntax tree: the class of each token, the shape
//! of the tree, and how many ways lead through the code.

mod complexity;
mod keywords;
mod language;
mod scanner;
mod tokens;
mod traversal;
mod tree;

pub use complexity::{COMPLEXITY_CLASSES, complexity_class};
pub use language::Language;
pub use tokens::{CodeToken, TokenClass};
pub use tree::{ParseError, SyntaxTree};

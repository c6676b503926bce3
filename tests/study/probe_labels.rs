//! The labels of the probes agree with what Python says of the same functions: `tokenize` of their
//! tokens, `ast` of their nodes, radon of their complexity.
#![allow(
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a report of small numbers"
)]

use std::collections::BTreeMap;
use std::path::Path;

use crate::support::{project, python, run_python};
use serde::Deserialize;
use telly::study::syntax::{CodeToken, Language, SyntaxTree, TokenClass};

/// Share that must agree, of each thing that is compared.
const LEAST_AGREEMENT: f64 = 0.999;

/// What `probe_labels.py` says of a function.
#[derive(Deserialize)]
struct Reference {
    name: String,
    code: String,
    tokens: Option<Vec<(usize, usize, String)>>,
    nodes: Option<Vec<(String, usize)>>,
    complexity: Option<usize>,
    function: Option<usize>,
}

/// How many of how many agree, and how the others differ.
#[derive(Default)]
struct Agreement {
    of: usize,
    agree: usize,
    differences: BTreeMap<String, (usize, String)>,
}

impl Agreement {
    fn add(&mut self, agrees: bool) {
        self.of += 1;
        self.agree += usize::from(agrees);
    }

    fn differ(&mut self, kind: String, example: impl FnOnce() -> String) {
        let entry = self
            .differences
            .entry(kind)
            .or_insert_with(|| (0, example()));
        entry.0 += 1;
    }

    fn share(&self) -> f64 {
        assert!(self.of > 0, "nothing was compared");
        self.agree as f64 / self.of as f64
    }

    fn at_least(&self, share: f64, what: &str) {
        let found = self.share();
        assert!(found >= share, "{what}: {found}, expected {share}");
    }

    fn report(&self, what: &str) {
        let Self { of, agree, .. } = self;
        eprintln!("{what}: {agree} of {of} ({:.3} %)", 100.0 * self.share());
        let mut kinds: Vec<_> = self.differences.iter().collect();
        kinds.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        for (kind, (count, example)) in kinds.into_iter().take(25) {
            eprintln!("    {count} times {kind}: {example}");
        }
    }
}

#[derive(Default)]
struct Agreements {
    parse: Agreement,
    tokens: Agreement,
    token_lists: Agreement,
    nodes: Agreement,
    complexity: Agreement,
    functions: Agreement,
}

fn name_of(class: TokenClass) -> &'static str {
    match class {
        TokenClass::Identifier => "identifier",
        TokenClass::Keyword => "keyword",
        TokenClass::Operator => "operator",
        TokenClass::Number => "number",
        TokenClass::String => "string",
    }
}

fn excerpt(text: &str) -> String {
    format!("{:?}", text.chars().take(60).collect::<String>())
}

impl Agreements {
    fn of(references: &[Reference]) -> Self {
        let mut agreements = Self::default();
        for reference in references {
            agreements.add(reference);
        }
        agreements
    }

    fn add(&mut self, reference: &Reference) {
        let tree = SyntaxTree::parse(Language::Python, &reference.code).expect("a tree");
        let parses = reference.nodes.is_some();
        self.parse.add(parses != tree.has_errors());
        if parses == tree.has_errors() {
            let kind = format!("ast parses {parses}, the grammar {}", !parses);
            self.parse.differ(kind, || {
                format!("{} {}", reference.name, excerpt(&reference.code))
            });
        }
        if let Some(expected) = &reference.tokens {
            self.add_tokens(reference, &tree.tokens(), expected, tree.has_errors());
        }
        for (kinds, expected) in reference.nodes.iter().flatten() {
            let found = tree.count(&kinds.split(' ').collect::<Vec<_>>());
            self.nodes.add(found == *expected);
            if found != *expected {
                let kind = format!("{kinds} (errors {})", tree.has_errors());
                self.nodes.differ(kind, || {
                    format!("{}: found {found}, expected {expected}", reference.name)
                });
            }
        }
        let found = tree.cyclomatic_complexity();
        for (agreement, expected) in [
            (&mut self.complexity, reference.complexity),
            (&mut self.functions, reference.function),
        ] {
            let Some(expected) = expected else { continue };
            agreement.add(found == expected);
            if found != expected {
                let kind = format!("(errors {})", tree.has_errors());
                agreement.differ(kind, || {
                    format!("{}: found {found}, expected {expected}", reference.name)
                });
            }
        }
    }

    fn add_tokens(
        &mut self,
        reference: &Reference,
        found: &[CodeToken],
        expected: &[(usize, usize, String)],
        has_errors: bool,
    ) {
        let found: Vec<(usize, usize, &str)> = found
            .iter()
            .map(|token| (token.bytes.start, token.bytes.end, name_of(token.class)))
            .collect();
        let expected: Vec<(usize, usize, &str)> = expected
            .iter()
            .map(|(start, end, class)| (*start, *end, class.as_str()))
            .collect();
        self.token_lists.add(found == expected);
        for token in &expected {
            self.tokens.add(found.binary_search(token).is_ok());
        }
        for (ours, theirs, what) in [
            (&found, &expected, "not so in tokenize"),
            (&expected, &found, "only in tokenize"),
        ] {
            for token in ours
                .iter()
                .filter(|token| theirs.binary_search(token).is_err())
            {
                let parses = reference.nodes.is_some();
                let kind = format!(
                    "{} {what} (ast parses {parses}, errors {has_errors})",
                    token.2
                );
                self.tokens.differ(kind, || {
                    let text = &reference.code[token.0..token.1];
                    format!("{} {}", reference.name, excerpt(text))
                });
            }
        }
    }

    fn all(&self) -> [(&Agreement, &'static str); 6] {
        [
            (&self.parse, "functions that parse, or do not, in both"),
            (&self.tokens, "tokens of tokenize with span and class"),
            (&self.token_lists, "functions with all tokens the same"),
            (&self.nodes, "numbers of nodes of a kind"),
            (&self.complexity, "radon's total complexity"),
            (&self.functions, "radon's complexity of the function"),
        ]
    }

    fn report(&self, what: &str) {
        eprintln!("== {what}");
        for (agreement, what) in self.all() {
            agreement.report(what);
        }
    }
}

fn ask(python: &Path, arguments: &[&str]) -> Vec<Reference> {
    let arguments: Vec<&Path> = arguments.iter().map(Path::new).collect();
    let text = run_python(python, "probe_labels.py", &arguments);
    text.lines()
        .map(|line| serde_json::from_str(line).expect("a reference"))
        .collect()
}

#[test]
fn functions_of_this_project_have_the_labels_that_python_gives() {
    let Some(python) = python() else { return };
    let scripts = project().join("scripts");
    let references = ask(&python, &["files", scripts.to_str().expect("UTF-8")]);
    assert!(references.len() > 100, "{} functions", references.len());
    let agreements = Agreements::of(&references);
    agreements.report(&format!("{} functions of scripts/", references.len()));
    for (agreement, what) in agreements.all() {
        agreement.at_least(LEAST_AGREEMENT, what);
    }
}

#[test]
fn functions_of_real_data_have_the_labels_that_python_gives() {
    let Some(python) = python() else { return };
    let data = project().join("../shared/data/pystd/train.jsonl.gz");
    if !data.exists() {
        eprintln!(
            "{} is absent: its functions are not compared",
            data.display()
        );
        return;
    }
    let references = ask(&python, &["records", data.to_str().expect("UTF-8"), "5000"]);
    assert_eq!(references.len(), 5000);
    let agreements = Agreements::of(&references);
    agreements.report("5,000 functions of pystd");
    for (agreement, what) in agreements.all() {
        agreement.at_least(LEAST_AGREEMENT, what);
    }
}

use std::io;
use std::path::{Path, PathBuf};

use super::Label;
use crate::error::Explain;

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened.
    #[error(transparent)]
    Read(io::Error),
    /// A folder stands where a file was expected.
    #[error("`{path}` is a folder")]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// A line could not be read.
    #[error("`{path}`, line {line}: cannot read it")]
    Line {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What the system or the decompressor said.
        source: io::Error,
    },
    /// The file is not packed as its name says.
    #[error("`{path}` is not {expected}, as its name says")]
    NotPacked {
        /// The file.
        path: PathBuf,
        /// The packing.
        expected: &'static str,
    },
    /// The file is of another kind.
    #[error("`{path}` holds {found}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// Bytes that are no text.
    #[error("`{path}`, line {line}, column {column}: {problem}")]
    NotText {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// In bytes, from 1.
        column: usize,
        /// What is there.
        problem: &'static str,
    },
    /// A record that does not end.
    #[error("`{path}`, line {line}: a record of more than 64 MiB begins here")]
    LongRecord {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// The file has no records.
    #[error("`{path}` holds no records")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A line is not a JSON object.
    #[error("`{path}`, line {line}, column {column}: not a JSON object: {problem}")]
    Json {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What the parser said.
        problem: String,
    },
    /// A record lacks a field.
    #[error("{}: no field {}; the record has {}", at(.path, *.line), either(.expected), listed(.found))]
    MissingField {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Any of these would do.
        expected: Vec<String>,
        /// The fields that are there.
        found: Vec<String>,
        /// The flag that names another; empty where none does.
        flag: &'static str,
    },
    /// A field is of another type.
    #[error("{}: field `{field}` is {found}, expected {expected}", at(.path, *.line))]
    FieldType {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The field.
        field: String,
        /// Its value, as JSON.
        found: String,
        /// What would do.
        expected: &'static str,
        /// The flag that names another field; empty where none does.
        flag: &'static str,
    },
    /// Two functions with the same id.
    #[error("{}: the function {id} is there already, in line {first}", at(.path, *.line))]
    SameFunction {
        /// The file of functions.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Its id.
        id: Label,
        /// Where it came first.
        first: usize,
    },
    /// A line of a pair file is no pair.
    #[error("`{path}`, line {line}: `{found}` is no pair of functions")]
    NoPair {
        /// The pair file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// No pair has both its functions.
    #[error("`{path}`: none of its {pairs} pairs has both its functions in `{functions}`")]
    NoFunctions {
        /// The pair file.
        path: PathBuf,
        /// How many pairs.
        pairs: usize,
        /// The file of functions.
        functions: PathBuf,
    },
    /// The file of functions is not where it is looked for.
    #[error("no {} beside `{path}`", either(.names))]
    NothingBeside {
        /// The pair file.
        path: PathBuf,
        /// Any of these would do.
        names: Vec<String>,
        /// What to do.
        advice: &'static str,
    },
}

/// A record's place in words.
pub(crate) fn at(path: &Path, line: usize) -> String {
    format!("`{}`, line {line}", path.display())
}

fn either(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(" or ")
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::MissingField { flag: "", .. } | Self::FieldType { flag: "", .. } => return None,
            Self::MissingField { flag, .. } | Self::FieldType { flag, .. } => {
                format!("name another field with `{flag}`")
            }
            Self::Json { .. } => {
                "every line must be one JSON object, as in {\"code\": \"...\", \"label\": 1}; or the file one array of them".into()
            }
            Self::Empty { .. } => "the file must hold one record or more".into(),
            Self::Line { .. } => {
                "the file may be cut off or damaged: copy or pack it again".into()
            }
            Self::Read(_) | Self::Folder { .. } => {
                "check the path; data files are JSON Lines, such a file in .gz or .zst too".into()
            }
            Self::NotPacked { .. } => {
                "name it as what it is: .jsonl, .jsonl.gz or .jsonl.zst".into()
            }
            Self::Foreign { advice, .. } | Self::NothingBeside { advice, .. } => {
                (*advice).into()
            }
            Self::NotText { .. } => "data files are text in UTF-8: save it as that".into(),
            Self::LongRecord { .. } => "check that lines end and quotes are closed".into(),
            Self::SameFunction { .. } => "every function must have an id of its own".into(),
            Self::NoPair { .. } => {
                "a line holds two ids and 0 or 1, with tabs between: 13653451 21955002 0".into()
            }
            Self::NoFunctions { .. } => {
                "check that both files belong together: pairs name functions by their `idx`".into()
            }
        })
    }

    fn is_input(&self) -> bool {
        true
    }
}

use std::io;
use std::path::PathBuf;

use crate::error::Explain;

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened.
    #[error(transparent)]
    Read(io::Error),
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
    #[error("`{path}`, line {line}: no field {}; the record has {}", either(.expected), listed(.found))]
    MissingField {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// Any of these would do.
        expected: Vec<String>,
        /// The fields that are there.
        found: Vec<String>,
        /// The flag that names another.
        flag: &'static str,
    },
    /// A field is of another type.
    #[error("`{path}`, line {line}: field `{field}` is {found}, expected {expected}")]
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
        /// The flag that names another field.
        flag: &'static str,
    },
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
            Self::MissingField { flag, .. } | Self::FieldType { flag, .. } => {
                format!("name another field with `{flag}`")
            }
            Self::Json { .. } => {
                "every line must be one JSON object, as in {\"code\": \"...\", \"label\": 1}".into()
            }
            Self::Empty { .. } => "the file must hold one JSON object a line".into(),
            Self::Line { .. } => {
                "the file must be UTF-8 text, or gzip if its name ends in .gz".into()
            }
            Self::Read(_) => {
                "check the path; data files are JSON Lines, or such a file gzipped".into()
            }
        })
    }

    fn is_input(&self) -> bool {
        true
    }
}

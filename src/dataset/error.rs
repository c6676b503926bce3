use std::io;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

use super::Label;
use super::compression::{self, Format};
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
    #[error(
        "`{path}`, line {line}: a record begins here that takes more than 64 MiB, or 4,096 columns"
    )]
    LongRecord {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A quoted value that has no end.
    #[error("`{path}`, line {line}: a quote that opens in this row is never closed")]
    OpenQuote {
        /// The file.
        path: PathBuf,
        /// Where the row begins, from 1.
        line: usize,
    },
    /// A row of another width than the header.
    #[error(
        "`{path}`, line {line}: the row has {found} of the {expected} columns that the first line names"
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// Where the row begins, from 1.
        line: usize,
        /// In the row.
        found: usize,
        /// In the first line.
        expected: usize,
    },
    /// The first line cannot name columns.
    #[error("`{path}`, line 1: {problem}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is there.
        problem: String,
        /// What to do.
        advice: &'static str,
    },
    /// The file is no Parquet file that can be read.
    #[error("`{path}`: not a Parquet file that can be read")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: ParquetError,
    },
    /// A row cannot be read.
    #[error("{}: cannot read it", at(.path, *.row))]
    ParquetRow {
        /// The file.
        path: PathBuf,
        /// From 1.
        row: usize,
        /// What the reader said.
        source: ParquetError,
    },
    /// A Parquet file within another packing.
    #[error("`{path}`: a Parquet file must not be packed, its end is read first")]
    PackedParquet {
        /// The file.
        path: PathBuf,
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
    /// A line is no place in the file of functions.
    #[error("`{path}`, line {line}: `{found}` is no place of a function in `{functions}`")]
    NoPlace {
        /// The file of places.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The line.
        found: String,
        /// The file of functions.
        functions: PathBuf,
    },
    /// A place beyond the last function.
    #[error("`{path}`, line {line}: place {found}, but there are {functions} functions")]
    BeyondFunctions {
        /// The file of places.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The place, from 0.
        found: u64,
        /// How many functions there are.
        functions: u64,
    },
    /// A folder has nothing of a split.
    #[error("`{path}` has no file of the {split} split")]
    NoSplit {
        /// The folder.
        path: PathBuf,
        /// The split.
        split: String,
    },
    /// A file of pairs or of places is one of several files of a split.
    #[error("`{path}` is no file of records, and cannot be one of several files of a split")]
    SeveralTexts {
        /// The file.
        path: PathBuf,
    },
    /// A folder has two files of a split.
    #[error("`{first}` and `{second}` are both there")]
    TwoFiles {
        /// One.
        first: PathBuf,
        /// Another.
        second: PathBuf,
    },
}

/// A record's place in words: a Parquet file has rows, others lines.
pub(crate) fn at(path: &Path, line: usize) -> String {
    let unit = match compression::format(path) {
        Format::Parquet => "row",
        Format::Json | Format::Table(_) => "line",
    };
    format!("`{}`, {unit} {line}", path.display())
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
        let hint = match self {
            Self::MissingField { flag: "", .. } | Self::FieldType { flag: "", .. } => return None,
            Self::MissingField { flag, path, .. }
                if matches!(compression::format(path), Format::Table(_)) =>
            {
                return Some(format!(
                    "the first line names the columns; name another with `{flag}`"
                ));
            }
            Self::MissingField { flag, .. } | Self::FieldType { flag, .. } => {
                return Some(format!("name another field with `{flag}`"));
            }
            Self::Foreign { advice, .. }
            | Self::NothingBeside { advice, .. }
            | Self::Header { advice, .. } => advice,
            Self::Json { .. } => {
                "every line must be one JSON object, as in {\"code\": \"...\", \"label\": 1}, or the file one array of them; tables are named .csv, .tsv or .parquet"
            }
            Self::Empty { .. } => "the file must hold one record or more",
            Self::Line { .. } => "the file may be cut off or damaged: copy or pack it again",
            Self::Read(_) | Self::Folder { .. } => {
                "check the path; data files are .jsonl, .json, .csv or .tsv, also in .gz or .zst, or .parquet"
            }
            Self::NotPacked { .. } => "name it as what it is: .gz is gzip, .zst is zstd",
            Self::NotText { .. } => "data files are text in UTF-8: save it as that",
            Self::LongRecord { .. } => "check that lines end and quotes are closed",
            Self::OpenQuote { .. } => {
                "a value with quotes in it stands in quotes, and each of its own is written twice: \"say \"\"hello\"\"\""
            }
            Self::Columns { .. } => {
                "a value with a comma, a quote or a line end in it must stand in quotes"
            }
            Self::Parquet { .. } => "copy it again, or write it again as Parquet",
            Self::ParquetRow { .. } => {
                "copy it again, or write it again with snappy, gzip, zstd or no compression"
            }
            Self::PackedParquet { .. } => "unpack it: Parquet compresses what it holds by itself",
            Self::SameFunction { .. } => "every function must have an id of its own",
            Self::NoPair { .. } => {
                "a line holds two ids and 0 or 1, with tabs between: 13653451 21955002 0"
            }
            Self::NoFunctions { .. } => {
                "check that both files belong together: pairs name functions by their `idx`"
            }
            Self::NoPlace { .. } => "a line holds one number, from 0",
            Self::BeyondFunctions { .. } => "check that both files belong together",
            Self::NoSplit { .. } => {
                "name the file itself; in a folder it is train.jsonl, valid.csv or test-0.parquet, or such"
            }
            Self::SeveralTexts { .. } => "put its lines and those of the others into one file",
            Self::TwoFiles { .. } => "name the one that is meant",
        };
        Some(hint.into())
    }

    fn is_input(&self) -> bool {
        true
    }
}

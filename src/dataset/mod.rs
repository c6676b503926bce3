//! Records out of files: JSON Lines, JSON arrays, CSV, TSV and Parquet by the file's name, the
//! text formats gzipped or in zstd too; and BigCloneBench's pairs of functions.
//!
//! [`Records`] reads one record after the other: what it holds does not grow with the file.

mod array;
mod compression;
mod csv;
mod error;
mod indices;
mod jsonl;
mod lines;
mod pairs;
mod parquet;
mod record;
mod records;
mod source;

use std::path::{Path, PathBuf};

pub use compression::is_records;
pub use error::Error;
pub use lines::text_lines;
pub use pairs::{Functions, Pair, PairFile};
pub use record::{FieldChoice, Label, Record};
pub use records::Records;
pub use source::Source;

pub(crate) use error::at;

/// Some records of one file, in its order: all of them, or as many as are worked on at a time.
#[derive(Debug)]
pub struct Dataset {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub records: Vec<Record>,
}

impl Dataset {
    /// Reads a whole file into memory; [`Records`] reads it piece by piece.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            records: Records::open(path)?.collect::<Result<_, _>>()?,
        })
    }
}

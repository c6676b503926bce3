//! A code base as vectors on disk, searched exactly: every vector is compared with every query.
//!
//! A folder: `index.json`, `vectors.safetensors` (`vectors` `[records, width]`, mapped),
//! `records.jsonl` (what is said of each record) and `offsets.safetensors` (`offsets`
//! `[records + 1]`, where each line begins).

mod error;
mod reader;
mod top;
mod writer;

use serde::{Deserialize, Serialize};

pub use error::Error;
pub use reader::Index;
pub use top::{Hit, Top};
pub use writer::IndexWriter;

/// What marks a folder as an index, and says what is in it.
pub const DESCRIPTION: &str = "index.json";
const FORMAT: &str = "telly-index";
const VERSION: u64 = 1;
const VECTORS: &str = "vectors.safetensors";
const OFFSETS: &str = "offsets.safetensors";
const RECORDS: &str = "records.jsonl";

/// How vectors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum VectorType {
    /// 32 bits a number.
    #[default]
    F32,
    /// 16 bits a number: half the disk, scores off by about 1e-4.
    Fp16,
}

impl VectorType {
    fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Fp16 => 2,
        }
    }

    /// As safetensors has it.
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::Fp16 => "F16",
        }
    }
}

/// What an index holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    format: String,
    version: u64,
    /// Of the model that made the vectors: only its own queries can be compared with them.
    pub fingerprint: String,
    /// How many vectors.
    pub records: usize,
    /// Numbers a vector.
    pub width: usize,
    /// How they are stored.
    pub stored: VectorType,
}

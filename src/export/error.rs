use std::io;
use std::path::PathBuf;

use crate::checkpoint;
use crate::error::{Explain, write_hint};
use crate::publish_folder::FolderError;

/// Why a run was not exported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model that the run was trained from could not be used.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// There is something already.
    #[error("`{folder}` is there already")]
    Exists {
        /// As given.
        folder: PathBuf,
    },
    /// What is there is no export, and is not deleted.
    #[error("`{folder}` is no export of telly's, so `--force` leaves it alone")]
    NotAnExport {
        /// As given.
        folder: PathBuf,
    },
    /// No class of `transformers` of that kind computes what was trained.
    #[error("`{class}` cannot compute what was trained: {reason}")]
    NoSuchClass {
        /// The class.
        class: String,
        /// Why.
        reason: &'static str,
    },
    /// A classifier of two texts that are encoded each on its own.
    #[error("no class of transformers encodes two texts each on its own, as `--head concat` does")]
    NoPairClass,
    /// A flag that means nothing for this run or format.
    #[error("`{flag}` means nothing here: {reason}")]
    Meaningless {
        /// The flag with its value.
        flag: String,
        /// Why.
        reason: &'static str,
    },
    /// A number is too large for the type that weights are to be stored in.
    #[error("tensor `{tensor}` holds {found}, which {stored} cannot")]
    Overflow {
        /// The tensor.
        tensor: String,
        /// The number.
        found: f32,
        /// The type.
        stored: &'static str,
    },
    /// A file of the run or the model could not be read.
    #[error("cannot read what is to be exported")]
    Read(#[source] io::Error),
    /// A file of the export could not be written.
    #[error("cannot write the export")]
    Write(#[source] io::Error),
    /// A JSON file of the model is malformed.
    #[error("`{path}` is not the JSON that was expected")]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
}

impl From<FolderError> for Error {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Exists(folder) => Self::Exists { folder },
            FolderError::Foreign(folder) => Self::NotAnExport { folder },
            FolderError::Write(error) => Self::Write(error),
        }
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Checkpoint(error) => return error.hint(),
            Self::Exists { .. } => {
                "choose another `--out`, or replace an earlier export with `--force`".into()
            }
            Self::NotAnExport { .. } => "choose another `--out`, or move the folder away".into(),
            Self::NoSuchClass { .. } => "leave out `--class` where the family's token classifier will do, or take `--format onnx`".into(),
            Self::NoPairClass => "take `--format onnx`".into(),
            Self::Meaningless { .. } => "leave it out".into(),
            Self::Overflow { .. } => "take `--dtype bf16` or `--dtype f32`".into(),
            Self::Write(error) => return write_hint(error, "an `--out` folder"),
            Self::Read(_) | Self::Json { .. } => return None,
        })
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Checkpoint(error) => error.is_input(),
            Self::Read(_) | Self::Write(_) => false,
            _ => true,
        }
    }
}

use std::io;
use std::path::PathBuf;

use crate::error::{Explain, write_hint};
use crate::publish_folder::FolderError;

/// Why an index could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is none.
    #[error("no index in `{folder}`: it has no `{}`", super::DESCRIPTION)]
    Missing {
        /// As given.
        folder: PathBuf,
    },
    /// There is something already.
    #[error("`{folder}` is there already")]
    Exists {
        /// As given.
        folder: PathBuf,
    },
    /// What is there is no index, and is not deleted.
    #[error("`{folder}` is no index of telly's, so `--force` leaves it alone")]
    NotAnIndex {
        /// As given.
        folder: PathBuf,
    },
    /// Another model made it.
    #[error(
        "`{folder}` was made by another model: its fingerprint is {found}, expected {expected}"
    )]
    OtherModel {
        /// The index.
        folder: PathBuf,
        /// Of the model that made it.
        found: String,
        /// Of the model that asks.
        expected: String,
    },
    /// A file of an index is malformed.
    #[error("`{path}` is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be read.
    #[error("cannot read the index")]
    Read(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write the index")]
    Write(#[source] io::Error),
}

impl From<FolderError> for Error {
    fn from(error: FolderError) -> Self {
        match error {
            FolderError::Exists(folder) => Self::Exists { folder },
            FolderError::Foreign(folder) => Self::NotAnIndex { folder },
            FolderError::Write(error) => Self::Write(error),
        }
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { .. } => "make one with `telly index`".into(),
            Self::Exists { .. } => {
                "choose another `--out`, or replace an earlier index with `--force`".into()
            }
            Self::NotAnIndex { .. } => "choose another `--out`, or move the folder away".into(),
            Self::OtherModel { .. } => {
                "make the index again with `telly index` and this `--run`".into()
            }
            Self::Damaged { .. } => "make it again with `telly index --force`".into(),
            Self::Write(error) => return write_hint(error, "an `--out` folder"),
            Self::Read(_) => return None,
        })
    }

    fn is_input(&self) -> bool {
        !matches!(self, Self::Read(_) | Self::Write(_))
    }
}

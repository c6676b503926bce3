use std::io;
use std::path::PathBuf;

use crate::cache::Difference;
use crate::error::{Explain, write_hint};
use crate::{checkpoint, frozen, task};

use super::probe::LEAST_TOKENS;
use super::{LEAST_TEXTS, MOST_TEXTS, POOLED};

/// Why checkpoints were not compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A checkpoint could not be run.
    #[error(transparent)]
    Frozen(#[from] frozen::Error),
    /// Text could not be turned into tokens.
    #[error(transparent)]
    Checkpoint(Box<checkpoint::Error>),
    /// A probe's result could not be measured.
    #[error(transparent)]
    Task(Box<task::Error>),
    /// A probe could not be trained.
    #[error("a probe could not be trained")]
    Training(#[source] Box<candle_core::Error>),
    /// The optimum of a probe was not found.
    #[error("a probe could not be fitted")]
    Optimizer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Layers are compared one with one.
    #[error("the two have different numbers of layers: found {found}, expected {expected}")]
    Layers {
        /// Of the second.
        found: usize,
        /// Of the first.
        expected: usize,
    },
    /// Too few or too many texts to compare by.
    #[error("{found} texts, expected {LEAST_TEXTS} to {MOST_TEXTS}")]
    Texts {
        /// How many there are.
        found: usize,
    },
    /// Too few tokens to learn from or to test on.
    #[error("{found} tokens of code in a split, expected at least {LEAST_TOKENS}")]
    Tokens {
        /// How many there are.
        found: usize,
    },
    /// A text without a token.
    #[error("text {text} has no tokens, so there is no mean over them")]
    NoTokens {
        /// Which, counted from 1.
        text: usize,
    },
    /// The hidden states are not numbers.
    #[error("the model put out a number that is not finite for text {text}")]
    NotFinite {
        /// Which, counted from 1.
        text: usize,
    },
    /// Vectors that are there are not those that are wanted.
    #[error("the vectors in `{folder}` do not match:{}", Difference::lines(.differences))]
    Stale {
        /// Their folder.
        folder: PathBuf,
        /// Every field that differs.
        differences: Vec<Difference>,
    },
    /// Vectors of other texts cannot be compared.
    #[error("`{first}` and `{second}` are of different texts, from text {text} on")]
    OtherTexts {
        /// The first model or folder.
        first: PathBuf,
        /// The second.
        second: PathBuf,
        /// The first that differs, counted from 1.
        text: usize,
    },
    /// A file of vectors or of features is malformed.
    #[error("`{path}` is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file holds something else.
    #[error("`{path}` holds no {kind}")]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// What is wanted.
        kind: &'static str,
    },
    /// A file could not be read.
    #[error("cannot read the file")]
    Read(#[source] io::Error),
    /// A file could not be written.
    #[error("cannot write the file")]
    Write(#[source] io::Error),
    /// Ctrl-C.
    #[error("interrupted: nothing was written")]
    Interrupted,
}

impl From<checkpoint::Error> for Error {
    fn from(error: checkpoint::Error) -> Self {
        Self::Checkpoint(Box::new(error))
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Training(Box::new(error))
    }
}

impl From<task::Error> for Error {
    fn from(error: task::Error) -> Self {
        Self::Task(Box::new(error))
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Frozen(error) => return error.hint(),
            Self::Checkpoint(error) => return error.hint(),
            Self::Task(error) => return error.hint(),
            Self::Layers { .. } => {
                "compare checkpoints of the same depth, as a model and what was trained from it"
                    .into()
            }
            Self::Texts { found } if *found < LEAST_TEXTS => {
                "pass more texts: a correlation is over pairs of texts".into()
            }
            Self::Texts { .. } => "pass a smaller `--limit`: memory grows with its square".into(),
            Self::Tokens { .. } => {
                "pass more functions, a larger `--tokens`, or a larger `--max-length`".into()
            }
            Self::NoTokens { .. } => "leave the record out, or give it a text".into(),
            Self::NotFinite { .. } => {
                "the checkpoint's weights may be broken: look for NaN or infinity in them".into()
            }
            Self::Stale { .. } => "choose another `--cache`, or replace them with `--force`".into(),
            Self::OtherTexts { .. } => {
                "make both of the same `--data`, `--text-field` and `--limit`".into()
            }
            Self::Damaged { path, .. } if path.ends_with(POOLED) => {
                "make it again with `telly precompute --pooled --force`".into()
            }
            Self::Damaged { .. } => "make it again with `telly probe --features`".into(),
            Self::OtherKind { .. } => "`telly rsa` reads the folders that `telly precompute --pooled` wrote, `telly probe` the files of its own `--features`".into(),
            Self::Write(error) => return write_hint(error, "a folder"),
            Self::Read(_) | Self::Training(_) | Self::Optimizer(_) | Self::Interrupted => {
                return None;
            }
        })
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Frozen(error) => error.is_input(),
            Self::Checkpoint(error) => error.is_input(),
            Self::Task(error) => error.is_input(),
            Self::Layers { .. }
            | Self::Texts { .. }
            | Self::Tokens { .. }
            | Self::NoTokens { .. }
            | Self::Stale { .. }
            | Self::OtherTexts { .. }
            | Self::OtherKind { .. }
            | Self::Damaged { .. } => true,
            Self::Read(_)
            | Self::Write(_)
            | Self::Training(_)
            | Self::Optimizer(_)
            | Self::NotFinite { .. }
            | Self::Interrupted => false,
        }
    }
}

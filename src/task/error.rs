use std::path::PathBuf;

use crate::dataset::{Label, at};
use crate::error::Explain;
use crate::{checkpoint, dataset, trainable};

/// Why records do not fit the task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A record lacks a field or has one of the wrong type.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// The tokenizer failed.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The model failed.
    #[error(transparent)]
    Trainable(#[from] trainable::Error),
    /// A label that the training split does not have.
    #[error("{}: label {found} does not occur in the training split, which has {}", at(.path, *.line), summary(.known))]
    UnknownLabel {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The label.
        found: Label,
        /// The labels of the training split.
        known: Vec<Label>,
    },
    /// One class cannot be told from anything.
    #[error("`{path}`: every record has the label {only}, classification needs at least two")]
    OneClass {
        /// The training file.
        path: PathBuf,
        /// The label.
        only: Label,
    },
    /// Sequences longer than the model's positions.
    #[error("`{flag} {found}` is longer than the model's positions allow: {longest}")]
    TooLong {
        /// The flag.
        flag: &'static str,
        /// What was asked for.
        found: usize,
        /// The most.
        longest: usize,
    },
    /// Sequences too short to hold a text.
    #[error("`{flag} {found}` leaves no room beside the special tokens; the least is {shortest}")]
    TooShort {
        /// The flag.
        flag: &'static str,
        /// What was asked for.
        found: usize,
        /// The least.
        shortest: usize,
    },
}

fn summary(labels: &[Label]) -> String {
    const SHOWN: usize = 10;
    let mut shown: Vec<String> = labels.iter().take(SHOWN).map(Label::to_string).collect();
    if labels.len() > SHOWN {
        shown.push(format!("… ({} in all)", labels.len()));
    }
    shown.join(", ")
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Trainable(error.into())
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Dataset(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Trainable(error) => error.hint(),
            Self::UnknownLabel { .. } => Some(
                "1 and \"1\" are different labels (in a table, 1 is the number); every class must occur in the training split"
                    .into(),
            ),
            Self::OneClass { .. } => Some("name another field with `--label-field`".into()),
            Self::TooLong { .. } | Self::TooShort { .. } => None,
        }
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Trainable(error) => error.is_input(),
            _ => true,
        }
    }
}

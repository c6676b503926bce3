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
    /// No text of a split with sets of labels has any.
    #[error("`{path}`: no record has a label")]
    NoLabels {
        /// The training file.
        path: PathBuf,
    },
    /// The model's own classifier has an activation that Telly does not compute.
    #[error("`--head huggingface` cannot be used with this model")]
    UnknownActivation(#[source] checkpoint::Error),
    /// The model's family has no classifier of the form that Telly trains.
    #[error(
        "`--head huggingface` cannot be used with this model: its family's classifier reads the last token"
    )]
    NoFamilyHead,
    /// The model is an encoder that was not made to write text.
    #[error("`{folder}` is an encoder without `{token}`: it writes no text")]
    WritesNoText {
        /// The checkpoint.
        folder: PathBuf,
        /// What `UniXcoder` has.
        token: &'static str,
    },
    /// There is nothing that a text could be written behind, or that could be learnt from.
    #[error("`{path}`, line {line}: the source is empty, and nothing stands around it")]
    EmptyText {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// A prompt has no place for the source, or several.
    #[error("`--prompt-template {template:?}` does not hold `{{source}}` once")]
    Template {
        /// As given.
        template: String,
    },
    /// Nothing ends a text.
    #[error("`{folder}`: `config.json` has no `eos_token_id`, so that no text would end")]
    NoEndToken {
        /// The checkpoint.
        folder: PathBuf,
    },
    /// A pair's label says neither yes nor no.
    #[error("`{path}`, line {line}: label {found} is neither 0 nor 1")]
    NotZeroOrOne {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The label.
        found: Label,
    },
    /// Groups of which no one has two members.
    #[error("`{path}`: no two records have the same label, so there is nothing to be found")]
    NoGroup {
        /// The file.
        path: PathBuf,
    },
    /// A query whose code is not in the code base.
    #[error("`{path}`, line {line}: the code base `{code_base}` has no record with the key {key}")]
    NotInCodeBase {
        /// The queries' file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The query's key.
        key: Label,
        /// The code base.
        code_base: PathBuf,
    },
    /// Two records of the code base that queries cannot tell apart.
    #[error("`{path}`, line {line}: the key {key} is there already, in line {first}")]
    SameKey {
        /// The code base.
        path: PathBuf,
        /// Of the second, from 1.
        line: usize,
        /// Of both.
        key: Label,
        /// Of the first.
        first: usize,
    },
    /// A query without any hard negative.
    #[error("`{path}`, line {line}: `{field}` holds no text")]
    NoNegative {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The field.
        field: String,
    },
    /// One of two texts holds the token by which a model tells them apart.
    #[error("{}: a text holds {token}, by which the model tells the first text from the second", at(.path, *.line))]
    SeparatorInText {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// The token.
        token: String,
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
            Self::NoLabels { .. } => {
                Some("the field of the labels holds a list, as [\"a\", \"b\"]".into())
            }
            Self::UnknownActivation(_) | Self::NoFamilyHead => Some("use `--head linear`".into()),
            Self::OneClass { .. } => Some("name another field with `--label-field`".into()),
            Self::NotZeroOrOne { .. } => Some(
                "1 stands for clones, 0 for others; name another field with `--label-field`".into(),
            ),
            Self::NoGroup { .. } => Some(
                "name the field of the group with `--label-field`; for pairs name both texts with `--first-field` and `--second-field`"
                    .into(),
            ),
            Self::NotInCodeBase { .. } => Some(
                "`--code-base` must hold the code of every query of `--valid` and `--test`; `--key-field` names what they share"
                    .into(),
            ),
            Self::SameKey { .. } => {
                Some("name a field that differs from record to record with `--key-field`".into())
            }
            Self::NoNegative { .. } => Some(
                "every record of the training split needs at least one; leave such records out"
                    .into(),
            ),
            Self::SeparatorInText { token, .. } => Some(format!(
                "write {token} in another way, with spaces between its characters, or leave the record out"
            )),
            Self::WritesNoText { .. } => {
                Some("take a UniXcoder checkpoint, or a decoder: llama, qwen2, starcoder2".into())
            }
            Self::Template { .. } => {
                Some("write it like \"# {source}\\n\": the target comes behind it".into())
            }
            Self::EmptyText { .. } => {
                Some("leave the record out, or put something around it with `--prompt-template`".into())
            }
            Self::NoEndToken { .. } => Some("add `eos_token_id` to `config.json`".into()),
            Self::TooLong { .. } => Some("lower it, or take a model with more positions".into()),
            Self::TooShort { .. } => None,
        }
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Trainable(error) => error.is_input(),
            _ => true,
        }
    }
}

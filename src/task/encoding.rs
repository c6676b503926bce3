//! Records to token sequences.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::clone::{CloneEncoding, CloneForm};
use super::search_encoding::{CodeBase, SearchEncoding};
use super::text_encoding::TextEncoding;
use super::text_metrics::TextTask;
use super::texts::{Rows, TextEncoder};
use super::{Error, Labels, Objective, classify};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Dataset, FieldChoice};
use crate::ragged::Ragged;
use crate::targets::Targets;

/// `--task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// One label a text.
    Classify,
    /// Find the function that a description asks for.
    Search,
    /// Tell whether two functions do the same, or find those that do.
    Clone,
    /// Say what a function does.
    Summarize,
    /// Write the code that a description asks for.
    Generate,
    /// Go on with a line of code.
    Complete,
}

impl fmt::Display for TaskKind {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Classify => "classify",
            Self::Search => "search",
            Self::Clone => "clone",
            Self::Summarize => "summarize",
            Self::Generate => "generate",
            Self::Complete => "complete",
        })
    }
}

/// What a split is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To learn from.
    Training,
    /// To measure on.
    Evaluation,
    /// To be searched.
    CodeBase,
}

impl Role {
    /// The name of the split that is searched.
    pub const CODE_BASE: &str = "code-base";

    /// That of the split `name` of a cache.
    pub fn of(name: &str) -> Self {
        match name {
            "train" => Self::Training,
            Self::CODE_BASE => Self::CodeBase,
            _ => Self::Evaluation,
        }
    }
}

/// What the rows of a split refer to.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    /// The classes of the training split.
    pub labels: Option<&'a Labels>,
    /// Where the codes of evaluation's queries are.
    pub code_base: Option<&'a CodeBase>,
}

/// How a task's records become token sequences. It is part of a cache's fingerprint and is kept
/// with a run, so that fresh data is encoded as the training data was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "task", rename_all = "lowercase")]
pub enum Encoding {
    /// One sequence a row.
    Classify {
        /// Where the text is; the usual names when absent.
        text_field: Option<String>,
        /// Where the label is; the usual names when absent.
        label_field: Option<String>,
        /// Most tokens of a text, special tokens included.
        max_length: usize,
        /// Where a second text is, which is put behind the first; none when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        second_field: Option<String>,
        /// What the label field holds.
        #[serde(default, skip_serializing_if = "Objective::is_default")]
        objective: Objective,
        /// Put before each text, as `UniXcoder`'s `<encoder-only>`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mode_token: Option<String>,
    },
    /// Two sequences a row: query, code.
    Search(SearchEncoding),
    /// Two functions a row, or one.
    Clone(CloneEncoding),
    /// A function and what it does, in one sequence a row.
    Summarize(TextEncoding),
    /// A description and its code, in one sequence a row.
    Generate(TextEncoding),
    /// Code, in one sequence a row.
    Complete(TextEncoding),
}

/// One split's token sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedSplit {
    /// Each distinct one.
    pub sequences: Ragged<u32>,
    /// Row after row, which sequences it is made of.
    pub rows: Vec<u32>,
    /// Sequences a row.
    pub columns: usize,
    /// What each row is to come to.
    pub targets: Targets,
    /// What to tell the user of rows that were left out.
    pub notice: Option<String>,
}

impl EncodedSplit {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows.len() / self.columns
    }

    /// Row after row, its token sequences.
    pub fn row_sequences(&self) -> impl Iterator<Item = &[u32]> {
        let rows = self.rows.iter();
        rows.map(|&number| self.sequences.sequence(number as usize))
    }
}

impl Encoding {
    /// The task.
    pub fn task(&self) -> TaskKind {
        match self {
            Self::Classify { .. } => TaskKind::Classify,
            Self::Search(_) => TaskKind::Search,
            Self::Clone(_) => TaskKind::Clone,
            Self::Summarize(_) => TaskKind::Summarize,
            Self::Generate(_) => TaskKind::Generate,
            Self::Complete(_) => TaskKind::Complete,
        }
    }

    /// How it has text written, and what that is, if it does.
    pub fn text(&self) -> Option<(TextTask, &TextEncoding)> {
        match self {
            Self::Summarize(text) => Some((TextTask::Summarize, text)),
            Self::Generate(text) => Some((TextTask::Generate, text)),
            Self::Complete(text) => Some((TextTask::Complete, text)),
            Self::Classify { .. } | Self::Search(_) | Self::Clone(_) => None,
        }
    }

    /// What is put before each text.
    pub fn mode_token(&self) -> Option<&str> {
        let token = match self {
            Self::Classify { mode_token, .. } => mode_token,
            Self::Search(search) => &search.mode_token,
            Self::Clone(clone) => &clone.mode_token,
            Self::Summarize(_) | Self::Generate(_) | Self::Complete(_) => &None,
        };
        token.as_deref()
    }

    pub(super) fn encoder<'a>(&'a self, checkpoint: &'a Checkpoint) -> TextEncoder<'a> {
        TextEncoder {
            checkpoint,
            mode_token: self.mode_token(),
        }
    }

    /// Whether a sequence is of two texts.
    pub fn joins_texts(&self) -> bool {
        matches!(
            self,
            Self::Classify {
                second_field: Some(_),
                ..
            }
        )
    }

    /// Makes `checkpoint` one for its sequences.
    pub fn prepare(&self, checkpoint: &mut Checkpoint) -> Result<(), Error> {
        if self.joins_texts() {
            checkpoint.take_pairs()?;
        }
        if let Some((task, text)) = self.text() {
            checkpoint.config.attention_pattern = text.attention_pattern(task, checkpoint)?;
        }
        Ok(())
    }

    /// The most tokens of each of a row's sequences, by the name of the flag.
    pub fn lengths(&self) -> Vec<(&'static str, usize)> {
        match self {
            Self::Classify { max_length, .. } => vec![("--max-length", *max_length)],
            Self::Clone(clone) => vec![("--max-length", clone.max_length)],
            Self::Search(search) => vec![
                ("--max-query-length", search.max_query_length),
                ("--max-code-length", search.max_code_length),
            ],
            Self::Summarize(text) | Self::Generate(text) | Self::Complete(text) => vec![
                ("--max-source-length", text.max_source_length),
                ("--max-target-length", text.max_target_length),
            ],
        }
    }

    /// Tokens of the longest sequence that there can be.
    pub fn longest(&self) -> usize {
        let lengths = self.lengths().into_iter().map(|(_, length)| length);
        if self.text().is_some() {
            // Both are in one sequence.
            return lengths.sum();
        }
        lengths.max().unwrap_or(0)
    }

    /// Checks the lengths against what the model's positions allow.
    pub fn check_lengths(&self, longest: usize) -> Result<(), Error> {
        // A classifier token, one token of text, a separator; a mode token has a separator too.
        let shortest = match self {
            _ if self.text().is_some() => 8,
            // Two texts, up to four special tokens.
            _ if self.joins_texts() => 6,
            _ if self.mode_token().is_some() => 5,
            _ => 3,
        };
        for (flag, found) in self.lengths() {
            if found > longest {
                return Err(Error::TooLong {
                    flag,
                    found,
                    longest,
                });
            }
            if found < shortest {
                return Err(Error::TooShort {
                    flag,
                    found,
                    shortest,
                });
            }
        }
        if self.longest() > longest {
            return Err(Error::TooLong {
                flag: "--max-source-length and --max-target-length together,",
                found: self.longest(),
                longest,
            });
        }
        Ok(())
    }

    /// Where the label is and what it is, for a task that has one.
    pub(super) fn label_choice(&self) -> Option<(FieldChoice, Objective)> {
        match self {
            Self::Classify {
                label_field,
                objective,
                ..
            } => Some((classify::label_field(label_field.as_deref()), *objective)),
            _ => None,
        }
    }

    /// The text of a record that says most of what a model is to understand, and the most tokens that it
    /// is given: the first of two texts, a search's code, what is written from.
    pub fn studied_text(&self) -> (FieldChoice, usize) {
        match self {
            Self::Classify {
                text_field,
                max_length,
                ..
            } => (classify::text_field(text_field.as_deref()), *max_length),
            Self::Search(search) => (search.code_field(), search.max_code_length),
            Self::Clone(clone) => (clone.studied_field(), clone.max_length),
            Self::Summarize(text) | Self::Generate(text) | Self::Complete(text) => {
                (text.source_field(self.text_task()), text.max_source_length)
            }
        }
    }

    /// Whether rows have classes that the training split decides.
    pub fn has_labels(&self) -> bool {
        self.label_choice().is_some()
    }

    /// Sequences a row of what is encoded for `role`; of hard negatives only the data knows.
    pub(super) fn columns(&self, role: Role, known: Known) -> usize {
        match self {
            Self::Classify { .. } | Self::Summarize(_) | Self::Generate(_) | Self::Complete(_) => 1,
            Self::Search(_) => match (role, known.code_base) {
                (Role::Training, _) | (Role::Evaluation, None) => 2,
                (Role::Evaluation, Some(_)) | (Role::CodeBase, _) => 1,
            },
            Self::Clone(clone) => clone.columns(),
        }
    }

    /// Encodes every record of `data`, which may be a chunk of a file unless it has groups or hard
    /// negatives.
    pub fn encode(
        &self,
        data: &Dataset,
        checkpoint: &Checkpoint,
        role: Role,
        known: Known,
    ) -> Result<EncodedSplit, Error> {
        let encoder = self.encoder(checkpoint);
        match self {
            Self::Classify {
                text_field,
                label_field,
                max_length,
                objective,
                second_field,
                ..
            } => {
                let field = classify::label_field(label_field.as_deref());
                let targets = known
                    .labels
                    .map(|labels| targets(*objective, labels, data, &field));
                let targets = targets.transpose()?.unwrap_or_default();
                let field = classify::text_field(text_field.as_deref());
                if let Some(second) = second_field {
                    let second = FieldChoice::new("--second-field", Some(second), &[]);
                    return encoder.encode_pairs(data, [&field, &second], *max_length, targets);
                }
                let mut rows = Rows::new(1);
                for record in &data.records {
                    rows.push(field.text(record, &data.path)?, *max_length);
                }
                rows.encode(encoder, targets)
            }
            Self::Search(search) => search.encode(data, encoder, role, known.code_base),
            Self::Clone(clone) => clone.encode(data, encoder, true),
            Self::Summarize(text) | Self::Generate(text) | Self::Complete(text) => {
                text.encode(self.text_task(), data, checkpoint, (role, true))
            }
        }
    }

    /// Encodes what `predict` reads: texts, queries or pairs, without any label.
    pub fn encode_queries(
        &self,
        data: &Dataset,
        checkpoint: &Checkpoint,
    ) -> Result<EncodedSplit, Error> {
        let encoder = self.encoder(checkpoint);
        match self {
            Self::Classify { .. } => {
                self.encode(data, checkpoint, Role::Evaluation, Known::default())
            }
            Self::Search(search) => search.encode_queries(data, encoder),
            Self::Clone(clone) => clone.encode(data, encoder, false),
            Self::Summarize(text) | Self::Generate(text) | Self::Complete(text) => {
                let role = (Role::Evaluation, false);
                text.encode(self.text_task(), data, checkpoint, role)
            }
        }
    }

    fn text_task(&self) -> TextTask {
        self.text().map_or(TextTask::Generate, |(task, _)| task)
    }

    /// Whether its records are searched: the codes of a search task, the functions of groups.
    pub fn is_searched(&self) -> bool {
        match self {
            Self::Search(_) => true,
            Self::Clone(clone) => clone.form == CloneForm::Groups,
            _ => false,
        }
    }

    /// Encodes what is searched, one sequence a row: the codes of a search task, the functions of
    /// groups; none for others.
    pub fn encode_codes(
        &self,
        data: &Dataset,
        checkpoint: &Checkpoint,
    ) -> Result<Option<EncodedSplit>, Error> {
        let encoder = self.encoder(checkpoint);
        match self {
            Self::Search(search) => search.encode_codes(data, encoder).map(Some),
            Self::Clone(clone) if clone.form == CloneForm::Groups => {
                clone.encode(data, encoder, false).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// What the records of `data` are to come to, of the classes `labels`.
fn targets(
    objective: Objective,
    labels: &Labels,
    data: &Dataset,
    field: &FieldChoice,
) -> Result<Targets, Error> {
    let records = data.records.iter();
    match objective {
        Objective::SingleLabel => {
            let classes = records.map(|record| {
                let label = field.label(record, &data.path)?;
                labels.class(&label, &data.path, record.line)
            });
            Ok(Targets::Classes(classes.collect::<Result<_, Error>>()?))
        }
        Objective::MultiLabel => {
            let classes = labels.count();
            let mut members = vec![0; classes * data.records.len()];
            for (row, record) in records.enumerate() {
                for label in field.labels(record, &data.path)? {
                    let class = labels.class(&label, &data.path, record.line)?;
                    // A place in the list of labels.
                    let class = usize::try_from(class).unwrap_or_default();
                    members[row * classes + class] = 1;
                }
            }
            Ok(Targets::Sets { classes, members })
        }
        Objective::Regression => {
            let numbers = records.map(|record| field.number(record, &data.path));
            Ok(Targets::Numbers(numbers.collect::<Result<_, _>>()?))
        }
    }
}

//! Records to token sequences.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Error, Labels, classify, search};
use crate::checkpoint::Checkpoint;
use crate::dataset::{Dataset, FieldChoice};
use crate::ragged::Ragged;
use crate::trainable::Pooling;

/// `--task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// One label a text.
    Classify,
    /// Find the function that a description asks for.
    Search,
}

impl TaskKind {
    /// How a sequence becomes one vector unless told otherwise.
    pub fn default_pooling(self) -> Pooling {
        match self {
            Self::Classify => Pooling::Cls,
            Self::Search => Pooling::Mean,
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Classify => "classify",
            Self::Search => "search",
        })
    }
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
    },
    /// Two sequences a row: query, code.
    Search {
        /// Where the query is; the usual names when absent.
        query_field: Option<String>,
        /// Where the code is; the usual names when absent.
        code_field: Option<String>,
        /// Most tokens of a query, special tokens included.
        max_query_length: usize,
        /// Most tokens of a code, special tokens included.
        max_code_length: usize,
    },
}

/// One split's token sequences.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedSplit {
    /// Row after row, each row's sequences together.
    pub sequences: Ragged<u32>,
    /// Sequences a row.
    pub columns: usize,
    /// Class of each row; empty for a task without labels.
    pub labels: Vec<i64>,
}

impl EncodedSplit {
    /// How many rows.
    pub fn rows(&self) -> usize {
        self.sequences.len() / self.columns
    }
}

impl Encoding {
    /// The task.
    pub fn task(&self) -> TaskKind {
        match self {
            Self::Classify { .. } => TaskKind::Classify,
            Self::Search { .. } => TaskKind::Search,
        }
    }

    /// Sequences a row.
    pub fn columns(&self) -> usize {
        match self {
            Self::Classify { .. } => 1,
            Self::Search { .. } => 2,
        }
    }

    /// Checks the lengths against what the model's positions allow.
    pub fn check_lengths(&self, longest: usize) -> Result<(), Error> {
        // A classifier token, one token of text, a separator.
        let shortest = 3;
        let lengths = match *self {
            Self::Classify { max_length, .. } => vec![("--max-length", max_length)],
            Self::Search {
                max_query_length,
                max_code_length,
                ..
            } => vec![
                ("--max-query-length", max_query_length),
                ("--max-code-length", max_code_length),
            ],
        };
        for (flag, found) in lengths {
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
        Ok(())
    }

    /// Where the label is, for a task that has one.
    pub(super) fn label_choice(&self) -> Option<FieldChoice> {
        match self {
            Self::Classify { label_field, .. } => {
                Some(classify::label_field(label_field.as_deref()))
            }
            Self::Search { .. } => None,
        }
    }

    /// Encodes every record of `data`, which may be a chunk of a file. `labels` are those of the training split; without them
    /// labels are not read.
    pub fn encode(
        &self,
        data: &Dataset,
        checkpoint: &Checkpoint,
        labels: Option<&Labels>,
    ) -> Result<EncodedSplit, Error> {
        let texts = |field: FieldChoice| -> Result<Vec<String>, Error> {
            let texts = data
                .records
                .iter()
                .map(|record| field.text(record, &data.path));
            Ok(texts.collect::<Result<_, _>>()?)
        };
        let tokenizer = &checkpoint.tokenizer;
        match self {
            Self::Classify {
                text_field,
                label_field,
                max_length,
            } => {
                let field = classify::label_field(label_field.as_deref());
                let labels = labels.map(|labels| {
                    let classes = data.records.iter().map(|record| {
                        let label = field.label(record, &data.path)?;
                        labels.class(&label, &data.path, record.line)
                    });
                    classes.collect::<Result<_, Error>>()
                });
                let texts = texts(classify::text_field(text_field.as_deref()))?;
                Ok(EncodedSplit {
                    sequences: tokenizer.encode(texts, *max_length)?,
                    columns: 1,
                    labels: labels.transpose()?.unwrap_or_default(),
                })
            }
            Self::Search {
                query_field,
                code_field,
                max_query_length,
                max_code_length,
            } => {
                let queries = texts(search::query_field(query_field.as_deref()))?;
                let queries = tokenizer.encode(queries, *max_query_length)?;
                let codes = texts(search::code_field(code_field.as_deref()))?;
                let codes = tokenizer.encode(codes, *max_code_length)?;
                let rows = queries.iter().zip(codes.iter());
                Ok(EncodedSplit {
                    sequences: rows.flat_map(|(query, code)| [query, code]).collect(),
                    columns: 2,
                    labels: Vec::new(),
                })
            }
        }
    }

    /// Encodes only the queries of a search task, one sequence a row: what `predict` reads.
    pub fn encode_queries(
        &self,
        data: &Dataset,
        checkpoint: &Checkpoint,
    ) -> Result<EncodedSplit, Error> {
        match self {
            Self::Classify { .. } => self.encode(data, checkpoint, None),
            Self::Search {
                query_field,
                max_query_length,
                ..
            } => {
                let field = search::query_field(query_field.as_deref());
                search::encode_column(data, checkpoint, &field, *max_query_length)
            }
        }
    }

    /// Encodes only the codes of a search task, one sequence a row: what is searched.
    ///
    /// # Panics
    /// For another task.
    pub fn encode_codes(
        &self,
        data: &Dataset,
        checkpoint: &Checkpoint,
    ) -> Result<EncodedSplit, Error> {
        let Self::Search {
            code_field,
            max_code_length,
            ..
        } = self
        else {
            panic!("only a search task has codes")
        };
        let field = search::code_field(code_field.as_deref());
        search::encode_column(data, checkpoint, &field, *max_code_length)
    }
}

//! `clone`: do two functions do the same? Pairs of functions with a label, as BigCloneBench has
//! them, or functions in groups that do the same, as POJ-104 has them.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::texts::{Rows, TextEncoder};
use super::{EncodedSplit, Error};
use crate::dataset::{Dataset, FieldChoice, Functions, Label, PairFile, Record};
use crate::targets::Targets;

/// The usual names of a pair's first function.
const FIRST: [&str; 4] = ["func1", "code1", "text1", "sentence1"];
/// And of its second, in the same order.
const SECOND: [&str; 4] = ["func2", "code2", "text2", "sentence2"];

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CloneForm {
    /// Two functions, and whether they are clones: 1 or 0.
    Pairs,
    /// One function, and the group of those that do the same.
    Groups,
}

/// How `clone` encodes records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneEncoding {
    /// What a row is.
    pub form: CloneForm,
    /// Pairs: where the first function is; the usual names when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_field: Option<String>,
    /// Pairs: where the second is; the usual names when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_field: Option<String>,
    /// Groups, and the functions that a file of pairs names: where the text is; the usual names when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_field: Option<String>,
    /// Where the label or the group is; the usual names when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_field: Option<String>,
    /// Most tokens of a function, special tokens included.
    pub max_length: usize,
    /// Put before each text, as UniXcoder's `<encoder-only>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode_token: Option<String>,
}

impl CloneForm {
    /// The form that `record` is in: pairs if it has two functions.
    pub fn of(record: &Record) -> Self {
        let has = |names: [&str; 4]| names.iter().any(|name| record.fields.contains_key(*name));
        if has(FIRST) && has(SECOND) {
            Self::Pairs
        } else {
            Self::Groups
        }
    }
}

impl CloneEncoding {
    fn fields(&self) -> [FieldChoice; 2] {
        let (first, second) = (self.first_field.as_deref(), self.second_field.as_deref());
        [
            FieldChoice::new("--first-field", first, &FIRST),
            FieldChoice::new("--second-field", second, &SECOND),
        ]
    }

    /// Where the function is, of two the first.
    pub(super) fn studied_field(&self) -> FieldChoice {
        let [first, _] = self.fields();
        match self.form {
            CloneForm::Pairs => first,
            CloneForm::Groups => self.text_field(),
        }
    }

    fn text_field(&self) -> FieldChoice {
        super::classify::text_field(self.text_field.as_deref())
    }

    fn label_field(&self) -> FieldChoice {
        super::classify::label_field(self.label_field.as_deref())
    }

    /// Sequences a row.
    pub fn columns(&self) -> usize {
        match self.form {
            CloneForm::Pairs => 2,
            CloneForm::Groups => 1,
        }
    }

    /// Encodes `data`; labels or groups are read if `labelled`.
    pub(super) fn encode(
        &self,
        data: &Dataset,
        encoder: TextEncoder,
        labelled: bool,
    ) -> Result<EncodedSplit, Error> {
        let targets = match (labelled, self.form) {
            (false, _) => Targets::None,
            (true, CloneForm::Pairs) => self.labels(data)?,
            (true, CloneForm::Groups) => self.groups(data)?,
        };
        match self.form {
            CloneForm::Groups => {
                let mut split = encoder.encode_field(data, &self.text_field(), self.max_length)?;
                split.targets = targets;
                Ok(split)
            }
            CloneForm::Pairs => {
                let fields = self.fields();
                let mut rows = Rows::new(2);
                for record in &data.records {
                    for field in &fields {
                        rows.push(field.text(record, &data.path)?, self.max_length);
                    }
                }
                rows.encode(encoder, targets)
            }
        }
    }

    /// Encodes the pairs of `file`, labels and all.
    pub(super) fn encode_pairs(
        &self,
        functions: &Functions,
        file: &PairFile,
        encoder: TextEncoder,
    ) -> Result<EncodedSplit, Error> {
        let mut rows = Rows::new(2);
        for pair in &file.pairs {
            for place in [pair.first, pair.second] {
                rows.push(functions.texts()[place].clone(), self.max_length);
            }
        }
        let labels = file.pairs.iter().map(|pair| pair.label);
        Ok(EncodedSplit {
            notice: file.notice(),
            ..rows.encode(encoder, Targets::Classes(labels.collect()))?
        })
    }

    /// 1 for clones, 0 for others.
    fn labels(&self, data: &Dataset) -> Result<Targets, Error> {
        let field = self.label_field();
        let labels = data.records.iter().map(|record| {
            let label = field.label(record, &data.path)?;
            match &label {
                Label::Integer(class @ (0 | 1)) => Ok(*class),
                Label::Text(text) if text == "0" => Ok(0),
                Label::Text(text) if text == "1" => Ok(1),
                _ => Err(Error::NotZeroOrOne {
                    path: data.path.clone(),
                    line: record.line,
                    found: label,
                }),
            }
        });
        Ok(Targets::Classes(labels.collect::<Result<_, Error>>()?))
    }

    /// The groups of `data`.
    fn groups(&self, data: &Dataset) -> Result<Targets, Error> {
        let mut groups = Groups::default();
        groups.add(data, &self.label_field())?;
        groups.finish(&data.path)
    }

    /// Where the group is, if rows have one.
    pub(super) fn group_choice(&self) -> Option<FieldChoice> {
        (self.form == CloneForm::Groups).then(|| self.label_field())
    }
}

/// The groups of a file that may be read in chunks, numbered as they first appear: other splits may
/// have other groups.
#[derive(Default)]
pub(super) struct Groups {
    numbers: HashMap<Label, i64>,
    rows: Vec<i64>,
}

impl Groups {
    /// Takes those of the next records.
    pub(super) fn add(&mut self, data: &Dataset, field: &FieldChoice) -> Result<(), Error> {
        for record in &data.records {
            let next = self.numbers.len() as i64;
            let label = field.label(record, &data.path)?;
            self.rows.push(*self.numbers.entry(label).or_insert(next));
        }
        Ok(())
    }

    /// That of every row; `path` is their file.
    pub(super) fn finish(self, path: &Path) -> Result<Targets, Error> {
        if self.numbers.len() == self.rows.len() {
            return Err(Error::NoGroup {
                path: path.to_owned(),
            });
        }
        Ok(Targets::Classes(self.rows))
    }
}

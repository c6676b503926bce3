//! The classes of a classification task.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::dataset::{Dataset, FieldChoice, Label};

/// The classes, in their order: integers by value, then words by the alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Vec<Label>);

impl Labels {
    /// The labels that occur in the training split.
    pub fn of_training_split(data: &Dataset, field: &FieldChoice) -> Result<Self, Error> {
        let labels = data
            .records
            .iter()
            .map(|record| field.label(record, &data.path));
        let labels: Vec<Label> = labels
            .collect::<Result<BTreeSet<_>, _>>()?
            .into_iter()
            .collect();
        match labels.as_slice() {
            [only] => Err(Error::OneClass {
                path: data.path.clone(),
                only: only.clone(),
            }),
            _ => Ok(Self(labels)),
        }
    }

    /// The labels that occur in the sets of the training split.
    pub fn of_sets(data: &Dataset, field: &FieldChoice) -> Result<Self, Error> {
        let mut labels = BTreeSet::new();
        for record in &data.records {
            labels.extend(field.labels(record, &data.path)?);
        }
        if labels.is_empty() {
            return Err(Error::NoLabels {
                path: data.path.clone(),
            });
        }
        Ok(Self(labels.into_iter().collect()))
    }

    /// None: rows have numbers.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// How many classes.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The label of class `index`.
    pub fn label(&self, index: usize) -> &Label {
        &self.0[index]
    }

    /// Every label, by class.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Label> {
        self.0.iter()
    }

    /// The class of `label`, found at `line` of `path`.
    pub fn class(&self, label: &Label, path: &Path, line: usize) -> Result<i64, Error> {
        match self.0.binary_search(label) {
            Ok(index) => Ok(index as i64),
            Err(_) => Err(Error::UnknownLabel {
                path: path.to_owned(),
                line,
                found: label.clone(),
                known: self.0.clone(),
            }),
        }
    }
}

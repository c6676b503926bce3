//! The classes of a classification task.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Objective};
use crate::dataset::{Dataset, FieldChoice, Label};
use crate::targets::Targets;

/// The classes, in their order: integers by value, then words by the alphabet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(Vec<Label>);

impl Labels {
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

/// What a training split that is read chunk by chunk is to come to: which labels there are is known
/// only at its end.
pub(super) struct LabelCollector {
    objective: Objective,
    /// Every label with its number, by first appearance.
    numbers: BTreeMap<Label, usize>,
    /// Row after row, the numbers of its labels: one, or those of a set.
    members: Vec<usize>,
    /// How many labels each row has.
    counts: Vec<usize>,
    /// Where the target is a number, that of each row.
    values: Vec<f32>,
}

impl LabelCollector {
    pub(super) fn new(objective: Objective) -> Self {
        Self {
            objective,
            numbers: BTreeMap::new(),
            members: Vec::new(),
            counts: Vec::new(),
            values: Vec::new(),
        }
    }

    /// Takes the labels of the next records.
    pub(super) fn add(&mut self, data: &Dataset, field: &FieldChoice) -> Result<(), Error> {
        for record in &data.records {
            let labels = match self.objective {
                Objective::SingleLabel => vec![field.label(record, &data.path)?],
                Objective::MultiLabel => field.labels(record, &data.path)?,
                Objective::Regression => {
                    self.values.push(field.number(record, &data.path)?);
                    continue;
                }
            };
            self.counts.push(labels.len());
            for label in labels {
                let next = self.numbers.len();
                self.members
                    .push(*self.numbers.entry(label).or_insert(next));
            }
        }
        Ok(())
    }

    /// The labels, none where the target is a number, and the target of every row. `path` is the
    /// training file.
    pub(super) fn finish(self, path: &Path) -> Result<(Labels, Targets), Error> {
        let mut classes = vec![0; self.numbers.len()];
        for (class, &number) in self.numbers.values().enumerate() {
            classes[number] = class;
        }
        let labels: Vec<Label> = self.numbers.into_keys().collect();
        let path = path.to_owned();
        let mut members = self.members.into_iter().map(|number| classes[number]);
        let targets = match (self.objective, labels.as_slice()) {
            (Objective::SingleLabel, [only]) => {
                let only = only.clone();
                return Err(Error::OneClass { path, only });
            }
            (Objective::MultiLabel, []) => return Err(Error::NoLabels { path }),
            (Objective::SingleLabel, _) => {
                Targets::Classes(members.map(|class| class as i64).collect())
            }
            (Objective::MultiLabel, _) => {
                let classes = labels.len();
                let mut sets = vec![0; classes * self.counts.len()];
                for (set, count) in sets.chunks_exact_mut(classes).zip(self.counts) {
                    for class in members.by_ref().take(count) {
                        set[class] = 1;
                    }
                }
                Targets::Sets {
                    classes,
                    members: sets,
                }
            }
            (Objective::Regression, _) => Targets::Numbers(self.values),
        };
        Ok((Labels(labels), targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Record;

    #[test]
    fn classes_follow_the_order_of_labels_not_of_rows() {
        let field = FieldChoice::new("--label-field", None, &["label"]);
        let mut collector = LabelCollector::new(Objective::SingleLabel);
        for labels in [vec!["\"b\"", "7"], vec!["\"a\"", "7", "-1"]] {
            let record = |label| {
                let fields = format!("{{\"label\": {label}}}");
                Record::new(1, serde_json::from_str(&fields).expect("JSON"))
            };
            let records = labels.into_iter().map(record).collect();
            let path = "f".into();
            let data = Dataset { path, records };
            collector.add(&data, &field).expect("labels");
        }
        let (labels, rows) = collector.finish(Path::new("f")).expect("classes");
        let names: Vec<String> = labels.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["-1", "7", "\"a\"", "\"b\""]);
        assert_eq!(rows, Targets::Classes(vec![3, 1, 2, 1, 0]));
    }

    #[test]
    fn sets_follow_the_order_of_labels_too() {
        let field = FieldChoice::new("--label-field", None, &["label"]);
        let mut collector = LabelCollector::new(Objective::MultiLabel);
        for labels in ["[\"b\", \"a\"]", "[]", "[\"c\", \"b\"]"] {
            let fields = format!("{{\"label\": {labels}}}");
            let record = Record::new(1, serde_json::from_str(&fields).expect("JSON"));
            let path = "f".into();
            let records = vec![record];
            let data = Dataset { path, records };
            collector.add(&data, &field).expect("labels");
        }
        let (labels, targets) = collector.finish(Path::new("f")).expect("sets");
        assert_eq!(labels.count(), 3);
        let members = vec![1, 1, 0, 0, 0, 0, 0, 1, 1];
        let classes = 3;
        assert_eq!(targets, Targets::Sets { classes, members });
    }
}

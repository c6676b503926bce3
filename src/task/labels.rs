//! The classes of a classification task.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::dataset::{Dataset, FieldChoice, Label};

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

/// The labels of a training split that is read chunk by chunk: which classes there are is known only
/// at its end.
#[derive(Default)]
pub(super) struct LabelCollector {
    /// Every label with its number, by first appearance.
    numbers: BTreeMap<Label, usize>,
    rows: Vec<usize>,
}

impl LabelCollector {
    /// Takes the labels of the next records.
    pub(super) fn add(&mut self, data: &Dataset, field: &FieldChoice) -> Result<(), Error> {
        for record in &data.records {
            let label = field.label(record, &data.path)?;
            let next = self.numbers.len();
            self.rows.push(*self.numbers.entry(label).or_insert(next));
        }
        Ok(())
    }

    /// The classes, and that of every row. `path` is the training file.
    pub(super) fn finish(self, path: &Path) -> Result<(Labels, Vec<i64>), Error> {
        let mut classes = vec![0; self.numbers.len()];
        for (class, &number) in self.numbers.values().enumerate() {
            classes[number] = class as i64;
        }
        let labels: Vec<Label> = self.numbers.into_keys().collect();
        if let [only] = labels.as_slice() {
            return Err(Error::OneClass {
                path: path.to_owned(),
                only: only.clone(),
            });
        }
        let rows = self.rows.into_iter().map(|number| classes[number]);
        Ok((Labels(labels), rows.collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::Record;

    #[test]
    fn classes_follow_the_order_of_labels_not_of_rows() {
        let field = FieldChoice::new("--label-field", None, &["label"]);
        let mut collector = LabelCollector::default();
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
        assert_eq!(rows, [3, 1, 2, 1, 0]);
    }
}

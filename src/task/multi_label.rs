//! How good sets of labels are.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Metrics of a classifier that gives each row a set of labels, as scikit-learn's on indicator
/// matrices: macro averages are over all labels, and what is undefined is 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MultiLabelMetrics {
    /// F1 over all decisions.
    pub micro_f1: f64,
    /// Mean F1 of the labels.
    pub macro_f1: f64,
    /// Precision over all decisions.
    pub precision: f64,
    /// Recall over all decisions.
    pub recall: f64,
    /// Share of rows whose set is exactly right.
    pub accuracy: f64,
    /// Mean binary cross-entropy.
    pub loss: f64,
}

impl MultiLabelMetrics {
    /// From what was `found` and what is `known`, row after row a decision for each of `classes`
    /// labels.
    pub fn new(found: &[bool], known: &[bool], classes: usize, loss: f64) -> Self {
        let (mut hits, mut predicted, mut actual) =
            (vec![0; classes], vec![0; classes], vec![0; classes]);
        let mut right = 0;
        let rows = found.chunks(classes).zip(known.chunks(classes));
        for (found, known) in rows {
            right += usize::from(found == known);
            for class in 0..classes {
                hits[class] += usize::from(found[class] && known[class]);
                predicted[class] += usize::from(found[class]);
                actual[class] += usize::from(known[class]);
            }
        }
        let share = |part: usize, whole: usize| match whole {
            0 => 0.0,
            _ => part as f64 / whole as f64,
        };
        let f1 = |class: usize| share(2 * hits[class], predicted[class] + actual[class]);
        let [all_hits, all_predicted, all_actual] =
            [&hits, &predicted, &actual].map(|counts| counts.iter().sum::<usize>());
        Self {
            micro_f1: share(2 * all_hits, all_predicted + all_actual),
            macro_f1: (0..classes).map(f1).sum::<f64>() / classes as f64,
            precision: share(all_hits, all_predicted),
            recall: share(all_hits, all_actual),
            accuracy: share(right, found.len() / classes),
            loss,
        }
    }

    /// By their names; the first chooses the best epoch.
    pub(super) fn to_json(self) -> Map<String, Value> {
        match json!(self) {
            Value::Object(map) => map,
            _ => unreachable!("a struct is an object"),
        }
    }
}

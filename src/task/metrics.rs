//! How good predictions are.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::pair_metrics::PairMetrics;
use super::retrieval::RetrievalMetrics;
use super::text_metrics::TextMetrics;
use super::{MultiLabelMetrics, RegressionMetrics};

/// The metrics of one task on one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Metrics {
    /// Of `classify`.
    Classification(ClassificationMetrics),
    /// Of `classify` with sets of labels.
    MultiLabel(MultiLabelMetrics),
    /// Of `classify` with numbers.
    Regression(RegressionMetrics),
    /// Of `search`.
    Ranking(RankingMetrics),
    /// Of `clone`, by pairs.
    Pairs(PairMetrics),
    /// Of `clone`, by groups.
    Retrieval(RetrievalMetrics),
    /// Of `summarize`, `generate` and `complete`.
    Text(TextMetrics),
}

impl Metrics {
    /// By the names of the contract.
    pub fn to_json(&self) -> Map<String, Value> {
        let value = match self {
            Self::Classification(metrics) => json!({
                "accuracy": metrics.accuracy,
                "f1": metrics.f1,
                "precision": metrics.precision,
                "recall": metrics.recall,
                "loss": metrics.loss,
            }),
            Self::MultiLabel(metrics) => return metrics.to_json(),
            Self::Regression(metrics) => return metrics.to_json(),
            Self::Ranking(metrics) => json!({
                "mrr": metrics.mean_reciprocal_rank,
                "r@1": metrics.recall_at_1,
                "r@5": metrics.recall_at_5,
                "r@10": metrics.recall_at_10,
                "loss": metrics.loss,
            }),
            Self::Pairs(metrics) => json!({
                "accuracy": metrics.accuracy,
                "f1": metrics.f1,
                "precision": metrics.precision,
                "recall": metrics.recall,
                "threshold": metrics.threshold,
                "loss": metrics.loss,
            }),
            Self::Text(metrics) => return metrics.to_json(),
            Self::Retrieval(metrics) => json!({
                "map@r": metrics.map_at_r,
                "loss": metrics.loss,
            }),
        };
        match value {
            Value::Object(map) => map,
            _ => unreachable!("all are objects"),
        }
    }

    /// The one that chooses the best epoch, with its name.
    pub fn selection(&self) -> (&'static str, f64) {
        match self {
            Self::Classification(metrics) => ("accuracy", metrics.accuracy),
            Self::MultiLabel(metrics) => ("micro_f1", metrics.micro_f1),
            Self::Regression(metrics) => ("pearson", metrics.pearson),
            Self::Ranking(metrics) => ("mrr", metrics.mean_reciprocal_rank),
            Self::Pairs(metrics) => ("f1", metrics.f1),
            Self::Retrieval(metrics) => ("map@r", metrics.map_at_r),
            Self::Text(metrics) => ("loss", metrics.loss.unwrap_or(f64::NAN)),
        }
    }

    /// What they are called.
    pub(super) fn names(&self) -> Vec<String> {
        // What a threshold is, is no measure.
        let measures = self.to_json().into_iter().map(|(name, _)| name);
        measures.filter(|name| name != "threshold").collect()
    }

    /// What `name` says, or the one that chooses by default, as a number of which more is better:
    /// an error with its sign turned. None of a name that the task does not have.
    pub fn score(&self, name: Option<&str>) -> Option<f64> {
        let Some(name) = name else {
            let (name, value) = self.selection();
            return Some(if name == "loss" { -value } else { value });
        };
        let value = self.to_json().get(name)?.as_f64()?;
        Some(if less_is_better(name) { -value } else { value })
    }

    /// Whether the one that chooses by default is a mean over rows, as accuracy is and F1 is not.
    pub fn is_mean_over_rows(&self) -> bool {
        matches!(
            self,
            Self::Classification(_) | Self::Ranking(_) | Self::Retrieval(_)
        )
    }

    /// Mean loss.
    pub fn loss(&self) -> f64 {
        match self {
            Self::Classification(metrics) => metrics.loss,
            Self::MultiLabel(metrics) => metrics.loss,
            Self::Regression(metrics) => metrics.loss,
            Self::Ranking(metrics) => metrics.loss,
            Self::Pairs(metrics) => metrics.loss,
            Self::Retrieval(metrics) => metrics.loss,
            Self::Text(metrics) => metrics.loss.unwrap_or(f64::NAN),
        }
    }
}

/// Whether the metric `name` is an error.
pub fn less_is_better(name: &str) -> bool {
    matches!(name, "loss" | "mse" | "perplexity")
}

/// Metrics of classification. Precision, recall and F1 are macro averages: the plain mean over
/// the classes that occur among labels or predictions, 0 where a class's is undefined, as
/// scikit-learn's `average="macro", zero_division=0`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassificationMetrics {
    /// Share of rows predicted right.
    pub accuracy: f64,
    /// Macro F1.
    pub f1: f64,
    /// Macro precision.
    pub precision: f64,
    /// Macro recall.
    pub recall: f64,
    /// Mean cross-entropy.
    pub loss: f64,
}

impl ClassificationMetrics {
    /// From predicted and true classes, all below `classes`.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    pub fn new(predictions: &[u32], labels: &[i64], classes: usize, loss: f64) -> Self {
        let mut hits = vec![0usize; classes];
        let mut predicted = vec![0usize; classes];
        let mut actual = vec![0usize; classes];
        for (&prediction, &label) in predictions.iter().zip(labels) {
            let (prediction, label) = (prediction as usize, label as usize);
            predicted[prediction] += 1;
            actual[label] += 1;
            hits[label] += usize::from(prediction == label);
        }
        let share = |part: usize, whole: usize| {
            if whole == 0 {
                0.0
            } else {
                part as f64 / whole as f64
            }
        };
        let occurring: Vec<usize> = (0..classes)
            .filter(|&class| predicted[class] + actual[class] > 0)
            .collect();
        let mean = |of: &dyn Fn(usize) -> f64| {
            occurring.iter().map(|&class| of(class)).sum::<f64>() / occurring.len().max(1) as f64
        };
        Self {
            accuracy: share(hits.iter().sum(), labels.len()),
            f1: mean(&|class| share(2 * hits[class], predicted[class] + actual[class])),
            precision: mean(&|class| share(hits[class], predicted[class])),
            recall: mean(&|class| share(hits[class], actual[class])),
            loss,
        }
    }
}

/// Metrics of search over a whole code base.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankingMetrics {
    /// Mean of 1 / rank.
    pub mean_reciprocal_rank: f64,
    /// Share of queries whose code is first.
    pub recall_at_1: f64,
    /// Share of queries whose code is among the first five.
    pub recall_at_5: f64,
    /// Share of queries whose code is among the first ten.
    pub recall_at_10: f64,
    /// Mean cross-entropy.
    pub loss: f64,
}

impl RankingMetrics {
    /// From the rank, from 1, of each query's right code. With a `limit`, a lower rank counts 0 in
    /// the mean reciprocal rank.
    pub fn new(ranks: &[usize], limit: Option<usize>, loss: f64) -> Self {
        let count = ranks.len().max(1) as f64;
        let within = |limit| ranks.iter().filter(|&&rank| rank <= limit).count() as f64 / count;
        let counted = ranks
            .iter()
            .filter(|&&rank| limit.is_none_or(|limit| rank <= limit));
        Self {
            mean_reciprocal_rank: counted.map(|&rank| 1.0 / rank as f64).sum::<f64>() / count,
            recall_at_1: within(1),
            recall_at_5: within(5),
            recall_at_10: within(10),
            loss,
        }
    }
}

/// The rank, from 1, of candidate `right`: one more than the candidates that do not score lower.
/// Those of which `same` holds do not count: they are what `right` is.
pub fn rank_of(right: usize, scores: &[f32], same: impl Fn(usize) -> bool) -> usize {
    // What is no number is not lower, and nothing is lower than what is no number.
    let lower = |score: f32| score.partial_cmp(&scores[right]) == Some(Ordering::Less);
    let before = |&(other, &score): &(usize, &f32)| other != right && !lower(score) && !same(other);
    1 + scores.iter().enumerate().filter(before).count()
}

//! What a run came to.

use serde_json::{Map, Value, json};

use crate::task::Metrics;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Epochs trained, the last maybe in part.
    pub epochs: usize,
    /// Steps taken.
    pub steps: usize,
    /// Seconds from the first step to the end, evaluation included.
    pub seconds: f64,
    /// Median training time of an epoch, evaluation left out.
    pub epoch_seconds: f64,
    /// Tokens of the training split, seen once, over `epoch_seconds`.
    pub tokens_per_second: f64,
    /// Tokens of a batch that were worked on at a time at most, if not all.
    pub tokens_at_a_time: Option<usize>,
    /// How many numbers were trained.
    pub trainable_parameters: usize,
    /// Metrics of the kept weights on the validation split.
    pub valid: Option<Metrics>,
    /// Metrics of the kept weights on the test split.
    pub test: Option<Metrics>,
    /// The epoch, from 1, whose weights were kept.
    pub best_epoch: usize,
    /// The step after which they were.
    pub best_step: usize,
    /// Why training stopped before its last epoch, if it did.
    pub stopped: Option<String>,
}

impl Summary {
    /// By the names of the contract; `peak_rss_bytes` and `run` are the caller's to add.
    pub fn to_json(&self) -> Map<String, Value> {
        let metrics =
            |metrics: &Option<Metrics>| metrics.as_ref().map_or_else(Map::new, Metrics::to_json);
        let value = json!({
            "epochs": self.epochs,
            "steps": self.steps,
            "seconds": self.seconds,
            "epoch_seconds": self.epoch_seconds,
            "tokens_per_second": self.tokens_per_second,
            "tokens_at_a_time": self.tokens_at_a_time,
            "trainable_parameters": self.trainable_parameters,
            "best_epoch": self.best_epoch,
            "best_step": self.best_step,
            "stopped_early": self.stopped.is_some(),
            "valid": metrics(&self.valid),
            "test": metrics(&self.test),
        });
        match value {
            Value::Object(map) => map,
            _ => unreachable!("an object"),
        }
    }
}

/// The middle of `numbers`, 0 of none.
pub(super) fn median(numbers: &[f64]) -> f64 {
    let mut numbers = numbers.to_vec();
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => 0.0,
        count if count % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

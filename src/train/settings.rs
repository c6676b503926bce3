//! What a training run is told.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Shuffle;
use crate::task::HeadSettings;
use crate::trainable::Pooling;

/// Everything that decides a run's outcome, besides the cache, and how it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Passes over the training split.
    pub epochs: usize,
    /// Rows a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of all steps over which the learning rate rises.
    pub warmup: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Global norm to which gradients are clipped; 0 for none.
    pub clip: f64,
    /// Dropout probability of the trained layers and the head; the checkpoint's own when absent.
    pub dropout: Option<f64>,
    /// Seed of the head, the order of rows, and dropout.
    pub seed: u64,
    /// How rows are shuffled.
    #[serde(default)]
    pub shuffle: Shuffle,
    /// One vector a sequence.
    pub pooling: Pooling,
    /// The head, where it is not the usual one.
    #[serde(default)]
    pub head: Option<HeadSettings>,
    /// Steps between two lines of `metrics.jsonl`.
    pub log_every: usize,
    /// Seconds between two checkpoints, besides the one after each epoch.
    pub checkpoint_seconds: u64,
    /// Rows kept for the backward pass at a time; as many as the memory budget allows when
    /// absent.
    pub micro_batch: Option<usize>,
    /// Bytes that training may take; half of the machine's memory when absent.
    pub memory_budget: Option<u64>,
}

impl TrainSettings {
    /// The fields that decide which weights come out.
    pub(super) fn deciding(&self) -> Map<String, Value> {
        let Value::Object(mut fields) = json!(self) else {
            unreachable!("a struct is an object")
        };
        for field in ["log_every", "checkpoint_seconds"] {
            fields.shift_remove(field);
        }
        fields
    }
}

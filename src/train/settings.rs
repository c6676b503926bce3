//! What a training run is told.

use serde::{Deserialize, Serialize};

use crate::task::Pooling;

/// Everything that decides a run's outcome, besides the cache.
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
    /// One vector a sequence.
    pub pooling: Pooling,
    /// Steps between two lines of `metrics.jsonl`.
    pub log_every: usize,
}

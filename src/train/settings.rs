//! What a training run is told.

use candle_core::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Error, Schedule, Shuffle};
use crate::targets::Targets;
use crate::task::text_metrics::TextScores;
use crate::task::{ClassWeights, CrossEntropy, HeadSettings, Model};
use crate::trainable::{self, MixedPrecision, Ops, OpsChoice, Pooling};

/// Everything that decides a run's outcome, besides the cache, and how it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainSettings {
    /// Passes over the training split.
    pub epochs: usize,
    /// Rows a batch.
    pub batch_size: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Share of all steps over which the learning rate rises.
    pub warmup: f64,
    /// What the learning rate does then.
    #[serde(default)]
    pub schedule: Schedule,
    /// Batches whose gradients are added up for a step.
    #[serde(default = "one_batch")]
    pub gradient_accumulation: usize,
    /// What each lower layer's learning rate is multiplied by; 1 for none.
    #[serde(default = "no_decay")]
    pub layer_decay: f64,
    /// Share of a classifier's target that is spread over all classes.
    #[serde(default)]
    pub label_smoothing: f64,
    /// How much the rows of each class count; all the same when absent.
    #[serde(default)]
    pub class_weights: Option<ClassWeights>,
    /// Steps between two evaluations, besides those after each epoch.
    #[serde(default)]
    pub evaluate_every: Option<usize>,
    /// The validation metric that chooses the kept weights; the task's own when absent.
    #[serde(default)]
    pub best_metric: Option<String>,
    /// Evaluations without a better metric after which training stops.
    #[serde(default)]
    pub early_stopping: Option<usize>,
    /// Rows of each evaluation whose texts are written and compared, of a task that writes text; none
    /// when absent or 0.
    #[serde(default)]
    pub decode_samples: Option<usize>,
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
    /// What the trained layers are computed by.
    #[serde(default)]
    pub ops: OpsChoice,
    /// What their matrix products compute in.
    #[serde(default)]
    pub mixed_precision: MixedPrecision,
    /// Whether each layer keeps its input alone for the backward pass, and is computed again.
    #[serde(default)]
    pub recompute: bool,
    /// Rows kept for the backward pass at a time; as many as the memory budget allows when
    /// absent.
    pub micro_batch: Option<usize>,
    /// Bytes that training may take; half of the machine's memory when absent.
    pub memory_budget: Option<u64>,
}

fn one_batch() -> usize {
    1
}

fn no_decay() -> f64 {
    1.0
}

impl Default for TrainSettings {
    /// What `telly train` does unless told otherwise.
    fn default() -> Self {
        Self {
            epochs: 3,
            batch_size: 32,
            lr: 5e-5,
            warmup: 0.1,
            schedule: Schedule::default(),
            gradient_accumulation: one_batch(),
            layer_decay: no_decay(),
            label_smoothing: 0.0,
            class_weights: None,
            evaluate_every: None,
            best_metric: None,
            early_stopping: None,
            decode_samples: None,
            weight_decay: 0.01,
            clip: 1.0,
            dropout: None,
            seed: 1,
            shuffle: Shuffle::default(),
            pooling: Pooling::Cls,
            head: None,
            log_every: 10,
            checkpoint_seconds: 300,
            ops: OpsChoice::default(),
            mixed_precision: MixedPrecision::default(),
            recompute: false,
            micro_batch: None,
            memory_budget: None,
        }
    }
}

impl TrainSettings {
    /// What a classifier learns by from a training split of these `targets`.
    pub(super) fn criterion(
        &self,
        model: &Model,
        targets: &Targets,
    ) -> Result<CrossEntropy, Error> {
        let class_weights = self.class_weights.as_ref().map(|weights| {
            let classes = model.classes().unwrap_or(0);
            weights
                .of(targets.classes(), classes)
                .ok_or_else(|| Error::ClassWeights {
                    found: weights.clone(),
                    classes,
                })
        });
        Ok(CrossEntropy {
            label_smoothing: self.label_smoothing,
            class_weights: class_weights.transpose()?,
        })
    }

    /// Whether texts are written at each evaluation.
    pub fn writes_texts(&self) -> bool {
        self.decode_samples.is_some_and(|rows| rows > 0)
    }

    /// What trains on `device`.
    pub fn ops_on(&self, device: &Device) -> Result<Ops, trainable::Error> {
        self.ops
            .resolve_training(self.mixed_precision, device.is_cpu())
    }

    /// Refuses what `model` and the splits of a cache cannot do.
    pub fn check(&self, model: &Model, has_valid: bool) -> Result<(), Error> {
        self.ops_on(model.parameters.device())?;
        let on_valid = [
            ("--best-metric", self.best_metric.is_some()),
            ("--early-stopping", self.early_stopping.is_some()),
            ("--evaluate-every", self.evaluate_every.is_some()),
        ];
        if let Some((flag, _)) = on_valid.iter().find(|(_, given)| *given && !has_valid) {
            return Err(Error::NoValidation { flag });
        }
        let of_classes = [
            ("--label-smoothing", self.label_smoothing > 0.0),
            ("--class-weights", self.class_weights.is_some()),
        ];
        match of_classes.iter().find(|(_, given)| *given) {
            Some((flag, _)) if model.classes().is_none() => {
                return Err(Error::NotOneClass { flag });
            }
            _ => self.criterion(model, &Targets::None)?,
        };
        let known = match model.text_task() {
            None if self.decode_samples.is_some() => {
                return Err(Error::WritesNoText {
                    flag: "--decode-samples",
                });
            }
            Some(task) if self.writes_texts() => TextScores::new(task, &[])
                .metrics()
                .with_loss(0.0)
                .to_json()
                .into_iter()
                .map(|(name, _)| name)
                .collect(),
            _ => model.metric_names(),
        };
        match &self.best_metric {
            Some(found) if !known.contains(found) => Err(Error::UnknownMetric {
                found: found.clone(),
                known,
            }),
            _ => Ok(()),
        }
    }

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

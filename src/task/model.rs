//! The trainable half with its head.

use candle_core::{Device, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};

use super::classify::{self, Classifier};
use super::{Error, Labels, Metrics, TaskKind, search};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::trainable::ops::{first_token, mean};
use crate::trainable::{EncoderInput, Parameters, Pass, TrainableEncoder};

/// `--pooling`: one vector a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's state.
    Cls,
    /// The mean over all tokens, special ones included.
    Mean,
}

impl Pooling {
    /// What a task takes unless told otherwise.
    pub fn default_for(task: TaskKind) -> Self {
        match task {
            TaskKind::Classify => Self::Cls,
            TaskKind::Search => Self::Mean,
        }
    }
}

/// What is trained: top layers, head, and their parameters.
pub struct Model {
    /// Every trained tensor.
    pub parameters: Parameters,
    encoder: TrainableEncoder,
    pooling: Pooling,
    head: Head,
}

enum Head {
    Classify(Classifier),
    Search,
}

impl Model {
    /// Loads the top layers that `freeze` leaves from `checkpoint` and draws a fresh head with
    /// `seed`: weights normal with the checkpoint's `initializer_range`, biases 0. With `labels`
    /// it classifies, without it searches.
    pub fn new(
        checkpoint: &Checkpoint,
        freeze: Freeze,
        labels: Option<&Labels>,
        pooling: Pooling,
        seed: u64,
        device: &Device,
    ) -> Result<Self, Error> {
        let mut parameters = Parameters::new(device);
        let encoder = TrainableEncoder::load(checkpoint, freeze, &mut parameters)?;
        let config = &checkpoint.config;
        let head = match labels {
            Some(labels) => {
                let count = labels.count() * config.hidden_size;
                let weight = normal(count, config.initializer_range, seed);
                let dropout = config.hidden_dropout;
                Head::Classify(Classifier::new(
                    &mut parameters,
                    labels.count(),
                    weight,
                    dropout,
                )?)
            }
            None => Head::Search,
        };
        Ok(Self {
            parameters,
            encoder,
            pooling,
            head,
        })
    }

    /// One vector a sequence, `[sequences, hidden]`; of unit length for search.
    pub fn embed(&self, input: EncoderInput, pass: &Pass) -> Result<Tensor, Error> {
        let packing = input.packing();
        let hidden = self.encoder.forward(input, &self.parameters, pass)?;
        let pooled = match self.pooling {
            Pooling::Cls => first_token(&hidden, &packing.offsets)?,
            Pooling::Mean => mean(pass.ops, &hidden, &packing.offsets)?,
        };
        match self.head {
            Head::Classify(_) => Ok(pooled),
            Head::Search => search::normalise(&pooled),
        }
    }

    /// The mean loss of one batch, a scalar. For classification `input` holds one sequence a
    /// row, for search all queries and then all codes.
    pub fn loss(&self, input: EncoderInput, labels: &[i64], pass: &Pass) -> Result<Tensor, Error> {
        let vectors = self.embed(input, pass)?;
        match &self.head {
            Head::Classify(classifier) => {
                classify::loss(&classifier.logits(&vectors, pass)?, labels)
            }
            Head::Search => {
                let pairs = vectors.dim(0)? / 2;
                let queries = vectors.narrow(0, 0, pairs)?;
                search::loss(&queries, &vectors.narrow(0, pairs, pairs)?)
            }
        }
    }

    /// Logits `[rows, classes]` of pooled vectors.
    ///
    /// # Panics
    /// If the model searches.
    pub fn logits(&self, pooled: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        match &self.head {
            Head::Classify(classifier) => classifier.logits(pooled, pass),
            Head::Search => panic!("a search model has no classes"),
        }
    }

    /// Metrics of one split. `vectors` holds, for each column of a row, `[rows, hidden]`.
    pub fn metrics(
        &self,
        vectors: &[Tensor],
        labels: &[i64],
        pass: &Pass,
    ) -> Result<Metrics, Error> {
        match &self.head {
            Head::Classify(classifier) => {
                let logits = classifier.logits(&vectors[0], pass)?;
                classify::metrics(&logits, labels).map(Metrics::Classification)
            }
            Head::Search => {
                let (queries, codes) = (
                    &vectors[search::QUERY_COLUMN],
                    &vectors[search::CODE_COLUMN],
                );
                search::metrics(queries, codes).map(Metrics::Ranking)
            }
        }
    }
}

#[allow(clippy::cast_possible_truncation)]
fn normal(count: usize, deviation: f64, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let normal = Normal::new(0.0, deviation)
        .unwrap_or_else(|_| unreachable!("`initializer_range` is a finite number out of JSON"));
    (0..count)
        .map(|_| normal.sample(&mut random) as f32)
        .collect()
}

//! The trainable half with its head.

use std::ops::Range;

use candle_core::{Device, Tensor, Var};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::classify::{self, Classifier};
use super::{Error, Labels, Metrics, search};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::trainable::{
    EncoderInput, Gradients, Parameters, Part, PartLimit, Pass, Pooling, Profile, TrainableEncoder,
};

/// Some rows to learn from.
pub struct Batch {
    /// The sequences, each once.
    pub input: EncoderInput,
    /// For each sequence of the rows, column after column, its place in `input`.
    pub places: Vec<usize>,
    /// The rows' classes, for a task that has them.
    pub labels: Vec<i64>,
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
                let dropout = config.dropout.head;
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
        let pooled = self.encoder.pool(input, packing, self.pooling, pass)?;
        match self.head {
            Head::Classify(_) => Ok(pooled.vectors),
            Head::Search => search::normalise(&pooled.vectors),
        }
    }

    /// Bytes that training takes whatever the batch: parameters, gradients, the optimizer's two
    /// moments, and `copies` of the parameters.
    pub fn fixed_bytes(&self, copies: usize) -> u64 {
        (self.parameters.count() * size_of::<f32>() * (4 + copies)) as u64
    }

    /// Bytes that a step takes for each token worked on at a time.
    pub fn bytes_per_token(&self) -> u64 {
        self.encoder.bytes_per_token()
    }

    /// Where the time of all passes so far went.
    pub fn profile(&self) -> &Profile {
        self.encoder.profile()
    }

    /// The mean loss over the rows of `batch`, and its `gradients`.
    ///
    /// No more than `limit` is kept for the backward pass at a time, and the gradients are those
    /// of the whole batch all the same: the vectors of the whole batch
    /// are computed first, then the loss and its gradient with respect to them, then each part
    /// once more with its way back (gradient caching: Gao et al., 2021, arXiv 2101.06983).
    pub fn gradients(
        &self,
        batch: Batch,
        pass: &Pass,
        limit: PartLimit,
        gradients: &mut Gradients,
    ) -> Result<f64, Error> {
        let Batch {
            input,
            places,
            labels,
        } = batch;
        gradients.clear();
        let packing = input.packing();
        let parts = packing.parts(limit);
        if parts.len() <= 1 {
            let pooled = self.encoder.pool(input, packing, self.pooling, pass)?;
            let (loss, gradient) = self.head(&pooled.vectors, &places, &labels, pass, gradients)?;
            pooled.backward(&gradient, &self.parameters, gradients)?;
            return Ok(loss);
        }
        let pool = |part: &Range<usize>, pass: &Pass| {
            let packing = packing.part(part.clone());
            let input = input.part(part.clone());
            self.encoder.pool(input, packing, self.pooling, pass)
        };
        let once = pass.without_way_back();
        let vectors = parts.iter().map(|part| Ok(pool(part, &once)?.vectors));
        let vectors = Tensor::cat(&vectors.collect::<Result<Vec<_>, Error>>()?, 0)?;
        let (loss, gradient) = self.head(&vectors, &places, &labels, pass, gradients)?;
        for part in parts {
            let gradient = gradient.narrow(0, part.start, part.len())?;
            pool(&part, pass)?.backward(&gradient, &self.parameters, gradients)?;
        }
        Ok(loss)
    }

    /// The loss of pooled `vectors` and its gradient with respect to them; those of the head's
    /// own parameters go to `gradients`.
    fn head(
        &self,
        vectors: &Tensor,
        places: &[usize],
        labels: &[i64],
        pass: &Pass,
        gradients: &mut Gradients,
    ) -> Result<(f64, Tensor), Error> {
        self.profile().time(Part::Head, || {
            let vectors = Var::from_tensor(vectors)?;
            #[allow(clippy::cast_possible_truncation)] // A batch holds far fewer than 2³².
            let places = places.iter().map(|&place| place as u32);
            let places = Tensor::from_iter(places, vectors.device())?;
            let loss = self.loss(&vectors.index_select(&places, 0)?, labels, pass)?;
            let store = loss.backward()?;
            gradients.add(&self.parameters, &store)?;
            let gradient = match store.get(vectors.as_tensor()) {
                Some(gradient) => gradient.clone(),
                None => vectors.zeros_like()?,
            };
            Ok((f64::from(loss.to_scalar::<f32>()?), gradient))
        })
    }

    /// The mean loss of pooled vectors, a scalar: for classification one a row, for search those
    /// of all queries and then of all codes.
    fn loss(&self, pooled: &Tensor, labels: &[i64], pass: &Pass) -> Result<Tensor, Error> {
        match &self.head {
            Head::Classify(classifier) => classify::loss(&classifier.logits(pooled, pass)?, labels),
            Head::Search => {
                let vectors = search::normalise(pooled)?;
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

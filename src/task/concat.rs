//! `CodeXGLUE`'s clone detector: a classifier of two layers over two functions' vectors side by
//! side.

use candle_core::{D, Tensor};

use super::classify::cross_entropy;
use super::head::{EmbeddedSplit, Head, HeadBuilder, HeadSettings, Predictions};
use super::pair_metrics::PairMetrics;
use super::{Error, Metrics};
use crate::targets::Targets;
use crate::trainable::ops::{dropout, linear};
use crate::trainable::{Pass, Site, Weight};

/// The probability above which a pair is a clone.
const THRESHOLD: f64 = 0.5;

/// Dropout, a linear layer from both vectors to the width of one, tanh, dropout, a linear layer to
/// two classes; named as transformers names `RoBERTa`'s.
pub(super) struct Concat {
    dense: (Weight, Weight),
    out: (Weight, Weight),
    dropout: f64,
}

impl Concat {
    pub(super) fn new(builder: &mut HeadBuilder) -> Result<Self, Error> {
        let hidden = builder.hidden();
        Ok(Self {
            dense: builder.linear("classifier.dense", hidden, 2 * hidden)?,
            out: builder.linear("classifier.out_proj", 2, hidden)?,
            dropout: builder.dropout(),
        })
    }

    /// `[rows, 2]`.
    fn logits(&self, columns: &[Tensor], pass: &Pass) -> Result<Tensor, Error> {
        let drop = |x: &Tensor, site| dropout(x, pass.dropout(site, self.dropout), 0);
        let both = drop(&Tensor::cat(columns, 1)?, Site::Head)?;
        let inner = linear(&both, &self.dense.0, &self.dense.1)?.tanh()?;
        let inner = drop(&inner, Site::InsideHead)?;
        Ok(linear(&inner, &self.out.0, &self.out.1)?)
    }
}

impl Head for Concat {
    fn settings(&self) -> HeadSettings {
        HeadSettings::Concat
    }

    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        Ok(pooled.clone())
    }

    fn loss(&self, columns: &[Tensor], targets: &Targets, pass: &Pass) -> Result<Tensor, Error> {
        cross_entropy(&self.logits(columns, pass)?, targets)
    }

    fn logits(&self, columns: &[Tensor], pass: &Pass) -> Result<Option<Tensor>, Error> {
        Self::logits(self, columns, pass).map(Some)
    }

    fn predict(&self, columns: &[Tensor], pass: &Pass) -> Result<Predictions, Error> {
        let scores = clone_probabilities(&self.logits(columns, pass)?)?;
        let clones = scores.iter().map(|&score| f64::from(score) > THRESHOLD);
        Ok(Predictions::Pairs {
            clones: clones.collect(),
            scores,
        })
    }

    fn metrics(&self, split: &EmbeddedSplit, pass: &Pass) -> Result<Metrics, Error> {
        let logits = self.logits(&split.columns, pass)?;
        let loss = cross_entropy(&logits, split.targets)?.to_scalar::<f32>()?;
        Ok(Metrics::Pairs(PairMetrics::new(
            &clone_probabilities(&logits)?,
            split.targets.classes(),
            THRESHOLD,
            f64::from(loss),
        )))
    }

    fn metrics_of_nothing(&self) -> Metrics {
        Metrics::Pairs(PairMetrics::new(&[], &[], 0.0, 0.0))
    }
}

/// Of each row of `logits` `[rows, 2]`.
fn clone_probabilities(logits: &Tensor) -> Result<Vec<f32>, Error> {
    let probabilities = candle_nn::ops::softmax(logits, D::Minus1)?;
    Ok(probabilities.narrow(1, 1, 1)?.flatten_all()?.to_vec1()?)
}

//! The paper's clone detector: the cosine of two functions' vectors, learnt by its squared
//! distance from the label.

use candle_core::{D, Tensor};

use super::head::{EmbeddedSplit, Head, HeadSettings, Predictions};
use super::pair_metrics::{PairMetrics, best_threshold};
use super::search::normalise;
use super::{Error, Metrics};
use crate::targets::Targets;
use crate::trainable::Pass;

/// No layer of its own: unit vectors, their cosine, and a threshold.
pub(super) struct Cosine {
    /// A pair whose cosine is above it is a clone.
    pub(super) threshold: f64,
    /// Whether it is chosen on the validation split.
    pub(super) tuned: bool,
}

impl Head for Cosine {
    fn settings(&self) -> HeadSettings {
        HeadSettings::Cosine {
            threshold: self.threshold,
            tuned: self.tuned,
        }
    }

    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        normalise(pooled)
    }

    fn loss(&self, columns: &[Tensor], targets: &Targets, _: &Pass) -> Result<Tensor, Error> {
        squared_distance(&cosines(columns)?, targets)
    }

    fn predict(&self, columns: &[Tensor], _: &Pass) -> Result<Predictions, Error> {
        let scores = cosines(columns)?.to_vec1::<f32>()?;
        let clones = scores
            .iter()
            .map(|&score| f64::from(score) > self.threshold);
        Ok(Predictions::Pairs {
            clones: clones.collect(),
            scores,
        })
    }

    fn metrics(&self, split: &EmbeddedSplit, _: &Pass) -> Result<Metrics, Error> {
        let cosines = cosines(&split.columns)?;
        let loss = squared_distance(&cosines, split.targets)?.to_scalar::<f32>()?;
        Ok(Metrics::Pairs(PairMetrics::new(
            &cosines.to_vec1()?,
            split.targets.classes(),
            self.threshold,
            f64::from(loss),
        )))
    }

    fn metrics_of_nothing(&self) -> Metrics {
        Metrics::Pairs(PairMetrics::new(&[], &[], 0.0, 0.0))
    }

    fn tune(&mut self, split: &EmbeddedSplit, _: &Pass) -> Result<(), Error> {
        if self.tuned {
            let scores = cosines(&split.columns)?.to_vec1()?;
            self.threshold = best_threshold(&scores, split.targets.classes());
        }
        Ok(())
    }

    fn adopt(&mut self, metrics: &Metrics) {
        if let (true, Metrics::Pairs(metrics)) = (self.tuned, metrics) {
            self.threshold = metrics.threshold;
        }
    }
}

/// `[rows]`, of unit vectors.
fn cosines(columns: &[Tensor]) -> Result<Tensor, Error> {
    Ok((&columns[0] * &columns[1])?.sum(D::Minus1)?)
}

/// The mean of `(cosine - label)²`.
fn squared_distance(cosines: &Tensor, targets: &Targets) -> Result<Tensor, Error> {
    #[allow(clippy::cast_precision_loss)] // 0 or 1.
    let labels = targets.classes().iter().map(|&label| label as f32);
    let labels = Tensor::from_iter(labels, cosines.device())?;
    Ok((cosines - labels)?.sqr()?.mean_all()?)
}

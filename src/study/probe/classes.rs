//! Probes that tell classes.

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;

use super::logistic::{Labelled, Logistic};
use super::mixture::{Mixture, add_weights};
use super::scaling::Scaling;
use super::training::{ProbeSettings, fit};
use super::{Features, Readings, Scores};
use crate::progress::Progress;
use crate::study::Error;

/// Test examples that are looked at together.
const AT_A_TIME: usize = 1024;

/// A linear map to the classes from the layers' mixture.
struct MixedProbe {
    mixture: Mixture,
    /// `[width, classes]`.
    weight: Var,
    /// `[classes]`.
    bias: Var,
}

impl MixedProbe {
    fn new(layers: usize, width: usize, classes: usize) -> Result<Self, Error> {
        Ok(Self {
            mixture: Mixture::new(layers, width)?,
            weight: Var::zeros((width, classes), DType::F32, &Device::Cpu)?,
            bias: Var::zeros(classes, DType::F32, &Device::Cpu)?,
        })
    }

    fn variables(&self) -> Vec<Var> {
        let own = [&self.weight, &self.bias].into_iter().cloned();
        own.chain(self.mixture.variables()).collect()
    }

    /// Of `features` `[examples, layers, width]`: `[examples, classes]`.
    fn scores(&self, features: &Tensor) -> Result<Tensor, Error> {
        let scores = self.mixture.mix(features)?.matmul(&self.weight)?;
        Ok(scores.broadcast_add(&self.bias)?)
    }

    /// The mean cross-entropy, and `penalty` ‖W‖².
    fn loss(&self, features: &Tensor, classes: &Tensor, penalty: f64) -> Result<Tensor, Error> {
        let entropy = cross_entropy(&self.scores(features)?, classes)?;
        Ok((entropy + (self.weight.sqr()?.sum_all()? * penalty)?)?)
    }
}

/// Trains probes of `classes` classes on `train`, features and the class of each example, and tells what of
/// `test` they tell right, so that the mean is their accuracy: for each layer a logistic regression, and by
/// `settings` one over the mixture of all. `label` stands before the progress.
///
/// # Panics
/// If there is nothing to test on.
pub fn probe_classes(
    train: (&Features, &[u32]),
    test: (&Features, &[u32]),
    classes: usize,
    settings: &ProbeSettings,
    label: &str,
) -> Result<Readings, Error> {
    let ((seen, known), (unseen, expected)) = (train, test);
    assert!(!expected.is_empty(), "something to test on");
    let scaling = Scaling::of(seen);
    let layers = seen.layers();
    let mut progress = Progress::new(label, layers as u64, "layers");
    let mut readings = Vec::with_capacity(layers);
    // The accuracy by which the best layer's penalty was chosen, and that penalty.
    let mut best = (f64::NEG_INFINITY, 1.0);
    for layer in 0..layers {
        let of_layer = |features, classes| Labelled::new(scaling.layer(features, layer), classes);
        let fitted = Logistic::fit(&of_layer(seen, known), classes)?;
        readings.push(fitted.test(&of_layer(unseen, expected)));
        if fitted.chosen_by > best.0 {
            best = (fitted.chosen_by, fitted.penalty);
        }
        progress.advance(1);
    }
    drop(progress);
    let examples = seen.examples();
    let penalty = best.1 / (2.0 * examples as f64);
    let probe = MixedProbe::new(layers, seen.width(), classes)?;
    let seen = scaling.applied(seen.clone()).into_tensor()?;
    let known = Tensor::new(known, &Device::Cpu)?;
    let label = format!("{label}, mixed");
    fit(probe.variables(), examples, settings, &label, |batch, _| {
        let batch = Tensor::new(batch, &Device::Cpu)?;
        let features = seen.index_select(&batch, 0)?;
        probe.loss(&features, &known.index_select(&batch, 0)?, penalty)
    })?;
    let mut right = Vec::with_capacity(expected.len());
    let mut weights = vec![0.0; layers];
    for (part, classes) in expected.chunks(AT_A_TIME).enumerate() {
        let first = part * AT_A_TIME;
        let part = unseen.select(first..first + classes.len());
        let features = scaling.applied(part).into_tensor()?;
        let guessed = probe.scores(&features)?.argmax(D::Minus1)?;
        let guessed = guessed.to_vec1::<u32>()?;
        let pairs = guessed.iter().zip(classes);
        right.extend(pairs.map(|(guess, class)| guess == class));
        add_weights(&mut weights, &probe.mixture.weights(&features)?)?;
    }
    let count = expected.len() as f64;
    Ok(Readings {
        layers: readings,
        mixed: Scores::right(right),
        weights: weights.into_iter().map(|sum| sum / count).collect(),
    })
}

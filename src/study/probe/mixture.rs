//! Layers mixed with learned weights.

use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::ops::softmax;

use crate::study::Error;

/// Weights that depend on the example: a softmax over the layers of one score each, as the stored
/// results of Telly's paper have them (means over examples of weights for each).
pub(super) struct Mixture {
    /// `[layers, width]`.
    scores: Var,
    /// `[layers]`.
    bias: Var,
}

impl Mixture {
    /// All layers alike, to begin with.
    pub(super) fn new(layers: usize, width: usize) -> Result<Self, Error> {
        Ok(Self {
            scores: Var::zeros((layers, width), DType::F32, &Device::Cpu)?,
            bias: Var::zeros(layers, DType::F32, &Device::Cpu)?,
        })
    }

    /// What is learnt.
    pub(super) fn variables(&self) -> [Var; 2] {
        [self.scores.clone(), self.bias.clone()]
    }

    /// The weights `[examples, layers]` for `features` `[examples, layers, width]`.
    pub(super) fn weights(&self, features: &Tensor) -> Result<Tensor, Error> {
        let scores = features.broadcast_mul(&self.scores)?.sum(D::Minus1)?;
        Ok(softmax(&scores.broadcast_add(&self.bias)?, D::Minus1)?)
    }

    /// `features` `[examples, layers, width]`, mixed: `[examples, width]`.
    pub(super) fn mix(&self, features: &Tensor) -> Result<Tensor, Error> {
        let weights = self.weights(features)?.unsqueeze(2)?;
        Ok(features.broadcast_mul(&weights)?.sum(1)?)
    }
}

/// The sum over the examples of `weights` `[examples, layers]`, added to `sums`.
pub(super) fn add_weights(sums: &mut [f64], weights: &Tensor) -> Result<(), Error> {
    for (sum, weight) in sums.iter_mut().zip(weights.sum(0)?.to_vec1::<f32>()?) {
        *sum += f64::from(weight);
    }
    Ok(())
}

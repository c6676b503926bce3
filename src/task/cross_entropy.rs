//! Cross-entropy with class weights and label smoothing, as PyTorch's `CrossEntropyLoss`.

use candle_core::{D, Tensor};
use candle_nn::ops::log_softmax;

use super::Error;

/// What a classifier is trained by. Of a row with the class `y`, out of C classes that it gives
/// the probabilities `p`, with the class weights `w` and the label smoothing `ε`, the loss is
///
/// `- (1 - ε) w_y log p_y - ε / C · Σ_c w_c log p_c`
///
/// and that of several rows is the sum of theirs, divided by the sum of their `w_y`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CrossEntropy {
    /// The share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// A weight a class; all 1 when absent.
    pub class_weights: Option<Vec<f64>>,
}

impl CrossEntropy {
    /// Of `logits` `[rows, classes]` against the classes `labels`: a scalar.
    pub(super) fn loss(&self, logits: &Tensor, labels: &[i64]) -> Result<Tensor, Error> {
        let device = logits.device();
        let targets = Tensor::from_slice(labels, labels.len(), device)?;
        if *self == Self::default() {
            return Ok(candle_nn::loss::cross_entropy(logits, &targets)?);
        }
        let classes = logits.dim(D::Minus1)?;
        let weights = match &self.class_weights {
            Some(weights) => Tensor::new(weights.as_slice(), device)?.to_dtype(logits.dtype())?,
            None => Tensor::ones(classes, logits.dtype(), device)?,
        };
        let logarithms = log_softmax(logits, D::Minus1)?.broadcast_mul(&weights)?;
        let of_target = logarithms.gather(&targets.unsqueeze(1)?, D::Minus1)?;
        let of_target = (of_target.sum_all()? * (self.label_smoothing - 1.0))?;
        let smooth = (logarithms.sum_all()? * (-self.label_smoothing / classes as f64))?;
        Ok(((of_target + smooth)? / self.weight(labels))?)
    }

    /// What rows of the classes `labels` weigh together.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation)]
    pub(super) fn weight(&self, labels: &[i64]) -> f64 {
        match &self.class_weights {
            Some(weights) => labels.iter().map(|&label| weights[label as usize]).sum(),
            None => labels.len() as f64,
        }
    }
}

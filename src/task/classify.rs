//! `classify`: one label a text. A pooled vector, dropout, a linear layer, cross-entropy.

use candle_core::Tensor;

use super::Error;
use super::cross_entropy::CrossEntropy;
use super::metrics::ClassificationMetrics;
use crate::dataset::FieldChoice;
use crate::trainable::ops::{dropout, linear};
use crate::trainable::{Parameters, Pass, Site, Weight};

/// Tensor names of the head, as in transformers' `…ForSequenceClassification` of BERT.
pub(super) const WEIGHT: &str = "classifier.weight";
pub(super) const BIAS: &str = "classifier.bias";

/// `--text-field`: CodeXGLUE's `func` and `code`, or a text.
pub(super) fn text_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new("--text-field", named, &["text", "sentence", "func", "code"])
}

/// `--label-field`: CodeXGLUE's `target`, or a label.
pub(super) fn label_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new("--label-field", named, &["label", "target"])
}

/// Dropout and a linear layer on top of the pooled vector.
pub(super) struct Classifier {
    weight: Weight,
    bias: Weight,
    dropout: f64,
}

impl Classifier {
    /// Adds the head's tensors, `weight` `[classes, hidden]` and zero biases, to `parameters`.
    pub(super) fn new(
        parameters: &mut Parameters,
        classes: usize,
        weight: Vec<f32>,
        dropout: f64,
    ) -> Result<Self, Error> {
        let hidden = weight.len() / classes;
        Ok(Self {
            weight: parameters.add(WEIGHT, &[classes, hidden], weight)?,
            bias: parameters.add(BIAS, &[classes], vec![0.0; classes])?,
            dropout,
        })
    }

    /// `[rows, hidden]` to logits `[rows, classes]`.
    pub(super) fn logits(&self, pooled: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        let pooled = dropout(pooled, pass.dropout(Site::Head, self.dropout), 0)?;
        Ok(linear(&pooled, &self.weight, &self.bias)?)
    }
}

/// Metrics from logits `[rows, classes]`. The loss is the plain cross-entropy, whatever is trained
/// with, so that runs can be compared.
pub(super) fn metrics(logits: &Tensor, labels: &[i64]) -> Result<ClassificationMetrics, Error> {
    let loss = f64::from(
        CrossEntropy::default()
            .loss(logits, labels)?
            .to_scalar::<f32>()?,
    );
    let predictions = logits.argmax(1)?.to_vec1::<u32>()?;
    let classes = logits.dim(1)?;
    Ok(ClassificationMetrics::new(
        &predictions,
        labels,
        classes,
        loss,
    ))
}

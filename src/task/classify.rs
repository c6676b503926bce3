//! `classify`: one label a text. A pooled vector, dropout, a linear layer, cross-entropy.

use candle_core::Tensor;

use super::Error;
use super::head::{EmbeddedSplit, Head, HeadBuilder, HeadSettings, Predictions};
use super::metrics::{ClassificationMetrics, Metrics};
use crate::dataset::FieldChoice;
use crate::targets::Targets;
use crate::trainable::ops::{dropout, linear};
use crate::trainable::{Pass, Site, Weight};

/// `--text-field`: CodeXGLUE's `func` and `code`, or a text.
pub(super) fn text_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new("--text-field", named, &["text", "sentence", "func", "code"])
}

/// `--label-field`: CodeXGLUE's `target`, or a label.
pub(super) fn label_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new("--label-field", named, &["label", "target"])
}

/// Dropout and a linear layer on top of the pooled vector, under the names of transformers'
/// `…ForSequenceClassification` of BERT.
pub(super) struct Classifier {
    weight: Weight,
    bias: Weight,
    dropout: f64,
}

impl Classifier {
    /// Of `classes`.
    pub(super) fn new(builder: &mut HeadBuilder, classes: usize) -> Result<Self, Error> {
        let hidden = builder.hidden();
        let (weight, bias) = builder.linear("classifier", classes, hidden)?;
        Ok(Self {
            weight,
            bias,
            dropout: builder.dropout(),
        })
    }

    /// `[rows, hidden]` to logits `[rows, classes]`.
    fn logits(&self, pooled: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        let pooled = dropout(pooled, pass.dropout(Site::Head, self.dropout), 0)?;
        Ok(linear(&pooled, &self.weight, &self.bias)?)
    }
}

impl Head for Classifier {
    fn settings(&self) -> HeadSettings {
        HeadSettings::Linear {
            classes: self.bias.elem_count(),
        }
    }

    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        Ok(pooled.clone())
    }

    fn loss(&self, columns: &[Tensor], targets: &Targets, pass: &Pass) -> Result<Tensor, Error> {
        cross_entropy(&self.logits(&columns[0], pass)?, targets)
    }

    fn logits(&self, columns: &[Tensor], pass: &Pass) -> Result<Option<Tensor>, Error> {
        Self::logits(self, &columns[0], pass).map(Some)
    }

    fn predict(&self, columns: &[Tensor], pass: &Pass) -> Result<Predictions, Error> {
        let logits = self.logits(&columns[0], pass)?;
        let probabilities = candle_nn::ops::softmax(&logits, 1)?;
        Ok(Predictions::Probabilities(probabilities))
    }

    fn metrics(&self, split: &EmbeddedSplit, pass: &Pass) -> Result<Metrics, Error> {
        let logits = self.logits(&split.columns[0], pass)?;
        let loss = cross_entropy(&logits, split.targets)?.to_scalar::<f32>()?;
        let predictions = logits.argmax(1)?.to_vec1::<u32>()?;
        Ok(Metrics::Classification(ClassificationMetrics::new(
            &predictions,
            split.targets.classes(),
            logits.dim(1)?,
            f64::from(loss),
        )))
    }
}

/// Mean cross-entropy of `logits` `[rows, classes]` against the rows' classes.
pub(super) fn cross_entropy(logits: &Tensor, targets: &Targets) -> Result<Tensor, Error> {
    let classes = targets.classes();
    let classes = Tensor::from_slice(classes, classes.len(), logits.device())?;
    Ok(candle_nn::loss::cross_entropy(logits, &classes)?)
}

//! `classify`: one label a text. A pooled vector, dropout, a linear layer, cross-entropy.

use candle_core::Tensor;

use super::head::{EmbeddedSplit, Head, HeadBuilder, Predictions};
use super::metrics::{ClassificationMetrics, Metrics};
use super::{CrossEntropy, Error};
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
    criterion: CrossEntropy,
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
            criterion: CrossEntropy::default(),
        })
    }

    /// `[rows, hidden]` to logits `[rows, classes]`.
    fn logits(&self, pooled: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        let pooled = dropout(pooled, pass.dropout(Site::Head, self.dropout), 0)?;
        Ok(linear(&pooled, &self.weight, &self.bias)?)
    }
}

impl Head for Classifier {
    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        Ok(pooled.clone())
    }

    fn loss(&self, columns: &[Tensor], targets: &Targets, pass: &Pass) -> Result<Tensor, Error> {
        self.criterion
            .loss(&self.logits(&columns[0], pass)?, targets.classes())
    }

    fn predict(&self, columns: &[Tensor], pass: &Pass) -> Result<Predictions, Error> {
        let logits = self.logits(&columns[0], pass)?;
        let probabilities = candle_nn::ops::softmax(&logits, 1)?;
        Ok(Predictions::Probabilities(probabilities))
    }

    fn metrics(&self, split: &EmbeddedSplit, pass: &Pass) -> Result<Metrics, Error> {
        let logits = self.logits(&split.columns[0], pass)?;
        // The plain one, whatever is trained by, so that runs can be compared.
        let loss = CrossEntropy::default().loss(&logits, split.targets.classes())?;
        let loss = loss.to_scalar::<f32>()?;
        let predictions = logits.argmax(1)?.to_vec1::<u32>()?;
        Ok(Metrics::Classification(ClassificationMetrics::new(
            &predictions,
            split.targets.classes(),
            logits.dim(1)?,
            f64::from(loss),
        )))
    }

    fn metric_names(&self) -> Vec<String> {
        Metrics::Classification(ClassificationMetrics::new(&[], &[], 0, 0.0)).names()
    }

    fn weight(&self, targets: &Targets, _rows: usize) -> f64 {
        self.criterion.weight(targets.classes())
    }

    fn classes(&self) -> Option<usize> {
        Some(self.bias.elem_count())
    }

    fn learn_by(&mut self, criterion: CrossEntropy) {
        self.criterion = criterion;
    }
}

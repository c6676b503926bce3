//! `classify`: labels or a number for a text. A pooled vector, one or two layers on top of it.

use candle_core::{D, Tensor};

use super::head::{EmbeddedSplit, Head, HeadBuilder, HeadSettings, Predictions, RowScores};
use super::metrics::Metrics;
use super::{CrossEntropy, Error, Objective};
use crate::checkpoint::Activation;
use crate::dataset::FieldChoice;
use crate::targets::Targets;
use crate::trainable::ops::{dropout, layer_norm, linear};
use crate::trainable::{Pass, Site, Weight};

/// `--text-field`: CodeXGLUE's `func` and `code`, or a text.
pub(super) fn text_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new("--text-field", named, &["text", "sentence", "func", "code"])
}

/// `--label-field`: CodeXGLUE's `target`, or a label.
pub fn label_field(named: Option<&str>) -> FieldChoice {
    FieldChoice::new("--label-field", named, &["label", "target"])
}

/// What a linear head and that of BERT call their last layer.
const CLASSIFIER: &str = "classifier";

/// Layers on top of the pooled vector, under the names of transformers'
/// `…ForSequenceClassification`.
pub(super) struct Classifier {
    hidden: Option<HiddenLayer>,
    weight: Weight,
    bias: Weight,
    dropout: f64,
    objective: Objective,
    criterion: CrossEntropy,
}

/// The layer below the last.
struct HiddenLayer {
    weight: Weight,
    bias: Option<Weight>,
    activation: Activation,
    norm: Option<HiddenNorm>,
    /// Whether its input too goes through dropout.
    drops_input: bool,
}

/// A LayerNorm over what the activation puts out.
struct HiddenNorm {
    weight: Weight,
    bias: Option<Weight>,
    epsilon: f64,
}

impl HiddenLayer {
    fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let x = match &self.bias {
            Some(bias) => linear(x, &self.weight, bias)?,
            None => x.matmul(&self.weight.t()?)?,
        };
        let x = match self.activation {
            Activation::Tanh => x.tanh()?,
            Activation::Relu => x.relu()?,
            Activation::Gelu => x.gelu_erf()?,
            Activation::Identity => x,
        };
        let Some(norm) = &self.norm else {
            return Ok(x);
        };
        let bias = norm.bias.as_deref();
        Ok(layer_norm(&x, &norm.weight, bias, norm.epsilon)?)
    }
}

impl Classifier {
    /// Dropout and one layer to `outputs`.
    pub(super) fn linear(
        builder: &mut HeadBuilder,
        outputs: usize,
        objective: Objective,
    ) -> Result<Self, Error> {
        let width = builder.hidden();
        let (weight, bias) = builder.linear(CLASSIFIER, outputs, width)?;
        Ok(Self {
            hidden: None,
            weight,
            bias,
            dropout: builder.dropout(),
            objective,
            criterion: CrossEntropy::default(),
        })
    }

    /// The family's own layers: BERT's pooler, its weights the checkpoint's; `RoBERTa`'s and
    /// MPNet's two layers with dropout before each; `DistilBERT`'s two with a rectifier between;
    /// `ModernBERT`'s two with a norm between, its weights and the first layer's the checkpoint's.
    pub(super) fn hugging_face(
        builder: &mut HeadBuilder,
        outputs: usize,
        objective: Objective,
    ) -> Result<Self, Error> {
        let head = builder.sequence_head().ok_or(Error::NoFamilyHead)?;
        let unknown = || Error::UnknownActivation(builder.unknown_activation());
        let activation = head.activation.ok_or_else(unknown)?;
        let width = builder.hidden();
        let (weight, bias) = builder.pretrained(&head.square)?;
        let norm = head.norm.map(|norm| {
            let (weight, bias) = builder.norm(&norm)?;
            let epsilon = builder.epsilon();
            Ok::<_, Error>(HiddenNorm {
                weight,
                bias,
                epsilon,
            })
        });
        let hidden = HiddenLayer {
            weight,
            bias,
            activation,
            norm: norm.transpose()?,
            drops_input: head.drops_input,
        };
        let (weight, bias) = builder.linear(head.last, outputs, width)?;
        Ok(Self {
            hidden: Some(hidden),
            weight,
            bias,
            dropout: builder.dropout(),
            objective,
            criterion: CrossEntropy::default(),
        })
    }

    /// `[rows, hidden]` to `[rows, outputs]`.
    fn outputs(&self, pooled: &Tensor, pass: &Pass) -> Result<Tensor, Error> {
        let drop = |x: &Tensor, site| dropout(x, pass.dropout(site, self.dropout), 0);
        let x = match &self.hidden {
            None => drop(pooled, Site::Head)?,
            Some(hidden) => {
                let x = if hidden.drops_input {
                    drop(pooled, Site::Head)?
                } else {
                    pooled.clone()
                };
                drop(&hidden.forward(&x)?, Site::InsideHead)?
            }
        };
        Ok(linear(&x, &self.weight, &self.bias)?)
    }
}

impl Head for Classifier {
    fn settings(&self) -> HeadSettings {
        let (classes, objective) = (self.bias.elem_count(), self.objective);
        match self.hidden {
            None => HeadSettings::Linear { classes, objective },
            Some(_) => HeadSettings::HuggingFace { classes, objective },
        }
    }

    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        Ok(pooled.clone())
    }

    fn loss(&self, columns: &[Tensor], targets: &Targets, pass: &Pass) -> Result<Tensor, Error> {
        let outputs = self.outputs(&columns[0], pass)?;
        self.objective.loss(&outputs, targets, &self.criterion)
    }

    fn logits(&self, columns: &[Tensor], pass: &Pass) -> Result<Option<Tensor>, Error> {
        self.outputs(&columns[0], pass).map(Some)
    }

    fn predict(&self, columns: &[Tensor], pass: &Pass) -> Result<Predictions, Error> {
        self.objective
            .predictions(&self.outputs(&columns[0], pass)?)
    }

    fn metrics(&self, split: &EmbeddedSplit, pass: &Pass) -> Result<Metrics, Error> {
        let outputs = self.outputs(&split.columns[0], pass)?;
        self.objective.metrics(&outputs, split.targets)
    }

    fn row_scores(&self, split: &EmbeddedSplit, pass: &Pass) -> Result<Option<RowScores>, Error> {
        if self.objective != Objective::SingleLabel {
            return Ok(None);
        }
        let outputs = self.outputs(&split.columns[0], pass)?;
        let found = outputs.argmax(D::Minus1)?.to_vec1::<u32>()?;
        let rows = found.iter().zip(split.targets.classes());
        let scores = rows.map(|(&found, &known)| Some(f64::from(i64::from(found) == known)));
        Ok(Some(scores.collect()))
    }

    fn metrics_of_nothing(&self) -> Metrics {
        self.objective.metrics_of_nothing()
    }

    fn weight(&self, targets: &Targets, rows: usize) -> f64 {
        match self.objective {
            Objective::SingleLabel => self.criterion.weight(targets.classes()),
            Objective::MultiLabel | Objective::Regression => rows as f64,
        }
    }

    fn classes(&self) -> Option<usize> {
        (self.objective == Objective::SingleLabel).then(|| self.bias.elem_count())
    }

    fn learn_by(&mut self, criterion: CrossEntropy) {
        self.criterion = criterion;
    }
}

/// Mean cross-entropy of `logits` `[rows, classes]` against the rows' classes.
pub(super) fn cross_entropy(logits: &Tensor, targets: &Targets) -> Result<Tensor, Error> {
    CrossEntropy::default().loss(logits, targets.classes())
}

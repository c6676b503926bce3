//! `--objective`: what a classifier's outputs stand for, as transformers' `problem_type`.

use std::fmt;

use candle_core::{D, Tensor};
use candle_nn::ops::{sigmoid, softmax};
use serde::{Deserialize, Serialize};

use super::head::Predictions;
use super::metrics::{ClassificationMetrics, Metrics};
use super::multi_label::MultiLabelMetrics;
use super::regression::RegressionMetrics;
use super::{CrossEntropy, Error};
use crate::targets::Targets;

/// What is learnt of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// One of several classes: cross-entropy over the classes.
    #[default]
    SingleLabel,
    /// Any number of several labels: binary cross-entropy of each.
    MultiLabel,
    /// A number: squared error.
    Regression,
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::SingleLabel => "single-label",
            Self::MultiLabel => "multi-label",
            Self::Regression => "regression",
        })
    }
}

impl Objective {
    /// Whether it is the one of caches and runs that do not say.
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The mean loss of `outputs` `[rows, outputs]`, a scalar.
    ///
    /// # Panics
    /// If the targets are of another kind.
    pub(super) fn loss(
        self,
        outputs: &Tensor,
        targets: &Targets,
        criterion: &CrossEntropy,
    ) -> Result<Tensor, Error> {
        let device = outputs.device();
        match (self, targets) {
            (Self::SingleLabel, targets) => criterion.loss(outputs, targets.classes()),
            (Self::MultiLabel, Targets::Sets { classes, members }) => {
                let shape = (members.len() / classes, *classes);
                let members = members.iter().map(|&member| f32::from(member));
                let members = Tensor::from_vec(members.collect(), shape, device)?;
                binary_cross_entropy(outputs, &members)
            }
            (Self::Regression, Targets::Numbers(numbers)) => {
                let numbers = Tensor::from_slice(numbers, (numbers.len(), 1), device)?;
                Ok((outputs - numbers)?.sqr()?.mean_all()?)
            }
            _ => panic!("targets are those of the encoding that the head was made for"),
        }
    }

    /// What `outputs` `[rows, outputs]` say.
    pub(super) fn predictions(self, outputs: &Tensor) -> Result<Predictions, Error> {
        Ok(match self {
            Self::SingleLabel => Predictions::Probabilities(softmax(outputs, D::Minus1)?),
            Self::MultiLabel => Predictions::Labels(sigmoid(outputs)?),
            Self::Regression => Predictions::Numbers(outputs.flatten_all()?.to_vec1()?),
        })
    }

    /// How good `outputs` `[rows, outputs]` are. The loss is the plain one, whatever is trained
    /// by, so that runs can be compared.
    pub(super) fn metrics(self, outputs: &Tensor, targets: &Targets) -> Result<Metrics, Error> {
        let loss = self.loss(outputs, targets, &CrossEntropy::default())?;
        let loss = f64::from(loss.to_scalar::<f32>()?);
        let classes = outputs.dim(D::Minus1)?;
        Ok(match targets {
            Targets::Sets { members, .. } => {
                let outputs = outputs.flatten_all()?.to_vec1::<f32>()?;
                // A probability of a half and more.
                let found: Vec<bool> = outputs.into_iter().map(|output| output >= 0.0).collect();
                let members: Vec<bool> = members.iter().map(|&member| member == 1).collect();
                Metrics::MultiLabel(MultiLabelMetrics::new(&found, &members, classes, loss))
            }
            Targets::Numbers(numbers) => {
                let outputs = outputs.flatten_all()?.to_vec1::<f32>()?;
                Metrics::Regression(RegressionMetrics::new(&outputs, numbers, loss))
            }
            _ => {
                let found = outputs.argmax(D::Minus1)?.to_vec1::<u32>()?;
                let known = targets.classes();
                let metrics = ClassificationMetrics::new(&found, known, classes, loss);
                Metrics::Classification(metrics)
            }
        })
    }

    /// The metrics of no rows.
    pub(super) fn metrics_of_nothing(self) -> Metrics {
        match self {
            Self::SingleLabel => {
                Metrics::Classification(ClassificationMetrics::new(&[], &[], 0, 0.0))
            }
            Self::MultiLabel => Metrics::MultiLabel(MultiLabelMetrics::new(&[], &[], 1, 0.0)),
            Self::Regression => Metrics::Regression(RegressionMetrics::new(&[], &[], 0.0)),
        }
    }
}

/// Mean binary cross-entropy of `logits` against `members`, 0 or 1, of the same shape: that of
/// PyTorch's `BCEWithLogitsLoss`, written so that no exponential overflows.
fn binary_cross_entropy(logits: &Tensor, members: &Tensor) -> Result<Tensor, Error> {
    let linear = (logits.relu()? - (logits * members)?)?;
    let rest = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((linear + rest)?.mean_all()?)
}

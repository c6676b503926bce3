//! What stands on top of a model that writes text: the matrix from states to words, and the mean
//! cross-entropy of the tokens that are scored.

use candle_core::Tensor;

use super::head::{EmbeddedSplit, Head, HeadBuilder, HeadSettings, Predictions};
use super::text_metrics::{TextMetrics, TextTask};
use super::{Error, Metrics};
use crate::checkpoint::{Freeze, OUTPUT_MATRIX};
use crate::targets::Targets;
use crate::trainable::{Gradients, OutputMatrix, Pass};

/// The matrix `[vocabulary, hidden]`, without a bias.
pub(super) struct LanguageHead {
    task: TextTask,
    train_head: bool,
    matrix: OutputMatrix,
}

impl LanguageHead {
    /// The checkpoint's matrix. Where nothing is frozen it is trained, as the table of the embeddings
    /// if it is that; else it is frozen with the embeddings, as in the paper, or with `train_head` a
    /// copy of it is trained.
    pub(super) fn new(
        builder: &mut HeadBuilder,
        task: TextTask,
        train_head: bool,
    ) -> Result<Self, Error> {
        let head = builder.language_head();
        let matrix = if builder.freeze == Freeze::Nothing {
            match builder.parameter(&head.name) {
                Some(tied) if !train_head => OutputMatrix::Trained(tied),
                _ => OutputMatrix::Trained(builder.own_matrix(&head.name, OUTPUT_MATRIX)?),
            }
        } else if train_head {
            OutputMatrix::Trained(builder.own_matrix(&head.name, OUTPUT_MATRIX)?)
        } else {
            OutputMatrix::Frozen(builder.frozen_matrix(&head.name)?)
        };
        Ok(Self {
            task,
            train_head,
            matrix,
        })
    }
}

impl Head for LanguageHead {
    fn settings(&self) -> HeadSettings {
        HeadSettings::Language {
            task: self.task,
            train_head: self.train_head,
        }
    }

    fn embed(&self, pooled: &Tensor) -> Result<Tensor, Error> {
        Ok(pooled.clone())
    }

    fn loss(&self, columns: &[Tensor], targets: &Targets, pass: &Pass) -> Result<Tensor, Error> {
        let loss = self.matrix.loss(&columns[0], targets.tokens(), pass)?;
        Ok(loss.mean()?)
    }

    fn total_loss(
        &self,
        vectors: &Tensor,
        targets: &Targets,
        pass: &Pass,
    ) -> Result<Option<f64>, Error> {
        let loss = self.matrix.loss(vectors, targets.tokens(), pass)?;
        Ok(Some(loss.sum()?))
    }

    fn loss_and_gradient(
        &self,
        vectors: &Tensor,
        (targets, share): (&Targets, f64),
        pass: &Pass,
        gradients: &mut Gradients,
    ) -> Option<Result<(Tensor, Tensor), Error>> {
        let tokens = targets.tokens();
        let scale = share / tokens.len().max(1) as f64;
        let found = self
            .matrix
            .gradients(vectors, tokens, scale, pass, gradients);
        Some(
            found
                .map_err(Error::from)
                .and_then(|(loss, gradient)| Ok((loss.mean()?, gradient))),
        )
    }

    fn predict(&self, _: &[Tensor], _: &Pass) -> Result<Predictions, Error> {
        unreachable!("text is written a token at a time")
    }

    fn metrics(&self, _: &EmbeddedSplit, _: &Pass) -> Result<Metrics, Error> {
        unreachable!("the states of a whole split are never held: see `evaluate`")
    }

    fn metrics_of_nothing(&self) -> Metrics {
        Metrics::Text(TextMetrics::of_loss(self.task, 0.0))
    }

    fn weight(&self, targets: &Targets, _: usize) -> f64 {
        targets.scored() as f64
    }

    fn frozen_numbers(&self) -> usize {
        match &self.matrix {
            OutputMatrix::Frozen(matrix) => matrix.elem_count(),
            OutputMatrix::Trained(_) => 0,
        }
    }

    fn task(&self) -> Option<TextTask> {
        Some(self.task)
    }
}

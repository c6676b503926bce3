//! One encoder layer, forward and backward.

use super::buffers::Buffer;
use super::layer_norm::RowDropout;
use super::post_norm::PostNormTape;
use super::pre_norm::PreNormTape;
use super::relative_bias::RelativeBias;
use super::rotary::Turn;
use super::rows::Rows;
use super::{Profile, Workspace};
use crate::checkpoint::NormPlacement;
use crate::trainable::gradients::Gradients;
use crate::trainable::layers::{EncoderLayer, Norm};
use crate::trainable::relative_position::RelativePositions;
use crate::trainable::{Dropout, Error, Packing};

/// Dropout of one layer in one pass.
#[derive(Clone, Copy)]
pub(super) struct LayerDropout {
    /// Of the attention probabilities.
    pub(super) probabilities: Option<Dropout>,
    /// Of what attention puts out.
    pub(super) attention: Option<Dropout>,
    /// Of the gated product, or else of what the feed-forward part puts out.
    pub(super) feed_forward: Option<Dropout>,
}

/// One layer in one pass.
#[derive(Clone, Copy)]
pub(super) struct LayerPass<'p, 'w> {
    pub(super) layer: &'w EncoderLayer,
    pub(super) workspace: &'w Workspace,
    pub(super) packing: &'p Packing,
    /// Tokens whose state is read from this layer; keys and values are computed for all.
    pub(super) rows: Rows<'p>,
    pub(super) hidden_size: usize,
    /// What all layers add to their attention scores.
    pub(super) bias: Option<(&'p RelativeBias, &'w RelativePositions)>,
    /// How queries and keys are turned by their positions.
    pub(super) turn: Option<&'p Turn>,
    pub(super) dropout: LayerDropout,
}

/// What a forward pass keeps for the backward pass.
pub(super) enum LayerTape<'a> {
    PostNorm(PostNormTape<'a>),
    PreNorm(PreNormTape<'a>),
}

impl<'p, 'w> LayerPass<'p, 'w> {
    /// `x` `[tokens, hidden]` to the states of the rows that are read, `[rows, hidden]`.
    pub(super) fn forward(&self, x: &[f32]) -> Result<(Buffer<'w>, LayerTape<'w>), Error> {
        if let Some(norm) = self.norm_behind_attention() {
            let (y, tape) = self.post_norm_forward(norm, x)?;
            return Ok((y, LayerTape::PostNorm(tape)));
        }
        let (y, tape) = self.pre_norm_forward(x)?;
        Ok((y, LayerTape::PreNorm(tape)))
    }

    /// From the gradient of what [`forward`](Self::forward) put out for `x` to those of the
    /// parameters and, if `of_input`, of `x`.
    pub(super) fn backward(
        &self,
        tape: LayerTape<'w>,
        x: &[f32],
        gradient: Buffer<'w>,
        gradients: &mut Gradients,
        of_input: bool,
    ) -> Result<Option<Buffer<'w>>, Error> {
        match (tape, self.norm_behind_attention()) {
            (LayerTape::PostNorm(tape), Some(norm)) => {
                self.post_norm_backward(norm, tape, x, gradient, gradients, of_input)
            }
            (LayerTape::PreNorm(tape), _) => {
                self.pre_norm_backward(tape, x, gradient, gradients, of_input)
            }
            (LayerTape::PostNorm(_), None) => unreachable!("the tape is this layer's"),
        }
    }

    fn norm_behind_attention(&self) -> Option<&'w Norm> {
        match self.layer.norms {
            NormPlacement::AfterResidual => self.layer.attention_norm.as_ref(),
            NormPlacement::BeforeBlock => None,
        }
    }

    pub(super) fn profile(&self) -> &'w Profile {
        &self.workspace.profile
    }

    pub(super) fn row_dropout(&self, dropout: Option<Dropout>) -> Option<RowDropout<'p>> {
        dropout.map(|dropout| RowDropout {
            dropout,
            rows: self.rows,
            first_token: self.packing.first_token,
        })
    }
}
